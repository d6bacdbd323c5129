//! Undoes the transparency of DATA (RFC 5321 4.5.2) on the way out.

use std::io::{self, Write};

use memchr::memchr_iter;

/// Stands behind the last line of a dot-stuffed body.
const END_OF_DATA: &[u8] = b".\r\n";

/// Passes a dot-stuffed body on piece by piece: without the first dot of each line, and without the final `.` CRLF.
///
/// Only CRLF ends a line, as everywhere: a dot behind a lone LF is text.
#[derive(Debug)]
pub(super) struct Unstuff<W> {
    output: W,
    /// Octets to come that are text; the final dot is told from a stuffed one by its place.
    text_left: u64,
    /// The last two octets seen, which decide whether a dot begins a line.
    before: [u8; 2],
    tail: Vec<u8>,
}

impl<W: Write> Unstuff<W> {
    pub(super) fn new(output: W, body_bytes: u64) -> Self {
        let text_left = body_bytes.saturating_sub(END_OF_DATA.len() as u64);
        Self { output, text_left, before: *b"\r\n", tail: Vec::new() }
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let text_bytes = self.text_left.min(piece.len() as u64);
        self.text_left -= text_bytes;
        let (text, tail) = piece.split_at(text_bytes as usize);
        self.tail.extend_from_slice(tail);
        let mut written = 0;
        for dot in memchr_iter(b'.', text) {
            if self.before(text, dot) == *b"\r\n" {
                self.output.write_all(text.get(written..dot).unwrap_or_default())?;
                written = dot + 1;
            }
        }
        self.output.write_all(text.get(written..).unwrap_or_default())?;
        self.before = self.before(text, text.len());
        Ok(())
    }

    /// Whether the body ended the way a dot-stuffed one does.
    pub(super) fn is_complete(&self) -> bool {
        self.text_left == 0 && self.tail == END_OF_DATA && self.before == *b"\r\n"
    }

    /// The two octets before `index`, earlier pieces included.
    fn before(&self, text: &[u8], index: usize) -> [u8; 2] {
        let (seen, _) = text.split_at(index);
        match (seen.last_chunk::<2>(), seen, self.before) {
            (Some(&pair), _, _) => pair,
            (None, &[one], [_, last]) => [last, one],
            (None, _, before) => before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The client's side, after RFC 5321 4.5.2.
    fn stuffed(message: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut line_start = true;
        for (index, &octet) in message.iter().enumerate() {
            if line_start && octet == b'.' {
                wire.push(b'.');
            }
            wire.push(octet);
            line_start = message[..=index].ends_with(b"\r\n");
        }
        wire.extend_from_slice(END_OF_DATA);
        wire
    }

    fn unstuffed(wire: &[u8], piece_bytes: usize) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        let mut unstuff = Unstuff::new(&mut message, wire.len() as u64);
        wire.chunks(piece_bytes).for_each(|piece| unstuff.write(piece).unwrap());
        unstuff.is_complete().then_some(message)
    }

    #[test]
    fn the_empty_message_and_lines_of_dots_come_back() {
        for message in [&b""[..], b".\r\n", b"..\r\n.\r\n", b"a\n.b\r\n", b"\r\n\r\n", b".a\r.\r\n"]
        {
            assert_eq!(unstuffed(&stuffed(message), 1).as_deref(), Some(message));
        }
    }

    #[test]
    fn a_body_without_end_of_data_is_noticed() {
        assert_eq!(unstuffed(b"", 9), None);
        assert_eq!(unstuffed(b"text", 9), None);
        assert_eq!(unstuffed(b"text.\r\n", 9), None);
    }

    proptest! {
        #[test]
        fn any_message_comes_back_at_any_split(
            octets in prop::collection::vec(prop::sample::select(b".\r\na".to_vec()), 0..60),
            piece_bytes in 1_usize..8,
        ) {
            let mut message = octets;
            if !message.is_empty() {
                message.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(unstuffed(&stuffed(&message), piece_bytes), Some(message));
        }
    }
}
