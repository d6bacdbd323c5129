//! What a client offered in its ClientHello, read from the octets as they came.
//!
//! The TLS library keeps most of it to itself and tells nothing at all of a hello that it refuses early. Whoever wants to
//! explain a failed handshake needs the client's own words, so they are read here a second time, after the failure.

use std::fmt;

/// Entries kept of each list. More than IANA has registered in any of them, so an honest hello loses nothing.
pub const LIST_ENTRIES_MAX: usize = 512;

/// Protocol names kept. Clients of mail send one, if any (RFC 7301).
pub const ALPN_ENTRIES_MAX: usize = 16;

/// Octets of a server name kept. A DNS name has 253 at most (RFC 1035 2.3.4).
pub const NAME_BYTES_MAX: usize = 255;

/// Octets shown of what is not TLS: enough to recognise a protocol, too few for a secret.
pub const SHOWN_BYTES_MAX: usize = 8;

/// A ClientHello longer than this is refused, as by the TLS library.
pub const HELLO_BYTES_MAX: usize = 0xffff;

/// A record's body before encryption (RFC 8446 5.1).
const RECORD_BODY_BYTES_MAX: usize = 1 << 14;

/// What a ClientHello offered, in the client's order. GREASE values (RFC 8701) are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// As it stands in the hello. TLS 1.3 clients say TLS 1.2 here.
    pub legacy_version: u16,
    /// From supported_versions. Without that extension the highest version alone is known: the legacy one.
    pub versions: Vec<u16>,
    pub suites: Vec<u16>,
    pub groups: Vec<u16>,
    /// Groups for which a key came along.
    pub key_shares: Vec<u16>,
    /// From signature_algorithms; empty without that extension.
    pub schemes: Vec<u16>,
    /// Unprintable octets are escaped.
    pub server_name: Option<String>,
    /// Unprintable octets are escaped.
    pub alpn: Vec<String>,
}

/// Why there is no offer to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    #[error("nothing came")]
    Nothing,
    #[error("not TLS but {0}")]
    NotTls(Foreign),
    #[error("the ClientHello breaks off after {octets} octets")]
    Incomplete { octets: usize },
    /// Where the octets contradict themselves or RFC 8446.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// What came instead of TLS, as far as its first octets tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreign {
    Smtp,
    Http,
    Ssh,
    /// The PROXY protocol of a load balancer, version 1 or 2.
    ProxyHeader,
    /// A hello in the format of SSL 2.0, whatever version it asks for.
    Ssl2Hello,
    /// The first octets, at most [`SHOWN_BYTES_MAX`].
    Unknown(Vec<u8>),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smtp => f.write_str("SMTP in clear"),
            Self::Http => f.write_str("HTTP"),
            Self::Ssh => f.write_str("SSH"),
            Self::ProxyHeader => f.write_str("a PROXY protocol header"),
            Self::Ssl2Hello => f.write_str("an SSL 2.0 hello"),
            Self::Unknown(octets) => write!(f, "\"{}\"", octets.escape_ascii()),
        }
    }
}

/// Reads the ClientHello from what was received, from the first octet of TLS on. Octets behind the hello are not looked at.
pub fn parse(octets: &[u8]) -> Result<Offer, OfferError> {
    let message = first_message(octets)?;
    let Some((&CLIENT_HELLO, body)) = message.split_first() else {
        return Err(OfferError::Malformed("the first message is no ClientHello"));
    };
    let body = body.get(LENGTH_BYTES..).unwrap_or_default();
    read_hello(&mut Reader(body))
}

const HANDSHAKE_RECORD: u8 = 22;
const RECORD_TYPES: std::ops::RangeInclusive<u8> = 20..=24;
const CLIENT_HELLO: u8 = 1;
/// A handshake message's length has three octets.
const LENGTH_BYTES: usize = 3;

