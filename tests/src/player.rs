//! Drives one session, as the worker does.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingress_user::smtp::envelope::Envelope;
use ingress_user::smtp::reply::LocalFault;
use ingress_user::smtp::{Action, Octets, Session, Settings};
use ingress_user::spool::{BodyEncoding, QueueId};
use ingress_user::worker::clock::Now;

use crate::corpus::{Message, ReplyLine, Turn};
use crate::dialogue;

/// The id that a message is stored under where the dialogue names none.
const DEFAULT_ID: QueueId = QueueId(32);

/// What a turn expected, and what came.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) expected: String,
    pub(crate) came: String,
}

/// A message that the session asked to be made durable.
pub(crate) struct Asked {
    envelope: Box<Envelope>,
    encoding: BodyEncoding,
    pub(crate) octets: Vec<u8>,
}

pub(crate) struct Player {
    session: Session,
    now: Instant,
    /// Client octets not consumed yet.
    input: Vec<u8>,
    /// Replies not expected yet.
    pub(crate) output: Vec<u8>,
    /// Octets of the message that is being received.
    message: Vec<u8>,
    pub(crate) asked: VecDeque<Asked>,
    awaits_tls: bool,
    /// The client that the session asks about.
    awaits_admission: Option<IpAddr>,
    pub(crate) closed: bool,
    /// The dialogue has said that the session is over.
    close_expected: bool,
}

