//! The octets of DATA, and what happens at the end of a message.

use std::time::Instant;

use super::{Action, Chunks, Octets, Session, State, Step, Transaction};
use crate::smtp::data::DataFault;
use crate::smtp::dialect::Dialect;
use crate::smtp::envelope::{Envelope, Protocol};
use crate::smtp::reply::{Closing, LocalFault, Refusal, Reply};
use crate::spool::{BodyEncoding, QueueId};

impl Session {
    /// The message of [`Action::Commit`] is on its way to the spool under this id.
    pub fn message_submitted(&mut self, submitted: QueueId) {
        if let State::AwaitCommit { id, .. } = &mut self.state {
            *id = Some(submitted);
        }
    }

    /// The spool's answer for the message `id`. An answer that comes after [`handle_timeout`](Self::handle_timeout) gave up
    /// on it is nobody's: the session may be waiting for its next message by then.
    pub fn handle_commit(
        &mut self,
        id: QueueId,
        outcome: Result<(), LocalFault>,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        let State::AwaitCommit { id: Some(awaited), replies } = self.state else { return };
        if awaited != id {
            return;
        }
        match outcome {
            Ok(()) => {
                self.now = now;
                self.end_commit(Reply::Queued { id }, replies, out);
            }
            Err(fault) => self.refuse_commit(fault, now, out),
        }
    }

    /// The message of [`Action::Commit`] is not taken.
    pub fn refuse_commit(&mut self, fault: LocalFault, now: Instant, out: &mut Vec<u8>) {
        if let State::AwaitCommit { replies, .. } = self.state {
            self.now = now;
            self.refused_messages += 1;
            self.end_commit(Reply::Refused(Refusal::Local(fault)), replies, out);
        }
    }

    /// The driver has no memory for more of this message: the rest is read and dropped, and the client told to come again.
    pub fn refuse_message(&mut self, fault: LocalFault) {
        match &mut self.state {
            State::ExpectData { refusal, .. } => {
                refusal.get_or_insert(fault);
            }
            State::ExpectChunk { refusal, .. } => {
                refusal.get_or_insert(Refusal::Local(fault));
            }
            State::ExpectCommand(Some(transaction))
            | State::ExpectLineEnd(Some(transaction))
            | State::AwaitErrorDelay { transaction: Some(transaction), .. } => {
                transaction.chunks = Chunks::Failed(Some(fault));
            }
            _ => {}
        }
    }

    pub(super) fn handle_data(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        let State::ExpectData { scanner, refusal, .. } = &mut self.state else {
            return Step::nothing();
        };
        let scanned = scanner.scan(input);
        let fault = scanner.fault();
        // What was said is in doubt after stray octets, and that is worth telling before a lack of memory.
        let refusal = match (fault, *refusal) {
            (Some(fault), _) if fault.is_stray_octet() => Some(Refusal::Data(fault)),
            (_, Some(local)) => Some(Refusal::Local(local)),
            (fault, None) => fault.map(Refusal::Data),
        };
        let octets = if refusal.is_some() { Octets::Dropped } else { Octets::Message };
        let action = if scanned.complete { self.end_data(refusal, out) } else { Action::Continue };
        Step { consumed: scanned.consumed, octets, action }
    }

    fn end_data(&mut self, refusal: Option<Refusal>, out: &mut Vec<u8>) -> Action {
        let state = std::mem::replace(&mut self.state, State::ExpectCommand(None));
        let State::ExpectData { transaction, scanner, .. } = state else {
            self.state = state;
            return Action::Continue;
        };
        let bytes = scanner.message_bytes();
        self.transcript.note(format_args!("message of {bytes} octets"), self.now);
        match refusal {
            Some(refusal) => self.end_refused_message(transaction, refusal, out),
            None if scanner.is_sloppy() => {
                self.await_commit(transaction, BodyEncoding::SloppyDotStuffed)
            }
            None => self.await_commit(transaction, BodyEncoding::DotStuffed),
        }
    }

    /// Fills in what the session knows, and hands the message out.
    pub(super) fn await_commit(
        &mut self,
        transaction: Transaction,
        encoding: BodyEncoding,
    ) -> Action {
        let mut envelope = transaction.envelope;
        let replies = self.final_replies(&envelope);
        envelope.protocol = self.protocol();
        envelope.set_helo(self.helo.as_ref().map(|helo| &*helo.name).unwrap_or_default());
        envelope.set_client_name(self.client.name.as_deref());
        self.state = State::AwaitCommit { id: None, replies };
        self.deadline = self.now + self.settings.commit_timeout;
        Action::Commit { envelope, encoding }
    }

    /// The message was read to its end and is not taken. After a bare CR or LF the two sides may disagree on where messages
    /// end, and after a NUL on what they say, so nothing more is read from this client.
    fn end_refused_message(
        &mut self,
        transaction: Transaction,
        refusal: Refusal,
        out: &mut Vec<u8>,
    ) -> Action {
        self.refused_messages += 1;
        let replies = self.final_replies(&transaction.envelope);
        self.recycle(transaction.envelope);
        let closing = match refusal {
            Refusal::Data(DataFault::BareLf | DataFault::BareCr) => Closing::BareLineEnd,
            Refusal::Data(DataFault::Nul) => Closing::Nul,
            // Our fault is not one of the client's errors.
            Refusal::Local(_) => return self.say_times(replies, Reply::Refused(refusal), out),
            _ => return self.refuse_with(replies, refusal, out),
        };
        let _ = self.say_times(replies, Reply::Refused(refusal), out);
        self.state = State::Closed;
        self.closing = Some(closing);
        Action::Close
    }

    fn end_commit(&mut self, reply: Reply<'_>, replies: usize, out: &mut Vec<u8>) {
        let _ = self.say_times(replies, reply, out);
        self.state = State::ExpectCommand(None);
        self.deadline = self.now + self.settings.idle_timeout;
    }

    /// RFC 2033 4.2: LMTP answers the end of a message once for each recipient.
    pub(super) fn final_replies(&self, envelope: &Envelope) -> usize {
        match self.settings.dialect {
            Dialect::Smtp => 1,
            Dialect::Lmtp => envelope.recipient_count(),
        }
    }

    fn protocol(&self) -> Protocol {
        let extended = self.helo.as_ref().is_some_and(|helo| helo.extended);
        match (self.settings.dialect, extended, self.secure) {
            (Dialect::Lmtp, _, false) => Protocol::Lmtp,
            (Dialect::Lmtp, _, true) => Protocol::Lmtps,
            (Dialect::Smtp, _, true) => Protocol::Esmtps,
            (Dialect::Smtp, true, false) => Protocol::Esmtp,
            (Dialect::Smtp, false, false) => Protocol::Smtp,
        }
    }
}
