//! Plays a client against the SMTP core: no socket, no thread, a clock that the script moves.
//!
//! A script is written as the dialogue it is. Each is played three ways: every client turn fed whole, octet by octet, and cut
//! at random places. The outcome must be the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ingress_user::policy::{ClientNetworks, RecipientDomains, TargetExtensions};
use ingress_user::smtp::dialect::Dialect;
use ingress_user::smtp::envelope::Envelope;
use ingress_user::smtp::reply::LocalFault;
use ingress_user::smtp::session::Tls;
use ingress_user::smtp::{Action, Octets, Session, Settings};
use ingress_user::spool::{BodyEncoding, QueueId};
use ingress_user::worker::clock::Now;

/// What a dialogue test starts from: short limits, one local domain, STARTTLS on offer.
pub fn settings() -> Settings {
    Settings {
        hostname: "mx.example.net".into(),
        dialect: Dialect::Smtp,
        tls: Tls::StartTls,
        networks: ClientNetworks::default(),
        target: TargetExtensions { smtputf8: true, binarymime: true, dsn: true, requiretls: true },
        domains: RecipientDomains::listed(["example.net"]),
        idle_timeout: Duration::from_secs(300),
        tls_handshake_timeout: Duration::from_secs(60),
        commit_timeout: Duration::from_secs(300),
        proxy_header_timeout: Duration::from_secs(5),
        greet_delay: Duration::ZERO,
        command_line_bytes_max: 512,
        message_bytes_max: 1000,
        text_line_bytes_max: 500,
        recipients_max: 3,
        messages_max: 10,
        errors_max: 5,
        errors_undelayed_max: 10,
        error_delay: Duration::from_secs(1),
    }
}

/// One line of a script.
#[derive(Debug, Clone)]
enum Turn {
    Client(Vec<u8>),
    Expect(&'static str),
    ExpectNothing,
    ExpectMessage { body: &'static str, encoding: BodyEncoding, check: fn(&Envelope) },
    ExpectStartTls,
    ExpectClose,
    Submitted(QueueId),
    Commit(Result<QueueId, LocalFault>),
    LateCommit(QueueId),
    TlsEstablished,
    PassTime(Duration),
}

/// A dialogue, written down before it is played.
#[derive(Debug, Clone)]
pub struct Script {
    settings: Arc<Settings>,
    turns: Vec<Turn>,
}

impl Script {
    /// A session in clear, with the default settings.
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), turns: Vec::new() }
    }

    /// A session on a listener with implicit TLS.
    pub fn tls_first() -> Self {
        Self::with(Settings { tls: Tls::Implicit, ..settings() })
    }

    /// The client sends these octets in one turn.
    pub fn client(self, octets: impl AsRef<[u8]>) -> Self {
        self.turn(Turn::Client(octets.as_ref().to_vec()))
    }

    /// The server has sent a reply that begins like this (all lines of it are taken).
    pub fn expect(self, prefix: &'static str) -> Self {
        self.turn(Turn::Expect(prefix))
    }

    /// The server has sent nothing more.
    pub fn expect_nothing(self) -> Self {
        self.turn(Turn::ExpectNothing)
    }

    /// The session asked for a message to be made durable, with this wire form.
    pub fn expect_message(self, body: &'static str, check: fn(&Envelope)) -> Self {
        self.turn(Turn::ExpectMessage { body, encoding: BodyEncoding::DotStuffed, check })
    }

    /// The same for a message that came in chunks.
    pub fn expect_chunked(self, body: &'static str, check: fn(&Envelope)) -> Self {
        self.turn(Turn::ExpectMessage { body, encoding: BodyEncoding::Verbatim, check })
    }

    pub fn expect_starttls(self) -> Self {
        self.turn(Turn::ExpectStartTls)
    }

    /// The session is over.
    pub fn expect_close(self) -> Self {
        self.turn(Turn::ExpectClose)
    }

    /// The spool answers.
    pub fn commit(self, outcome: Result<QueueId, LocalFault>) -> Self {
        self.turn(Turn::Commit(outcome))
    }

    /// The message is under way to the spool, which does not answer yet.
    pub fn submitted(self, id: QueueId) -> Self {
        self.turn(Turn::Submitted(id))
    }

    /// The spool answers for a message that was [`submitted`](Self::submitted) before.
    pub fn late_commit(self, id: QueueId) -> Self {
        self.turn(Turn::LateCommit(id))
    }

    pub fn tls_established(self) -> Self {
        self.turn(Turn::TlsEstablished)
    }

    /// The clock moves; deadlines on the way fire.
    pub fn pass(self, time: Duration) -> Self {
        self.turn(Turn::PassTime(time))
    }

    /// EHLO with its reply.
    pub fn hello(self) -> Self {
        self.expect("220 ").client("EHLO client.example.org\r\n").expect("250")
    }

    /// A transaction up to 354.
    pub fn transaction(self) -> Self {
        self.client("MAIL FROM:<sender@example.org>\r\n")
            .expect("250 2.1.0")
            .client("RCPT TO:<user@example.net>\r\n")
            .expect("250 2.1.5")
            .client("DATA\r\n")
            .expect("354")
    }

    /// Plays it whole, octet by octet, and cut at random; panics where the server says something else.
    pub fn play(self) {
        Player::new(&self, "whole").play(|turn| vec![turn.to_vec()]);
        Player::new(&self, "octet by octet")
            .play(|turn| turn.chunks(1).map(<[u8]>::to_vec).collect());
        for seed in 1..=50u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Player::new(&self, &format!("cut at random, seed {seed}"))
                .play(|turn| cut(turn, &mut random));
        }
    }

    fn turn(mut self, turn: Turn) -> Self {
        self.turns.push(turn);
        self
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

/// What a session made of some input.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    pub replies: Vec<u8>,
    /// The messages that the session asked to be made durable; each was.
    pub messages: Vec<Vec<u8>>,
    pub closed: bool,
}

