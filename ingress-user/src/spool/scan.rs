//! Reads a whole segment once: what is sound in it, and which ranges are not. Judges nothing; recovery.rs does.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::record::{self, ALIGNMENT, Kind, RecordHeader};
use super::segment::{self, HeaderError, SegmentHeader};
use super::submission::QueueId;

/// Read at once. Large enough that the disk streams, small enough to stay in the cache while it is checked.
const WINDOW_BYTES: usize = 1 << 20;

/// A message whose header and payload checksums are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: QueueId,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A range that is no sound record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) offset: u64,
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) struct Scan {
    /// `None`: neither the segment's header nor the first record's could be read, and the rest was not looked at.
    pub(super) nonce: Option<u64>,
    pub(super) records: Vec<Found>,
    pub(super) gaps: Vec<Gap>,
    /// The highest offset that a sound header says was durable before it.
    pub(super) floor: u64,
    /// Behind the last sound record.
    pub(super) sound_end: u64,
}

#[derive(Debug)]
pub(super) enum ScanError {
    Io(io::Error),
    Version(u32),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Scans the segment that its name says is `number`.
pub(super) fn scan(file: &File, number: u64) -> Result<Scan, ScanError> {
    let mut window = Window::new(file, file.metadata()?.len());
    let mut scan = Scan {
        nonce: None,
        records: Vec::new(),
        gaps: Vec::new(),
        floor: segment::HEADER_BYTES,
        sound_end: 0,
    };
    match SegmentHeader::decode(window.at(0, segment::HEADER_BYTES)?) {
        Ok(header) if header.number == number => scan.nonce = Some(header.nonce),
        Err(HeaderError::Version(version)) => return Err(ScanError::Version(version)),
        Ok(_) | Err(HeaderError::Damaged) => {
            // The first record stands at a known place and repeats the nonce.
            let first = window.at(segment::HEADER_BYTES, record::HEADER_BYTES)?;
            scan.nonce =
                RecordHeader::decode(first, segment::HEADER_BYTES).map(|header| header.nonce);
            let end = if scan.nonce.is_some() { segment::HEADER_BYTES } else { window.length };
            scan.gaps.push(Gap { offset: 0, end });
        }
    }
    if let Some(nonce) = scan.nonce {
        scan.sound_end = segment::HEADER_BYTES;
        scan.read_records(&mut window, nonce)?;
    }
    Ok(scan)
}

impl Scan {
    fn read_records(&mut self, window: &mut Window<'_>, nonce: u64) -> io::Result<()> {
        let mut offset = segment::HEADER_BYTES;
        while offset < window.length {
            let Some(header) = window.header(offset, nonce)? else {
                let next = window.next_header(offset + ALIGNMENT, nonce)?;
                self.gap(offset, next);
                offset = next;
                continue;
            };
            self.floor = self.floor.max(header.durable_floor);
            let length = header.record_bytes().unwrap_or(u64::MAX);
            let end = offset.saturating_add(length);
            if end > window.length {
                // Header whole, rest missing: nothing can follow.
                self.gap(offset, window.length);
                return Ok(());
            }
            if header.kind == Kind::Void {
                self.sound_end = end;
            } else if window.payload_is_sound(&header)? {
                self.records.push(Found { id: header.id, offset, length });
                self.sound_end = end;
            } else {
                self.gap(offset, end);
            }
            offset = end;
        }
        Ok(())
    }

    fn gap(&mut self, offset: u64, end: u64) {
        self.gaps.push(Gap { offset, end });
    }
}

/// A moving view of a file.
struct Window<'a> {
    file: &'a File,
    length: u64,
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, length: u64) -> Self {
        Self { file, length, buffer: Vec::with_capacity(WINDOW_BYTES), start: 0 }
    }

    /// Octets from `offset` on: at least `wanted` (at most a window) unless the file ends before.
    fn at(&mut self, offset: u64, wanted: u64) -> io::Result<&[u8]> {
        let needed_end = offset.saturating_add(wanted).min(self.length);
        let loaded_end = self.start + self.buffer.len() as u64;
        if offset < self.start || needed_end > loaded_end {
            self.load(offset)?;
        }
        let skip = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(skip..).unwrap_or_default())
    }

    fn load(&mut self, offset: u64) -> io::Result<()> {
        let wanted = (WINDOW_BYTES as u64).min(self.length.saturating_sub(offset));
        self.buffer.resize(wanted as usize, 0);
        self.file.read_exact_at(&mut self.buffer, offset)?;
        self.start = offset;
        Ok(())
    }

    fn header(&mut self, offset: u64, nonce: u64) -> io::Result<Option<RecordHeader>> {
        let bytes = self.at(offset, record::HEADER_BYTES)?;
        Ok(RecordHeader::decode(bytes, offset).filter(|header| header.nonce == nonce))
    }

    /// Offset of the first header at or behind `from`, or the end of the file.
    fn next_header(&mut self, from: u64, nonce: u64) -> io::Result<u64> {
        let mut offset = from;
        while offset.saturating_add(record::HEADER_BYTES) <= self.length {
            let bytes = self.at(offset, record::HEADER_BYTES)?;
            let mut tried = 0;
            for candidate in
                bytes.windows(record::HEADER_BYTES as usize).step_by(ALIGNMENT as usize)
            {
                let header = RecordHeader::decode(candidate, offset + tried);
                if header.is_some_and(|header| header.nonce == nonce) {
                    return Ok(offset + tried);
                }
                tried += ALIGNMENT;
            }
            offset += tried;
        }
        Ok(self.length)
    }

    /// Only for a record that lies within the file.
    fn payload_is_sound(&mut self, header: &RecordHeader) -> io::Result<bool> {
        let mut offset = header.offset + record::HEADER_BYTES;
        let mut left = header.payload_bytes().unwrap_or(0);
        let mut checksum = header.checksum();
        while left > 0 {
            let bytes = self.at(offset, 1)?;
            let (piece, _) = bytes.split_at(left.min(bytes.len() as u64) as usize);
            checksum = crc32c::crc32c_append(checksum, piece);
            offset += piece.len() as u64;
            left -= piece.len() as u64;
        }
        let stored = self.at(offset, record::CHECKSUM_BYTES)?;
        Ok(stored.starts_with(&checksum.to_le_bytes()))
    }
}
