//! What connections share: the certificates, which can be replaced, and for each service its tickets.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{Credentials, CryptoProvider, Identity, SelectedCredential, TicketProducer};
use rustls::error::PeerIncompatible;
use rustls::server::{
    ClientHello, InvalidSniPolicy, NoServerSessionStorage, ServerCredentialResolver, Tls13Tickets,
};
use rustls::{Error, ServerConfig};

use crate::tls::Credential;
use crate::tls::choice::{self, DnsNames};

/// The certificates that the daemon serves. Workers see every replacement at once.
#[derive(Clone)]
pub struct TlsContext {
    provider: Arc<CryptoProvider>,
    resolver: Arc<Resolver>,
}

/// How listeners of one service shake hands: with all certificates, and with tickets that no other service takes, so that a
/// session of one cannot be carried over to another (ALPACA, and RFC 8446 section 4.6.1). All workers take them.
#[derive(Clone)]
pub struct TlsService {
    with_tickets: Arc<ServerConfig>,
    without_tickets: Arc<ServerConfig>,
}

/// Why a certificate cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsContextError {
    #[error("{}: not a chain that can be used: {reason}", path.display())]
    Chain { path: PathBuf, reason: String },
    #[error("{}: the private key cannot be used: {reason}: RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519", path.display())]
    Key { path: PathBuf, reason: Error },
    #[error("{}: the private key does not belong to the first certificate of the chain", path.display())]
    KeyMismatch { path: PathBuf },
    #[error("TLS cannot be set up: {0}")]
    Library(Error),
}

impl TlsContext {
    /// Checks each key against its certificate.
    pub fn new(credentials: Vec<Credential>) -> Result<Self, TlsContextError> {
        let provider = Arc::new(rustls_ring::DEFAULT_PROVIDER);
        let candidates = ArcSwap::from_pointee(checked(credentials, &provider)?);
        Ok(Self { provider, resolver: Arc::new(Resolver(candidates)) })
    }

    /// Handshakes that begin from now on use these certificates, if all of them can be used; else nothing changes. Tickets
    /// from before are still good.
    pub fn replace(&self, credentials: Vec<Credential>) -> Result<(), TlsContextError> {
        self.resolver.0.store(Arc::new(checked(credentials, &self.provider)?));
        Ok(())
    }

    /// A service of its own: its ticket keys are made here, and change by themselves every few hours.
    pub fn service(&self) -> Result<TlsService, TlsContextError> {
        let ticketer = self.provider.ticketer_factory.ticketer();
        let ticketer = ticketer.map_err(TlsContextError::Library)?;
        Ok(TlsService {
            with_tickets: Arc::new(self.server_config(Some(ticketer))?),
            without_tickets: Arc::new(self.server_config(None)?),
        })
    }

    fn server_config(
        &self,
        ticketer: Option<Arc<dyn TicketProducer>>,
    ) -> Result<ServerConfig, TlsContextError> {
        let resolver: Arc<dyn ServerCredentialResolver> = Arc::<Resolver>::clone(&self.resolver);
        let mut config = ServerConfig::builder(Arc::clone(&self.provider))
            .with_no_client_auth()
            .with_server_credential_resolver(resolver)
            .map_err(TlsContextError::Library)?;
        // Tickets alone: a session store would be a lock shared by the workers.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if ticketer.is_none() {
            config.send_tls13_tickets = Tls13Tickets { default: 0, max: 0 };
        }
        config.ticketer = ticketer;
        // A name that is none is no reason to refuse mail.
        config.invalid_sni_policy = InvalidSniPolicy::IgnoreAll;
        Ok(config)
    }
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsContext")
    }
}

impl TlsService {
    /// For one handshake, from its beginning to its end.
    pub(super) fn terms(&self, tickets: bool) -> Arc<ServerConfig> {
        Arc::clone(if tickets { &self.with_tickets } else { &self.without_tickets })
    }
}

/// The certificates of the moment, in the operator's order.
#[derive(Debug)]
struct Resolver(ArcSwap<Vec<Candidate>>);

#[derive(Debug)]
struct Candidate {
    names: DnsNames,
    credentials: Credentials,
}

impl ServerCredentialResolver for Resolver {
    fn resolve(&self, client_hello: &ClientHello<'_>) -> Result<SelectedCredential, Error> {
        let schemes = client_hello.signature_schemes();
        let name = client_hello.server_name().map(AsRef::as_ref);
        let signer = |candidate: &Candidate| candidate.credentials.signer(schemes);
        choice::choose(&self.0.load(), name, |candidate| &candidate.names, signer)
            .ok_or(Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon))
    }
}

fn checked(
    credentials: Vec<Credential>,
    provider: &CryptoProvider,
) -> Result<Vec<Candidate>, TlsContextError> {
    credentials.into_iter().map(|credential| candidate(credential, provider)).collect()
}

fn candidate(
    credential: Credential,
    provider: &CryptoProvider,
) -> Result<Candidate, TlsContextError> {
    let Credential { chain, key, leaf, source: path } = credential;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|reason| TlsContextError::Key { path: path.clone(), reason })?;
    if key.public_key().is_some_and(|spki| spki.as_ref() != leaf.public_key) {
        return Err(TlsContextError::KeyMismatch { path });
    }
    let identity = Identity::from_cert_chain(chain)
        .map_err(|error| TlsContextError::Chain { path, reason: format!("{error:?}") })?;
    let credentials = Credentials::new_unchecked(Arc::new(identity), key);
    Ok(Candidate { names: leaf.names, credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let credential = |name: &str| {
            let state = tempfile::tempdir().unwrap();
            crate::tls::load(&Default::default(), name, state.path()).unwrap().remove(0)
        };
        let (one, two) = (credential("one.example.net"), credential("two.example.net"));
        assert!(TlsContext::new(vec![one.clone()]).is_ok());
        let mixed = Credential { key: two.key, ..one };
        assert!(matches!(TlsContext::new(vec![mixed]), Err(TlsContextError::KeyMismatch { .. })));
    }
}
