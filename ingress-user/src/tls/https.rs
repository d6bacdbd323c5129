//! TLS for the HTTPS listeners of the control plane. The only file that knows the rustls of tokio.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, ServerConfig};

use super::Credential;
use super::choice::{self, DnsNames};

/// The one protocol that is spoken (RFC 7301): a client that wants another is told in the handshake.
const ALPN: &[u8] = b"http/1.1";

/// Why a certificate cannot serve HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    #[error("{}: the private key cannot be used: {reason}", path.display())]
    Key { path: PathBuf, reason: Error },
    #[error("{}: the private key does not belong to the first certificate of the chain", path.display())]
    KeyMismatch { path: PathBuf },
    #[error("HTTPS cannot be set up: {0}")]
    Library(Error),
}

/// Certificates that have been checked, for handshakes to come.
#[derive(Debug)]
pub(super) struct Checked(ServerConfig);

impl Checked {
    /// Checks each key against its certificate.
    pub(super) fn new(credentials: Vec<Credential>) -> Result<Self, HttpsError> {
        let provider = ring::default_provider();
        let candidates = credentials
            .into_iter()
            .map(|credential| checked(credential, &provider))
            .collect::<Result<_, _>>()?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(HttpsError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(candidates)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Whoever fetches a policy comes once a day: nothing to resume, and nothing to keep for it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(config))
    }
}

/// What all HTTPS connections share: certificates, which can be replaced.
#[derive(Debug)]
pub(super) struct HttpsContext(ArcSwap<ServerConfig>);

impl HttpsContext {
    pub(super) fn new(checked: Checked) -> Self {
        Self(ArcSwap::from_pointee(checked.0))
    }

    /// Handshakes that begin from now on use these certificates.
    pub(super) fn replace(&self, checked: Checked) {
        self.0.store(Arc::new(checked.0));
    }

    /// For one handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0.load_full().into()
    }
}

/// The certificates, in the operator's order.
#[derive(Debug)]
struct Resolver(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    names: DnsNames,
    certified: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = client_hello.signature_schemes();
        let signer = |candidate: &Candidate| {
            let signer = candidate.certified.key.choose_scheme(schemes);
            signer.map(|_| Arc::clone(&candidate.certified))
        };
        choice::choose(&self.0, client_hello.server_name(), |candidate| &candidate.names, signer)
    }
}

fn checked(credential: Credential, provider: &CryptoProvider) -> Result<Candidate, HttpsError> {
    let Credential { chain, key, leaf, source: path } = credential;
    let key = match provider.key_provider.load_private_key(key) {
        Ok(key) => key,
        Err(reason) => return Err(HttpsError::Key { path, reason }),
    };
    if key.public_key().is_some_and(|spki| spki.as_ref() != leaf.public_key) {
        return Err(HttpsError::KeyMismatch { path });
    }
    Ok(Candidate { names: leaf.names, certified: Arc::new(CertifiedKey::new(chain, key)) })
}
