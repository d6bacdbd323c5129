//! Bans: clients that misbehave are not served for a while, and lose their packets in XDP where that is in use.
//!
//! Workers report offences to a bounded channel and never wait: what finds it full is counted as missed. A thread of its own
//! keeps the [book](Book). Whom to turn away workers read from a snapshot without a lock.

mod book;
mod enforcement;
mod rules;
mod store;
mod tally;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::book::{Ban, Book, Kept, NotBanned, OPERATOR, Past};
use self::enforcement::{Banned, Enforcement};
pub use self::rules::{BanSettings, Offence};
use crate::log_budget::LogBudget;
use crate::worker::clock::Now;
use crate::xdp::Filter;

/// Reports that wait for the thread.
const OFFENCES_WAITING_MAX: usize = 4_096;

/// How long reports gather before they are taken: a flood of bans is put in force ten times a second, and not with each.
const GATHERING: Duration = Duration::from_millis(100);

/// How often bans whose time is over are taken out of the book. They end by themselves.
const EXPIRING: Duration = Duration::from_secs(1);

/// How often bans are written, if they have changed. A crash costs so much of them.
const WRITING: Duration = Duration::from_secs(10);

/// A self-test of which nothing is heard for so long is over.
const SELF_TEST: Duration = Duration::from_secs(120);

/// Its last reports are counted within this time.
const REPORTS_UNDER_WAY: Duration = Duration::from_secs(2);

/// The worker's end: reports offences, and asks who is banned.
#[derive(Clone)]
pub struct Reporter {
    offences: Sender<(IpAddr, Offence)>,
    missed: Arc<AtomicU64>,
    banned: Arc<Banned>,
}

/// The control plane's end.
#[derive(Clone)]
pub struct BansHandle {
    bans: Arc<Mutex<Bans>>,
    missed: Arc<AtomicU64>,
}

/// The running thread; it ends when all reporters are gone.
pub struct BansThread(JoinHandle<()>);

/// Whether a client has brought a message since then, in seconds since 1970.
pub type MailSource = Box<dyn Fn(IpAddr, u64) -> bool + Send>;

/// Counts for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bans in force.
    pub now: u64,
    /// Bans since the start, by reason.
    pub by_reason: BTreeMap<&'static str, u64>,
    pub missed: u64,
}

/// A ban in force, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanReport {
    pub network: IpNet,
    /// An [`Offence`] by its label, or "operator".
    pub reason: String,
    /// What the operator said.
    pub note: String,
    /// Offences that led to it.
    pub offences: u32,
    /// Which ban in a row it is, from 1.
    pub times: u32,
    /// Seconds since 1970.
    pub since: u64,
    pub until: u64,
    /// Packets that XDP has dropped for it; null where XDP drops nothing.
    pub packets: Option<u64>,
}

struct Bans {
    book: Book,
    /// Offences count so many seconds; in that time mail makes up for them.
    window: u64,
    brought_mail: MailSource,
    enforcement: Enforcement,
    by_reason: BTreeMap<&'static str, u64>,
    /// The book is not as in the file.
    changed: bool,
    log: LogBudget,
}

/// Starts the thread with the bans that the state folder remembers, in force when this returns.
pub fn start(
    settings: BanSettings,
    filter: Option<Arc<Filter>>,
    brought_mail: MailSource,
    state_dir: &Path,
) -> std::io::Result<(Reporter, BansHandle, BansThread)> {
    let (offences, inbox) = crossbeam_channel::bounded(OFFENCES_WAITING_MAX);
    let file = state_dir.join("bans.json");
    let now = unix_seconds();
    let window = settings.window.as_secs();
    let mut book = Book::new(settings);
    book.restore(store::load(&file), now);
    let reasons = Offence::ALL.map(Offence::label).into_iter().chain([OPERATOR]);
    let mut bans = Bans {
        book,
        window,
        brought_mail,
        enforcement: Enforcement::new(filter),
        by_reason: reasons.map(|reason| (reason, 0)).collect(),
        changed: false,
        log: LogBudget::default(),
    };
    bans.enforcement.follow(&bans.book, now);
    let banned = Arc::clone(bans.enforcement.banned());
    let missed = Arc::new(AtomicU64::new(0));
    let handle = BansHandle { bans: Arc::new(Mutex::new(bans)), missed: Arc::clone(&missed) };
    let thread = {
        let handle = handle.clone();
        thread::Builder::new().name("bans".to_owned()).spawn(move || handle.run(&inbox, &file))?
    };
    Ok((Reporter { offences, missed, banned }, handle, BansThread(thread)))
}

