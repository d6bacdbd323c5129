//! The answer to a SYN by which nothing is remembered: a SYN-ACK of which the sequence number is a cookie that the kernel made.
//!
//! Headers are arrays of 32-bit words in host byte order until the last step: a checksum is then a sum of halves of words, without
//! a loop over octets that the verifier would have to follow.

use crate::abi::tcp_flags as flag;
use crate::decode::{Reader, Segment, V6, ether_type, ethernet, protocol};

/// Bytes of a plain header, RFC 791 section 3.1 and RFC 8200 section 3.
pub const IPV4_HEADER_BYTES: usize = 20;
pub const IPV6_HEADER_BYTES: usize = 40;

/// The header of the SYN that is answered, options included (RFC 9293 section 3.1).
pub const TCP_HEADER_BYTES_MIN: u32 = 20;
pub const TCP_HEADER_BYTES_MAX: u32 = 60;

/// Words of the answer from its IP header on. Of IPv4 the last one is padding, because a frame has 60 bytes at least (IEEE 802.3).
pub const V4_WORDS: usize = IPV4_WORDS + TCP_WORDS + 1;
pub const V6_WORDS: usize = IPV6_WORDS + TCP_WORDS;

const IPV4_WORDS: usize = IPV4_HEADER_BYTES / 4;
const IPV6_WORDS: usize = IPV6_HEADER_BYTES / 4;

/// The fixed header and the maximum segment size. The cookie has no place for other options: without timestamps the kernel would not
/// believe in them.
const TCP_WORDS: usize = 6;
const TCP_BYTES: u32 = TCP_WORDS as u32 * 4;

/// As far as the answer goes, in hops: what Linux sends (RFC 1700).
const HOPS: u32 = 64;

/// Octets that the client may send before it hears of the kernel's own window: what a client starts with (RFC 6928 section 2: ten
/// segments), and less than any listener has room for.
const WINDOW: u32 = 16_384;

/// "Don't fragment", so that the identification may be 0 (RFC 6864 section 4).
const DO_NOT_FRAGMENT: u32 = 0x4000;

/// Kind and length of the option (RFC 9293 section 3.2).
const MSS_OPTION: u32 = 0x0204;

/// A SYN without IPv4 options and extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainSyn {
    /// Where its IP header stands in the frame: behind at most two VLAN tags.
    pub offset: usize,
    pub sequence: u32,
    /// Octets of its TCP header, 20 to 60 in steps of 4.
    pub tcp_header_bytes: u32,
}

impl PlainSyn {
    /// The frame of `segment`, which was decoded from it; none where there is more than plain headers.
    #[inline(always)]
    pub fn find<R: Reader>(packet: &R) -> Option<Self> {
        let (kind, offset) = ethernet(packet).ok()?;
        let ip_header_bytes = match kind {
            ether_type::IPV4 => {
                let [version_and_words] = packet.read(offset)?;
                (version_and_words == 0x45).then_some(IPV4_HEADER_BYTES)?
            }
            ether_type::IPV6 => {
                let [next] = packet.read(offset + 6)?;
                (next == protocol::TCP).then_some(IPV6_HEADER_BYTES)?
            }
            _ => return None,
        };
        let [s0, s1, s2, s3, _, _, _, _, words] = packet.read(offset + ip_header_bytes + 4)?;
        let sequence = u32::from_be_bytes([s0, s1, s2, s3]);
        Some(Self { offset, sequence, tcp_header_bytes: u32::from(words >> 4) * 4 })
    }
}

/// What the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynAck {
    /// Of the client, which the answer goes to.
    pub client_port: u16,
    pub server_port: u16,
    pub cookie: u32,
    /// The SYN's own sequence number.
    pub sequence: u32,
    /// What the interface takes, in octets.
    pub mtu: u32,
}

impl SynAck {
    /// To the SYN `segment`, which is `syn`.
    #[inline(always)]
    pub const fn to(segment: &Segment, syn: PlainSyn, cookie: u32, mtu: u32) -> Self {
        Self {
            client_port: segment.source_port,
            server_port: segment.destination_port,
            cookie,
            sequence: syn.sequence,
            mtu,
        }
    }

