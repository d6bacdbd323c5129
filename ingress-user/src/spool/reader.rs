//! Reads one message back, checked.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::envelope_codec;
use super::error::ReadError;
use super::normalize::Normalize;
use super::pending::RecordRef;
use super::record::{self, Kind, RecordHeader};
use super::segment::segment_path;
use super::submission::{BodyEncoding, QueueId};
use super::unstuff::Unstuff;
use crate::smtp::envelope::Envelope;

/// Read at once, and kept if the record is no longer: nearly all mail is read from disk a single time.
const PIECE_BYTES: u64 = 64 << 10;

/// Opens records by reference. Independent of the writer thread; works on when the spool is poisoned or closed.
#[derive(Debug, Clone)]
pub struct Reader {
    directory: Arc<Path>,
}

impl Reader {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.into() }
    }

    /// Opens a record and verifies all of it. Takes memory for its envelope, its trace and 64 KiB.
    pub fn open(&self, record: &RecordRef) -> Result<Message, ReadError> {
        let path = segment_path(&self.directory, record.segment);
        let (raw, encoding) = RawRecord::load(path, record)?;
        raw.check(|_| Ok(()))?;
        let envelope =
            envelope_codec::decode(raw.loaded_range(
                record::HEADER_BYTES,
                record::HEADER_BYTES + raw.header.envelope_bytes,
            ));
        let envelope = envelope.map_err(|source| ReadError::Envelope {
            path: raw.path.clone(),
            offset: raw.header.offset,
            source,
        })?;
        Ok(Message { raw, encoding, envelope })
    }
}

/// A message whose record was whole when it was opened.
#[derive(Debug)]
pub struct Message {
    raw: RawRecord,
    encoding: BodyEncoding,
    envelope: Envelope,
}

impl Message {
    pub fn id(&self) -> QueueId {
        self.raw.header.id
    }

    /// Microseconds since 1970.
    pub fn accepted_at(&self) -> u64 {
        self.raw.header.accepted_at
    }

    /// Tells this record from any other with the same queue id, as there may be after the clock was set back or from a
    /// second spool on the host. The same for as long as the record exists.
    pub fn discriminator(&self) -> u32 {
        let header = &self.raw.header;
        // Two offsets in one segment never collide: a CRC of 32 bits tells all 32-bit differences apart. And the
        // nonce, which keeps mail from imitating records, does not get out.
        crc32c::crc32c_append(
            crc32c::crc32c(&header.nonce.to_le_bytes()),
            &header.offset.to_le_bytes(),
        )
    }

    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The header lines to stand before the message, each ending in CRLF.
    pub fn trace(&self) -> &[u8] {
        let start = record::HEADER_BYTES + self.raw.header.envelope_bytes;
        self.raw.loaded_range(start, self.raw.body_start())
    }

    /// Writes the message as the client meant it, dot-stuffing undone and sloppy line ends mended, without the trace. Takes 64 KiB of memory whatever
    /// its size.
    ///
    /// # Errors
    ///
    /// Large bodies are read and verified again, so this too may find damage: what was written until then is then not the
    /// message, and has to be thrown away.
    pub fn copy_to(&self, output: &mut impl Write) -> Result<(), ReadError> {
        match self.encoding {
            BodyEncoding::Verbatim => self.raw.check(|piece| output.write_all(piece)),
            BodyEncoding::DotStuffed => {
                let mut unstuff = Unstuff::new(output, self.raw.header.body_bytes);
                self.raw.check(|piece| unstuff.write(piece))?;
                if unstuff.is_complete() { Ok(()) } else { Err(self.raw.damaged()) }
            }
            BodyEncoding::SloppyVerbatim => self.copy_normalized(false, output),
            BodyEncoding::SloppyDotStuffed => self.copy_normalized(true, output),
        }
    }
}

