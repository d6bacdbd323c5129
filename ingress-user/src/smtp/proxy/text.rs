//! Version 1: one line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use memchr::{memchr, memchr2};

use super::{Parsed, ProxyError, Source};

/// The longest line the specification allows, its CRLF included (section 2.1, "worst case").
pub const LINE_BYTES_MAX: usize = 107;

const PREFIX: &[u8] = b"PROXY ";

pub(super) fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    let window = input.get(..LINE_BYTES_MAX).unwrap_or(input);
    let end = memchr2(b'\r', b'\n', window);
    let (text, line_end) = window.split_at(end.unwrap_or(window.len()));
    let Some(fields) = fields_of(text, end.is_some()) else {
        return Err(ProxyError::no_header(input));
    };
    let source = fields.source()?;
    match (source, line_end) {
        (Some(source), [b'\r', b'\n', ..]) => {
            Ok(Parsed::Complete { header_bytes: text.len() + 2, source })
        }
        // Nothing of the line end, or half of it, and the line has room for the rest.
        (_, [] | [b'\r']) if text.len() + 2 <= LINE_BYTES_MAX => Ok(Parsed::Incomplete),
        (_, [] | [b'\r']) => Err(ProxyError::LineTooLong),
        _ => Err(ProxyError::LineEnd),
    }
}

/// What follows the word PROXY, if this is it, or can become it.
fn fields_of(text: &[u8], is_ended: bool) -> Option<Fields<'_>> {
    match text.strip_prefix(PREFIX) {
        Some(rest) => Some(Fields { rest, is_ended }),
        None => (!is_ended && PREFIX.starts_with(text)).then_some(Fields { rest: &[], is_ended }),
    }
}

/// The fields that are still to come, one space between them.
struct Fields<'t> {
    rest: &'t [u8],
    /// The line end was found: `rest` is all there will be.
    is_ended: bool,
}

impl Fields<'_> {
    /// `None` while octets are missing.
    fn source(mut self) -> Result<Option<Source>, ProxyError> {
        let Some(keyword) = self.take(&KEYWORD)? else {
            return Ok(None);
        };
        let address = match keyword {
            Keyword::Tcp4 => &IPV4,
            Keyword::Tcp6 => &IPV6,
            // Whatever else stands in the line is to be ignored.
            Keyword::Unknown => return Ok(self.is_ended.then_some(Source::Local)),
        };
        let Some(source) = self.take(address)? else {
            return Ok(None);
        };
        if self.take(address)?.is_none() {
            return Ok(None);
        }
        let Some(port) = self.take(&PORT)? else {
            return Ok(None);
        };
        if field(self.rest, self.is_ended, &PORT)?.is_none() {
            return Ok(None);
        }
        Ok(Some(Source::Conveyed(SocketAddr::new(source.to_canonical(), port))))
    }

    /// The field up to the next space.
    fn take<T>(&mut self, kind: &Kind<T>) -> Result<Option<T>, ProxyError> {
        let space = memchr(b' ', self.rest);
        let (text, rest) = self.rest.split_at(space.unwrap_or(self.rest.len()));
        self.rest = rest.get(1..).unwrap_or_default();
        field(text, self.is_ended || space.is_some(), kind)
    }
}

/// The value of a field that is whole; `None` for the beginning of one that may become right.
fn field<T>(text: &[u8], is_whole: bool, kind: &Kind<T>) -> Result<Option<T>, ProxyError> {
    let wrong = || ProxyError::field(kind.expected, text);
    let text = str::from_utf8(text).map_err(|_not_text| wrong())?;
    match is_whole {
        true => (kind.value)(text).map(Some).ok_or_else(wrong),
        false => (kind.begins)(text).then_some(None).ok_or_else(wrong),
    }
}

struct Kind<T> {
    expected: &'static str,
    value: fn(&str) -> Option<T>,
    /// Whether there is a value that begins so.
    begins: fn(&str) -> bool,
}

#[derive(Debug, Clone, Copy)]
enum Keyword {
    Tcp4,
    Tcp6,
    Unknown,
}

const KEYWORDS: [(&str, Keyword); 3] =
    [("TCP4", Keyword::Tcp4), ("TCP6", Keyword::Tcp6), ("UNKNOWN", Keyword::Unknown)];

const KEYWORD: Kind<Keyword> = Kind {
    expected: "TCP4, TCP6 or UNKNOWN",
    value: |text| KEYWORDS.iter().find(|(name, _)| *name == text).map(|(_, keyword)| *keyword),
    begins: |text| KEYWORDS.iter().any(|(name, _)| name.starts_with(text)),
};

const IPV4: Kind<IpAddr> =
    Kind { expected: "an IPv4 address", value: ipv4, begins: |text| can_end(text, ipv4) };

const IPV6: Kind<IpAddr> =
    Kind { expected: "an IPv6 address", value: ipv6, begins: |text| can_end(text, ipv6) };

const PORT: Kind<u16> = Kind {
    expected: "a port from 0 to 65535",
    value: port,
    // Whatever a port begins with is a port.
    begins: |text| text.is_empty() || port(text).is_some(),
};

fn ipv4(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|address: Ipv4Addr| address.into())
}

/// A tail in dotted decimal is taken too: that is how a balancer on an IPv6 socket writes an IPv4 client.
fn ipv6(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|address: Ipv6Addr| address.into())
}

/// Whether some ending makes `text` an address. These are enough: an address can always go on with zeros, and an IPv6
/// address that cannot take a `::` any more lacks at most its last group.
fn can_end(text: &str, address: fn(&str) -> Option<IpAddr>) -> bool {
    const ENDINGS: [&str; 10] =
        ["", "0", "0.0", "0.0.0", "0.0.0.0", ".0", ".0.0", ".0.0.0", ":", "::"];
    ENDINGS.iter().any(|ending| address(&format!("{text}{ending}")).is_some())
}

/// Decimal without leading zeros or a sign.
fn port(text: &str) -> Option<u16> {
    let is_canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_canonical)
}
