//! What happened, counted by day, and the last failures in full.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;

use super::day::{DAY_SECONDS, Days};
use super::event::{Cover, Event, Failed, Handshake, Outcome};
use crate::log_budget::LogBudget;
use crate::tls::memory::{Because, Consequence, Memory, Peer, Pin};
use crate::tls::offer::{self, Offer};
use crate::tls::verdict::{Ending, Own, Stage, Verdict, verdict};

/// Failures kept in full. Older ones are in the counts.
const FAILURES_MAX: usize = 2_000;

/// A failure explained.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) at: u64,
    pub(super) client: IpAddr,
    pub(super) network: IpNet,
    pub(super) helo: Option<Box<str>>,
    pub(super) implicit: bool,
    pub(super) stage: Stage,
    pub(super) ending: Ending,
    pub(super) offer: Option<Offer>,
    pub(super) verdict: Verdict,
}

/// What the server can do, which a reload of certificates changes.
pub type OwnSource = Box<dyn Fn() -> Own + Send>;

/// Counts since the start, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Failures by the verdict on them.
    pub verdicts: BTreeMap<&'static str, u64>,
    pub stripped: u64,
    /// Peers that are not offered STARTTLS now.
    pub withheld: u64,
    pub missed: u64,
}

pub(super) struct Journal {
    pub(super) memory: Memory,
    pub(super) own: OwnSource,
    pub(super) totals: Totals,
    pub(super) days: Days,
    /// Oldest first.
    pub(super) failures: VecDeque<Failure>,
    memory_changed: bool,
    log: LogBudget,
}

impl Journal {
    pub(super) fn new(memory: Memory, own: OwnSource) -> Self {
        Self {
            memory,
            own,
            totals: Totals::default(),
            days: Days::default(),
            failures: VecDeque::new(),
            memory_changed: false,
            log: LogBudget::default(),
        }
    }

    /// Takes one report. Whether the peers that are denied STARTTLS may have changed.
    pub(super) fn take(&mut self, event: Event, now: u64) -> bool {
        self.memory_changed = true;
        match event {
            Event::Handshake(handshake) => self.take_handshake(*handshake, now),
            Event::FirstMessage { client, cover, offered } => {
                self.take_first_message(client, cover, offered, now);
                false
            }
            Event::FurtherMessages { cover, count } => {
                self.days.today(now).messages.take(cover, count.into());
                false
            }
        }
    }

    fn take_first_message(&mut self, client: IpAddr, cover: Cover, offered: bool, now: u64) {
        let day = self.days.today(now);
        day.messages.take(cover, 1);
        if cover != Cover::Clear {
            day.sessions_over_tls += 1;
            return;
        }
        day.sessions_in_clear += 1;
        if let Some(stripped) = self.memory.came_in_clear(client, offered, now) {
            day.stripped += 1;
            self.totals.stripped += 1;
            tracing::warn!(
                %client, tls_sessions = stripped.tls_sessions,
                days_since = (now - stripped.last_success.min(now)) / DAY_SECONDS,
                "TLS was stripped? A client that always came with TLS came in clear though STARTTLS was offered"
            );
        }
    }

    fn take_handshake(&mut self, handshake: Handshake, now: u64) -> bool {
        let Handshake { client, helo, implicit, outcome } = handshake;
        match outcome {
            Outcome::Established { version, suite, resumed } => {
                self.memory.handshake_succeeded(client, now);
                let day = self.days.today(now);
                day.resumed += u64::from(resumed);
                *day.versions.entry(version).or_default() += 1;
                *day.suites.entry(suite).or_default() += 1;
                true
            }
            Outcome::Failed(failed) => {
                let Failed { stage, ending, hello } = failed;
                let offer = offer::parse(&hello);
                let verdict = verdict(&offer, &(self.own)(), stage, ending);
                *self.totals.verdicts.entry(verdict.name()).or_default() += 1;
                *self.days.today(now).verdicts.entry(verdict.name().into()).or_default() += 1;
                let network = self.memory.network_of(client);
                let offer = offer.ok();
                let failure = Failure {
                    at: now,
                    client,
                    network,
                    helo,
                    implicit,
                    stage,
                    ending,
                    offer,
                    verdict,
                };
                self.explain(&failure, now);
                if self.failures.len() >= FAILURES_MAX {
                    self.failures.pop_front();
                }
                self.failures.push_back(failure);
                true
            }
        }
    }

