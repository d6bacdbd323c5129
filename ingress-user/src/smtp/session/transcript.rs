//! The last things said in a session, for the operator who asks why it ended.
//!
//! Never message content and never credentials: of a client's line only what begins with a known verb is kept, and nothing
//! behind AUTH. A client that lost step with the server would otherwise have its mail in the log.

use std::fmt;
use std::time::{Duration, Instant};

use memchr::memchr2;

/// Entries kept: the end of a session shows with its last transaction.
const ENTRIES: usize = 16;

/// Octets kept of each; 80 in all with the rest of the entry.
const TEXT_BYTES_MAX: usize = 74;

/// A ring of the last entries. Its 1,280 octets are allocated with the first.
#[derive(Debug)]
pub struct Transcript {
    opened: Instant,
    entries: Option<Box<[Entry; ENTRIES]>>,
    /// Entries ever made.
    recorded: u64,
}

/// One thing said, or one that happened.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    after_ms: u32,
    speaker: Speaker,
    length: u8,
    text: [u8; TEXT_BYTES_MAX],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
    /// Something that happened to the session.
    Note,
}

impl Transcript {
    pub(super) fn new(opened: Instant) -> Self {
        Self { opened, entries: None, recorded: 0 }
    }

    /// Entries ever made, of which the last [`since`](Self::since) can still give.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Entries made after the first `count`, oldest first, as far as they are kept.
    pub fn since(&self, count: u64) -> impl Iterator<Item = &Entry> {
        let oldest = self.recorded.saturating_sub(ENTRIES as u64).max(count);
        let slot = |number: u64| self.entries.as_ref()?.get((number % ENTRIES as u64) as usize);
        (oldest..self.recorded).filter_map(slot)
    }

    /// A command line without its CRLF, and its verb if it is a known one.
    pub(super) fn client(&mut self, verb: Option<&str>, line: &[u8], now: Instant) {
        match verb {
            Some("AUTH") => self.note(format_args!("AUTH (rest not shown)"), now),
            Some(_) => self.record(Speaker::Client, line, now),
            None => self.note(format_args!("unknown command of {} octets", line.len()), now),
        }
    }

    /// A reply as it was written; its first line is kept.
    pub(super) fn server(&mut self, reply: &[u8], now: Instant) {
        self.record(Speaker::Server, reply, now);
    }

    pub(super) fn note(&mut self, text: fmt::Arguments<'_>, now: Instant) {
        let mut cut = Cut { text: [0; TEXT_BYTES_MAX], length: 0 };
        // `Cut` takes everything and keeps what fits.
        let _ = fmt::Write::write_fmt(&mut cut, text);
        self.record(Speaker::Note, cut.text.get(..cut.length).unwrap_or_default(), now);
    }

    fn record(&mut self, speaker: Speaker, text: &[u8], now: Instant) {
        let front = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
        let end = memchr2(b'\r', b'\n', front).unwrap_or(front.len());
        let kept = front.get(..end).unwrap_or_default();
        let after = now.saturating_duration_since(self.opened).as_millis();
        let entries = self.entries.get_or_insert_with(|| Box::new([Entry::EMPTY; ENTRIES]));
        if let Some(entry) = entries.get_mut((self.recorded % ENTRIES as u64) as usize) {
            entry.after_ms = u32::try_from(after).unwrap_or(u32::MAX);
            entry.speaker = speaker;
            entry.length = kept.len() as u8;
            if let Some(to) = entry.text.get_mut(..kept.len()) {
                to.copy_from_slice(kept);
            }
        }
        self.recorded += 1;
    }
}

/// All that is kept, on one line.
impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, entry) in self.since(0).enumerate() {
            f.write_str(if position == 0 { "" } else { " | " })?;
            entry.fmt(f)?;
        }
        Ok(())
    }
}

impl Entry {
    const EMPTY: Self =
        Self { after_ms: 0, speaker: Speaker::Note, length: 0, text: [0; TEXT_BYTES_MAX] };
}

/// `+0.153s C: RCPT TO:<user@example.net>`, control characters and octets above 127 escaped.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = Duration::from_millis(self.after_ms.into());
        let text = self.text.get(..usize::from(self.length)).unwrap_or_default();
        let speaker = match self.speaker {
            Speaker::Client => "C: ",
            Speaker::Server => "S: ",
            Speaker::Note => "* ",
        };
        let cut = if text.len() == TEXT_BYTES_MAX { ".." } else { "" };
        write!(f, "+{:.3}s {speaker}{}{cut}", after.as_secs_f64(), text.escape_ascii())
    }
}

/// Takes the front of a text.
struct Cut {
    text: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.text.get_mut(self.length..).unwrap_or_default();
        room.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        self.length = (self.length + text.len()).min(TEXT_BYTES_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::command::known_verb;
    use crate::worker::clock::Now;

    impl Transcript {
        fn said(&mut self, line: &[u8], now: Instant) {
            self.client(known_verb(line), line, now);
        }
    }

    fn transcript() -> (Transcript, Instant) {
        let now = Now::read().monotonic;
        (Transcript::new(now), now)
    }

    #[test]
    fn the_last_entries_are_kept_in_order() {
        let (mut transcript, now) = transcript();
        for number in 0..ENTRIES + 3 {
            transcript.note(format_args!("note {number}"), now + Duration::from_millis(1_500));
        }
        let said: Vec<String> = transcript.since(0).map(Entry::to_string).collect();
        assert_eq!(said.len(), ENTRIES);
        assert_eq!(said[0], "+1.500s * note 3");
        assert_eq!(said[ENTRIES - 1], format!("+1.500s * note {}", ENTRIES + 2));
        assert_eq!(transcript.since(ENTRIES as u64 + 1).count(), 2);
    }

    #[test]
    fn neither_credentials_nor_pieces_of_a_message_are_kept() {
        let (mut transcript, now) = transcript();
        transcript.said(b"AUTH PLAIN AGJvYgBzZWNyZXQ=", now);
        transcript.said(b"auth login Ym9i", now);
        transcript.said(b"Dear Bob, the password is", now);
        transcript.said(b"Subject: secret", now);
        transcript.said(b"MAIL FROM:<a@example.org>", now);
        let said = transcript.to_string();
        assert!(!said.contains("AGJv") && !said.contains("Ym9i"), "{said}");
        assert!(!said.contains("Dear") && !said.contains("secret"), "{said}");
        assert!(said.contains("unknown command of 25 octets"), "{said}");
        assert!(said.ends_with("C: MAIL FROM:<a@example.org>"), "{said}");
    }

    #[test]
    fn long_lines_are_cut_and_odd_octets_escaped() {
        let (mut transcript, now) = transcript();
        transcript.said(&[b"NOOP ".as_slice(), &b"x".repeat(100)].concat(), now);
        transcript.said(b"NOOP \x1b[2J\xff", now);
        transcript.server(b"250-first\r\n250 second\r\n", now);
        let said: Vec<String> = transcript.since(0).map(Entry::to_string).collect();
        assert!(said[0].ends_with("xxx..") && said[0].len() < 100, "{}", said[0]);
        assert!(said[1].ends_with("NOOP \\x1b[2J\\xff"), "{}", said[1]);
        assert!(said[2].ends_with("S: 250-first"), "{}", said[2]);
    }
}
