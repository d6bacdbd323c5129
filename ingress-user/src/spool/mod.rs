//! The spool: an append-only log that makes a 250 true.
//!
//! A worker hands over a whole message as a [`Submission`], receive buffers included; the writer thread appends a batch of
//! them, makes it durable with one `fdatasync`, and gives each back as a [`Completion`]. What delivery has done with is
//! [released](SpoolHandle::release). The format is described in FORMAT.md.
//!
//! In the order of a record's life: `submission` (what workers hand in), `batch` and `record` (its octets), `segment` (its
//! file), `writer` (the thread), `pending` (who waits for delivery), `reader` (back again), `releases` (done with), and
//! after a crash `scan` (what is there) and `recovery` (what to make of it).

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod batch;
mod envelope_codec;
mod error;
mod handle;
mod normalize;
mod pending;
mod poison;
mod reader;
mod record;
mod recovery;
mod releases;
mod scan;
mod segment;
mod segment_file;
mod submission;
mod unstuff;
mod writer;

#[cfg(test)]
mod tests;

pub use envelope_codec::EnvelopeError;
pub use error::{ReadError, SpoolError};
pub use handle::{Refused, RefusedReason, Spool, SpoolHandle, SpoolThread};
pub use pending::{PendingIndex, RecordRef};
pub use reader::{Message, Reader};
pub use submission::{
    BodyEncoding, CommitError, Completion, CompletionSink, QueueId, Submission, Ticket,
};

pub(crate) use segment::sync_directory;
