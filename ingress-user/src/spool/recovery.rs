//! What a start makes of the files it finds: which messages are still owed, what a crash left unfinished, and what is
//! damaged and must neither be delivered nor lost.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::SpoolError;
use super::pending::RecordRef;
use super::record::{self, RecordHeader};
use super::releases;
use super::scan::{Gap, Scan, ScanError, scan};
use super::segment::{self, Listing, release_log_path, segment_path};

/// What the writer must know of a segment to remove it in time.
#[derive(Debug)]
pub(super) struct SegmentState {
    pub(super) nonce: u64,
    pub(super) unreleased: u64,
    /// Holds octets that somebody may want to save: never removed by the daemon.
    pub(super) damaged: bool,
}

/// Which files there are.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) segments: BTreeMap<u64, SegmentState>,
    pub(super) next_number: u64,
    /// Release logs without a segment: to be removed once the segment's removal is durable.
    pub(super) orphans: Vec<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// In the order of acceptance.
    pub(super) refs: Vec<RecordRef>,
    pub(super) ledger: Ledger,
    /// Damaged ranges found.
    pub(super) damaged: u64,
}

/// Reads every segment and mends the end of the last. Removes none: see [`Ledger::is_idle`].
pub(super) fn recover(directory: &Path) -> Result<Recovered, SpoolError> {
    let listing = Listing::read(directory).map_err(SpoolError::io("list", directory))?;
    let mut recovered = Recovered::default();
    recovered.ledger.next_number = listing.next_number();
    for path in &listing.unfinished {
        fs::remove_file(path).map_err(SpoolError::io("remove", path))?;
    }
    for &number in &listing.segments {
        let last = listing.segments.last() == Some(&number);
        recovered.segment(directory, number, last)?;
    }
    let orphans = listing.release_logs.difference(&listing.segments);
    recovered.ledger.orphans = orphans.map(|&number| release_log_path(directory, number)).collect();
    Ok(recovered)
}

impl Ledger {
    /// Whether a segment holds nothing any more and may be removed.
    ///
    /// Never the highest: with it gone, the next start would take the one before for the last, and damage in its last batch
    /// for a torn end.
    pub(super) fn is_idle(&self, number: u64) -> bool {
        let highest = self.segments.last_key_value().is_some_and(|(&last, _)| last == number);
        let done = |state: &SegmentState| state.unreleased == 0 && !state.damaged;
        !highest && self.segments.get(&number).is_some_and(done)
    }
}

impl Recovered {
    fn segment(&mut self, directory: &Path, number: u64, last: bool) -> Result<(), SpoolError> {
        let path = segment_path(directory, number);
        let file = OpenOptions::new()
            .read(true)
            .write(last)
            .open(&path)
            .map_err(SpoolError::io("open", &path))?;
        let scan = scan(&file, number).map_err(|error| match error {
            ScanError::Io(source) => SpoolError::io("read", &path)(source),
            ScanError::Version(version) => SpoolError::Version { path: path.clone(), version },
        })?;
        let verdict = Verdict::of(&scan, last);
        if last {
            verdict.mend(&file, &path, &scan).map_err(SpoolError::io("mend", &path))?;
        }
        verdict.report_damage(&path);
        self.damaged += verdict.damaged.len() as u64;
        let log = release_log_path(directory, number);
        self.keep(directory, number, scan, !verdict.damaged.is_empty())
            .map_err(SpoolError::io("read", &log))?;
        let state = self.ledger.segments.get(&number);
        if last && state.is_some_and(|state| state.unreleased == 0 && !state.damaged) {
            // It has to stay until there is a higher one, for which there may be no room but in it.
            file.set_len(segment::HEADER_BYTES).map_err(SpoolError::io("empty", &path))?;
        }
        Ok(())
    }

    /// Takes over the sound records that are not released.
    fn keep(&mut self, directory: &Path, number: u64, scan: Scan, damaged: bool) -> io::Result<()> {
        let nonce = scan.nonce.unwrap_or(0);
        let released = releases::read(directory, number, nonce)?;
        let known = self.refs.len();
        self.refs.extend(
            scan.records
                .into_iter()
                .filter(|found| !released.contains(&(found.offset, found.id.0)))
                .map(|found| RecordRef {
                    id: found.id,
                    segment: number,
                    offset: found.offset,
                    length: found.length,
                }),
        );
        let unreleased = (self.refs.len() - known) as u64;
        self.ledger.segments.insert(number, SegmentState { nonce, unreleased, damaged });
        Ok(())
    }
}

