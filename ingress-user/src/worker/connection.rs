//! One client connection: socket, TLS, received octets and replies around a [`Session`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::time::Instant;

use mio::Interest;
use mio::net::TcpStream;

use super::admission::Admission;
use super::buffers::{BufferPool, Chunk};
use super::clock::Now;
use super::closing::Phase;
use super::error_log::ErrorLog;
use super::observed::Mail;
use super::timers::Tick;
use super::tls::{TlsEvent, TlsService, TlsStream};
use super::watch::WatchList;
use super::window::{Framing, Space, Window};
use crate::bans;
use crate::metrics::WorkerMetrics;
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::{Closing, LocalFault};
use crate::smtp::{Action, Octets, Session};
use crate::spool::{BodyEncoding, QueueId};
use crate::tls::journal::Reporter;
use crate::tls::verdict::Ending;

/// Receives for one connection before others have their turn.
pub(super) const RECEIVES_PER_TURN_MAX: usize = 16;

/// Replies beyond this wait until the client has taken them; nothing more is read from it meanwhile.
const OUTPUT_BYTES_PAUSE: usize = 16 * 1024;

/// What a connection uses of its worker during a turn of the loop.
pub(super) struct Turn<'w> {
    pub(super) now: Now,
    pub(super) pool: &'w mut BufferPool,
    pub(super) scratch: &'w mut Scratch,
    pub(super) services: &'w [TlsService],
    pub(super) admission: &'w Admission,
    pub(super) watches: &'w WatchList,
    pub(super) errors: &'w mut ErrorLog,
    pub(super) journal: &'w Reporter,
    pub(super) bans: &'w bans::Reporter,
    pub(super) handshakes: &'w mut Handshakes,
    pub(super) metrics: &'w WorkerMetrics,
}

/// Handshakes of a worker's connections that are not through yet.
#[derive(Debug)]
pub(super) struct Handshakes {
    pub(super) in_flight: usize,
    pub(super) max: usize,
}

/// Memory that connections share, because each uses it only while it has its turn.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Replies before encryption.
    replies: Vec<u8>,
    /// Octets for the socket.
    output: Vec<u8>,
}

/// Why a connection gave up its turn.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Until the socket is ready, the spool has answered or the deadline has passed.
    Wait,
    /// It has more to do and let others go first.
    Again,
    /// It needs a receive buffer and there is none.
    AwaitBuffer,
    /// A message is complete; [`Connection::commit`] is awaited.
    Submit { envelope: Box<Envelope>, encoding: BodyEncoding, body: Vec<Chunk> },
    /// It is over: drop it.
    Closed,
}

pub(super) struct Connection {
    pub(super) socket: TcpStream,
    /// Whose place the connection takes; `None` where a balancer has not said it.
    counted_as: Option<IpAddr>,
    /// No balancer conveys the client.
    pub(super) direct: bool,
    /// Anything came.
    pub(super) heard: bool,
    pub(super) session: Session,
    /// The listener it came in by.
    listener: u16,
    /// Boxed: most connections never have one.
    pub(super) tls: Option<Box<TlsStream>>,
    pub(super) window: Window,
    /// Octets the socket has not taken yet; without memory of its own while empty.
    pub(super) output: Vec<u8>,
    pub(super) phase: Phase,
    /// The socket may have something, as far as edge-triggered events and short reads tell.
    pub(super) readable: bool,
    /// The client will send nothing more.
    read_closed: bool,
    /// Refused commands and messages that the metrics already have.
    pub(super) refusals_counted: (u32, u32),
    /// Entries of the transcript that live traces have seen.
    pub(super) told: u64,
    /// Messages taken, for the journal of handshakes.
    pub(super) mail: Mail,
    /// Its handshake is among those of [`Handshakes`].
    pub(super) in_handshake: bool,
    /// What the poll is registered for.
    pub(super) interest: Interest,
    /// The timer entry that counts; others of this connection are stale.
    pub(super) timer: Option<Tick>,
}

impl Handshakes {
    pub(super) fn is_full(&self) -> bool {
        self.in_flight >= self.max
    }
}

/// What the octets at hand led to.
enum Processed {
    NeedInput,
    Paused,
    Submit { envelope: Box<Envelope>, encoding: BodyEncoding },
    Close,
}

