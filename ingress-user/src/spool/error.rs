//! Why a spool cannot be opened or a record not be read.

use std::io;
use std::path::{Path, PathBuf};

use super::envelope_codec::EnvelopeError;

/// Why the spool cannot be opened. Each names the file: it is read by whoever has to get mail running again.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("another daemon uses the spool {}; stop it or give this one its own state_dir", directory.display())]
    Locked { directory: PathBuf },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} has spool format {version}, which this version cannot read; start the one that wrote it", path.display())]
    Version { path: PathBuf, version: u32 },
}

impl SpoolError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Why a record cannot be read now.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk or the system; may pass.
    #[error("cannot read the record at offset {offset} of {}", path.display())]
    Io { path: PathBuf, offset: u64, source: io::Error },
    /// The checksum was right at start or when it was written, and is not now. Will not pass.
    #[error("the record at offset {offset} of {} is damaged", path.display())]
    Damaged { path: PathBuf, offset: u64 },
    /// Whole, but not understood. Passes with another version of this program.
    #[error("the envelope of the record at offset {offset} of {} is not understood", path.display())]
    Envelope { path: PathBuf, offset: u64, source: EnvelopeError },
    /// The record is fine; what the message was copied to is not.
    #[error("cannot write the message")]
    Output(#[source] io::Error),
}