impl Transcript {
    /// Plays `pieces`, each as one receive.
    pub fn of<'p>(settings: Settings, pieces: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let script = Script::with(settings);
        let mut player = Player::new(&script, "in pieces");
        let mut transcript = Self::default();
        for piece in pieces {
            player.input.extend_from_slice(piece);
            player.feed();
            while player.asked.take().is_some() {
                transcript.messages.push(std::mem::take(&mut player.message));
                let id = QueueId(transcript.messages.len() as u64);
                player.session.message_submitted(id);
                player.session.handle_commit(id, Ok(()), player.now, &mut player.output);
                player.feed();
            }
        }
        Self { replies: player.output, closed: player.closed, ..transcript }
    }
}

/// Cuts into pieces of 1 to 7 octets (xorshift: the same seed, the same pieces).
fn cut(octets: &[u8], random: &mut u64) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = octets;
    while !rest.is_empty() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let (piece, behind) = rest.split_at((*random % 7 + 1).min(rest.len() as u64) as usize);
        pieces.push(piece.to_vec());
        rest = behind;
    }
    pieces
}

struct Player<'s> {
    script: &'s Script,
    manner: String,
    session: Session,
    now: Instant,
    /// Client octets not consumed yet.
    input: Vec<u8>,
    /// Replies not expected yet.
    output: Vec<u8>,
    message: Vec<u8>,
    asked: Option<(Box<Envelope>, BodyEncoding)>,
    starttls: bool,
    closed: bool,
}

impl<'s> Player<'s> {
    fn new(script: &'s Script, manner: &str) -> Self {
        let now = Now::read().monotonic;
        let client = "192.0.2.1".parse().expect("a literal");
        let mut session = Session::new(Arc::clone(&script.settings), client, now);
        let mut output = Vec::new();
        let opened = session.open(now, &mut output);
        Self {
            script,
            manner: manner.to_owned(),
            session,
            now,
            input: Vec::new(),
            output,
            message: Vec::new(),
            asked: None,
            starttls: opened == Action::StartTls,
            closed: false,
        }
    }

