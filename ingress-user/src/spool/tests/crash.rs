//! The crash injector: whatever was acknowledged is recovered, wherever the disk stopped.

use std::fs;

use proptest::prelude::*;

use super::super::segment::SegmentHeader;
use super::*;

/// A spool of two batches, as a killed daemon leaves it.
struct Crashed {
    segment: Vec<u8>,
    acknowledged: Vec<Content>,
    interrupted: Vec<Content>,
    /// Where each record of the interrupted batch begins, and where the last ends.
    bounds: Vec<usize>,
}

impl Crashed {
    fn new(first: Vec<Submission>, last: Vec<Submission>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(directory.path());
        let acknowledged = bench.commit_ok(first);
        bench.take_all();
        let interrupted = bench.commit_ok(last);
        let mut bounds: Vec<_> = bench.take_all().iter().map(|r| r.offset as usize).collect();
        let segment = fs::read(&segments(directory.path())[0]).unwrap();
        bounds.push(segment.len());
        Self { segment, acknowledged, interrupted, bounds }
    }

    fn small() -> Self {
        Self::new(
            vec![submission(1, b"one"), submission(2, b"two two")],
            vec![submission(3, b"three"), submission(4, b"four"), submission(5, b"five")],
        )
    }

    /// Recovers a spool whose only segment is `octets`; checks what holds after every crash.
    fn recover(&self, octets: &[u8]) -> (Vec<Content>, Recovered) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(segment_path(directory.path(), 1), octets).unwrap();
        let (contents, recovered) = recovered_contents(directory.path());
        let mut all = self.acknowledged.clone();
        all.extend(self.interrupted.clone());
        assert!(contents.iter().all(|content| all.contains(content)), "made up a message");
        // The decision stands when the segment is no longer the last.
        fs::write(segment_path(directory.path(), 2), SegmentHeader::new(2).encode()).unwrap();
        let (again, recovered_again) = recovered_contents(directory.path());
        assert_eq!(again, contents);
        assert_eq!(recovered_again.damaged, recovered.damaged);
        (contents, recovered)
    }
}

#[test]
fn a_cut_anywhere_in_the_last_batch_loses_only_unacknowledged_messages() {
    let crashed = Crashed::small();
    for end in crashed.bounds[0]..=crashed.segment.len() {
        let (contents, recovered) = crashed.recover(&crashed.segment[..end]);
        let whole = crashed.bounds[1..].iter().filter(|&&bound| bound <= end).count();
        // The padding of the last record carries nothing, but the record ends with it.
        let mut expected = crashed.acknowledged.clone();
        expected.extend_from_slice(&crashed.interrupted[..whole]);
        assert_eq!(contents, expected, "cut at {end}");
        assert_eq!(recovered.damaged, 0, "cut at {end}");
    }
}

#[test]
fn a_flip_anywhere_in_the_last_batch_drops_at_most_that_record_and_is_no_damage() {
    let crashed = Crashed::small();
    for index in crashed.bounds[0]..crashed.segment.len() {
        let mut octets = crashed.segment.clone();
        octets[index] ^= 1 << (index % 8);
        let hit = crashed.bounds[1..].iter().filter(|&&bound| bound <= index).count();
        let mut expected = crashed.acknowledged.clone();
        expected.extend_from_slice(&crashed.interrupted);
        let (contents, recovered) = crashed.recover(&octets);
        if contents.len() < expected.len() {
            expected.remove(crashed.acknowledged.len() + hit);
        }
        assert_eq!(contents, expected, "flip at {index}");
        assert_eq!(recovered.damaged, 0, "flip at {index}");
    }
}

#[test]
fn zeros_where_the_last_batch_should_be_are_cut_off() {
    let crashed = Crashed::small();
    let mut octets = crashed.segment.clone();
    octets[crashed.bounds[0]..].fill(0);
    let (contents, recovered) = crashed.recover(&octets);
    assert_eq!((contents, recovered.damaged), (crashed.acknowledged.clone(), 0));
}

#[test]
fn a_later_write_that_reached_the_disk_first_is_kept() {
    let crashed = Crashed::small();
    let mut octets = crashed.segment.clone();
    octets[crashed.bounds[0]..crashed.bounds[2]].fill(0);
    let (contents, recovered) = crashed.recover(&octets);
    let expected = [&crashed.acknowledged[..], &crashed.interrupted[2..]].concat();
    assert_eq!((contents, recovered.damaged), (expected, 0));
}

#[test]
fn a_crash_while_a_segment_is_begun_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("0000000000000001.tmp"), b"INGS").unwrap();
    let (contents, recovered) = recovered_contents(directory.path());
    assert_eq!((contents.len(), recovered.damaged), (0, 0));
    assert_eq!(files_with(directory.path(), "tmp"), [] as [PathBuf; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn acknowledged_is_recovered(
        first in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
        last in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
        cut in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let batch = |start: u64, bodies: &[Vec<u8>]| {
            bodies.iter().zip(start..).map(|(body, number)| submission(number, body)).collect()
        };
        let crashed = Crashed::new(batch(0, &first), batch(100, &last));
        let start = crashed.bounds[0];
        let end = start + cut.index(crashed.segment.len() - start + 1);
        let octets = [&crashed.segment[..end], &garbage].concat();
        let (contents, recovered) = crashed.recover(&octets);
        prop_assert_eq!(&contents[..crashed.acknowledged.len()], &crashed.acknowledged[..]);
        prop_assert_eq!(recovered.damaged, 0);
    }
}
