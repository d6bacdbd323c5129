//! The files of the kernel: `/sys` and `/proc`, below a root of its own so that tests have theirs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Reads and writes the kernel's files. Paths are relative: `sys/class/net/eth0/mtu`.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The one that this runs on.
    pub fn this() -> Self {
        Self::at("/")
    }

    /// One whose files are copies below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file's text without the line end; none where the kernel has no such file or refuses it, as sysfs does for what
    /// a driver does not have.
    pub fn text(&self, path: &str) -> Option<String> {
        self.octets(path).ok().map(|text| text.trim_end().to_owned())
    }

    /// A file's text as it is.
    pub(super) fn octets(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(path))
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// Writes a file that is there, in one piece, as sysfs wants it.
    pub(super) fn write(&self, path: &str, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).truncate(true).open(self.root.join(path))?;
        file.write_all(text.as_bytes())
    }

    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Names in a folder, sorted; none where it is not there.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten();
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The folder that a link leads to, from the root.
    pub(super) fn target(&self, path: &str) -> Option<PathBuf> {
        fs::canonicalize(self.root.join(path)).ok()
    }

    /// Whether a process of this name runs.
    pub(super) fn runs(&self, program: &str) -> bool {
        let is_process = |name: &String| name.bytes().all(|octet| octet.is_ascii_digit());
        let processes = self.names("proc").into_iter().filter(is_process);
        processes
            .filter_map(|process| self.text(&format!("proc/{process}/comm")))
            .any(|name| name == program)
    }
}
