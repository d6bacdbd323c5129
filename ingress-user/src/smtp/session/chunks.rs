//! BDAT: a message in chunks of announced size (RFC 3030).

use std::time::Instant;

use super::{Action, Chunk, Chunks, Octets, Session, State, Step, Transaction};
use crate::smtp::data::DataFault;
use crate::smtp::reply::{Refusal, Reply};
use crate::spool::BodyEncoding;

impl Session {
    /// Begins a chunk. A refused one is read to its end all the same: its octets must never be taken for commands.
    pub(super) fn bdat(
        &mut self,
        octets: u64,
        last: bool,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Action {
        let transaction = match std::mem::replace(&mut self.state, State::ExpectCommand(None)) {
            State::ExpectCommand(transaction) => transaction,
            _ => None,
        };
        let refusal = self.chunk_refusal(transaction.as_ref(), octets);
        let chunk = Chunk { octets, missing: octets, last };
        self.state = State::ExpectChunk { transaction, chunk, refusal };
        if octets == 0 { self.end_chunk(now, out) } else { Action::Continue }
    }

    /// Takes octets of the chunk.
    pub(super) fn handle_chunk(&mut self, input: &[u8], now: Instant, out: &mut Vec<u8>) -> Step {
        let State::ExpectChunk { chunk, refusal, .. } = &mut self.state else {
            return Step { consumed: 0, octets: Octets::Command, action: Action::Continue };
        };
        let consumed = usize::try_from(chunk.missing).map_or(input.len(), |m| m.min(input.len()));
        chunk.missing -= consumed as u64;
        let complete = chunk.missing == 0;
        let octets = if refusal.is_some() { Octets::Dropped } else { Octets::Message };
        let action = if complete { self.end_chunk(now, out) } else { Action::Continue };
        Step { consumed, octets, action }
    }

    /// Whether octets of earlier chunks are kept by the driver.
    pub(super) fn keeps_chunks(&self) -> bool {
        let transaction = match &self.state {
            State::ExpectCommand(transaction) | State::ExpectLineEnd(transaction) => transaction,
            State::ExpectChunk { transaction, refusal: None, .. } => transaction,
            _ => return false,
        };
        transaction.as_ref().is_some_and(|t| matches!(t.chunks, Chunks::Received { .. }))
    }

    fn chunk_refusal(&self, transaction: Option<&Transaction>, octets: u64) -> Option<Refusal> {
        let Some(transaction) = transaction else { return Some(Refusal::MailFirst) };
        let before = match transaction.chunks {
            Chunks::None => 0,
            Chunks::Received { octets } => octets,
            Chunks::Failed(Some(fault)) => return Some(Refusal::Local(fault)),
            Chunks::Failed(None) => return Some(Refusal::ChunkFailedBefore),
        };
        if transaction.recipients.is_empty() {
            return Some(Refusal::RecipientsFirst);
        }
        let too_big = before.saturating_add(octets) > self.settings.message_bytes_max;
        too_big.then_some(Refusal::Data(DataFault::TooBig))
    }

    fn end_chunk(&mut self, now: Instant, out: &mut Vec<u8>) -> Action {
        let State::ExpectChunk { mut transaction, chunk, refusal } =
            std::mem::replace(&mut self.state, State::ExpectCommand(None))
        else {
            return Action::Continue;
        };
        if let Some(refusal) = refusal {
            let fault = match refusal {
                Refusal::Local(fault) => Some(fault),
                _ => None,
            };
            if let Some(transaction) = &mut transaction {
                transaction.chunks = Chunks::Failed(fault);
            }
            self.state = State::ExpectCommand(transaction);
            self.refused_messages += 1;
            // Our fault is not one of the client's errors.
            return match fault {
                Some(_) => self.accept(Reply::Refused(refusal), out),
                None => self.refuse(refusal, out),
            };
        }
        let Some(mut transaction) = transaction else { return Action::Continue };
        if chunk.last {
            return self.await_commit(transaction, BodyEncoding::Verbatim, now);
        }
        let before = match transaction.chunks {
            Chunks::Received { octets } => octets,
            Chunks::None | Chunks::Failed(_) => 0,
        };
        transaction.chunks = Chunks::Received { octets: before + chunk.octets };
        self.state = State::ExpectCommand(Some(transaction));
        Reply::ChunkReceived { octets: chunk.octets }.write_to(out);
        Action::Continue
    }
}
