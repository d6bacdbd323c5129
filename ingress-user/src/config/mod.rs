//! Configuration: what the file says (`file`, a mirror of the TOML), checked and completed once (`resolve`), and
//! handed out as typed parts. [`Config`] is taken apart at start; no other module sees it whole.
//!
//! [`Config::load`] and [`Config::embedded`] are the ways in. `Config` displays as a file that resolves to itself.

mod defaults;
mod display;
mod error;
mod file;
mod load;
mod resolve;
mod source;
#[cfg(test)]
mod tests;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::error::ConfigError;
use crate::bans::BanSettings;
use crate::policy::{ClientNetworks, Networks, RecipientDomains, TargetExtensions};
use crate::smtp::dialect::Dialect;
use crate::tls::memory::MemorySettings;

/// The resolved configuration: every value checked, every default filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name in the greeting, in `Received:` and in self-signed certificates.
    pub hostname: String,
    /// Where the spool and the generated certificate live.
    pub state_dir: PathBuf,
    /// CPUs that get a worker each, without repeats, never empty.
    pub worker_cpus: Vec<usize>,
    pub listeners: Vec<ListenerConfig>,
    pub tls: TlsConfig,
    pub recipients: RecipientDomains,
    pub networks: ClientNetworks,
    pub limits: Limits,
    pub spool: SpoolConfig,
    pub delivery: DeliveryConfig,
    /// What the system behind `delivery` can do: what its kind is known to, and what the file adds.
    pub target: TargetExtensions,
    pub xdp: XdpConfig,
    pub bans: BanSettings,
    pub control: ControlConfig,
    pub mta_sts: MtaStsConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    pub address: SocketAddr,
    pub tls: TlsMode,
    pub dialect: Dialect,
}

impl Config {
    /// The rules for bans, with all networks in them that other sections exempt.
    pub fn bans_with_exempt(&self) -> BanSettings {
        let ClientNetworks { proxy_protocol, xclient, undelayed, .. } = &self.networks;
        let lists =
            [&self.bans.exempt, proxy_protocol, xclient, undelayed, &self.tls.memory.exempt];
        let exempt = lists.into_iter().flat_map(Networks::iter).chain(&self.xdp.filter.allow);
        BanSettings { exempt: exempt.copied().collect(), ..self.bans.clone() }
    }
}

/// When a listener speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Never; STARTTLS is not announced.
    Off,
    /// After the STARTTLS command (RFC 3207).
    StartTls,
    /// From the first byte (RFC 8314 section 3.3).
    Implicit,
}

impl TlsMode {
    /// As the file has it.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::StartTls => "starttls",
            Self::Implicit => "implicit",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct TlsConfig {
    /// PEM files, in the operator's order of preference. Empty: self-signed, kept in the state folder.
    pub certificates: Vec<CertificateFiles>,
    /// Whom not to offer STARTTLS after failed handshakes.
    pub memory: MemorySettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// Bounds on what one client, and all clients together, may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Wait for the next command or data block. Default 300 s (RFC 5321 4.5.3.2.7: at least 5 minutes).
    pub idle_timeout: Duration,
    /// Wait for a TLS handshake to finish. Default 60 s.
    pub tls_handshake_timeout: Duration,
    /// Wait for the spool before the client is told 451. Default 300 s (RFC 5321 4.5.3.2.6: the client waits 10 minutes).
    pub commit_timeout: Duration,
    /// Pause before the greeting; a client that talks in it is an early talker. Default 0 s, off: every honest sender
    /// would wait that long too.
    pub greet_delay: Duration,
    /// Wait for the whole PROXY protocol header of a load balancer, which sends it at once. Default 5 s.
    pub proxy_header_timeout: Duration,
    /// Pause before the reply to a refused command, once a session has had `errors_undelayed_max` of them. Default 1 s;
    /// 0 s is off.
    pub error_delay: Duration,
    /// Announced as SIZE (RFC 1870). Default 50 MiB.
    pub message_bytes_max: u64,
    /// Accepted RCPT commands in one transaction. Default 1,000 (RFC 5321 4.5.3.1.8: at least 100).
    pub recipients_max: usize,
    /// Command line with its CRLF. Default 2,048 octets (RFC 5321 4.5.3.1.4: at least 512; extensions add to it).
    pub command_line_bytes_max: usize,
    /// Line of message text with its CRLF. Default 1 MiB: lines are not buffered here, the bound protects what
    /// reads the message next (RFC 5321 4.5.3.1.6: at least 1,000).
    pub text_line_bytes_max: u64,
    /// Refused commands in one session before 421. Default 20.
    pub errors_max: u32,
    /// Refused commands in one session that are answered at once; the ones after them wait `error_delay`. Default 10,
    /// as Postfix's smtpd_soft_error_limit.
    pub errors_undelayed_max: u32,
    /// Transactions in one session. Default 10,000; announced as LIMITS MAILMAX (RFC 9422).
    pub messages_per_session_max: u32,
    /// Connections of all workers together. Default 10,000.
    pub connections_max: usize,
    /// Connections of one client address. Default 50.
    pub connections_per_client_max: usize,
    /// Connections taken in one turn of a worker's loop, so that a flood of new ones does not starve the open ones.
    /// Default 64.
    pub accept_burst_max: usize,
    /// Receive buffers of one worker, 64 KiB each, allocated when needed. Default 2,048 (128 MiB).
    pub buffers_per_worker_max: usize,
    /// TLS handshakes of one worker that are not through yet. Full: 454, so that a flood of half-open handshakes does not take
    /// the memory and the time of those that are honest. Default 1,000.
    pub handshakes_per_worker_max: usize,
}

#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// A segment is closed and a new one begun at this size. Default 64 MiB.
    pub segment_bytes_max: u64,
    /// Messages waiting for the writer, over all workers. Full: 452. Default 1,024.
    pub submissions_max: usize,
    /// Messages made durable by one fdatasync. Default 256.
    pub batch_messages_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryConfig {
    /// Into a Maildir (tmp, new, cur below this folder).
    Maildir { path: PathBuf },
    /// Into nothing: for load tests.
    Discard,
}

#[derive(Debug, Clone)]
pub struct XdpConfig {
    /// Empty, which is the default: XDP is off.
    pub interfaces: Vec<String>,
    /// Default `auto`, as of the next.
    pub mode: XdpMode,
    pub steering: SteeringMode,
    /// On a BPF file system: where maps outlive a daemon. Default /sys/fs/bpf/ingress.
    pub pin_dir: PathBuf,
    /// So long after its last sign of life the daemon counts as gone, and XDP passes every packet. Default 10 s.
    pub heartbeat_timeout: Duration,
    pub filter: FilterConfig,
}

/// What XDP drops before the stack sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterConfig {
    pub mode: FilterMode,
    /// Never dropped and never banned: health checks, monitoring, the hosts that the operator comes from.
    pub allow: Vec<IpNet>,
    /// Files with a network a line that is not served.
    pub deny_files: Vec<PathBuf>,
    /// New connections of one source (an IPv4 address, an IPv6 network of /64). Default 50; 0: no limit.
    pub connections_per_second: u32,
    /// So many of them at once. Default 500.
    pub connections_burst: u32,
    /// New connections that one CPU sees, of sources that have not proved to be there, before those have to try twice. Default
    /// 2,000; 0: never.
    pub pressure_per_second: u32,
    /// Whether such a SYN is answered with a cookie instead, in mode `drop`. Default no: a connection made so has no options but the
    /// segment size.
    pub syn_cookies: bool,
    /// Octets that a SYN may carry; TCP Fast Open (RFC 7413) puts data there. Default 0.
    pub syn_payload_bytes_max: u32,
    /// Beside the first drop of each source, one of so many is sampled, rounded up to a power of two. Default
    /// 8,192; 0: no samples at all.
    pub sample_every: u32,
}

