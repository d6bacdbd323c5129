//! The MTA-STS policy (RFC 8461): what senders that heed it demand of this host.

use crate::config::{MtaStsConfig, PolicyMode};
use crate::policy::RecipientDomains;
use crate::tls::choice::DnsNames;

use super::publication::sha256;

/// RFC 8461 3.1: an id has 32 letters or digits at most.
const ID_LENGTH: usize = 32;

/// What a policy's host is called below the domain (RFC 8461 3.3).
const HOST_LABEL: &str = "mta-sts";

/// What a sender does when this host does not satisfy it (RFC 8461 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It reports, and delivers all the same.
    Testing,
    /// It does not deliver.
    Enforce,
    /// It does as if there was no policy.
    None,
}

impl Mode {
    /// As policies have it.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Testing => "testing",
            Self::Enforce => "enforce",
            Self::None => "none",
        }
    }
}

/// The same text for each domain, since each has the same hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Lines that end with LF, which RFC 8461 3.2 allows.
    pub text: String,
    pub mode: Mode,
    /// Whether senders can verify what they are given; if not, those that enforce bring no mail.
    pub is_verifiable: bool,
}

impl Policy {
    /// Where senders fetch it (RFC 8461 3.3).
    pub const PATH: &str = "/.well-known/mta-sts.txt";

    /// That of `hostname`, whose certificates for mail are for these names, each with whether it is self-signed.
    pub fn new<'n>(
        hostname: &str,
        settings: &MtaStsConfig,
        certificates: impl IntoIterator<Item = (&'n DnsNames, bool)>,
    ) -> Self {
        let hostname = hostname.to_ascii_lowercase();
        let is_verifiable = is_verifiable(&hostname, certificates);
        let mode = match settings.mode {
            PolicyMode::Auto if is_verifiable => Mode::Enforce,
            PolicyMode::Auto | PolicyMode::Testing => Mode::Testing,
            PolicyMode::Enforce => Mode::Enforce,
            PolicyMode::None => Mode::None,
        };
        let others = settings.mx.iter().filter(|host| **host != hostname);
        let mx: String =
            std::iter::once(&hostname).chain(others).map(|host| format!("mx: {host}\n")).collect();
        let (keyword, max_age) = (mode.keyword(), settings.max_age.as_secs());
        let text = format!("version: STSv1\nmode: {keyword}\n{mx}max_age: {max_age}\n");
        Self { text, mode, is_verifiable }
    }

    /// Another one for every other text: senders fetch the policy anew when it changes.
    pub(super) fn id(&self) -> String {
        let mut id = sha256(self.text.as_bytes());
        id.truncate(ID_LENGTH);
        id
    }

    /// The name that a certificate has to be for where the policy is served.
    pub fn host(domain: &str) -> String {
        format!("{HOST_LABEL}.{domain}")
    }

    pub fn address(domain: &str) -> String {
        format!("https://{}{}", Self::host(domain), Self::PATH)
    }

    /// Whether `host` is where the policy of one of `domains` is fetched.
    pub fn is_host(host: &str, domains: &RecipientDomains) -> bool {
        match (host.split_once('.'), domains) {
            (Some((label, domain)), RecipientDomains::Listed(_)) => {
                label.eq_ignore_ascii_case(HOST_LABEL) && domains.accepts(domain)
            }
            // There is no list of the domains that a policy could be for.
            _ => false,
        }
    }
}

