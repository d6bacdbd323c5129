//! The sentences. All of them stand here, so that a reader can compare them.

use std::borrow::Cow;
use std::fmt;

use super::{Ending, Foreign, KeyKind, NextTry, Verdict};
use crate::tls::names;

/// Names of a list that a sentence shows.
const SHOWN_NAMES_MAX: usize = 4;

/// A [`Verdict`] in words.
#[derive(Debug, Clone, Copy)]
pub struct Explanation<'v> {
    pub(super) verdict: &'v Verdict,
    pub(super) next: NextTry,
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, next } = *self;
        match verdict {
            Verdict::NoHello => no_hello(next, f),
            Verdict::ClosedBeforeHello => f.write_str(CLOSED_BEFORE_HELLO),
            Verdict::IncompleteHello { octets } => incomplete(*octets, f),
            Verdict::NotTls { foreign, .. } => not_tls(foreign, next, f),
            Verdict::Ssl2Hello => {
                write!(f, "{SSL2_HELLO}: {next}, until SSL 2.0 is switched off there")
            }
            Verdict::MalformedHello(reason) => malformed(reason, next, f),
            Verdict::OldVersionsOnly(highest) => old_versions(*highest, next, f),
            Verdict::NoCommonVersion(offered) => no_version(offered, next, f),
            Verdict::RsaKeyExchangeOnly => without(RSA_KEY_EXCHANGE_ONLY, "ECDHE", next, f),
            Verdict::CbcOnly => without(CBC_ONLY, "AES-GCM or ChaCha20", next, f),
            Verdict::DheOnly => without(DHE_ONLY, "ECDHE", next, f),
            Verdict::NoCommonSuite(offered) => no_suite(offered, next, f),
            Verdict::NoCommonGroup(offered) => no_group(offered, next, f),
            Verdict::NoCommonScheme { offered, remedy } => no_scheme(offered, *remedy, next, f),
            Verdict::DistrustsCertificate(alert) => distrust(*alert, f),
            Verdict::ClientAlert(alert) => client_alert(*alert, f),
            Verdict::ClosedAfterHello => f.write_str(CLOSED_AFTER_HELLO),
            Verdict::TimedOutAfterHello => f.write_str(TIMED_OUT_AFTER_HELLO),
            Verdict::ClosedAfterFlight => f.write_str(CLOSED_AFTER_FLIGHT),
            Verdict::TimedOutAfterFlight => f.write_str(TIMED_OUT_AFTER_FLIGHT),
            Verdict::ProtocolViolation { after_flight: false } => write!(f, "{BAD_HELLO}; {next}"),
            Verdict::ProtocolViolation { after_flight: true } => f.write_str(BAD_ANSWER),
            Verdict::BrokeAfterFinish(ending) => broke(*ending, f),
        }
    }
}

/// What follows when no common ground is left.
impl fmt::Display for NextTry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InClear => "its next try will come in clear",
            Self::StartTls => "its tries with STARTTLS fail",
            Self::TlsFirst => "none of its mail comes in on this port",
        })
    }
}

const CLOSED_BEFORE_HELLO: &str = "the client closed before it said anything: a health check or a scanner, or it \
    failed on its own side, which its log tells";

const SSL2_HELLO: &str = "the client opens with a hello of SSL 2.0, which no current server reads";

const RSA_KEY_EXCHANGE_ONLY: &str =
    "the client offers only RSA key exchange, which has no forward secrecy and is not supported";

const CBC_ONLY: &str =
    "the client offers ECDHE only with CBC cipher suites, which are not supported";

const DHE_ONLY: &str = "the client offers forward secrecy only by finite-field Diffie-Hellman (DHE), which is not \
    supported";

const CLOSED_AFTER_HELLO: &str = "the client sent its hello and closed before our answer: a scanner, or it waits too \
    short a time";

const TIMED_OUT_AFTER_HELLO: &str = "the client's hello came, and time was up before our answer was out: the client \
    reads nothing, or this server is overloaded";

const CLOSED_AFTER_FLIGHT: &str = "the client closed without a word after it got our certificate: a scanner, or it \
    checks certificates and dislikes ours; its log tells";