impl FilterConfig {
    /// Whether the program answers anybody: a monitor changes nothing.
    pub fn sends_cookies(&self) -> bool {
        self.syn_cookies && self.mode == FilterMode::Drop
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterMode {
    /// Nothing is looked at.
    Off,
    /// What would be dropped is counted, sampled and passed.
    Monitor,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Never attach.
    Off,
    /// Native where the driver can, else none, with a warning.
    Auto,
    /// Native or exit.
    Native,
    /// In the stack (SKB mode) or exit. Never together with cpumap.
    Generic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SteeringMode {
    /// The best tier that this machine can do.
    Auto,
    /// One RX queue per worker: XDP passes, the queue's CPU is the connection's.
    Queues,
    /// XDP redirects each connection to its worker's CPU.
    Cpumap,
    /// Nothing is steered.
    Off,
}

#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Unix socket of the admin interface, file mode 0660.
    pub socket: PathBuf,
    /// Prometheus text at /metrics; none: not served.
    pub metrics: Option<SocketAddr>,
}

/// The MTA-STS policy (RFC 8461) of the domains, and where it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MtaStsConfig {
    /// Served over HTTPS here. None: not served, and only printed by `ingress dns`.
    pub listen: Vec<SocketAddr>,
    pub mode: PolicyMode,
    /// How long senders keep the policy, in whole seconds. Default 14 days: RFC 8461 3.2 expects weeks or more, and two of them
    /// still let a mistake run out.
    pub max_age: Duration,
    /// Other hosts that take mail for the domains, in lower case; `*.` stands for one label (RFC 8461 3.2). Default none.
    pub mx: Vec<String>,
    /// For the HTTPS listeners. Empty: those of [`TlsConfig`].
    pub certificates: Vec<CertificateFiles>,
}

impl MtaStsConfig {
    /// Why nothing is served in spite of an address, where it is so.
    pub fn remark(&self, domains: &RecipientDomains) -> Option<&'static str> {
        let is_in_vain = !self.listen.is_empty() && *domains == RecipientDomains::Any;
        is_in_vain.then_some(
            "recipients.domains is \"*\", so there is no domain to serve an MTA-STS policy for (mta_sts.listen)",
        )
    }
}

/// What a sender does when this host does not satisfy the policy (RFC 8461 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// Enforce where senders can verify the certificates, else testing.
    Auto,
    /// It reports, and delivers all the same.
    Testing,
    /// It does not deliver.
    Enforce,
    /// It does as if there was no policy: the way out of one (RFC 8461 8.3).
    None,
}