    fn play(mut self, mut pieces: impl FnMut(&[u8]) -> Vec<Vec<u8>>) {
        for (number, turn) in self.script.turns.clone().into_iter().enumerate() {
            let place = format!("turn {number} {turn:?}, fed {}", self.manner);
            self.take(turn, &place, &mut pieces);
        }
        let rest = self.output.escape_ascii().to_string();
        assert!(rest.is_empty(), "unexpected reply {rest:?}, fed {}", self.manner);
    }

    fn take(&mut self, turn: Turn, place: &str, pieces: &mut impl FnMut(&[u8]) -> Vec<Vec<u8>>) {
        match turn {
            Turn::Client(octets) => {
                for piece in pieces(&octets) {
                    self.input.extend(piece);
                    self.feed();
                }
            }
            Turn::Expect(prefix) => {
                let reply = self.next_reply();
                assert!(reply.starts_with(prefix), "{place}: got {reply:?}");
            }
            Turn::ExpectNothing => {
                assert!(self.output.is_empty(), "{place}: got {}", self.output.escape_ascii());
            }
            Turn::ExpectMessage { body, encoding, check } => {
                let (envelope, asked) =
                    self.asked.take().unwrap_or_else(|| panic!("{place}: no message"));
                assert_eq!(asked, encoding, "{place}");
                check(&envelope);
                let message = std::mem::take(&mut self.message);
                assert_eq!(message.escape_ascii().to_string(), body.escape_default().to_string());
            }
            Turn::ExpectStartTls => assert!(std::mem::take(&mut self.starttls), "{place}"),
            Turn::ExpectClose => assert!(self.closed, "{place}: still open"),
            Turn::Commit(outcome) => {
                match outcome {
                    Ok(id) => {
                        self.session.message_submitted(id);
                        self.session.handle_commit(id, Ok(()), self.now, &mut self.output);
                    }
                    Err(fault) => self.session.refuse_commit(fault, self.now, &mut self.output),
                }
                self.feed();
            }
            Turn::Submitted(id) => self.session.message_submitted(id),
            Turn::LateCommit(id) => {
                self.session.handle_commit(id, Ok(()), self.now, &mut self.output);
                self.feed();
            }
            Turn::TlsEstablished => {
                self.session.handle_tls_established(self.now, &mut self.output);
                self.feed();
            }
            Turn::PassTime(time) => self.pass(time),
        }
    }

    /// Offers input as a driver does, until nothing more happens.
    fn feed(&mut self) {
        while !self.closed && !self.input.is_empty() && self.session.wants_input() {
            let step = self.session.handle_input(&self.input, self.now, &mut self.output);
            let used: Vec<u8> = self.input.drain(..step.consumed).collect();
            match step.octets {
                Octets::Command => {}
                Octets::Message => self.message.extend(used),
                Octets::Dropped => self.message.clear(),
            }
            match step.action {
                Action::Continue if step.consumed == 0 => return,
                Action::Continue => {}
                Action::StartTls => {
                    self.starttls = true;
                    return;
                }
                Action::Commit { envelope, encoding } => self.asked = Some((envelope, encoding)),
                Action::Close => self.closed = true,
                Action::Admit(client) => {
                    let action = self.session.admit(client, self.now, &mut self.output);
                    self.starttls |= action == Action::StartTls;
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while !self.closed && self.session.deadline() <= until {
            self.now = self.session.deadline();
            match self.session.handle_timeout(self.now, &mut self.output) {
                Action::Close => self.closed = true,
                _ => self.feed(),
            }
        }
        self.now = until;
    }

    /// Takes one reply, continuation lines included, off what the server has sent.
    fn next_reply(&mut self) -> String {
        let text = String::from_utf8(self.output.clone()).expect("replies are ASCII");
        let mut taken = 0;
        for line in text.split_inclusive("\r\n") {
            taken += line.len();
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        self.output.drain(..taken);
        text[..taken].to_owned()
    }
}
