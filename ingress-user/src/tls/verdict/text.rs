//! The sentences. All of them stand here, so that a reader can compare them.

use std::fmt;

use super::{Ending, Foreign, KeyKind, Verdict};
use crate::tls::names;

/// Names of a list that a sentence shows.
const SHOWN_NAMES_MAX: usize = 4;

/// What follows when no common ground is left.
const IN_CLEAR: &str = "its next try will come in clear";

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHello => f.write_str(
                "the client connected for TLS and said nothing until the time was up: a scanner, or something on the way \
                 that swallows TLS",
            ),
            Self::ClosedBeforeHello => f.write_str(
                "the client closed before it said anything: a health check or a scanner, or it failed on its own side, \
                 which its log tells",
            ),
            Self::IncompleteHello { octets } => write!(
                f,
                "only the first {octets} octets of the client's hello came: if this client fails always, look for a path \
                 with a smaller MTU whose ICMP messages are filtered, or a firewall that cuts long hellos",
            ),
            Self::NotTls(foreign) => not_tls(foreign, f),
            Self::Ssl2Hello => write!(
                f,
                "the client opens with a hello of SSL 2.0, which no current server reads: {IN_CLEAR}, until SSL 2.0 is \
                 switched off there",
            ),
            Self::MalformedHello(reason) => write!(
                f,
                "the client's hello is malformed ({reason}): a broken client, or something on the way that rewrites TLS; \
                 {IN_CLEAR}",
            ),
            Self::ProtocolViolation { .. } | Self::BrokeAfterFinish(_) => self.fmt_breach(f),
            Self::DistrustsCertificate(alert) => distrust(*alert, f),
            Self::ClientAlert(_)
            | Self::ClosedAfterHello
            | Self::TimedOutAfterHello
            | Self::ClosedAfterFlight
            | Self::TimedOutAfterFlight => self.fmt_ending(f),
            _ => self.fmt_mismatch(f),
        }
    }
}

impl Verdict {
    /// What the two sides do not have in common.
    fn fmt_mismatch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OldVersionsOnly(highest) => write!(
                f,
                "the client offers at most {} and we require TLS 1.2: {IN_CLEAR}, until it is updated",
                names::version(*highest),
            ),
            Self::NoCommonVersion(offered) => write!(
                f,
                "the client offers only versions that we do not know ({}): {IN_CLEAR}",
                list(offered, names::version),
            ),
            Self::RsaKeyExchangeOnly => write!(
                f,
                "the client offers only RSA key exchange, which has no forward secrecy and is not supported: {IN_CLEAR}, \
                 until ECDHE is switched on there",
            ),
            Self::CbcOnly => write!(
                f,
                "the client offers ECDHE only with CBC cipher suites, which are not supported: {IN_CLEAR}, until AES-GCM or \
                 ChaCha20 is switched on there",
            ),
            Self::DheOnly => write!(
                f,
                "the client offers forward secrecy only by finite-field Diffie-Hellman (DHE), which is not supported: \
                 {IN_CLEAR}, until ECDHE is switched on there",
            ),
            Self::NoCommonSuite(offered) => write!(
                f,
                "the client offers no cipher suite that we have, only {}: {IN_CLEAR}, until ECDHE with AES-GCM or ChaCha20 \
                 is switched on there",
                list(offered, names::suite),
            ),
            Self::NoCommonGroup(offered) => write!(
                f,
                "the client offers no key exchange group of ours (x25519, secp256r1, secp384r1), only {}: {IN_CLEAR}, until \
                 one of ours is switched on there",
                list(offered, names::group),
            ),
            Self::NoCommonScheme { offered, remedy: Some(key) } => write!(
                f,
                "the client cannot check signatures of our certificate's key, only {}: add {} certificate beside the \
                 present one; until then {IN_CLEAR}",
                list(offered, names::scheme),
                with_article(*key),
            ),
            Self::NoCommonScheme { offered, remedy: None } => write!(
                f,
                "the client can check no signature that a supported certificate makes, only {}: {IN_CLEAR}, until it is \
                 updated",
                list(offered, names::scheme),
            ),
            _ => f.write_str(self.name()),
        }
    }

    /// The client went away, in its own manner.
    fn fmt_ending(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAlert(alert) => write!(
                f,
                "the client broke the handshake off with the alert {}: why, its log tells",
                names::alert(*alert),
            ),
            Self::ClosedAfterHello => f.write_str(
                "the client sent its hello and closed before our answer: a scanner, or it waits too short a time",
            ),
            Self::TimedOutAfterHello => f.write_str(
                "the client's hello came, and time was up before our answer was out: the client reads nothing, or this \
                 server is overloaded",
            ),
            Self::ClosedAfterFlight => f.write_str(
                "the client closed without a word after it got our certificate: a scanner, or it checks certificates and \
                 dislikes ours; its log tells",
            ),
            Self::TimedOutAfterFlight => f.write_str(
                "the client fell silent after we sent our certificate: if it fails always, our answer gets lost, so look \
                 for a path with a smaller MTU whose ICMP messages are filtered, or shorten the certificate chain",
            ),
            _ => f.write_str(self.name()),
        }
    }

    /// Nobody's settings are to blame.
    fn fmt_breach(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProtocolViolation { after_flight: false } => write!(
                f,
                "the client's hello fits, yet it breaks a rule of TLS: a broken client, or something on the way that \
                 rewrites TLS; {IN_CLEAR}",
            ),
            Self::ProtocolViolation { after_flight: true } => f.write_str(
                "the client's answer to our certificate breaks a rule of TLS or was changed on the way: if it fails always, \
                 suspect a broken client or something on the way that rewrites TLS",
            ),
            Self::BrokeAfterFinish(ending) => {
                f.write_str("the handshake was through, and then ")?;
                match ending {
                    Ending::ClosedByClient => f.write_str("the client closed")?,
                    Ending::TimedOut => f.write_str("the client said nothing until the time was up")?,
                    Ending::AlertReceived(alert) => {
                        write!(f, "the client sent the alert {}", names::alert(*alert))?;
                    }
                    Ending::WeRefused => f.write_str("a record of the client could not be read")?,
                }
                f.write_str(": TLS itself works with this client, so its log tells more")
            }
            _ => f.write_str(self.name()),
        }
    }
}

