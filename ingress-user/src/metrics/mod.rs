//! Every counter of the daemon. Counters are written by their owner without locks and read by the control plane.

pub mod names;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::smtp::reply::Closing;
use crate::worker::tls::TlsBreak;

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of one daemon, shared by everybody who counts.
#[derive(Debug)]
pub struct Metrics {
    pub workers: Box<[WorkerMetrics]>,
    pub spool: SpoolMetrics,
    pub delivery: DeliveryMetrics,
}

impl Metrics {
    /// `cpus`: the CPU of each worker.
    pub fn new(cpus: &[usize]) -> Self {
        Self {
            workers: cpus.iter().map(|&cpu| WorkerMetrics::new(cpu)).collect(),
            spool: SpoolMetrics::default(),
            delivery: DeliveryMetrics::default(),
        }
    }

    /// Sessions that we ended, by reason, of all workers together.
    pub fn sessions_closed(&self) -> impl Iterator<Item = (Closing, u64)> + '_ {
        Closing::ALL.into_iter().map(|why| {
            let of_worker = |worker: &WorkerMetrics| {
                worker.sessions_closed.get(why as usize).map_or(0, Counter::value)
            };
            (why, self.workers.iter().map(of_worker).sum())
        })
    }

    /// Connections whose TLS broke after the handshake, by what broke it, of all workers together.
    pub fn tls_breaks(&self) -> impl Iterator<Item = (TlsBreak, u64)> + '_ {
        TlsBreak::ALL.into_iter().map(|kind| {
            let of_worker = |worker: &WorkerMetrics| {
                worker.tls_breaks.get(kind as usize).map_or(0, Counter::value)
            };
            (kind, self.workers.iter().map(of_worker).sum())
        })
    }
}

/// Counters of one worker. Aligned so that two workers never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    pub cpu: usize,
    pub connections: Counter,
    pub connections_open: Gauge,
    /// Connections turned away with 421 for a limit or a ban.
    pub connections_refused: Counter,
    /// Accepted connections whose SO_INCOMING_CPU was this worker's CPU, and those whose was not.
    pub steering_local: Counter,
    pub steering_remote: Counter,
    pub messages_accepted: Counter,
    /// Messages refused at end of data.
    pub messages_refused: Counter,
    pub bytes_accepted: Counter,
    pub commands_refused: Counter,
    /// Sessions that we ended, by reason, in the order of [`Closing::ALL`].
    pub sessions_closed: [Counter; Closing::ALL.len()],
    pub tls_handshakes_completed: Counter,
    pub tls_handshakes_failed: Counter,
    /// Connections whose TLS broke after the handshake, in the order of [`TlsBreak::ALL`].
    pub tls_breaks: [Counter; TlsBreak::ALL.len()],
    pub buffers_lent: Gauge,
    /// Buckets of which XDP sends the new connections here; 0 where it deals out none.
    pub buckets: Gauge,
}

impl WorkerMetrics {
    fn new(cpu: usize) -> Self {
        Self { cpu, ..Self::default() }
    }

    pub fn count_tls_break(&self, kind: TlsBreak) {
        if let Some(counter) = self.tls_breaks.get(kind as usize) {
            counter.increment();
        }
    }

    pub fn count_closing(&self, why: Closing) {
        if let Some(counter) = self.sessions_closed.get(why as usize) {
            counter.increment();
        }
    }
}

#[derive(Debug, Default)]
pub struct SpoolMetrics {
    /// Messages durable and not yet released.
    pub pending: Gauge,
    pub segments: Gauge,
    pub syncs: Counter,
    pub bytes_written: Counter,
    /// Records found damaged at start, kept aside and never delivered.
    pub damaged: Gauge,
    /// 1 after a failed write or fsync.
    pub poisoned: Gauge,
}

#[derive(Debug, Default)]
pub struct DeliveryMetrics {
    pub delivered: Counter,
    /// Attempts that failed and will be repeated.
    pub deferred: Counter,
}
