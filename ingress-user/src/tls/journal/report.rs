//! The journal as operators see it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::day::{Day, Messages};
use super::failure::Failure;
use super::record::Journal;
use crate::tls::memory::Pin;
use crate::tls::names;
use crate::tls::verdict::{Ending, Parameters, Stage};

/// The document behind `ingress tls report --json`. Counts are by whole days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub since_seconds: u64,
    pub handshakes: HandshakeCounts,
    pub sessions: SessionCounts,
    pub messages: MessageCounts,
    /// `None` where the newest version is required already.
    pub floor: Option<Floor>,
    /// The last failures, by client network and verdict, the latest first.
    pub failures: Vec<FailureGroup>,
    /// Peers that are not offered STARTTLS now.
    pub memory: Vec<Withheld>,
    /// Reports that found the journal busy.
    pub missed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HandshakeCounts {
    pub established: u64,
    pub resumed: u64,
    pub failed: u64,
    /// Of `ingress tls test`; in no other count.
    pub self_tests: u64,
    pub by_version: BTreeMap<String, u64>,
    pub by_suite: BTreeMap<String, u64>,
    pub by_verdict: BTreeMap<String, u64>,
}

/// Sessions that brought a message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionCounts {
    pub over_tls: u64,
    pub in_clear: u64,
    /// In clear from a peer that always came with TLS.
    pub stripped: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MessageCounts {
    pub over_tls: u64,
    pub in_clear: u64,
    /// `None` while there are no messages.
    pub in_clear_percent: Option<f64>,
    /// Of those over TLS.
    pub by_version: BTreeMap<String, u64>,
}

/// What it would have cost to require the next version of TLS, by the messages that came over an older one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    pub minimum: String,
    /// All of the time, those in clear too; 0 says that nothing is known.
    pub messages: u64,
    /// Besides those that came in clear anyhow. `None` while there are no messages.
    pub would_have_come_in_clear_percent: Option<f64>,
    /// Where TLS comes first, so that there is no clear to fall to.
    pub would_not_have_come_percent: Option<f64>,
}

/// A peer that is not offered STARTTLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    pub network: IpNet,
    /// The verdict on its last failed handshake, or "pinned" where the operator said so.
    pub reason: String,
    /// Seconds since 1970; `None`: for ever.
    pub until: Option<u64>,
}

/// Failures of one client network with one verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureGroup {
    pub network: IpNet,
    pub verdict: String,
    /// What it means and what to do, in one sentence.
    pub remedy: String,
    pub count: u64,
    /// Of the last one, and so is what follows. Seconds since 1970.
    pub at: u64,
    pub client: IpAddr,
    pub helo: Option<String>,
    /// On a listener where TLS comes first.
    pub implicit: bool,
    /// How far it got.
    pub stage: Stage,
    /// Who ended it.
    pub outcome: String,
    /// `None` where nobody sent one.
    pub alert: Option<Alert>,
    /// What the client offered. `None` where no hello could be read.
    pub offered: Option<Offered>,
    /// What of it we could have used: the first empty list is the cause. `None` where no hello could be read.
    pub usable: Option<ParameterNames>,
    /// "over TLS", "in clear", or "not yet".
    pub afterwards: String,
}

/// By its name in RFC 8446.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub direction: Direction,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Sent,
    Received,
}

/// A ClientHello, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// SNI (RFC 6066 section 3).
    pub server_name: Option<String>,
    #[serde(flatten)]
    pub parameters: ParameterNames,
}

/// Of an offer, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterNames {
    pub versions: Vec<String>,
    pub suites: Vec<String>,
    pub groups: Vec<String>,
    pub signature_schemes: Vec<String>,
}

/// One peer of the memory, for `ingress tls memory list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    pub network: IpNet,
    /// Seconds since 1970.
    pub last_seen: u64,
    pub last_success: Option<u64>,
    pub last_failure: Option<u64>,
    pub withheld_until: Option<u64>,
    pub withheld: bool,
    pub pin: Option<Pin>,
    pub tls_sessions: u32,
    pub clear_sessions: u32,
}

impl Journal {
    pub(super) fn report(&self, now: u64, seconds: u64, missed: u64) -> Report {
        let from = now.saturating_sub(seconds);
        let day = self.days.since(from);
        Report {
            since_seconds: seconds,
            handshakes: HandshakeCounts::of(&day),
            sessions: SessionCounts {
                over_tls: day.sessions_over_tls,
                in_clear: day.sessions_in_clear,
                stripped: day.stripped,
            },
            messages: MessageCounts::of(&day.messages),
            floor: Floor::above(&(self.own)().versions, &day.messages),
            failures: self.groups(from),
            memory: self.withheld_peers(now),
            missed,
        }
    }

    pub(super) fn peer_reports(&self, now: u64) -> Vec<PeerReport> {
        let withheld = self.withheld(now);
        let mut peers: Vec<PeerReport> = self
            .memory
            .peers()
            .map(|(network, peer)| PeerReport {
                network: *network,
                last_seen: peer.last_seen,
                last_success: peer.last_success,
                last_failure: peer.last_failure,
                withheld_until: peer.withheld_until,
                withheld: withheld.contains(network),
                pin: peer.pin,
                tls_sessions: peer.tls_sessions,
                clear_sessions: peer.clear_sessions,
            })
            .collect();
        peers.sort_unstable_by_key(|peer| peer.network);
        peers
    }

