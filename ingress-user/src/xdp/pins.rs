//! What outlives a daemon: maps of the filter, and for the moment of a planned restart the attachments, as files of the BPF file
//! system (bpffs).
//!
//! ```text
//! /sys/fs/bpf/ingress/-var-lib-ingress/v1/SOURCES, FIRST_SEEN
//! /sys/fs/bpf/ingress/-var-lib-ingress/native-eth0      only between two daemons
//! ```
//!
//! Maps are kept by the version of their layout, so that no daemon reads what another one wrote differently. They stay after a
//! crash, which detaches the program: the next daemon goes on with what is known of sources. A daemon that is stopped removes them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use ingress_ebpf::abi::{LAYOUT_VERSION, names};
use rustix::fs::statfs;

use super::load::AttachMode;

/// Maps that the next daemon goes on with: budgets and proofs of sources, first SYNs under pressure. Lists and bans it fills anew
/// before it attaches.
pub(super) const KEPT_MAPS: [&str; 2] = [names::SOURCES, names::FIRST_SEEN];

/// `f_type` of a BPF file system (linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Names of files hold this much.
const NAME_BYTES_MAX: usize = 255;

/// Why nothing outlives the daemon. It runs without.
#[derive(Debug, thiserror::Error)]
pub(super) enum PinError {
    #[error("{} is not on a BPF file system: `mount -t bpf bpf /sys/fs/bpf`", .0.display())]
    NotBpf(PathBuf),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The folder of one daemon, by its state folder, which no two daemons share.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Creates the folders. Maps of other layouts than ours are given up.
    pub(super) fn open(pin_dir: &Path, state_dir: &Path) -> Result<Self, PinError> {
        are_possible(pin_dir)?;
        let state_dir = fs::canonicalize(state_dir).map_err(|error| io_error(state_dir, error))?;
        let pins = Self { folder: pin_dir.join(escaped(&state_dir.to_string_lossy())) };
        let maps = pins.maps();
        let create = DirBuilder::new().recursive(true).mode(0o700).create(&maps);
        create.map_err(|error| io_error(&maps, error))?;
        pins.remove_other_layouts();
        Ok(pins)
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// The attachment that the daemon before has left, if it did. It is this process's from now on.
    pub(super) fn take_link(&self, interface: &str, mode: AttachMode) -> Option<FdLink> {
        let link = PinnedLink::from_pin(self.link(interface, mode)).ok()?;
        link.unpin()
            .inspect_err(
                |error| tracing::warn!(interface, %error, "an attachment cannot be unpinned"),
            )
            .ok()
    }

    /// Leaves the attachment to the daemon that comes next.
    pub(super) fn leave_link(&self, interface: &str, mode: AttachMode, link: FdLink) {
        // From a successor that died at once.
        let _ = fs::remove_file(self.link(interface, mode));
        if let Err(error) = link.pin(self.link(interface, mode)) {
            tracing::warn!(interface, %error, "the filter is not handed over; the next daemon attaches it anew");
        }
    }

    /// Detaches what nobody has taken: an interface that is not ours any more, or another mode.
    pub(super) fn drop_links(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Gives all of it up.
    pub(super) fn remove(&self) {
        self.drop_links();
        remove_folder(&self.maps());
        let _ = fs::remove_dir(&self.folder);
    }

    fn maps(&self) -> PathBuf {
        self.folder.join(layout_name())
    }

    fn link(&self, interface: &str, mode: AttachMode) -> PathBuf {
        self.folder.join(format!("{}-{}", mode.name(), escaped(interface)))
    }

    fn remove_other_layouts(&self) {
        let ours = layout_name();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && entry.file_name().to_string_lossy() != ours {
                remove_folder(&entry.path());
            }
        }
    }
}

/// Whether the folder is on a BPF file system, or would be.
pub(super) fn are_possible(pin_dir: &Path) -> Result<(), PinError> {
    let standing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(pin_dir);
    let file_system = statfs(standing).map_err(|error| io_error(standing, error.into()))?;
    match u64::try_from(file_system.f_type) {
        Ok(BPF_FS_MAGIC) => Ok(()),
        _ => Err(PinError::NotBpf(pin_dir.to_owned())),
    }
}

fn io_error(path: &Path, source: io::Error) -> PinError {
    PinError::Io { path: path.to_owned(), source }
}

fn layout_name() -> String {
    format!("v{LAYOUT_VERSION}")
}

/// With the maps in it. What cannot be removed is in nobody's way.
fn remove_folder(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
    let _ = fs::remove_dir(folder);
}

/// As a name of one file: the BPF file system takes no dots. `/` becomes `-`, what is neither a letter nor a digit `\xHH`, as in
/// names of systemd's units. A path too long for a name keeps its end.
fn escaped(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'/' => name.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    // ASCII alone: every place is a border.
    name.split_off(name.len().saturating_sub(NAME_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_dots_and_differ_where_paths_do() {
        assert_eq!(escaped("/var/lib/ingress"), "-var-lib-ingress");
        assert_eq!(escaped("eth0.7"), "eth0\\x2e7");
        assert_ne!(escaped("/a-b"), escaped("/a/b"));
        assert_eq!(escaped(&"/x".repeat(300)).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn a_folder_of_another_file_system_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Pins::open(&folder.path().join("pins"), folder.path()).unwrap_err();
        assert!(error.to_string().contains("is not on a BPF file system"), "{error}");
        assert!(!folder.path().join("pins").exists());
    }
}