const TIMED_OUT_AFTER_FLIGHT: &str = "the client fell silent after we sent our certificate: if it fails always, our \
    answer gets lost, so look for a path with a smaller MTU whose ICMP messages are filtered, or shorten the \
    certificate chain";

const BAD_HELLO: &str = "the client's hello fits, yet it breaks a rule of TLS: a broken client, or something on the \
    way that rewrites TLS";

const BAD_ANSWER: &str = "the client's answer to our certificate breaks a rule of TLS or was changed on the way: if \
    it fails always, suspect a broken client or something on the way that rewrites TLS";

fn no_hello(next: NextTry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let came = match next {
        NextTry::TlsFirst => "connected for TLS",
        NextTry::InClear | NextTry::StartTls => "asked for STARTTLS",
    };
    write!(
        f,
        "the client {came} and said nothing until the time was up: a scanner, or something on the way that swallows TLS"
    )
}

/// What the client lacks, and what to switch on there.
fn without(lack: &str, cure: &str, next: NextTry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{lack}: {next}, until {cure} is switched on there")
}

fn incomplete(octets: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "only the first {octets} octets of the client's hello came: if this client fails always, look for a path with a \
         smaller MTU whose ICMP messages are filtered, or a firewall that cuts long hellos",
    )
}

fn malformed(reason: &str, next: NextTry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "the client's hello is malformed ({reason}): a broken client, or something on the way that rewrites TLS; \
         {next}",
    )
}

fn old_versions(highest: u16, next: NextTry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let highest = names::version(highest);
    write!(
        f,
        "the client offers at most {highest} and we require TLS 1.2: {next}, until it is updated"
    )
}

fn no_version(offered: &[u16], next: NextTry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let offered = list(offered, names::version);
    write!(f, "the client offers only versions that we do not know ({offered}): {next}")
}

fn no_suite(offered: &[u16], next: NextTry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let offered = list(offered, names::suite);
    let lack = format!("the client offers no cipher suite that we have, only {offered}");
    without(&lack, "ECDHE with AES-GCM or ChaCha20", next, f)
}

fn no_group(offered: &[u16], next: NextTry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let offered = list(offered, names::group);
    let lack = format!("the client offers no key exchange group that we have, only {offered}");
    without(&lack, "x25519, secp256r1 or secp384r1", next, f)
}

fn no_scheme(
    offered: &[u16],
    remedy: Option<KeyKind>,
    next: NextTry,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let offered = list(offered, names::scheme);
    match remedy.map(with_article) {
        Some(key) => write!(
            f,
            "the client cannot use our certificate's type of key, only {offered}: add {key} certificate beside the \
             present one; until then {next}",
        ),
        None => write!(
            f,
            "the client can check no signature that a supported certificate makes, only {offered}: {next}, until it \
             is updated",
        ),
    }
}

fn client_alert(alert: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let alert = names::alert(alert);
    write!(f, "the client broke the handshake off with the alert {alert}: why, its log tells")
}

fn broke(ending: Ending, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the handshake was through, and then ")?;
    match ending {
        Ending::ClosedByClient => f.write_str("the client closed")?,
        Ending::TimedOut => f.write_str("the client said nothing until the time was up")?,
        Ending::AlertReceived(alert) => {
            write!(f, "the client sent the alert {}", names::alert(alert))?;
        }
        Ending::WeRefused => f.write_str("a record of the client could not be read")?,
    }
    f.write_str(": TLS itself works with this client, so its log tells more")
}

fn not_tls(foreign: &Foreign, next: NextTry, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the client speaks {foreign} where TLS begins: ")?;
    f.write_str(match foreign {
        Foreign::Smtp if next == NextTry::TlsFirst => {
            "it expects no TLS on this port, so set it to TLS from the first octet on, or to another port"
        }
        Foreign::Smtp => "it goes on in clear after STARTTLS, so look at the TLS settings there",
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
fn list(values: &[u16], name: impl Fn(u16) -> Cow<'static, str>) -> String {
    if values.is_empty() {
        return "none at all".to_owned();
    }
    let shown: Vec<_> = values.iter().take(SHOWN_NAMES_MAX).map(|value| name(*value)).collect();
    match values.len().saturating_sub(SHOWN_NAMES_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
