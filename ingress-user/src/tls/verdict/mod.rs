//! Why a handshake failed, in words that an operator can act on.
//!
//! The cause is computed from what the client offered and what we can, not from the TLS library's error: that one calls it
//! "no common signature scheme" as well when no cipher suite fits, and knows nothing of clients older than TLS 1.2.

mod fit;
mod text;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::fit::refusal;
pub use self::fit::{Parameters, usable};
pub use self::text::Explanation;
use super::offer::{Foreign, Offer, OfferError};

/// How far a handshake got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// No whole ClientHello came.
    Nothing,
    HelloReceived,
    /// Our answer with the certificate, or with the wish for another key share, was sent.
    FlightSent,
    /// The handshake was through, and then the connection ended before any use was made of it.
    Finished,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    ClosedByClient,
    TimedOut,
    AlertReceived(u8),
    /// The TLS library gave up and sent an alert.
    WeRefused,
}

impl Ending {
    /// For JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClosedByClient => "closed_by_client",
            Self::TimedOut => "timed_out",
            Self::AlertReceived(_) => "alert_received",
            Self::WeRefused => "we_refused",
        }
    }
}

/// What the client's next try meets, which is for the sentence to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextTry {
    /// STARTTLS will not be offered to it.
    InClear,
    /// STARTTLS goes on being offered to it.
    StartTls,
    /// TLS comes first on this listener, and nothing in clear.
    TlsFirst,
}

/// A type of certificate key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    EcdsaP256,
    EcdsaP384,
    Ed25519,
    Rsa,
}

impl KeyKind {
    /// In the order in which a missing one is recommended: what most clients can use first.
    pub const ALL: [Self; 4] = [Self::Rsa, Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519];

    /// What such a key can sign with. No SHA-1, and each curve with its own hash only.
    pub fn schemes(self) -> &'static [u16] {
        match self {
            Self::EcdsaP256 => &[0x0403],
            Self::EcdsaP384 => &[0x0503],
            Self::Ed25519 => &[0x0807],
            Self::Rsa => &[0x0806, 0x0805, 0x0804, 0x0601, 0x0501, 0x0401],
        }
    }
}

/// What this server can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub versions: Vec<u16>,
    pub suites: Vec<u16>,
    pub groups: Vec<u16>,
    /// They follow from the keys of the configured certificates.
    pub schemes: Vec<u16>,
}

impl Own {
    /// The TLS library's versions, suites and groups, with certificates of these kinds.
    pub fn with_keys(keys: &[KeyKind]) -> Self {
        Self {
            versions: vec![TLS_1_3, TLS_1_2],
            suites: [TLS_1_3_SUITES.as_slice(), &ECDSA_SUITES, &RSA_SUITES].concat(),
            groups: vec![0x001d, 0x0017, 0x0018],
            schemes: keys.iter().flat_map(|key| key.schemes()).copied().collect(),
        }
    }
}

const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;
const TLS_1_3_SUITES: [u16; 3] = [0x1302, 0x1301, 0x1303];
/// Of TLS 1.2, for ECDSA and Ed25519 keys (RFC 8422 2).
const ECDSA_SUITES: [u16; 3] = [0xc02c, 0xc02b, 0xcca9];
/// Of TLS 1.2, for RSA keys.
const RSA_SUITES: [u16; 3] = [0xc030, 0xc02f, 0xcca8];

/// No suites but signals in their list: RFC 5746 3.3 and RFC 7507.
const SIGNALS: [u16; 2] = [0x00ff, 0x5600];

/// The cause of a failed handshake. [`explain`](Self::explain) says it in a sentence, and what can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Connected and said nothing until the time was up.
    NoHello,
    ClosedBeforeHello,
    /// The hello's beginning came, and no more.
    IncompleteHello {
        octets: usize,
    },
    NotTls {
        foreign: Foreign,
        /// We refused it. Otherwise the client went away before there was enough to refuse.
        refused: bool,
    },
    /// A hello in the format of SSL 2.0.
    Ssl2Hello,
    MalformedHello(&'static str),
    /// The highest version offered.
    OldVersionsOnly(u16),
    /// Versions that we do not know, such as drafts.
    NoCommonVersion(Vec<u16>),
    RsaKeyExchangeOnly,
    /// Ephemeral keys on elliptic curves, but no AEAD suite.
    CbcOnly,
    /// Forward secrecy by finite-field Diffie-Hellman alone.
    DheOnly,
    /// The suites offered.
    NoCommonSuite(Vec<u16>),
    /// The groups offered.
    NoCommonGroup(Vec<u16>),
    NoCommonScheme {
        /// Those of the offered schemes that some certificate could serve; all of them if none could.
        offered: Vec<u16>,
        /// The certificate that would have fitted, if one would.
        remedy: Option<KeyKind>,
    },
    /// The alert that says so.
    DistrustsCertificate(u8),
    ClientAlert(u8),
    ClosedAfterHello,
    TimedOutAfterHello,
    ClosedAfterFlight,
    TimedOutAfterFlight,
    /// All fits, and yet we refused.
    ProtocolViolation {
        after_flight: bool,
    },
    BrokeAfterFinish(Ending),
}

