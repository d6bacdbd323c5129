//! What is answered when: nothing before the disk has it, and the right thing when the disk refuses.

use std::fs;

use crossbeam_channel::bounded;

use super::disk::{Disk, Faults};
use super::*;

#[test]
fn a_stalled_sync_acknowledges_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (begun, begun_at) = bounded(1);
    let (go_on, go_on_at) = bounded(1);
    let disk = Disk::with(Faults { stall: Some((begun, go_on_at)), ..Faults::default() });
    let (sink, completions) = unbounded();
    let spool = Spool::open_with(
        directory.path(),
        &config(),
        Box::new(ChannelSink(sink)),
        Arc::new(Metrics::new(&[0])),
        disk.wrap(),
    )
    .unwrap();
    spool.handle.submit(submission(1, b"body")).unwrap();
    begun_at.recv_timeout(DEADLINE).unwrap();
    assert!(completions.is_empty());
    assert!(spool.pending.is_empty());

    disk.set(|faults| faults.stall = None);
    go_on.send(()).unwrap();
    let completion = completions.recv_timeout(DEADLINE).unwrap();
    assert_eq!((completion.id, completion.outcome), (QueueId(1), Ok(())));
    spool.thread.shutdown();
    assert_eq!(spool.pending.take(9).len(), 1);
}

#[test]
fn what_gathers_behind_a_slow_sync_becomes_one_batch_and_more_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (begun, begun_at) = bounded(9);
    let (go_on, go_on_at) = bounded(9);
    let disk = Disk::with(Faults { stall: Some((begun, go_on_at)), ..Faults::default() });
    let (sink, completions) = unbounded();
    let config = SpoolConfig { submissions_max: 5, ..config() };
    let spool = Spool::open_with(
        directory.path(),
        &config,
        Box::new(ChannelSink(sink)),
        Arc::new(Metrics::new(&[0])),
        disk.wrap(),
    )
    .unwrap();
    spool.handle.submit(submission(0, b"first")).unwrap();
    begun_at.recv_timeout(DEADLINE).unwrap();
    for number in 1..=5 {
        spool.handle.submit(submission(number, b"gathers")).unwrap();
    }
    let refused = spool.handle.submit(submission(6, b"too many")).unwrap_err();
    assert_eq!((refused.reason, refused.submission.id), (RefusedReason::Full, QueueId(6)));

    disk.set(|faults| faults.stall = None);
    go_on.send(()).unwrap();
    let ids: Vec<_> = (0..6).map(|_| completions.recv_timeout(DEADLINE).unwrap().id.0).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
    // Shut down first: the mark of a clean end is the third sync.
    spool.thread.shutdown();
    assert_eq!(disk.0.lock().unwrap().syncs, 3);
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_poisons_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut bench = Bench::with(directory.path(), &config(), disk.wrap());
    let before = bench.commit_ok(vec![submission(1, b"before")]);
    disk.set(|faults| faults.fail_sync = true);
    let (_, outcomes) = bench.commit(vec![submission(2, b"a"), submission(3, b"b")]);
    assert_eq!(outcomes, [Err(CommitError::Poisoned); 2]);

    // The disk works again; what it did with the earlier octets stays unknown.
    disk.set(|faults| faults.fail_sync = false);
    let (_, outcomes) = bench.commit(vec![submission(4, b"after")]);
    assert_eq!(outcomes, [Err(CommitError::Poisoned)]);
    assert_eq!(bench.metrics.spool.poisoned.value(), 1);

    // What was durable is still read and released.
    let refs = bench.take_all();
    assert_eq!(Content::read(directory.path(), &refs[0]).unwrap(), before[0]);
    bench.writer.release(refs);
    assert_eq!(bench.metrics.spool.pending.value(), 0);
}

#[test]
fn a_poisoned_spool_gives_submissions_back() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::with(Faults { fail_sync: true, ..Faults::default() });
    let (sink, completions) = unbounded();
    let spool = Spool::open_with(
        directory.path(),
        &config(),
        Box::new(ChannelSink(sink)),
        Arc::new(Metrics::new(&[0])),
        disk.wrap(),
    )
    .unwrap();
    spool.handle.submit(submission(1, b"body")).unwrap();
    let completion = completions.recv_timeout(DEADLINE).unwrap();
    assert_eq!(completion.outcome, Err(CommitError::Poisoned));
    assert_eq!(completion.buffers.len(), 1);
    let refused = spool.handle.submit(submission(2, b"body")).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Poisoned);
    spool.thread.shutdown();
    let refused = spool.handle.submit(submission(3, b"body")).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Poisoned);
}

#[test]
fn a_failed_write_poisons() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::with(Faults { fail_write: true, ..Faults::default() });
    let mut bench = Bench::with(directory.path(), &config(), disk.wrap());
    let (_, outcomes) = bench.commit(vec![submission(1, b"body")]);
    assert_eq!(outcomes, [Err(CommitError::Poisoned)]);
    assert!(bench.pending.is_empty());
}

