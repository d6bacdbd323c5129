//! xtext (RFC 3461 section 4): printable ASCII as it is, anything else as `+` and two upper-case hexadecimal digits.

/// Whether `text` is xtext, and of printable ASCII: no line end may hide in it from who decodes it behind us. With `utf8` octets above 127 are let through as they are, as RFC 6533 section 3 allows where
/// SMTPUTF8 was asked for.
pub fn is_xtext(text: &str, utf8: bool) -> bool {
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'+', [high, low, behind @ ..]) if is_printable(*high, *low) => behind,
            (b'+' | b'=', _) => return false,
            (b'!'..=b'~', _) => behind,
            (128.., _) if utf8 => behind,
            _ => return false,
        };
    }
    true
}

/// The text that `xtext` stands for; `None` if it is no xtext of printable ASCII.
pub fn decode(xtext: &str) -> Option<String> {
    if !is_xtext(xtext, false) {
        return None;
    }
    let mut text = String::with_capacity(xtext.len());
    let mut rest = xtext.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'+', [high, low, behind @ ..]) => {
                text.push(char::from(hex_value(*high) << 4 | hex_value(*low)));
                behind
            }
            _ => {
                text.push(char::from(*first));
                behind
            }
        };
    }
    Some(text)
}

fn is_printable(high: u8, low: u8) -> bool {
    is_hexchar(high)
        && is_hexchar(low)
        && matches!(hex_value(high) << 4 | hex_value(low), b' '..=b'~')
}

fn is_hexchar(octet: u8) -> bool {
    matches!(octet, b'0'..=b'9' | b'A'..=b'F')
}

fn hex_value(octet: u8) -> u8 {
    match octet {
        b'A'..=b'F' => octet - b'A' + 10,
        _ => octet.wrapping_sub(b'0'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_upper_case_and_complete() {
        for (text, holds) in [
            ("", true),
            ("QQ314159", true),
            ("a+2Bb+3D", true),
            ("a+2bb", false),
            ("a+", false),
            ("a+2", false),
            ("a=b", false),
            ("a b", false),
            ("ü", false),
        ] {
            assert_eq!(is_xtext(text, false), holds, "{text:?}");
        }
        assert!(is_xtext("ü@example.net", true));
    }

    #[test]
    fn what_is_decoded_is_printable_text() {
        assert_eq!(decode("user+2Btag@example.net").as_deref(), Some("user+tag@example.net"));
        for bad in ["+0A", "+7F", "+C3+BC", "+0", "a b"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
