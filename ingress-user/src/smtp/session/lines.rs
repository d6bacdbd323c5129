//! Command lines out of octets that come in any pieces.

use std::time::Instant;

use memchr::memchr2;

use super::{Action, Octets, Session, State, Step};
use crate::smtp::reply::{Closing, Refusal};

impl Session {
    /// Takes one command line, or the piece of one that is there.
    pub(super) fn handle_line_octets(
        &mut self,
        input: &[u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Step {
        let step = |consumed, action| Step { consumed, octets: Octets::Command, action };
        let (piece, consumed) = match self.line_piece(input) {
            LinePiece::Whole { piece, consumed } => (piece, consumed),
            LinePiece::Partial => {
                self.keep_partial_line(input);
                return step(input.len(), Action::Continue);
            }
            LinePiece::BareLineEnd => {
                return step(input.len(), self.close(Closing::BareLineEnd, out));
            }
        };
        let behind = input.len() > consumed;
        let kept_chunks = self.keeps_chunks();
        if let State::ExpectLineEnd(transaction) = &mut self.state {
            self.state = State::ExpectCommand(transaction.take());
            self.line.clear();
            return step(consumed, self.refuse(Refusal::LineTooLong, out));
        }
        let action = if self.line.is_empty() {
            self.handle_line(piece, behind, now, out)
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(piece);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            self.handle_line(&line, behind, now, out)
        };
        let octets = match action {
            Action::Commit { .. } => Octets::Command,
            // The command ended the transaction, and with it the message that chunks had begun.
            _ if kept_chunks && !self.keeps_chunks() => Octets::Dropped,
            _ => Octets::Command,
        };
        Step { consumed, octets, action }
    }

    /// Looks for the line end in `input`, with what [`Self::line`] already holds before it.
    fn line_piece<'i>(&self, input: &'i [u8]) -> LinePiece<'i> {
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
