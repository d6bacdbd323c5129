//! Tests of the spool as a whole; each mechanism's own are beside it.

mod commit;
mod crash;
mod damage;
mod disk;
mod format;
mod lifecycle;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::handle::lock;
use super::poison::Poison;
use super::recovery::{Recovered, recover};
use super::segment::segment_path;
use super::writer::{Parts, Wrap, Writer};
use super::*;
use crate::config::SpoolConfig;
use crate::metrics::Metrics;
use crate::smtp::envelope::Envelope;
use crate::worker::buffers::{BUFFER_BYTES, Buffer, Chunk};

/// For what happens on another thread: long enough for any machine, and only waited for when a test fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Sends completions to the test.
struct ChannelSink(Sender<Completion>);

impl CompletionSink for ChannelSink {
    fn complete(&mut self, completion: Completion) {
        let _ = self.0.send(completion);
    }

    fn flush(&mut self) {}
}

fn config() -> SpoolConfig {
    SpoolConfig { segment_bytes_max: 64 << 20, submissions_max: 64, batch_messages_max: 16 }
}

/// A message whose every part depends on `number`, in pieces that straddle buffers.
fn submission(number: u64, body: &[u8]) -> Submission {
    let chunks = body.chunks(BUFFER_BYTES).map(|octets| {
        let mut buffer = Buffer::standalone();
        buffer.bytes_mut()[..octets.len()].copy_from_slice(octets);
        let (end, middle) = (octets.len() as u32, octets.len() as u32 / 3);
        Chunk::new(buffer, [0..middle, middle..middle, middle..end].into_iter().collect())
    });
    Submission {
        ticket: Ticket { worker: 0, connection: number },
        id: QueueId(number),
        accepted_at: 1_700_000_000_000_000 + number,
        envelope: Box::new(Envelope::plain(
            [192, 0, 2, 1].into(),
            "client.example.org",
            &format!("sender{number}@example.org"),
            &[&format!("recipient{number}@example.net")],
        )),
        trace: format!("Received: number {number}\r\n").into_bytes(),
        body: chunks.collect(),
        encoding: BodyEncoding::Verbatim,
    }
}

/// What a message is, read back or about to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    id: QueueId,
    accepted_at: u64,
    envelope: Envelope,
    trace: Vec<u8>,
    body: Vec<u8>,
}

impl Content {
    /// Of a verbatim submission.
    fn of(submission: &Submission) -> Self {
        Self {
            id: submission.id,
            accepted_at: submission.accepted_at,
            envelope: (*submission.envelope).clone(),
            trace: submission.trace.clone(),
            body: submission.body.iter().flat_map(Chunk::pieces).flatten().copied().collect(),
        }
    }

    fn read(directory: &Path, record: &RecordRef) -> Result<Self, ReadError> {
        let message = Reader::new(directory).open(record)?;
        let mut body = Vec::new();
        message.copy_to(&mut body)?;
        Ok(Self {
            id: message.id(),
            accepted_at: message.accepted_at(),
            envelope: message.envelope().clone(),
            trace: message.trace().to_vec(),
            body,
        })
    }
}

/// A writer without its thread: a commit is done when the call returns.
struct Bench {
    writer: Writer,
    completions: Receiver<Completion>,
    pending: Arc<PendingIndex>,
    metrics: Arc<Metrics>,
    directory: PathBuf,
}

impl Bench {
    fn new(directory: &Path) -> Self {
        Self::with(directory, &config(), Box::new(|file| Box::new(file)))
    }

    fn with(directory: &Path, config: &SpoolConfig, wrap: Wrap) -> Self {
        let (sink, completions) = unbounded();
        let (pending, metrics) = (Arc::default(), Arc::new(Metrics::new(&[0])));
        let parts = Parts {
            sink: Box::new(ChannelSink(sink)),
            metrics: Arc::clone(&metrics),
            pending: Arc::clone(&pending),
            poison: Poison::default(),
            wrap,
            lock: lock(directory).unwrap(),
        };
        let recovered = recover(directory).unwrap();
        let writer = Writer::start(directory, config, recovered, parts).unwrap();
        Self { writer, completions, pending, metrics, directory: directory.to_owned() }
    }

    /// Commits one batch; what it was, and the answers.
    fn commit(&mut self, batch: Vec<Submission>) -> (Vec<Content>, Vec<Result<(), CommitError>>) {
        let contents = batch.iter().map(Content::of).collect();
        let mut batch = batch;
        self.writer.commit(&mut batch);
        (contents, self.completions.try_iter().map(|completion| completion.outcome).collect())
    }

    fn commit_ok(&mut self, batch: Vec<Submission>) -> Vec<Content> {
        let (contents, outcomes) = self.commit(batch);
        assert_eq!(outcomes, vec![Ok(()); contents.len()]);
        contents
    }

    fn take_all(&self) -> Vec<RecordRef> {
        self.pending.take(usize::MAX)
    }

    fn contents(&self) -> Vec<Content> {
        let read = |record: &RecordRef| Content::read(&self.directory, record).unwrap();
        self.take_all().iter().map(read).collect()
    }
}

/// What a start finds in `directory`, in order.
fn recovered_contents(directory: &Path) -> (Vec<Content>, Recovered) {
    let recovered = recover(directory).unwrap();
    let contents =
        recovered.refs.iter().map(|record| Content::read(directory, record).unwrap()).collect();
    (contents, recovered)
}

/// The segment files, oldest first.
fn segments(directory: &Path) -> Vec<PathBuf> {
    files_with(directory, "seg")
}

fn files_with(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}