impl Player {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let now = Now::read().monotonic;
        let client = "192.0.2.1".parse().expect("a literal");
        let mut player = Self {
            session: Session::new(settings, client, now),
            now,
            input: Vec::new(),
            output: Vec::new(),
            message: Vec::new(),
            asked: VecDeque::new(),
            awaits_tls: false,
            awaits_admission: None,
            closed: false,
            close_expected: false,
        };
        let action = player.session.open(now, &mut player.output);
        player.obey(action);
        player
    }

    /// Plays one turn; what the client sends goes through `cut`.
    pub(crate) fn take<'o>(
        &mut self,
        turn: &'o Turn,
        mut cut: impl FnMut(&'o [u8]) -> Vec<&'o [u8]>,
    ) -> Result<(), Mismatch> {
        if let Turn::Reply(lines) = turn {
            return self.expect_reply(lines);
        }
        self.expect_silence()?;
        match turn {
            Turn::Client(octets) => cut(octets).into_iter().for_each(|piece| self.receive(piece)),
            Turn::Reply(_) | Turn::Silence => {}
            Turn::Message(message) => self.expect_message(message)?,
            Turn::Stored => self.expect_no_message().map(|()| self.store(DEFAULT_ID))?,
            Turn::Refused(fault) => {
                self.expect_no_message()?;
                self.session.refuse_commit(*fault, self.now, &mut self.output);
                self.feed();
            }
            Turn::Submitted(id) => self.session.message_submitted(*id),
            Turn::Answered(id, outcome) => self.answer(*id, *outcome),
            Turn::NoRoom => {
                self.session.refuse_message(LocalFault::NoBuffers);
                self.message.clear();
            }
            Turn::Tls => self.establish_tls()?,
            Turn::Admit(client) => self.admit(*client)?,
            Turn::Wait(time) => self.pass(*time),
            Turn::Close(why) => {
                self.awaits_admission = None;
                let action = self.session.close(*why, self.now, &mut self.output);
                self.obey(action);
            }
            Turn::Closed => self.expect_close()?,
        }
        Ok(())
    }

    /// Whether all that happened has been expected.
    pub(crate) fn end(&self) -> Result<(), Mismatch> {
        self.expect_silence()?;
        self.expect_no_message()?;
        if self.closed && !self.close_expected {
            return mismatch("a session that goes on", "closed");
        }
        if let Some(client) = self.awaits_admission {
            return mismatch("no wait for admission at the end", client.to_string());
        }
        if self.awaits_tls && !self.closed {
            return mismatch("no wait for TLS at the end", "the session waits for TLS");
        }
        Ok(())
    }

    /// Octets that the session keeps for itself.
    pub(crate) fn kept_octets(&self) -> usize {
        self.session.kept_octets()
    }

    /// Octets come from the client.
    pub(crate) fn receive(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        self.feed();
    }

    /// The spool takes the message and makes it durable.
    pub(crate) fn store(&mut self, id: QueueId) {
        self.session.message_submitted(id);
        self.answer(id, Ok(()));
    }

    fn answer(&mut self, id: QueueId, outcome: Result<(), LocalFault>) {
        self.session.handle_commit(id, outcome, self.now, &mut self.output);
        self.feed();
    }

    /// Offers input as a driver does, until nothing more happens. That a closed session takes none is its own affair.
    fn feed(&mut self) {
        while !self.input.is_empty() && self.session.wants_input() {
            let step = self.session.handle_input(&self.input, self.now, &mut self.output);
            let used: Vec<u8> = self.input.drain(..step.consumed).collect();
            match step.octets {
                Octets::Command => {}
                Octets::Message => self.message.extend(used),
                Octets::Dropped => self.message.clear(),
            }
            if step.action == Action::Continue && step.consumed == 0 {
                return;
            }
            self.obey(step.action);
            if self.awaits_tls || self.awaits_admission.is_some() {
                return;
            }
        }
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Continue => {}
            Action::Admit(client) => self.awaits_admission = Some(client),
            Action::StartTls => self.awaits_tls = true,
            Action::Commit { envelope, encoding } => {
                let octets = std::mem::take(&mut self.message);
                self.asked.push_back(Asked { envelope, encoding, octets });
            }
            Action::Close => self.closed = true,
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while !self.closed && self.session.deadline() <= until {
            self.now = self.session.deadline();
            let action = self.session.handle_timeout(self.now, &mut self.output);
            self.obey(action);
            self.feed();
        }
        self.now = until;
    }

    fn establish_tls(&mut self) -> Result<(), Mismatch> {
        if !std::mem::take(&mut self.awaits_tls) {
            return mismatch("a session that waits for TLS", "it does not");
        }
        self.session.handle_tls_established(self.now, &mut self.output);
        self.feed();
        Ok(())
    }

    fn admit(&mut self, expected: IpAddr) -> Result<(), Mismatch> {
        match self.awaits_admission.take() {
            Some(client) if client == expected => {
                let action = self.session.admit(client, self.now, &mut self.output);
                self.obey(action);
                self.feed();
                Ok(())
            }
            Some(other) => mismatch(format!("a request to admit {expected}"), other.to_string()),
            None => mismatch(format!("a request to admit {expected}"), "none"),
        }
    }

    fn expect_reply(&mut self, expected: &[ReplyLine]) -> Result<(), Mismatch> {
        let reply = self.next_reply();
        let lines: Vec<&str> = reply.split_terminator("\r\n").collect();
        let holds = |(expected, line): (&ReplyLine, &&str)| match expected.exact {
            true => *line == expected.text,
            false => line.starts_with(&expected.text),
        };
        // A reply that is expected in one line may have more of them; one expected in several has just those.
        let count_holds =
            !lines.is_empty() && (expected.len() == 1 || expected.len() == lines.len());
        if count_holds && expected.iter().zip(&lines).all(holds) {
            return Ok(());
        }
        let expected: Vec<&str> = expected.iter().map(|line| &*line.text).collect();
        let came = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" / ") };
        mismatch(format!("a reply {}", expected.join(" / ")), came)
    }

    /// Takes one reply, continuation lines included, off what the server has sent.
    fn next_reply(&mut self) -> String {
        let mut taken = 0;
        for line in self.output.split_inclusive(|&octet| octet == b'\n') {
            taken += line.len();
            if line.get(3) != Some(&b'-') {
                break;
            }
        }
        let reply: Vec<u8> = self.output.drain(..taken).collect();
        String::from_utf8_lossy(&reply).into_owned()
    }

    fn expect_silence(&self) -> Result<(), Mismatch> {
        match self.output.is_empty() {
            true => Ok(()),
            false => mismatch("no further reply", self.output.escape_ascii().to_string()),
        }
    }

    fn expect_close(&mut self) -> Result<(), Mismatch> {
        self.close_expected = true;
        if self.closed { Ok(()) } else { mismatch("closed", "the session goes on") }
    }

    /// A message that was asked for is to be looked at before the spool answers for it.
    fn expect_no_message(&self) -> Result<(), Mismatch> {
        match self.asked.front() {
            None => Ok(()),
            Some(asked) => mismatch(
                "no message that the dialogue does not name",
                asked.octets.escape_ascii().to_string(),
            ),
        }
    }

    fn expect_message(&mut self, expected: &Message) -> Result<(), Mismatch> {
        let Some(asked) = self.asked.pop_front() else {
            return mismatch("a message", "none");
        };
        if asked.encoding != expected.encoding {
            return mismatch(format!("{:?}", expected.encoding), format!("{:?}", asked.encoding));
        }
        if asked.octets != expected.octets {
            return mismatch(
                format!("the message {}", expected.octets.escape_ascii()),
                asked.octets.escape_ascii().to_string(),
            );
        }
        let summary = dialogue::summary(&asked.envelope);
        for (name, _) in &expected.envelope {
            let expected = values_of(name, &expected.envelope);
            let came = values_of(name, &summary);
            if expected != came {
                return mismatch(format!("{name}={}", expected.join(",")), came.join(","));
            }
        }
        Ok(())
    }
}

fn values_of<'s, N: AsRef<str>>(name: &str, pairs: &'s [(N, String)]) -> Vec<&'s str> {
    let pairs = pairs.iter().filter(|(own, _)| own.as_ref() == name);
    pairs.map(|(_, value)| value.as_str()).collect()
}

fn mismatch<T>(expected: impl Into<String>, came: impl Into<String>) -> Result<T, Mismatch> {
    Err(Mismatch { expected: expected.into(), came: came.into() })
}