/// Whether an authority signed what senders are given for this host (RFC 8461 4.2). A sender asks for the host's name, so a
/// certificate for another name does not count.
///
/// Whether senders trust that authority cannot be known here.
fn is_verifiable<'n>(
    hostname: &str,
    certificates: impl IntoIterator<Item = (&'n DnsNames, bool)>,
) -> bool {
    let mut given = certificates.into_iter().filter(|(names, _)| names.fit(hostname)).peekable();
    given.peek().is_some() && given.all(|(_, is_self_signed)| !is_self_signed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use rcgen::{CertificateParams, Issuer, KeyPair};

    use super::*;
    use crate::config::{CertificateFiles, TlsConfig};
    use crate::tls::{self, Leaf};

    /// A chain of an authority of its own, for `name`.
    fn issued(folder: &Path, name: &str) -> CertificateFiles {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.distinguished_name.push(rcgen::DnType::CommonName, "authority.test");
        let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let chain = folder.join(format!("{name}.pem"));
        fs::write(&chain, certificate.pem()).unwrap();
        // Nobody reads it.
        CertificateFiles { chain, key: folder.join("none.key") }
    }

    fn mode(names: &[&str]) -> Mode {
        let folder = tempfile::tempdir().unwrap();
        let certificates = names.iter().map(|name| issued(folder.path(), name)).collect();
        let config = TlsConfig { certificates, ..TlsConfig::default() };
        let leaves = tls::leaves(&config, "mx.example.net", folder.path()).unwrap();
        assert_eq!(leaves.len(), names.len());
        automatic(&leaves)
    }

    fn policy(settings: &MtaStsConfig, leaves: &[Leaf]) -> Policy {
        let certificates = leaves.iter().map(|leaf| (&leaf.names, leaf.is_self_signed));
        Policy::new("MX.example.net", settings, certificates)
    }

    fn automatic(leaves: &[Leaf]) -> Mode {
        policy(&MtaStsConfig::default(), leaves).mode
    }

    #[test]
    fn a_certificate_for_another_name_does_not_serve_enforce() {
        assert_eq!(mode(&["other.example.net"]), Mode::Testing);
        assert_eq!(mode(&["other.example.net", "mx.example.net"]), Mode::Enforce);
    }

    #[test]
    fn a_self_signed_certificate_does_not_serve_enforce() {
        let state = tempfile::tempdir().unwrap();
        let config = TlsConfig::default();
        let none = tls::leaves(&config, "mx.example.net", state.path()).unwrap_err().to_string();
        assert!(none.contains("no certificate yet"), "{none}");
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0, "nothing is made");
        tls::load(&config, "mx.example.net", state.path()).unwrap();
        let leaves = tls::leaves(&config, "mx.example.net", state.path()).unwrap();
        assert!(leaves[0].names.fit("mx.example.net"));
        assert_eq!(automatic(&leaves), Mode::Testing);
        let demanded = MtaStsConfig { mode: PolicyMode::Enforce, ..MtaStsConfig::default() };
        let demanded = policy(&demanded, &leaves);
        assert_eq!((demanded.mode, demanded.is_verifiable), (Mode::Enforce, false));
    }

    #[test]
    fn the_text_is_what_the_settings_say() {
        let settings = MtaStsConfig {
            mode: PolicyMode::None,
            max_age: Duration::from_secs(86_400),
            mx: vec!["*.backup.example".into(), "mx.example.net".into()],
            ..MtaStsConfig::default()
        };
        assert_eq!(
            policy(&settings, &[]).text,
            "version: STSv1\nmode: none\nmx: mx.example.net\nmx: *.backup.example\nmax_age: 86400\n"
        );
    }

    #[test]
    fn the_id_changes_with_the_policy_and_only_then() {
        let id = |hostname, mode| {
            let settings = MtaStsConfig { mode, ..MtaStsConfig::default() };
            Policy::new(hostname, &settings, []).id()
        };
        let first = id("mx.example.net", PolicyMode::Testing);
        assert_eq!(first.len(), 32);
        assert!(first.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{first}");
        assert_eq!(first, id("MX.example.net", PolicyMode::Testing));
        assert_ne!(first, id("mx.example.net", PolicyMode::Enforce));
        assert_ne!(first, id("mx2.example.net", PolicyMode::Testing));
    }

    #[test]
    fn only_the_host_of_a_listed_domain_has_a_policy() {
        let domains = RecipientDomains::listed(["example.net", "example.org"]);
        for host in ["mta-sts.example.net", "MTA-STS.Example.ORG"] {
            assert!(Policy::is_host(host, &domains), "{host}");
        }
        for host in ["example.net", "mta-sts", "mta-sts.", "mta-sts.example.com", "", "."] {
            assert!(!Policy::is_host(host, &domains), "{host}");
        }
        assert!(!Policy::is_host("a.mta-sts.example.net", &domains));
        assert!(!Policy::is_host("mta-sts.example.net", &RecipientDomains::Any));
    }
}
