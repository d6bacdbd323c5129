//! What the writer does to an open segment, and no more: the place where tests put a failing disk.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};

/// An open segment. Writes append.
pub(super) trait SegmentFile: Send {
    /// May take fewer octets than given.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// After an error the state of everything written since the last success is unknown.
    fn sync_data(&mut self) -> io::Result<()>;
    fn set_len(&mut self, length: u64) -> io::Result<()>;
}

impl SegmentFile for File {
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Write::write_vectored(self, slices)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }
}

/// Writes every octet of `slices`, none of which may be empty.
///
/// All remaining slices are offered each time: the standard library passes on as many as the kernel takes (IOV_MAX, 1,024),
/// and what that leaves over is a short write like any other.
pub(super) fn write_all(
    file: &mut dyn SegmentFile,
    mut slices: &mut [IoSlice<'_>],
) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
