//! The state machine of one connection: its states and the contract with its driver. `lines` finds the command lines,
//! `commands` carries them out.

mod chunks;
mod commands;
mod lines;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::{Command, CommandError};
use super::data::{DataFault, DataScanner};
use super::envelope::{BodyType, Envelope, Protocol};
use super::reply::{Closing, LocalFault, Refusal, Reply};
use crate::policy::RecipientDomains;
use crate::spool::{BodyEncoding, QueueId};

/// The end of a line, which limits count and lines come without.
const CRLF_BYTES: usize = 2;

/// What all sessions of a listener have in common.
#[derive(Debug)]
pub struct Settings {
    pub hostname: Box<str>,
    pub domains: RecipientDomains,
    /// Wait for the client's next octet (RFC 5321 4.5.3.2.7).
    pub idle_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    pub commit_timeout: Duration,
    /// Octets of a command line with its CRLF.
    pub command_line_bytes_max: usize,
    pub message_bytes_max: u64,
    /// Octets of a line of message text with its CRLF.
    pub text_line_bytes_max: u64,
    pub recipients_max: usize,
    /// Refused commands before 421.
    pub errors_max: u32,
    /// STARTTLS is announced and taken.
    pub starttls: bool,
}

/// One connection, from greeting to close. It does no I/O: the driver owns socket, TLS, buffers, clock and spool.
///
/// The driver calls, in this order:
///
/// 1. [`open`](Self::open) once, or [`open_tls`](Self::open_tls) where TLS comes first;
/// 2. [`handle_input`](Self::handle_input) with what the client sent, as long as [`wants_input`](Self::wants_input), obeying
///    the [`Step`] each call returns;
/// 3. after an [`Action::Commit`], [`message_submitted`](Self::message_submitted) and, when the spool has answered,
///    [`handle_commit`](Self::handle_commit), or [`refuse_commit`](Self::refuse_commit) where it could not be asked;
///    [`handle_tls_established`](Self::handle_tls_established) when the handshake after [`Action::StartTls`] is through;
/// 4. [`handle_timeout`](Self::handle_timeout) when [`deadline`](Self::deadline) has passed.
///
/// Every call appends replies to `out`; they are to be sent before the returned action is carried out. After
/// [`Action::Close`] the session takes nothing more.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    client: IpAddr,
    state: State,
    greeted: bool,
    /// TLS is active.
    secure: bool,
    helo: Option<Helo>,
    /// A command line of which the end has not come yet.
    line: Vec<u8>,
    refused: u32,
    refused_messages: u32,
    deadline: Instant,
}

/// What the session waits for.
#[derive(Debug)]
enum State {
    /// The TLS handshake.
    ExpectTls,
    /// A command outside a transaction, or within one.
    ExpectCommand(Option<Transaction>),
    /// The end of a command line that was too long.
    ExpectLineEnd(Option<Transaction>),
    /// Message octets. With a refusal the rest of the message is read and dropped.
    ExpectData { transaction: Transaction, scanner: DataScanner, refusal: Option<LocalFault> },
    /// The rest of a chunk (RFC 3030). With a refusal it is read and dropped. Without a transaction there always is one.
    ExpectChunk { transaction: Option<Transaction>, chunk: Chunk, refusal: Option<Refusal> },
    /// The spool, for the message with this id once it has one.
    AwaitCommit { id: Option<QueueId> },
    /// Nothing: the connection is to be closed.
    Closed { by_client: bool },
}

#[derive(Debug)]
struct Helo {
    name: Box<str>,
    extended: bool,
}

/// One mail transaction (RFC 5321 3.3).
#[derive(Debug)]
struct Transaction {
    reverse_path: Box<str>,
    recipients: Vec<Box<str>>,
    body: BodyType,
    chunks: Chunks,
}

/// What BDAT has brought of a message so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    None,
    Received {
        octets: u64,
    },
    /// A chunk was refused: all others are, until the transaction ends.
    Failed(Option<LocalFault>),
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    octets: u64,
    /// Of those, not received yet.
    missing: u64,
    last: bool,
}

/// What became of some input.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// Octets of the input that are done with.
    pub consumed: usize,
    /// What those octets were.
    pub octets: Octets,
    pub action: Action,
}

/// What consumed octets were, which decides what the driver does with the memory they stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Octets {
    /// A command, or nothing: the memory is free.
    Command,
    /// Message octets in wire form: to be kept, in order, until [`Action::Commit`].
    Message,
    /// Octets of a message that will be refused: they, and all of the message kept so far, are to be dropped.
    Dropped,
}

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Give more input: first what was not consumed, then what the client sends.
    Continue,
    /// Send the replies, then hand what the client sends to a TLS handshake.
    StartTls,
    /// The message is complete: make it durable, then call [`Session::handle_commit`].
    Commit { envelope: Envelope, encoding: BodyEncoding },
    /// Send the replies, then close.
    Close,
}

