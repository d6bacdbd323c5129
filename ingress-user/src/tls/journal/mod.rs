//! The journal of handshakes: what workers report, made into verdicts, counts and the [memory](super::memory).
//!
//! A thread of its own owns it. Workers write to a bounded channel and never wait: what finds it full is counted as missed.
//! What they have to know of it, whom not to offer STARTTLS, they read from a snapshot without a lock.

mod archive;
mod day;
mod event;
mod failure;
mod record;
mod report;
mod selftest;
mod store;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ipnet::IpNet;

pub use self::event::{Cover, Event, Failed, Handshake, Outcome};
use self::record::Journal;
pub use self::record::{OwnSource, Totals};
pub use self::report::{
    Alert, Direction, FailureGroup, Floor, HandshakeCounts, MessageCounts, Offered, ParameterNames,
    PeerReport, Report, SessionCounts, Withheld,
};
use super::memory::{self, Memory, MemorySettings, Pin};
use crate::worker::clock::Now;

/// Reports that wait for the journal.
const EVENTS_WAITING_MAX: usize = 4_096;

/// How long reports gather before they are taken: a thread that is woken for each costs the workers more than the report. Far
/// below the time in which any client comes again.
const GATHERING: Duration = Duration::from_millis(10);

/// How often withheld peers whose time is over are offered STARTTLS again, and the memory is written if it has changed.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// How often counts and failures are written, if they have changed. A crash costs so much of them; they change all the time,
/// and may have some megabytes.
const ARCHIVING: Duration = Duration::from_secs(60);

/// The worker's end: reports, and asks whom not to offer STARTTLS.
#[derive(Clone)]
pub struct Reporter {
    events: Sender<Event>,
    missed: Arc<AtomicU64>,
    withheld: Arc<ArcSwap<HashSet<IpNet>>>,
    ipv4_prefix: u8,
}

/// The control plane's end.
#[derive(Clone)]
pub struct JournalHandle {
    journal: Arc<Mutex<Journal>>,
    withheld: Arc<ArcSwap<HashSet<IpNet>>>,
    missed: Arc<AtomicU64>,
}

/// The running thread; it ends when all reporters are gone.
pub struct JournalThread(JoinHandle<()>);

/// What it keeps on disk.
struct Files {
    peers: PathBuf,
    archive: PathBuf,
}

/// Starts the journal with what the state folder remembers of peers, days and failures.
pub fn start(
    settings: MemorySettings,
    own: OwnSource,
    state_dir: &Path,
) -> std::io::Result<(Reporter, JournalHandle, JournalThread)> {
    let (events, inbox) = crossbeam_channel::bounded(EVENTS_WAITING_MAX);
    let folder = state_dir.join("tls");
    let files = Files { peers: folder.join("peers.json"), archive: folder.join("journal.json") };
    let ipv4_prefix = settings.ipv4_prefix;
    let mut memory = Memory::new(settings);
    memory.restore(store::load(&files.peers));
    let missed = Arc::new(AtomicU64::new(0));
    let mut journal = Journal::new(memory, own);
    journal.restore(archive::load(&files.archive), unix_seconds());
    let journal = Arc::new(Mutex::new(journal));
    let withheld = Arc::new(ArcSwap::default());
    let handle =
        JournalHandle { journal, withheld: Arc::clone(&withheld), missed: Arc::clone(&missed) };
    handle.publish();
    let thread = {
        let handle = handle.clone();
        thread::Builder::new()
            .name("tls-journal".to_owned())
            .spawn(move || handle.run(&inbox, &files))?
    };
    let reporter = Reporter { events, missed, withheld, ipv4_prefix };
    Ok((reporter, handle, JournalThread(thread)))
}

impl Reporter {
    pub fn report(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether `client` is not to be offered STARTTLS.
    pub fn is_withheld(&self, client: IpAddr) -> bool {
        let withheld = self.withheld.load();
        !withheld.is_empty() && withheld.contains(&memory::network_of(client, self.ipv4_prefix))
    }
}

impl JournalHandle {
    /// What happened in the last `seconds`.
    pub fn report(&self, seconds: u64) -> Report {
        let now = unix_seconds();
        self.lock().report(now, seconds, self.missed.load(Ordering::Relaxed))
    }

    /// Counts since the start.
    pub fn totals(&self) -> Totals {
        let journal = self.lock();
        let withheld = journal.withheld(unix_seconds()).len() as u64;
        let missed = self.missed.load(Ordering::Relaxed);
        Totals { withheld, missed, ..journal.totals.clone() }
    }

    /// All peers known.
    pub fn peers(&self) -> Vec<PeerReport> {
        self.lock().peer_reports(unix_seconds())
    }

    /// Whether a message has come from the peer that `client` is, since then.
    pub fn brought_mail(&self, client: IpAddr, since: u64) -> bool {
        self.lock().memory.brought_mail(client, since)
    }

    /// Forgets the peers within `network`; how many there were.
    pub fn forget(&self, network: IpNet) -> usize {
        let forgotten = self.lock().forget(network);
        self.publish();
        forgotten
    }

