//! Command lines out of octets that come in any pieces.

use memchr::{memchr, memchr2};

use super::{Action, CRLF_BYTES, Octets, Session, State, Step};
use crate::smtp::command::{self, Command, CommandError};
use crate::smtp::reply::{Closing, Refusal};

/// Capacity of the memory for unfinished lines that a session keeps: an idle one should cost next to nothing.
const KEPT_LINE_BYTES_MAX: usize = 256;

impl Session {
    /// Takes one command line, or the piece of one that is there.
    pub(super) fn handle_line_octets(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        let (piece, consumed) = match self.line_piece(input) {
            LinePiece::Whole { piece, consumed } => (piece, consumed),
            LinePiece::Partial => {
                self.keep_partial_line(input);
                return Step::command(input.len(), Action::Continue);
            }
            LinePiece::BareLineEnd => {
                return Step::command(input.len(), self.end(Closing::BareLineEnd, out));
            }
        };
        let behind = input.len() > consumed;
        let kept_chunks = self.keeps_chunks();
        if let State::ExpectLineEnd(transaction) = &mut self.state {
            self.state = State::ExpectCommand(transaction.take());
            self.line.clear();
            return Step::command(consumed, self.refuse(Refusal::LineTooLong, out));
        }
        let action = if self.line.is_empty() {
            self.handle_line(without_cr(piece), behind, out)
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(piece);
            let action = self.handle_line(without_cr(&line), behind, out);
            if line.capacity() <= KEPT_LINE_BYTES_MAX {
                line.clear();
                self.line = line;
            }
            action
        };
        let octets = match action {
            Action::Commit { .. } => Octets::Command,
            // The command ended the transaction, and with it the message that chunks had begun.
            _ if kept_chunks && !self.keeps_chunks() => Octets::Dropped,
            _ => Octets::Command,
        };
        Step { consumed, octets, action }
    }

    /// Takes one line without its CRLF; `behind` says whether octets are buffered after it.
    fn handle_line(&mut self, line: &[u8], behind: bool, out: &mut Vec<u8>) -> Action {
        if line.len() + CRLF_BYTES > self.settings.command_line_bytes_max {
            return self.refuse(Refusal::LineTooLong, out);
        }
        let verb = command::known_verb(line);
        self.transcript.client(verb, line, self.now);
        // RFC 9422 4.1: all MAIL commands count, whatever becomes of them.
        if verb == Some("MAIL") {
            self.messages = self.messages.saturating_add(1);
            if self.messages > self.settings.messages_max {
                return self.end(Closing::TooManyMessages, out);
            }
        }
        match Command::parse(line) {
            Ok(command) => self.handle_command(command, behind, out),
            Err(CommandError::ChunkSize) => self.end(Closing::BadChunkSize, out),
            Err(CommandError::Nul) if !self.client.is_sloppy => self.end(Closing::Nul, out),
            Err(error) => self.refuse(Refusal::Command(error), out),
        }
    }

    /// Looks for the line end in `input`, with what [`Self::line`] already holds before it.
    fn line_piece<'i>(&self, input: &'i [u8]) -> LinePiece<'i> {
        if self.client.is_sloppy {
            return sloppy_line_piece(input);
        }
        let cr_before = self.line.last() == Some(&b'\r');
        if cr_before && !input.is_empty() {
            // The CR that waited decides now.
            return match input.first() {
                Some(b'\n') => LinePiece::Whole { piece: &[], consumed: 1 },
                _ => LinePiece::BareLineEnd,
            };
        }
        let Some(end) = memchr2(b'\r', b'\n', input) else { return LinePiece::Partial };
        match (input.get(end), input.get(end + 1)) {
            (Some(b'\r'), Some(b'\n')) => {
                LinePiece::Whole { piece: input.get(..end).unwrap_or_default(), consumed: end + 2 }
            }
            (Some(b'\r'), None) => LinePiece::Partial,
            _ => LinePiece::BareLineEnd,
        }
    }

    /// Copies an unfinished command line out of the receive buffer, which is then free for others. Beyond the limit only
    /// its end matters.
    fn keep_partial_line(&mut self, input: &[u8]) {
        let too_long = self.line.len() + input.len() > self.settings.command_line_bytes_max;
        if let State::ExpectCommand(transaction) = &mut self.state
            && too_long
        {
            self.state = State::ExpectLineEnd(transaction.take());
        }
        if matches!(self.state, State::ExpectLineEnd(_)) {
            self.line.clear();
            if input.last() == Some(&b'\r') {
                self.line.push(b'\r');
            }
        } else {
            self.line.extend_from_slice(input);
        }
    }
}

/// For those whose bare LF is let through: LF ends a line, with CR before it or without. Any other CR is a syntax error.
fn sloppy_line_piece(input: &[u8]) -> LinePiece<'_> {
    let Some(end) = memchr(b'\n', input) else { return LinePiece::Partial };
    LinePiece::Whole { piece: input.get(..end).unwrap_or_default(), consumed: end + 1 }
}

/// The CR of a CRLF that came in two pieces, or to a client that may leave it out, still stands at the end.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where a command line ends, seen from the input at hand.
enum LinePiece<'i> {
    /// The line's last octets, without CRLF, and how much of the input they and the CRLF take.
    Whole {
        piece: &'i [u8],
        consumed: usize,
    },
    Partial,
    /// RFC 5321 2.3.8: CR and LF only ever together.
    BareLineEnd,
}
