//! The writer thread: the one owner of all spool files.
//!
//! It takes what waits in its channel as one batch, writes it with one vectored write, makes it durable with one
//! `fdatasync`, and only then answers. While it waits for the disk the next batch gathers, so a slow disk makes larger
//! batches and no delay is ever added on purpose.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, select};

use super::batch::Batch;
use super::pending::{PendingIndex, RecordRef};
use super::poison::Poison;
use super::record::RecordHeader;
use super::recovery::{Ledger, Recovered, SegmentState};
use super::releases;
use super::segment::{self, SegmentHeader, release_log_path, segment_path};
use super::segment_file::{SegmentFile, write_all};
use super::submission::{CommitError, Completion, CompletionSink, Submission};
use crate::config::SpoolConfig;
use crate::metrics::Metrics;
use crate::worker::buffers::Chunk;

/// A batch takes no further message beyond this much body: a small message should not wait for gigabytes before it.
const BATCH_BYTES_MAX: u64 = 16 << 20;

/// Puts a segment file behind the trait; tests put a failing disk there.
pub(super) type Wrap = Box<dyn FnMut(File) -> Box<dyn SegmentFile> + Send>;

pub(super) struct Inbox {
    pub(super) submissions: Receiver<Submission>,
    pub(super) releases: Receiver<Vec<RecordRef>>,
    /// Closed to stop the writer.
    pub(super) stop: Receiver<()>,
}

pub(super) struct Writer {
    directory: PathBuf,
    config: SpoolConfig,
    sink: Box<dyn CompletionSink>,
    metrics: Arc<Metrics>,
    pending: Arc<PendingIndex>,
    poison: Poison,
    wrap: Wrap,
    active: Option<Active>,
    ledger: Ledger,
    batch: Batch,
    /// Held while this lives.
    _lock: File,
}

/// The segment that is written to.
struct Active {
    number: u64,
    nonce: u64,
    file: Box<dyn SegmentFile>,
    /// Everything below is on stable storage, and nothing above is in the file between two batches.
    durable_end: u64,
}

/// What the writer works with, beside its settings and what recovery found.
pub(super) struct Parts {
    pub(super) sink: Box<dyn CompletionSink>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) pending: Arc<PendingIndex>,
    pub(super) poison: Poison,
    pub(super) wrap: Wrap,
    pub(super) lock: File,
}