    /// IPv4 header, TCP header and padding in network byte order; `client` and `server` in host byte order.
    #[inline(always)]
    pub fn v4(&self, client: u32, server: u32) -> [u32; V4_WORDS] {
        let total_bytes = IPV4_HEADER_BYTES as u32 + TCP_BYTES;
        let first = 0x4500 << 16 | total_bytes;
        let lifetime = HOPS << 24 | (protocol::TCP as u32) << 16;
        let sum = halves(first) + DO_NOT_FRAGMENT + halves(lifetime);
        let addresses = halves(server) + halves(client);
        let lifetime = lifetime | folded(sum + addresses);
        let [ports, sequence, acknowledged, control, check, mss] =
            self.tcp(IPV4_HEADER_BYTES as u32, addresses);
        to_network([
            first,
            DO_NOT_FRAGMENT,
            lifetime,
            server,
            client,
            ports,
            sequence,
            acknowledged,
            control,
            check,
            mss,
            0,
        ])
    }

    /// IPv6 header and TCP header in network byte order.
    #[inline(always)]
    pub fn v6(&self, client: V6, server: V6) -> [u32; V6_WORDS] {
        let second = TCP_BYTES << 16 | (protocol::TCP as u32) << 8 | HOPS;
        let [c0, c1, c2, c3] = v6_words(client);
        let [s0, s1, s2, s3] = v6_words(server);
        let addresses = halves(c0)
            + halves(c1)
            + halves(c2)
            + halves(c3)
            + halves(s0)
            + halves(s1)
            + halves(s2)
            + halves(s3);
        let [ports, sequence, acknowledged, control, check, mss] =
            self.tcp(IPV6_HEADER_BYTES as u32, addresses);
        to_network([
            0x6000_0000,
            second,
            s0,
            s1,
            s2,
            s3,
            c0,
            c1,
            c2,
            c3,
            ports,
            sequence,
            acknowledged,
            control,
            check,
            mss,
        ])
    }

    /// The TCP header in host byte order; `addresses` is their part of the sum.
    #[inline(always)]
    const fn tcp(&self, ip_header_bytes: u32, addresses: u32) -> [u32; TCP_WORDS] {
        let ports = (self.server_port as u32) << 16 | self.client_port as u32;
        let acknowledged = self.sequence.wrapping_add(1);
        let data_offset = (TCP_WORDS as u32) << 12;
        let control = (data_offset | (flag::SYN | flag::ACK) as u32) << 16 | WINDOW;
        let mss = MSS_OPTION << 16 | mss(self.mtu, ip_header_bytes);
        // The pseudo-header: RFC 9293 section 3.1, RFC 8200 section 8.1.
        let pseudo_header = addresses + protocol::TCP as u32 + TCP_BYTES;
        let header = halves(ports)
            + halves(self.cookie)
            + halves(acknowledged)
            + halves(control)
            + halves(mss);
        [ports, self.cookie, acknowledged, control, folded(pseudo_header + header) << 16, mss]
    }
}

/// What fits into a packet behind the plain headers (RFC 9293 section 3.7.1).
#[inline(always)]
const fn mss(mtu: u32, ip_header_bytes: u32) -> u32 {
    let room = mtu.saturating_sub(ip_header_bytes + TCP_HEADER_BYTES_MIN);
    if room > u16::MAX as u32 { u16::MAX as u32 } else { room }
}

/// An address in the order of the header.
#[inline(always)]
pub const fn v6_words(address: V6) -> [u32; 4] {
    let V6 { high, low } = address;
    [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32]
}

/// A word's part of a checksum.
#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// The checksum of what was summed up (RFC 1071): fewer than 2^16 halves.
#[inline(always)]
const fn folded(sum: u32) -> u32 {
    let once = halves(sum);
    !halves(once) & 0xffff
}

#[inline(always)]
fn to_network<const N: usize>(words: [u32; N]) -> [u32; N] {
    words.map(u32::to_be)
}

#[cfg(test)]
mod tests;
