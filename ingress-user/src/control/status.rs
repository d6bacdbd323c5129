use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::bans;
use crate::config::TlsMode;
use crate::metrics::{Metrics, WorkerMetrics};
use crate::smtp::dialect::Dialect;
use crate::tls::journal::Totals;
use crate::tls::reload::Served;
use crate::worker::clock::Now;

/// What a running daemon tells about itself, and where the numbers come from.
pub struct StatusSource {
    pub metrics: Arc<Metrics>,
    pub hostname: String,
    pub started: Instant,
    /// How connections reach their worker: "queues", "cpumap", "incoming-cpu" or "none".
    pub tier: &'static str,
    /// Why it is not a better one, or what makes it possible.
    pub tier_reason: String,
    /// As bound: no port is 0.
    pub listeners: Vec<ListenerStatus>,
    /// The certificates that clients are given at the moment.
    pub certificates: Box<dyn Fn() -> Vec<Served> + Send + Sync>,
    /// Where the MTA-STS policy is served, and its mode at the moment.
    pub mta_sts: Box<dyn Fn() -> MtaStsStatus + Send + Sync>,
    /// What the journal of TLS handshakes has counted.
    pub tls: Box<dyn Fn() -> Totals + Send + Sync>,
    /// Clients that are banned, and what for.
    pub bans: Box<dyn Fn() -> bans::Totals + Send + Sync>,
    /// Reads the maps of the XDP program. Called for every request, in the control plane.
    pub xdp: Box<dyn Fn() -> XdpStatus + Send + Sync>,
}

impl StatusSource {
    /// A reading of every counter at about the same time. `now` is for the uptime, and for the days that
    /// certificates have left.
    pub fn status(&self, now: Now) -> Status {
        let metrics = &self.metrics;
        let sum = |value: fn(&WorkerMetrics) -> u64| metrics.workers.iter().map(value).sum();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.hostname.clone(),
            uptime_seconds: now.monotonic.saturating_duration_since(self.started).as_secs(),
            listeners: self.listeners.clone(),
            workers: metrics.workers.iter().map(WorkerStatus::from).collect(),
            steering: SteeringStatus {
                tier: self.tier.to_owned(),
                reason: self.tier_reason.clone(),
                local: sum(|worker| worker.steering_local.value()),
                remote: sum(|worker| worker.steering_remote.value()),
            },
            connections: ConnectionsStatus {
                total: sum(|worker| worker.connections.value()),
                open: sum(|worker| worker.connections_open.value()),
                refused: sum(|worker| worker.connections_refused.value()),
            },
            messages: MessagesStatus {
                accepted: sum(|worker| worker.messages_accepted.value()),
                refused: sum(|worker| worker.messages_refused.value()),
                bytes_accepted: sum(|worker| worker.bytes_accepted.value()),
                delivered: metrics.delivery.delivered.value(),
                deferred: metrics.delivery.deferred.value(),
            },
            sessions: SessionsStatus {
                closed: metrics
                    .sessions_closed()
                    .map(|(why, count)| (why.label().to_owned(), count))
                    .collect(),
            },
            tls: TlsStatus {
                handshakes_completed: sum(|worker| worker.tls_handshakes_completed.value()),
                handshakes_failed: sum(|worker| worker.tls_handshakes_failed.value()),
                broken: metrics
                    .tls_breaks()
                    .map(|(kind, count)| (kind.label().to_owned(), count))
                    .collect(),
                certificates: (self.certificates)()
                    .iter()
                    .map(|served| CertificateStatus::of(served, now.wall))
                    .collect(),
            },
            spool: SpoolStatus {
                pending: metrics.spool.pending.value(),
                segments: metrics.spool.segments.value(),
                syncs: metrics.spool.syncs.value(),
                bytes_written: metrics.spool.bytes_written.value(),
                damaged: metrics.spool.damaged.value(),
                poisoned: metrics.spool.poisoned.value() != 0,
            },
            bans: BansStatus::of(&(self.bans)()),
            xdp: (self.xdp)(),
            mta_sts: (self.mta_sts)(),
        }
    }
}

/// The document behind `ingress status --json`. Fields are added, never renamed: scripts read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub hostname: String,
    pub uptime_seconds: u64,
    pub listeners: Vec<ListenerStatus>,
    pub workers: Vec<WorkerStatus>,
    pub steering: SteeringStatus,
    pub connections: ConnectionsStatus,
    pub messages: MessagesStatus,
    pub sessions: SessionsStatus,
    pub tls: TlsStatus,
    pub spool: SpoolStatus,
    pub bans: BansStatus,
    pub xdp: XdpStatus,
    pub mta_sts: MtaStsStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub address: SocketAddr,
    pub protocol: Dialect,
    pub tls: TlsMode,
}