#[test]
fn a_full_disk_refuses_the_batch_and_takes_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut bench = Bench::with(directory.path(), &config(), disk.wrap());
    let mut kept = bench.commit_ok(vec![submission(1, b"before")]);
    let length = fs::metadata(&segments(directory.path())[0]).unwrap().len();
    for space in [0, 1, 90, 300] {
        disk.set(|faults| faults.space = Some(space));
        let (_, outcomes) = bench.commit(vec![submission(2, &[b'x'; 200]), submission(3, b"y")]);
        assert_eq!(outcomes, [Err(CommitError::NoSpace); 2], "{space}");
        assert_eq!(fs::metadata(&segments(directory.path())[0]).unwrap().len(), length);
    }
    disk.set(|faults| faults.space = None);
    kept.extend(bench.commit_ok(vec![submission(4, b"after")]));
    assert_eq!(bench.contents(), kept);
    assert_eq!(bench.metrics.spool.poisoned.value(), 0);
    drop(bench);
    assert_eq!(recovered_contents(directory.path()).0, kept);
}

#[test]
fn a_full_disk_that_cannot_even_truncate_poisons() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::with(Faults { space: Some(50), fail_truncate: true, ..Faults::default() });
    let mut bench = Bench::with(directory.path(), &config(), disk.wrap());
    let (_, outcomes) = bench.commit(vec![submission(1, b"body")]);
    assert_eq!(outcomes, [Err(CommitError::Poisoned)]);
    drop(bench);
    assert_eq!(recovered_contents(directory.path()).0, []);
}

#[test]
fn short_and_interrupted_writes_lose_no_octet() {
    for write_bytes_max in [1, 7, 4096] {
        let directory = tempfile::tempdir().unwrap();
        let disk =
            Disk::with(Faults { write_bytes_max: Some(write_bytes_max), ..Faults::default() });
        let mut bench = Bench::with(directory.path(), &config(), disk.wrap());
        let batch = (0..20).map(|number| submission(number, &[number as u8; 50])).collect();
        let contents = bench.commit_ok(batch);
        assert_eq!(bench.contents(), contents);
    }
}

#[test]
fn a_batch_of_more_slices_than_one_write_takes_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path());
    // Three slices a message; the kernel takes 1,024 at once.
    let contents = bench.commit_ok((0..1500).map(|n| submission(n, b"some text")).collect());
    assert_eq!(bench.contents(), contents);
}

#[test]
fn large_and_empty_bodies_survive_and_the_buffers_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path());
    let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let mut batch = vec![submission(1, b""), submission(2, &large), submission(3, b"x")];
    let contents: Vec<_> = batch.iter().map(Content::of).collect();
    bench.writer.commit(&mut batch);
    let buffers: Vec<_> = bench.completions.try_iter().map(|c| c.buffers.len()).collect();
    assert_eq!(buffers, [0, 5, 1]);
    assert_eq!(bench.contents(), contents);
}

#[test]
fn a_dot_stuffed_body_is_read_back_as_it_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path());
    let large = b"..dots\r\n".repeat(20_000);
    let wire = [large.as_slice(), b".\r\n"].concat();
    let stuffed = |number, body: &[u8]| Submission {
        encoding: BodyEncoding::DotStuffed,
        ..submission(number, body)
    };
    bench.commit_ok(vec![stuffed(1, b".\r\n"), stuffed(2, b"..a\r\n.\r\n"), stuffed(3, &wire)]);
    let bodies: Vec<_> = bench.contents().into_iter().map(|content| content.body).collect();
    assert_eq!(bodies, [b"".to_vec(), b".a\r\n".to_vec(), b".dots\r\n".repeat(20_000)]);
}

#[test]
fn a_body_is_written_from_the_buffers_that_it_was_received_in() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let mut bench = Bench::with(directory.path(), &config(), disk.wrap());
    let batch = vec![submission(1, b"text"), submission(2, &vec![b'x'; 3 * BUFFER_BYTES])];
    let pieces = batch.iter().flat_map(|submission| &submission.body).flat_map(Chunk::pieces);
    let received: Vec<(usize, usize)> = pieces
        .filter(|piece| !piece.is_empty())
        .map(|piece| (piece.as_ptr().addr(), piece.len()))
        .collect();
    assert_eq!(received.len(), 2 * 4);
    assert_eq!(bench.commit(batch).1, [Ok(()), Ok(())]);
    let faults = disk.0.lock().unwrap();
    let written: Vec<_> =
        faults.written_from.iter().filter(|slice| received.contains(slice)).collect();
    assert_eq!(written, received.iter().collect::<Vec<_>>());
}