impl Session {
    /// A session in clear that has not greeted yet.
    pub fn new(settings: Arc<Settings>, client: IpAddr, now: Instant) -> Self {
        let deadline = now + settings.idle_timeout;
        Self {
            settings,
            client,
            state: State::ExpectCommand(None),
            greeted: false,
            secure: false,
            helo: None,
            line: Vec::new(),
            refused: 0,
            refused_messages: 0,
            deadline,
        }
    }

    /// Greets.
    pub fn open(&mut self, out: &mut Vec<u8>) {
        self.greeted = true;
        Reply::Greeting { hostname: &self.settings.hostname }.write_to(out);
    }

    /// Waits for TLS before the greeting (RFC 8314 section 3.3).
    pub fn open_tls(&mut self, now: Instant) {
        self.await_tls(now);
    }

    /// Whether input is of use now. While false, the driver leaves it in the socket.
    pub fn wants_input(&self) -> bool {
        !matches!(self.state, State::AwaitCommit { .. } | State::Closed { .. })
    }

    /// Whether the client is in the middle of something that a shutdown should let finish.
    pub fn is_in_transaction(&self) -> bool {
        !matches!(self.state, State::ExpectCommand(None) | State::ExpectTls | State::Closed { .. })
    }

    /// Whether a message is being received, also one that will be refused.
    pub fn is_receiving_message(&self) -> bool {
        matches!(self.state, State::ExpectData { .. } | State::ExpectChunk { .. })
            || self.keeps_chunks()
    }

    /// Whether the handshake is not through yet.
    pub fn is_awaiting_tls(&self) -> bool {
        matches!(self.state, State::ExpectTls)
    }

    /// Whether the client said QUIT: it will send nothing more and closes by itself.
    pub fn is_closed_by_client(&self) -> bool {
        matches!(self.state, State::Closed { by_client: true })
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Number of refused commands so far.
    pub fn refused_commands(&self) -> u32 {
        self.refused
    }

    /// Number of messages read to their end and refused so far.
    pub fn refused_messages(&self) -> u32 {
        self.refused_messages
    }

    /// Takes octets from the client. What is not consumed is to be presented again, with the action carried out before.
    pub fn handle_input(&mut self, input: &[u8], now: Instant, out: &mut Vec<u8>) -> Step {
        match &mut self.state {
            State::ExpectData { .. } => {
                self.deadline = now + self.settings.idle_timeout;
                self.handle_data(input, now, out)
            }
            State::ExpectChunk { .. } => {
                self.deadline = now + self.settings.idle_timeout;
                self.handle_chunk(input, now, out)
            }
            State::ExpectCommand(_) | State::ExpectLineEnd(_) => {
                self.deadline = now + self.settings.idle_timeout;
                self.handle_line_octets(input, now, out)
            }
            State::ExpectTls | State::AwaitCommit { .. } | State::Closed { .. } => {
                Step { consumed: 0, octets: Octets::Command, action: Action::Continue }
            }
        }
    }

    /// The message of [`Action::Commit`] is on its way to the spool under this id.
    pub fn message_submitted(&mut self, submitted: QueueId) {
        if let State::AwaitCommit { id } = &mut self.state {
            *id = Some(submitted);
        }
    }

    /// The spool's answer for the message `id`. An answer that comes after [`handle_timeout`](Self::handle_timeout) gave up
    /// on it is nobody's: the session may be waiting for its next message by then.
    pub fn handle_commit(
        &mut self,
        id: QueueId,
        outcome: Result<(), LocalFault>,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        if !matches!(self.state, State::AwaitCommit { id: Some(awaited) } if awaited == id) {
            return;
        }
        match outcome {
            Ok(()) => {
                Reply::Queued { id }.write_to(out);
                self.end_transaction(now);
            }
            Err(fault) => self.refuse_commit(fault, now, out),
        }
    }

    /// The message of [`Action::Commit`] is not taken.
    pub fn refuse_commit(&mut self, fault: LocalFault, now: Instant, out: &mut Vec<u8>) {
        if matches!(self.state, State::AwaitCommit { .. }) {
            self.refused_messages += 1;
            Reply::Refused(Refusal::Local(fault)).write_to(out);
            self.end_transaction(now);
        }
    }

    /// The handshake is through. Whatever was known from before is forgotten (RFC 3207 section 4.2).
    pub fn handle_tls_established(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.helo = None;
        self.secure = true;
        self.state = State::ExpectCommand(None);
        self.deadline = now + self.settings.idle_timeout;
        if !self.greeted {
            self.open(out);
        }
    }

    /// The driver has no memory for more of this message: the rest is read and dropped, and the client told to come again.
    pub fn refuse_message(&mut self, fault: LocalFault) {
        match &mut self.state {
            State::ExpectData { refusal, .. } => {
                refusal.get_or_insert(fault);
            }
            State::ExpectChunk { refusal, .. } => {
                refusal.get_or_insert(Refusal::Local(fault));
            }
            State::ExpectCommand(Some(transaction)) | State::ExpectLineEnd(Some(transaction)) => {
                transaction.chunks = Chunks::Failed(Some(fault));
            }
            _ => {}
        }
    }

    /// [`deadline`](Self::deadline) has passed.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Action {
        match self.state {
            State::AwaitCommit { .. } => {
                self.refuse_commit(LocalFault::CommitTimeout, now, out);
                Action::Continue
            }
            // In the middle of a handshake there is nobody to read a reply.
            State::ExpectTls | State::Closed { .. } => {
                self.state = State::Closed { by_client: false };
                Action::Close
            }
            _ => self.close(Closing::Timeout, out),
        }
    }

