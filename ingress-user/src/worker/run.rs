//! The loop of a worker.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::admission::Admission;
use super::buffers::BufferPool;
use super::clock::Now;
use super::connection::{Connection, Handshakes, Outcome, Scratch, Turn};
use super::cpu_clock::CpuClock;
use super::drain::{Drain, Ending};
use super::error_log::ErrorLog;
use super::mailbox::{Letter, Mailbox, MailboxSender};
use super::timers::TimerWheel;
use super::tls::TlsService;
use super::watch::WatchList;
use crate::bans;
use crate::metrics::{Metrics, WorkerMetrics};
use crate::smtp::Settings;
use crate::smtp::reply::Closing;
use crate::spool::SpoolHandle;
use crate::tls::journal::Reporter;

const WAKER: Token = Token(usize::MAX);

/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN_MAX: usize = 1024;

/// A listening socket of this worker and what its connections get.
pub struct Listening {
    pub socket: std::net::TcpListener,
    pub settings: Arc<Settings>,
    pub service: TlsService,
}

impl Listening {
    /// The same socket once more, which keeps it open.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (settings, service) = (Arc::clone(&self.settings), self.service.clone());
        Ok(Self { socket: self.socket.try_clone()?, settings, service })
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listening").field(&self.socket).finish()
    }
}

/// What a worker is made of.
pub struct WorkerParts {
    /// Position among the workers; the CPU is in `metrics`.
    pub index: usize,
    /// For `Received:`.
    pub hostname: Box<str>,
    pub listeners: Vec<Listening>,
    pub spool: SpoolHandle,
    pub admission: Arc<Admission>,
    pub watches: WatchList,
    pub journal: Reporter,
    pub bans: bans::Reporter,
    pub metrics: Arc<Metrics>,
    pub accept_burst_max: usize,
    pub buffers_max: usize,
    pub handshakes_max: usize,
    pub commits_in_flight_max: usize,
}

/// A worker's poll and mailbox, made before the parts that need to write to it.
pub struct PreparedWorker {
    poll: Poll,
    mailbox: Mailbox,
    sender: MailboxSender,
}

impl PreparedWorker {
    pub fn new(commits_in_flight_max: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (sender, mailbox) = MailboxSender::new(waker, commits_in_flight_max);
        Ok(Self { poll, mailbox, sender })
    }

    pub fn mailbox(&self) -> MailboxSender {
        self.sender.clone()
    }

    /// Starts the thread. It ends after [`MailboxSender::drain`].
    pub fn start(self, parts: WorkerParts) -> io::Result<WorkerThread> {
        let mut worker = Worker::new(self, parts)?;
        let (tell, told) = mpsc::sync_channel(1);
        let name = format!("worker-{}", worker.index);
        let handle = thread::Builder::new().name(name).spawn(move || {
            // There is room for it, and somebody waits.
            let _ = tell.send(CpuClock::of_this_thread());
            let cpu = worker.metrics().cpu;
            if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
                tracing::warn!(cpu, "cannot pin the worker to its CPU; steering will not be local");
            }
            if let Err(error) = worker.run() {
                tracing::error!(cpu, %error, "the worker's event loop failed");
            }
        })?;
        let clock = told.recv().map_err(io::Error::other)?;
        Ok(WorkerThread { handle, clock })
    }
}

/// The thread of a worker that was started.
#[derive(Debug)]
pub struct WorkerThread {
    pub handle: JoinHandle<()>,
    /// Its CPU time; an error where procfs is missing.
    pub clock: io::Result<CpuClock>,
}

/// The thread's state. What it does with new connections is in `accept`, with complete messages in `commit`.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) hostname: Box<str>,
    pub(super) poll: Poll,
    pub(super) mailbox: Mailbox,
    pub(super) listeners: Vec<Listener>,
    pub(super) connections: Slab<Entry>,
    pub(super) next_generation: u32,
    pub(super) timers: TimerWheel,
    /// Connections that have more to do.
    pub(super) again: VecDeque<u64>,
    /// Connections that wait for a receive buffer.
    pub(super) starved: VecDeque<u64>,
    pub(super) shared: Shared,
    pub(super) spool: SpoolHandle,
    pub(super) accept_burst_max: usize,
    pub(super) commits_in_flight: usize,
    pub(super) commits_in_flight_max: usize,
    pub(super) last_id_micros: u64,
    /// Set when the worker is to end.
    pub(super) drain: Option<Drain>,
}

pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) settings: Arc<Settings>,
    /// The kernel may have connections waiting.
    pub(super) acceptable: bool,
}

pub(super) struct Entry {
    pub(super) generation: u32,
    pub(super) connection: Connection,
    /// It stands in `again` or `starved`, once.
    pub(super) queued: bool,
}

/// What connections use while they have their turn.
pub(super) struct Shared {
    pub(super) index: usize,
    pub(super) pool: BufferPool,
    pub(super) scratch: Scratch,
    /// Of each listener, by its number.
    pub(super) services: Vec<TlsService>,
    pub(super) admission: Arc<Admission>,
    pub(super) watches: WatchList,
    pub(super) errors: ErrorLog,
    pub(super) journal: Reporter,
    pub(super) bans: bans::Reporter,
    pub(super) handshakes: Handshakes,
    pub(super) metrics: Arc<Metrics>,
}

impl Shared {
    pub(super) fn turn(&mut self, now: Now) -> Turn<'_> {
        Turn {
            now,
            pool: &mut self.pool,
            scratch: &mut self.scratch,
            services: &self.services,
            admission: &self.admission,
            watches: &self.watches,
            errors: &mut self.errors,
            journal: &self.journal,
            bans: &self.bans,
            handshakes: &mut self.handshakes,
            metrics: &self.metrics.workers[self.index],
        }
    }
}

impl Worker {
    fn new(prepared: PreparedWorker, parts: WorkerParts) -> io::Result<Self> {
        let now = Now::read().monotonic;
        let mut worker = Self {
            index: parts.index,
            hostname: parts.hostname,
            poll: prepared.poll,
            mailbox: prepared.mailbox,
            listeners: Vec::with_capacity(parts.listeners.len()),
            connections: Slab::new(),
            next_generation: 1,
            timers: TimerWheel::new(now),
            again: VecDeque::new(),
            starved: VecDeque::new(),
            shared: Shared {
                index: parts.index,
                pool: BufferPool::new(parts.buffers_max, now),
                scratch: Scratch::default(),
                services: Vec::with_capacity(parts.listeners.len()),
                admission: parts.admission,
                watches: parts.watches,
                errors: ErrorLog::default(),
                journal: parts.journal,
                bans: parts.bans,
                handshakes: Handshakes { in_flight: 0, max: parts.handshakes_max },
                metrics: parts.metrics,
            },
            spool: parts.spool,
            accept_burst_max: parts.accept_burst_max,
            commits_in_flight: 0,
            commits_in_flight_max: parts.commits_in_flight_max,
            last_id_micros: 0,
            drain: None,
        };
        parts.listeners.into_iter().try_for_each(|listening| worker.serve(listening))?;
        Ok(worker)
    }

    /// Accepts from this socket from now on.
    fn serve(&mut self, listening: Listening) -> io::Result<()> {
        let Listening { socket, settings, service } = listening;
        let mut socket = TcpListener::from_std(socket);
        let token = Token(self.listeners.len());
        self.poll.registry().register(&mut socket, token, Interest::READABLE)?;
        self.listeners.push(Listener { socket, settings, acceptable: true });
        self.shared.services.push(service);
        Ok(())
    }

    /// Serves a listener of a worker that has died, unless it is about to end itself.
    fn adopt(&mut self, listening: Listening) {
        if self.drain.is_none()
            && let Err(error) = self.serve(listening)
        {
            tracing::error!(%error, "cannot serve the listener of a worker that has died");
        }
    }

    pub(super) fn metrics(&self) -> &WorkerMetrics {
        &self.shared.metrics.workers[self.index]
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN_MAX);
        let mut due = Vec::new();
        let mut now = Now::read();
        while !self.is_drained(now) {
            match self.poll.poll(&mut events, self.wait(now)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            now = Now::read();
            self.open_mailbox(now);
            for event in &events {
                self.handle_event(event, now);
            }
            self.accept_all(now);
            self.go_on(now);
            self.go_on_draining(now);
            self.timers.expire(now.monotonic, &mut due);
            for (key, tick) in due.drain(..) {
                self.fire(key, tick, now);
            }
            self.shared.pool.trim(now.monotonic);
            self.metrics().buffers_lent.set(self.shared.pool.lent() as u64);
        }
        Ok(())
    }