impl Writer {
    /// Hands what was recovered to the pending index and begins a new segment. A full disk is no reason to fail: mail that
    /// is already here can be delivered, which makes room.
    pub(super) fn start(
        directory: &Path,
        config: &SpoolConfig,
        recovered: Recovered,
        parts: Parts,
    ) -> io::Result<Self> {
        let metrics = &parts.metrics.spool;
        metrics.pending.add(recovered.refs.len() as u64);
        metrics.damaged.add(recovered.damaged);
        metrics.segments.set(recovered.ledger.segments.len() as u64);
        parts.pending.extend(recovered.refs);
        let mut writer = Self {
            directory: directory.to_owned(),
            config: config.clone(),
            sink: parts.sink,
            metrics: parts.metrics,
            pending: parts.pending,
            poison: parts.poison,
            wrap: parts.wrap,
            active: None,
            ledger: recovered.ledger,
            batch: Batch::default(),
            _lock: parts.lock,
        };
        match writer.begin_segment() {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "the spool's file system is full; mail is answered 452 until there is room");
                Ok(writer)
            }
            result => result.map(|()| writer),
        }
    }

    /// Serves until the inbox is closed; then answers what is still in it.
    pub(super) fn run(mut self, inbox: &Inbox) {
        let mut waiting = Vec::new();
        loop {
            select! {
                recv(inbox.submissions) -> first => match first {
                    Ok(first) => {
                        self.gather(first, &inbox.submissions, &mut waiting);
                        self.commit(&mut waiting);
                    }
                    Err(_) => break,
                },
                recv(inbox.releases) -> refs => match refs {
                    Ok(mut refs) => {
                        // One visit to each log for all that waits.
                        inbox.releases.try_iter().for_each(|more| refs.extend(more));
                        self.release(refs);
                    }
                    Err(_) => break,
                },
                recv(inbox.stop) -> _ => break,
            }
        }
        while let Ok(first) = inbox.submissions.try_recv() {
            self.gather(first, &inbox.submissions, &mut waiting);
            self.commit(&mut waiting);
        }
        while let Ok(refs) = inbox.releases.try_recv() {
            self.release(refs);
        }
        self.mark_clean_end();
    }

    fn gather(&self, first: Submission, more: &Receiver<Submission>, batch: &mut Vec<Submission>) {
        let body_bytes =
            |submission: &Submission| submission.body.iter().map(Chunk::byte_count).sum::<u64>();
        let mut bytes = body_bytes(&first);
        batch.push(first);
        while batch.len() < self.config.batch_messages_max && bytes < BATCH_BYTES_MAX {
            let Ok(next) = more.try_recv() else { break };
            bytes = bytes.saturating_add(body_bytes(&next));
            batch.push(next);
        }
    }

    /// Makes a batch durable, or fails all of it, and answers each submission.
    pub(super) fn commit(&mut self, submissions: &mut Vec<Submission>) {
        let outcome = self.append(submissions);
        for submission in submissions.drain(..) {
            self.sink.complete(Completion {
                ticket: submission.ticket,
                id: submission.id,
                outcome,
                body_bytes: submission.body.iter().map(Chunk::byte_count).sum(),
                buffers: submission.body.into_iter().map(Chunk::into_buffer).collect(),
                envelope: submission.envelope,
            });
        }
        self.sink.flush();
    }

    fn append(&mut self, submissions: &[Submission]) -> Result<(), CommitError> {
        if self.poison.is_set() {
            return Err(CommitError::Poisoned);
        }
        let mut active = self.writable_segment()?;
        let Active { number, nonce, durable_end, .. } = active;
        self.batch.encode(submissions, durable_end, number, nonce);
        let result = write_durably(active.file.as_mut(), &mut self.batch.slices(submissions));
        let outcome = match result {
            Ok(()) => {
                active.durable_end = self.batch.end;
                self.account(number, self.batch.end - durable_end);
                Ok(())
            }
            Err(failure) => Err(self.failed(&mut active, failure)),
        };
        self.active = Some(active);
        outcome
    }

    /// The active segment, taken out: closed at its size limit, and begun where there is none.
    fn writable_segment(&mut self) -> Result<Active, CommitError> {
        // However small the limit, one batch fits: an empty segment is never closed.
        let bytes_max = self.config.segment_bytes_max.max(segment::HEADER_BYTES + 1);
        let full = |active: &Active| active.durable_end >= bytes_max;
        if self.active.as_ref().is_none_or(full) {
            self.begin_segment().map_err(|error| {
                if is_full(&error) {
                    return CommitError::NoSpace;
                }
                self.poison.set(&self.metrics.spool, "begin a segment in", &self.directory, &error);
                CommitError::Poisoned
            })?;
        }
        // `begin_segment` put one there.
        self.active.take().ok_or(CommitError::Poisoned)
    }

    /// Closes the active segment, all of which is durable, and begins the next. On error the active one stays.
    fn begin_segment(&mut self) -> io::Result<()> {
        let header = SegmentHeader::new(self.ledger.next_number);
        let file = segment::create(&self.directory, &header)?;
        // `create` synced the directory: earlier removals are durable now.
        self.remove_orphans();
        let SegmentHeader { number, nonce } = header;
        self.ledger.next_number = number + 1;
        let state = SegmentState { nonce, unreleased: 0, damaged: false };
        self.ledger.segments.insert(number, state);
        let file = (self.wrap)(file);
        let durable_end = segment::HEADER_BYTES;
        self.active = Some(Active { number, nonce, file, durable_end });
        let closed: Vec<_> = self.ledger.segments.keys().copied().collect();
        closed.into_iter().for_each(|number| self.reclaim(number));
        self.metrics.spool.segments.set(self.ledger.segments.len() as u64);
        Ok(())
    }

    /// Enters a durable batch into the index and the books.
    fn account(&mut self, segment: u64, bytes: u64) {
        let count = self.batch.refs.len() as u64;
        if let Some(state) = self.ledger.segments.get_mut(&segment) {
            state.unreleased += count;
        }
        let metrics = &self.metrics.spool;
        metrics.syncs.increment();
        metrics.bytes_written.add(bytes);
        metrics.pending.add(count);
        self.pending.extend(self.batch.refs.drain(..));
    }

    fn failed(&self, active: &mut Active, failure: Failure) -> CommitError {
        let (action, error) = match failure {
            Failure::Write(error) if is_full(&error) => {
                match active.file.set_len(active.durable_end) {
                    Ok(()) => return CommitError::NoSpace,
                    Err(error) => ("cut off the failed write in", error),
                }
            }
            Failure::Write(error) => ("write to", error),
            Failure::Sync(error) => ("sync", error),
        };
        let path = segment_path(&self.directory, active.number);
        self.poison.set(&self.metrics.spool, action, &path, &error);
        CommitError::Poisoned
    }

    /// Notes that delivery has done with these. Goes on when the spool is poisoned: it touches no segment.
    pub(super) fn release(&mut self, mut refs: Vec<RecordRef>) {
        refs.sort_unstable_by_key(|record| (record.segment, record.offset));
        for of_segment in refs.chunk_by(|a, b| a.segment == b.segment) {
            let Some(number) = of_segment.first().map(|record| record.segment) else { continue };
            let Some(state) = self.ledger.segments.get_mut(&number) else { continue };
            if let Err(error) = releases::append(&self.directory, number, state.nonce, of_segment) {
                let file = release_log_path(&self.directory, number);
                tracing::warn!(
                    file = %file.display(), %error, count = of_segment.len(),
                    "cannot note finished deliveries; a restart would repeat them"
                );
            }
            state.unreleased = state.unreleased.saturating_sub(of_segment.len() as u64);
            self.reclaim(number);
        }
        self.metrics.spool.pending.subtract(refs.len() as u64);
    }

    /// Removes a closed segment if it holds nothing any more. Its release log outlives it until the removal is durable:
    /// the other way round, a crash could bring the segment back without the log, and every message of it once more.
    fn reclaim(&mut self, number: u64) {
        if !self.ledger.is_idle(number) {
            return;
        }
        self.ledger.segments.remove(&number);
        self.metrics.spool.segments.set(self.ledger.segments.len() as u64);
        let path = segment_path(&self.directory, number);
        match fs::remove_file(&path) {
            Ok(()) => self.ledger.orphans.push(release_log_path(&self.directory, number)),
            // Harmless: the next start finds every record released and tries again.
            Err(error) => tracing::warn!(file = %path.display(), %error, "cannot remove a segment"),
        }
    }

    /// Only after the directory was synced.
    fn remove_orphans(&mut self) {
        for path in self.ledger.orphans.drain(..) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "cannot remove a release log");
                }
                _ => {}
            }
        }
    }

    /// Ends the segment with an empty record whose floor is its own offset. The next start then knows that all before it
    /// was durable, and reports damage to the last batch instead of taking it for one that a crash interrupted.
    fn mark_clean_end(&mut self) {
        let Some(active) = self.active.as_mut().filter(|_| !self.poison.is_set()) else { return };
        let end = active.durable_end;
        let mut mark = Vec::new();
        RecordHeader::void(0, end, active.nonce, end).encode(&mut mark);
        if let Err(Failure::Write(error) | Failure::Sync(error)) =
            write_durably(active.file.as_mut(), &mut [IoSlice::new(&mark)])
        {
            // Nothing depends on it but the sharper report.
            tracing::warn!(%error, "cannot mark the clean end of the spool");
        }
    }
}

enum Failure {
    Write(io::Error),
    Sync(io::Error),
}

fn write_durably(file: &mut dyn SegmentFile, slices: &mut [IoSlice<'_>]) -> Result<(), Failure> {
    write_all(file, slices).map_err(Failure::Write)?;
    file.sync_data().map_err(Failure::Sync)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
