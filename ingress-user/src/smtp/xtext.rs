//! xtext (RFC 3461 section 4): printable ASCII as it is, anything else as `+` and two upper-case hexadecimal digits.

/// Whether `text` is xtext. With `utf8` octets above 127 are let through as they are, as RFC 6533 section 3 allows where
/// SMTPUTF8 was asked for.
pub fn is_xtext(text: &str, utf8: bool) -> bool {
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'+', [high, low, behind @ ..]) if is_hexchar(*high) && is_hexchar(*low) => behind,
            (b'+' | b'=', _) => return false,
            (b'!'..=b'~', _) => behind,
            (128.., _) if utf8 => behind,
            _ => return false,
        };
    }
    true
}

/// The text that `xtext` stands for; `None` if it is no xtext or not printable UTF-8.
pub fn decode(xtext: &str) -> Option<String> {
    if !is_xtext(xtext, false) {
        return None;
    }
    let mut octets = Vec::with_capacity(xtext.len());
    let mut rest = xtext.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'+', [high, low, behind @ ..]) => {
                octets.push(hex_value(*high) << 4 | hex_value(*low));
                behind
            }
            _ => {
                octets.push(*first);
                behind
            }
        };
    }
    String::from_utf8(octets).ok().filter(|text| !text.chars().any(char::is_control))
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
        assert_eq!(decode("+C3+BC").as_deref(), Some("ü"));
        for bad in ["+0A", "+FF", "+0", "a b"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
