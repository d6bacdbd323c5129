//! What is an offence, how many are too many, and how long that is remembered.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::Networks;

/// Bounds and rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanSettings {
    /// Sessions of a client within [`window`](Self::window) that end so, and make a ban; 0: none ever. Defaults 3, 3, 100 (a health
    /// check that connects every ten seconds makes 60) and 50.
    pub early_talkers_max: u32,
    pub error_floods_max: u32,
    pub silent_sessions_max: u32,
    pub failed_handshakes_max: u32,
    /// Default 10 minutes.
    pub window: Duration,
    /// Of a first ban. Default 10 minutes: an honest sender that was misjudged comes again later.
    pub lifetime: Duration,
    /// No ban is longer, and one that follows another within this time is twice as long as that. Default a day.
    pub lifetime_max: Duration,
    /// Clients with offences or bans. Default 65,536, which take about 16 MiB.
    pub clients_max: usize,
    /// Never banned. Default the loopback networks: what runs on the host itself.
    pub exempt: Networks,
}

/// The values named in the documentation of each field.
impl Default for BanSettings {
    fn default() -> Self {
        let loopback = [IpAddr::from([127, 0, 0, 0]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        let prefixes = [8, 128];
        let loopback = loopback.into_iter().zip(prefixes);
        Self {
            early_talkers_max: 3,
            error_floods_max: 3,
            silent_sessions_max: 100,
            failed_handshakes_max: 50,
            window: Duration::from_secs(600),
            lifetime: Duration::from_secs(600),
            lifetime_max: Duration::from_secs(86_400),
            clients_max: 65_536,
            exempt: loopback.filter_map(|(of, prefix)| IpNet::new(of, prefix).ok()).collect(),
        }
    }
}

/// What a client is banned for when it does so too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offence {
    /// It talked before the greeting.
    EarlyTalker,
    /// Its session ended for too many errors.
    ErrorFlood,
    /// It connected and said nothing.
    Silent,
    HandshakeFailed,
}

impl Offence {
    /// Every one, in the order of their numbers (`as usize`).
    pub const ALL: [Self; 4] =
        [Self::EarlyTalker, Self::ErrorFlood, Self::Silent, Self::HandshakeFailed];

    /// Whether it costs so little that whoever brings mail is forgiven it.
    pub fn is_forgivable(self) -> bool {
        matches!(self, Self::Silent | Self::HandshakeFailed)
    }

    /// As logs, metrics and the list of bans have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::EarlyTalker => "early_talker",
            Self::ErrorFlood => "error_flood",
            Self::Silent => "silent",
            Self::HandshakeFailed => "handshake_failed",
        }
    }
}

impl BanSettings {
    /// How many of an offence make a ban; 0: none do.
    pub fn allowed(&self, offence: Offence) -> u32 {
        match offence {
            Offence::EarlyTalker => self.early_talkers_max,
            Offence::ErrorFlood => self.error_floods_max,
            Offence::Silent => self.silent_sessions_max,
            Offence::HandshakeFailed => self.failed_handshakes_max,
        }
    }

    /// Of the ban that is the `times`th in a row, in seconds.
    pub(super) fn lifetime_of(&self, times: u32) -> u64 {
        let doubled = self.lifetime.as_secs().saturating_mul(1 << times.saturating_sub(1).min(32));
        doubled.min(self.lifetime_max.as_secs()).max(1)
    }
}