impl Reporter {
    pub fn report(&self, client: IpAddr, offence: Offence) {
        if self.offences.try_send((client, offence)).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn is_banned(&self, client: IpAddr, now: Now) -> bool {
        let banned = self.banned.load();
        !banned.is_empty()
            && banned.get(&book::client_of(client)).is_some_and(|until| *until > seconds(now))
    }
}

impl BansHandle {
    /// All bans in force, by network.
    pub fn list(&self) -> Vec<BanReport> {
        let (bans, now) = (self.lock(), unix_seconds());
        let in_force = bans.book.bans().filter(|ban| ban.until > now);
        let report = |ban: &Ban| BanReport {
            network: ban.network,
            reason: ban.reason().to_owned(),
            note: ban.note.clone(),
            offences: ban.offences,
            times: ban.times,
            since: ban.since,
            until: ban.until,
            packets: bans.enforcement.packets_of(ban).map(|packets| packets + ban.packets),
        };
        let mut list: Vec<_> = in_force.map(report).collect();
        list.sort_by_key(|ban| ban.network);
        list
    }

    /// The operator's ban; in force when this returns.
    ///
    /// # Errors
    /// As [`Book::add`].
    pub fn add(&self, network: IpNet, lifetime: Duration, note: String) -> Result<Ban, NotBanned> {
        let (mut bans, now) = (self.lock(), unix_seconds());
        let ban = bans.book.add(network, lifetime, note, now)?;
        bans.begun(&ban, now);
        bans.follow(now);
        Ok(ban)
    }

    /// A self-test from `network` begins or goes on, or is over: its offences do not count, for two minutes at most.
    pub fn excuse_self_test(&self, network: IpNet, running: bool) {
        let lasts = if running { SELF_TEST } else { REPORTS_UNDER_WAY };
        self.lock().book.excuse(network, unix_seconds() + lasts.as_secs());
    }

    /// Ends all bans that `network` has a part in. Those ended.
    pub fn lift(&self, network: IpNet) -> Vec<IpNet> {
        let mut bans = self.lock();
        let lifted = bans.book.lift(network);
        bans.follow(unix_seconds());
        lifted
    }

    pub fn totals(&self) -> Totals {
        let (bans, now) = (self.lock(), unix_seconds());
        Totals {
            now: bans.book.bans().filter(|ban| ban.until > now).count() as u64,
            by_reason: bans.by_reason.clone(),
            missed: self.missed.load(Ordering::Relaxed),
        }
    }

