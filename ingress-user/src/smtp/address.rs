//! Paths of MAIL and RCPT (RFC 5321 4.1.2, 4.1.3; RFC 6531 3.3): parsed once, never checked again below.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Octets of a local part (RFC 5321 4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Octets of a domain (RFC 5321 4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;

/// A mailbox, borrowed from the command line.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// `local-part@domain` as given, without source route.
    text: &'a str,
    /// Where the domain begins; `None` only for a bare `postmaster`.
    domain_at: Option<usize>,
    /// Of all of the path, a source route included.
    is_ascii: bool,
}

impl<'a> Address<'a> {
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The domain or address literal; empty for a bare `postmaster`.
    pub fn domain(&self) -> &'a str {
        self.domain_at.and_then(|at| self.text.get(at..)).unwrap_or("")
    }

    /// The domain with U-labels as A-labels (RFC 5890), which is how domains are compared.
    pub fn ascii_domain(&self) -> Cow<'a, str> {
        let domain = self.domain();
        if domain.is_ascii() {
            return Cow::Borrowed(domain);
        }
        // `parse_path` has found that it can be converted; what cannot is nobody's domain.
        to_ascii(domain).unwrap_or_default()
    }

    /// Whether no octet of the path is above 127, which would take SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    /// Whether the local part asks for a further hop: `user%other@here`, `other!user@here`, `"user@other"@here`. Servers
    /// that follow such requests relay for anybody.
    pub fn is_routed(&self) -> bool {
        let local_end = self.domain_at.map_or(0, |at| at.saturating_sub(1));
        let local = self.text.get(..local_end).unwrap_or_default();
        local.contains(['%', '!', '@'])
    }

    /// Whether this is `postmaster` without a domain, which every server must take (RFC 5321 4.5.1).
    pub fn is_bare_postmaster(&self) -> bool {
        self.domain_at.is_none()
    }
}

/// Two are equal when they are the same mailbox, whatever route led there.
impl PartialEq for Address<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.text, self.domain_at) == (other.text, other.domain_at)
    }
}

impl Eq for Address<'_> {}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// Not `<...>`, or something in the mailbox is against the grammar.
    Syntax,
    LocalPartTooLong,
    DomainTooLong,
    /// Octets above 127 without SMTPUTF8 (RFC 6531).
    NonAscii,
}

/// Splits `<...>` off the front of `text`: what is between the angle brackets, and what follows.
///
/// A `>` inside a quoted local part does not end the path.
pub fn split_path(text: &str) -> Result<(&str, &str), PathError> {
    let inner = text.strip_prefix('<').ok_or(PathError::Syntax)?;
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                let (path, rest) = inner.split_at_checked(at).ok_or(PathError::Syntax)?;
                return Ok((path, rest.strip_prefix('>').unwrap_or(rest)));
            }
            _ => {}
        }
    }
    Err(PathError::Syntax)
}

/// Parses what stands between the angle brackets of RCPT, or of MAIL when it is not empty.
pub fn parse_path(path: &str) -> Result<Address<'_>, PathError> {
    let mailbox = strip_source_route(path)?;
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(Address { text: mailbox, domain_at: None, is_ascii: true });
    }
    let local_end = local_part_end(mailbox)?;
    if local_end > LOCAL_PART_BYTES_MAX {
        return Err(PathError::LocalPartTooLong);
    }
    let (_, rest) = mailbox.split_at_checked(local_end).ok_or(PathError::Syntax)?;
    let domain = rest.strip_prefix('@').ok_or(PathError::Syntax)?;
    check_domain(domain)?;
    let domain_at = Some(local_end + 1);
    Ok(Address { text: mailbox, domain_at, is_ascii: path.is_ascii() })
}

