//! Finds the end of a message in the octets after 354, and what is wrong with it on the way.
//!
//! The octets themselves are not touched: the spool keeps the wire form (RFC 5321 4.5.2), so nothing is copied here.

use memchr::{memchr, memchr2};

/// Why a message will be refused at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFault {
    /// LF without CR before it. RFC 5321 2.3.8: only CRLF ends a line; anything else opens SMTP smuggling.
    BareLf,
    /// CR without LF after it.
    BareCr,
    /// NUL ends a text for too many programs behind us: what they see is not what was checked (RFC 5321 4.5.2).
    Nul,
    TooBig,
    LineTooLong,
}

impl DataFault {
    /// Whether it is about octets that no message has, and not about lengths.
    pub fn is_stray_octet(self) -> bool {
        matches!(self, Self::BareLf | Self::BareCr | Self::Nul)
    }
}

/// Bounds on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataLimits {
    pub message_bytes_max: u64,
    pub line_bytes_max: u64,
    /// Bare CR, bare LF and NUL are let through, to be normalised when the message is read.
    pub sloppy: bool,
}

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    /// After a dot that began a line: a stuffed dot, or the end.
    LeadingDot,
    /// After dot and CR: LF ends the message.
    LeadingDotCr,
    Text,
    /// After CR inside a line.
    TextCr,
}

/// Scanner over one message. Feed it octets in any pieces.
#[derive(Debug)]
pub struct DataScanner {
    position: Position,
    limits: DataLimits,
    /// Octets of the message so far, without stuffed dots.
    message_bytes: u64,
    line_bytes: u64,
    /// The first bare CR or LF.
    bare: Option<DataFault>,
    has_nul: bool,
    /// The first limit crossed.
    limit: Option<DataFault>,
}

/// What one call of [`DataScanner::scan`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Octets that belong to the message's wire form; all of the input unless the end was found.
    pub consumed: usize,
    pub complete: bool,
}

impl DataScanner {
    pub fn new(limits: DataLimits) -> Self {
        Self {
            position: Position::LineStart,
            limits,
            message_bytes: 0,
            line_bytes: 0,
            bare: None,
            has_nul: false,
            limit: None,
        }
    }

    /// What is wrong: octets before limits, since after those the two sides may disagree on what was said.
    pub fn fault(&self) -> Option<DataFault> {
        let octets = self.stray_octets().filter(|_| !self.limits.sloppy);
        octets.or(self.limit)
    }

    /// Whether anything was let through that has to be normalised.
    pub fn is_sloppy(&self) -> bool {
        self.limits.sloppy && self.stray_octets().is_some()
    }

    fn stray_octets(&self) -> Option<DataFault> {
        self.bare.or(self.has_nul.then_some(DataFault::Nul))
    }

    /// Octets of the message, dots undone, the final line not counted.
    pub fn message_bytes(&self) -> u64 {
        self.message_bytes
    }

    /// Goes on to the end of the message or of `input`.
    pub fn scan(&mut self, input: &[u8]) -> Scanned {
        let scanned = self.scan_lines(input);
        // A pass of its own costs next to nothing: it runs over all lines without stopping.
        let seen = input.get(..scanned.consumed).unwrap_or_default();
        self.has_nul = self.has_nul || memchr(0, seen).is_some();
        scanned
    }

