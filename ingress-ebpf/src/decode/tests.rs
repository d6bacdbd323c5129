use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::packets::{Extension, Frame, Network, Tag};

fn decoded(frame: &Frame) -> Result<Segment, Miss> {
    decode(&frame.bytes().as_slice())
}

/// The segment that the frame says it carries.
fn expected(frame: &Frame) -> Segment {
    let words = |address: Ipv6Addr| {
        let bits = address.to_bits();
        V6 { high: (bits >> 64) as u64, low: bits as u64 }
    };
    let addresses = match &frame.network {
        Network::V4 { source, destination, .. } => {
            Addresses::V4 { source: source.to_bits(), destination: destination.to_bits() }
        }
        Network::V6 { source, destination, .. } => {
            Addresses::V6 { source: words(*source), destination: words(*destination) }
        }
    };
    let (source_port, destination_port) = (frame.source_port, frame.destination_port);
    let payload_bytes = frame.payload.len() as u32;
    Segment { addresses, source_port, destination_port, flags: frame.flags, payload_bytes }
}

#[test]
fn two_tags_are_stepped_over_and_a_third_is_not() {
    let tags = [Tag::Provider(7), Tag::Customer(9), Tag::Customer(1)];
    for count in 0..=TAGS_MAX {
        let frame = Frame::v4(25).tagged(&tags[..count]);
        assert_eq!(decoded(&frame), Ok(expected(&frame)), "{count} tags");
    }
    assert_eq!(decoded(&Frame::v4(25).tagged(&tags)), Err(Miss::NotUnderstood));
}

#[test]
fn no_fragment_is_understood() {
    // Last of several, first of several, one in the middle, with "don't fragment" by mistake.
    for wire in [0x0001, 0x2000, 0x2010, 0x6000] {
        let mut frame = Frame::v4(25);
        let Network::V4 { fragment, .. } = &mut frame.network else { unreachable!() };
        *fragment = wire;
        assert_eq!(decoded(&frame), Err(Miss::NotUnderstood), "{wire:#06x}");
    }
    let frame = Frame::v6(25, &[Extension::HopByHop, Extension::Fragment]);
    assert_eq!(decoded(&frame), Err(Miss::NotUnderstood));
}

#[test]
fn a_fifth_extension_header_is_too_deep() {
    let four = [
        Extension::HopByHop,
        Extension::DestinationOptions,
        Extension::Routing,
        Extension::Authentication,
    ];
    let frame = Frame::v6(25, &four);
    assert_eq!(decoded(&frame), Ok(expected(&frame)));
    let five = [&four[..], &[Extension::DestinationOptions]].concat();
    assert_eq!(decoded(&Frame::v6(25, &five)), Err(Miss::NotUnderstood));
}

#[test]
fn other_protocols_are_not_tcp() {
    let mut frame = Frame::v4(25);
    let Network::V4 { protocol, .. } = &mut frame.network else { unreachable!() };
    *protocol = 17;
    assert_eq!(decoded(&frame), Err(Miss::NotTcp));

    let mut arp = Frame::v4(25).bytes();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(decode(&arp.as_slice()), Err(Miss::NotTcp));
}

#[test]
fn header_lengths_below_the_minimum_are_not_understood() {
    let mut short_ip = Frame::v4(25).bytes();
    short_ip[14] = 0x44;
    assert_eq!(decode(&short_ip.as_slice()), Err(Miss::NotUnderstood));

    let mut short_tcp = Frame::v4(25).bytes();
    short_tcp[14 + 20 + 12] = 4 << 4;
    assert_eq!(decode(&short_tcp.as_slice()), Err(Miss::NotUnderstood));
}

#[test]
fn cut_at_every_length_is_not_understood() {
    for frame in [
        Frame::v4(25).tagged(&[Tag::Provider(1), Tag::Customer(2)]),
        Frame::v6(25, &[Extension::Routing, Extension::Authentication]),
    ] {
        let bytes = frame.bytes();
        for end in 0..bytes.len() {
            assert_eq!(decode(&&bytes[..end]), Err(Miss::NotUnderstood), "{end} bytes");
        }
        assert_eq!(decode(&bytes.as_slice()), Ok(expected(&frame)));
    }
}

fn tags() -> impl Strategy<Value = Vec<Tag>> {
    let tag =
        prop_oneof![any::<u16>().prop_map(Tag::Customer), any::<u16>().prop_map(Tag::Provider)];
    prop::collection::vec(tag, 0..=TAGS_MAX)
}

fn network() -> impl Strategy<Value = Network> {
    let extension = prop::sample::select(vec![
        Extension::HopByHop,
        Extension::Routing,
        Extension::DestinationOptions,
        Extension::Authentication,
    ]);
    let v4 = (any::<Ipv4Addr>(), any::<Ipv4Addr>(), 0..=10_u8, prop::bool::ANY).prop_map(
        |(source, destination, option_words, dont_fragment)| {
            let fragment = if dont_fragment { 0x4000 } else { 0 };
            Network::V4 { source, destination, option_words, fragment, protocol: protocol::TCP }
        },
    );
    let extensions = prop::collection::vec(extension, 0..=EXTENSION_HEADERS_MAX);
    let v6 = (any::<Ipv6Addr>(), any::<Ipv6Addr>(), extensions).prop_map(
        |(source, destination, extensions)| Network::V6 { source, destination, extensions },
    );
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn what_was_built_is_decoded(
        tags in tags(),
        network in network(),
        source_port: u16,
        destination_port: u16,
        flags: u8,
        payload: Vec<u8>,
    ) {
        let frame = Frame { tags, network, source_port, destination_port, flags, payload };
        prop_assert_eq!(decoded(&frame), Ok(expected(&frame)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes.as_slice());
    }

    /// Random bytes rarely get past the EtherType; a damaged frame gets everywhere.
    #[test]
    fn damaged_frames_never_panic(
        tags in tags(),
        network in network(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end: prop::sample::Index,
    ) {
        let mut frame = Frame::v4(25).tagged(&tags);
        frame.network = network;
        let mut bytes = frame.bytes();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let end = end.index(bytes.len() + 1);
        let _ = decode(&&bytes[..end]);
    }

    /// A cut takes away, it does not turn a frame into another.
    #[test]
    fn a_frame_that_is_cut_is_the_same_or_not_understood(
        tags in tags(),
        network in network(),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut frame = Frame::v4(25).tagged(&tags);
        frame.network = network;
        let mut bytes = frame.bytes();
        if let Some((index, value)) = damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let whole = decode(&bytes.as_slice());
        for end in 0..bytes.len() {
            let cut = decode(&&bytes[..end]);
            prop_assert!(cut == whole || cut == Err(Miss::NotUnderstood), "{} bytes: {:?}", end, cut);
        }
    }

    /// The decoder asks only for bytes inside the packet, or takes no for an answer: it never sees more than was there.
    #[test]
    fn the_answer_depends_on_headers_only(network in network(), payload: Vec<u8>) {
        let mut frame = Frame::v4(25);
        frame.network = network;
        let bare = decoded(&frame);
        frame.payload = payload;
        let with_payload = decoded(&frame);
        prop_assert_eq!(with_payload.map(|segment| segment.payload_bytes), Ok(frame.payload.len() as u32));
        prop_assert_eq!(with_payload.map(|segment| Segment { payload_bytes: 0, ..segment }), bare);
    }
}
