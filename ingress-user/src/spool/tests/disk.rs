//! A disk that fails when told to.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender};

use crate::spool::segment_file::SegmentFile;
use crate::spool::writer::Wrap;

/// What goes wrong, and what was done so far. All segments of a writer share one.
#[derive(Default)]
pub(super) struct Faults {
    /// Octets until the file system is full.
    pub(super) space: Option<usize>,
    /// Largest write taken at once.
    pub(super) write_bytes_max: Option<usize>,
    pub(super) fail_write: bool,
    pub(super) fail_sync: bool,
    pub(super) fail_truncate: bool,
    /// Says that a sync has begun, and where it waits until the test lets it go on.
    pub(super) stall: Option<(Sender<()>, Receiver<()>)>,
    pub(super) writes: usize,
    pub(super) syncs: usize,
    /// Where the octets lay in memory that were written: address and length of each slice.
    pub(super) written_from: Vec<(usize, usize)>,
}

#[derive(Clone, Default)]
pub(super) struct Disk(pub(super) Arc<Mutex<Faults>>);

impl Disk {
    pub(super) fn with(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(faults)))
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.lock().unwrap());
    }

    pub(super) fn wrap(&self) -> Wrap {
        let disk = self.clone();
        Box::new(move |file| Box::new(FaultyFile { file, disk: disk.clone() }))
    }
}

struct FaultyFile {
    file: File,
    disk: Disk,
}

impl SegmentFile for FaultyFile {
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut faults = self.disk.0.lock().unwrap();
        faults.writes += 1;
        faults.written_from.extend(slices.iter().map(|slice| (slice.as_ptr().addr(), slice.len())));
        if faults.fail_write {
            return Err(io::Error::other("injected write error"));
        }
        // Every other attempt is interrupted by a signal.
        if faults.write_bytes_max.is_some() && faults.writes.is_multiple_of(2) {
            return Err(ErrorKind::Interrupted.into());
        }
        let allowed =
            faults.write_bytes_max.unwrap_or(usize::MAX).min(faults.space.unwrap_or(usize::MAX));
        if allowed == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let mut octets: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        octets.truncate(allowed);
        io::Write::write_all(&mut self.file, &octets)?;
        faults.space = faults.space.map(|space| space - octets.len());
        Ok(octets.len())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let stall = self.disk.0.lock().unwrap().stall.clone();
        if let Some((begun, go_on)) = stall {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        let mut faults = self.disk.0.lock().unwrap();
        if faults.fail_sync {
            return Err(io::Error::other("injected sync error"));
        }
        faults.syncs += 1;
        self.file.sync_data()
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        if self.disk.0.lock().unwrap().fail_truncate {
            return Err(io::Error::other("injected truncate error"));
        }
        self.file.set_len(length)
    }
}
