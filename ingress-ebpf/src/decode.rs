//! Ethernet frame to TCP segment, as far as steering needs it.
//!
//! Understood: Ethernet II, up to [`TAGS_MAX`] VLAN tags, IPv4 with options, IPv6 with up to
//! [`EXTENSION_HEADERS_MAX`] extension headers, TCP. A fragment is never understood, not even the first one: its
//! successors carry no ports and would take another way. Checksums and lengths beyond the headers are the stack's.
//!
//! Every read is checked against the end of the packet; offsets are bounded by constants (14 bytes of Ethernet, 8 of
//! tags, at most 60 of IPv4 or 40 + 4 x 2,048 of IPv6), which is what lets the verifier follow them.

/// 802.1Q inside 802.1ad: a provider's tag and a customer's.
pub const TAGS_MAX: usize = 2;

/// A TCP segment with more extension headers than this is not sent in earnest (RFC 8200 section 4.1 lists four kinds
/// before the upper layer that we step over).
pub const EXTENSION_HEADERS_MAX: usize = 4;

/// Bounds-checked access to a packet.
pub trait Reader {
    /// The `N` bytes at `offset`; none when the packet ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Reader for &[u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// What steering needs from a TCP segment. Ports and addresses are in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub addresses: Addresses,
    pub source_port: u16,
    pub destination_port: u16,
    /// The control bits of byte 13 (RFC 9293 section 3.1): FIN is bit 0, SYN is bit 1.
    pub flags: u8,
    /// Octets behind the TCP header, by the lengths that the headers give; 0 where those contradict each other.
    pub payload_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    V4 { source: u32, destination: u32 },
    V6 { source: V6, destination: V6 },
}

/// Two words, because a `u128` is no register of any machine we run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V6 {
    pub high: u64,
    pub low: u64,
}

/// Why there is no [`Segment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// A well-formed packet of another protocol.
    NotTcp,
    /// Cut short, a fragment, malformed, or nested deeper than we look.
    NotUnderstood,
}

/// Decodes the frame that begins at offset 0 of `packet`.
///
/// # Errors
/// [`Miss`]; the packet is then left to the stack.
#[inline(always)]
pub fn decode<R: Reader>(packet: &R) -> Result<Segment, Miss> {
    let (ether_type, offset) = ethernet(packet)?;
    match ether_type {
        ether_type::IPV4 => ipv4(packet, offset),
        ether_type::IPV6 => ipv6(packet, offset),
        _ => Err(Miss::NotTcp),
    }
}

/// EtherType of the payload and the offset where it begins, tags stepped over.
#[inline(always)]
pub(crate) fn ethernet<R: Reader>(packet: &R) -> Result<(u16, usize), Miss> {
    let mut at = ethernet_field::ETHER_TYPE;
    let mut kind = u16_at(packet, at)?;
    for _ in 0..TAGS_MAX {
        if !is_tag(kind) {
            break;
        }
        at += ethernet_field::TAG_BYTES;
        kind = u16_at(packet, at)?;
    }
    if is_tag(kind) { Err(Miss::NotUnderstood) } else { Ok((kind, at + 2)) }
}

#[inline(always)]
fn is_tag(kind: u16) -> bool {
    kind == ether_type::VLAN || kind == ether_type::PROVIDER_VLAN
}

#[inline(always)]
fn ipv4<R: Reader>(packet: &R, at: usize) -> Result<Segment, Miss> {
    let [version_and_words] = bytes_at(packet, at)?;
    let header_bytes = usize::from(version_and_words & 0x0f) * 4;
    if version_and_words >> 4 != 4 || header_bytes < ipv4_field::BYTES_MIN {
        return Err(Miss::NotUnderstood);
    }
    // More fragments, or an offset: RFC 791 section 3.1. "Don't fragment" may be set.
    if u16_at(packet, at + ipv4_field::FRAGMENT)? & 0x3fff != 0 {
        return Err(Miss::NotUnderstood);
    }
    let end = at + usize::from(u16_at(packet, at + ipv4_field::TOTAL_LENGTH)?);
    let [protocol] = bytes_at(packet, at + ipv4_field::PROTOCOL)?;
    if protocol != protocol::TCP {
        return Err(Miss::NotTcp);
    }
    let source = u32::from_be_bytes(bytes_at(packet, at + ipv4_field::SOURCE)?);
    let destination = u32::from_be_bytes(bytes_at(packet, at + ipv4_field::DESTINATION)?);
    tcp(packet, at + header_bytes, end, Addresses::V4 { source, destination })
}