    /// The operator's word about the peers of `network`; `None` takes it back. How many peers that are is for the reader of
    /// [`peers`](Self::peers).
    pub fn pin(&self, network: IpNet, pin: Option<Pin>) {
        self.lock().pin(network, pin, unix_seconds());
        self.publish();
    }

    /// From now on handshakes from `network` are counted apart and tell nothing of a peer, until the end of the test is said or
    /// nothing was heard of it for two minutes.
    pub fn begin_self_test(&self, network: IpNet) {
        self.lock().begin_self_test(network, unix_seconds());
        self.publish();
    }

    pub fn end_self_test(&self, network: IpNet) {
        self.lock().end_self_test(network);
        self.publish();
    }

    fn run(&self, inbox: &Receiver<Event>, files: &Files) {
        let (mut house_kept, mut archived) = (Now::read().monotonic, Now::read().monotonic);
        loop {
            match inbox.recv_timeout(HOUSEKEEPING) {
                Ok(first) => self.take(first, inbox),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Now::read().monotonic;
            if now.saturating_duration_since(house_kept) >= HOUSEKEEPING {
                house_kept = now;
                self.keep_house(&files.peers);
            }
            if now.saturating_duration_since(archived) >= ARCHIVING {
                archived = now;
                self.archive(&files.archive);
            }
            // Nobody sends here: a wait of a known length, in which reports gather and wake no thread.
            let _gathered = crossbeam_channel::never::<()>().recv_timeout(GATHERING);
        }
        self.keep_house(&files.peers);
        self.archive(&files.archive);
    }

    /// Takes what has gathered.
    fn take(&self, first: Event, more: &Receiver<Event>) {
        let now = unix_seconds();
        let mut changed = false;
        {
            let mut journal = self.lock();
            for event in std::iter::once(first).chain(more.try_iter().take(EVENTS_WAITING_MAX)) {
                changed |= journal.take(event, now);
            }
        }
        if changed {
            self.publish();
        }
    }

    fn keep_house(&self, file: &Path) {
        let changed = self.lock().keep_house(unix_seconds());
        self.publish();
        if let Some(peers) = changed
            && let Err(error) = store::save(file, &peers)
        {
            tracing::warn!(file = %file.display(), %error, "cannot keep what is known of TLS peers");
        }
    }

    fn archive(&self, file: &Path) {
        let Some(document) = self.lock().document() else { return };
        let saved = document
            .map_err(std::io::Error::from)
            .and_then(|document| archive::save(file, &document));
        if let Err(error) = saved {
            tracing::warn!(file = %file.display(), %error, "cannot keep what reports of TLS count");
        }
    }

    /// Makes known to workers whom not to offer STARTTLS.
    fn publish(&self) {
        let withheld = self.lock().withheld(unix_seconds());
        if **self.withheld.load() != withheld {
            self.withheld.store(Arc::new(withheld));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        // Counts are whole after each step, so a panic elsewhere leaves nothing half done.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JournalThread {
    /// Waits for the last reports to be written down.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the journal of handshakes had panicked");
        }
    }
}

fn unix_seconds() -> u64 {
    Now::read().unix_micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::verdict::{Ending, KeyKind, Own, Stage};

    fn start_in(folder: &Path) -> (Reporter, JournalHandle, JournalThread) {
        let own: OwnSource = Box::new(|| Own::with_keys(&[KeyKind::EcdsaP256]));
        start(MemorySettings::default(), own, folder).unwrap()
    }

    #[test]
    fn a_report_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (reporter, handle, thread) = start_in(folder.path());
        let client = "192.0.2.7".parse().unwrap();
        let hello = crate::tls::probe::hello::Hello::of_2012(&[0xc009]).octets();
        let (stage, ending) = (Stage::HelloReceived, Ending::WeRefused);
        let outcome = Outcome::Failed(Failed { stage, ending, alert_sent: Some(40), hello });
        let helo = Some("client.test".into());
        let handshake = Handshake { client, helo, implicit: false, outcome };
        reporter.report(Event::Handshake(Box::new(handshake)));
        let cover = Cover::Tls { version: 0x0303, first: true };
        reporter.report(Event::FurtherMessages { cover, count: 5 });
        drop(reporter);
        thread.join();
        let before = handle.report(86_400);
        assert_eq!((before.handshakes.failed, before.failures.len()), (1, 1));

        let (_reporter, handle, _thread) = start_in(folder.path());
        assert_eq!(handle.report(86_400), before);
        // Counts for metrics begin with the process.
        assert!(handle.totals().verdicts.is_empty());
    }

    #[test]
    fn a_broken_archive_does_not_keep_the_journal_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tls")).unwrap();
        std::fs::write(folder.path().join("tls/journal.json"), "{").unwrap();
        let (_reporter, handle, _thread) = start_in(folder.path());
        assert_eq!(handle.report(86_400).handshakes, HandshakeCounts::default());
        assert!(folder.path().join("tls/journal.json.broken").exists());
    }
}