    /// Ends the connection from our side.
    pub fn close(&mut self, why: Closing, out: &mut Vec<u8>) -> Action {
        Reply::Closing { hostname: &self.settings.hostname, why }.write_to(out);
        self.state = State::Closed { by_client: false };
        Action::Close
    }

    fn end_transaction(&mut self, now: Instant) {
        self.state = State::ExpectCommand(None);
        self.deadline = now + self.settings.idle_timeout;
    }

    fn await_tls(&mut self, now: Instant) {
        self.state = State::ExpectTls;
        self.deadline = now + self.settings.tls_handshake_timeout;
    }

    fn handle_data(&mut self, input: &[u8], now: Instant, out: &mut Vec<u8>) -> Step {
        let State::ExpectData { scanner, refusal, .. } = &mut self.state else {
            return Step { consumed: 0, octets: Octets::Command, action: Action::Continue };
        };
        let scanned = scanner.scan(input);
        let refusal = refusal.map(Refusal::Local).or_else(|| scanner.fault().map(Refusal::Data));
        let octets = if refusal.is_some() { Octets::Dropped } else { Octets::Message };
        let action = match (scanned.complete, refusal) {
            (false, _) => Action::Continue,
            (true, Some(refusal)) => self.end_refused_message(refusal, out),
            (true, None) => self.end_message(now),
        };
        Step { consumed: scanned.consumed, octets, action }
    }

    fn end_message(&mut self, now: Instant) -> Action {
        match std::mem::replace(&mut self.state, State::ExpectCommand(None)) {
            State::ExpectData { transaction, .. } => {
                self.await_commit(transaction, BodyEncoding::DotStuffed, now)
            }
            _ => Action::Continue,
        }
    }

    fn await_commit(
        &mut self,
        transaction: Transaction,
        encoding: BodyEncoding,
        now: Instant,
    ) -> Action {
        self.state = State::AwaitCommit { id: None };
        self.deadline = now + self.settings.commit_timeout;
        Action::Commit { envelope: self.envelope(transaction), encoding }
    }

    /// The message was read to its end and is not taken. After a bare CR or LF the two sides may disagree on where messages
    /// end, so nothing more is read from this client.
    fn end_refused_message(&mut self, refusal: Refusal, out: &mut Vec<u8>) -> Action {
        self.state = State::ExpectCommand(None);
        Reply::Refused(refusal).write_to(out);
        self.refused_messages += 1;
        match refusal {
            Refusal::Data(DataFault::BareLf | DataFault::BareCr) => {
                self.state = State::Closed { by_client: false };
                Action::Close
            }
            _ => Action::Continue,
        }
    }

    fn envelope(&self, transaction: Transaction) -> Envelope {
        let extended = self.helo.as_ref().is_some_and(|helo| helo.extended);
        let protocol = match (extended, self.secure) {
            (_, true) => Protocol::Esmtps,
            (true, false) => Protocol::Esmtp,
            (false, false) => Protocol::Smtp,
        };
        Envelope {
            reverse_path: transaction.reverse_path,
            recipients: transaction.recipients,
            client: self.client,
            helo: self.helo.as_ref().map(|helo| helo.name.clone()).unwrap_or_default(),
            protocol,
            body: transaction.body,
        }
    }

    /// Takes one line without its CRLF; `behind` says whether octets are buffered after it.
    fn handle_line(
        &mut self,
        line: &[u8],
        behind: bool,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Action {
        if line.len() + CRLF_BYTES > self.settings.command_line_bytes_max {
            return self.refuse(Refusal::LineTooLong, out);
        }
        match Command::parse(line) {
            Ok(command) => self.handle_command(command, behind, now, out),
            Err(CommandError::ChunkSize) => self.close(Closing::BadChunkSize, out),
            Err(error) => self.refuse(Refusal::Command(error), out),
        }
    }

    fn accept(&self, reply: Reply<'_>, out: &mut Vec<u8>) -> Action {
        reply.write_to(out);
        Action::Continue
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<u8>) -> Action {
        Reply::Refused(refusal).write_to(out);
        self.refused += 1;
        if self.refused >= self.settings.errors_max {
            return self.close(Closing::TooManyErrors, out);
        }
        Action::Continue
    }
}
