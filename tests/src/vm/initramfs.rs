//! A `newc` cpio archive, as the kernel unpacks it into its first file system (Documentation/driver-api/early-userspace/
//! buffer-format.rst): a header of hexadecimal fields, the name, the content, each filled up to four octets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::netns;

const MAGIC: &str = "070701";
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;

/// Of the last entry, which says that no other follows.
const TRAILER: &str = "TRAILER!!!";

/// An archive in the making. Folders above what is put in come by themselves.
#[derive(Default)]
pub(super) struct Archive {
    octets: Vec<u8>,
    entries: u32,
    names: BTreeSet<String>,
}

impl Archive {
    pub(super) fn folder(&mut self, path: &str) {
        self.put(path, FOLDER | 0o755, (0, 0), &[]);
    }

    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.put(path, FILE | 0o644, (0, 0), content);
    }

    pub(super) fn program(&mut self, path: &str, content: &[u8]) {
        self.put(path, FILE | 0o755, (0, 0), content);
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.put(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// The device that the kernel opens as standard output of the first process, before anything is mounted.
    pub(super) fn console(&mut self, path: &str) {
        self.put(path, DEVICE | 0o600, (5, 1), &[]);
    }

    /// A program of this machine, with the libraries that it is linked with where it looks for them.
    ///
    /// # Errors
    /// When the program is not there.
    pub(super) fn program_with_libraries(&mut self, path: &str, name: &str) -> Result<()> {
        let script = format!("PATH=$PATH:/usr/sbin:/sbin; command -v {name}");
        let program = netns::output(Command::new("sh").args(["-c", &script]))?;
        let program = program.trim();
        self.program(path, &read(program)?);
        let libraries = netns::output(Command::new("ldd").arg(program))?;
        // `libc.so.6 => /lib/libc.so.6 (0x..)`, and the loader by its path alone.
        let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        let paths: BTreeSet<&str> = paths.collect();
        ensure!(!paths.is_empty(), "no libraries in {libraries}");
        for library in paths {
            self.program(library, &read(library)?);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.octets
    }

    fn put(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let path = path.trim_start_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        if self.names.insert(path.to_owned()) {
            self.entry(path, mode, device, content);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = |octets: usize| u32::try_from(octets).expect("no file here has 4 GiB");
        let fields = [
            self.entries, // inode: each its own, or they would be one file under several names
            mode,
            0, // user
            0, // group
            1, // names
            0, // time
            size(content.len()),
            0, // device that holds it: major, minor
            0,
            major, // device that it is: major, minor
            minor,
            size(name.len() + 1),
            0, // checksum, not used by this magic
        ];
        self.octets.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.octets.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.octets.extend_from_slice(name.as_bytes());
        self.octets.push(0);
        self.fill();
        self.octets.extend_from_slice(content);
        self.fill();
    }

    fn fill(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_begins_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.file("etc/name", b"mx.test");
        let octets = archive.finish();
        let entry = |name: &str| {
            let header = octets.windows(name.len()).position(|octets| octets == name.as_bytes());
            header.expect("an entry") - 110
        };
        for name in ["etc\0", "etc/name\0", "TRAILER!!!\0"] {
            assert_eq!(entry(name) % 4, 0, "{name}");
            assert!(octets[entry(name)..].starts_with(b"070701"), "{name}");
        }
        let content = octets.windows(7).position(|octets| octets == b"mx.test").unwrap();
        assert_eq!(content % 4, 0);
        assert_eq!(&octets[entry("etc/name\0") + 54..][..8], b"00000007");
        assert_eq!(octets.len() % 4, 0);
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it_and_once() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"");
        archive.file("/a/b/d", b"");
        assert_eq!(archive.entries, 4);
        let octets = archive.finish();
        let at = |name: &str| {
            octets.windows(name.len()).position(|octets| octets == name.as_bytes()).unwrap()
        };
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0"));
    }
}
