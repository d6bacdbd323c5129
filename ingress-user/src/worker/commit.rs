//! Complete messages: to the spool writer, and its answers back.

use super::buffers::{BufferPool, Chunk};
use super::clock::Now;
use super::run::Worker;
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::LocalFault;
use crate::smtp::trace;
use crate::spool::{
    BodyEncoding, CommitError, Completion, QueueId, RefusedReason, Submission, Ticket,
};

impl Worker {
    pub(super) fn submit(
        &mut self,
        key: u64,
        envelope: Box<Envelope>,
        encoding: BodyEncoding,
        body: Vec<Chunk>,
        now: Now,
    ) -> Result<QueueId, LocalFault> {
        let give_back = |pool: &mut BufferPool, body: Vec<Chunk>| {
            body.into_iter().for_each(|chunk| pool.give_back(chunk.into_buffer()));
        };
        if self.commits_in_flight >= self.commits_in_flight_max {
            give_back(&mut self.shared.pool, body);
            return Err(LocalFault::SpoolBusy);
        }
        let id = self.next_id(now);
        let submission = Submission {
            ticket: Ticket { worker: self.index, connection: key },
            id,
            accepted_at: now.unix_micros(),
            trace: trace::received(&envelope, &self.hostname, id, now.wall),
            envelope,
            body,
            encoding,
        };
        match self.spool.submit(submission) {
            Ok(()) => {
                self.commits_in_flight += 1;
                Ok(id)
            }
            Err(refused) => {
                give_back(&mut self.shared.pool, refused.submission.body);
                Err(match refused.reason {
                    RefusedReason::Full | RefusedReason::Stopped => LocalFault::SpoolBusy,
                    RefusedReason::Poisoned => LocalFault::SpoolPoisoned,
                })
            }
        }
    }

    pub(super) fn handle_completion(&mut self, completion: Completion, now: Now) {
        self.commits_in_flight -= 1;
        for buffer in completion.buffers {
            self.shared.pool.give_back(buffer);
        }
        let metrics = self.metrics();
        let outcome = match completion.outcome {
            Ok(()) => {
                metrics.messages_accepted.increment();
                metrics.bytes_accepted.add(completion.body_bytes);
                Ok(())
            }
            Err(CommitError::NoSpace) => Err(LocalFault::SpoolFull),
            Err(CommitError::Poisoned) => Err(LocalFault::SpoolPoisoned),
        };
        // A client that hung up meanwhile does not hear it; its message is kept all the same.
        self.with_connection(completion.ticket.connection, now, |connection, turn| {
            connection.session.recycle(completion.envelope);
            connection.commit(completion.id, outcome, turn)
        });
    }

    /// Microseconds of the wall clock, made to grow even where that stands still or is set back.
    fn next_id(&mut self, now: Now) -> QueueId {
        self.last_id_micros = now.unix_micros().max(self.last_id_micros + 1);
        QueueId::new(self.last_id_micros, self.index)
    }
}
