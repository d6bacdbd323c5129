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

    /// The messages as their clients sent them: without the lines that we put before.
    pub fn texts(&self) -> io::Result<Vec<Vec<u8>>> {
        Ok(self.messages()?.iter().map(|message| text_of(message).to_vec()).collect())
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

/// What stands behind Return-Path, Delivered-To and Received with its folded lines.
///
/// Panics when they are not there: nothing that a client sent may pass for them.
pub fn text_of(message: &[u8]) -> &[u8] {
    let mut rest = message;
    for (name, min, max) in
        [("Return-Path: <", 1, 1), ("Delivered-To: ", 1, 1000), ("Received: from ", 1, 1)]
    {
        let mut seen = 0;
        while seen < max && rest.starts_with(name.as_bytes()) {
            rest = behind_field(rest);
            seen += 1;
        }
        assert!(seen >= min, "no {name} in {}", message.escape_ascii());
    }
    rest
}

/// Steps over one header field, its folded lines included.
fn behind_field(text: &[u8]) -> &[u8] {
    let mut rest = text;
    loop {
        let line_end = rest.windows(2).position(|octets| octets == b"\r\n").map(|at| at + 2);
        rest = &rest[line_end.expect("a header field ends in CRLF")..];
        if !rest.starts_with(b"\t") {
            return rest;
        }
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

    #[test]
    fn the_text_begins_behind_our_own_lines() {
        let head = "Return-Path: <a@b>\r\nDelivered-To: c@d\r\nDelivered-To: e@f\r\n\
                    Received: from g ([192.0.2.1])\r\n\tby h; now\r\n";
        let theirs = "Received: from i\r\n\tby j\r\n\r\ntext\r\n";
        assert_eq!(text_of(format!("{head}{theirs}").as_bytes()), theirs.as_bytes());
        assert_eq!(text_of(head.as_bytes()), b"");
    }
}
