//! The TOML file, key by key. Nothing is checked here beyond the shape; [`resolve`](super::resolve) does that.
//!
//! Every key is optional in this mirror, so that a missing one is reported by `resolve` with what was expected.

use serde::{Deserialize, Serialize};

use super::values::{Count, DurationText, OneOrMore, Size, Workers};
use super::{FilterMode, PolicyMode, SteeringMode, TlsMode, XdpMode};
use crate::smtp::dialect::Dialect;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct File {
    pub(super) hostname: Option<String>,
    pub(super) state_dir: Option<String>,
    pub(super) workers: Option<Workers>,
    #[serde(default)]
    pub(super) listener: Vec<Listener>,
    #[serde(default)]
    pub(super) tls: Tls,
    #[serde(default)]
    pub(super) recipients: Recipients,
    #[serde(default)]
    pub(super) networks: Networks,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) spool: Spool,
    #[serde(default)]
    pub(super) delivery: Delivery,
    #[serde(default)]
    pub(super) xdp: Xdp,
    #[serde(default)]
    pub(super) bans: Bans,
    #[serde(default)]
    pub(super) control: Control,
    #[serde(default)]
    pub(super) mta_sts: MtaSts,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table with address, tls and protocol")]
pub(super) struct Listener {
    pub(super) address: Option<String>,
    pub(super) tls: Option<TlsMode>,
    pub(super) protocol: Option<Dialect>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Tls {
    #[serde(default)]
    pub(super) certificates: Vec<Certificate>,
    #[serde(default)]
    pub(super) memory: TlsMemory,
}

/// Meaning, unit and default of each: [`MemorySettings`](crate::tls::memory::MemorySettings).
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct TlsMemory {
    pub(super) withhold: Option<DurationText>,
    pub(super) withheld_percent_max: Option<Count>,
    pub(super) peers_max: Option<Count>,
    pub(super) ipv4_prefix: Option<Count>,
    #[serde(default)]
    pub(super) exempt: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table with chain and key")]
pub(super) struct Certificate {
    pub(super) chain: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Recipients {
    pub(super) domains: Option<Vec<String>>,
}

/// Addresses and networks as text. Meaning of each: [`ClientNetworks`](crate::policy::ClientNetworks).
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Networks {
    #[serde(default)]
    pub(super) proxy_protocol: Vec<String>,
    #[serde(default)]
    pub(super) xclient: Vec<String>,
    #[serde(default)]
    pub(super) normalize: Vec<String>,
    #[serde(default)]
    pub(super) undelayed: Vec<String>,
    #[serde(default)]
    pub(super) without_tickets: Vec<String>,
}

/// Meaning, unit and default of each: [`config::Limits`](super::Limits).
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Limits {
    pub(super) idle_timeout: Option<DurationText>,
    pub(super) tls_handshake_timeout: Option<DurationText>,
    pub(super) commit_timeout: Option<DurationText>,
    pub(super) greet_delay: Option<DurationText>,
    pub(super) proxy_header_timeout: Option<DurationText>,
    pub(super) error_delay: Option<DurationText>,
    pub(super) message_bytes_max: Option<Size>,
    pub(super) recipients_max: Option<Count>,
    pub(super) command_line_bytes_max: Option<Size>,
    pub(super) text_line_bytes_max: Option<Size>,
    pub(super) errors_max: Option<Count>,
    pub(super) errors_undelayed_max: Option<Count>,
    pub(super) messages_per_session_max: Option<Count>,
    pub(super) connections_max: Option<Count>,
    pub(super) connections_per_client_max: Option<Count>,
    pub(super) accept_burst_max: Option<Count>,
    pub(super) buffers_per_worker_max: Option<Count>,
    pub(super) handshakes_per_worker_max: Option<Count>,
}

/// Meaning, unit and default of each: [`config::SpoolConfig`](super::SpoolConfig).
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Spool {
    pub(super) segment_bytes_max: Option<Size>,
    pub(super) submissions_max: Option<Count>,
    pub(super) batch_messages_max: Option<Count>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Delivery {
    pub(super) kind: Option<DeliveryKind>,
    pub(super) path: Option<String>,
    pub(super) address: Option<String>,
    #[serde(default)]
    pub(super) extensions: Vec<Extension>,
}

/// Kinds that the file may name; `resolve` says which this version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DeliveryKind {
    Maildir,
    Lmtp,
    Smtp,
    Jetstream,
    Discard,
}

/// SMTP extensions that the system behind may be said to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Extension {
    SmtpUtf8,
    BinaryMime,
    Dsn,
    RequireTls,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Xdp {
    #[serde(default)]
    pub(super) interfaces: Vec<String>,
    pub(super) mode: Option<XdpMode>,
    pub(super) steering: Option<SteeringMode>,
    pub(super) pin_dir: Option<String>,
    pub(super) heartbeat_timeout: Option<DurationText>,
    #[serde(default)]
    pub(super) filter: Filter,
}

/// Meaning, unit and default of each: [`config::FilterConfig`](super::FilterConfig).
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Filter {
    pub(super) mode: Option<FilterMode>,
    #[serde(default)]
    pub(super) allow: Vec<String>,
    #[serde(default)]
    pub(super) deny_files: Vec<String>,
    pub(super) connections_per_second: Option<Count>,
    pub(super) connections_burst: Option<Count>,
    pub(super) pressure_per_second: Option<Count>,
    pub(super) syn_cookies: Option<bool>,
    pub(super) syn_payload_bytes_max: Option<Size>,
    pub(super) sample_every: Option<Count>,
}

/// Meaning, unit and default of each: [`BanSettings`](crate::bans::BanSettings).
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Bans {
    pub(super) early_talkers_max: Option<Count>,
    pub(super) error_floods_max: Option<Count>,
    pub(super) silent_sessions_max: Option<Count>,
    pub(super) failed_handshakes_max: Option<Count>,
    pub(super) window: Option<DurationText>,
    pub(super) lifetime: Option<DurationText>,
    pub(super) lifetime_max: Option<DurationText>,
    pub(super) clients_max: Option<Count>,
    /// Not given: the default, which is not empty.
    pub(super) exempt: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Control {
    pub(super) socket: Option<String>,
    pub(super) metrics: Option<String>,
}

/// Meaning, unit and default of each: [`config::MtaStsConfig`](super::MtaStsConfig).
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct MtaSts {
    pub(super) listen: Option<OneOrMore>,
    pub(super) mode: Option<PolicyMode>,
    pub(super) max_age: Option<DurationText>,
    #[serde(default)]
    pub(super) mx: Vec<String>,
    #[serde(default)]
    pub(super) certificates: Vec<Certificate>,
}