/// `@one,@two:user@domain` becomes `user@domain`: routes must be accepted and should be ignored (RFC 5321 4.1.1.3).
fn strip_source_route(path: &str) -> Result<&str, PathError> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    let (route, mailbox) = path.split_once(':').ok_or(PathError::Syntax)?;
    for hop in route.split(',') {
        check_domain(hop.strip_prefix('@').ok_or(PathError::Syntax)?)?;
    }
    Ok(mailbox)
}

/// Length of the local part at the front of `mailbox`: a dot-string or a quoted string.
fn local_part_end(mailbox: &str) -> Result<usize, PathError> {
    if let Some(quoted) = mailbox.strip_prefix('"') {
        return quoted_string_end(quoted).map(|end| end + 1);
    }
    let end = mailbox.find('@').ok_or(PathError::Syntax)?;
    let local = mailbox.split_at_checked(end).ok_or(PathError::Syntax)?.0;
    let is_text = |byte| is_atext(byte) || byte > 127;
    let atoms_hold = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_text));
    if atoms_hold { Ok(end) } else { Err(PathError::Syntax) }
}

/// Length up to and with the closing quote of a string whose opening quote is already gone.
fn quoted_string_end(text: &str) -> Result<usize, PathError> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b' '..=b'~' if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok(at + 1),
            // RFC 6531 3.3 adds UTF-8 to what stands for itself, not to what a backslash may quote.
            128.. if escaped => return Err(PathError::Syntax),
            b' '..=b'~' | 128.. => {}
            _ => return Err(PathError::Syntax),
        }
    }
    Err(PathError::Syntax)
}

/// RFC 5322 3.2.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// A host name or an address literal. Underscores are let through: they are against RFC 1123 but in use.
fn check_domain(domain: &str) -> Result<(), PathError> {
    if domain.len() > DOMAIN_BYTES_MAX {
        return Err(PathError::DomainTooLong);
    }
    if let Some(literal) = domain.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(PathError::Syntax)?;
        return if is_address_literal(literal) { Ok(()) } else { Err(PathError::Syntax) };
    }
    if !domain.is_ascii() {
        return to_ascii(domain).map(|_ascii| ()).ok_or(PathError::Syntax);
    }
    let label_holds = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if domain.split('.').all(label_holds) { Ok(()) } else { Err(PathError::Syntax) }
}

/// A domain with U-labels in A-labels, if it is one (RFC 5891, by UTS 46 as all browsers and mailers do). What UTS 46 would
/// map to something else (full-width letters, soft hyphens, other dots) is no U-label: a stricter host behind us would read
/// another domain, or none.
fn to_ascii(domain: &str) -> Option<Cow<'_, str>> {
    let uts46 = Uts46::new();
    let (deny, hyphens) = (AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    let ascii = uts46.to_ascii(domain.as_bytes(), deny, hyphens, DnsLength::Verify).ok()?;
    let (unicode, _checked_above) = uts46.to_unicode(ascii.as_bytes(), deny, hyphens);
    (unicode == domain.to_lowercase()).then_some(ascii)
}