impl Connection {
    /// Greets, or waits for what comes first. `client` is counted already.
    pub(super) fn new(
        socket: TcpStream,
        listener: u16,
        client: Option<IpAddr>,
        session: Session,
        turn: &mut Turn<'_>,
    ) -> Self {
        let mut connection = Self {
            socket,
            counted_as: client,
            direct: client.is_some(),
            heard: false,
            session,
            listener,
            tls: None,
            window: Window::default(),
            output: std::mem::take(&mut turn.scratch.output),
            phase: Phase::Serving,
            readable: false,
            read_closed: false,
            refusals_counted: (0, 0),
            told: 0,
            mail: Mail::default(),
            in_handshake: false,
            interest: Interest::READABLE,
            timer: None,
        };
        connection.prepare_for_tls(turn);
        match connection.session.open(turn.now.monotonic, &mut connection.output) {
            Action::StartTls => connection.start_tls(turn),
            Action::Close => {
                let _ = connection.begin_close(turn);
            }
            _ => {}
        }
        connection
    }

    /// Whose place among the connections is to be given back.
    pub(super) fn counted_as(&self) -> Option<IpAddr> {
        self.counted_as
    }

    pub(super) fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The poll said the socket is readable; `closed` when the client has shut its side.
    pub(super) fn note_readable(&mut self, closed: bool) {
        self.readable = true;
        self.read_closed |= closed;
    }

