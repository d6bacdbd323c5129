//! Any octets as a frame: what is decoded stands in it, a cut or a tag makes no other segment of it, and the filter's verdict on it
//! depends on nothing but its tables.

#![no_main]

use ingress_ebpf::abi::{Listing, Verdict, tcp_flags};
use ingress_ebpf::decode::{Addresses, Miss, Segment, TAGS_MAX, decode};
use ingress_ebpf::filter::{Policy, judge, source_key, v4_key};
use ingress_ebpf::tables::{PlainTables, Prefix};
use libfuzzer_sys::fuzz_target;

const SECOND: u64 = 1_000_000_000;

/// Octets of the two addresses of Ethernet.
const MAC_BYTES: usize = 12;

fuzz_target!(|frame: &[u8]| {
    let decoded = decode(&frame);
    for end in 0..frame.len() {
        match decode(&&frame[..end]) {
            Err(Miss::NotUnderstood) => {}
            of_less => assert_eq!(of_less, decoded, "octets behind it change the segment"),
        }
    }
    check_tags(frame, decoded);
    if let Ok(segment) = decoded {
        assert!(is_in(&segment, frame), "{segment:?} is not in the frame");
        check_verdict(&segment);
    }
});

/// A tag more is stepped over, or is one too many and hides what is behind it.
fn check_tags(frame: &[u8], decoded: Result<Segment, Miss>) {
    let Some((addresses, rest)) = frame.split_at_checked(MAC_BYTES) else { return };
    for tag in [[0x81, 0x00], [0x88, 0xa8]] {
        let tagged = [addresses, &tag, &[0x00, 0x07], rest].concat();
        let expected = if tags(rest) < TAGS_MAX { decoded } else { Err(Miss::NotUnderstood) };
        assert_eq!(decode(&tagged.as_slice()), expected);
    }
}

/// How many tags there are at the beginning of the octets.
fn tags(octets: &[u8]) -> usize {
    octets.chunks(4).take_while(|tag| matches!(tag, [0x81, 0x00, ..] | [0x88, 0xa8, ..])).count()
}

/// Whether its addresses and its ports stand in the frame, the source before the destination.
fn is_in(segment: &Segment, frame: &[u8]) -> bool {
    let addresses = match segment.addresses {
        Addresses::V4 { source, destination } => {
            [source, destination].map(|address| address.to_be_bytes()).concat()
        }
        Addresses::V6 { source, destination } => {
            [source.high, source.low, destination.high, destination.low]
                .map(|word| word.to_be_bytes())
                .concat()
        }
    };
    let ports = [segment.source_port, segment.destination_port].map(|port| port.to_be_bytes());
    let contains = |octets: &[u8]| frame.windows(octets.len()).any(|window| window == octets);
    contains(&addresses) && contains(&ports.concat())
}

/// The verdict where its source is nobody in particular, banned, denied and allowed.
fn check_verdict(segment: &Segment) {
    let policy = Policy {
        syn_payload_bytes_max: 100,
        source_period: SECOND,
        source_burst: 0,
        pressure_period: SECOND,
        pressure_burst: SECOND,
    };
    let mut nobody = PlainTables::new(policy, 3_600 * SECOND);
    nobody.bans.insert(v4_key(0xc000_0242), u64::MAX);
    let mut banned = nobody.clone();
    banned.bans.insert(source_key(segment.addresses), u64::MAX);
    let listed = |listing| {
        let mut tables = nobody.clone();
        tables.listings = vec![
            (Prefix::V4 { address: 0, bits: 0 }, listing),
            (Prefix::V6 { address: 0, bits: 0 }, listing),
        ];
        tables
    };
    let is_syn = segment.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN;
    let verdict = twice(segment, &nobody);
    assert!(matches!(
        (verdict, is_syn),
        (Verdict::Passed | Verdict::BadFlags | Verdict::Banned, _) | (Verdict::SynPayload, true)
    ));
    let is_bad = verdict == Verdict::BadFlags;
    let unless_bad = |other| if is_bad { Verdict::BadFlags } else { other };
    assert_eq!(twice(segment, &banned), unless_bad(Verdict::Banned));
    for (listing, of_syn) in
        [(Listing::Denied, Verdict::Denied), (Listing::Allowed, Verdict::Allowed)]
    {
        let is_listed = is_syn && !matches!(verdict, Verdict::BadFlags | Verdict::Banned);
        let expected = if is_listed { of_syn } else { verdict };
        assert_eq!(twice(segment, &listed(listing)), expected);
    }
}

/// The same from the same tables, with the same left behind.
fn twice(segment: &Segment, tables: &PlainTables) -> Verdict {
    let (mut first, mut second) = (tables.clone(), tables.clone());
    let verdict = judge(segment, &mut first);
    assert_eq!(judge(segment, &mut second), verdict);
    assert_eq!(first, second);
    verdict
}
