//! Segment files: their names, their header, and how one comes to be so that a crash never leaves half of it.

use std::collections::{BTreeSet, hash_map::RandomState};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::record::Fields;

/// The first record stands right behind it.
pub(super) const HEADER_BYTES: u64 = 40;

const MAGIC: [u8; 8] = *b"INGSPOOL";
const VERSION: u32 = 1;

/// Messages are private: nobody but the daemon's user reads the spool.
const FILE_MODE: u32 = 0o600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) nonce: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    /// Whole, but written by another version of the format.
    Version(u32),
}

impl SegmentHeader {
    /// With a fresh random nonce. `RandomState` is seeded by the operating system; who sends mail cannot foresee it.
    pub(super) fn new(number: u64) -> Self {
        Self { number, nonce: RandomState::new().build_hasher().finish() }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.nonce.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        Self::fields(bytes).ok_or(HeaderError::Damaged).and_then(|(version, header)| {
            if version == VERSION { Ok(header) } else { Err(HeaderError::Version(version)) }
        })
    }

    fn fields(bytes: &[u8]) -> Option<(u32, Self)> {
        let (covered, rest) = bytes.split_at_checked(HEADER_BYTES as usize - 4)?;
        let (checksum, _) = rest.split_first_chunk::<4>()?;
        if !covered.starts_with(&MAGIC) || crc32c::crc32c(covered) != u32::from_le_bytes(*checksum)
        {
            return None;
        }
        let mut fields = Fields(covered.split_at_checked(MAGIC.len())?.1);
        let version = fields.number32()?;
        fields.take::<4>()?;
        Some((version, Self { number: fields.number()?, nonce: fields.number()? }))
    }
}

pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.seg"))
}

pub(super) fn release_log_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.rel"))
}

/// Creates a segment, its header and its name on stable storage. Written under another name first, so that a file called
/// `.seg` always has its header: one that has not is damaged, not unfinished.
///
/// Opened for appending: after a failed write is cut off, the next one goes to the new end.
pub(super) fn create(directory: &Path, header: &SegmentHeader) -> io::Result<File> {
    let unfinished = directory.join(format!("{:016x}.tmp", header.number));
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(FILE_MODE)
        .open(&unfinished)
        .and_then(|file| file.set_len(0).map(|()| file))?;
    file.write_all(&header.encode())?;
    file.sync_all()?;
    fs::rename(&unfinished, segment_path(directory, header.number))?;
    sync_directory(directory)?;
    Ok(file)
}

/// Makes the names in a directory durable: what was created, renamed and removed.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What a spool directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: BTreeSet<u64>,
    pub(super) release_logs: BTreeSet<u64>,
    /// Segments whose creation was cut short. They never held a record.
    pub(super) unfinished: Vec<PathBuf>,
}

impl Listing {
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|name| name.to_str());
            let number = path
                .file_stem()
                .and_then(|name| name.to_str())
                .filter(|name| name.len() == 16)
                .and_then(|name| u64::from_str_radix(name, 16).ok());
            match (extension, number) {
                (Some("seg"), Some(number)) => drop(listing.segments.insert(number)),
                (Some("rel"), Some(number)) => drop(listing.release_logs.insert(number)),
                (Some("tmp"), Some(_)) => listing.unfinished.push(path),
                // Whatever an operator put here is his.
                _ => {}
            }
        }
        Ok(listing)
    }

    /// A number above every file's, so that no release log can be taken for another segment's.
    pub(super) fn next_number(&self) -> u64 {
        let last = |numbers: &BTreeSet<u64>| numbers.last().copied().unwrap_or(0);
        last(&self.segments).max(last(&self.release_logs)) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_and_no_flipped_octet_does() {
        let header = SegmentHeader { number: 7, nonce: 0x0123_4567_89ab_cdef };
        let bytes = header.encode();
        assert_eq!(bytes.len() as u64, HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 0x10;
            assert_eq!(SegmentHeader::decode(&flipped), Err(HeaderError::Damaged), "{index}");
        }
    }

    #[test]
    fn a_number_is_not_used_again_while_a_release_log_bears_it() {
        let directory = tempfile::tempdir().unwrap();
        create(directory.path(), &SegmentHeader::new(3)).unwrap();
        fs::write(release_log_path(directory.path(), 9), b"").unwrap();
        fs::write(directory.path().join("notes.seg"), b"").unwrap();
        let listing = Listing::read(directory.path()).unwrap();
        assert_eq!(listing.segments, BTreeSet::from([3]));
        assert_eq!(listing.next_number(), 10);
    }
}
