//! The answer to a SYN by which nothing is remembered: a SYN-ACK of which the sequence number is a cookie that the kernel made.
//!
//! Headers are arrays of 32-bit words in host byte order until the last step: a checksum is then a sum of halves of words, without
//! a loop over octets that the verifier would have to follow.

use crate::abi::tcp_flags as flag;
use crate::decode::{Reader, ether_type, ethernet, protocol};

/// Bytes of a plain header, RFC 791 section 3.1 and RFC 8200 section 3.
pub const IPV4_HEADER_BYTES: usize = 20;
pub const IPV6_HEADER_BYTES: usize = 40;

/// The header of the SYN that is answered, options included (RFC 9293 section 3.1). Like all that bounds a place in the packet it is as
/// wide as a register: older verifiers lose a bound when a word is widened.
pub const TCP_HEADER_BYTES_MIN: u64 = 20;
pub const TCP_HEADER_BYTES_MAX: u64 = 60;

/// Words of the answer from its IP header on. Of IPv4 the last one is padding, because a frame has 60 bytes at least (IEEE 802.3).
pub const V4_WORDS: usize = IPV4_WORDS + TCP_WORDS + 1;
pub const V6_WORDS: usize = IPV6_WORDS + TCP_WORDS;

/// Words of a SYN from its IP header on, as far as the answer is made of them.
pub const V4_SYN_WORDS: usize = IPV4_WORDS + 2;
pub const V6_SYN_WORDS: usize = IPV6_WORDS + 2;

const IPV4_WORDS: usize = IPV4_HEADER_BYTES / 4;
const IPV6_WORDS: usize = IPV6_HEADER_BYTES / 4;

/// The fixed header and the maximum segment size. The cookie has no place for other options: without timestamps the kernel would not
/// believe in them.
const TCP_WORDS: usize = 6;
const TCP_BYTES: u32 = TCP_WORDS as u32 * 4;

/// How far the answer may go: Linux's default, too.
const HOPS: u32 = 64;

/// Octets that the client may send before it hears of the kernel's own window: what a client starts with (RFC 6928 section 2: ten
/// segments), and less than a listener has room for by Linux's defaults.
const WINDOW: u32 = 16_384;

/// "Don't fragment", so that the identification may be 0 (RFC 6864 section 4).
const DO_NOT_FRAGMENT: u32 = 0x4000;

/// Kind and length of the option (RFC 9293 section 3.2).
const MSS_OPTION: u32 = 0x0204;

/// A SYN without IPv4 options and extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainSyn {
    pub is_v4: bool,
    /// Where its IP header stands in the frame: behind at most two VLAN tags.
    pub offset: usize,
    /// Octets of its TCP header, 20 to 60 in steps of 4.
    pub tcp_header_bytes: u64,
}

impl PlainSyn {
    /// The frame of a SYN that [`decode`](crate::decode) has understood; none where there is more than plain headers.
    #[inline(always)]
    pub fn find<R: Reader>(packet: &R) -> Option<Self> {
        let (kind, offset) = ethernet(packet).ok()?;
        let is_v4 = kind == ether_type::IPV4;
        let ip_header_bytes = if is_v4 {
            let [version_and_words] = packet.read(offset)?;
            (version_and_words == 0x45).then_some(IPV4_HEADER_BYTES)?
        } else {
            let [next] = packet.read(offset + 6)?;
            (next == protocol::TCP).then_some(IPV6_HEADER_BYTES)?
        };
        let [words] = packet.read(offset + ip_header_bytes + 12)?;
        Some(Self { is_v4, offset, tcp_header_bytes: u64::from(words >> 4) * 4 })
    }
}

/// The answer to a SYN over IPv4: its IP header, its TCP header and padding. `syn` begins with the SYN's IP header, both are in network
/// byte order; `mtu` is what the interface takes, in octets.
#[inline(always)]
pub fn v4(syn: &[u32; V4_SYN_WORDS], cookie: u32, mtu: u32) -> [u32; V4_WORDS] {
    let [_, _, _, client, server, ports, sequence] = syn.map(u32::from_be);
    let total_bytes = IPV4_HEADER_BYTES as u32 + TCP_BYTES;
    let first = 0x4500 << 16 | total_bytes;
    let lifetime = HOPS << 24 | u32::from(protocol::TCP) << 16;
    let addresses = halves(client) + halves(server);
    let sum = halves(first) + DO_NOT_FRAGMENT + halves(lifetime) + addresses;
    let lifetime = lifetime | folded(sum);
    let mss = mss(mtu, IPV4_HEADER_BYTES as u32);
    let [t0, t1, t2, t3, t4, t5] = tcp(ports, sequence, cookie, mss, addresses);
    [first, DO_NOT_FRAGMENT, lifetime, server, client, t0, t1, t2, t3, t4, t5, 0].map(u32::to_be)
}

/// The same over IPv6.
#[inline(always)]
pub fn v6(syn: &[u32; V6_SYN_WORDS], cookie: u32, mtu: u32) -> [u32; V6_WORDS] {
    let [_, _, c0, c1, c2, c3, s0, s1, s2, s3, ports, sequence] = syn.map(u32::from_be);
    let second = TCP_BYTES << 16 | u32::from(protocol::TCP) << 8 | HOPS;
    let client = halves(c0) + halves(c1) + halves(c2) + halves(c3);
    let server = halves(s0) + halves(s1) + halves(s2) + halves(s3);
    let mss = mss(mtu, IPV6_HEADER_BYTES as u32);
    let [t0, t1, t2, t3, t4, t5] = tcp(ports, sequence, cookie, mss, client + server);
    let first = 0x6000_0000;
    [first, second, s0, s1, s2, s3, c0, c1, c2, c3, t0, t1, t2, t3, t4, t5].map(u32::to_be)
}

/// The TCP header in host byte order, to the SYN's ports and sequence number; `addresses` is their part of the sum.
#[inline(always)]
fn tcp(ports: u32, sequence: u32, cookie: u32, mss: u32, addresses: u32) -> [u32; TCP_WORDS] {
    let ports = ports.rotate_left(16);
    let acknowledged = sequence.wrapping_add(1);
    let data_offset = (TCP_WORDS as u32) << 12;
    let control = (data_offset | u32::from(flag::SYN | flag::ACK)) << 16 | WINDOW;
    let option = MSS_OPTION << 16 | mss;
    // The pseudo-header: RFC 9293 section 3.1, RFC 8200 section 8.1.
    let pseudo_header = addresses + u32::from(protocol::TCP) + TCP_BYTES;
    let numbers = halves(ports) + halves(cookie) + halves(acknowledged);
    let check = folded(pseudo_header + numbers + halves(control) + halves(option));
    [ports, cookie, acknowledged, control, check << 16, option]
}

/// What fits into a packet behind the plain headers (RFC 9293 section 3.7.1).
#[inline(always)]
const fn mss(mtu: u32, ip_header_bytes: u32) -> u32 {
    let room = mtu.saturating_sub(ip_header_bytes + TCP_HEADER_BYTES_MIN as u32);
    if room > u16::MAX as u32 { u16::MAX as u32 } else { room }
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

#[cfg(test)]
mod tests;
