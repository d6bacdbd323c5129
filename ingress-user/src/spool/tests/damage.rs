//! Acknowledged mail that the disk changed: reported, never delivered, never removed, and no reason to stop the rest.

use std::fs;
use std::ops::Range;

use super::super::record::{self, RecordHeader};
use super::super::scan::{Gap, scan};
use super::super::segment::SegmentHeader;
use super::*;

/// Three batches of one message; the first two lie below the floor of the third.
fn three(directory: &Path, body: &[u8]) -> (Vec<Content>, Vec<Range<usize>>) {
    let mut bench = Bench::new(directory);
    let contents: Vec<_> =
        (1..=3).flat_map(|number| bench.commit_ok(vec![submission(number, body)])).collect();
    let range = |r: &RecordRef| r.offset as usize..(r.offset + r.length) as usize;
    (contents, bench.take_all().iter().map(range).collect())
}

#[test]
fn a_flip_in_acknowledged_mail_is_reported_and_the_neighbours_are_delivered() {
    let original = tempfile::tempdir().unwrap();
    let (contents, ranges) = three(original.path(), b"body");
    let segment = fs::read(&segments(original.path())[0]).unwrap();
    for index in ranges[1].clone() {
        let directory = tempfile::tempdir().unwrap();
        let mut octets = segment.clone();
        octets[index] ^= 1 << (index % 8);
        fs::write(segment_path(directory.path(), 1), &octets).unwrap();
        let (found, recovered) = recovered_contents(directory.path());
        if found == contents {
            assert!(index >= ranges[1].end - 7, "only padding may go unnoticed, not {index}");
            continue;
        }
        assert_eq!(found, [contents[0].clone(), contents[2].clone()], "flip at {index}");
        assert_eq!(recovered.damaged, 1, "flip at {index}");
        assert_eq!(fs::read(segment_path(directory.path(), 1)).unwrap(), octets, "left as it was");
    }
}

#[test]
fn a_flip_in_the_segment_header_costs_no_message() {
    let directory = tempfile::tempdir().unwrap();
    let (contents, _) = three(directory.path(), b"body");
    let path = &segments(directory.path())[0];
    let segment = fs::read(path).unwrap();
    for index in 0..40 {
        let mut octets = segment.clone();
        octets[index] ^= 1;
        fs::write(path, &octets).unwrap();
        let (found, recovered) = recovered_contents(directory.path());
        assert_eq!((found, recovered.damaged), (contents.clone(), 1), "flip at {index}");
    }
}

#[test]
fn a_segment_with_neither_header_nor_first_record_is_kept_whole() {
    let directory = tempfile::tempdir().unwrap();
    three(directory.path(), b"body");
    let path = &segments(directory.path())[0];
    let mut octets = fs::read(path).unwrap();
    octets[..100].fill(0);
    fs::write(path, &octets).unwrap();
    let (found, recovered) = recovered_contents(directory.path());
    assert_eq!((found.len(), recovered.damaged), (0, 1));
    assert_eq!(fs::read(path).unwrap(), octets);
}

#[test]
fn a_closed_segment_that_ends_early_is_damaged_not_torn() {
    let directory = tempfile::tempdir().unwrap();
    let (contents, ranges) = three(directory.path(), b"body");
    drop(Bench::new(directory.path()));
    let first = fs::OpenOptions::new().write(true).open(&segments(directory.path())[0]).unwrap();
    first.set_len(ranges[2].end as u64 - 20).unwrap();
    let (found, recovered) = recovered_contents(directory.path());
    assert_eq!((found, recovered.damaged), (contents[..2].to_vec(), 1));
}

#[test]
fn after_a_clean_end_damage_to_the_last_batch_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (sink, completions) = unbounded();
    let sink = Box::new(ChannelSink(sink));
    let metrics = Arc::new(Metrics::new(&[0]));
    let spool = Spool::open(directory.path(), &config(), sink, metrics).unwrap();
    spool.handle.submit(submission(1, b"the only one")).unwrap();
    completions.recv_timeout(DEADLINE).unwrap();
    spool.thread.shutdown();
    let path = &segments(directory.path())[0];
    let mut octets = fs::read(path).unwrap();
    octets[150] ^= 1;
    fs::write(path, &octets).unwrap();
    let (found, recovered) = recovered_contents(directory.path());
    assert_eq!((found.len(), recovered.damaged), (0, 1));
}

#[test]
fn a_damaged_segment_outlives_the_release_of_its_sound_records() {
    let directory = tempfile::tempdir().unwrap();
    let (_, ranges) = three(directory.path(), b"body");
    let path = segments(directory.path())[0].clone();
    let mut octets = fs::read(&path).unwrap();
    octets[ranges[1].start + 100] ^= 1;
    fs::write(&path, &octets).unwrap();
    let mut bench = Bench::new(directory.path());
    assert_eq!(bench.metrics.spool.damaged.value(), 1);
    let refs = bench.take_all();
    assert_eq!(refs.len(), 2);
    bench.writer.release(refs);
    assert_eq!(fs::read(&path).unwrap(), octets);
    drop(bench);
    let (found, recovered) = recovered_contents(directory.path());
    assert_eq!((found.len(), recovered.damaged), (0, 1));
    assert!(path.exists());
}

#[test]
fn damage_after_the_start_is_found_by_the_reader() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path());
    bench.commit_ok(vec![submission(1, &[b'x'; 200_000])]);
    let record = bench.take_all().remove(0);
    let path = &segments(directory.path())[0];
    let mut octets = fs::read(path).unwrap();
    octets[150_000] ^= 1;
    fs::write(path, &octets).unwrap();
    let error = Content::read(directory.path(), &record).unwrap_err();
    let ReadError::Damaged { path: named, offset } = &error else { panic!("{error}") };
    assert_eq!((named, *offset), (path, record.offset));
}

#[test]
fn a_mail_body_cannot_pass_for_a_record() {
    let directory = tempfile::tempdir().unwrap();
    // A whole record as a sender might send it, right in everything but the nonce.
    let header = RecordHeader::of(&submission(1, b""), 40, 0, 40);
    let body_start = 40 + record::HEADER_BYTES + header.envelope_bytes + header.trace_bytes;
    let forged_at = body_start.next_multiple_of(8);
    let mut body = vec![b' '; (forged_at - body_start) as usize];
    RecordHeader::void(0, 40, 0x1234, forged_at).encode(&mut body);
    let (contents, ranges) = three(directory.path(), &body);
    let path = &segments(directory.path())[0];
    let mut octets = fs::read(path).unwrap();
    assert!(RecordHeader::decode(&octets[forged_at as usize..], forged_at).is_some());
    octets[ranges[0].start + 4] ^= 1;
    fs::write(path, &octets).unwrap();
    let gaps = scan(&fs::File::open(path).unwrap(), 1).unwrap().gaps;
    assert_eq!(gaps, [Gap { offset: 40, end: ranges[1].start as u64 }]);
    let (found, recovered) = recovered_contents(directory.path());
    assert_eq!((found, recovered.damaged), (contents[1..].to_vec(), 1));
}

#[test]
fn a_segment_of_another_format_version_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut octets = SegmentHeader::new(1).encode();
    octets[8] = 9;
    let checksum = crc32c::crc32c(&octets[..36]);
    octets[36..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(segment_path(directory.path(), 1), &octets).unwrap();
    let error = recover(directory.path()).unwrap_err();
    assert!(matches!(error, SpoolError::Version { version: 9, .. }), "{error}");
}
