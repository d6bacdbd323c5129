//! Looks for stray octets and long lines in text that comes by BDAT (RFC 3030).

use memchr::{memchr, memchr2_iter};

use super::data::DataFault;

/// Watches the octets of chunks (RFC 3030) for what [`DataScanner`](super::data::DataScanner) finds in DATA: BDAT must not be a way around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkScanner {
    line_bytes_max: u64,
    /// Octets of the line under way.
    line_bytes: u64,
    /// The last octet was CR.
    after_cr: bool,
    bare: Option<DataFault>,
    has_nul: bool,
    line_too_long: bool,
}

impl ChunkScanner {
    pub fn new(line_bytes_max: u64) -> Self {
        Self {
            line_bytes_max,
            line_bytes: 0,
            after_cr: false,
            bare: None,
            has_nul: false,
            line_too_long: false,
        }
    }

    /// Goes on over the next octets of the message.
    pub fn scan(&mut self, octets: &[u8]) {
        let mut behind = 0;
        for at in memchr2_iter(b'\r', b'\n', octets) {
            self.text(at - behind);
            let is_lf = octets.get(at) == Some(&b'\n');
            match (self.after_cr, is_lf) {
                (true, false) => self.found(DataFault::BareCr),
                (false, true) => self.found(DataFault::BareLf),
                _ => {}
            }
            self.after_cr = !is_lf;
            self.count(1);
            if is_lf {
                self.line_bytes = 0;
            }
            behind = at + 1;
        }
        self.text(octets.len() - behind);
        self.has_nul = self.has_nul || memchr(0, octets).is_some();
    }

    /// The message has ended.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.after_cr) {
            self.found(DataFault::BareCr);
        }
    }

    /// What is wrong so far with the octets themselves.
    pub fn stray_octets(&self) -> Option<DataFault> {
        self.bare.or(self.has_nul.then_some(DataFault::Nul))
    }

    /// What is wrong so far with the lengths of lines.
    pub fn limit(&self) -> Option<DataFault> {
        self.line_too_long.then_some(DataFault::LineTooLong)
    }

    /// Octets that are neither CR nor LF.
    fn text(&mut self, octets: usize) {
        if octets > 0 {
            if std::mem::take(&mut self.after_cr) {
                self.found(DataFault::BareCr);
            }
            self.count(octets as u64);
        }
    }

    fn count(&mut self, octets: u64) {
        self.line_bytes += octets;
        self.line_too_long |= self.line_bytes > self.line_bytes_max;
    }

    fn found(&mut self, fault: DataFault) {
        self.bare.get_or_insert(fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE_BYTES_MAX: u64 = 100;

    fn chunk_fault(pieces: &[&[u8]]) -> Option<DataFault> {
        let mut scanner = ChunkScanner::new(LINE_BYTES_MAX);
        pieces.iter().for_each(|piece| scanner.scan(piece));
        scanner.end();
        scanner.stray_octets().or(scanner.limit())
    }

    #[test]
    fn a_long_line_in_chunks_is_seen_to_the_octet() {
        let longest = [b"a".repeat(98).as_slice(), b"\r\n"].concat();
        assert_eq!(chunk_fault(&[&longest, &longest]), None);
        let longer = [b"a", longest.as_slice()].concat();
        let octets: Vec<&[u8]> = longer.chunks(1).collect();
        assert_eq!(chunk_fault(&[&longer]), Some(DataFault::LineTooLong));
        assert_eq!(chunk_fault(&octets), Some(DataFault::LineTooLong));
    }

    #[test]
    fn bare_line_ends_in_chunks_are_seen() {
        for (octets, fault) in [
            (&b""[..], None),
            (b"a\r\nb", None),
            (b".\r\n.\r\n", None),
            (b"a\nb", Some(DataFault::BareLf)),
            (b"a\rb", Some(DataFault::BareCr)),
            (b"a\r\r\n", Some(DataFault::BareCr)),
            (b"a\r", Some(DataFault::BareCr)),
            (b"a\r\n\n", Some(DataFault::BareLf)),
            (b"a\0", Some(DataFault::Nul)),
            (b"a\0\n", Some(DataFault::BareLf)),
        ] {
            assert_eq!(chunk_fault(&[octets]), fault, "{}", octets.escape_ascii());
        }
    }

    proptest! {
        /// However chunks are cut, their scanner says what a plain look at the whole says.
        #[test]
        fn chunks_are_scanned_alike_at_any_split(
            octets in proptest::collection::vec(proptest::sample::select(&b"a.\r\n\0"[..]), 0..24),
            piece_bytes in 1usize..6,
        ) {
            let bare = |at: usize| match octets[at] {
                b'\r' => octets.get(at + 1) != Some(&b'\n'),
                b'\n' => at == 0 || octets[at - 1] != b'\r',
                _ => false,
            };
            let first = (0..octets.len()).find(|&at| bare(at)).map(|at| match octets[at] {
                b'\r' => DataFault::BareCr,
                _ => DataFault::BareLf,
            });
            let plain = first.or(octets.contains(&0).then_some(DataFault::Nul));
            let pieces: Vec<&[u8]> = octets.chunks(piece_bytes).collect();
            prop_assert_eq!(chunk_fault(&pieces), plain);
            prop_assert_eq!(chunk_fault(&[&octets]), plain);
        }
    }
}
