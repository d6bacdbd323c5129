//! XCLIENT: a host that took the connection before us says whose it is. The attributes and their encoding are those of
//! Postfix's XCLIENT protocol; which clients may use it is configured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::command::CommandError;
use super::xtext;

/// Attributes we make use of, as EHLO announces them.
pub const ATTRIBUTES: &str = "NAME ADDR PROTO HELO";

/// Octets of a host name, RFC 1035 section 2.3.4.
const NAME_BYTES_MAX: usize = 255;

/// What one XCLIENT command says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Xclient {
    pub name: Told<Box<str>>,
    pub address: Told<IpAddr>,
    pub helo: Told<Box<str>>,
    /// Whether the client spoke ESMTP.
    pub extended: Told<bool>,
}

/// One attribute.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Told<T> {
    /// Not mentioned: what was known stays.
    #[default]
    Nothing,
    /// `[UNAVAILABLE]` or `[TEMPUNAVAIL]`.
    Unavailable,
    Is(T),
}

impl Xclient {
    pub(super) fn parse(argument: &str) -> Result<Self, CommandError> {
        let mut parsed = Self::default();
        if argument.is_empty() {
            return Err(CommandError::Argument);
        }
        for attribute in argument.split_ascii_whitespace() {
            let (name, value) = attribute.split_once('=').ok_or(CommandError::Argument)?;
            if name.eq_ignore_ascii_case("NAME") {
                parsed.name = told(value, host_name)?;
            } else if name.eq_ignore_ascii_case("ADDR") {
                parsed.address = told(value, address)?;
            } else if name.eq_ignore_ascii_case("HELO") {
                parsed.helo = told(value, host_name)?;
            } else if name.eq_ignore_ascii_case("PROTO") {
                parsed.extended = told(value, extended)?;
            } else {
                return Err(CommandError::UnknownParameter);
            }
        }
        Ok(parsed)
    }
}

impl<T> Told<T> {
    /// Takes what was told over into `known`.
    pub(super) fn update(self, known: &mut Option<T>) {
        match self {
            Self::Nothing => {}
            Self::Unavailable => *known = None,
            Self::Is(value) => *known = Some(value),
        }
    }
}

fn told<T>(value: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Told<T>, CommandError> {
    if value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]") {
        return Ok(Told::Unavailable);
    }
    let decoded = xtext::decode(value).ok_or(CommandError::ParameterValue)?;
    parse(&decoded).map(Told::Is).ok_or(CommandError::ParameterValue)
}

fn host_name(text: &str) -> Option<Box<str>> {
    let holds = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    holds.then(|| text.into())
}

/// `192.0.2.1`, or `IPV6:2001:db8::1`.
fn address(text: &str) -> Option<IpAddr> {
    const TAG: &str = "IPV6:";
    match text.split_at_checked(TAG.len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case(TAG) => {
            address.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical())
        }
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn extended(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("ESMTP") {
        Some(true)
    } else if text.eq_ignore_ascii_case("SMTP") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attributes_together() {
        let text = "NAME=mail.example.org ADDR=192.0.2.7 PROTO=ESMTP helo=a+2Bb.example";
        let parsed = Xclient::parse(text).unwrap();
        assert_eq!(parsed.name, Told::Is("mail.example.org".into()));
        assert_eq!(parsed.address, Told::Is([192, 0, 2, 7].into()));
        assert_eq!(parsed.extended, Told::Is(true));
        assert_eq!(parsed.helo, Told::Is("a+b.example".into()));
    }

    #[test]
    fn an_unavailable_attribute_is_told_from_one_not_mentioned() {
        let parsed = Xclient::parse("NAME=[UNAVAILABLE] HELO=[TEMPUNAVAIL]").unwrap();
        assert_eq!((parsed.name, parsed.helo), (Told::Unavailable, Told::Unavailable));
        assert_eq!(parsed.address, Told::Nothing);
    }

    #[test]
    fn ipv6_has_a_tag_and_mapped_ipv4_is_ipv4() {
        let address = |text| Xclient::parse(text).map(|parsed| parsed.address);
        assert_eq!(address("ADDR=IPV6:2001:db8::1"), Ok(Told::Is("2001:db8::1".parse().unwrap())));
        assert_eq!(address("ADDR=IPv6:::ffff:192.0.2.1"), Ok(Told::Is([192, 0, 2, 1].into())));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (text, error) in [
            ("", CommandError::Argument),
            ("NAME", CommandError::Argument),
            ("LOGIN=bob", CommandError::UnknownParameter),
            ("ADDR=192.0.2.256", CommandError::ParameterValue),
            ("ADDR=localhost", CommandError::ParameterValue),
            ("ADDR=2001:db8::1", CommandError::ParameterValue),
            ("PROTO=HTTP", CommandError::ParameterValue),
            ("NAME=a+0Ab", CommandError::ParameterValue),
            ("HELO=", CommandError::ParameterValue),
        ] {
            assert_eq!(Xclient::parse(text), Err(error), "{text}");
        }
    }
}
