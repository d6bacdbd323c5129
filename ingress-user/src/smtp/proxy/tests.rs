use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const INET: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xDB, 0xBA, 0, 25];
const INET6_CLIENT: &str = "[2001:db8::1]:56250";

fn conveyed(address: &str) -> Source {
    Source::Conveyed(address.parse().unwrap())
}

/// A header of version 2 whose length is that of `rest`.
fn binary(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[version_and_command, family], &length, rest].concat()
}

fn inet6(source: Ipv6Addr, port: u16) -> Vec<u8> {
    let destination = Ipv6Addr::LOCALHOST.octets();
    [&source.octets()[..], &destination, &port.to_be_bytes(), &25u16.to_be_bytes()].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
}

/// The header for IPv4 with `before`, its own checksum, and `after` behind the addresses.
fn with_checksum(before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut header = binary(0x21, 0x11, &[&INET[..], before, &tlv(3, &[0; 4]), after].concat());
    let sum = crc32c::crc32c(&header).to_be_bytes();
    let at = header.len() - after.len() - sum.len();
    header[at..at + sum.len()].copy_from_slice(&sum);
    header
}

fn source_of(header: &[u8]) -> Result<Source, String> {
    match parse(header) {
        Ok(Parsed::Complete { header_bytes, source }) => {
            assert_eq!(header_bytes, header.len());
            Ok(source)
        }
        Ok(Parsed::Incomplete) => Err("incomplete".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_line_names_the_client() {
    let table = [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 56250 25\r\n", conveyed("192.0.2.1:56250")),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", conveyed("255.255.255.255:65535")),
        ("PROXY TCP6 2001:db8::1 ::1 56250 25\r\n", conveyed(INET6_CLIENT)),
        ("PROXY TCP6 2001:DB8:0:0:0:0:0:1 :: 56250 25\r\n", conveyed(INET6_CLIENT)),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 56250 25\r\n", conveyed("192.0.2.1:56250")),
        ("PROXY TCP6 ::ffff:c000:201 ::1 0 25\r\n", conveyed("192.0.2.1:0")),
        ("PROXY UNKNOWN\r\n", Source::Local),
        ("PROXY UNKNOWN ffff::1 what \0 ever\r\n", Source::Local),
    ];
    for (line, source) in table {
        assert_eq!(source_of(line.as_bytes()), Ok(source), "{line:?}");
    }
}

#[test]
fn a_binary_header_names_the_client() {
    let client: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
    let long_name = tlv(2, &[b'a'; HEADER_BYTES_MAX - 16 - INET.len() - 3]);
    let unknown_tlvs = [tlv(2, b"mx.example.net"), tlv(0xEE, &[]), tlv(4, &[0; 300])].concat();
    let table = [
        (binary(0x21, 0x11, &INET), conveyed("192.0.2.1:56250")),
        (binary(0x21, 0x21, &inet6(client, 56_250)), conveyed(INET6_CLIENT)),
        (binary(0x21, 0x21, &inet6(mapped, 56_250)), conveyed("192.0.2.1:56250")),
        (binary(0x21, 0x11, &[&INET[..], &unknown_tlvs].concat()), conveyed("192.0.2.1:56250")),
        (binary(0x21, 0x11, &[&INET[..], &long_name].concat()), conveyed("192.0.2.1:56250")),
        (with_checksum(&[], &[]), conveyed("192.0.2.1:56250")),
        (with_checksum(&tlv(1, b"smtp"), &tlv(4, &[7])), conveyed("192.0.2.1:56250")),
        // Unix sockets and unspecified families say nothing about a client on the network.
        (binary(0x21, 0x31, &[b'/'; 216]), Source::Local),
        (binary(0x21, 0x32, &[b'/'; 216]), Source::Local),
        (binary(0x21, 0x00, &[]), Source::Local),
        (binary(0x21, 0x01, &[1, 2]), Source::Local),
        // LOCAL: whatever follows is of no meaning.
        (binary(0x20, 0x00, &[]), Source::Local),
        (binary(0x20, 0x11, &INET), Source::Local),
        (binary(0x20, 0xFF, &[1]), Source::Local),
    ];
    for (header, source) in table {
        assert_eq!(source_of(&header), Ok(source), "{header:02x?}");
    }
}

/// The sum was computed bit by bit elsewhere, not by the code that checks it.
#[test]
fn the_checksum_is_over_the_whole_header_with_zeros_in_its_place() {
    let tlvs = [tlv(2, b"a"), tlv(3, &0xF569CE88_u32.to_be_bytes()), tlv(4, b"b")].concat();
    let mut header = binary(0x21, 0x11, &[&INET[..], &tlvs].concat());
    assert_eq!(header, with_checksum(&tlv(2, b"a"), &tlv(4, b"b")));
    assert_eq!(source_of(&header), Ok(conveyed("192.0.2.1:56250")));
    // Without its type the sum is no sum any more.
    let kind = header.len() - tlv(4, b"b").len() - tlv(3, &[0; 4]).len();
    for at in (16..header.len()).filter(|at| *at != kind) {
        header[at] ^= 0x10;
        assert!(parse(&header).is_err(), "octet {at}");
        header[at] ^= 0x10;
    }
}

/// Each entry: octets that begin a header, the octet that ends the hope, and what the operator reads.
#[test]
fn an_error_comes_with_the_octet_that_is_wrong() {
    let fixed = |version: u8, family: u8| [SIGNATURE, &[version, family]].concat();
    let tlvs = |tlvs: &[u8]| binary(0x21, 0x11, &[&INET[..], tlvs].concat());
    let cut = |mut header: Vec<u8>, keep: usize| {
        header.truncate(keep);
        header
    };
    let table: Vec<(Vec<u8>, u8, &str)> = vec![
        (b"".into(), b'E', "no PROXY header: the connection begins with \"E\""),
        (b"".into(), 0x16, "no PROXY header: the connection begins with 16, which is TLS"),
        (b"P".into(), b'O', "no PROXY header: the connection begins with \"PO\""),
        (b"PROXY".into(), b'\t', "no PROXY header: the connection begins with \"PROXY\\t\""),
        (b"PROXY".into(), b'\r', "no PROXY header: the connection begins with \"PROXY\\r\""),
        (b"PROXY ".into(), b' ', "PROXY v1: expected TCP4, TCP6 or UNKNOWN, found nothing"),
        (b"PROXY TCP".into(), b' ', "PROXY v1: expected TCP4, TCP6 or UNKNOWN, found \"TCP\""),
        (b"PROXY TCP".into(), b'5', "PROXY v1: expected TCP4, TCP6 or UNKNOWN, found \"TCP5\""),
        (b"PROXY UNKNOWN".into(), b'S', "PROXY v1: expected TCP4, TCP6 or UNKNOWN"),
        (b"PROXY UNKNOWN".into(), b'\n', "PROXY v1: a lone CR or LF"),
        (b"PROXY UNKNOWN\r".into(), b'x', "PROXY v1: a lone CR or LF"),
        (b"PROXY TCP4 ".into(), b' ', "PROXY v1: expected an IPv4 address, found nothing"),
        (b"PROXY TCP4 25".into(), b'6', "PROXY v1: expected an IPv4 address, found \"256\""),
        (b"PROXY TCP4 0".into(), b'1', "PROXY v1: expected an IPv4 address, found \"01\""),
        (b"PROXY TCP4 1.2.3".into(), b' ', "PROXY v1: expected an IPv4 address, found \"1.2.3\""),
        (b"PROXY TCP4 1.2.3.4".into(), b'.', "PROXY v1: expected an IPv4 address"),
        (b"PROXY TCP4 2".into(), b':', "PROXY v1: expected an IPv4 address, found \"2:\""),
        (b"PROXY TCP4 1.2.3.4 ".into(), b' ', "PROXY v1: expected an IPv4 address, found nothing"),
        (b"PROXY TCP4 1.2.3.4 ".into(), b'\r', "PROXY v1: expected an IPv4 address"),
        (b"PROXY TCP6 ::1 1".into(), b'.', "PROXY v1: expected an IPv6 address, found \"1.\""),
        (b"PROXY TCP6 1::2:".into(), b':', "PROXY v1: expected an IPv6 address, found \"1::2::\""),
        (b"PROXY TCP6 1:2:3:4:5:6:7:8".into(), b':', "PROXY v1: expected an IPv6 address"),
        (b"PROXY TCP6 1::3:4:5:6:7:8".into(), b':', "PROXY v1: expected an IPv6 address"),
        (b"PROXY TCP6 ::1234".into(), b'5', "PROXY v1: expected an IPv6 address"),
        (b"PROXY TCP6 ::ffff:1.2.3.25".into(), b'6', "PROXY v1: expected an IPv6 address"),
        (b"PROXY TCP6 fe80::1".into(), b'%', "PROXY v1: expected an IPv6 address"),
        (b"PROXY TCP6 ".into(), 0xFF, "PROXY v1: expected an IPv6 address, found ff"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 ".into(), b'+', "PROXY v1: expected a port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 0".into(), b'0', "PROXY v1: expected a port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 6553".into(), b'6', "PROXY v1: expected a port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1".into(), b'\r', "PROXY v1: expected a port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 25".into(), b' ', "PROXY v1: expected a port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 25".into(), b'\n', "PROXY v1: a lone CR or LF"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 25\r".into(), b'\r', "PROXY v1: a lone CR or LF"),
        (SIGNATURE[..5].into(), 0x0A, "no PROXY header: the connection begins with 0d 0a 0d 0a"),
        (SIGNATURE.into(), 0x11, "PROXY v2: version 1 in a header of version 2"),
        (SIGNATURE.into(), 0x22, "PROXY v2: command 2, expected 0 (LOCAL) or 1 (PROXY)"),
        (fixed(0x21, 0)[..13].into(), 0x12, "PROXY v2: family and transport 0x12, expected TCP"),
        (fixed(0x21, 0)[..13].into(), 0x22, "PROXY v2: family and transport 0x22"),
        (fixed(0x21, 0)[..13].into(), 0x10, "PROXY v2: family and transport 0x10"),
        (fixed(0x21, 0)[..13].into(), 0x03, "PROXY v2: family and transport 0x03"),
        (fixed(0x21, 0)[..13].into(), 0x41, "PROXY v2: family and transport 0x41"),
        (fixed(0x20, 0), 0x10, "PROXY v2: a header of more than 4096 octets"),
        ([&fixed(0x21, 0x11)[..], &[0x0F]].concat(), 0xF1, "PROXY v2: a header of more than 4096"),
        (
            [&fixed(0x21, 0x11)[..], &[0]].concat(),
            11,
            "PROXY v2: 11 octets for addresses that take 12",
        ),
        (
            [&fixed(0x21, 0x21)[..], &[0]].concat(),
            35,
            "PROXY v2: 35 octets for addresses that take 36",
        ),
        (
            [&fixed(0x21, 0x31)[..], &[0]].concat(),
            215,
            "PROXY v2: 215 octets for addresses that take 216",
        ),
        // Two octets left are no TLV: the length field says so already.
        (cut(tlvs(&[4, 0]), 15), 14, "PROXY v2: the TLV at octet 28 does not end"),
        (cut(tlvs(&[4, 1, 0]), 29), 1, "PROXY v2: the TLV at octet 28 does not end"),
        (cut(tlvs(&[4, 0, 5, 1, 2, 3, 4]), 30), 5, "PROXY v2: the TLV at octet 28 does not end"),
        (cut(tlvs(&[4, 0, 3, 1, 2, 3, 4]), 30), 3, "PROXY v2: the TLV at octet 34 does not end"),
        (cut(tlvs(&[3, 0, 3, 1, 2, 3]), 30), 3, "PROXY v2: a CRC-32C that is not of 4 octets"),
        (cut(tlvs(&[3; 600]), 29), 1, "PROXY v2: a CRC-32C that is not of 4 octets"),
        (cut(tlvs(&[tlv(3, &[0; 4]), tlv(3, &[0; 4])].concat()), 35), 3, "PROXY v2: a CRC-32C"),
    ];
    for (begun, wrong, expected) in table {
        let shown = begun.escape_ascii();
        assert_eq!(parse(&begun), Ok(Parsed::Incomplete), "{shown}");
        let error = parse(&[&begun[..], &[wrong]].concat()).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{shown}\n  gave     {error}\n  expected {expected}");
    }
}

#[test]
fn what_came_instead_is_shown_in_one_line() {
    let begins = |input: &[u8]| parse(input).unwrap_err().to_string();
    assert!(begins(b"EHLO mx.example.net\r\n").ends_with("begins with \"EHLO mx.\""));
    assert!(begins(&[0x16, 3, 1, 2, 0]).ends_with("begins with 16 03 01 02 00, which is TLS"));
    assert!(begins(b"Q\r\n").ends_with("begins with \"Q\\r\\n\""));
}

#[test]
fn a_wrong_checksum_shows_both() {
    let mut header = with_checksum(&[], &[]);
    let carried = u32::from_be_bytes(*header.last_chunk().unwrap());
    header[16] ^= 1;
    match parse(&header) {
        Err(ProxyError::Checksum { carried: shown, computed }) => {
            assert_eq!(shown, carried);
            assert_ne!(computed, carried);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_has_an_end_after_107_octets() {
    let unknown = |filler: usize| format!("PROXY UNKNOWN {}", "x".repeat(filler));
    let longest = format!("{}\r\n", unknown(91));
    assert_eq!(longest.len(), LINE_BYTES_MAX);
    assert_eq!(source_of(longest.as_bytes()), Ok(Source::Local));
    assert_eq!(parse(unknown(91).as_bytes()), Ok(Parsed::Incomplete));
    for too_long in [unknown(92), format!("{}\r\n", unknown(92)), unknown(10_000)] {
        assert_eq!(parse(too_long.as_bytes()), Err(ProxyError::LineTooLong), "{too_long}");
    }
}

#[test]
fn the_header_ends_where_the_client_begins() {
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), binary(0x21, 0x11, &INET)] {
        let input = [&header[..], b"\r\nPROXY"].concat();
        let Ok(Parsed::Complete { header_bytes, .. }) = parse(&input) else {
            panic!("{input:02x?}");
        };
        assert_eq!(header_bytes, header.len());
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let tail = any::<u32>().prop_map(|bits| Ipv6Addr::from(u128::from(bits) | 0xFFFF << 32));
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        tail.prop_map(IpAddr::from),
        // Runs of zeros, which are written as `::`.
        (any::<u128>(), any::<u8>()).prop_map(|(bits, groups)| {
            let keep = |group: u32| groups >> group & 1 != 0;
            let mask = (0..8).filter(|group| keep(*group)).fold(0, |m, g| m | 0xFFFF << (16 * g));
            Ipv6Addr::from(bits & mask).into()
        }),
    ]
}

/// A valid header of either version, and whom it names.
fn any_header() -> impl Strategy<Value = (Vec<u8>, Source)> {
    let line = (any_address(), any::<u16>(), any::<u16>()).prop_map(|(address, port, other)| {
        let family = if address.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {family} {address} {address} {port} {other}\r\n");
        let source = SocketAddr::new(address.to_canonical(), port);
        (line.into_bytes(), Source::Conveyed(source))
    });
    let unknown =
        "[^\r\n]{0,20}".prop_map(|rest| (format!("PROXY UNKNOWN {rest}\r\n"), Source::Local));
    let unknown = unknown.prop_map(|(line, source)| (line.into_bytes(), source));
    let tlvs = || {
        let one = (4..=255u8, proptest::collection::vec(any::<u8>(), 0..300));
        proptest::collection::vec(one, 0..3)
            .prop_map(|tlvs| tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect())
    };
    let inet6_header = (any::<u128>(), any::<u16>(), tlvs()).prop_map(|(bits, port, tlvs)| {
        let tlvs: Vec<u8> = tlvs;
        let address = Ipv6Addr::from(bits);
        let source = SocketAddr::new(address.to_canonical(), port);
        let rest = [inet6(address, port), tlvs].concat();
        (binary(0x21, 0x21, &rest), Source::Conveyed(source))
    });
    let inet_header = (tlvs(), tlvs()).prop_map(|(before, after): (Vec<u8>, Vec<u8>)| {
        (with_checksum(&before, &after), conveyed("192.0.2.1:56250"))
    });
    let local = proptest::collection::vec(any::<u8>(), 0..40)
        .prop_map(|rest| (binary(0x20, 0, &rest), Source::Local));
    prop_oneof![line, unknown, inet6_header, inet_header, local]
}

proptest! {
    #[test]
    fn a_header_is_the_same_however_it_is_cut(
        (header, source) in any_header(),
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let whole = Ok(Parsed::Complete { header_bytes: header.len(), source });
        for cut in 0..header.len() {
            prop_assert_eq!(parse(&header[..cut]), Ok(Parsed::Incomplete), "{} octets", cut);
        }
        prop_assert_eq!(parse(&header), whole.clone());
        prop_assert_eq!(parse(&[header, behind].concat()), whole);
    }

    /// Whatever is damaged: no panic, no header longer than the input, and what was wrong stays wrong.
    #[test]
    fn damage_is_found_once_and_for_all(
        (mut octets, _) in any_header(),
        at in any::<prop::sample::Index>(),
        octet in any::<u8>(),
        removed in any::<bool>(),
    ) {
        let at = at.index(octets.len());
        if removed {
            octets.remove(at);
        } else {
            octets[at] = octet;
        }
        let mut settled = None;
        for cut in 0..=octets.len() {
            let parsed = parse(&octets[..cut]);
            if let Ok(Parsed::Complete { header_bytes, .. }) = parsed {
                prop_assert!(header_bytes <= cut);
            }
            match settled {
                Some(Ok(_)) => prop_assert_eq!(Some(parsed), settled.clone()),
                Some(Err(_)) => prop_assert!(parsed.is_err(), "{} octets: {:?}", cut, parsed),
                None if parsed == Ok(Parsed::Incomplete) => {}
                None => settled = Some(parsed),
            }
        }
    }

    #[test]
    fn no_octets_are_a_panic(
        head in prop_oneof![
            Just(&b""[..]), Just(&b"PROXY "[..]), Just(&b"PROXY TCP6 "[..]), Just(SIGNATURE),
            Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..]),
        ],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let input = [head, &rest].concat();
        if let Ok(Parsed::Complete { header_bytes, .. }) = parse(&input) {
            prop_assert!(header_bytes <= input.len());
        }
    }
}