    fn withheld_peers(&self, now: u64) -> Vec<Withheld> {
        let mut networks: Vec<IpNet> = self.withheld(now).into_iter().collect();
        networks.sort_unstable();
        let describe = |network| {
            let peer = self.memory.peer(&network);
            let is_pinned = peer.is_some_and(|peer| peer.pin == Some(Pin::Withhold));
            let reason = match is_pinned {
                true => "pinned".to_owned(),
                false => self.last_verdict(&network),
            };
            let until = peer.and_then(|peer| peer.withheld_until).filter(|_| !is_pinned);
            Withheld { network, reason, until }
        };
        networks.into_iter().map(describe).collect()
    }

    /// The verdict that withheld STARTTLS, as far as the failure is among those kept.
    fn last_verdict(&self, network: &IpNet) -> String {
        let failure = self.failures.latest().find(|failure| failure.network == *network);
        failure.map_or_else(|| "negotiation".to_owned(), |failure| failure.verdict.to_string())
    }

    fn groups(&self, from: u64) -> Vec<FailureGroup> {
        let mut groups: Vec<FailureGroup> = Vec::new();
        for failure in self.failures.latest().filter(|failure| failure.at >= from) {
            let same = |group: &&mut FailureGroup| {
                group.network == failure.network && group.verdict == failure.verdict
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.count += 1,
                None => {
                    let afterwards = self.afterwards(failure);
                    groups.push(FailureGroup::beginning_with(failure, afterwards));
                }
            }
        }
        groups
    }

    /// How the peer's mail came after its last failure.
    fn afterwards(&self, failure: &Failure) -> &'static str {
        let (before, last) = (failure.mail_before, self.last_mail(&failure.network));
        let has_come = |last: Option<u64>, before: Option<u64>| {
            last != before && last.is_some_and(|at| at >= failure.at)
        };
        if has_come(last.over_tls, before.over_tls) {
            "over TLS"
        } else if has_come(last.in_clear, before.in_clear) {
            "in clear"
        } else {
            "not yet"
        }
    }
}

impl FailureGroup {
    fn beginning_with(failure: &Failure, afterwards: &str) -> Self {
        let offered = failure.offered.as_ref().map(|offered| Offered {
            server_name: failure.server_name.as_deref().map(str::to_owned),
            parameters: ParameterNames::of(offered),
        });
        Self {
            network: failure.network,
            verdict: failure.verdict.to_string(),
            remedy: failure.explanation.to_string(),
            count: 1,
            at: failure.at,
            client: failure.client,
            helo: failure.helo.as_deref().map(str::to_owned),
            implicit: failure.implicit,
            stage: failure.stage,
            outcome: failure.ending.name().to_owned(),
            alert: Alert::of(failure),
            offered,
            usable: failure.usable.as_ref().map(ParameterNames::of),
            afterwards: afterwards.to_owned(),
        }
    }
}

impl Alert {
    fn of(failure: &Failure) -> Option<Self> {
        let (direction, alert) = match (failure.ending, failure.alert_sent) {
            (Ending::AlertReceived(alert), _) => (Direction::Received, alert),
            (_, Some(alert)) => (Direction::Sent, alert),
            (_, None) => return None,
        };
        Some(Self { direction, name: names::alert(alert).into_owned() })
    }
}

impl ParameterNames {
    fn of(parameters: &Parameters) -> Self {
        let named = |codes: &[u16], name: fn(u16) -> Cow<'static, str>| {
            codes.iter().map(|code| name(*code).into_owned()).collect()
        };
        Self {
            versions: named(&parameters.versions, names::version),
            suites: named(&parameters.suites, names::suite),
            groups: named(&parameters.groups, names::group),
            signature_schemes: named(&parameters.schemes, names::scheme),
        }
    }
}

impl HandshakeCounts {
    fn of(day: &Day) -> Self {
        Self {
            established: day.versions.values().sum(),
            resumed: day.resumed,
            failed: day.verdicts.values().sum(),
            self_tests: day.self_tests,
            by_version: named(&day.versions, names::version),
            by_suite: named(&day.suites, names::suite),
            by_verdict: day.verdicts.iter().map(|(name, n)| (name.to_string(), *n)).collect(),
        }
    }
}

impl MessageCounts {
    fn of(messages: &Messages) -> Self {
        let mut by_version = named(&messages.after_starttls, names::version);
        for (version, count) in named(&messages.tls_first, names::version) {
            *by_version.entry(version).or_default() += count;
        }
        Self {
            over_tls: by_version.values().sum(),
            in_clear: messages.in_clear,
            in_clear_percent: percent(messages.in_clear, messages.all()),
            by_version,
        }
    }
}

impl Floor {
    /// The next step from the least of these versions.
    fn above(versions: &[u16], messages: &Messages) -> Option<Self> {
        let least = versions.iter().min()?;
        let next = *versions.iter().filter(|version| *version > least).min()?;
        let older = |counts: &BTreeMap<u16, u64>| counts.range(..next).map(|(_, n)| n).sum();
        let all = messages.all();
        Some(Self {
            minimum: names::version(next).into_owned(),
            messages: all,
            would_have_come_in_clear_percent: percent(older(&messages.after_starttls), all),
            would_not_have_come_percent: percent(older(&messages.tls_first), all),
        })
    }
}

fn named(counts: &BTreeMap<u16, u64>, name: fn(u16) -> Cow<'static, str>) -> BTreeMap<String, u64> {
    counts.iter().map(|(number, count)| (name(*number).into_owned(), *count)).collect()
}

/// To a hundredth; of nothing there is none.
fn percent(part: u64, all: u64) -> Option<f64> {
    let hundredths = || (10_000.0 * part as f64 / all as f64).round();
    (all > 0).then(|| hundredths() / 100.0)
}
