use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::packets::{Extension, Frame, Network, Tag};

/// RFC 1071 over octets, as one would do it by hand: the sum over a whole header with its checksum in it is all ones.
fn sum_of_octets(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for pair in parts.concat().chunks(2) {
        sum += u64::from(pair[0]) * 256 + u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    sum as u16
}

fn octets<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The words of a frame from `at` on.
fn words<const N: usize>(frame: &[u8], at: usize) -> [u32; N] {
    let mut words = frame[at..].chunks_exact(4).map(|word| word.try_into().unwrap());
    std::array::from_fn(|_| u32::from_ne_bytes(words.next().unwrap()))
}

/// The answer to a frame, from its IP header on.
fn answer(frame: &Frame, sequence: u32, cookie: u32, mtu: u32) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let syn = PlainSyn::find(&bytes.as_slice()).unwrap();
    let tcp = syn.offset + if syn.is_v4 { IPV4_HEADER_BYTES } else { IPV6_HEADER_BYTES };
    bytes[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
    if syn.is_v4 {
        octets(v4(&words(&bytes, syn.offset), cookie, mtu))
    } else {
        octets(v6(&words(&bytes, syn.offset), cookie, mtu))
    }
}

fn from_v4(client: u32, server: u32) -> Frame {
    let mut frame = Frame::v4(25);
    let Network::V4 { source, destination, .. } = &mut frame.network else { unreachable!() };
    (*source, *destination) = (client.into(), server.into());
    frame
}

fn from_v6(client: u128, server: u128) -> Frame {
    let mut frame = Frame::v6(25, &[]);
    let Network::V6 { source, destination, .. } = &mut frame.network else { unreachable!() };
    (*source, *destination) = (client.into(), server.into());
    frame
}

#[test]
fn an_ipv4_client_reads_its_own_connection_and_the_cookie() {
    let answer = answer(&Frame::v4(25), 0xffff_ffff, 0x1234_5678, 1500);
    let (header, tcp) = answer.split_at(20);
    assert_eq!(header[..4], [0x45, 0, 0, 44]);
    assert_eq!(header[4..10], [0, 0, 0x40, 0, 64, 6]);
    assert_eq!(header[12..16], Ipv4Addr::new(198, 51, 100, 25).octets());
    assert_eq!(header[16..20], Ipv4Addr::new(192, 0, 2, 7).octets());
    // Ports, the cookie, the sequence number after the last; six words, SYN and ACK.
    assert_eq!(tcp[..4], [0, 25, 0x9c, 0x40]);
    assert_eq!(tcp[4..12], [0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0]);
    assert_eq!(tcp[12..16], [0x60, 0x12, 0x40, 0]);
    assert_eq!(tcp[18..20], [0, 0], "no urgent data");
    // 1460 octets.
    assert_eq!(tcp[20..24], [2, 4, 0x05, 0xb4]);
    assert_eq!(tcp[24..], [0; 4], "padding");
}

#[test]
fn an_ipv6_client_reads_its_own_connection_and_the_cookie() {
    let answer = answer(&Frame::v6(465, &[]), 41, 0x1234_5678, 1500);
    let (header, tcp) = answer.split_at(40);
    assert_eq!(header[..8], [0x60, 0, 0, 0, 0, 24, 6, 64]);
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    assert_eq!(header[8..24], address("2001:db8:0:2::19"));
    assert_eq!(header[24..40], address("2001:db8:0:1::7"));
    assert_eq!(tcp[..4], [0x01, 0xd1, 0x9c, 0x40]);
    assert_eq!(tcp[4..12], [0x12, 0x34, 0x56, 0x78, 0, 0, 0, 42]);
    assert_eq!(tcp[12..16], [0x60, 0x12, 0x40, 0]);
    // 1440 octets.
    assert_eq!(tcp[20..], [2, 4, 0x05, 0xa0]);
}

#[test]
fn the_segment_size_is_what_the_interface_takes() {
    let announced = |frame: &Frame, mtu, at: usize| {
        let answer = answer(frame, 1, 2, mtu);
        u16::from_be_bytes([answer[at + 2], answer[at + 3]])
    };
    let v4 = [9_000, 1_400, 576, 70_000].map(|mtu| announced(&Frame::v4(25), mtu, 40));
    assert_eq!(v4, [8_960, 1_360, 536, u16::MAX]);
    let v6 = [9_000, 1_400, 1_280, 70_000].map(|mtu| announced(&Frame::v6(25, &[]), mtu, 60));
    assert_eq!(v6, [8_940, 1_340, 1_220, u16::MAX]);
}

#[test]
fn a_plain_syn_is_found_behind_tags() {
    let tags = [Tag::Provider(7), Tag::Customer(9)];
    for (count, offset) in [(0, 14), (1, 18), (2, 22)] {
        for (is_v4, frame) in [(true, Frame::v4(25)), (false, Frame::v6(25, &[]))] {
            let mut frame = frame.tagged(&tags[..count]);
            // Three words of options, which the header has to be told of.
            frame.payload = vec![1; 12];
            let mut bytes = frame.bytes();
            let tcp = bytes.len() - 32;
            bytes[tcp + 12] = 8 << 4;
            let syn = PlainSyn::find(&bytes.as_slice());
            let expected = PlainSyn { is_v4, offset, tcp_header_bytes: 32 };
            assert_eq!(syn, Some(expected));
        }
    }
}

#[test]
fn what_has_more_than_plain_headers_is_not_answered() {
    let mut with_options = Frame::v4(25);
    let Network::V4 { option_words, .. } = &mut with_options.network else { unreachable!() };
    *option_words = 1;
    for frame in [with_options, Frame::v6(25, &[Extension::DestinationOptions])] {
        assert_eq!(PlainSyn::find(&frame.bytes().as_slice()), None, "{frame:?}");
    }
    let bytes = Frame::v4(25).bytes();
    for end in 0..14 + 20 + 13 {
        assert_eq!(PlainSyn::find(&&bytes[..end]), None, "{end} bytes");
    }
}

proptest! {
    #[test]
    fn checksums_are_right_for_ipv4(
        client in any::<u32>(), server in any::<u32>(), sequence in any::<u32>(),
        cookie in any::<u32>(), ports in any::<(u16, u16)>(), mtu in 68..70_000_u32,
    ) {
        let mut frame = from_v4(client, server);
        (frame.source_port, frame.destination_port) = ports;
        let answer = answer(&frame, sequence, cookie, mtu);
        let (header, tcp) = answer.split_at(20);
        prop_assert_eq!(sum_of_octets(&[header]), 0xffff);
        let pseudo_header = [&server.to_be_bytes()[..], &client.to_be_bytes(), &[0, 6, 0, 24]];
        prop_assert_eq!(sum_of_octets(&[&pseudo_header.concat(), &tcp[..24]]), 0xffff);
    }

    #[test]
    fn checksums_are_right_for_ipv6(
        client in any::<u128>(), server in any::<u128>(), sequence in any::<u32>(),
        cookie in any::<u32>(), ports in any::<(u16, u16)>(), mtu in 1_280..70_000_u32,
    ) {
        let mut frame = from_v6(client, server);
        (frame.source_port, frame.destination_port) = ports;
        let answer = answer(&frame, sequence, cookie, mtu);
        let tcp = &answer[40..];
        let length_and_next = [0, 0, 0, 24, 0, 0, 0, 6];
        let pseudo_header =
            [&server.to_be_bytes()[..], &client.to_be_bytes(), &length_and_next].concat();
        prop_assert_eq!(sum_of_octets(&[&pseudo_header, tcp]), 0xffff);
    }
}