impl Message {
    fn copy_normalized(&self, stuffed: bool, output: &mut impl Write) -> Result<(), ReadError> {
        let mut normalize = Normalize::new(output, stuffed, self.raw.header.body_bytes);
        self.raw.check(|piece| normalize.write(piece))?;
        normalize.finish().map_err(ReadError::Output)
    }
}

#[derive(Debug)]
struct RawRecord {
    path: PathBuf,
    file: File,
    header: RecordHeader,
    /// The first octets of the record: at least up to the body.
    loaded: Vec<u8>,
}

impl RawRecord {
    fn load(path: PathBuf, record: &RecordRef) -> Result<(Self, BodyEncoding), ReadError> {
        let offset = record.offset;
        let io_error = |source| ReadError::Io { path: path.clone(), offset, source };
        let file = File::open(&path).map_err(io_error)?;
        let mut loaded = vec![0; record.length.min(PIECE_BYTES) as usize];
        file.read_exact_at(&mut loaded, offset).map_err(io_error)?;
        let header = RecordHeader::decode(&loaded, offset).filter(|header| {
            header.record_bytes() == Some(record.length) && header.id == record.id
        });
        let Some((header, Kind::Message(encoding))) = header.map(|header| (header, header.kind))
        else {
            return Err(ReadError::Damaged { path, offset });
        };
        let mut raw = Self { path, file, header, loaded };
        let loaded_bytes = raw.loaded.len();
        let head_bytes = raw.body_start() as usize;
        if head_bytes > loaded_bytes {
            raw.loaded.resize(head_bytes, 0);
            let (_, rest) = raw.loaded.split_at_mut(loaded_bytes);
            raw.file
                .read_exact_at(rest, offset + loaded_bytes as u64)
                .map_err(|source| ReadError::Io { path: raw.path.clone(), offset, source })?;
        }
        Ok((raw, encoding))
    }

    /// Runs over the whole record, hands out the body, and at the end compares the checksum.
    fn check(&self, body: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ReadError> {
        let body_start = self.body_start();
        let body_end = body_start + self.header.body_bytes;
        let mut checksum = self.header.checksum();
        let head = self.loaded_range(record::HEADER_BYTES, body_start);
        checksum = crc32c::crc32c_append(checksum, head);
        let mut body = body;
        self.pieces(body_start, body_end, |piece| {
            checksum = crc32c::crc32c_append(checksum, piece);
            body(piece)
        })?;
        let mut stored = Vec::with_capacity(record::CHECKSUM_BYTES as usize);
        self.pieces(body_end, body_end + record::CHECKSUM_BYTES, |piece| {
            stored.extend_from_slice(piece);
            Ok(())
        })?;
        if stored == checksum.to_le_bytes() { Ok(()) } else { Err(self.damaged()) }
    }

    /// Hands out the record's octets from `start` to `end`, counted from its first.
    fn pieces(
        &self,
        start: u64,
        end: u64,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), ReadError> {
        let loaded_end = end.min(self.loaded.len() as u64);
        if start < loaded_end {
            each(self.loaded_range(start, loaded_end)).map_err(ReadError::Output)?;
        }
        let mut offset = start.max(loaded_end);
        let mut buffer = vec![0; PIECE_BYTES.min(end - offset) as usize];
        while offset < end {
            buffer.truncate(PIECE_BYTES.min(end - offset) as usize);
            self.file.read_exact_at(&mut buffer, self.header.offset + offset).map_err(
                |source| ReadError::Io {
                    path: self.path.clone(),
                    offset: self.header.offset,
                    source,
                },
            )?;
            each(&buffer).map_err(ReadError::Output)?;
            offset += buffer.len() as u64;
        }
        Ok(())
    }

    fn body_start(&self) -> u64 {
        record::HEADER_BYTES + self.header.envelope_bytes + self.header.trace_bytes
    }

    fn loaded_range(&self, start: u64, end: u64) -> &[u8] {
        self.loaded.get(start as usize..end as usize).unwrap_or_default()
    }

    fn damaged(&self) -> ReadError {
        ReadError::Damaged { path: self.path.clone(), offset: self.header.offset }
    }
}
