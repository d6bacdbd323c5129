//! The release log beside a segment: which of its records delivery has done with.
//!
//! Entries are not synced. Losing one repeats a delivery, which at-least-once allows; a wrong one would lose a message, so
//! each carries a checksum over itself and the segment's nonce, and one that does not fit is ignored.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::pending::RecordRef;
use super::record::Fields;
use super::segment::release_log_path;

pub(super) const ENTRY_BYTES: u64 = 24;
const MAGIC: [u8; 4] = *b"IREL";

/// Appends the releases of one segment's records.
///
/// Written at the last whole entry's end: what a torn append left behind it is overwritten, and later entries stay at
/// multiples of their size.
pub(super) fn append(
    directory: &Path,
    segment: u64,
    nonce: u64,
    refs: &[RecordRef],
) -> io::Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(release_log_path(directory, segment))?;
    let end = file.metadata()?.len();
    let mut entries = Vec::with_capacity(refs.len() * ENTRY_BYTES as usize);
    for record in refs {
        encode(record, nonce, &mut entries);
    }
    file.write_all_at(&entries, end - end % ENTRY_BYTES)
}

/// Offset and queue id of every record the log of `segment` releases.
pub(super) fn read(directory: &Path, segment: u64, nonce: u64) -> io::Result<HashSet<(u64, u64)>> {
    match fs::read(release_log_path(directory, segment)) {
        Ok(bytes) => Ok(decode(&bytes, nonce).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
        Err(error) => Err(error),
    }
}

fn encode(record: &RecordRef, nonce: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&record.offset.to_le_bytes());
    out.extend_from_slice(&record.id.0.to_le_bytes());
    let checksum = checksum(out.split_at(start).1, nonce);
    out.extend_from_slice(&checksum.to_le_bytes());
}

fn decode(bytes: &[u8], nonce: u64) -> impl Iterator<Item = (u64, u64)> {
    bytes.chunks_exact(ENTRY_BYTES as usize).filter_map(move |entry| {
        let (covered, expected) = entry.split_last_chunk::<4>()?;
        if checksum(covered, nonce) != u32::from_le_bytes(*expected) {
            return None;
        }
        let mut fields = Fields(covered);
        (fields.take()? == MAGIC).then_some((fields.number()?, fields.number()?))
    })
}

fn checksum(covered: &[u8], nonce: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&nonce.to_le_bytes()), covered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::QueueId;

    fn record(offset: u64) -> RecordRef {
        RecordRef { id: QueueId(offset * 3), segment: 1, offset, length: 8 }
    }

    #[test]
    fn a_torn_entry_is_ignored_and_the_next_append_heals_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = release_log_path(directory.path(), 1);
        append(directory.path(), 1, 5, &[record(40), record(48)]).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read(directory.path(), 1, 5).unwrap(), HashSet::from([(40, 120)]));
        append(directory.path(), 1, 5, &[record(56)]).unwrap();
        assert_eq!(read(directory.path(), 1, 5).unwrap(), HashSet::from([(40, 120), (56, 168)]));
    }

    #[test]
    fn no_flipped_octet_and_no_other_segment_s_log_releases_anything() {
        let mut bytes = Vec::new();
        encode(&record(40), 5, &mut bytes);
        assert_eq!(decode(&bytes, 5).count(), 1);
        assert_eq!(decode(&bytes, 6).count(), 0);
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1;
            assert_eq!(decode(&flipped, 5).count(), 0, "{index}");
        }
    }
}