#[inline(always)]
fn ipv6<R: Reader>(packet: &R, at: usize) -> Result<Segment, Miss> {
    let [version] = bytes_at(packet, at)?;
    if version >> 4 != 6 {
        return Err(Miss::NotUnderstood);
    }
    let payload_bytes = u16_at(packet, at + ipv6_field::PAYLOAD_LENGTH)?;
    let end = at + ipv6_field::BYTES + usize::from(payload_bytes);
    let [next] = bytes_at(packet, at + ipv6_field::NEXT_HEADER)?;
    let source = v6_at(packet, at + ipv6_field::SOURCE)?;
    let destination = v6_at(packet, at + ipv6_field::DESTINATION)?;
    let at = skip_extension_headers(packet, at + ipv6_field::BYTES, next)?;
    tcp(packet, at, end, Addresses::V6 { source, destination })
}

/// Offset of the TCP header.
#[inline(always)]
fn skip_extension_headers<R: Reader>(packet: &R, at: usize, next: u8) -> Result<usize, Miss> {
    let (mut at, mut next) = (at, next);
    for _ in 0..EXTENSION_HEADERS_MAX {
        let (unit_bytes, units_not_counted) = match next {
            // RFC 8200 sections 4.3, 4.4 and 4.6: in 8-octet units, not counting the first.
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => (8, 1),
            // RFC 4302 section 2.2: in 4-octet units, minus 2.
            protocol::AUTHENTICATION => (4, 2),
            _ => break,
        };
        let [following, units] = bytes_at(packet, at)?;
        at += (usize::from(units) + units_not_counted) * unit_bytes;
        next = following;
    }
    match next {
        protocol::TCP => Ok(at),
        protocol::HOP_BY_HOP
        | protocol::ROUTING
        | protocol::DESTINATION_OPTIONS
        | protocol::AUTHENTICATION
        | protocol::FRAGMENT => Err(Miss::NotUnderstood),
        _ => Err(Miss::NotTcp),
    }
}

#[inline(always)]
fn tcp<R: Reader>(
    packet: &R,
    at: usize,
    end: usize,
    addresses: Addresses,
) -> Result<Segment, Miss> {
    // One read for the whole fixed header: half a header is nothing that the stack would accept either.
    let header: [u8; tcp_field::BYTES_MIN] = bytes_at(packet, at)?;
    let [s0, s1, d0, d1, _, _, _, _, _, _, _, _, words, flags, ..] = header;
    // The header length counts 4-byte words; below 5 it would end inside the fixed part.
    if words >> 4 < 5 {
        return Err(Miss::NotUnderstood);
    }
    let payload_start = at + usize::from(words >> 4) * 4;
    Ok(Segment {
        addresses,
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        flags,
        payload_bytes: end.saturating_sub(payload_start) as u32,
    })
}

#[inline(always)]
fn bytes_at<R: Reader, const N: usize>(packet: &R, offset: usize) -> Result<[u8; N], Miss> {
    packet.read(offset).ok_or(Miss::NotUnderstood)
}

#[inline(always)]
fn u16_at<R: Reader>(packet: &R, offset: usize) -> Result<u16, Miss> {
    Ok(u16::from_be_bytes(bytes_at(packet, offset)?))
}

#[inline(always)]
fn v6_at<R: Reader>(packet: &R, offset: usize) -> Result<V6, Miss> {
    let high = u64::from_be_bytes(bytes_at(packet, offset)?);
    let low = u64::from_be_bytes(bytes_at(packet, offset + 8)?);
    Ok(V6 { high, low })
}

/// Offsets in bytes from the start of the frame.
mod ethernet_field {
    pub(super) const ETHER_TYPE: usize = 12;
    /// A tag moves the EtherType this far.
    pub(super) const TAG_BYTES: usize = 4;
}

/// IEEE 802 numbers.
pub(crate) mod ether_type {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const IPV6: u16 = 0x86dd;
    /// 802.1Q.
    pub(crate) const VLAN: u16 = 0x8100;
    /// 802.1ad.
    pub(crate) const PROVIDER_VLAN: u16 = 0x88a8;
}

/// RFC 791 section 3.1.
mod ipv4_field {
    pub(super) const TOTAL_LENGTH: usize = 2;
    pub(super) const FRAGMENT: usize = 6;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const SOURCE: usize = 12;
    pub(super) const DESTINATION: usize = 16;
    pub(super) const BYTES_MIN: usize = 20;
}

/// RFC 8200 section 3.
mod ipv6_field {
    pub(super) const PAYLOAD_LENGTH: usize = 4;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const SOURCE: usize = 8;
    pub(super) const DESTINATION: usize = 24;
    pub(super) const BYTES: usize = 40;
}

/// RFC 9293 section 3.1.
mod tcp_field {
    pub(super) const BYTES_MIN: usize = 20;
}

/// IANA protocol numbers, which are also the IPv6 next-header values.
pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const DESTINATION_OPTIONS: u8 = 60;
}

#[cfg(test)]
mod tests;
