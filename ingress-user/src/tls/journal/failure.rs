//! Failures explained, of which the last are kept in full.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::event::Failed;
use crate::tls::offer::{self, Offer};
use crate::tls::verdict::{self, Ending, NextTry, Own, Parameters, Stage, Verdict};

/// Failures kept in full. Older ones are in the counts.
pub(super) const FAILURES_MAX: usize = 2_000;

/// Entries kept of each list of an offer: a real client's suites are half of that, and with the longest lists in all failures
/// the archive has about 10 MiB.
const LIST_ENTRIES_MAX: usize = 200;

/// One failed handshake, explained when it happened: what the server can may change later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) client: IpAddr,
    pub(super) network: IpNet,
    pub(super) helo: Option<Box<str>>,
    pub(super) implicit: bool,
    pub(super) stage: Stage,
    pub(super) ending: Ending,
    pub(super) alert_sent: Option<u8>,
    pub(super) server_name: Option<Box<str>>,
    /// `None` without a ClientHello that can be read.
    pub(super) offered: Option<Parameters>,
    /// What of it we could have used.
    pub(super) usable: Option<Parameters>,
    /// By its name.
    pub(super) verdict: Cow<'static, str>,
    pub(super) explanation: Box<str>,
    /// When its last mail had come by then. Seconds are too long to tell by the time alone what came before and what after.
    #[serde(default)]
    pub(super) mail_before: LastMail,
}

/// When a peer's last mail came, in seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastMail {
    pub(super) over_tls: Option<u64>,
    pub(super) in_clear: Option<u64>,
}

/// The last failures, oldest first.
#[derive(Debug, Default)]
pub(super) struct Failures(pub(super) VecDeque<Failure>);

impl Failures {
    /// What was kept of the time before this start, without what a wrong clock dated to come.
    pub(super) fn restored(mut failures: Vec<Failure>, now: u64) -> Self {
        failures.retain(|failure| failure.at <= now);
        let surplus = failures.len().saturating_sub(FAILURES_MAX);
        Self(failures.into_iter().skip(surplus).collect())
    }

    pub(super) fn push(&mut self, failure: Failure) {
        if self.0.len() >= FAILURES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(failure);
    }

    /// From the latest on.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Failure> {
        self.0.iter().rev()
    }
}

/// What the octets tell of a failure.
pub(super) struct Findings {
    pub(super) verdict: Verdict,
    pub(super) offer: Option<Offer>,
    pub(super) usable: Option<Parameters>,
}

impl Findings {
    pub(super) fn of(failed: &Failed, own: &Own) -> Self {
        let offer = offer::parse(&failed.hello);
        let verdict = verdict::verdict(&offer, own, failed.stage, failed.ending);
        let offer = offer.ok();
        let usable = offer.as_ref().map(|offer| verdict::usable(offer, own));
        Self { verdict, offer, usable }
    }
}

/// Who it was that failed.
pub(super) struct Peer {
    pub(super) client: IpAddr,
    pub(super) network: IpNet,
    pub(super) helo: Option<Box<str>>,
    pub(super) implicit: bool,
    pub(super) mail_before: LastMail,
}

impl Failure {
    pub(super) fn new(
        at: u64,
        peer: Peer,
        failed: &Failed,
        findings: Findings,
        next: NextTry,
    ) -> Self {
        let Peer { client, network, helo, implicit, mail_before } = peer;
        let Findings { verdict, offer, usable } = findings;
        let (server_name, offered) = offer.map_or((None, None), |offer| {
            let Offer { versions, suites, groups, schemes, server_name, .. } = offer;
            let offered = bounded(Parameters { versions, suites, groups, schemes });
            (server_name.map(Into::into), Some(offered))
        });
        Self {
            at,
            client,
            network,
            helo,
            implicit,
            stage: failed.stage,
            ending: failed.ending,
            alert_sent: failed.alert_sent,
            server_name,
            offered,
            usable,
            verdict: verdict.name().into(),
            explanation: verdict.explain(next).to_string().into(),
            mail_before,
        }
    }
}

fn bounded(mut parameters: Parameters) -> Parameters {
    let Parameters { versions, suites, groups, schemes } = &mut parameters;
    for list in [versions, suites, groups, schemes] {
        list.truncate(LIST_ENTRIES_MAX);
        list.shrink_to_fit();
    }
    parameters
}
