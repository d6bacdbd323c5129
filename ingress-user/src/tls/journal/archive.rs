//! Counts and failures on disk, so that a report survives a restart: one JSON document, replaced as a whole.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::day::Day;
use super::failure::Failure;
use crate::state_file::{self, Format};

const FORMAT: Format = Format {
    version: 1,
    // Far beyond what bounds on days and failures let it grow to.
    bytes_max: 64 << 20,
    holds: "reports of TLS",
};

#[derive(Debug, Serialize)]
struct Written<'j> {
    version: u32,
    days: &'j VecDeque<Day>,
    failures: &'j VecDeque<Failure>,
}

/// What was kept, as it stands in the file.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub(super) struct Kept {
    pub(super) days: Vec<Day>,
    pub(super) failures: Vec<Failure>,
}

/// The document, made while the journal is held; it is written when it is not.
pub(super) fn document(
    days: &VecDeque<Day>,
    failures: &VecDeque<Failure>,
) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Written { version: FORMAT.version, days, failures })
}

pub(super) fn save(file: &Path, document: &[u8]) -> io::Result<()> {
    state_file::replace(file, |output| output.write_all(document))
}

/// What the file has. One that cannot be used is said and set aside, and is no reason not to start.
pub(super) fn load(file: &Path) -> Kept {
    FORMAT.load(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tls::journal::event::Failed;
    use crate::tls::journal::failure::{FAILURES_MAX, Findings, LastMail, Peer};
    use crate::tls::offer::{self, Offer};
    use crate::tls::verdict::{self, Ending, KeyKind, NextTry, Own, Stage, Verdict};

    /// Writes this, loads it, and checks that it is set aside as it was.
    fn is_set_aside(text: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.json");
        fs::write(&file, text).unwrap();
        assert_eq!(load(&file), Kept::default());
        assert!(!file.exists());
        assert_eq!(fs::read_to_string(folder.path().join("journal.json.broken")).unwrap(), text);
    }

    #[test]
    fn a_broken_file_or_one_of_another_version_is_set_aside() {
        let text = document(&VecDeque::new(), &VecDeque::new()).unwrap();
        let text = String::from_utf8(text).unwrap();
        is_set_aside("");
        is_set_aside(&text[..text.len() - 1]);
        is_set_aside(&text.replace("\"version\":1", "\"version\":2"));
        is_set_aside("{\"version\":1,\"days\":[7],\"failures\":[]}");
    }

    #[test]
    fn what_is_kept_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tls/journal.json");
        assert_eq!(load(&file), Kept::default());
        let mut day = Day { number: 7, ..Day::default() };
        day.versions.insert(0x0304, 3);
        day.verdicts.insert("cbc_only".into(), 2);
        let days = VecDeque::from([day]);
        save(&file, &document(&days, &VecDeque::new()).unwrap()).unwrap();
        assert_eq!(load(&file).days, Vec::from(days));
        assert!(!file.with_extension("json.broken").exists());
    }

    #[test]
    fn a_flood_of_failures_with_long_hellos_does_not_grow_a_file_that_cannot_be_read() {
        let list = |entries: usize| vec![0xfefe; entries];
        let offer = Offer {
            // The extension has an octet for its length in octets (RFC 8446 4.2.1).
            versions: list(127),
            suites: list(offer::LIST_ENTRIES_MAX),
            groups: list(offer::LIST_ENTRIES_MAX),
            schemes: list(offer::LIST_ENTRIES_MAX),
            server_name: Some("x".repeat(offer::NAME_BYTES_MAX)),
            ..Offer::default()
        };
        let own = Own::with_keys(&KeyKind::ALL);
        let usable = Some(verdict::usable(&offer, &own));
        let verdict = Verdict::NoCommonSuite(offer.suites.clone());
        let failed = Failed {
            stage: Stage::HelloReceived,
            ending: Ending::WeRefused,
            alert_sent: Some(40),
            hello: Vec::new(),
        };
        let client = "2001:db8::ffff:ffff:ffff:ffff".parse().unwrap();
        let helo = Some("x".repeat(512).into());
        let mail_before = LastMail { over_tls: Some(7), in_clear: None };
        let peer = Peer { client, network: client.into(), helo, implicit: true, mail_before };
        let findings = Findings { verdict, offer: Some(offer), usable };
        let failure = Failure::new(1_795_500_000, peer, &failed, findings, NextTry::TlsFirst);
        let one = document(&VecDeque::new(), &VecDeque::from([failure])).unwrap();
        let all = (one.len() * FAILURES_MAX) as u64;
        assert!(all < FORMAT.bytes_max / 4, "{all} octets");
    }
}
