//! The sticky failure of the spool.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::SpoolMetrics;

/// Set once, never cleared: after a failed fsync the kernel may have dropped the data and marked it clean, so a second
/// fsync that succeeds proves nothing (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
/// Only a restart, which reads back what the disk has, makes the spool usable again.
#[derive(Debug, Clone, Default)]
pub(super) struct Poison(Arc<AtomicBool>);

impl Poison {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, metrics: &SpoolMetrics, action: &str, file: &Path, error: &io::Error) {
        if !self.0.swap(true, Ordering::AcqRel) {
            metrics.poisoned.set(1);
            tracing::error!(
                file = %file.display(), action, %error,
                "the spool takes no more mail (451 to clients) until restart; check the disk first"
            );
        }
    }
}
