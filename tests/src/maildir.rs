use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A Maildir as a mail reader sees it.
#[derive(Debug)]
pub struct Maildir(PathBuf);

impl Maildir {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The octets of every message in `new`, in the order of their file names. A Maildir not made yet is empty.
    pub fn messages(&self) -> io::Result<Vec<Vec<u8>>> {
        self.files("new")?.iter().map(fs::read).collect()
    }

    /// The number of messages in `new`, without reading them.
    pub fn count(&self) -> io::Result<usize> {
        Ok(self.files("new")?.len())
    }

    /// Files in `tmp`: deliveries under way, or cut off.
    pub fn unfinished(&self) -> io::Result<usize> {
        Ok(self.files("tmp")?.len())
    }

    fn files(&self, folder: &str) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.0.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let maildir = Maildir::new(folder.path());
        assert_eq!(maildir.count().unwrap(), 0);
        fs::create_dir(folder.path().join("new")).unwrap();
        fs::write(folder.path().join("new/2"), "b").unwrap();
        fs::write(folder.path().join("new/1"), "a").unwrap();
        assert_eq!(maildir.messages().unwrap(), [b"a", b"b"]);
        assert_eq!(maildir.unfinished().unwrap(), 0);
    }
}