/// Joins the records that the first handshake message spans (RFC 8446 5.1).
fn first_message(octets: &[u8]) -> Result<Vec<u8>, OfferError> {
    let incomplete = OfferError::Incomplete { octets: octets.len() };
    check_start(octets)?;
    let mut message = Vec::new();
    let mut rest = octets;
    loop {
        let Some((header, behind)) = rest.split_first_chunk::<5>() else {
            // Of a header that is cut only the type can be judged, and only behind the first record.
            return Err(wrong_record(rest).unwrap_or(incomplete));
        };
        if let Some(error) = wrong_record(header) {
            return Err(error);
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > RECORD_BODY_BYTES_MAX {
            return Err(OfferError::Malformed("a record is empty or longer than 16,384 octets"));
        }
        message.extend_from_slice(behind.get(..length).unwrap_or(behind));
        if let Some(end) = message_end(&message)? {
            message.truncate(end);
            return Ok(message);
        }
        rest = behind.get(length..).ok_or(incomplete.clone())?;
    }
}

/// The error in a record's header, or in the part of it that came.
fn wrong_record(header: &[u8]) -> Option<OfferError> {
    match header {
        [HANDSHAKE_RECORD, 3, ..] | [HANDSHAKE_RECORD] | [] => None,
        [HANDSHAKE_RECORD, ..] => Some(OfferError::Malformed("a record of an unknown version")),
        _ => Some(OfferError::Malformed("a record other than handshake before the hello's end")),
    }
}

/// Where the message ends, once all of it is there.
fn message_end(message: &[u8]) -> Result<Option<usize>, OfferError> {
    let Some(&[message_type, high, middle, low]) = message.first_chunk() else {
        return Ok(None);
    };
    if message_type != CLIENT_HELLO {
        return Err(OfferError::Malformed("the first message is no ClientHello"));
    }
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length > HELLO_BYTES_MAX {
        return Err(OfferError::Malformed("the ClientHello is longer than 65,535 octets"));
    }
    let end = 1 + LENGTH_BYTES + length;
    Ok((message.len() >= end).then_some(end))
}

/// Whether the first octets can be TLS.
fn check_start(octets: &[u8]) -> Result<(), OfferError> {
    match octets {
        [] => Err(OfferError::Nothing),
        [HANDSHAKE_RECORD] => Ok(()),
        // Other records are TLS as well; what is wrong with them is said later.
        [first, 3, ..] if RECORD_TYPES.contains(first) => Ok(()),
        _ => Err(OfferError::NotTls(foreign(octets))),
    }
}

fn foreign(octets: &[u8]) -> Foreign {
    const SMTP_VERBS: &str =
        "EHLO HELO LHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY AUTH STARTTLS XCLIENT";
    const HTTP_VERBS: &str = "GET HEAD POST PUT DELETE OPTIONS CONNECT PRI";
    let is_first_word = |verbs: &str| {
        verbs.split(' ').any(|verb| {
            let (head, tail) = octets.split_at_checked(verb.len()).unwrap_or_default();
            let is_whole = tail.first().is_some_and(u8::is_ascii_whitespace);
            is_whole && head.eq_ignore_ascii_case(verb.as_bytes())
        })
    };
    if octets.starts_with(b"PROXY ") || octets.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        Foreign::ProxyHeader
    } else if octets.starts_with(b"SSH-") {
        Foreign::Ssh
    } else if is_first_word(SMTP_VERBS) {
        Foreign::Smtp
    } else if is_first_word(HTTP_VERBS) {
        Foreign::Http
    } else if matches!(octets, [0x80..=0xff, _, CLIENT_HELLO, 0 | 3, ..]) {
        // RFC 5246 appendix E.2: a length with the top bit set, then a CLIENT-HELLO.
        Foreign::Ssl2Hello
    } else {
        Foreign::Unknown(octets.iter().copied().take(SHOWN_BYTES_MAX).collect())
    }
}

/// The body of a ClientHello, RFC 8446 4.1.2.
fn read_hello(body: &mut Reader<'_>) -> Result<Offer, OfferError> {
    const CUT: OfferError = OfferError::Malformed("a field reaches behind the ClientHello's end");
    const RANDOM_BYTES: usize = 32;
    let mut offer = Offer { legacy_version: body.u16().ok_or(CUT)?, ..Offer::default() };
    body.take(RANDOM_BYTES).ok_or(CUT)?;
    body.list8().ok_or(CUT)?; // legacy_session_id
    offer.suites = u16_list(body.list16().ok_or(CUT)?)?;
    if !body.list8().ok_or(CUT)?.contains(&0) {
        // Section 4.1.2: "null" must be there, and the TLS library insists.
        return Err(OfferError::Malformed("it does not allow to leave compression out"));
    }
    // Clients of before 2003 end here.
    if !body.0.is_empty() {
        let mut extensions = Reader(body.list16().ok_or(CUT)?);
        while !extensions.0.is_empty() {
            let extension = extensions.u16().zip(extensions.list16());
            let (kind, data) = extension.ok_or(CUT)?;
            read_extension(kind, data, &mut offer)?;
        }
    }
    if !body.0.is_empty() {
        return Err(OfferError::Malformed("octets follow the extensions"));
    }
    if offer.versions.is_empty() {
        // RFC 8446 4.1.2: without supported_versions nothing above TLS 1.2 is meant.
        const TLS_1_2: u16 = 0x0303;
        offer.versions = vec![offer.legacy_version.min(TLS_1_2)];
    }
    Ok(offer)
}

