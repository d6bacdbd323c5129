//! What happened, counted by day, and the last failures in full.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::day::{DAY_SECONDS, Days};
use super::event::{Cover, Event, Failed, Handshake, Outcome};
use super::failure::{Failure, Failures, Findings, Peer};
use super::selftest::SelfTests;
use crate::log_budget::LogBudget;
use crate::tls::memory::{self, Because, Consequence, Memory, Pin};
use crate::tls::names;
use crate::tls::verdict::{NextTry, Own};

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
    pub(super) failures: Failures,
    self_tests: SelfTests,
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
            failures: Failures::default(),
            self_tests: SelfTests::default(),
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
        if self.self_tests.covers(client, now) {
            self.days.today(now).self_tests += 1;
            return false;
        }
        match outcome {
            Outcome::Established { version, suite, resumed } => {
                self.memory.handshake_succeeded(client, now);
                let day = self.days.today(now);
                day.resumed += u64::from(resumed);
                *day.versions.entry(version).or_default() += 1;
                *day.suites.entry(suite).or_default() += 1;
            }
            Outcome::Failed(failed) => {
                let network = self.memory.network_of(client);
                self.take_failure(Peer { client, network, helo, implicit }, &failed, now);
            }
        }
        true
    }

    fn take_failure(&mut self, peer: Peer, failed: &Failed, now: u64) {
        let findings = Findings::of(failed, &(self.own)());
        let verdict = &findings.verdict;
        *self.totals.verdicts.entry(verdict.name()).or_default() += 1;
        *self.days.today(now).verdicts.entry(verdict.name().into()).or_default() += 1;
        // Where TLS comes first there is no STARTTLS to withhold.
        let consequence = match peer.implicit {
            true => None,
            false => {
                let negotiation = verdict.is_negotiation();
                Some(self.memory.handshake_failed(peer.client, negotiation, now))
            }
        };
        let next = match consequence {
            None => NextTry::TlsFirst,
            Some(Consequence::Withheld { .. }) => NextTry::InClear,
            Some(Consequence::Offered(_)) => NextTry::StartTls,
        };
        let failure = Failure::new(now, peer, failed, findings, next);
        self.log_failure(&failure, consequence, now);
        self.failures.push(failure);
    }

    fn log_failure(&mut self, failure: &Failure, consequence: Option<Consequence>, now: u64) {
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
        let Failure { client, helo, server_name, stage, ending, .. } = failure;
        let alert_sent = failure.alert_sent.map(names::alert);
        tracing::info!(
            %client, helo = helo.as_deref().unwrap_or_default(),
            server_name = server_name.as_deref(), ?stage, ?ending,
            alert_sent = alert_sent.as_deref(), verdict = &*failure.verdict, then, suppressed,
            "TLS handshake failed: {}", failure.explanation
        );
    }

    /// Peers that are not offered STARTTLS. A self-test is offered it, whatever is known of its address.
    pub(super) fn withheld(&self, now: u64) -> HashSet<IpNet> {
        let mut withheld: HashSet<IpNet> = self.memory.withheld(now).collect();
        for tested in self.self_tests.running(now) {
            withheld.retain(|network| !tested.contains(network));
        }
        withheld
    }

    pub(super) fn begin_self_test(&mut self, network: IpNet, now: u64) {
        self.self_tests.begin(network, now);
    }

    pub(super) fn end_self_test(&mut self, network: IpNet) {
        self.self_tests.end(network);
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
    pub(super) fn keep_house(&mut self, now: u64) -> Option<Vec<(IpNet, memory::Peer)>> {
        self.memory.expire(now);
        let changed = std::mem::take(&mut self.memory_changed);
        changed.then(|| self.memory.peers().map(|(network, peer)| (*network, *peer)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::day::DAYS_MAX;
    use super::super::failure::FAILURES_MAX;
    use super::super::report::{Direction, HandshakeCounts};
    use super::*;
    use crate::tls::memory::MemorySettings;
    use crate::tls::probe::hello::Hello;
    use crate::tls::verdict::{Ending, KeyKind, Stage};

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
        let hello = vec![0x16, 3, 1, 0, 1, 0xff];
        Outcome::Failed(Failed { stage, ending, alert_sent: Some(10), hello })
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
        assert_eq!(journal.failures.latest().count(), FAILURES_MAX);
        let report = journal.report(NOW, DAY_SECONDS, 3);
        assert_eq!(report.handshakes.failed, u64::from(flood));
        assert_eq!(report.missed, 3);
    }

    /// A client of CBC suites alone.
    fn refused() -> Outcome {
        let (stage, ending) = (Stage::HelloReceived, Ending::WeRefused);
        let hello = Hello::of_2012(&[0xc009]).octets();
        Outcome::Failed(Failed { stage, ending, alert_sent: Some(40), hello })
    }

    #[test]
    fn a_group_of_failures_tells_the_last_one_in_full() {
        let mut journal = journal();
        journal.own = Box::new(|| Own::with_keys(&[KeyKind::EcdsaP256]));
        let _ = journal.take(handshake(client(1), false, refused()), NOW);
        let group = journal.report(NOW, DAY_SECONDS, 0).failures.remove(0);
        assert_eq!(group.client, client(1));
        assert_eq!((group.stage, group.ending.as_str()), (Stage::HelloReceived, "we_refused"));
        let alert = group.alert.unwrap();
        assert_eq!((alert.direction, alert.name.as_str()), (Direction::Sent, "handshake_failure"));
        assert_eq!(group.suites, ["TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"]);
        let usable = group.usable.unwrap();
        assert_eq!(usable.versions, ["TLS 1.2"]);
        assert!(usable.suites.is_empty() && !usable.groups.is_empty(), "{usable:?}");
    }

    #[test]
    fn an_alert_received_is_told_from_one_sent_and_an_unread_hello_has_nothing_usable() {
        let mut journal = journal();
        let (stage, ending) = (Stage::FlightSent, Ending::AlertReceived(48));
        let failed = Failed { stage, ending, alert_sent: None, hello: Vec::new() };
        let _ = journal.take(handshake(client(1), false, Outcome::Failed(failed)), NOW);
        let group = journal.report(NOW, DAY_SECONDS, 0).failures.remove(0);
        let alert = group.alert.unwrap();
        assert_eq!((alert.direction, alert.name.as_str()), (Direction::Received, "unknown_ca"));
        assert_eq!(group.usable, None);
    }

    #[test]
    fn the_sentence_fits_the_listener_and_what_the_memory_did() {
        let mut journal = journal();
        let mut explanation = |number: u32, implicit: bool| {
            let _ = journal.take(handshake(client(number), implicit, refused()), NOW);
            journal.report(NOW, DAY_SECONDS, 0).failures.remove(0).explanation
        };
        assert!(explanation(1, false).contains("its next try will come in clear"));
        assert!(explanation(2, true).contains("none of its mail comes in on this port"));
        let _ = journal.take(handshake(client(3), false, established()), NOW);
        let _ = journal.take(handshake(client(3), false, refused()), NOW);
        let report = journal.report(NOW, DAY_SECONDS, 0);
        assert!(report.failures[0].explanation.contains("tries with STARTTLS fail"));
    }

    #[test]
    fn a_self_test_leaves_no_trace_but_its_count() {
        let mut journal = journal();
        let network = IpNet::from(client(1));
        journal.pin(network, Some(Pin::Withhold), NOW);
        assert_eq!(journal.withheld(NOW).len(), 1);
        journal.begin_self_test(network, NOW);
        assert!(journal.withheld(NOW).is_empty(), "the self-test is not offered STARTTLS");
        let before = journal.peer_reports(NOW);
        for implicit in [false, true] {
            let _ = journal.take(handshake(client(1), implicit, failed()), NOW);
        }
        let _ = journal.take(handshake(client(1), false, established()), NOW);
        assert_eq!(journal.peer_reports(NOW), before);
        let report = journal.report(NOW, DAY_SECONDS, 0);
        assert_eq!(report.handshakes, HandshakeCounts { self_tests: 3, ..Default::default() });
        assert!(report.failures.is_empty() && journal.totals.verdicts.is_empty());
        journal.end_self_test(network);
        assert_eq!(journal.withheld(NOW).len(), 1);
        let _ = journal.take(handshake(client(1), false, failed()), NOW);
        assert_eq!(journal.report(NOW, DAY_SECONDS, 0).handshakes.failed, 1);
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
