//! Octets that cannot be written as they are.

/// `text` with its escapes undone: `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH`, and `\{TEXT*COUNT}` for a text many times over, in
/// which the other escapes are undone too.
pub(super) fn undo(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        octets.extend_from_slice(before.as_bytes());
        rest = undo_one(behind, &mut octets)?;
    }
    octets.extend_from_slice(rest.as_bytes());
    Ok(octets)
}

/// Undoes the escape whose backslash is already gone; returns what follows it.
fn undo_one<'t>(text: &'t str, octets: &mut Vec<u8>) -> Result<&'t str, String> {
    let wrong = || {
        let name: String = text.chars().take(1).collect();
        format!("\\{name} is no escape, or an unfinished one")
    };
    if let Some(behind) = text.strip_prefix('{') {
        let (repeated, rest) = behind.split_once('}').ok_or_else(wrong)?;
        let (text, count) = repeated.rsplit_once('*').ok_or_else(wrong)?;
        let count: usize = count.parse().map_err(|_invalid| wrong())?;
        octets.extend(undo(text)?.repeat(count));
        return Ok(rest);
    }
    if let Some(behind) = text.strip_prefix('x') {
        let (digits, rest) = behind.split_at_checked(2).ok_or_else(wrong)?;
        octets.push(u8::from_str_radix(digits, 16).map_err(|_invalid| wrong())?);
        return Ok(rest);
    }
    let mut chars = text.chars();
    octets.push(match chars.next() {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('0') => 0,
        Some('\\') => b'\\',
        _ => return Err(wrong()),
    });
    Ok(chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_escape_is_undone() {
        for (text, octets) in [
            ("plain", &b"plain"[..]),
            ("", b""),
            (r"a\r\n\t\0\\b", b"a\r\n\t\0\\b"),
            (r"\x20\xff\x41", b" \xffA"),
            (r"\{x*3}y", b"xxxy"),
            (r"\{a.*2}\{\r\n*2}", b"a.a.\r\n\r\n"),
            (r"\{**2}", b"**"),
            (r"\{x*0}", b""),
        ] {
            assert_eq!(undo(text).as_deref(), Ok(octets), "{text}");
        }
    }

    #[test]
    fn what_is_no_escape_is_refused() {
        for text in [r"\", r"\q", r"\x4", r"\xzz", r"\{x*3", r"\{x}", r"\{x*}", r"\{x*-1}"] {
            assert!(undo(text).is_err(), "{text}");
        }
    }
}
