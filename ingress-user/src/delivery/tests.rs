//! Delivery with a real spool and a real Maildir in temporary folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::advance;

use super::*;
use crate::config::SpoolConfig;
use crate::smtp::envelope::Envelope;
use crate::spool::{BodyEncoding, Completion, CompletionSink, QueueId, Spool, Submission, Ticket};
use crate::worker::buffers::{Buffer, Chunk};
use crate::worker::clock::Now;

/// How long what happens on another thread may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(30);

const MESSAGE: &[u8] = b"Subject: x\r\n\r\n.a lone\nline feed and \xff\r\n";

struct ChannelSink(crossbeam_channel::Sender<Completion>);

impl CompletionSink for ChannelSink {
    fn complete(&mut self, completion: Completion) {
        self.0.send(completion).unwrap();
    }

    fn flush(&mut self) {}
}

/// A spool and a place for a Maildir.
struct Bench {
    folder: TempDir,
    spool: Spool,
    completions: crossbeam_channel::Receiver<Completion>,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new() -> Self {
        Self::reopen(tempfile::tempdir().unwrap())
    }

    fn reopen(folder: TempDir) -> Self {
        let (sink, completions) = crossbeam_channel::unbounded();
        let metrics = Arc::new(Metrics::new(&[0]));
        let config =
            SpoolConfig { segment_bytes_max: 4096, submissions_max: 64, batch_messages_max: 4 };
        let sink = Box::new(ChannelSink(sink));
        let directory = folder.path().join("spool");
        let spool = Spool::open(&directory, &config, sink, Arc::clone(&metrics)).unwrap();
        Self { folder, spool, completions, metrics }
    }

    fn submit(&self, number: u64) {
        let stuffed = [&MESSAGE[..14], b".", &MESSAGE[14..], b".\r\n"].concat();
        let mut buffer = Buffer::standalone();
        buffer.bytes_mut()[..stuffed.len()].copy_from_slice(&stuffed);
        let chunk = Chunk::new(buffer, std::iter::once(0..stuffed.len() as u32).collect());
        let recipients = ["a@example.net", "b@example.net"];
        let envelope = Envelope::plain([192, 0, 2, 1].into(), "client.example", "", &recipients);
        let submission = Submission {
            ticket: Ticket { worker: 0, connection: 0 },
            id: QueueId(number),
            accepted_at: 1_700_000_000_000_042,
            envelope: Box::new(envelope),
            trace: b"Received: by us\r\n".to_vec(),
            body: vec![chunk],
            encoding: BodyEncoding::DotStuffed,
        };
        self.spool.handle.submit(submission).unwrap();
        self.completions.recv_timeout(DEADLINE).unwrap().outcome.unwrap();
    }