fn read_extension(kind: u16, data: &[u8], offer: &mut Offer) -> Result<(), OfferError> {
    const CUT: OfferError = OfferError::Malformed("an extension's list does not fill it exactly");
    let mut data = Reader(data);
    match kind {
        0 => offer.server_name = server_name(data.list16().ok_or(CUT)?).ok_or(CUT)?,
        10 => offer.groups = u16_list(data.list16().ok_or(CUT)?)?,
        13 => offer.schemes = u16_list(data.list16().ok_or(CUT)?)?,
        16 => offer.alpn = protocol_names(data.list16().ok_or(CUT)?).ok_or(CUT)?,
        43 => offer.versions = u16_list(data.list8().ok_or(CUT)?)?,
        51 => offer.key_shares = key_share_groups(data.list16().ok_or(CUT)?).ok_or(CUT)?,
        _ => return Ok(()),
    }
    data.0.is_empty().then_some(()).ok_or(CUT)
}

fn u16_list(octets: &[u8]) -> Result<Vec<u16>, OfferError> {
    let (pairs, []) = octets.as_chunks::<2>() else {
        return Err(OfferError::Malformed("a list of two-octet values has an odd length"));
    };
    let values = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
    Ok(values.filter(|value| !is_grease(*value)).take(LIST_ENTRIES_MAX).collect())
}

/// Whether it is one of the values that clients send only to find servers that choke on them (RFC 8701).
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

/// The DNS name among the names, RFC 6066 section 3.
fn server_name(octets: &[u8]) -> Option<Option<String>> {
    const HOST_NAME: u8 = 0;
    let mut names = Reader(octets);
    let mut found = None;
    while !names.0.is_empty() {
        let (kind, name) = (names.u8()?, names.list16()?);
        if kind == HOST_NAME && found.is_none() {
            found = Some(printable(name));
        }
    }
    Some(found)
}

fn protocol_names(octets: &[u8]) -> Option<Vec<String>> {
    let mut list = Reader(octets);
    let mut names = Vec::new();
    while !list.0.is_empty() {
        let name = list.list8()?;
        let value = <[u8; 2]>::try_from(name).map(u16::from_be_bytes);
        if names.len() < ALPN_ENTRIES_MAX && !value.is_ok_and(is_grease) {
            names.push(printable(name));
        }
    }
    Some(names)
}

fn key_share_groups(octets: &[u8]) -> Option<Vec<u16>> {
    let mut shares = Reader(octets);
    let mut groups = Vec::new();
    while !shares.0.is_empty() {
        let (group, _key) = (shares.u16()?, shares.list16()?);
        if groups.len() < LIST_ENTRIES_MAX && !is_grease(group) {
            groups.push(group);
        }
    }
    Some(groups)
}

/// Bounded, and safe in a log whatever the client wrote.
fn printable(octets: &[u8]) -> String {
    octets
        .iter()
        .take(NAME_BYTES_MAX)
        .copied()
        .flat_map(std::ascii::escape_default)
        .map(char::from)
        .collect()
}