fn not_tls(foreign: &Foreign, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the client speaks {foreign} where TLS begins: ")?;
    f.write_str(match foreign {
        Foreign::Smtp => "it goes on in clear after STARTTLS, or expects no TLS on this port",
        Foreign::Http | Foreign::Ssh => "it is no mail client, so ignore it",
        Foreign::ProxyHeader => "add the balancer to the networks that send the PROXY protocol",
        Foreign::Ssl2Hello | Foreign::Unknown(_) => {
            "a scanner, a broken client, or something on the way that rewrites TLS"
        }
    })
}

/// The client says by an alert that the certificate is no good to it.
fn distrust(alert: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the client refused our certificate ({}): ", names::alert(alert))?;
    f.write_str(match alert {
        UNSUPPORTED_CERTIFICATE => {
            "it cannot use this type of certificate, so add one with an RSA or ECDSA P-256 key for a server"
        }
        CERTIFICATE_REVOKED => "it was revoked, so get a new one",
        CERTIFICATE_EXPIRED => "renew it, or check both clocks if it is valid",
        UNKNOWN_CA => {
            "it checks certificates, so get one from a public CA or complete the chain with the intermediate certificates"
        }
        BAD_STATUS => "it wants proof that the certificate is not revoked (OCSP), so get one without must-staple",
        _ => {
            "it checks certificates, so compare ours with the name in the MX record, the TLSA records and the MTA-STS policy"
        }
    })
}

const UNSUPPORTED_CERTIFICATE: u8 = 43;
const CERTIFICATE_REVOKED: u8 = 44;
const CERTIFICATE_EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;
const BAD_STATUS: u8 = 113;

fn with_article(key: KeyKind) -> &'static str {
    match key {
        KeyKind::EcdsaP256 => "an ECDSA P-256",
        KeyKind::EcdsaP384 => "an ECDSA P-384",
        KeyKind::Ed25519 => "an Ed25519",
        KeyKind::Rsa => "an RSA",
    }
}

/// The first names of a list, and how many there are besides.
fn list(values: &[u16], name: impl Fn(u16) -> std::borrow::Cow<'static, str>) -> String {
    if values.is_empty() {
        return "none at all".to_owned();
    }
    let shown: Vec<_> = values.iter().take(SHOWN_NAMES_MAX).map(|value| name(*value)).collect();
    match values.len().saturating_sub(SHOWN_NAMES_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
