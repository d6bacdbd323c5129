//! The state machine of one connection: its states and the contract with its driver.
//!
//! - `opening`: what comes before the first command: PROXY header, greet delay, greeting, TLS
//! - `lines`: command lines out of octets; `commands`: what each does
//! - `message`: DATA and the commit; `chunks`: BDAT
//! - `errors`: refused commands, and how many of them there may be
//! - `transcript`: the last things said

mod chunks;
mod commands;
mod errors;
mod lines;
mod message;
mod opening;
mod transcript;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use transcript::{Entry, Transcript};

use super::chunk::ChunkScanner;
use super::data::DataScanner;
use super::dialect::Dialect;
use super::envelope::Envelope;
use super::reply::{Closing, LocalFault, Refusal, Reply};
use crate::policy::{ClientNetworks, RecipientDomains, TargetExtensions};
use crate::spool::{BodyEncoding, QueueId};

/// The end of a line, which limits count and lines come without.
const CRLF_BYTES: usize = 2;

/// What all sessions of a listener have in common.
#[derive(Debug)]
pub struct Settings {
    pub hostname: Box<str>,
    pub dialect: Dialect,
    pub tls: Tls,
    pub domains: RecipientDomains,
    /// Which clients are treated in a way of their own.
    pub networks: ClientNetworks,
    /// What the delivery target keeps; only that is announced.
    pub target: TargetExtensions,
    /// Wait for the client's next octet (RFC 5321 4.5.3.2.7).
    pub idle_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    pub commit_timeout: Duration,
    /// Wait for the whole PROXY protocol header.
    pub proxy_header_timeout: Duration,
    /// Pause before the greeting, in which a client that talks is an early talker; zero is no pause.
    pub greet_delay: Duration,
    /// Octets of a command line with its CRLF.
    pub command_line_bytes_max: usize,
    pub message_bytes_max: u64,
    /// Octets of a line of message text with its CRLF.
    pub text_line_bytes_max: u64,
    pub recipients_max: usize,
    /// MAIL commands in one session before 421 (RFC 9422 MAILMAX).
    pub messages_max: u32,
    /// Refused commands before 421.
    pub errors_max: u32,
    /// Refused commands that are answered at once; later answers wait `error_delay`.
    pub errors_undelayed_max: u32,
    /// Zero is no delay.
    pub error_delay: Duration,
}

/// When a listener speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Off,
    /// STARTTLS is announced and taken (RFC 3207).
    StartTls,
    /// From the first octet (RFC 8314 section 3.3).
    Implicit,
}

/// One connection, from greeting to close. It does no I/O: the driver owns socket, TLS, buffers, clock and spool.
///
/// The driver calls, in this order:
///
/// 1. [`open`](Self::open) once;
/// 2. [`handle_input`](Self::handle_input) with what the client sent, as long as [`wants_input`](Self::wants_input), obeying
///    the [`Action`] that each call returns;
/// 3. after an [`Action::Commit`], [`message_submitted`](Self::message_submitted) and, when the spool has answered,
///    [`handle_commit`](Self::handle_commit), or [`refuse_commit`](Self::refuse_commit) where it could not be asked;
///    [`handle_tls_established`](Self::handle_tls_established) when the handshake after [`Action::StartTls`] is through;
///    [`admit`](Self::admit) or [`close`](Self::close) after [`Action::Admit`];
/// 4. [`handle_timeout`](Self::handle_timeout) when [`deadline`](Self::deadline) has passed.
///
/// Every call appends replies to `out`; they are to be sent before the returned action is carried out. After
/// [`Action::Close`] the session takes nothing more.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    client: Client,
    state: State,
    /// The time of the current call.
    now: Instant,
    greeted: bool,
    /// STARTTLS is not for this client, whatever the listener offers.
    starttls_withheld: bool,
    /// The driver can take no further handshake now.
    tls_busy: bool,
    /// TLS is active.
    secure: bool,
    helo: Option<Helo>,
    /// A PROXY header or command line of which the end has not come yet.
    line: Vec<u8>,
    /// An envelope whose memory the next transaction takes.
    spare: Option<Box<Envelope>>,
    /// MAIL commands so far.
    messages: u32,
    refused: u32,
    refused_messages: u32,
    deadline: Instant,
    closing: Option<Closing>,
    transcript: Transcript,
}