/// Takes fields off the front. `None` when the rest is shorter than the field.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
    }

    /// Octets behind a length of one octet.
    pub(super) fn list8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// Octets behind a length of two octets.
    pub(super) fn list16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::probe::hello::Hello;

    #[test]
    fn everything_that_a_client_offers_is_read() {
        let hello = Hello {
            server_name: Some(b"mx.example.net".to_vec()),
            alpn: vec![b"smtp".to_vec()],
            ..Hello::modern()
        };
        let expected = Offer {
            legacy_version: 0x0303,
            versions: vec![0x0304, 0x0303],
            suites: hello.suites.clone(),
            groups: vec![0x001d, 0x0017],
            key_shares: vec![0x001d],
            schemes: hello.schemes.clone().unwrap(),
            server_name: Some("mx.example.net".into()),
            alpn: vec!["smtp".into()],
        };
        assert_eq!(parse(&hello.octets()), Ok(expected));
    }

    #[test]
    fn a_client_without_supported_versions_means_its_legacy_version() {
        for (legacy_version, meant) in [(0x0300, 0x0300), (0x0301, 0x0301), (0x0304, 0x0303)] {
            let hello = Hello { legacy_version, versions: None, ..Hello::modern() };
            assert_eq!(parse(&hello.octets()).unwrap().versions, [meant]);
        }
        let offer = parse(&Hello::of_2012(&[0xc02f]).octets()).unwrap();
        assert_eq!((offer.versions, offer.suites), (vec![0x0303], vec![0xc02f]));
    }

    #[test]
    fn a_hello_without_any_extension_is_read() {
        let offer = parse(&Hello::of_1999().octets()).unwrap();
        assert_eq!((offer.versions, offer.suites), (vec![0x0301], vec![0x002f, 0x000a]));
        assert!(offer.groups.is_empty() && offer.schemes.is_empty());
    }

    #[test]
    fn grease_is_no_offer() {
        let mut hello = Hello::modern();
        let plain = parse(&hello.octets()).unwrap();
        hello.suites.insert(0, 0x0a0a);
        hello.groups.insert(0, 0xfafa);
        hello.key_shares.insert(0, 0x1a1a);
        hello.versions.as_mut().unwrap().insert(0, 0x2a2a);
        hello.schemes.as_mut().unwrap().insert(0, 0x3a3a);
        hello.alpn.push(vec![0x4a, 0x4a]);
        assert_eq!(parse(&hello.octets()), Ok(plain));
    }

    #[test]
    fn a_list_without_end_is_cut_and_control_characters_are_escaped() {
        let suites = (0x4000..0x6000).collect();
        let server_name = Some(b"a\r\nb\x1b".to_vec());
        let offer = parse(&Hello { suites, server_name, ..Hello::modern() }.octets()).unwrap();
        assert_eq!(offer.suites.len(), LIST_ENTRIES_MAX);
        assert_eq!(offer.server_name.as_deref(), Some(r"a\r\nb\x1b"));
    }

    #[test]
    fn what_is_not_tls_is_named() {
        let table: [(&[u8], Foreign); 10] = [
            (b"EHLO client.example.org\r\n", Foreign::Smtp),
            (b"quit\r\n", Foreign::Smtp),
            (b"GET / HTTP/1.1\r\n", Foreign::Http),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Foreign::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Foreign::ProxyHeader),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Foreign::Ssh),
            (b"\x80\x2e\x01\x03\x01\x00\x15", Foreign::Ssl2Hello),
            (b"MAILER", Foreign::Unknown(b"MAILER".to_vec())),
            (b"AHBhc3N3b3JkIQ==\r\n", Foreign::Unknown(b"AHBhc3N3".to_vec())),
            (&[22, 2, 0, 0, 1], Foreign::Unknown(vec![22, 2, 0, 0, 1])),
        ];
        for (octets, expected) in table {
            assert_eq!(parse(octets), Err(OfferError::NotTls(expected)));
        }
        assert_eq!(parse(b""), Err(OfferError::Nothing));
    }

    #[test]
    fn a_contradiction_is_malformed() {
        let good = Hello::modern().octets();
        let changed = |at: usize, octet: u8| {
            let mut octets = good.clone();
            octets[at] = octet;
            parse(&octets)
        };
        let is_malformed = |result| matches!(result, Err(OfferError::Malformed(_)));
        assert!(is_malformed(parse(&[21, 3, 3, 0, 2, 2, 40])), "an alert");
        assert!(is_malformed(changed(5, 2)), "a ServerHello");
        assert!(is_malformed(changed(3, 0xff)), "a record of 65 KB");
        assert!(is_malformed(changed(8, good[8] - 1)), "a message shorter than its fields");
        assert!(is_malformed(changed(43, 0xff)), "a session id that reaches over the end");
        assert!(is_malformed(changed(45, good[45] + 1)), "half a suite");
        let hello = Hello { compressions: vec![1], ..Hello::modern() };
        assert!(is_malformed(parse(&hello.octets())), "compression only");
        let mut alert_between = Hello::modern().records(100);
        alert_between[105] = 21;
        assert!(is_malformed(parse(&alert_between)), "an alert inside of the hello");
    }

    #[test]
    fn octets_behind_the_hello_change_nothing() {
        let good = Hello::modern().octets();
        let more = [good.as_slice(), b"\x17\x03\x03 anything"].concat();
        assert_eq!(parse(&more), parse(&good));
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&octets);
        }

        /// Closer to the goal than pure chance: a good hello with a few octets replaced.
        #[test]
        fn a_damaged_hello_is_read_without_a_panic(
            damage in prop::collection::vec((0usize..400, any::<u8>()), 1..8),
            record in 1usize..400,
        ) {
            let mut octets = Hello::modern().records(record);
            for (at, octet) in damage {
                let at = at % octets.len();
                octets[at] = octet;
            }
            let _ = parse(&octets);
        }

        #[test]
        fn a_hello_in_many_records_is_the_same_hello(record in 1usize..400) {
            prop_assert_eq!(parse(&Hello::modern().records(record)), parse(&Hello::modern().octets()));
        }

        #[test]
        fn the_start_of_a_hello_is_incomplete_and_never_malformed(record in 1usize..400, cut in any::<prop::sample::Index>()) {
            let octets = Hello::modern().records(record);
            let start = &octets[..cut.index(octets.len())];
            let expected = match start.len() {
                0 => OfferError::Nothing,
                octets => OfferError::Incomplete { octets },
            };
            prop_assert_eq!(parse(start), Err(expected));
        }
    }
}
