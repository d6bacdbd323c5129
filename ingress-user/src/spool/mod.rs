//! The spool: an append-only log that makes a 250 true.
//!
//! A worker hands over a whole message as a [`Submission`], receive buffers included; the writer thread appends a batch of
//! them, makes it durable with one `fdatasync`, and gives each back as a [`Completion`]. What delivery has done with is
//! [released](SpoolHandle::release). The format is described in FORMAT.md.

mod submission;

pub use submission::{
    BodyEncoding, CommitError, Completion, CompletionSink, QueueId, Submission, Ticket,
};
