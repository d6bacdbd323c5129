//! What other threads tell a worker: a bounded channel and a waker.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::Waker;

use super::drain::Ending;
use super::run::Listening;
use crate::spool::{Completion, CompletionSink};

/// Letters beside completions that may wait at once: a drain request, and listeners of workers that have died.
const CONTROL_LETTERS_MAX: usize = 64;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Letter {
    /// The spool's answer to a submission of this worker.
    Committed(Completion),
    /// Stop accepting, let transactions finish, then end.
    Drain(Ending),
    /// Serve this listener of a worker that has died.
    Adopt(Box<Listening>),
    #[cfg(test)]
    Die,
}

/// The end the worker reads.
pub(super) type Mailbox = Receiver<Letter>;

/// The end others write to.
#[derive(Clone)]
pub struct MailboxSender {
    letters: Sender<Letter>,
    waker: Arc<Waker>,
}

impl MailboxSender {
    /// `commits_in_flight_max` bounds the worker's unanswered submissions, so an answer always finds room.
    pub(super) fn new(waker: Arc<Waker>, commits_in_flight_max: usize) -> (Self, Mailbox) {
        let (letters, mailbox) =
            crossbeam_channel::bounded(commits_in_flight_max + CONTROL_LETTERS_MAX);
        (Self { letters, waker }, mailbox)
    }

    /// Asks the worker to finish. A worker that is gone has finished.
    pub fn drain(&self, ending: Ending) {
        let _ = self.letters.try_send(Letter::Drain(ending));
        self.wake();
    }

    /// Has the worker serve a listener of one that has died. False when it has no room for the letter.
    pub(super) fn adopt(&self, listener: Listening) -> bool {
        let is_sent = self.letters.try_send(Letter::Adopt(Box::new(listener))).is_ok();
        self.wake();
        is_sent
    }

    #[cfg(test)]
    pub(super) fn kill(&self) {
        self.letters.try_send(Letter::Die).unwrap();
        self.wake();
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake a worker");
        }
    }
}

/// Brings completions from the spool writer to the workers, with one wake-up per worker and batch.
pub struct CompletionPost {
    workers: Vec<MailboxSender>,
    to_wake: Vec<bool>,
}

impl CompletionPost {
    /// Mailboxes in the order of worker indexes.
    pub fn new(workers: Vec<MailboxSender>) -> Self {
        let to_wake = vec![false; workers.len()];
        Self { workers, to_wake }
    }
}

impl CompletionSink for CompletionPost {
    fn complete(&mut self, completion: Completion) {
        let worker = completion.ticket.worker;
        let (Some(mailbox), Some(to_wake)) =
            (self.workers.get(worker), self.to_wake.get_mut(worker))
        else {
            tracing::error!(worker, "completion for a worker that does not exist");
            return;
        };
        *to_wake = true;
        if let Err(TrySendError::Full(_)) = mailbox.letters.try_send(Letter::Committed(completion))
        {
            tracing::error!(worker, "mailbox overfull: a client will not get its reply");
        }
    }

    fn flush(&mut self) {
        for (mailbox, to_wake) in self.workers.iter().zip(&mut self.to_wake) {
            if std::mem::take(to_wake) {
                mailbox.wake();
            }
        }
    }
}
