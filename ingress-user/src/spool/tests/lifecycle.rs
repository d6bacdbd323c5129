//! Segments and release logs from their making to their removal.

use std::fs;

use super::super::segment::release_log_path;
use super::*;

fn tiny_segments() -> SpoolConfig {
    SpoolConfig { segment_bytes_max: 1, ..config() }
}

fn plain() -> Wrap {
    Box::new(|file| Box::new(file))
}

#[test]
fn a_second_daemon_is_told_who_has_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Bench::new(directory.path());
    let (sink, _completions) = unbounded();
    let sink = Box::new(ChannelSink(sink));
    let metrics = Arc::new(Metrics::new(&[0]));
    let error = Spool::open(directory.path(), &config(), sink, metrics).unwrap_err();
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
}

#[test]
fn releases_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path());
    let contents = bench.commit_ok((0..6).map(|number| submission(number, b"body")).collect());
    let (done, kept): (Vec<_>, Vec<_>) =
        bench.take_all().into_iter().partition(|record| record.id.0 % 2 == 0);
    bench.writer.release(done);
    assert_eq!(bench.metrics.spool.pending.value(), 3);
    drop((bench, kept));
    let bench = Bench::new(directory.path());
    assert_eq!(bench.metrics.spool.pending.value(), 3);
    let odd: Vec<_> = contents.into_iter().filter(|content| content.id.0 % 2 == 1).collect();
    assert_eq!(bench.contents(), odd);
}

#[test]
fn a_closed_segment_goes_with_its_last_record_and_the_active_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(directory.path(), &tiny_segments(), plain());
    for number in 1..=3 {
        bench.commit_ok(vec![submission(number, b"a"), submission(10 + number, b"b")]);
    }
    let mut refs = bench.take_all();
    let first = segments(directory.path())[0].clone();
    bench.writer.release(vec![refs.remove(0)]);
    assert!(first.exists(), "one of its two records is still owed");
    bench.writer.release(vec![refs.remove(0)]);
    assert!(!first.exists());
    bench.writer.release(refs);
    assert_eq!(segments(directory.path()).len(), 1, "the active one");
    assert_eq!(bench.metrics.spool.segments.value(), 1);
}

#[test]
fn a_release_log_outlives_its_segment_until_the_directory_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(directory.path(), &tiny_segments(), plain());
    bench.commit_ok(vec![submission(1, b"a")]);
    bench.commit_ok(vec![submission(2, b"b")]);
    let first = segments(directory.path())[0].clone();
    let octets = fs::read(&first).unwrap();
    bench.writer.release(vec![bench.pending.take(1).remove(0)]);
    assert!(!first.exists());
    assert!(release_log_path(directory.path(), 1).exists());

    // A crash here may bring the segment back: its message must not come back with it.
    fs::write(&first, octets).unwrap();
    drop(bench);
    let mut bench = Bench::with(directory.path(), &tiny_segments(), plain());
    assert_eq!(bench.pending.take(9).iter().map(|r| r.id.0).collect::<Vec<_>>(), [2]);
    assert!(!first.exists());
    bench.commit_ok(vec![submission(3, b"c")]);
    bench.commit_ok(vec![submission(4, b"d")]);
    assert!(!release_log_path(directory.path(), 1).exists());
}

#[test]
fn a_start_never_appends_to_an_old_segment_nor_uses_a_number_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for start in 0..3 {
        let mut bench = Bench::new(directory.path());
        bench.take_all();
        all.extend(bench.commit_ok(vec![submission(start, b"body")]));
        assert_eq!(segments(directory.path()).len() as u64, start + 1);
    }
    assert_eq!(recovered_contents(directory.path()).0, all);
}

#[test]
fn starts_without_mail_leave_no_files_behind() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        drop(Bench::new(directory.path()));
        assert_eq!(segments(directory.path()).len(), 1);
    }
}

#[test]
fn the_last_segment_is_emptied_but_stays_until_there_is_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(directory.path(), &tiny_segments(), plain());
    let kept = bench.commit_ok(vec![submission(1, b"a")]);
    bench.commit_ok(vec![submission(2, b"b")]);
    let mut refs = bench.take_all();
    bench.writer.release(refs.split_off(1));
    drop(bench);
    // As at a start that finds no room for a new segment.
    let (contents, recovered) = recovered_contents(directory.path());
    assert_eq!((contents, recovered.damaged), (kept, 0));
    let lengths: Vec<_> =
        segments(directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert_eq!(lengths.len(), 2);
    assert_eq!(lengths[1], 40);
}

#[test]
fn shutdown_answers_what_was_submitted() {
    let directory = tempfile::tempdir().unwrap();
    let (sink, completions) = unbounded();
    let sink = Box::new(ChannelSink(sink));
    let metrics = Arc::new(Metrics::new(&[0]));
    let spool = Spool::open(directory.path(), &config(), sink, Arc::clone(&metrics)).unwrap();
    for number in 0..40 {
        spool.handle.submit(submission(number, b"body")).unwrap();
    }
    spool.handle.release(Vec::new());
    spool.thread.shutdown();
    assert_eq!(completions.try_iter().filter(|c| c.outcome.is_ok()).count(), 40);
    let refused = spool.handle.submit(submission(41, b"late")).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Stopped);
    assert_eq!(recovered_contents(directory.path()).0.len(), 40);
}

#[test]
fn a_hundred_thousand_messages_are_recovered() {
    let directory = tempfile::tempdir().unwrap();
    let config = SpoolConfig { segment_bytes_max: 16 << 20, ..config() };
    let mut bench = Bench::with(directory.path(), &config, plain());
    let mut batch = Vec::new();
    for start in (0..100_000).step_by(1_000) {
        batch.extend((start..start + 1_000).map(small_submission));
        bench.writer.commit(&mut batch);
        assert!(bench.completions.try_iter().all(|completion| completion.outcome.is_ok()));
    }
    let mut refs = bench.take_all();
    bench.writer.release(refs.split_off(99_990));
    drop(bench);
    let recovered = recover(directory.path()).unwrap();
    assert_eq!(recovered.damaged, 0);
    assert_eq!(recovered.refs, refs);
    assert!(recovered.ledger.segments.len() > 5);
}

/// Without a receive buffer of its own: a thousand of those would be 64 MiB.
fn small_submission(number: u64) -> Submission {
    Submission { trace: vec![b'x'; 1024], body: Vec::new(), ..submission(number, b"") }
}