    fn maildir(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    fn start(&self, config: &DeliveryConfig) -> DeliveryHandle {
        start(
            &Handle::current(),
            Arc::clone(&self.spool.pending),
            self.spool.reader.clone(),
            self.spool.handle.clone(),
            config,
            "mx.example.net",
            Arc::clone(&self.metrics),
        )
        .unwrap()
    }

    fn start_maildir(&self) -> DeliveryHandle {
        self.start(&DeliveryConfig::Maildir { path: self.maildir() })
    }

    fn files_in_new(&self) -> Vec<PathBuf> {
        files(&self.maildir().join("new"))
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs other tasks until `condition`. The paused clock stands still meanwhile: this never idles.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Now::read().monotonic + DEADLINE;
    while !condition() {
        assert!(Now::read().monotonic < deadline, "waited too long until {what}");
        tokio::task::yield_now().await;
    }
}

/// The same with a clock that runs on, far faster than the real one.
async fn until_later(what: &str, condition: impl Fn() -> bool) {
    let deadline = Now::read().monotonic + DEADLINE;
    while !condition() {
        assert!(Now::read().monotonic < deadline, "waited too long until {what}");
        advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_message_arrives_octet_by_octet_and_is_released() {
    let bench = Bench::new();
    bench.submit(1);
    let delivery = bench.start_maildir();
    bench.submit(2);
    until("both are released", || bench.metrics.spool.pending.value() == 0).await;
    delivery.stop().await;

    let expected = [
        b"Return-Path: <>\r\nDelivered-To: a@example.net\r\nDelivered-To: b@example.net\r\n",
        &b"Received: by us\r\n"[..],
        MESSAGE,
    ]
    .concat();
    let arrived = bench.files_in_new();
    assert_eq!(arrived.len(), 2);
    for file in &arrived {
        assert_eq!(fs::read(file).unwrap(), expected);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("1700000000.M000042R") && name.ends_with(".mx.example.net"));
        assert!(
            name.contains(&format!("Q{}.", QueueId(1)))
                || name.contains(&format!("Q{}.", QueueId(2)))
        );
    }
    assert_eq!(files(&bench.maildir().join("tmp")), [] as [PathBuf; 0]);
    assert_eq!(bench.metrics.delivery.delivered.value(), 2);
}

#[tokio::test]
async fn a_delivery_repeated_after_a_crash_leaves_one_file() {
    let bench = Bench::new();
    bench.submit(1);
    let maildir = Maildir::open(&bench.maildir(), "mx.example.net").unwrap();
    let outcome = maildir.deliver(bench.spool.pending.take(9), &bench.spool.reader);
    assert_eq!(outcome.delivered.len(), 1);

    // Stopped before the release, and started again.
    let Bench { folder, spool, .. } = bench;
    spool.thread.shutdown();
    let bench = Bench::reopen(folder);
    let outcome = maildir.deliver(bench.spool.pending.take(9), &bench.spool.reader);
    assert_eq!(outcome.delivered.len(), 1);
    assert_eq!(bench.files_in_new().len(), 1);
}

#[tokio::test]
async fn two_records_with_the_same_queue_id_are_two_files() {
    let bench = Bench::new();
    bench.submit(1);
    bench.submit(1);
    let delivery = bench.start_maildir();
    until("both are released", || bench.metrics.spool.pending.value() == 0).await;
    delivery.stop().await;
    assert_eq!(bench.files_in_new().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_delivery_is_tried_again_when_it_is_due() {
    let bench = Bench::new();
    let delivery = bench.start_maildir();
    let new = bench.maildir().join("new");
    fs::remove_dir(&new).unwrap();
    bench.submit(1);
    let deferred = || bench.metrics.delivery.deferred.value();
    until("the first attempt failed", || deferred() == 1).await;
    assert_eq!(bench.metrics.spool.pending.value(), 1);
    until_later("the second attempt failed", || deferred() >= 2).await;

    fs::create_dir(&new).unwrap();
    until_later("it is released", || bench.metrics.spool.pending.value() == 0).await;
    delivery.stop().await;
    assert_eq!(bench.files_in_new().len(), 1);
}

#[tokio::test]
async fn a_damaged_message_is_set_aside_and_the_others_arrive() {
    let bench = Bench::new();
    (1..=3).for_each(|number| bench.submit(number));
    let segment = files(&bench.folder.path().join("spool"))
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .unwrap();
    let mut octets = fs::read(&segment).unwrap();
    let subjects = octets.windows(8).enumerate().filter(|(_, window)| window == b"Subject:");
    let (second, _) = subjects.map(|(at, _)| (at, ())).nth(1).unwrap();
    octets[second] ^= 1;
    fs::write(&segment, octets).unwrap();

    let delivery = bench.start_maildir();
    until("two are released", || bench.metrics.spool.pending.value() == 1).await;
    delivery.stop().await;
    assert_eq!(bench.metrics.spool.damaged.value(), 1);
    assert_eq!(bench.metrics.delivery.deferred.value(), 0);
    assert_eq!(bench.files_in_new().len(), 2);
    assert!(segment.exists());
}

#[tokio::test]
async fn discard_releases_everything() {
    let bench = Bench::new();
    let delivery = bench.start(&DeliveryConfig::Discard);
    (0..200).for_each(|number| bench.submit(number));
    until("all are released", || bench.metrics.spool.pending.value() == 0).await;
    delivery.stop().await;
    assert_eq!(bench.metrics.delivery.delivered.value(), 200);
    assert_eq!(bench.metrics.spool.segments.value(), 1);
}

#[tokio::test]
async fn what_is_not_delivered_at_stop_waits_for_the_next_start() {
    let bench = Bench::new();
    bench.start(&DeliveryConfig::Discard).stop().await;
    bench.submit(1);
    assert!(!bench.spool.pending.is_empty());
    let Bench { folder, spool, .. } = bench;
    spool.thread.shutdown();
    assert_eq!(Bench::reopen(folder).metrics.spool.pending.value(), 1);
}

#[tokio::test]
async fn a_maildir_that_cannot_be_made_stops_the_start() {
    let bench = Bench::new();
    fs::write(bench.maildir(), b"a file").unwrap();
    let opened = Maildir::open(&bench.maildir(), "mx.example.net");
    assert!(opened.is_err());
}
