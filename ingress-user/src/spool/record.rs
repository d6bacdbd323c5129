//! One record: its header, its length, and the checks that make a header believable. FORMAT.md has the layout.

use super::envelope_codec;
use super::submission::{BodyEncoding, QueueId, Submission};

/// Records begin at multiples of this, so that a scan for the next one has few places to look.
pub(super) const ALIGNMENT: u64 = 8;
pub(super) const HEADER_BYTES: u64 = 80;
/// The payload's CRC-32C, after the body.
pub(super) const CHECKSUM_BYTES: u64 = 4;
pub(super) const MAGIC: [u8; 4] = *b"IREC";

const KIND_MESSAGE: u8 = 1;
const KIND_VOID: u8 = 2;
/// Encodings by the octet that stands for them: their position.
const ENCODINGS: [BodyEncoding; 4] = [
    BodyEncoding::Verbatim,
    BodyEncoding::DotStuffed,
    BodyEncoding::SloppyVerbatim,
    BodyEncoding::SloppyDotStuffed,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message(BodyEncoding),
    /// Nothing: a repaired gap, or (with an empty body) the mark of a clean end. Has no payload checksum.
    Void,
}

/// The fixed part of a record. Everything in it is covered by its own checksum, so its lengths may be trusted even when
/// the payload is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: Kind,
    pub(super) envelope_bytes: u64,
    pub(super) trace_bytes: u64,
    pub(super) body_bytes: u64,
    pub(super) id: QueueId,
    /// Microseconds since 1970.
    pub(super) accepted_at: u64,
    /// The segment was durable up to this offset when the record was written.
    pub(super) durable_floor: u64,
    /// The segment's random number. A mail body cannot imitate a record without knowing it.
    pub(super) nonce: u64,
    /// Where in the segment the record stands.
    pub(super) offset: u64,
}

impl RecordHeader {
    pub(super) fn of(submission: &Submission, durable_floor: u64, nonce: u64, offset: u64) -> Self {
        Self {
            kind: Kind::Message(submission.encoding),
            envelope_bytes: envelope_codec::encoded_bytes(&submission.envelope),
            trace_bytes: submission.trace.len() as u64,
            body_bytes: submission.body.iter().map(|chunk| chunk.byte_count()).sum(),
            id: submission.id,
            accepted_at: submission.accepted_at,
            durable_floor,
            nonce,
            offset,
        }
    }

    /// A record that stands for `gap_bytes` octets of nothing, its own header included.
    pub(super) fn void(gap_bytes: u64, durable_floor: u64, nonce: u64, offset: u64) -> Self {
        Self {
            kind: Kind::Void,
            envelope_bytes: 0,
            trace_bytes: 0,
            body_bytes: gap_bytes.saturating_sub(HEADER_BYTES),
            id: QueueId(0),
            accepted_at: 0,
            durable_floor,
            nonce,
            offset,
        }
    }

    /// Octets from the record's first to the next record's first; `None` if no file could hold that.
    pub(super) fn record_bytes(&self) -> Option<u64> {
        let checksum_bytes = match self.kind {
            Kind::Message(_) => CHECKSUM_BYTES,
            Kind::Void => 0,
        };
        HEADER_BYTES
            .checked_add(self.payload_bytes()?)?
            .checked_add(checksum_bytes)?
            .checked_next_multiple_of(ALIGNMENT)
    }

    /// Octets of envelope, trace and body together.
    pub(super) fn payload_bytes(&self) -> Option<u64> {
        self.envelope_bytes.checked_add(self.trace_bytes)?.checked_add(self.body_bytes)
    }

    /// Appends the header; gives its checksum, from which the payload's goes on.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> u32 {
        let start = out.len();
        let (kind, encoding) = match self.kind {
            Kind::Message(encoding) => {
                let code = ENCODINGS.iter().position(|known| *known == encoding);
                (KIND_MESSAGE, code.unwrap_or(usize::from(u8::MAX)) as u8)
            }
            Kind::Void => (KIND_VOID, 0),
        };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[kind, encoding, 0, 0]);
        for field in [
            self.envelope_bytes,
            self.trace_bytes,
            self.body_bytes,
            self.id.0,
            self.accepted_at,
            self.durable_floor,
            self.nonce,
            self.offset,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&[0; 4]);
        let checksum = crc32c::crc32c(out.split_at(start).1);
        out.extend_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// The header's own checksum, from which the payload's goes on.
    pub(super) fn checksum(&self) -> u32 {
        self.encode(&mut Vec::with_capacity(HEADER_BYTES as usize))
    }

    /// The header at the start of `bytes`, if those are one: magic, checksum, and that it stands where it says.
    pub(super) fn decode(bytes: &[u8], offset: u64) -> Option<Self> {
        let (covered, rest) = bytes.split_at_checked(HEADER_BYTES as usize - 4)?;
        // First, because a scan asks this of every eighth octet.
        if !covered.starts_with(&MAGIC) {
            return None;
        }
        let (checksum, _) = rest.split_first_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let mut fields = Fields(covered.split_at_checked(MAGIC.len())?.1);
        let [kind, encoding, _, _] = fields.take::<4>()?;
        let header = Self {
            kind: match (kind, encoding) {
                (KIND_MESSAGE, code) => Kind::Message(*ENCODINGS.get(usize::from(code))?),
                (KIND_VOID, _) => Kind::Void,
                _ => return None,
            },
            envelope_bytes: fields.number()?,
            trace_bytes: fields.number()?,
            body_bytes: fields.number()?,
            id: QueueId(fields.number()?),
            accepted_at: fields.number()?,
            durable_floor: fields.number()?,
            nonce: fields.number()?,
            offset: fields.number()?,
        };
        (header.offset == offset).then_some(header)
    }
}

/// Appends what follows the body: the payload's checksum and zeros up to the next record.
pub(super) fn encode_trailer(header: &RecordHeader, checksum: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&checksum.to_le_bytes());
    let unpadded = header.payload_bytes().unwrap_or(0) + CHECKSUM_BYTES;
    let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
    out.extend(std::iter::repeat_n(0, padding as usize));
}

/// Little-endian fields, taken from the front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn number32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(slice)
    }
}
