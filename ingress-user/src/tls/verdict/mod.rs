//! Why a handshake failed, in words that an operator can act on.
//!
//! The cause is computed from what the client offered and what we can, not from the TLS library's error: that one calls it
//! "no common signature scheme" as well when no cipher suite fits, and knows nothing of clients older than TLS 1.2.

mod text;

#[cfg(test)]
mod tests;

use super::names;
use super::offer::{Foreign, Offer, OfferError};

/// How far a handshake got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    ClosedByClient,
    TimedOut,
    AlertReceived(u8),
    /// The TLS library gave up and sent an alert.
    WeRefused,
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

/// The cause of a failed handshake. Displays as a sentence that says what can be done.
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

/// What the two sides do not have in common. In the order of the cause: a scheme is of no use without a suite.
fn refusal(offer: &Offer, own: &Own) -> Option<Verdict> {
    let common = common(&offer.versions, &own.versions);
    // The newest common version decides alone: there is no second attempt with an older one.
    let Some(version) = common.max() else {
        return Some(no_version(offer, own));
    };
    let is_of_version = |suite: &u16| (version >= TLS_1_3) == is_tls_1_3_suite(*suite);
    let suites: Vec<u16> = self::common(&offer.suites, &own.suites).filter(is_of_version).collect();
    if suites.is_empty() {
        return Some(no_suite(offer, version));
    }
    if self::common(&offer.groups, &own.groups).next().is_none() {
        return Some(Verdict::NoCommonGroup(offer.groups.clone()));
    }
    let usable = usable_schemes(offer, &suites, version);
    if self::common(&usable, &own.schemes).next().is_some() {
        return None;
    }
    let would_fit = |key: &KeyKind| self::common(&usable, key.schemes()).next().is_some();
    let remedy = KeyKind::ALL.into_iter().find(would_fit);
    let offered = if usable.is_empty() { offer.schemes.clone() } else { usable };
    Some(Verdict::NoCommonScheme { offered, remedy })
}

fn common<'a>(theirs: &'a [u16], ours: &'a [u16]) -> impl Iterator<Item = u16> + 'a {
    theirs.iter().copied().filter(|value| ours.contains(value))
}

fn no_version(offer: &Offer, own: &Own) -> Verdict {
    let highest = offer.versions.iter().copied().max();
    match highest.zip(own.versions.iter().copied().min()) {
        Some((theirs, least)) if theirs < least => Verdict::OldVersionsOnly(theirs),
        _ => Verdict::NoCommonVersion(offer.versions.clone()),
    }
}

/// RFC 8446 B.4: all suites of TLS 1.3, and no others, have this first octet.
fn is_tls_1_3_suite(suite: u16) -> bool {
    suite >> 8 == 0x13
}

/// Which weakness all suites share that a server could use without a secret known beforehand. Suites without a certificate
/// or encryption do not count: opportunistic clients offer them besides.
fn no_suite(offer: &Offer, version: u16) -> Verdict {
    let suites = offer.suites.iter().copied().filter(|suite| !SIGNALS.contains(suite)).collect();
    let offered = || offer.suites.iter().copied().filter_map(names::known_suite);
    let begins = |prefix: &str| offered().any(|name| name.starts_with(prefix));
    let (ecdhe, dhe, rsa) = (begins("TLS_ECDHE_"), begins("TLS_DHE_"), begins("TLS_RSA_WITH_"));
    let mut ecdhe_suites = offered().filter(|name| name.starts_with("TLS_ECDHE_"));
    match (ecdhe, dhe, rsa) {
        // The suites of TLS 1.2 are of no use once both sides know TLS 1.3.
        _ if version >= TLS_1_3 => Verdict::NoCommonSuite(suites),
        (true, ..) if ecdhe_suites.all(|name| name.contains("_CBC_")) => Verdict::CbcOnly,
        (false, true, _) => Verdict::DheOnly,
        (false, false, true) => Verdict::RsaKeyExchangeOnly,
        _ => Verdict::NoCommonSuite(suites),
    }
}

/// The offered schemes in which a certificate could sign under one of these suites, whichever certificates are there.
fn usable_schemes(offer: &Offer, suites: &[u16], version: u16) -> Vec<u16> {
    const PKCS1: [u16; 3] = [0x0401, 0x0501, 0x0601];
    let has = |of_key: &[u16]| suites.iter().any(|suite| of_key.contains(suite));
    let fits = |key: KeyKind, scheme: u16| match key {
        // RFC 8446 4.2.3: PKCS#1 signatures stand in certificates only. The suite says nothing about the key.
        _ if version >= TLS_1_3 => !PKCS1.contains(&scheme),
        KeyKind::Rsa => has(&RSA_SUITES),
        _ => has(&ECDSA_SUITES),
    };
    let is_usable = |scheme: u16| {
        KeyKind::ALL.into_iter().any(|key| key.schemes().contains(&scheme) && fits(key, scheme))
    };
    offer.schemes.iter().copied().filter(|scheme| is_usable(*scheme)).collect()
}
