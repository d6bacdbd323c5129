//! A batch of submissions laid out for one vectored write.

use std::io::IoSlice;

use super::envelope_codec;
use super::pending::RecordRef;
use super::record::{self, RecordHeader};
use super::submission::Submission;

/// Everything of a batch that is not body, and where the bodies go in between. Kept and filled again for each batch.
///
/// The trailer of one record and the head of the next lie side by side, so a message costs one slice beside its body's.
#[derive(Debug, Default)]
pub(super) struct Batch {
    frames: Vec<u8>,
    /// Ends of the pieces of `frames` that a body follows, one for each submission.
    cuts: Vec<usize>,
    pub(super) refs: Vec<RecordRef>,
    /// Segment offset behind the batch.
    pub(super) end: u64,
}

impl Batch {
    /// Lays out `submissions` from segment offset `start`, up to which the segment is durable.
    pub(super) fn encode(
        &mut self,
        submissions: &[Submission],
        start: u64,
        segment: u64,
        nonce: u64,
    ) {
        self.frames.clear();
        self.cuts.clear();
        self.refs.clear();
        self.end = start;
        for submission in submissions {
            let header = RecordHeader::of(submission, start, nonce, self.end);
            let mut checksum = header.encode(&mut self.frames);
            let payload_start = self.frames.len();
            envelope_codec::encode(&submission.envelope, &mut self.frames);
            self.frames.extend_from_slice(&submission.trace);
            checksum = crc32c::crc32c_append(checksum, self.frames.split_at(payload_start).1);
            self.cuts.push(self.frames.len());
            for piece in submission.body.iter().flat_map(|chunk| chunk.pieces()) {
                checksum = crc32c::crc32c_append(checksum, piece);
            }
            record::encode_trailer(&header, checksum, &mut self.frames);
            // Octets that lie in memory have a length that fits.
            let length = header.record_bytes().unwrap_or(u64::MAX);
            self.refs.push(RecordRef { id: submission.id, segment, offset: self.end, length });
            self.end = self.end.saturating_add(length);
        }
    }

    /// The batch as it goes to the file; no slice is empty.
    pub(super) fn slices<'a>(&'a self, submissions: &'a [Submission]) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(2 * submissions.len() + 1);
        let mut frames = self.frames.as_slice();
        let mut frame_start = 0;
        for (&cut, submission) in self.cuts.iter().zip(submissions) {
            let (frame, rest) = frames.split_at(cut - frame_start);
            (frames, frame_start) = (rest, cut);
            slices.push(IoSlice::new(frame));
            let pieces = submission.body.iter().flat_map(|chunk| chunk.pieces());
            slices.extend(pieces.filter(|piece| !piece.is_empty()).map(IoSlice::new));
        }
        slices.push(IoSlice::new(frames));
        slices
    }
}
