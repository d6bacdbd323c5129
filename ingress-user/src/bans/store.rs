//! Bans on disk.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::book::Kept;
use crate::state_file::{self, Format};

const FORMAT: Format = Format {
    version: 1,
    // 65,536 clients are 20 MB.
    bytes_max: 256 << 20,
    holds: "bans",
};

#[derive(Debug, Serialize)]
struct Document<'k> {
    version: u32,
    #[serde(flatten)]
    kept: &'k Kept,
}

pub(super) fn load(file: &Path) -> Kept {
    FORMAT.load(file)
}

pub(super) fn save(file: &Path, kept: &Kept) -> io::Result<()> {
    state_file::replace(file, |output| {
        serde_json::to_writer(&mut *output, &Document { version: FORMAT.version, kept })?;
        output.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::bans::{BanSettings, Book, Offence};

    fn kept() -> Kept {
        let mut book = Book::new(BanSettings { early_talkers_max: 1, ..BanSettings::default() });
        let _ = book.offence("192.0.2.7".parse().unwrap(), Offence::EarlyTalker, 1_795_500_000);
        let network = "2001:db8::/64".parse().unwrap();
        let note = "a \"note\"".to_owned();
        book.add(network, Duration::from_secs(60), note, 1_795_500_000).unwrap();
        book.kept()
    }

    #[test]
    fn what_is_kept_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bans.json");
        assert_eq!(load(&file), Kept::default());
        save(&file, &kept()).unwrap();
        let mut loaded = load(&file);
        let mut expected = kept();
        for kept in [&mut loaded, &mut expected] {
            kept.bans.sort_by_key(|ban| ban.network);
        }
        assert_eq!(loaded, expected);
    }

    #[test]
    fn a_broken_file_or_one_of_another_version_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bans.json");
        save(&file, &kept()).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        for broken in [&text[..text.len() - 3], "", &text.replace("\"version\":1", "\"version\":2")]
        {
            fs::write(&file, broken).unwrap();
            assert_eq!(load(&file), Kept::default());
            assert!(!file.exists());
            let aside = fs::read_to_string(folder.path().join("bans.json.broken")).unwrap();
            assert_eq!(aside, broken);
        }
    }
}
