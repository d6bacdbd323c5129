//! The index of what is durable and not yet taken by delivery.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::submission::QueueId;

/// Where a durable message lies, and the right to release it.
///
/// Not `Clone`: a record has exactly one reference, held by the index or by delivery, so it cannot be released twice and
/// take a neighbour's segment with it. Dropped without release, the message waits for the next start.
#[derive(Debug, PartialEq, Eq)]
pub struct RecordRef {
    pub(super) id: QueueId,
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Octets in the segment, header and padding included.
    pub(super) length: u64,
}

// The index is the one thing that grows with a backlog.
const _: () = assert!(size_of::<RecordRef>() <= 40);

impl RecordRef {
    pub fn id(&self) -> QueueId {
        self.id
    }
}

/// Durable messages in the order of acceptance. Shared by the spool writer and delivery; no worker comes near its lock.
///
/// As long as the backlog on disk, which every commit checks for room; delivery takes from it in a bounded window.
#[derive(Debug, Default)]
pub struct PendingIndex {
    refs: Mutex<VecDeque<RecordRef>>,
    added: Notify,
}

impl PendingIndex {
    pub(super) fn extend(&self, refs: impl IntoIterator<Item = RecordRef>) {
        self.lock().extend(refs);
        self.added.notify_one();
    }

    /// The oldest `count_max`, or as many as there are.
    pub fn take(&self, count_max: usize) -> Vec<RecordRef> {
        let mut refs = self.lock();
        let count = count_max.min(refs.len());
        refs.drain(..count).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Waits until something was added since the last wait; may return once too often. One task waits at a time.
    pub async fn wait(&self) {
        self.added.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RecordRef>> {
        // A panic elsewhere cannot leave a deque half changed.
        self.refs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