    /// The memory's answer to a failure, and the line of log that explains it.
    fn explain(&mut self, failure: &Failure, now: u64) {
        let Failure { client, verdict, implicit, .. } = failure;
        // Where TLS comes first there is no STARTTLS to withhold.
        let consequence = match implicit {
            true => None,
            false => Some(self.memory.handshake_failed(*client, verdict.is_negotiation(), now)),
        };
        let then = match consequence {
            None => "TLS comes first here: it has to come right",
            Some(Consequence::Withheld { .. }) => "its next tries are not offered STARTTLS",
            Some(Consequence::Offered(because)) => match because {
                Because::NotNegotiation => "STARTTLS goes on being offered",
                Because::RecentSuccess => "it could do TLS within 30 days: STARTTLS is offered",
                Because::Exempt => "it is exempt: STARTTLS is offered",
                Because::ShareExhausted => "too many peers are denied STARTTLS: it is offered",
            },
        };
        let Some(suppressed) = self.log.take(now) else { return };
        let helo = failure.helo.as_deref().unwrap_or_default();
        let server_name = failure.offer.as_ref().and_then(|offer| offer.server_name.as_deref());
        tracing::info!(
            %client, helo, server_name, stage = ?failure.stage, ending = ?failure.ending,
            verdict = verdict.name(), then, suppressed, "TLS handshake failed: {verdict}"
        );
    }

    pub(super) fn withheld(&self, now: u64) -> HashSet<IpNet> {
        self.memory.withheld(now).collect()
    }

    pub(super) fn forget(&mut self, network: IpNet) -> usize {
        self.memory_changed = true;
        self.memory.forget(network)
    }

    pub(super) fn pin(&mut self, network: IpNet, pin: Option<Pin>, now: u64) {
        self.memory_changed = true;
        self.memory.pin(network, pin, now);
    }