    fn scan_lines(&mut self, input: &[u8]) -> Scanned {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            at += match self.position {
                Position::Text => self.text_run(input.get(at..).unwrap_or_default()),
                _ => {
                    if self.step(byte) {
                        return Scanned { consumed: at + 1, complete: true };
                    }
                    1
                }
            };
        }
        Scanned { consumed: at, complete: false }
    }

    /// Skips lines that begin with neither dot nor line end, then to the octet after the next CR or bare LF; returns how many
    /// octets that were.
    fn text_run(&mut self, rest: &[u8]) -> usize {
        let mut line = rest;
        loop {
            let Some(end) = memchr2(b'\r', b'\n', line) else {
                self.count(line.len() as u64);
                return rest.len();
            };
            let (run, next) = match line.get(end..) {
                // An ordinary line, and the next begins like one: the position stays what it is.
                Some([b'\r', b'\n', next @ ..])
                    if next.first().is_some_and(|first| !matches!(first, b'.' | b'\r' | b'\n')) =>
                {
                    (end + 2, next)
                }
                found => {
                    self.count(end as u64 + 1);
                    if matches!(found, Some([b'\r', ..])) {
                        self.position = Position::TextCr;
                    } else {
                        self.found(DataFault::BareLf);
                    }
                    return rest.len() - line.len() + end + 1;
                }
            };
            self.count(run as u64);
            self.line_bytes = 0;
            line = next;
        }
    }

    /// Takes one octet anywhere but in the middle of text. Returns whether it ended the message.
    fn step(&mut self, byte: u8) -> bool {
        use Position::{LeadingDot, LeadingDotCr, LineStart, Text, TextCr};
        match (self.position, byte) {
            // RFC 5321 4.5.2: a leading dot is either the end or to be removed; it is not part of the message.
            (LineStart, b'.') => self.position = LeadingDot,
            (LeadingDot, b'\r') => self.position = LeadingDotCr,
            (LeadingDotCr, b'\n') => return true,
            (LeadingDotCr, byte) => {
                // The CR was text after all, and a bare one; what follows is read as text from here.
                self.count(1);
                self.found(DataFault::BareCr);
                self.text_octet(byte);
            }
            (TextCr, b'\n') => {
                self.count(1);
                self.line_bytes = 0;
                self.position = LineStart;
            }
            (TextCr, byte) => {
                self.found(DataFault::BareCr);
                self.text_octet(byte);
            }
            (LineStart | LeadingDot | Text, byte) => self.text_octet(byte),
        }
        false
    }

    fn text_octet(&mut self, byte: u8) {
        self.count(1);
        self.position = match byte {
            b'\r' => Position::TextCr,
            b'\n' => {
                self.found(DataFault::BareLf);
                Position::Text
            }
            _ => Position::Text,
        };
    }

    /// Of the limits that a run of octets crosses, the first counts, as if the octets had come one by one.
    fn count(&mut self, octets: u64) {
        let message_room = self.limits.message_bytes_max.saturating_sub(self.message_bytes);
        let line_room = self.limits.line_bytes_max.saturating_sub(self.line_bytes);
        self.message_bytes += octets;
        self.line_bytes += octets;
        let crossed = match (octets > message_room, octets > line_room) {
            (_, true) if line_room < message_room => DataFault::LineTooLong,
            (true, _) => DataFault::TooBig,
            (false, true) => DataFault::LineTooLong,
            (false, false) => return,
        };
        self.limit.get_or_insert(crossed);
    }

    fn found(&mut self, bare: DataFault) {
        self.bare.get_or_insert(bare);
        if self.limits.sloppy && bare == DataFault::BareLf {
            self.line_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: DataLimits =
        DataLimits { message_bytes_max: 1000, line_bytes_max: 100, sloppy: false };

    /// Consumed octets up to the end if there is one, the fault, and the size of the message.
    fn scan_in(pieces: &[&[u8]], limits: DataLimits) -> (Option<usize>, Option<DataFault>, u64) {
        let mut scanner = DataScanner::new(limits);
        let mut before = 0;
        for piece in pieces {
            let scanned = scanner.scan(piece);
            if scanned.complete {
                let end = before + scanned.consumed;
                return (Some(end), scanner.fault(), scanner.message_bytes());
            }
            assert_eq!(scanned.consumed, piece.len());
            before += piece.len();
        }
        (None, scanner.fault(), scanner.message_bytes())
    }

    #[test]
    fn messages_end_at_crlf_dot_crlf_only() {
        for (wire, end) in [
            (&b".\r\n"[..], Some(3)),
            (b"a\r\n.\r\n", Some(6)),
            (b"a\r\n..\r\n.\r\nNOOP\r\n", Some(10)),
            (b"a.\r\n", None),
            (b"a\r\n.", None),
            (b"a\r\n.\r", None),
            (b"a\r\n.b\r\n", None),
        ] {
            let (found, fault, _) = scan_in(&[wire], LIMITS);
            assert_eq!((found, fault), (end, None), "{}", wire.escape_ascii());
        }
    }

    /// The end-of-data variants of SMTP smuggling: each is text, each is a fault, none ends the message.
    #[test]
    fn no_smuggling_variant_ends_a_message() {
        for (wire, fault) in [
            (&b"a\n.\n"[..], DataFault::BareLf),
            (b"a\n.\r\n", DataFault::BareLf),
            (b"a\r\n.\n", DataFault::BareLf),
            (b"a\r.\r", DataFault::BareCr),
            (b"a\r.\r\n", DataFault::BareCr),
            (b"a\r\n.\r\r\n", DataFault::BareCr),
            (b"a\r\n.\ra\r\n", DataFault::BareCr),
            (b"a\r\r\n.\n", DataFault::BareCr),
            (b"a\r\n\x00.\n", DataFault::BareLf),
        ] {
            let (found, first, _) = scan_in(&[wire], LIMITS);
            assert_eq!((found, first), (None, Some(fault)), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn the_true_end_is_still_found_behind_a_fault() {
        let (end, fault, _) = scan_in(&[b"a\n.\nb\r\n.\r\n"], LIMITS);
        assert_eq!((end, fault), (Some(10), Some(DataFault::BareLf)));
    }

    #[test]
    fn stuffed_dots_and_the_final_line_are_not_counted() {
        assert_eq!(scan_in(&[b"..a\r\n.\r\n"], LIMITS).2, 4);
        assert_eq!(scan_in(&[b".\r\n"], LIMITS).2, 0);
    }

    #[test]
    fn limits_hold_to_the_octet() {
        let limits = DataLimits { message_bytes_max: 7, line_bytes_max: 5, ..LIMITS };
        assert_eq!(scan_in(&[b"abc\r\n\r\n.\r\n"], limits).1, None);
        assert_eq!(scan_in(&[b"abc\r\na\r\n.\r\n"], limits).1, Some(DataFault::TooBig));
        assert_eq!(scan_in(&[b"abcd\r\n.\r\n"], limits).1, Some(DataFault::LineTooLong));
    }

    #[test]
    fn the_first_limit_crossed_is_told_however_the_octets_are_cut() {
        let limits = DataLimits { message_bytes_max: 7, line_bytes_max: 5, ..LIMITS };
        let wire = b"abcdefghi\r\n.\r\n";
        let octets: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(scan_in(&[wire], limits).1, Some(DataFault::LineTooLong));
        assert_eq!(scan_in(&octets, limits).1, Some(DataFault::LineTooLong));
        let limits = DataLimits { message_bytes_max: 5, line_bytes_max: 7, ..LIMITS };
        assert_eq!(scan_in(&[wire], limits).1, Some(DataFault::TooBig));
        assert_eq!(scan_in(&octets, limits).1, Some(DataFault::TooBig));
    }

    /// Else one long line before it would hide a bare LF, after which the session must not go on.
    #[test]
    fn a_bare_line_end_is_told_also_where_a_limit_was_crossed_before() {
        let limits = DataLimits { message_bytes_max: 7, line_bytes_max: 5, ..LIMITS };
        let wire = b"abcdefghi\r\na\nb\r\n.\r\n";
        assert_eq!(scan_in(&[wire], limits).1, Some(DataFault::BareLf));
        assert_eq!(scan_in(&[b"abcdefghi\0\r\n.\r\n"], limits).1, Some(DataFault::Nul));
    }

    #[test]
    fn a_nul_is_a_fault_wherever_it_stands() {
        for wire in [&b"\0\r\n.\r\n"[..], b"a\0b\r\n.\r\n", b".\0\r\n.\r\n"] {
            let (end, fault, _) = scan_in(&[wire], LIMITS);
            assert_eq!((end, fault), (Some(wire.len()), Some(DataFault::Nul)));
        }
        assert_eq!(scan_in(&[b"a\r\n.\r\n\0"], LIMITS).1, None, "behind the end");
    }

    #[test]
    fn sloppy_senders_are_let_through_and_only_the_true_end_ends_their_message() {
        let sloppy = DataLimits { sloppy: true, line_bytes_max: 9, ..LIMITS };
        for wire in [&b"a\nb\n.\nc\r\n.\r\n"[..], b"a\rb\r\n.\r\n", b"a\0b\r\n.\r\n"] {
            let mut scanner = DataScanner::new(sloppy);
            let scanned = scanner.scan(wire);
            assert!(scanned.complete && scanned.consumed == wire.len());
            assert_eq!((scanner.fault(), scanner.is_sloppy()), (None, true));
        }
        let mut scanner = DataScanner::new(sloppy);
        let _ = scanner.scan(b"clean\r\n.\r\n");
        assert!(!scanner.is_sloppy());
        // Each of their lines has the limit for itself.
        assert_eq!(scan_in(&[b"12345678\n12345678\n1\r\n.\r\n"], sloppy).1, None);
        assert_eq!(scan_in(&[b"1234567890\n"], sloppy).1, Some(DataFault::LineTooLong));
    }

    proptest! {
        /// However the octets are cut, the scanner says the same.
        #[test]
        fn splits_change_nothing(
            wire in proptest::collection::vec(proptest::sample::select(&b"a.\r\n\0"[..]), 0..40),
            cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let whole = scan_in(&[&wire], LIMITS);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();
            prop_assert_eq!(scan_in(&pieces, LIMITS), whole);
            let bytes: Vec<&[u8]> = wire.chunks(1).collect();
            prop_assert_eq!(scan_in(&bytes, LIMITS), whole);
        }

        /// The end is where a plain search for CRLF.CRLF (or a leading .CRLF) puts it.
        #[test]
        fn the_end_agrees_with_a_plain_search(
            wire in proptest::collection::vec(proptest::sample::select(&b"a.\r\n\0"[..]), 0..40),
        ) {
            let mut framed = b"\r\n".to_vec();
            framed.extend(&wire);
            let plain = framed.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 3);
            prop_assert_eq!(scan_in(&[&wire], LIMITS).0, plain);
        }
    }
}