    fn run(&self, inbox: &Receiver<(IpAddr, Offence)>, file: &Path) {
        let (mut expired, mut written) = (Now::read().monotonic, Now::read().monotonic);
        loop {
            match inbox.recv_timeout(EXPIRING) {
                Ok(first) => self.take(first, inbox),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Now::read().monotonic;
            if now.saturating_duration_since(expired) >= EXPIRING {
                expired = now;
                self.expire();
            }
            if now.saturating_duration_since(written) >= WRITING {
                written = now;
                self.write(file, false);
            }
            // Nobody sends here: a wait of a known length, in which reports gather and wake no thread.
            let _gathered = crossbeam_channel::never::<()>().recv_timeout(GATHERING);
        }
        self.write(file, true);
    }

    /// Takes what has gathered.
    fn take(&self, first: (IpAddr, Offence), more: &Receiver<(IpAddr, Offence)>) {
        let (mut bans, now) = (self.lock(), unix_seconds());
        let mut has_new = false;
        for (client, offence) in
            std::iter::once(first).chain(more.try_iter().take(OFFENCES_WAITING_MAX))
        {
            let since = now.saturating_sub(bans.window);
            if offence.is_forgivable() && (bans.brought_mail)(client, since) {
                continue;
            }
            if let Some(ban) = bans.book.offence(client, offence, now) {
                has_new = true;
                bans.begun(&ban, now);
            }
        }
        if has_new {
            bans.follow(now);
        }
    }

    fn expire(&self) {
        let (mut bans, now) = (self.lock(), unix_seconds());
        if bans.book.expire(now) {
            bans.follow(now);
        }
    }

    /// When the book is not as in the file; in the end also for the packets that were dropped since.
    fn write(&self, file: &Path, is_last: bool) {
        let kept = {
            let mut bans = self.lock();
            let is_due = std::mem::take(&mut bans.changed) || is_last;
            is_due.then(|| bans.kept())
        };
        if let Some(kept) = kept
            && let Err(error) = store::save(file, &kept)
        {
            tracing::warn!(file = %file.display(), %error, "cannot keep bans for the next start");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bans> {
        // The book is whole after each step, so a panic elsewhere leaves nothing half done.
        self.bans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bans {
    /// Counts a new ban, and says it.
    fn begun(&mut self, ban: &Ban, now: u64) {
        *self.by_reason.entry(ban.reason()).or_default() += 1;
        let Some(suppressed) = self.log.take(now) else { return };
        let Ban { network, note, offences, times, since, until, .. } = ban;
        let lifetime_seconds = until.saturating_sub(*since);
        tracing::info!(
            %network, reason = ban.reason(), note = &**note, offences, times, lifetime_seconds, suppressed,
            "client banned"
        );
    }

    /// The book with the packets that were dropped for each ban.
    fn kept(&self) -> Kept {
        let mut kept = self.book.kept();
        for ban in &mut kept.bans {
            ban.packets += self.enforcement.packets_of(ban).unwrap_or(0);
        }
        kept
    }

    fn follow(&mut self, now: u64) {
        self.changed = true;
        self.enforcement.follow(&self.book, now);
    }
}

impl BansThread {
    /// Waits for the bans to be written down.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the thread of bans had panicked");
        }
    }
}

fn unix_seconds() -> u64 {
    seconds(Now::read())
}

fn seconds(now: Now) -> u64 {
    now.unix_micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn start_in(folder: &Path) -> (Reporter, BansHandle, BansThread) {
        start_with(folder, Box::new(|_, _| false))
    }

    fn start_with(folder: &Path, mail: MailSource) -> (Reporter, BansHandle, BansThread) {
        let silent_sessions_max = 2;
        let settings =
            BanSettings { silent_sessions_max, error_floods_max: 2, ..BanSettings::default() };
        start(settings, None, mail, folder).unwrap()
    }

    #[test]
    fn an_offence_too_many_bans_the_client_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let client = "192.0.2.7".parse().unwrap();
        let (reporter, handle, thread) = start_in(folder.path());
        for _ in 0..2 {
            assert!(!reporter.is_banned(client, Now::read()));
            reporter.report(client, Offence::Silent);
        }
        let banned = Arc::clone(&reporter.banned);
        drop(reporter);
        thread.join();
        let list = handle.list();
        assert_eq!((list.len(), &*list[0].reason, list[0].packets), (1, "silent", None));
        assert_eq!(handle.totals().by_reason["silent"], 1);
        assert_eq!(banned.load().len(), 1);

        let (reporter, handle, _thread) = start_in(folder.path());
        assert!(reporter.is_banned(client, Now::read()));
        let later = Now { wall: Now::read().wall + Duration::from_secs(601), ..Now::read() };
        assert!(!reporter.is_banned(client, later));
        assert_eq!((handle.list(), handle.totals().now), (list, 1));
    }

    #[test]
    fn who_brings_mail_is_forgiven_silence_and_not_floods() {
        let folder = tempfile::tempdir().unwrap();
        let honest: IpAddr = "192.0.2.7".parse().unwrap();
        let mail: MailSource = Box::new(move |client, since| {
            client == honest && unix_seconds().abs_diff(since) <= 601
        });
        let (reporter, handle, thread) = start_with(folder.path(), mail);
        let other: IpAddr = "192.0.2.8".parse().unwrap();
        for client in [honest, other, honest, other] {
            reporter.report(client, Offence::Silent);
        }
        for _ in 0..2 {
            reporter.report(honest, Offence::ErrorFlood);
        }
        drop(reporter);
        thread.join();
        let reasons: Vec<_> = handle.list().into_iter().map(|ban| ban.reason).collect();
        assert_eq!(reasons, ["error_flood", "silent"]);
    }

    #[test]
    fn the_operators_ban_is_in_force_at_once_and_so_is_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let (reporter, handle, _thread) = start_in(folder.path());
        let network = "192.0.2.0/24".parse().unwrap();
        let client = "::ffff:192.0.2.200".parse().unwrap();
        handle.add(network, Duration::from_secs(60), "spam".to_owned()).unwrap();
        assert!(reporter.is_banned(client, Now::read()));
        assert!(!reporter.is_banned("192.0.3.1".parse().unwrap(), Now::read()));
        assert_eq!(handle.lift(network), [network]);
        assert!(!reporter.is_banned(client, Now::read()));
    }

    #[test]
    fn a_flood_of_reports_is_counted_as_missed_and_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (reporter, handle, _thread) = start_in(folder.path());
        let held = handle.lock();
        let deadline = Now::read().monotonic + TIMEOUT;
        while reporter.missed.load(Ordering::Relaxed) == 0 {
            assert!(Now::read().monotonic < deadline, "the channel has no end");
            reporter.report("127.0.0.1".parse().unwrap(), Offence::Silent);
        }
        drop(held);
        assert!(handle.totals().missed > 0);
    }
}