/// The gaps of a segment, told apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Was durable once: acknowledged mail that the disk lost.
    damaged: Vec<Gap>,
    /// Never acknowledged, with sound records behind it.
    torn: Vec<Gap>,
    /// Never acknowledged and last: the file is to end here.
    cut_at: Option<u64>,
}

impl Verdict {
    /// Only the last segment can have a torn end: a new one is begun after all of the one before is durable and mended.
    /// In it everything below the floor was durable; above lies the batch that the crash interrupted.
    fn of(scan: &Scan, last: bool) -> Self {
        if !last || scan.nonce.is_none() {
            return Self { damaged: scan.gaps.clone(), ..Self::default() };
        }
        let mut verdict = Self::default();
        for gap in &scan.gaps {
            let Gap { offset, end } = *gap;
            if offset < scan.floor {
                verdict.damaged.push(Gap { offset, end: end.min(scan.floor) });
            }
            if end <= scan.floor {
                continue;
            }
            let torn = Gap { offset: offset.max(scan.floor), end };
            if torn.offset >= scan.sound_end {
                verdict.cut_at.get_or_insert(torn.offset);
            } else {
                verdict.torn.push(torn);
            }
        }
        verdict
    }

    /// Makes the decision about the interrupted batch permanent, so that the next start, when this is no longer the last
    /// segment, does not take it for damage. Syncs in any case: the records kept may only be in the page cache yet.
    fn mend(&self, file: &File, path: &Path, scan: &Scan) -> io::Result<()> {
        for gap in &self.torn {
            let length = gap.end - gap.offset;
            let nonce = scan.nonce.unwrap_or(0);
            // Shorter than a header only if something is wrong beyond what a crash does; it is then reported next time.
            if length >= record::HEADER_BYTES {
                let mut bytes = Vec::new();
                RecordHeader::void(length, scan.floor, nonce, gap.offset).encode(&mut bytes);
                file.write_all_at(&bytes, gap.offset)?;
            }
            tracing::info!(
                file = %path.display(), offset = gap.offset, length,
                "dropped an unfinished record that was never acknowledged"
            );
        }
        if let Some(end) = self.cut_at {
            let length = file.metadata()?.len().saturating_sub(end);
            file.set_len(end)?;
            tracing::info!(
                file = %path.display(), offset = end, length,
                "cut off an unfinished batch that was never acknowledged"
            );
        }
        file.sync_data()
    }

    fn report_damage(&self, path: &Path) {
        for gap in &self.damaged {
            tracing::error!(
                file = %path.display(), offset = gap.offset, length = gap.end - gap.offset,
                "acknowledged mail is damaged on disk and will not be delivered; the messages around it will. \
                 The segment is kept: check the disk, copy the file, and move it away once `pending` is 0"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_with(gaps: &[(u64, u64)], floor: u64, sound_end: u64) -> Scan {
        let gaps = gaps.iter().map(|&(offset, end)| Gap { offset, end }).collect();
        Scan { nonce: Some(1), records: Vec::new(), gaps, floor, sound_end }
    }

    #[test]
    fn a_gap_across_the_floor_is_damage_below_and_torn_above() {
        let verdict = Verdict::of(&scan_with(&[(100, 400), (500, 600)], 200, 500), true);
        assert_eq!(
            verdict,
            Verdict {
                damaged: vec![Gap { offset: 100, end: 200 }],
                torn: vec![Gap { offset: 200, end: 400 }],
                cut_at: Some(500),
            }
        );
    }

    #[test]
    fn nothing_is_cut_from_a_segment_that_is_not_the_last_or_cannot_be_read() {
        let mut scan = scan_with(&[(100, 400)], 100, 100);
        assert_eq!(Verdict::of(&scan, false).damaged, scan.gaps);
        scan.nonce = None;
        let verdict = Verdict::of(&scan, true);
        assert_eq!((verdict.damaged, verdict.cut_at), (scan.gaps, None));
    }
}
