//! Parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152, RFC 3030), SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689), and
//! RET, ENVID, NOTIFY and ORCPT (RFC 3461).
//!
//! All are parsed wherever they stand; whether one was on offer is for the session to say.

use super::command::CommandError;
use super::envelope::{BodyType, Notify, Ret};
use super::xtext;

/// RFC 3461 4.4: 100 octets of xtext.
const ENVELOPE_ID_BYTES_MAX: usize = 100;
/// RFC 3461 4.2: 500 octets in all.
const ORIGINAL_RECIPIENT_BYTES_MAX: usize = 500;

/// Parameters of MAIL.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MailParameters<'a> {
    /// Octets.
    pub size: Option<u64>,
    pub body: Option<BodyType>,
    pub smtputf8: bool,
    pub requiretls: bool,
    pub ret: Option<Ret>,
    /// In xtext.
    pub envelope_id: Option<&'a str>,
}

/// Parameters of RCPT.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RcptParameters<'a> {
    pub notify: Option<Notify>,
    /// Address type, `;`, and the address in xtext; UTF-8 in it takes SMTPUTF8.
    pub original: Option<&'a str>,
}

impl<'a> MailParameters<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, CommandError> {
        let mut parsed = Self::default();
        for parameter in text.split_ascii_whitespace() {
            let (keyword, value) = split(parameter);
            if keyword.eq_ignore_ascii_case("SIZE") {
                set_once(&mut parsed.size, size(value))?;
            } else if keyword.eq_ignore_ascii_case("BODY") {
                set_once(&mut parsed.body, body(value))?;
            } else if keyword.eq_ignore_ascii_case("SMTPUTF8") {
                set_flag(&mut parsed.smtputf8, value)?;
            } else if keyword.eq_ignore_ascii_case("REQUIRETLS") {
                set_flag(&mut parsed.requiretls, value)?;
            } else if keyword.eq_ignore_ascii_case("RET") {
                set_once(&mut parsed.ret, ret(value))?;
            } else if keyword.eq_ignore_ascii_case("ENVID") {
                set_once(&mut parsed.envelope_id, envelope_id(value))?;
            } else {
                return Err(CommandError::UnknownParameter);
            }
        }
        Ok(parsed)
    }
}

impl<'a> RcptParameters<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, CommandError> {
        let mut parsed = Self::default();
        for parameter in text.split_ascii_whitespace() {
            let (keyword, value) = split(parameter);
            if keyword.eq_ignore_ascii_case("NOTIFY") {
                set_once(&mut parsed.notify, value.and_then(Notify::parse))?;
            } else if keyword.eq_ignore_ascii_case("ORCPT") {
                set_once(&mut parsed.original, original(value))?;
            } else {
                return Err(CommandError::UnknownParameter);
            }
        }
        Ok(parsed)
    }
}

fn split(parameter: &str) -> (&str, Option<&str>) {
    match parameter.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (parameter, None),
    }
}

/// Takes a value that holds, once.
fn set_once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), CommandError> {
    match (slot.is_some(), value) {
        (false, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(CommandError::ParameterValue),
    }
}

/// Takes a parameter that has no value, once.
fn set_flag(flag: &mut bool, value: Option<&str>) -> Result<(), CommandError> {
    match (std::mem::replace(flag, true), value) {
        (false, None) => Ok(()),
        _ => Err(CommandError::ParameterValue),
    }
}

/// RFC 1870 section 4: 1 to 20 digits.
fn size(value: Option<&str>) -> Option<u64> {
    let digits = value.filter(|value| {
        (1..=20).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit())
    })?;
    // 20 digits can exceed 64 bits; such a message is too large for any limit, not a syntax error.
    Some(digits.parse().unwrap_or(u64::MAX))
}

fn body(value: Option<&str>) -> Option<BodyType> {
    named(
        value,
        &[
            ("7BIT", BodyType::SevenBit),
            ("8BITMIME", BodyType::EightBitMime),
            ("BINARYMIME", BodyType::BinaryMime),
        ],
    )
}

fn ret(value: Option<&str>) -> Option<Ret> {
    named(value, &[("FULL", Ret::Full), ("HDRS", Ret::Headers)])
}

fn named<T: Copy>(value: Option<&str>, names: &[(&str, T)]) -> Option<T> {
    let value = value?;
    names.iter().find(|(name, _)| value.eq_ignore_ascii_case(name)).map(|(_, named)| *named)
}