/// RFC 5321 4.1.3: `192.0.2.1` or `IPv6:2001:db8::1`. General-address-literals have no registered tag, so none is known.
fn is_address_literal(literal: &str) -> bool {
    const IPV6_TAG_BYTES: usize = "IPv6:".len();
    match literal.split_at_checked(IPV6_TAG_BYTES) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            address.parse::<Ipv6Addr>().is_ok()
        }
        _ => literal.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain_of(path: &str) -> Result<&str, PathError> {
        parse_path(path).map(|address| address.domain())
    }

    #[test]
    fn ordinary_and_unusual_mailboxes_are_taken() {
        for (path, domain) in [
            ("user@example.net", "example.net"),
            ("first.last+tag@sub.example.net", "sub.example.net"),
            ("\"with space\"@example.net", "example.net"),
            ("\"a\\\"b@c\"@example.net", "example.net"),
            ("user@[192.0.2.1]", "[192.0.2.1]"),
            ("user@[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("user@under_score.example", "under_score.example"),
            ("!#$%&'*+-/=?^_`{|}~@example.net", "example.net"),
        ] {
            assert_eq!(domain_of(path), Ok(domain), "{path}");
        }
    }

    #[test]
    fn a_source_route_is_ignored() {
        let address = parse_path("@one.example,@two.example:user@example.net").unwrap();
        assert_eq!(address.as_str(), "user@example.net");
    }

    #[test]
    fn postmaster_needs_no_domain() {
        assert!(parse_path("PostMaster").unwrap().is_bare_postmaster());
        assert!(!parse_path("postmaster@example.net").unwrap().is_bare_postmaster());
        assert_eq!(domain_of("@elsewhere.example:postmaster"), Err(PathError::Syntax));
    }

    #[test]
    fn what_is_against_the_grammar_is_refused() {
        for path in [
            "",
            "user",
            "@example.net",
            "user@",
            "user@@example.net",
            "us er@example.net",
            ".user@example.net",
            "user..name@example.net",
            "user@-example.net",
            "user@example..net",
            "user@example.net.",
            "user@[192.0.2.256]",
            "user@[192.0.2.1",
            "user@[IPv6:nonsense]",
            "\"open@example.net",
            "\"quoted\"tail@example.net",
            "us\0er@example.net",
        ] {
            assert_eq!(domain_of(path), Err(PathError::Syntax), "{path:?}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let local = "a".repeat(LOCAL_PART_BYTES_MAX);
        assert!(parse_path(&format!("{local}@example.net")).is_ok());
        assert_eq!(domain_of(&format!("{local}a@example.net")), Err(PathError::LocalPartTooLong));
        let domain = format!("user@{}", "a.".repeat(128));
        assert_eq!(domain_of(&domain), Err(PathError::DomainTooLong));
    }

    #[test]
    fn utf8_stands_in_local_parts_and_u_labels() {
        assert!(!parse_path("@bücher.example:user@example.net").unwrap().is_ascii());
        let address = parse_path("jürgen@Bücher.example").unwrap();
        assert_eq!(address.domain(), "Bücher.example");
        assert_eq!(address.ascii_domain(), "xn--bcher-kva.example");
        assert!(!address.is_ascii());
        assert!(parse_path("\"jürgen müller\"@example.net").is_ok());
        assert!(parse_path("用户@例子.广告").is_ok());
        for path in [
            "a@example。net",
            "a@ｅxample.net",
            "a@exam\u{ad}ple.net",
            "\"\\ü\"@example.net",
            "a@bü_cher.example",
            "a@-ü.example",
            "a@ü..example",
            "a@\u{ad}",
        ] {
            assert_eq!(domain_of(path), Err(PathError::Syntax), "{path}");
        }
        let long = format!("{}@example.net", "ü".repeat(LOCAL_PART_BYTES_MAX / 2 + 1));
        assert_eq!(domain_of(&long), Err(PathError::LocalPartTooLong));
    }

    #[test]
    fn routes_in_local_parts_are_seen() {
        for (path, routed) in [
            ("user%other.example@example.net", true),
            ("other.example!user@example.net", true),
            ("\"user@other.example\"@example.net", true),
            ("user@example.net", false),
            ("\"a b\"@example.net", false),
            ("postmaster", false),
        ] {
            assert_eq!(parse_path(path).unwrap().is_routed(), routed, "{path}");
        }
    }

    #[test]
    fn a_quoted_angle_bracket_does_not_end_the_path() {
        assert_eq!(split_path("<\"a>b\"@c> SIZE=1"), Ok(("\"a>b\"@c", " SIZE=1")));
        assert_eq!(split_path("<>"), Ok(("", "")));
        assert_eq!(split_path("<open"), Err(PathError::Syntax));
        assert_eq!(split_path("user@example.net"), Err(PathError::Syntax));
    }
}
