//! Makes proper lines of a sloppy client's body on the way out. FORMAT.md says what becomes of what.

use std::io::{self, Write};

/// Stands behind the last line of a dot-stuffed body.
const END_OF_DATA_BYTES: u64 = 3;

/// Passes a body on piece by piece with CRLF at every line end, without NUL, and without CR anywhere else.
#[derive(Debug)]
pub(super) struct Normalize<W> {
    output: W,
    /// A leading dot is removed from each line, and the last three octets from the body.
    stuffed: bool,
    /// Octets to come that are text.
    text_left: u64,
    line_start: bool,
    /// CR was seen that is a line end or a blank, as the next octet says.
    after_cr: bool,
    written: Vec<u8>,
}

impl<W: Write> Normalize<W> {
    pub(super) fn new(output: W, stuffed: bool, body_bytes: u64) -> Self {
        let end_bytes = if stuffed { END_OF_DATA_BYTES } else { 0 };
        Self {
            output,
            stuffed,
            text_left: body_bytes.saturating_sub(end_bytes),
            line_start: true,
            after_cr: false,
            written: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let text_bytes = self.text_left.min(piece.len() as u64);
        self.text_left -= text_bytes;
        let (text, _end) = piece.split_at(text_bytes as usize);
        self.written.clear();
        for &octet in text {
            self.take(octet);
        }
        self.output.write_all(&self.written)
    }

    /// The body is over.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.after_cr {
            self.output.write_all(b" ")?;
        }
        Ok(())
    }

    fn take(&mut self, octet: u8) {
        match octet {
            0 => {}
            b'\r' => self.after_cr = true,
            b'\n' => {
                self.written.extend_from_slice(b"\r\n");
                self.after_cr = false;
                self.line_start = true;
            }
            octet => {
                if std::mem::take(&mut self.after_cr) {
                    self.written.push(b' ');
                    self.line_start = false;
                }
                let is_stuffed_dot = self.stuffed && self.line_start && octet == b'.';
                if !is_stuffed_dot {
                    self.written.push(octet);
                }
                self.line_start = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normalized(body: &[u8], stuffed: bool, piece_bytes: usize) -> Vec<u8> {
        let mut message = Vec::new();
        let mut normalize = Normalize::new(&mut message, stuffed, body.len() as u64);
        body.chunks(piece_bytes).for_each(|piece| normalize.write(piece).unwrap());
        normalize.finish().unwrap();
        message
    }

    #[test]
    fn every_line_end_becomes_crlf() {
        for (body, message) in [
            (&b"a\nb\r\nc\r\r\nd\n\n.\r\n"[..], &b"a\r\nb\r\nc\r\nd\r\n\r\n"[..]),
            (b"a\rb\r\n.\r\n", b"a b\r\n"),
            (b"a\0b\0\r\n.\r\n", b"ab\r\n"),
            (b".\r\n", b""),
        ] {
            assert_eq!(normalized(body, true, 1), message, "{}", body.escape_ascii());
        }
    }

    /// What looked like an end of data to a lax server is text, and stays text for the next one.
    #[test]
    fn a_lone_dot_between_bare_line_ends_does_not_survive_as_an_end() {
        for body in [&b"a\n.\nb\r\n.\r\n"[..], b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\nb\r\n.\r\n"] {
            assert_eq!(normalized(body, true, 1), b"a\r\n\r\nb\r\n", "{}", body.escape_ascii());
        }
        assert_eq!(normalized(b"a\r.\r\n.\r\n", true, 1), b"a .\r\n");
        assert_eq!(normalized(b"\n..a\r\n.\r\n", true, 1), b"\r\n.a\r\n");
    }

    #[test]
    fn chunks_keep_their_dots_and_their_end() {
        assert_eq!(normalized(b".a\n.\r\n.", false, 1), b".a\r\n.\r\n.");
        assert_eq!(normalized(b"a\r", false, 1), b"a ");
    }

    proptest! {
        #[test]
        fn what_comes_out_is_clean_and_the_same_at_any_split(
            body in prop::collection::vec(prop::sample::select(b".\r\na\0".to_vec()), 0..40),
            piece_bytes in 1_usize..8,
            stuffed in any::<bool>(),
        ) {
            let message = normalized(&body, stuffed, piece_bytes);
            prop_assert_eq!(&message, &normalized(&body, stuffed, body.len().max(1)));
            prop_assert!(!message.contains(&0));
            let bare = message.split(|&octet| octet == b'\n');
            let lines: Vec<&[u8]> = bare.collect();
            for line in &lines[..lines.len() - 1] {
                prop_assert!(line.ends_with(b"\r") && !line[..line.len() - 1].contains(&b'\r'));
            }
            prop_assert!(!lines[lines.len() - 1].contains(&b'\r'));
        }
    }
}
