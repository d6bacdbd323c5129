//! Messages in chunks (RFC 3030), seen by their client: each command and each chunk has one reply, and a message that is
//! acknowledged is made of the chunks that were, and of nothing else.
//!
//! The first octet of the input chooses how the dialogue is cut the second time; [`Turn::next`] reads the rest.

#![no_main]

use std::sync::{Arc, LazyLock};

use ingress_fuzz::{Client, Spool, Transcript, cut, reply_lines};
use ingress_tests::dialogue::settings;
use ingress_user::smtp::Settings;
use libfuzzer_sys::fuzz_target;

/// Long dialogues, and two chunks of moderate size are too much.
static SETTINGS: LazyLock<Arc<Settings>> = LazyLock::new(|| {
    Arc::new(Settings {
        errors_max: u32::MAX,
        messages_max: u32::MAX,
        message_bytes_max: 200,
        ..settings()
    })
});

const START: [&str; 3] =
    ["EHLO client.example.org", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>"];

/// Of one dialogue, after which nothing new comes.
const TURNS_MAX: usize = 24;

/// Sent between chunks. With their code 250, the first two begin or end a transaction, and all of `RESETS` end one.
const COMMANDS: [&str; 8] = [
    "MAIL FROM:<> BODY=BINARYMIME",
    "RCPT TO:<c@example.net>",
    "RSET",
    "EHLO again.example.org",
    "DATA",
    "NOOP",
    "RCPT TO:<elsewhere@example.com>",
    "FOO",
];
const RESETS: [&str; 2] = ["RSET", "EHLO again.example.org"];

enum Turn<'i> {
    Command(&'static str),
    Chunk { octets: &'i [u8], last: bool },
}

impl<'i> Turn<'i> {
    /// `-` or `+` (the last one), a length and as many octets are a chunk; any other octet is a command.
    fn next(input: &mut &'i [u8]) -> Option<Self> {
        let (&kind, rest) = input.split_first()?;
        *input = rest;
        if !matches!(kind, b'-' | b'+') {
            return Some(Self::Command(COMMANDS[usize::from(kind) % COMMANDS.len()]));
        }
        let (&length, rest) = rest.split_first().unwrap_or((&0, rest));
        let (octets, rest) = rest.split_at(usize::from(length).min(rest.len()));
        *input = rest;
        Some(Self::Chunk { octets, last: kind == b'+' })
    }
}

/// What the client can know of its message.
#[derive(Default)]
enum Message {
    #[default]
    NotBegun,
    /// The chunks that were acknowledged.
    Begun(Vec<u8>),
    /// A chunk was refused: this message cannot arrive any more.
    Failed,
}

struct Dialogue {
    client: Client,
    /// All that was sent.
    sent: Vec<u8>,
    /// Octets of the replies that were read.
    read: usize,
    message: Message,
    acknowledged: Vec<Vec<u8>>,
}

impl Dialogue {
    fn new() -> Self {
        let client = Client::new(&SETTINGS, Spool::TakesAll);
        let read = client.transcript().replies.len();
        let (sent, message, acknowledged) = (Vec::new(), Message::NotBegun, Vec::new());
        Self { client, sent, read, message, acknowledged }
    }

    /// Sends what has one reply; returns its code and text.
    fn ask(&mut self, octets: &[u8]) -> String {
        self.client.send(octets);
        self.sent.extend_from_slice(octets);
        let mut lines = reply_lines(&self.client.transcript().replies[self.read..]);
        let last = lines.find(|line| line.as_bytes()[3] == b' ').expect("a reply");
        assert_eq!(lines.next(), None, "a second reply to {}", octets.escape_ascii());
        let last = last.to_owned();
        self.read = self.client.transcript().replies.len();
        last
    }

    fn take(&mut self, turn: Turn<'_>) {
        match turn {
            Turn::Command(command) => self.command(command),
            Turn::Chunk { octets, last } => self.chunk(octets, last),
        }
    }

    fn command(&mut self, command: &str) {
        let reply = self.ask(format!("{command}\r\n").as_bytes());
        if reply.starts_with("354") {
            assert!(matches!(self.message, Message::NotBegun), "DATA in the middle of chunks");
            let message = b"text\r\n.\r\n";
            assert!(self.ask(message).starts_with("250"));
            self.acknowledged.push(message.to_vec());
        } else if reply.starts_with("250") && RESETS.contains(&command) {
            self.message = Message::NotBegun;
        } else if reply.starts_with("250") && command.starts_with("MAIL") {
            // Without a transaction a refused chunk has no message that it could spoil.
            self.message = Message::NotBegun;
        }
    }

    fn chunk(&mut self, octets: &[u8], last: bool) {
        let marker = if last { " LAST" } else { "" };
        let mut wire = format!("BDAT {}{marker}\r\n", octets.len()).into_bytes();
        wire.extend_from_slice(octets);
        let taken = self.ask(&wire).starts_with("250");
        let mut message = match std::mem::take(&mut self.message) {
            Message::NotBegun => Vec::new(),
            Message::Begun(message) => message,
            Message::Failed => {
                assert!(!taken, "a message goes on behind a chunk that was refused");
                Vec::new()
            }
        };
        message.extend_from_slice(octets);
        match (taken, last) {
            (false, _) => self.message = Message::Failed,
            (true, false) => self.message = Message::Begun(message),
            (true, true) => self.acknowledged.push(message),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, mut rest)) = input.split_first() else { return };
    let mut dialogue = Dialogue::new();
    for command in START {
        dialogue.command(command);
    }
    for turn in std::iter::from_fn(|| Turn::next(&mut rest)).take(TURNS_MAX) {
        dialogue.take(turn);
    }
    let transcript = dialogue.client.transcript();
    let taken: Vec<&[u8]> = transcript.messages.iter().map(|message| &*message.octets).collect();
    assert_eq!(taken, dialogue.acknowledged);
    let play_again = |pieces: &mut dyn Iterator<Item = &[u8]>| -> Transcript {
        Client::play(&SETTINGS, Spool::TakesAll, pieces)
    };
    let sent = dialogue.sent.as_slice();
    assert_eq!(&play_again(&mut sent.chunks(1)), transcript, "octet by octet");
    assert_eq!(&play_again(&mut [sent].into_iter()), transcript, "pipelined");
    assert_eq!(&play_again(&mut cut(sent, seed)), transcript, "cut");
});
