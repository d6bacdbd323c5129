//! A client of the SMTP core for the fuzz targets: it sends octets in any pieces and checks, after each step of the session,
//! what must hold whatever was sent.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use ingress_user::smtp::envelope::Envelope;
use ingress_user::smtp::reply::{Closing, LocalFault, Reply};
use ingress_user::smtp::{Action, Octets, Session, Settings};
use ingress_user::spool::{BodyEncoding, QueueId};
use ingress_user::worker::clock::Now;

/// What a client saw of a session, and the spool of it.
#[derive(Default, PartialEq, Eq)]
pub struct Transcript {
    /// After [`End::Tls`] without the last reply: it depends on what was in flight, as it should.
    pub replies: Vec<u8>,
    /// The messages that were acknowledged.
    pub messages: Vec<Message>,
    /// As the session counts them.
    pub refused_messages: u32,
    pub end: Option<End>,
}

/// What the spool took.
#[derive(PartialEq, Eq)]
pub struct Message {
    pub envelope: Box<Envelope>,
    pub encoding: BodyEncoding,
    pub octets: Vec<u8>,
}

/// Why a session takes nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    /// STARTTLS: the handshake is awaited or, where octets in clear came with the command, refused.
    Tls,
}

/// How the spool answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spool {
    TakesAll,
    /// Every second message finds it busy.
    TakesHalf,
}

/// Octets as text: what differs is to be seen in the log.
impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replies, messages, refused_messages, end } = self;
        write!(f, "{}", replies.escape_ascii())?;
        write!(f, " {messages:?}, {refused_messages} messages refused, {end:?}")
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { envelope, encoding, octets } = self;
        write!(f, "{envelope:?} {encoding:?} \"{}\"", octets.escape_ascii())
    }
}

/// One client and its session.
pub struct Client {
    settings: Arc<Settings>,
    session: Session,
    spool: Spool,
    now: Instant,
    /// Octets of the message under way, as a driver keeps them.
    kept: Vec<u8>,
    /// Messages that the spool was asked to take.
    asked: u64,
    transcript: Transcript,
}

impl Client {
    /// Connects; the greeting is in the transcript.
    pub fn new(settings: &Arc<Settings>, spool: Spool) -> Self {
        let now = Now::read().monotonic;
        let address = [192, 0, 2, 1].into();
        let mut session = Session::new(Arc::clone(settings), address, now);
        let mut transcript = Transcript::default();
        let action = session.open(now, &mut transcript.replies);
        let settings = Arc::clone(settings);
        let mut client =
            Self { settings, session, spool, now, kept: Vec::new(), asked: 0, transcript };
        client.obey(action);
        client
    }

    /// Plays a whole session, each piece as one receive.
    pub fn play<'p>(
        settings: &Arc<Settings>,
        spool: Spool,
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Transcript {
        let mut client = Self::new(settings, spool);
        for piece in pieces {
            client.send(piece);
        }
        client.transcript
    }

    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Sends `octets` in one piece. After the end of the session they go nowhere.
    pub fn send(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() && self.transcript.end.is_none() {
            let replies = &mut self.transcript.replies;
            let step = self.session.handle_input(rest, self.now, replies);
            assert!(step.consumed > 0, "a session that wants input makes no progress");
            let (used, behind) = rest.split_at(step.consumed);
            rest = behind;
            match step.octets {
                Octets::Command => {}
                Octets::Message => self.kept.extend_from_slice(used),
                Octets::Dropped => self.kept.clear(),
            }
            self.obey(step.action);
        }
        self.transcript.refused_messages = self.session.refused_messages();
        self.check();
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Continue => self.wait_for_delayed_answer(),
            Action::Admit(client) => {
                let replies = &mut self.transcript.replies;
                let action = self.session.admit(client, self.now, replies);
                self.obey(action);
            }
            Action::Commit { envelope, encoding } => self.commit(envelope, encoding),
            Action::StartTls => {
                assert!(self.session.is_awaiting_tls(), "a handshake that nobody awaits");
                self.end_at_tls(Reply::ReadyForTls);
            }
            Action::Close => {
                assert!(!self.session.wants_input(), "a closed session wants input");
                self.transcript.end = Some(End::Closed);
                let hostname = &*Arc::clone(&self.settings).hostname;
                self.end_at_tls(Reply::Closing { hostname, why: Closing::PipelinedStartTls });
            }
        }
    }

    /// The answer to an error may take its time.
    fn wait_for_delayed_answer(&mut self) {
        if !self.session.wants_input() {
            self.now = self.session.deadline();
            let replies = &mut self.transcript.replies;
            let action = self.session.handle_timeout(self.now, replies);
            assert_ne!(
                action == Action::Continue,
                !self.session.wants_input(),
                "waits for nothing"
            );
            self.obey(action);
        }
    }

    fn commit(&mut self, envelope: Box<Envelope>, encoding: BodyEncoding) {
        assert!(!self.session.wants_input(), "input is wanted while the spool has not answered");
        let octets = std::mem::take(&mut self.kept);
        let message = Message { envelope: envelope.clone(), encoding, octets };
        let replies = &mut self.transcript.replies;
        self.asked += 1;
        if self.spool == Spool::TakesHalf && self.asked.is_multiple_of(2) {
            self.session.refuse_commit(LocalFault::SpoolBusy, self.now, replies);
        } else {
            let id = QueueId(self.asked);
            self.session.message_submitted(id);
            self.session.handle_commit(id, Ok(()), self.now, replies);
            self.transcript.messages.push(message);
        }
        self.session.recycle(envelope);
        assert!(self.session.wants_input(), "the session waits on after the spool's answer");
    }

    /// Takes `last` off the replies where it is the last, and ends the transcript there.
    fn end_at_tls(&mut self, last: Reply<'_>) {
        let mut text = Vec::new();
        last.write_to(&mut text);
        let replies = &mut self.transcript.replies;
        if replies.ends_with(&text) {
            replies.truncate(replies.len() - text.len());
            self.transcript.end = Some(End::Tls);
        }
    }

    /// What holds between two receives.
    fn check(&self) {
        let refused = self.session.refused_commands();
        assert!(refused <= self.settings.errors_max, "{refused} refusals");
        assert!(
            refused < self.settings.errors_max || self.transcript.end == Some(End::Closed),
            "the session goes on after {refused} refusals"
        );
        let of_use = self.session.is_in_transaction() || self.transcript.end.is_some();
        assert!(self.kept.is_empty() || of_use, "octets are kept for no message");
    }
}

/// The lines of replies; panics where they are not as RFC 5321 4.2 has them.
pub fn reply_lines(replies: &[u8]) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(replies).expect("replies are ASCII");
    text.split_inclusive('\n').map(|line| {
        let line = line.strip_suffix("\r\n").expect("a reply ends with CRLF");
        assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
        let code = line.get(..3).is_some_and(|code| code.bytes().all(|b| b.is_ascii_digit()));
        assert!(code && matches!(line.as_bytes().get(3), Some(b' ' | b'-')), "{line:?}");
        line
    })
}

/// Cuts into pieces of 1 to 8 octets or, from an odd seed, 1 to 64: the same seed, the same pieces.
pub fn cut(octets: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let longest = if seed.is_multiple_of(2) { 8 } else { 64 };
    let mut random = u64::from(seed).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut rest = octets;
    std::iter::from_fn(move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let length = usize::try_from(random % longest).ok()? + 1;
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}
