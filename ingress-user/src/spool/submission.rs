//! What crosses between the workers and the spool writer.

use std::fmt;

use crate::smtp::envelope::Envelope;
use crate::worker::buffers::{Buffer, Chunk};

/// Names a message in logs, in `Received:` and to the client. Unique per host; the worker makes it.
///
/// 54 bits of microseconds since 1970 and 10 bits of worker number; written in base 32 without vowels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct QueueId(pub u64);

impl QueueId {
    /// Workers a host can have, by the bits an id has for them.
    pub const WORKERS_MAX: usize = 1 << 10;

    pub fn new(unix_micros: u64, worker: usize) -> Self {
        Self(unix_micros << 10 | (worker as u64 & (Self::WORKERS_MAX as u64 - 1)))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No vowels: an id never spells a word. 13 digits hold 65 bits.
        const DIGITS: &[u8; 32] = b"0123456789BCDFGHJKLMNPQRSTVWXYZb";
        for shift in (0..13).rev().map(|digit| digit * 5) {
            // Five bits always find their digit.
            let digit = DIGITS.get((self.0 >> shift & 31) as usize).copied().unwrap_or(b'0');
            fmt::Write::write_char(f, char::from(digit))?;
        }
        Ok(())
    }
}

/// Where a [`Completion`] goes back to. Opaque to the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Index of the worker, not its CPU.
    pub worker: usize,
    /// The worker's own key of the waiting connection.
    pub connection: u64,
}

/// How the body octets stand in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEncoding {
    /// As DATA carries them (RFC 5321 4.5.2): dots doubled at line starts, the final `.` CRLF included. Storing the wire form
    /// is what lets the receive buffers go to disk without a copy; the reader undoes it.
    DotStuffed,
    /// The message itself, octet by octet.
    Verbatim,
    /// As `DotStuffed`, from a client whose bare CR, bare LF and NUL are let through; the reader normalises them.
    SloppyDotStuffed,
    /// As `Verbatim`, from such a client.
    SloppyVerbatim,
}

/// A message on its way to stable storage.
#[derive(Debug)]
pub struct Submission {
    pub ticket: Ticket,
    pub id: QueueId,
    /// Microseconds since 1970, when the transaction was accepted.
    pub accepted_at: u64,
    pub envelope: Box<Envelope>,
    /// Header lines to stand before the message (`Received:`), each ending in CRLF, never dot-stuffed.
    pub trace: Vec<u8>,
    pub body: Vec<Chunk>,
    pub encoding: BodyEncoding,
}

/// The writer's answer to one submission.
#[derive(Debug)]
pub struct Completion {
    pub ticket: Ticket,
    pub id: QueueId,
    /// `Ok` only after the record is on stable storage.
    pub outcome: Result<(), CommitError>,
    /// Octets of the body as it was submitted.
    pub body_bytes: u64,
    /// The receive buffers of the submission, for the worker's pool.
    pub buffers: Vec<Buffer>,
    /// The submission's, for its session's next transaction.
    pub envelope: Box<Envelope>,
}

/// Why a message is not on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The file system has no room; nothing of the batch was acknowledged. The next message may fit.
    #[error("the spool's file system is full")]
    NoSpace,
    /// A write or fsync failed, so what is on disk is unknown. Sticky until restart.
    #[error("the spool is poisoned by a failed write or fsync; restart after checking the disk")]
    Poisoned,
}

/// Where the writer puts completions: a mailbox per worker, or a test.
pub trait CompletionSink: Send {
    /// Takes one completion. Must not block: the writer serves all workers.
    fn complete(&mut self, completion: Completion);

    /// Called once after each batch, to wake whoever has completions waiting.
    fn flush(&mut self);
}
