//! The SYNs of the flood benchmark: with right checksums, from made-up addresses.

use crate::abi::tcp_flags;
use crate::decode::{ether_type, protocol};

/// Ethernet, IPv4 and TCP headers without options.
pub const FRAME_BYTES: usize = 54;

/// Benchmark addresses (RFC 2544): 198.18.0.0/15.
const SOURCES: u32 = 0xc612_0000;
const SOURCES_MAX: u32 = 1 << 17;

/// Where the headers and the fields in them begin (RFC 791 and RFC 9293, section 3.1 of each).
const IP: usize = 14;
const IP_CHECKSUM: usize = IP + 10;
const IP_SOURCE: usize = IP + 12;
const TCP: usize = IP + 20;
const TCP_SEQUENCE: usize = TCP + 4;
const TCP_CHECKSUM: usize = TCP + 16;

/// A frame to `target`, an IPv4 address, without source and checksums. `macs`: destination and source.
pub fn template(macs: [[u8; 6]; 2], target: u32, port: u16) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    let [to, from] = macs;
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..IP].copy_from_slice(&ether_type::IPV4.to_be_bytes());
    // Version and length, total length, "don't fragment", time to live.
    frame[IP..IP_CHECKSUM].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol::TCP]);
    frame[IP + 16..TCP].copy_from_slice(&target.to_be_bytes());
    frame[TCP + 2..TCP_SEQUENCE].copy_from_slice(&port.to_be_bytes());
    frame[TCP + 12..TCP_CHECKSUM].copy_from_slice(&[5 << 4, tcp_flags::SYN, 0xff, 0xff]);
    frame
}

/// Makes of a frame of [`template`] the SYN of this number: from so many addresses in turn, or with 0 from all that there are.
#[inline(always)]
pub fn write_syn(frame: &mut [u8; FRAME_BYTES], number: u32, sources: u32) {
    let sources = if sources == 0 { SOURCES_MAX } else { sources };
    let source = SOURCES + number % sources;
    // A port of all above 0, another for each round of the addresses.
    let port = (number.wrapping_mul(0x9e37_79b1) >> 16) as u16 | 1;
    frame[IP_SOURCE..IP_SOURCE + 4].copy_from_slice(&source.to_be_bytes());
    frame[TCP..TCP + 2].copy_from_slice(&port.to_be_bytes());
    frame[TCP_SEQUENCE..TCP_SEQUENCE + 4].copy_from_slice(&number.to_be_bytes());
    frame[IP_CHECKSUM..IP_SOURCE].copy_from_slice(&[0; 2]);
    frame[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&[0; 2]);
    let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, headers @ ..] = *frame;
    let header = sum(&headers, 0, 20);
    // From the addresses on, with protocol and length, as the pseudo-header of RFC 9293 section 3.1 has it.
    let segment = sum(&headers, 12, 40) + protocol::TCP as u32 + 20;
    frame[IP_CHECKSUM..IP_SOURCE].copy_from_slice(&folded(header).to_be_bytes());
    frame[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&folded(segment).to_be_bytes());
}

/// Of the 16-bit words from `begin` to `end` (RFC 1071).
#[inline(always)]
fn sum(headers: &[u8; 40], begin: usize, end: usize) -> u32 {
    let mut sum = 0;
    let mut at = begin;
    while at < end {
        if let (Some(&high), Some(&low)) = (headers.get(at), headers.get(at + 1)) {
            sum += u32::from(u16::from_be_bytes([high, low]));
        }
        at += 2;
    }
    sum
}

#[inline(always)]
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Addresses, decode};

    #[test]
    fn every_syn_has_right_checksums_and_another_connection() {
        let mut frame = template([[2; 6], [4; 6]], 0x0a4d_0002, 25);
        let mut connections = std::collections::HashSet::new();
        for number in 0..10_000 {
            write_syn(&mut frame, number, 100);
            let segment = decode(&frame.as_slice()).unwrap();
            let Addresses::V4 { source, destination } = segment.addresses else { panic!("IPv6") };
            assert_eq!((source, destination), (SOURCES + number % 100, 0x0a4d_0002));
            assert_eq!((segment.flags, segment.destination_port), (tcp_flags::SYN, 25));
            connections.insert((source, segment.source_port));
            let headers: [u8; 40] = frame[IP..].try_into().unwrap();
            // A sum over what holds its own checksum is all ones.
            assert_eq!(folded(sum(&headers, 0, 20)), 0);
            assert_eq!(folded(sum(&headers, 12, 40) + 6 + 20), 0);
        }
        assert!(connections.len() > 9_000, "{}", connections.len());
    }
}
