//! What tells two versions of a file apart without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Time of the last change (s and ns), size in octets and inode, behind links. The change is that of the inode, so that owner
/// and mode count, and an old file moved into place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl FileStamp {
    /// `None` where it cannot be told.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        Some(Self {
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            bytes: metadata.size(),
            inode: metadata.ino(),
        })
    }
}