    /// Forgets what is old. All peers, if they have changed since the last time.
    pub(super) fn keep_house(&mut self, now: u64) -> Option<Vec<(IpNet, Peer)>> {
        self.memory.expire(now);
        let changed = std::mem::take(&mut self.memory_changed);
        changed.then(|| self.memory.peers().map(|(network, peer)| (*network, *peer)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::day::DAYS_MAX;
    use super::*;
    use crate::tls::memory::MemorySettings;

    const NOW: u64 = 1_795_500_000;

    fn journal() -> Journal {
        let own = Box::new(|| Own::with_keys(&[]));
        Journal::new(Memory::new(MemorySettings::default()), own)
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::V4((0xc000_0200 + number).into())
    }

    fn handshake(client: IpAddr, implicit: bool, outcome: Outcome) -> Event {
        Event::Handshake(Box::new(Handshake { client, helo: None, implicit, outcome }))
    }

    /// Octets that are refused as no ClientHello, which is a matter of negotiation.
    fn failed() -> Outcome {
        let (stage, ending) = (Stage::HelloReceived, Ending::WeRefused);
        Outcome::Failed(Failed { stage, ending, hello: vec![0x16, 3, 1, 0, 1, 0xff] })
    }

    fn message(client: IpAddr, cover: Cover) -> Event {
        Event::FirstMessage { client, cover, offered: false }
    }

    fn tls(version: u16) -> Cover {
        Cover::Tls { version, first: false }
    }

    fn established() -> Outcome {
        Outcome::Established { version: 0x0304, suite: 0x1301, resumed: false }
    }

    #[test]
    fn a_failure_where_tls_comes_first_withholds_no_starttls() {
        let mut journal = journal();
        assert!(journal.take(handshake(client(1), true, failed()), NOW));
        assert!(journal.withheld(NOW).is_empty());
        assert!(journal.take(handshake(client(1), false, failed()), NOW));
        assert_eq!(journal.withheld(NOW).len(), 1);
        let report = journal.report(NOW, DAY_SECONDS, 0);
        assert_eq!(report.handshakes.failed, 2);
        assert_eq!(report.failures.len(), 1);
        assert_eq!(report.failures[0].count, 2);
    }

    #[test]
    fn a_report_covers_the_days_asked_for_and_a_month_at_most() {
        let mut journal = journal();
        for day in 0..40 {
            let now = NOW + day * DAY_SECONDS;
            let _ = journal.take(handshake(client(1), false, established()), now);
            let _ = journal.take(message(client(1), tls(0x0304)), now);
        }
        let now = NOW + 39 * DAY_SECONDS;
        let established = |days: u64| {
            let report = journal.report(now, days * DAY_SECONDS, 0);
            assert_eq!(report.sessions.over_tls, report.handshakes.established);
            report.handshakes.established
        };
        assert_eq!((established(0), established(1), established(7)), (1, 2, 8));
        assert_eq!(established(365), DAYS_MAX as u64);
    }

    #[test]
    fn the_cost_of_a_higher_minimum_counts_messages_and_not_sessions() {
        let mut journal = journal();
        let floor = |journal: &Journal| journal.report(NOW, DAY_SECONDS, 0).floor.unwrap();
        let nothing = floor(&journal);
        assert_eq!((nothing.messages, nothing.would_have_come_in_clear_percent), (0, None));
        let _ = journal.take(message(client(1), tls(0x0303)), NOW);
        let _ = journal.take(message(client(2), tls(0x0304)), NOW);
        let _ = journal.take(message(client(3), Cover::Clear), NOW);
        let further = Event::FurtherMessages { cover: tls(0x0304), count: 43 };
        let _ = journal.take(further, NOW);
        let cover = Cover::Tls { version: 0x0303, first: true };
        let _ = journal.take(Event::FurtherMessages { cover, count: 2 }, NOW);
        let cost = floor(&journal);
        assert_eq!((cost.minimum.as_str(), cost.messages), ("TLS 1.3", 48));
        assert_eq!(cost.would_have_come_in_clear_percent, Some(2.08));
        assert_eq!(cost.would_not_have_come_percent, Some(4.17));
        let report = journal.report(NOW, DAY_SECONDS, 0);
        assert_eq!((report.sessions.over_tls, report.sessions.in_clear), (2, 1));
        assert_eq!((report.messages.over_tls, report.messages.in_clear), (47, 1));
        assert_eq!(report.messages.by_version["TLS 1.2"], 3);
    }

    #[test]
    fn where_the_newest_version_is_required_there_is_no_higher_minimum() {
        let own = Box::new(|| Own { versions: vec![0x0304], ..Own::with_keys(&[]) });
        let journal = Journal::new(Memory::new(MemorySettings::default()), own);
        assert_eq!(journal.report(NOW, DAY_SECONDS, 0).floor, None);
    }

    #[test]
    fn a_flood_of_failures_is_counted_and_only_the_last_are_kept() {
        let mut journal = journal();
        let flood = FAILURES_MAX as u32 + 10;
        for number in 0..flood {
            let _ = journal.take(handshake(client(number), true, failed()), NOW);
        }
        assert_eq!(journal.failures.len(), FAILURES_MAX);
        let report = journal.report(NOW, DAY_SECONDS, 3);
        assert_eq!(report.handshakes.failed, u64::from(flood));
        assert_eq!(report.missed, 3);
    }

    #[test]
    fn what_came_afterwards_is_told() {
        let mut journal = journal();
        let _ = journal.take(handshake(client(1), false, failed()), NOW);
        let afterwards =
            |journal: &Journal| journal.report(NOW, DAY_SECONDS, 0).failures[0].afterwards.clone();
        assert_eq!(afterwards(&journal), "not yet");
        let _ = journal.take(message(client(1), Cover::Clear), NOW + 1);
        assert_eq!(afterwards(&journal), "in clear");
        let _ = journal.take(handshake(client(1), false, established()), NOW + 2);
        assert_eq!(afterwards(&journal), "over TLS");
    }
}
