//! What happened, counted by day, and the last failures in full.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::archive::{self, Kept};
use super::day::{DAY_SECONDS, Days};
use super::event::{Cover, Event, Failed, Handshake, Outcome};
use super::failure::{Failure, Failures, Findings, LastMail, Peer};
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
    /// Days or failures are not as in the archive.
    counts_changed: bool,
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
            counts_changed: false,
            log: LogBudget::default(),
        }
    }

    /// Takes in what was kept of the time before this start.
    pub(super) fn restore(&mut self, kept: Kept, now: u64) {
        self.days = Days::restored(kept.days, now);
        self.failures = Failures::restored(kept.failures, now);
    }

    /// The document for the archive, if it has changed since the last time.
    pub(super) fn document(&mut self) -> Option<serde_json::Result<Vec<u8>>> {
        let changed = std::mem::take(&mut self.counts_changed);
        changed.then(|| archive::document(&self.days.0, &self.failures.0))
    }

    /// Takes one report. Whether the peers that are denied STARTTLS may have changed.
    pub(super) fn take(&mut self, event: Event, now: u64) -> bool {
        self.memory_changed = true;
        self.counts_changed = true;
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
            self.memory.came_over_tls(client, now);
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
                let mail_before = self.last_mail(&network);
                let peer = Peer { client, network, helo, implicit, mail_before };
                self.take_failure(peer, &failed, now);
            }
        }
        true
    }

    pub(super) fn last_mail(&self, network: &IpNet) -> LastMail {
        let peer = self.memory.peer(network);
        let of = |peer: &memory::Peer| LastMail {
            over_tls: peer.last_mail_over_tls,
            in_clear: peer.last_clear,
        };
        peer.map(of).unwrap_or_default()
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
            verdict = &*failure.verdict, alert_sent = alert_sent.as_deref(), then, suppressed,
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
mod tests;
