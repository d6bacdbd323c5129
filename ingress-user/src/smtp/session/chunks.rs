//! BDAT: a message in chunks of announced size (RFC 3030).

use super::{Action, Chunk, Chunks, Octets, Session, State, Step, Transaction};
use crate::smtp::chunk::ChunkScanner;
use crate::smtp::data::DataFault;
use crate::smtp::envelope::BodyType;
use crate::smtp::reply::{Refusal, Reply};
use crate::spool::BodyEncoding;

impl Session {
    /// Begins a chunk. A refused one is read to its end all the same: its octets must never be taken for commands.
    pub(super) fn bdat(&mut self, octets: u64, last: bool, out: &mut Vec<u8>) -> Action {
        let transaction = match std::mem::replace(&mut self.state, State::ExpectCommand(None)) {
            State::ExpectCommand(transaction) => transaction,
            _ => None,
        };
        let refusal = self.chunk_refusal(transaction.as_ref(), octets);
        let scanner = match transaction.as_ref().map(|transaction| transaction.chunks) {
            Some(Chunks::Received { scanner, .. }) => scanner,
            _ => ChunkScanner::new(self.settings.text_line_bytes_max),
        };
        let chunk = Chunk { octets, missing: octets, last, scanner };
        self.state = State::ExpectChunk { transaction, chunk, refusal };
        if octets == 0 { self.handle_chunk(&[], out).action } else { Action::Continue }
    }

    /// Takes octets of the chunk.
    pub(super) fn handle_chunk(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        let is_sloppy = self.client.is_sloppy;
        let State::ExpectChunk { transaction, chunk, refusal } = &mut self.state else {
            return Step::nothing();
        };
        let consumed = usize::try_from(chunk.missing).map_or(input.len(), |m| m.min(input.len()));
        chunk.missing -= consumed as u64;
        let complete = chunk.missing == 0;
        chunk.scanner.scan(input.get(..consumed).unwrap_or_default());
        if complete && chunk.last {
            chunk.scanner.end();
        }
        let is_text = transaction.as_ref().is_some_and(|t| t.envelope.body != BodyType::BinaryMime);
        let stray_octets = chunk.scanner.stray_octets().filter(|_| !is_sloppy);
        let fault = stray_octets.or(chunk.scanner.limit()).filter(|_| is_text).map(Refusal::Data);
        if complete {
            // Not before: which fault is told must not depend on how the octets came.
            *refusal = refusal.or(fault);
        }
        let dropped = refusal.is_some() || fault.is_some();
        let octets = if dropped { Octets::Dropped } else { Octets::Message };
        let action = if complete { self.end_chunk(out) } else { Action::Continue };
        Step { consumed, octets, action }
    }

    /// Whether octets of earlier chunks are kept by the driver.
    pub(super) fn keeps_chunks(&self) -> bool {
        let transaction = match &self.state {
            State::ExpectCommand(transaction)
            | State::ExpectLineEnd(transaction)
            | State::AwaitErrorDelay { transaction, .. } => transaction,
            State::ExpectChunk { transaction, refusal: None, .. } => transaction,
            _ => return false,
        };
        transaction.as_ref().is_some_and(|t| matches!(t.chunks, Chunks::Received { .. }))
    }

    fn chunk_refusal(&self, transaction: Option<&Transaction>, octets: u64) -> Option<Refusal> {
        let Some(transaction) = transaction else { return Some(Refusal::MailFirst) };
        let before = match transaction.chunks {
            Chunks::None => 0,
            Chunks::Received { octets, .. } => octets,
            Chunks::Failed(Some(fault)) => return Some(Refusal::Local(fault)),
            Chunks::Failed(None) => return Some(Refusal::ChunkFailedBefore),
        };
        if transaction.envelope.recipient_count() == 0 {
            return Some(Refusal::RecipientsFirst);
        }
        let too_big = before.saturating_add(octets) > self.settings.message_bytes_max;
        too_big.then_some(Refusal::Data(DataFault::TooBig))
    }

    fn end_chunk(&mut self, out: &mut Vec<u8>) -> Action {
        let State::ExpectChunk { transaction, chunk, refusal } =
            std::mem::replace(&mut self.state, State::ExpectCommand(None))
        else {
            return Action::Continue;
        };
        self.transcript.note(format_args!("chunk of {} octets", chunk.octets), self.now);
        match (refusal, transaction) {
            (Some(refusal), transaction) => {
                self.end_refused_chunk(transaction, refusal, chunk.last, out)
            }
            (None, Some(transaction)) => self.end_kept_chunk(transaction, chunk, out),
            (None, None) => Action::Continue,
        }
    }

    fn end_kept_chunk(
        &mut self,
        mut transaction: Transaction,
        chunk: Chunk,
        out: &mut Vec<u8>,
    ) -> Action {
        if chunk.last {
            let is_text = transaction.envelope.body != BodyType::BinaryMime;
            // Only a sloppy client's get here with such octets.
            let is_sloppy = is_text && chunk.scanner.stray_octets().is_some();
            let encoding =
                if is_sloppy { BodyEncoding::SloppyVerbatim } else { BodyEncoding::Verbatim };
            return self.await_commit(transaction, encoding);
        }
        let before = match transaction.chunks {
            Chunks::Received { octets, .. } => octets,
            Chunks::None | Chunks::Failed(_) => 0,
        };
        let octets = before + chunk.octets;
        transaction.chunks = Chunks::Received { octets, scanner: chunk.scanner };
        self.state = State::ExpectCommand(Some(transaction));
        self.say(Reply::ChunkReceived { octets: chunk.octets }, out)
    }

    /// A refused chunk fails the message. LMTP answers the last one for each recipient, as it would the message.
    fn end_refused_chunk(
        &mut self,
        mut transaction: Option<Transaction>,
        refusal: Refusal,
        last: bool,
        out: &mut Vec<u8>,
    ) -> Action {
        let fault = match refusal {
            Refusal::Local(fault) => Some(fault),
            _ => None,
        };
        let failed_before = refusal == Refusal::ChunkFailedBefore;
        let replies = match &transaction {
            Some(transaction) if last => self.final_replies(&transaction.envelope).max(1),
            _ => 1,
        };
        // The refusal of the last chunk is that of the message, and ends its transaction. A message that failed before its
        // last chunk stays failed until RSET: its client may not have seen it yet.
        if let Some(failed) = transaction.take_if(|_| last && !failed_before) {
            self.recycle(failed.envelope);
        }
        if let Some(transaction) = &mut transaction {
            transaction.chunks = Chunks::Failed(fault);
        }
        self.state = State::ExpectCommand(transaction);
        self.refused_messages += 1;
        // Our fault is not one of the client's errors.
        match fault {
            Some(_) => self.say_times(replies, Reply::Refused(refusal), out),
            None => self.refuse_with(replies, refusal, out),
        }
    }
}