/// One worker's counters, by the names of [`WorkerMetrics`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub cpu: usize,
    pub connections_total: u64,
    pub connections_open: u64,
    pub connections_refused: u64,
    pub steering_local: u64,
    pub steering_remote: u64,
    pub messages_accepted: u64,
    pub messages_refused: u64,
    pub bytes_accepted: u64,
    pub commands_refused: u64,
    pub tls_handshakes_completed: u64,
    pub tls_handshakes_failed: u64,
    pub buffers_lent: u64,
    pub buckets: u64,
}

impl From<&WorkerMetrics> for WorkerStatus {
    fn from(worker: &WorkerMetrics) -> Self {
        Self {
            cpu: worker.cpu,
            connections_total: worker.connections.value(),
            connections_open: worker.connections_open.value(),
            connections_refused: worker.connections_refused.value(),
            steering_local: worker.steering_local.value(),
            steering_remote: worker.steering_remote.value(),
            messages_accepted: worker.messages_accepted.value(),
            messages_refused: worker.messages_refused.value(),
            bytes_accepted: worker.bytes_accepted.value(),
            commands_refused: worker.commands_refused.value(),
            tls_handshakes_completed: worker.tls_handshakes_completed.value(),
            tls_handshakes_failed: worker.tls_handshakes_failed.value(),
            buffers_lent: worker.buffers_lent.value(),
            buckets: worker.buckets.value(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsStatus {
    /// Sessions that the server ended, by reason.
    pub closed: BTreeMap<String, u64>,
}

/// Accepted connections whose SO_INCOMING_CPU was (local) and was not (remote) the worker's CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteeringStatus {
    pub tier: String,
    pub reason: String,
    pub local: u64,
    pub remote: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsStatus {
    pub total: u64,
    pub open: u64,
    pub refused: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagesStatus {
    pub accepted: u64,
    pub refused: u64,
    pub bytes_accepted: u64,
    pub delivered: u64,
    /// Attempts, not messages.
    pub deferred: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsStatus {
    pub handshakes_completed: u64,
    pub handshakes_failed: u64,
    /// Connections whose TLS broke after the handshake, by what broke it.
    pub broken: BTreeMap<String, u64>,
    /// In the operator's order.
    pub certificates: Vec<CertificateStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The chain's.
    pub file: PathBuf,
    /// DNS names of the subjectAltName.
    pub names: Vec<String>,
    /// RFC 3339.
    pub not_after: String,
    /// Whole days; negative once it has expired.
    pub days_left: i64,
}

impl CertificateStatus {
    fn of(served: &Served, now: SystemTime) -> Self {
        Self {
            file: served.file.clone(),
            names: served.names.iter().map(str::to_owned).collect(),
            not_after: served.not_after.to_string(),
            days_left: served.not_after.days_left(now),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    pub pending: u64,
    pub segments: u64,
    pub syncs: u64,
    pub bytes_written: u64,
    pub damaged: u64,
    /// No mail is accepted until restart.
    pub poisoned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BansStatus {
    /// In force.
    pub now: u64,
    /// Since the start, by reason.
    pub begun: BTreeMap<String, u64>,
}

impl BansStatus {
    fn of(totals: &bans::Totals) -> Self {
        let begun = totals.by_reason.iter();
        let begun = begun.map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Self { now: totals.now, begun }
    }
}

/// The policy that is served over HTTPS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtaStsStatus {
    /// As bound: no port is 0. Empty: it is not served.
    pub addresses: Vec<SocketAddr>,
    /// "testing", "enforce" or "none"; null where it is not served.
    pub mode: Option<String>,
}

/// Empty throughout when no program is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpStatus {
    pub interfaces: Vec<XdpInterfaceStatus>,
    /// Packets by verdict, over all interfaces, queues and CPUs.
    pub verdicts: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpInterfaceStatus {
    pub name: String,
    /// "native", "generic" or "none".
    pub mode: String,
    /// Those that had a packet.
    pub queues: Vec<XdpQueueStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpQueueStatus {
    pub queue: u32,
    pub packets: u64,
    /// Of them.
    pub dropped: u64,
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::smtp::reply::Closing;
    use crate::tls::expiry::NotAfter;

    /// Two workers that have seen something, and one interface.
    pub(in crate::control) fn source() -> StatusSource {
        let metrics = Metrics::new(&[0, 3]);
        metrics.workers[0].connections.add(5);
        metrics.workers[0].steering_local.add(5);
        metrics.workers[1].connections.add(2);
        metrics.workers[1].steering_remote.add(2);
        metrics.workers[1].messages_accepted.add(7);
        metrics.workers[1].count_closing(Closing::EarlyTalker);
        metrics.workers[0].buckets.set(144);
        metrics.workers[1].buckets.set(112);
        metrics.spool.pending.add(4);
        metrics.delivery.delivered.add(3);
        StatusSource {
            metrics: Arc::new(metrics),
            hostname: "mx.example.net".to_owned(),
            started: Now::read().monotonic,
            tier: "cpumap",
            tier_reason: "2 queues for 2 workers".to_owned(),
            listeners: vec![ListenerStatus {
                address: ([127, 0, 0, 1], 2525).into(),
                protocol: Dialect::Smtp,
                tls: TlsMode::StartTls,
            }],
            certificates: Box::new(|| {
                let served = Served {
                    file: "/etc/mx.pem".into(),
                    names: ["mx.example.net", "*.example.org"].into_iter().collect(),
                    not_after: NotAfter::from_unix_seconds(1_800_000_000),
                    key: None,
                    is_self_signed: false,
                };
                vec![served]
            }),
            mta_sts: Box::new(|| MtaStsStatus {
                addresses: vec![([127, 0, 0, 1], 4443).into()],
                mode: Some("testing".to_owned()),
            }),
            tls: Box::new(|| Totals {
                verdicts: [("cbc_only", 2)].into(),
                withheld: 1,
                ..Totals::default()
            }),
            bans: Box::new(|| bans::Totals {
                now: 2,
                by_reason: [("early_talker", 3)].into(),
                missed: 0,
            }),
            xdp: Box::new(|| XdpStatus {
                interfaces: vec![XdpInterfaceStatus {
                    name: "eth0".to_owned(),
                    mode: "native".to_owned(),
                    queues: vec![XdpQueueStatus { queue: 1, packets: 33, dropped: 4 }],
                }],
                verdicts: [("pass".to_owned(), 11), ("steer".to_owned(), 22)].into(),
            }),
        }
    }

    /// So long after the start, ten and a half days before the certificate ends.
    pub(in crate::control) fn after(source: &StatusSource, uptime: Duration) -> Now {
        let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000 - 10 * 86_400 - 43_200);
        Now { monotonic: source.started + uptime, wall }
    }

    #[test]
    fn the_names_that_scripts_read_are_there() {
        let source = source();
        let later = after(&source, Duration::from_secs(90));
        let json = serde_json::to_value(source.status(later)).unwrap();
        let at =
            |pointer: &str| json.pointer(pointer).cloned().unwrap_or_else(|| panic!("{pointer}"));
        assert_eq!(at("/workers/1/cpu"), 3);
        assert_eq!(at("/workers/0/connections_total"), 5);
        assert_eq!(at("/workers/0/buckets"), 144);
        assert_eq!(at("/steering/tier"), "cpumap");
        assert_eq!(at("/steering/local"), 5);
        assert_eq!(at("/steering/remote"), 2);
        assert_eq!(at("/messages/accepted"), 7);
        assert_eq!(at("/messages/delivered"), 3);
        assert_eq!(at("/spool/pending"), 4);
        assert_eq!(at("/sessions/closed/early_talker"), 1);
        assert_eq!(at("/bans/now"), 2);
        assert_eq!(at("/bans/begun/early_talker"), 3);
        assert_eq!(at("/xdp/interfaces/0/mode"), "native");
        assert_eq!(at("/xdp/verdicts/pass"), 11);
        assert_eq!(at("/uptime_seconds"), 90);
        assert_eq!(at("/listeners/0/tls"), "starttls");
        assert_eq!(at("/tls/certificates/0/file"), "/etc/mx.pem");
        assert_eq!(at("/tls/certificates/0/names/1"), "*.example.org");
        assert_eq!(at("/tls/certificates/0/not_after"), "2027-01-15T08:00:00Z");
        assert_eq!(at("/tls/certificates/0/days_left"), 10);
        assert_eq!(at("/mta_sts/addresses/0"), "127.0.0.1:4443");
        assert_eq!(at("/mta_sts/mode"), "testing");
    }

    #[test]
    fn a_status_survives_its_way_as_json() {
        let status = source().status(Now::read());
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
