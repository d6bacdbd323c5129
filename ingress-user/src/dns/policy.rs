//! The MTA-STS policy (RFC 8461): what senders that heed it demand of this host.

use crate::tls::Leaf;

use super::publication::sha256;

/// How long senders keep a policy. RFC 8461 3.2 expects weeks or more; two of them still let a mistake run out.
const MAX_AGE_SECONDS: u32 = 14 * 24 * 60 * 60;

/// RFC 8461 3.1: an id has 32 letters or digits at most.
const ID_LENGTH: usize = 32;

/// What a sender does when this host does not satisfy it (RFC 8461 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It reports, and delivers all the same.
    Testing,
    /// It does not deliver.
    Enforce,
}

impl Mode {
    /// Enforce only where senders can verify what they are given: an authority signed it, for this host (RFC 8461 4.2). A
    /// sender asks for the host's name, so a certificate for another name does not count.
    ///
    /// Whether senders trust that authority cannot be known here.
    pub fn of(hostname: &str, leaves: &[Leaf]) -> Self {
        let mut given = leaves.iter().filter(|leaf| leaf.names.fit(hostname)).peekable();
        match given.peek().is_some() && given.all(|leaf| !leaf.is_self_signed) {
            true => Self::Enforce,
            false => Self::Testing,
        }
    }

    /// As policies have it.
    fn keyword(self) -> &'static str {
        match self {
            Self::Testing => "testing",
            Self::Enforce => "enforce",
        }
    }
}

/// The same text for each domain, since each has this host alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Lines that end with LF, which RFC 8461 3.2 allows.
    pub text: String,
    pub mode: Mode,
}

impl Policy {
    /// `hostname` is in lower case.
    pub(super) fn new(hostname: &str, mode: Mode) -> Self {
        let keyword = mode.keyword();
        let text = format!(
            "version: STSv1\nmode: {keyword}\nmx: {hostname}\nmax_age: {MAX_AGE_SECONDS}\n"
        );
        Self { text, mode }
    }

    /// Another one for every other text: senders fetch the policy anew when it changes.
    pub(super) fn id(&self) -> String {
        let mut id = sha256(self.text.as_bytes());
        id.truncate(ID_LENGTH);
        id
    }

    /// Where senders fetch it (RFC 8461 3.3).
    pub fn address(domain: &str) -> String {
        format!("https://mta-sts.{domain}/.well-known/mta-sts.txt")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rcgen::{CertificateParams, Issuer, KeyPair};

    use super::*;
    use crate::config::{CertificateFiles, TlsConfig};
    use crate::tls;

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
        Mode::of("mx.example.net", &leaves)
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
        assert_eq!(Mode::of("mx.example.net", &leaves), Mode::Testing);
    }

    #[test]
    fn the_id_changes_with_the_policy_and_only_then() {
        let id = |hostname, mode| Policy::new(hostname, mode).id();
        let first = id("mx.example.net", Mode::Testing);
        assert_eq!(first.len(), 32);
        assert!(first.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{first}");
        assert_eq!(first, id("mx.example.net", Mode::Testing));
        assert_ne!(first, id("mx.example.net", Mode::Enforce));
        assert_ne!(first, id("mx2.example.net", Mode::Testing));
    }
}