    /// When [`timeout`](Self::timeout) is to be called.
    pub(super) fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Serving => self.session.deadline(),
            Phase::Flushing { until } | Phase::Lingering { until } => until,
        }
    }

    /// What the poll should tell: writable only matters while output waits.
    pub(super) fn wanted_interest(&self) -> Interest {
        if self.output.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        }
    }

    /// Whether a shutdown may end this connection now.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Serving && !self.session.is_in_transaction()
    }

    /// Goes on as far as possible without waiting.
    pub(super) fn drive(&mut self, turn: &mut Turn<'_>) -> Outcome {
        self.borrow_output(turn);
        let outcome = match self.phase {
            Phase::Serving => self.serve(turn),
            Phase::Flushing { .. } => self.finish(turn),
            Phase::Lingering { .. } => self.linger(turn),
        };
        self.count_refusals(turn);
        self.tell_watchers(turn);
        self.window.settle(turn.pool);
        self.return_output(turn);
        outcome
    }

    /// The message is on its way to the spool.
    pub(super) fn submitted(&mut self, id: QueueId) {
        self.session.message_submitted(id);
    }

    /// The spool has answered for the message `id`.
    pub(super) fn commit(
        &mut self,
        id: QueueId,
        outcome: Result<(), LocalFault>,
        turn: &mut Turn<'_>,
    ) -> Outcome {
        self.borrow_output(turn);
        let now = turn.now.monotonic;
        if outcome.is_ok() {
            self.note_message(turn);
        }
        self.say(turn, |session, out| session.handle_commit(id, outcome, now, out));
        self.drive(turn)
    }

    /// The spool could not be asked.
    pub(super) fn refuse_commit(&mut self, fault: LocalFault, turn: &mut Turn<'_>) -> Outcome {
        self.borrow_output(turn);
        let now = turn.now.monotonic;
        self.say(turn, |session, out| session.refuse_commit(fault, now, out));
        self.drive(turn)
    }

    /// The deadline has passed.
    pub(super) fn timeout(&mut self, turn: &mut Turn<'_>) -> Outcome {
        if self.phase != Phase::Serving {
            return Outcome::Closed;
        }
        self.borrow_output(turn);
        if self.tls.as_ref().is_some_and(|tls| !tls.is_established()) {
            self.handshake_failed(Ending::TimedOut, turn);
        } else {
            self.note_silence_under_tls(Ending::TimedOut, turn);
        }
        let now = turn.now.monotonic;
        match self.say(turn, |session, out| session.handle_timeout(now, out)) {
            Action::Close => self.begin_close(turn),
            _ => self.drive(turn),
        }
    }

    /// We end the connection, with a last word.
    pub(super) fn turn_away(&mut self, why: Closing, turn: &mut Turn<'_>) -> Outcome {
        if self.phase != Phase::Serving {
            return Outcome::Wait;
        }
        self.borrow_output(turn);
        if self.tls.as_ref().is_none_or(|tls| tls.is_established()) {
            let now = turn.now.monotonic;
            let _ = self.say(turn, |session, out| session.close(why, now, out));
        }
        self.begin_close(turn)
    }

    /// Gives everything back. The connection is to be dropped next.
    pub(super) fn release(&mut self, pool: &mut BufferPool, handshakes: &mut Handshakes) {
        self.window.close(pool);
        self.end_handshake(handshakes);
    }

    /// The handshake is through, or will never be.
    pub(super) fn end_handshake(&mut self, handshakes: &mut Handshakes) {
        if std::mem::take(&mut self.in_handshake) {
            handshakes.in_flight -= 1;
        }
    }

    fn serve(&mut self, turn: &mut Turn<'_>) -> Outcome {
        for _ in 0..RECEIVES_PER_TURN_MAX {
            let processed = self.process(turn);
            if let Processed::Close = processed {
                return self.begin_close(turn);
            }
            if self.flush().is_err() {
                // A client that has reset the connection.
                return self.client_closed(turn);
            }
            match processed {
                Processed::Submit { envelope, encoding } => {
                    return self.submit(envelope, encoding, turn);
                }
                Processed::Paused if self.output.is_empty() => continue,
                _ if !self.output.is_empty() || !self.session.wants_input() => {
                    return Outcome::Wait;
                }
                _ if !self.readable => return Outcome::Wait,
                _ => {}
            }
            if let Some(outcome) = self.receive(turn) {
                return outcome;
            }
        }
        Outcome::Again
    }

    /// Hands the message over. Without a buffer for what stands behind it, the client is told to come again.
    fn submit(
        &mut self,
        envelope: Box<Envelope>,
        encoding: BodyEncoding,
        turn: &mut Turn<'_>,
    ) -> Outcome {
        match self.window.take_message(turn.pool) {
            Some(body) => Outcome::Submit { envelope, encoding, body },
            None => {
                self.window.drop_message(turn.pool);
                self.refuse_commit(LocalFault::NoBuffers, turn)
            }
        }
    }

    /// Feeds what has been received to TLS and the session.
    fn process(&mut self, turn: &mut Turn<'_>) -> Processed {
        loop {
            match self.process_plain(turn) {
                Processed::NeedInput => {}
                other => return other,
            }
            if self.tls.is_none() {
                return Processed::NeedInput;
            }
            match self.process_sealed(turn) {
                Some(processed) => return processed,
                None => continue,
            }
        }
    }

    fn process_plain(&mut self, turn: &mut Turn<'_>) -> Processed {
        let now = turn.now.monotonic;
        let processed = loop {
            self.prepare_for_tls(turn);
            let input = self.window.plain();
            if input.is_empty() || !self.session.wants_input() {
                break Processed::NeedInput;
            }
            let replies =
                if self.tls.is_some() { &mut turn.scratch.replies } else { &mut self.output };
            if replies.len() > OUTPUT_BYTES_PAUSE {
                break Processed::Paused;
            }
            let step = self.session.handle_input(input, now, replies);
            match step.octets {
                Octets::Command => self.window.consume(step.consumed),
                Octets::Message => self.window.keep(step.consumed),
                Octets::Dropped => {
                    self.window.consume(step.consumed);
                    self.window.drop_message(turn.pool);
                }
            }
            let action = match step.action {
                Action::Admit(client) => self.admit(client, turn),
                action => action,
            };
            self.tell_watchers(turn);
            match action {
                Action::Continue if step.consumed == 0 => break Processed::NeedInput,
                // Admitted above.
                Action::Continue | Action::Admit(_) => {}
                Action::StartTls => {
                    self.start_tls(turn);
                    break Processed::NeedInput;
                }
                Action::Commit { envelope, encoding } => {
                    break Processed::Submit { envelope, encoding };
                }
                Action::Close => break Processed::Close,
            }
        };
        if self.encrypt_replies(turn).is_err() { Processed::Close } else { processed }
    }

    /// The client that a PROXY header names, which has to find a place as any other does.
    fn admit(&mut self, client: IpAddr, turn: &mut Turn<'_>) -> Action {
        let now = turn.now.monotonic;
        let admitted = match turn.bans.is_banned(client, turn.now) {
            true => Err(Closing::Banned),
            false => turn.admission.enter_client(client),
        };
        match admitted {
            Ok(()) => {
                self.counted_as = Some(client);
                self.session.admit(client, now, &mut self.output)
            }
            Err(why) => {
                turn.metrics.connections_refused.increment();
                self.session.close(why, now, &mut self.output)
            }
        }
    }

    /// What has been received and not used is TLS, and so is all that comes.
    fn start_tls(&mut self, turn: &mut Turn<'_>) {
        let Some(service) = turn.services.get(usize::from(self.listener)) else { return };
        turn.handshakes.in_flight += 1;
        self.in_handshake = true;
        self.tls = Some(Box::new(TlsStream::accept(service, self.session.takes_tickets())));
        self.window.seal();
    }

    /// Opens the next record. `None`: there may be plain octets now, or another record.
    fn process_sealed(&mut self, turn: &mut Turn<'_>) -> Option<Processed> {
        if !self.session.wants_input() && self.tls.as_ref().is_some_and(|tls| tls.is_established())
        {
            return Some(Processed::NeedInput);
        }
        let tls = self.tls.as_mut()?;
        let advance = match tls.advance(self.window.sealed_mut(), &mut self.output) {
            Ok(advance) => advance,
            Err(failure) => {
                self.tls_broke(&failure, turn);
                return Some(Processed::Close);
            }
        };
        match advance.event {
            TlsEvent::Plaintext(plain) => {
                if !plain.is_empty() {
                    tls.forget_handshake();
                }
                self.window.unsealed(advance.used, plain);
                None
            }
            TlsEvent::Established(established) => {
                self.window.unsealed(advance.used, 0..0);
                self.note_established(established, turn);
                let now = turn.now.monotonic;
                self.say(turn, |session, out| session.handle_tls_established(now, out));
                None
            }
            TlsEvent::NeedInput => {
                self.window.unsealed(advance.used, 0..0);
                Some(Processed::NeedInput)
            }
            TlsEvent::PeerClosed => {
                self.note_silence_under_tls(Ending::ClosedByClient, turn);
                Some(Processed::Close)
            }
        }
    }

    /// Takes octets off the socket once. `None`: something came.
    fn receive(&mut self, turn: &mut Turn<'_>) -> Option<Outcome> {
        let framing = self.framing();
        match self.window.make_space(framing, turn.pool) {
            Space::Free => {}
            Space::NoBuffer => return Some(Outcome::AwaitBuffer),
            Space::Stuck => return Some(self.stuck(framing, turn)),
        }
        let space = self.window.space(framing);
        let asked = space.len();
        match self.socket.read(space) {
            Ok(0) => Some(self.client_closed(turn)),
            Ok(count) => {
                self.heard = true;
                // Short: the socket is drained, and the next octet raises an edge. A close that has been announced
                // raises none.
                self.readable = count == asked || self.read_closed;
                self.window.received(count, framing);
                None
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Some(Outcome::Wait)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => None,
            Err(_reset) => Some(self.client_closed(turn)),
        }
    }

    /// The buffer is full of something that cannot be used. In a message it means that the pool had no second buffer: the
    /// message is given up, which frees this one. Else it is a TLS message longer than any real one.
    fn stuck(&mut self, framing: Framing, turn: &mut Turn<'_>) -> Outcome {
        if self.session.is_receiving_message() && framing != Framing::Handshake {
            self.session.refuse_message(LocalFault::NoBuffers);
            self.window.drop_message(turn.pool);
            return Outcome::Again;
        }
        if self.session.is_awaiting_tls() {
            self.handshake_failed(Ending::WeRefused, turn);
        }
        self.begin_close(turn)
    }

    fn client_closed(&mut self, turn: &mut Turn<'_>) -> Outcome {
        self.note_silence(turn);
        if self.session.is_awaiting_tls() {
            self.handshake_failed(Ending::ClosedByClient, turn);
        } else if self.phase == Phase::Serving && self.session.is_in_transaction() {
            self.log_end("lost_connection", turn);
        } else if self.phase == Phase::Serving {
            self.note_silence_under_tls(Ending::ClosedByClient, turn);
        }
        Outcome::Closed
    }

    fn framing(&self) -> Framing {
        match &self.tls {
            None => Framing::Clear,
            Some(tls) if tls.is_established() => Framing::Records,
            Some(_) => Framing::Handshake,
        }
    }

    /// Lets the session speak, in clear or through TLS.
    fn say<T>(
        &mut self,
        turn: &mut Turn<'_>,
        speak: impl FnOnce(&mut Session, &mut Vec<u8>) -> T,
    ) -> T {
        if self.tls.is_none() {
            return speak(&mut self.session, &mut self.output);
        }
        let said = speak(&mut self.session, &mut turn.scratch.replies);
        // Without TLS traffic there is nobody to hear it; the caller closes.
        let _ = self.encrypt_replies(turn);
        said
    }

    fn encrypt_replies(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        let replies = &mut turn.scratch.replies;
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if replies.is_empty() {
            return Ok(());
        }
        let encrypted = tls.encrypt(replies, &mut self.output);
        replies.clear();
        encrypted.map_err(io::Error::other)
    }

    /// Sends what the socket takes. An error means the connection is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while let Some(rest) = self.output.get(sent..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..sent);
        Ok(())
    }

    fn borrow_output(&mut self, turn: &mut Turn<'_>) {
        if self.output.capacity() == 0 {
            self.output = std::mem::take(&mut turn.scratch.output);
        }
    }

    fn return_output(&mut self, turn: &mut Turn<'_>) {
        if self.output.is_empty() {
            turn.scratch.output = std::mem::take(&mut self.output);
        }
    }
}