    /// How long the poll may block: not at all while anything is left to do.
    fn wait(&self, now: Now) -> Option<Duration> {
        let busy = !self.again.is_empty() || self.listeners.iter().any(|l| l.acceptable);
        if busy {
            return Some(Duration::ZERO);
        }
        let until = |at: Instant| at.saturating_duration_since(now.monotonic);
        let trim = self.shared.pool.wants_trim_at().map(until);
        let drain = self.drain.map(|drain| until(drain.wakes_at()));
        [self.timers.wait(now.monotonic), trim, drain].into_iter().flatten().min()
    }

    fn open_mailbox(&mut self, now: Now) {
        while let Ok(letter) = self.mailbox.try_recv() {
            match letter {
                Letter::Committed(completion) => self.handle_completion(completion, now),
                Letter::Drain(ending) => self.begin_drain(ending, now),
                Letter::Adopt(listening) => self.adopt(*listening),
                #[cfg(test)]
                Letter::Die => panic!("killed by a test"),
            }
        }
    }

    fn handle_event(&mut self, event: &Event, now: Now) {
        if event.token() == WAKER {
            return;
        }
        if let Some(listener) = self.listeners.get_mut(event.token().0) {
            listener.acceptable = true;
            return;
        }
        let key = event.token().0 as u64;
        if let Some(connection) = self.connection_mut(key) {
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                connection.note_readable(event.is_read_closed() || event.is_error());
            }
            self.drive(key, now);
        }
    }

    /// Serves what gave way in the last turn, and who waited for a buffer as far as there are any.
    fn go_on(&mut self, now: Now) {
        for _ in 0..self.again.len() {
            if let Some(key) = self.again.pop_front() {
                self.drive_queued(key, now);
            }
        }
        for _ in 0..self.shared.pool.available().min(self.starved.len()) {
            if let Some(key) = self.starved.pop_front() {
                self.drive_queued(key, now);
            }
        }
    }

    pub(super) fn drive(&mut self, key: u64, now: Now) {
        self.with_connection(key, now, Connection::drive);
    }

    fn drive_queued(&mut self, key: u64, now: Now) {
        if let Some(entry) = entry_mut(&mut self.connections, key) {
            entry.queued = false;
            self.drive(key, now);
        }
    }

    /// Lets a connection act, and does what it asks for.
    pub(super) fn with_connection(
        &mut self,
        key: u64,
        now: Now,
        act: impl FnOnce(&mut Connection, &mut Turn<'_>) -> Outcome,
    ) {
        let Some(entry) = entry_mut(&mut self.connections, key) else { return };
        let mut outcome = act(&mut entry.connection, &mut self.shared.turn(now));
        while let Outcome::Submit { envelope, encoding, body } = outcome {
            let submitted = self.submit(key, envelope, encoding, body, now);
            let Some(entry) = entry_mut(&mut self.connections, key) else { return };
            outcome = match submitted {
                Ok(id) => {
                    entry.connection.submitted(id);
                    Outcome::Wait
                }
                Err(fault) => entry.connection.refuse_commit(fault, &mut self.shared.turn(now)),
            };
        }
        let queue = match outcome {
            Outcome::Again => Some(&mut self.again),
            Outcome::AwaitBuffer => Some(&mut self.starved),
            Outcome::Closed => return self.remove(key),
            Outcome::Wait | Outcome::Submit { .. } => None,
        };
        if let Some(queue) = queue
            && let Some(entry) = entry_mut(&mut self.connections, key)
            && !std::mem::replace(&mut entry.queued, true)
        {
            queue.push_back(key);
        }
        self.settle(key, now);
    }

    /// Brings poll and timers in line with what the connection waits for.
    fn settle(&mut self, key: u64, now: Now) {
        let sends_away = self.drain.is_some_and(|drain| drain.sends_away(now.monotonic));
        let Some(entry) = entry_mut(&mut self.connections, key) else { return };
        let connection = &mut entry.connection;
        if sends_away && connection.is_idle() {
            return self.with_connection(key, now, |connection, turn| {
                connection.turn_away(Closing::ShuttingDown, turn)
            });
        }
        let wanted = connection.wanted_interest();
        if wanted != connection.interest {
            connection.interest = wanted;
            let socket = connection.socket_mut();
            if let Err(error) = self.poll.registry().reregister(socket, Token(key as usize), wanted)
            {
                tracing::error!(%error, "cannot watch a connection");
                return self.remove(key);
            }
        }
        let tick = self.timers.tick_of(connection.deadline());
        if connection.timer.is_none_or(|scheduled| scheduled > tick) {
            connection.timer = Some(self.timers.schedule(key, connection.deadline()));
        }
    }

    /// A timer entry fired: of a listener that rested, or of a connection.
    fn fire(&mut self, key: u64, tick: super::timers::Tick, now: Now) {
        if let Some(listener) = self.listeners.get_mut(key as usize) {
            listener.acceptable = true;
            return;
        }
        let Some(connection) = self.connection_mut(key) else { return };
        if connection.timer != Some(tick) {
            return;
        }
        connection.timer = None;
        if connection.deadline() <= now.monotonic {
            self.with_connection(key, now, Connection::timeout);
        } else {
            self.settle(key, now);
        }
    }

    /// Closes the listeners, and every connection as soon as it is not in the middle of a message.
    fn begin_drain(&mut self, ending: Ending, now: Now) {
        if self.drain.is_some() {
            return;
        }
        self.drain = Some(Drain::begin(ending, now.monotonic));
        // Closed at once: who comes now is refused and tries the next host, and does not wait here for nothing. Where a successor
        // has the same sockets they stay open, and the poll would go on to tell of them.
        for mut listener in self.listeners.drain(..) {
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
    }

    /// Sends away who is outside a transaction, when it is time.
    fn go_on_draining(&mut self, now: Now) {
        let is_time = |drain: &mut Drain| drain.take_turn_to_send_away(now.monotonic);
        if !self.drain.as_mut().is_some_and(is_time) {
            return;
        }
        let keys: Vec<u64> =
            self.connections.iter().map(|(index, entry)| key_of(entry.generation, index)).collect();
        for key in keys {
            self.settle(key, now);
        }
    }

    fn is_drained(&self, now: Now) -> bool {
        self.drain.is_some_and(|drain| {
            (self.connections.is_empty() && self.commits_in_flight == 0)
                || drain.is_over(now.monotonic)
        })
    }

    fn connection_mut(&mut self, key: u64) -> Option<&mut Connection> {
        entry_mut(&mut self.connections, key).map(|entry| &mut entry.connection)
    }

    pub(super) fn remove(&mut self, key: u64) {
        if entry_mut(&mut self.connections, key).is_none() {
            return;
        }
        let mut entry = self.connections.remove(index_of(key));
        entry.connection.tell_further_messages(&self.shared.journal);
        entry.connection.release(&mut self.shared.pool, &mut self.shared.handshakes);
        self.shared.admission.leave();
        if let Some(client) = entry.connection.counted_as() {
            self.shared.admission.leave_client(client);
        }
        self.metrics().connections_open.subtract(1);
    }
}

impl Drop for Worker {
    /// Whatever ended it, its connections give their places back.
    fn drop(&mut self) {
        let keys: Vec<u64> =
            self.connections.iter().map(|(index, entry)| key_of(entry.generation, index)).collect();
        for key in keys {
            self.remove(key);
        }
    }
}

/// Keys of connections have a generation of at least 1 in the upper half, so they are no listener numbers, and a key that
/// outlives its connection finds nothing.
pub(super) fn key_of(generation: u32, index: usize) -> u64 {
    u64::from(generation) << 32 | index as u64
}

fn index_of(key: u64) -> usize {
    (key & u64::from(u32::MAX)) as usize
}

fn entry_mut(connections: &mut Slab<Entry>, key: u64) -> Option<&mut Entry> {
    connections.get_mut(index_of(key)).filter(|entry| u64::from(entry.generation) == key >> 32)
}