/// Who is at the other end, as far as it was told by those who may.
#[derive(Debug)]
struct Client {
    address: IpAddr,
    /// XCLIENT NAME.
    name: Option<Box<str>>,
    /// What the configuration says of the networks it is in.
    may_xclient: bool,
    is_sloppy: bool,
    is_undelayed: bool,
    takes_tickets: bool,
}

/// What the session waits for.
#[derive(Debug)]
enum State {
    ExpectProxyHeader,
    /// The driver, for the client that a PROXY header has named.
    AwaitAdmission,
    /// Nothing but time: the client must not talk before the greeting (RFC 5321 3.1).
    AwaitGreetDelay,
    /// The TLS handshake.
    ExpectTls,
    /// A command outside a transaction, or within one.
    ExpectCommand(Option<Transaction>),
    /// The end of a command line that was too long.
    ExpectLineEnd(Option<Transaction>),
    /// The time at which the refusal of a command is told, or that of a message, to LMTP once for each recipient.
    AwaitErrorDelay {
        transaction: Option<Transaction>,
        refusal: Refusal,
        replies: usize,
    },
    /// Message octets. With a refusal the rest of the message is read and dropped.
    ExpectData {
        transaction: Transaction,
        scanner: DataScanner,
        refusal: Option<LocalFault>,
    },
    /// The rest of a chunk (RFC 3030). With a refusal it is read and dropped. Without a transaction there always is one.
    ExpectChunk {
        transaction: Option<Transaction>,
        chunk: Chunk,
        refusal: Option<Refusal>,
    },
    /// The spool, for the message with this id once it has one.
    AwaitCommit {
        id: Option<QueueId>,
        replies: usize,
    },
    /// Nothing: the connection is to be closed.
    Closed,
}

#[derive(Debug)]
struct Helo {
    name: Box<str>,
    extended: bool,
}

/// One mail transaction (RFC 5321 3.3).
#[derive(Debug)]
struct Transaction {
    envelope: Box<Envelope>,
    chunks: Chunks,
}

