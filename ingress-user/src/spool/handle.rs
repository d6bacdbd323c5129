//! Opening the spool, and the handles through which the rest of the daemon uses it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, TrySendError, bounded};
use rustix::fs::{FlockOperation, flock};

use super::error::SpoolError;
use super::pending::{PendingIndex, RecordRef};
use super::poison::Poison;
use super::reader::Reader;
use super::recovery::recover;
use super::segment::sync_directory;
use super::submission::{CompletionSink, Submission};
use super::writer::{Inbox, Parts, Wrap, Writer};
use crate::config::SpoolConfig;
use crate::metrics::Metrics;

/// Lists of finished deliveries that may wait for the writer.
const RELEASES_MAX: usize = 64;

/// An open spool, to be taken apart.
#[derive(Debug)]
pub struct Spool {
    pub handle: SpoolHandle,
    /// What is durable and not released, what earlier runs left included.
    pub pending: Arc<PendingIndex>,
    pub reader: Reader,
    pub thread: SpoolThread,
}

impl Spool {
    /// Opens the spool in `directory`, which is created if missing: takes its lock, reads all segments, mends what a crash
    /// left, and starts the writer thread. Blocks for about 0.1 s for each 100 MB of backlog.
    ///
    /// # Errors
    ///
    /// [`SpoolError::Locked`] when another daemon has it; otherwise whatever the file system refuses. Damaged records and a
    /// full disk are no errors here: they are logged and counted, and the rest of the mail goes on.
    pub fn open(
        directory: &Path,
        config: &SpoolConfig,
        sink: Box<dyn CompletionSink>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SpoolError> {
        Self::open_with(directory, config, sink, metrics, Box::new(|file| Box::new(file)))
    }

    pub(super) fn open_with(
        directory: &Path,
        config: &SpoolConfig,
        sink: Box<dyn CompletionSink>,
        metrics: Arc<Metrics>,
        wrap: Wrap,
    ) -> Result<Self, SpoolError> {
        let lock = lock(directory)?;
        let recovered = recover(directory)?;
        let pending = Arc::new(PendingIndex::default());
        let poison = Poison::default();
        let parts = Parts {
            sink,
            metrics,
            pending: Arc::clone(&pending),
            poison: poison.clone(),
            wrap,
            lock,
        };
        let writer = Writer::start(directory, config, recovered, parts)
            .map_err(SpoolError::io("begin a segment in", directory))?;
        let (submissions, submissions_in) = bounded(config.submissions_max);
        let (releases, releases_in) = bounded(RELEASES_MAX);
        let (stop, stop_in) = bounded(0);
        let inbox = Inbox { submissions: submissions_in, releases: releases_in, stop: stop_in };
        let join = thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(SpoolError::io("start the writer of", directory))?;
        Ok(Self {
            handle: SpoolHandle { submissions, releases, poison },
            pending,
            reader: Reader::new(directory),
            thread: SpoolThread { stop, join },
        })
    }
}

/// One daemon per spool: two would number segments alike and remove each other's.
pub(super) fn lock(directory: &Path) -> Result<File, SpoolError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(SpoolError::io("create", directory))?;
    let directory = fs::canonicalize(directory).map_err(SpoolError::io("find", directory))?;
    if let Some(parent) = directory.parent() {
        sync_directory(parent).map_err(SpoolError::io("sync", parent))?;
    }
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(SpoolError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::Locked { directory }),
        Err(error) => Err(SpoolError::io("lock", &path)(error.into())),
    }
}

/// How workers hand messages in and delivery hands them back. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpoolHandle {
    submissions: Sender<Submission>,
    releases: Sender<Vec<RecordRef>>,
    poison: Poison,
}

impl SpoolHandle {
    /// Hands a message to the writer; never blocks. What is taken is answered by exactly one completion.
    ///
    /// # Errors
    ///
    /// Gives the message back, buffers and all, when the writer cannot take it.
    pub fn submit(&self, submission: Submission) -> Result<(), Refused> {
        if self.poison.is_set() {
            return Err(Refused { submission, reason: RefusedReason::Poisoned });
        }
        self.submissions.try_send(submission).map_err(|error| match error {
            TrySendError::Full(submission) => Refused { submission, reason: RefusedReason::Full },
            TrySendError::Disconnected(submission) => {
                Refused { submission, reason: RefusedReason::Stopped }
            }
        })
    }

    /// Notes that these messages are delivered, so that they are forgotten and their room is given back.
    ///
    /// Blocks while the writer waits for the disk: not for a worker or an async task. After the writer stopped it does
    /// nothing, and the messages come again after the next start.
    pub fn release(&self, refs: Vec<RecordRef>) {
        if self.releases.send(refs).is_err() {
            tracing::info!("deliveries finished after the spool was closed will be repeated");
        }
    }
}

/// A message the spool did not take.
#[derive(Debug)]
pub struct Refused {
    pub submission: Submission,
    pub reason: RefusedReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    #[error("the spool has as many messages waiting as it may")]
    Full,
    #[error("the spool is poisoned by a failed write or fsync; restart after checking the disk")]
    Poisoned,
    #[error("the spool is closed")]
    Stopped,
}

/// The writer thread.
#[derive(Debug)]
pub struct SpoolThread {
    stop: Sender<()>,
    join: JoinHandle<()>,
}

impl SpoolThread {
    /// Makes durable and answers what was submitted, notes what was released, and ends the thread. Stop workers and delivery
    /// before: what they submit during this call may get no answer.
    pub fn shutdown(self) {
        drop(self.stop);
        if self.join.join().is_err() {
            tracing::error!("the spool writer had panicked; the next start recovers what it wrote");
        }
    }
}