fn envelope_id(value: Option<&str>) -> Option<&str> {
    value.filter(|id| (1..=ENVELOPE_ID_BYTES_MAX).contains(&id.len()) && xtext::is_xtext(id, false))
}

/// RFC 3461 4.2: `addr-type ";" xtext`, the type an atom such as rfc822, or utf-8 with UTF-8 behind it (RFC 6533 section 3).
fn original(value: Option<&str>) -> Option<&str> {
    let value = value.filter(|value| value.len() <= ORIGINAL_RECIPIENT_BYTES_MAX)?;
    let (address_type, address) = value.split_once(';')?;
    let holds = !address_type.is_empty()
        && address_type.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !address.is_empty()
        && xtext::is_xtext(address, address_type.eq_ignore_ascii_case("utf-8"));
    holds.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_mail_together() {
        let text = " SIZE=1000 body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B1 requiretls";
        assert_eq!(
            MailParameters::parse(text),
            Ok(MailParameters {
                size: Some(1000),
                body: Some(BodyType::EightBitMime),
                smtputf8: true,
                requiretls: true,
                ret: Some(Ret::Headers),
                envelope_id: Some("QQ+2B1"),
            })
        );
        assert_eq!(MailParameters::parse(""), Ok(MailParameters::default()));
    }

    #[test]
    fn a_size_beyond_64_bits_is_large_not_wrong() {
        let parsed = MailParameters::parse("SIZE=99999999999999999999").unwrap();
        assert_eq!(parsed.size, Some(u64::MAX));
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let long_id = format!("ENVID={}", "a".repeat(ENVELOPE_ID_BYTES_MAX + 1));
        for text in [
            "SIZE",
            "SIZE=",
            "SIZE=x",
            "SIZE=-1",
            "SIZE=1 SIZE=1",
            "BODY",
            "BODY=9BIT",
            "SMTPUTF8=YES",
            "SMTPUTF8 SMTPUTF8",
            "REQUIRETLS=1",
            "RET",
            "RET=ALL",
            "RET=FULL RET=HDRS",
            "ENVID",
            "ENVID=",
            "ENVID=a=b",
            "ENVID=a+2",
            "ENVID=a+0D+0Ab",
            "ENVID=ü",
            &long_id,
        ] {
            assert_eq!(MailParameters::parse(text), Err(CommandError::ParameterValue), "{text}");
        }
        let long_address = format!("ORCPT=rfc822;{}", "a".repeat(ORIGINAL_RECIPIENT_BYTES_MAX));
        for text in [
            "NOTIFY",
            "NOTIFY=",
            "NOTIFY=NEVER,DELAY",
            "NOTIFY=NEVER NOTIFY=NEVER",
            "ORCPT",
            "ORCPT=rfc822",
            "ORCPT=rfc822;",
            "ORCPT=;a@b",
            "ORCPT=rfc 822;a",
            "ORCPT=rfc822;a=b",
            "ORCPT=r_f;a",
            "ORCPT=rfc822;jürgen@a.example",
            "ORCPT=rfc822;a+0Ab",
            &long_address,
        ] {
            let parsed = RcptParameters::parse(text);
            assert!(
                matches!(
                    parsed,
                    Err(CommandError::ParameterValue | CommandError::UnknownParameter)
                ),
                "{text}: {parsed:?}"
            );
        }
    }

    #[test]
    fn rcpt_keeps_the_original_recipient_as_it_came() {
        let parsed = RcptParameters::parse("NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@a.example");
        let parsed = parsed.unwrap();
        assert_eq!(parsed.original, Some("rfc822;Bob+2Bx@a.example"));
        assert_eq!(
            parsed.notify.map(|notify| notify.to_string()).as_deref(),
            Some("SUCCESS,DELAY")
        );
        let parsed = RcptParameters::parse("ORCPT=utf-8;jürgen@a.example").unwrap();
        assert_eq!(parsed.original, Some("utf-8;jürgen@a.example"));
    }

    #[test]
    fn parameters_of_the_other_command_are_unknown() {
        assert_eq!(MailParameters::parse("NOTIFY=NEVER"), Err(CommandError::UnknownParameter));
        assert_eq!(RcptParameters::parse("RET=FULL"), Err(CommandError::UnknownParameter));
        assert_eq!(MailParameters::parse("AUTH=<>"), Err(CommandError::UnknownParameter));
    }
}