/// What BDAT has brought of a message so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    None,
    Received {
        octets: u64,
        scanner: ChunkScanner,
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
    scanner: ChunkScanner,
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
#[must_use]
pub enum Action {
    /// Give more input: first what was not consumed, then what the client sends.
    Continue,
    /// A trusted peer says that the connection is this client's: [`Session::admit`] it, or [`Session::close`].
    Admit(IpAddr),
    /// Send the replies, then hand what the client sends to a TLS handshake.
    StartTls,
    /// The message is complete: make it durable, then call [`Session::handle_commit`].
    Commit { envelope: Box<Envelope>, encoding: BodyEncoding },
    /// Send the replies, then close.
    Close,
}

impl Session {
    /// A session with `client`, the peer of the connection, that has not [opened](Self::open) yet.
    pub fn new(settings: Arc<Settings>, client: IpAddr, now: Instant) -> Self {
        Self {
            client: Client::new(client, &settings.networks),
            state: State::ExpectCommand(None),
            now,
            greeted: false,
            starttls_withheld: false,
            tls_busy: false,
            secure: false,
            helo: None,
            line: Vec::new(),
            spare: None,
            messages: 0,
            refused: 0,
            refused_messages: 0,
            deadline: now + settings.idle_timeout,
            closing: None,
            transcript: Transcript::new(now),
            settings,
        }
    }

    /// Whether input is of use now. While false, the driver leaves it in the socket.
    pub fn wants_input(&self) -> bool {
        use State::{AwaitAdmission, AwaitCommit, AwaitErrorDelay, Closed};
        !matches!(self.state, AwaitAdmission | AwaitCommit { .. } | AwaitErrorDelay { .. } | Closed)
    }

    /// Whether the client is in the middle of something that a shutdown should let finish.
    pub fn is_in_transaction(&self) -> bool {
        match &self.state {
            State::ExpectCommand(transaction) | State::AwaitErrorDelay { transaction, .. } => {
                transaction.is_some()
            }
            State::ExpectLineEnd(_)
            | State::ExpectData { .. }
            | State::ExpectChunk { .. }
            | State::AwaitCommit { .. } => true,
            State::ExpectProxyHeader
            | State::AwaitAdmission
            | State::AwaitGreetDelay
            | State::ExpectTls
            | State::Closed => false,
        }
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

    /// The client: the peer of the connection, or who it stands for by PROXY header or XCLIENT.
    pub fn client(&self) -> IpAddr {
        self.client.address
    }

    /// The name given in EHLO, HELO or LHLO; forgotten with the handshake after STARTTLS.
    pub fn helo(&self) -> Option<&str> {
        self.helo.as_ref().map(|helo| &*helo.name)
    }

    /// Whether TLS is active and the client has not said who it is since: whatever it wanted, it was not mail.
    pub fn is_silent_under_tls(&self) -> bool {
        self.secure && self.helo.is_none()
    }

    /// Whether its TLS stack is known to live with session tickets.
    pub fn takes_tickets(&self) -> bool {
        self.client.takes_tickets
    }

    /// Whether TLS comes before the greeting here.
    pub fn is_tls_first(&self) -> bool {
        self.settings.tls == Tls::Implicit
    }

    /// Whether the client could go on under TLS now.
    pub fn is_starttls_on_offer(&self) -> bool {
        self.settings.tls == Tls::StartTls && !self.secure && !self.starttls_withheld
    }

    /// Whether STARTTLS is kept from this client, so that its mail comes in clear rather than not at all.
    pub fn withhold_starttls(&mut self, withheld: bool) {
        self.starttls_withheld = withheld;
    }

    /// Whether the driver can take no further handshake. To be said before what may begin one.
    pub fn note_tls_busy(&mut self, busy: bool) {
        self.tls_busy = busy;
    }

    /// Octets kept of a command line or PROXY header of which the end has not come: at most `command_line_bytes_max`, or
    /// [`HEADER_BYTES_MAX`](super::proxy::HEADER_BYTES_MAX).
    pub fn kept_octets(&self) -> usize {
        self.line.len()
    }

    /// Why the session ended; `None` also where the client said QUIT.
    pub fn closing(&self) -> Option<Closing> {
        self.closing
    }

    /// Whether the client said QUIT: it will send nothing more and closes by itself.
    pub fn is_closed_by_client(&self) -> bool {
        matches!(self.state, State::Closed) && self.closing.is_none()
    }

    /// The last things said.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The client's errors so far: commands refused, and messages refused for what they are.
    pub fn refused_commands(&self) -> u32 {
        self.refused
    }

    /// Number of messages read to their end and refused so far.
    pub fn refused_messages(&self) -> u32 {
        self.refused_messages
    }

    /// Takes octets from the client. What is not consumed is to be presented again, with the action carried out before.
    pub fn handle_input(&mut self, input: &[u8], now: Instant, out: &mut Vec<u8>) -> Step {
        self.now = now;
        match &self.state {
            State::ExpectProxyHeader => self.handle_proxy_header(input, out),
            State::AwaitGreetDelay => self.handle_early_talk(input, out),
            State::ExpectData { .. } => {
                self.deadline = now + self.settings.idle_timeout;
                self.handle_data(input, out)
            }
            State::ExpectChunk { .. } => {
                self.deadline = now + self.settings.idle_timeout;
                self.handle_chunk(input, out)
            }
            State::ExpectCommand(_) | State::ExpectLineEnd(_) => {
                self.deadline = now + self.settings.idle_timeout;
                self.handle_line_octets(input, out)
            }
            State::AwaitAdmission
            | State::ExpectTls
            | State::AwaitErrorDelay { .. }
            | State::AwaitCommit { .. }
            | State::Closed => Step::nothing(),
        }
    }

    /// [`deadline`](Self::deadline) has passed.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Action {
        self.now = now;
        match self.state {
            State::AwaitCommit { .. } => {
                self.refuse_commit(LocalFault::CommitTimeout, now, out);
                Action::Continue
            }
            State::AwaitGreetDelay => {
                self.greet(out);
                Action::Continue
            }
            State::AwaitErrorDelay { .. } => self.tell_delayed_refusal(out),
            State::ExpectProxyHeader => self.end(Closing::NoProxyHeader, out),
            // In the middle of a handshake there is nobody to read a reply.
            State::ExpectTls => {
                self.state = State::Closed;
                self.closing = Some(Closing::Timeout);
                Action::Close
            }
            _ => self.end(Closing::Timeout, out),
        }
    }

    /// Ends the connection from our side.
    pub fn close(&mut self, why: Closing, now: Instant, out: &mut Vec<u8>) -> Action {
        self.now = now;
        self.end(why, out)
    }

    fn end(&mut self, why: Closing, out: &mut Vec<u8>) -> Action {
        let settings = Arc::clone(&self.settings);
        // Before its handshake a TLS client understands no reply.
        if settings.tls != Tls::Implicit || self.secure {
            let _ = self.say(Reply::Closing { hostname: &settings.hostname, why }, out);
        }
        self.state = State::Closed;
        self.closing = Some(why);
        Action::Close
    }

    /// Writes a reply, and keeps its first line in the transcript.
    fn say(&mut self, reply: Reply<'_>, out: &mut Vec<u8>) -> Action {
        let start = out.len();
        reply.write_to(out);
        self.transcript.server(out.get(start..).unwrap_or_default(), self.now);
        Action::Continue
    }

    /// The same reply for each recipient of LMTP.
    fn say_times(&mut self, times: usize, reply: Reply<'_>, out: &mut Vec<u8>) -> Action {
        for _ in 0..times {
            let _ = self.say(reply, out);
        }
        Action::Continue
    }

    /// Ends the transaction, if there is one: what waits now is a command outside of any.
    fn reset(&mut self) {
        let state = std::mem::replace(&mut self.state, State::ExpectCommand(None));
        if let State::ExpectCommand(Some(transaction)) = state {
            self.recycle(transaction.envelope);
        }
    }

    /// Takes an envelope back: its memory serves the next transaction.
    pub fn recycle(&mut self, envelope: Box<Envelope>) {
        self.spare = Some(envelope);
    }
}

impl Step {
    /// Input that is not wanted now.
    fn nothing() -> Self {
        Self { consumed: 0, octets: Octets::Command, action: Action::Continue }
    }

    /// Input that was a command, or anything else but message.
    fn command(consumed: usize, action: Action) -> Self {
        Self { consumed, octets: Octets::Command, action }
    }
}

impl Client {
    fn new(address: IpAddr, networks: &ClientNetworks) -> Self {
        Self {
            address,
            name: None,
            may_xclient: networks.xclient.contains(address),
            is_sloppy: networks.normalize.contains(address),
            is_undelayed: networks.undelayed.contains(address),
            takes_tickets: !networks.without_tickets.contains(address),
        }
    }

    /// The connection is another client's. Who may tell so keeps that right; all else goes with the address.
    fn set_address(&mut self, address: IpAddr, networks: &ClientNetworks) {
        let may_xclient = self.may_xclient;
        *self = Self { may_xclient, ..Self::new(address, networks) };
    }
}
