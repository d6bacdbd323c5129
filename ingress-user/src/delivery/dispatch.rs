//! Decides what is delivered when: the retries that are due, then the oldest that wait, in a bounded window.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Courier;
use super::schedule::next_attempt;
use crate::spool::{PendingIndex, RecordRef};

/// Batches under way at once. They wait for the disk most of the time; more than a few only make it seek.
const BATCHES_MAX: usize = 4;

/// Messages in a batch: enough that the one sync of the folder is shared by many.
const BATCH_MESSAGES_MAX: usize = 256;

/// How long a message waits for others to be delivered with it when nothing else was pending. Each batch costs thread
/// switches and an entry in a release log; under load this makes it a few a second instead of one for every fsync.
const GATHER: Duration = Duration::from_millis(20);

/// Messages that wait for another attempt. At this many, nothing new is tried before some are due: if the destination
/// takes nothing, ten thousand failures say as much as a million, and the backlog stays in the index.
const DEFERRED_MAX: usize = 10_000;

/// A batch of messages that have failed equally often.
struct Batch {
    /// Of this attempt, counted from 1.
    attempt: u32,
    records: Vec<RecordRef>,
}

pub(super) struct Dispatch {
    pending: Arc<PendingIndex>,
    courier: Arc<Courier>,
    under_way: JoinSet<Batch>,
    /// Failed batches, by when they are due; the number keeps two of the same instant apart.
    deferred: BTreeMap<(Instant, u64), Batch>,
    deferred_messages: usize,
    deferrals: u64,
}

impl Dispatch {
    pub(super) fn new(pending: Arc<PendingIndex>, courier: Arc<Courier>) -> Self {
        Self {
            pending,
            courier,
            under_way: JoinSet::new(),
            deferred: BTreeMap::new(),
            deferred_messages: 0,
            deferrals: 0,
        }
    }

    /// Runs until `stop` is closed, then waits for the batches under way.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<()>) {
        loop {
            while self.under_way.len() < BATCHES_MAX
                && let Some(batch) = self.next_batch()
            {
                let courier = Arc::clone(&self.courier);
                self.under_way.spawn_blocking(move || Batch {
                    attempt: batch.attempt,
                    records: courier.carry(batch.records),
                });
            }
            let has_room = self.under_way.len() < BATCHES_MAX;
            let due = self.deferred.first_key_value().map(|((due, _), _)| *due);
            tokio::select! {
                // Nothing is sent; it closes.
                _ = stop.changed() => break,
                Some(done) = self.under_way.join_next() => self.finish(done),
                () = self.pending.wait(), if has_room => sleep(GATHER).await,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if has_room && due.is_some() => {}
            }
        }
        while self.under_way.join_next().await.is_some() {}
    }

    fn next_batch(&mut self) -> Option<Batch> {
        // tokio's clock, because its timer says when this is called again.
        if let Some(entry) = self.deferred.first_entry()
            && entry.key().0 <= Instant::now()
        {
            let batch = entry.remove();
            self.deferred_messages -= batch.records.len();
            return Some(Batch { attempt: batch.attempt + 1, ..batch });
        }
        if self.deferred_messages >= DEFERRED_MAX {
            return None;
        }
        let records = self.pending.take(BATCH_MESSAGES_MAX);
        (!records.is_empty()).then_some(Batch { attempt: 1, records })
    }

    fn finish(&mut self, done: Result<Batch, tokio::task::JoinError>) {
        match done {
            Ok(batch) if batch.records.is_empty() => {}
            Ok(batch) => {
                self.deferred_messages += batch.records.len();
                self.deferrals += 1;
                let due = Instant::now() + next_attempt(batch.attempt);
                self.deferred.insert((due, self.deferrals), batch);
            }
            // Its references are lost with it, its records are not.
            Err(error) => tracing::error!(%error, "a delivery panicked; restart to try it again"),
        }
    }
}