impl Verdict {
    /// For metrics and JSON. Never changes for a cause.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoHello => "no_hello",
            Self::ClosedBeforeHello => "closed_before_hello",
            Self::IncompleteHello { .. } => "incomplete_hello",
            Self::NotTls { .. } => "not_tls",
            Self::Ssl2Hello => "ssl2_hello",
            Self::MalformedHello(_) => "malformed_hello",
            Self::OldVersionsOnly(_) => "old_versions_only",
            Self::NoCommonVersion(_) => "no_common_version",
            Self::RsaKeyExchangeOnly => "rsa_key_exchange_only",
            Self::CbcOnly => "cbc_only",
            Self::DheOnly => "dhe_only",
            Self::NoCommonSuite(_) => "no_common_suite",
            Self::NoCommonGroup(_) => "no_common_group",
            Self::NoCommonScheme { .. } => "no_common_scheme",
            Self::DistrustsCertificate(_) => "distrusts_certificate",
            Self::ClientAlert(_) => "client_alert",
            Self::ClosedAfterHello => "closed_after_hello",
            Self::TimedOutAfterHello => "timed_out_after_hello",
            Self::ClosedAfterFlight => "closed_after_flight",
            Self::TimedOutAfterFlight => "timed_out_after_flight",
            Self::ProtocolViolation { .. } => "protocol_violation",
            Self::BrokeAfterFinish(_) => "broke_after_finish",
        }
    }

    /// One sentence, true of the listener and of what the memory of peers made of the failure.
    pub fn explain(&self, next: NextTry) -> Explanation<'_> {
        Explanation { verdict: self, next }
    }

    /// Whether both sides have no TLS in common, so that only a try in clear can succeed.
    ///
    /// Never after an end of file, a timeout or an alert: whoever cuts connections must not gain a try in clear by it.
    pub fn is_negotiation(&self) -> bool {
        match self {
            Self::Ssl2Hello
            | Self::MalformedHello(_)
            | Self::OldVersionsOnly(_)
            | Self::NoCommonVersion(_)
            | Self::RsaKeyExchangeOnly
            | Self::CbcOnly
            | Self::DheOnly
            | Self::NoCommonSuite(_)
            | Self::NoCommonGroup(_)
            | Self::NoCommonScheme { .. } => true,
            // Others have come to the wrong port, or through a balancer that was not announced.
            Self::NotTls { foreign, refused } => {
                *refused && matches!(foreign, Foreign::Smtp | Foreign::Unknown(_))
            }
            Self::ProtocolViolation { after_flight } => !after_flight,
            Self::NoHello
            | Self::ClosedBeforeHello
            | Self::IncompleteHello { .. }
            | Self::DistrustsCertificate(_)
            | Self::ClientAlert(_)
            | Self::ClosedAfterHello
            | Self::TimedOutAfterHello
            | Self::ClosedAfterFlight
            | Self::TimedOutAfterFlight
            | Self::BrokeAfterFinish(_) => false,
        }
    }
}

/// The cause of a failed handshake, from what [`super::offer::parse`] made of the client's first octets.
pub fn verdict(
    offer: &Result<Offer, OfferError>,
    own: &Own,
    stage: Stage,
    ending: Ending,
) -> Verdict {
    let ending = match ending {
        // RFC 8446 6.1: the proper way to close.
        Ending::AlertReceived(CLOSE_NOTIFY) => Ending::ClosedByClient,
        Ending::AlertReceived(alert) if is_about_certificate(alert) => {
            return Verdict::DistrustsCertificate(alert);
        }
        other => other,
    };
    match (stage, ending) {
        (Stage::Finished, ending) => Verdict::BrokeAfterFinish(ending),
        (_, Ending::AlertReceived(alert)) => Verdict::ClientAlert(alert),
        (Stage::FlightSent, Ending::ClosedByClient) => Verdict::ClosedAfterFlight,
        (Stage::FlightSent, Ending::TimedOut) => Verdict::TimedOutAfterFlight,
        (Stage::FlightSent, Ending::WeRefused) => Verdict::ProtocolViolation { after_flight: true },
        (Stage::Nothing | Stage::HelloReceived, ending) => match offer {
            Ok(offer) => before_flight(offer, own, ending),
            Err(error) => without_offer(error, ending),
        },
    }
}

const CLOSE_NOTIFY: u8 = 0;

/// From bad_certificate to unknown_ca without illegal_parameter, and bad_certificate_status_response.
fn is_about_certificate(alert: u8) -> bool {
    matches!(alert, 42..=46 | 48 | 113)
}

fn without_offer(error: &OfferError, ending: Ending) -> Verdict {
    match (error, ending) {
        (OfferError::NotTls(Foreign::Ssl2Hello), Ending::WeRefused) => Verdict::Ssl2Hello,
        (OfferError::NotTls(foreign), ending) => {
            Verdict::NotTls { foreign: foreign.clone(), refused: ending == Ending::WeRefused }
        }
        (OfferError::Malformed(reason), Ending::WeRefused) => Verdict::MalformedHello(reason),
        // The TLS library had nothing against it so far, so it is not the cause.
        (OfferError::Malformed(_), Ending::ClosedByClient) => Verdict::ClosedAfterHello,
        (OfferError::Malformed(_), _) => Verdict::TimedOutAfterHello,
        (OfferError::Incomplete { .. }, Ending::WeRefused) => {
            Verdict::MalformedHello("its first part alone was refused")
        }
        (OfferError::Incomplete { octets }, _) => Verdict::IncompleteHello { octets: *octets },
        (OfferError::Nothing, Ending::ClosedByClient) => Verdict::ClosedBeforeHello,
        (OfferError::Nothing, _) => Verdict::NoHello,
    }
}

fn before_flight(offer: &Offer, own: &Own, ending: Ending) -> Verdict {
    match ending {
        Ending::ClosedByClient => Verdict::ClosedAfterHello,
        Ending::TimedOut => Verdict::TimedOutAfterHello,
        Ending::AlertReceived(alert) => Verdict::ClientAlert(alert),
        Ending::WeRefused => {
            refusal(offer, own).unwrap_or(Verdict::ProtocolViolation { after_flight: false })
        }
    }
}
