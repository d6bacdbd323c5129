//! Certificates: from PEM files to DER in memory, or a self-signed one kept in the state folder.

pub mod choice;
pub mod expiry;
pub mod https;
pub mod journal;
pub mod memory;
pub mod names;
pub mod offer;
pub mod probe;
pub mod reload;
mod self_signed;
pub mod verdict;

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::parse_x509_certificate;
use x509_parser::public_key::PublicKey;

use self::choice::DnsNames;
use self::expiry::NotAfter;
use self::verdict::KeyKind;
use crate::config::{CertificateFiles, TlsConfig};

/// A certificate chain, leaf first, with its private key.
#[derive(Debug)]
pub struct Credential {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub leaf: Leaf,
    /// The chain's file, for messages.
    pub source: PathBuf,
}

/// What the first certificate of a chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub names: DnsNames,
    pub not_after: NotAfter,
    /// The SubjectPublicKeyInfo in DER, to compare the private key with.
    pub public_key: Vec<u8>,
    /// Whether it names itself as its issuer, so that no authority vouches for it.
    pub is_self_signed: bool,
}

impl Clone for Credential {
    fn clone(&self) -> Self {
        let key = self.key.clone_key();
        Self {
            chain: self.chain.clone(),
            key,
            leaf: self.leaf.clone(),
            source: self.source.clone(),
        }
    }
}

impl Credential {
    /// What its key signs with; `None` for a kind that no TLS client of today takes.
    pub fn key_kind(&self) -> Option<KeyKind> {
        let leaf = self.chain.first()?;
        let (_, certificate) = parse_x509_certificate(leaf).ok()?;
        let public = certificate.public_key().parsed().ok()?;
        match public {
            PublicKey::RSA(_) => Some(KeyKind::Rsa),
            PublicKey::EC(point) => match point.key_size() {
                256 => Some(KeyKind::EcdsaP256),
                384 => Some(KeyKind::EcdsaP384),
                _ => None,
            },
            _ => {
                let algorithm = &certificate.public_key().algorithm.algorithm;
                (*algorithm == OID_SIG_ED25519).then_some(KeyKind::Ed25519)
            }
        }
    }
}

/// Why the certificates cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("{}: {reason}: expected PEM certificates, leaf first", path.display())]
    Chain { path: PathBuf, reason: String },
    #[error("{}: no certificate in the file: expected PEM certificates, leaf first", path.display())]
    EmptyChain { path: PathBuf },
    #[error("{}: not a certificate that can be read: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("{}: {reason}: expected a PEM private key (PKCS#8, SEC1 or PKCS#1), not encrypted", path.display())]
    Key { path: PathBuf, reason: String },
    #[error("{}: cannot keep the self-signed certificate: {source}", path.display())]
    Store { path: PathBuf, source: std::io::Error },
    #[error("{}: no certificate yet: the daemon makes a self-signed one when it first runs", path.display())]
    NotMade { path: PathBuf },
    #[error("cannot make a self-signed certificate for {hostname:?}: {reason}")]
    SelfSigned { hostname: String, reason: String },
}

/// Loads the configured certificates in the operator's order; without any, the self-signed one.
pub fn load(
    config: &TlsConfig,
    hostname: &str,
    state_dir: &Path,
) -> Result<Vec<Credential>, CredentialError> {
    if config.certificates.is_empty() {
        return self_signed::load_or_create(hostname, state_dir).map(|credential| vec![credential]);
    }
    load_files(&config.certificates)
}

/// Loads these files, in their order.
pub fn load_files(files: &[CertificateFiles]) -> Result<Vec<Credential>, CredentialError> {
    files.iter().map(read_files).collect()
}

/// What the certificates say that [`load`] would serve. Reads no key and makes nothing: without a self-signed certificate
/// there is an error.
pub fn leaves(
    config: &TlsConfig,
    hostname: &str,
    state_dir: &Path,
) -> Result<Vec<Leaf>, CredentialError> {
    let leaf = |path: &PathBuf| read_chain(path).map(|(_, leaf)| leaf);
    if config.certificates.is_empty() {
        let path = self_signed::files(hostname, state_dir).chain;
        return match path.exists() {
            true => Ok(vec![leaf(&path)?]),
            false => Err(CredentialError::NotMade { path }),
        };
    }
    config.certificates.iter().map(|files| leaf(&files.chain)).collect()
}

fn read_files(files: &CertificateFiles) -> Result<Credential, CredentialError> {
    let (chain, leaf) = read_chain(&files.chain)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| CredentialError::Key {
        path: files.key.clone(),
        reason: error.to_string(),
    })?;
    Ok(Credential { chain, key, leaf, source: files.chain.clone() })
}

fn read_chain(path: &Path) -> Result<(Vec<CertificateDer<'static>>, Leaf), CredentialError> {
    let chain_error = |reason: String| CredentialError::Chain { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| chain_error(error.to_string()))?;
    let Some(leaf) = chain.first() else {
        return Err(CredentialError::EmptyChain { path: path.to_owned() });
    };
    let leaf = read_leaf(leaf, path)?;
    Ok((chain, leaf))
}

fn read_leaf(der: &[u8], path: &Path) -> Result<Leaf, CredentialError> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|error| {
        CredentialError::Certificate { path: path.to_owned(), reason: error.to_string() }
    })?;
    Ok(Leaf {
        names: DnsNames::of(&certificate),
        not_after: NotAfter::of(&certificate),
        public_key: certificate.public_key().raw.to_vec(),
        is_self_signed: certificate.issuer() == certificate.subject(),
    })
}
