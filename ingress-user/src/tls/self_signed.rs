//! The certificate of a host without one: ECDSA P-256, for the configured host name.
//!
//! Opportunistic TLS between mail servers does not check certificates (RFC 7435), so a self-signed one protects against
//! listeners just as well. It is kept, so that clients that remember keys see the same one after a restart.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::{Credential, CredentialError, read_files};
use crate::config::CertificateFiles;

pub(super) fn load_or_create(
    hostname: &str,
    state_dir: &Path,
) -> Result<Credential, CredentialError> {
    let files = files(hostname, state_dir);
    if !(files.chain.exists() && files.key.exists()) {
        create(hostname, &folder(state_dir), &files)?;
    }
    read_files(&files)
}

/// Where it is kept.
pub(super) fn files(hostname: &str, state_dir: &Path) -> CertificateFiles {
    let folder = folder(state_dir);
    CertificateFiles {
        chain: folder.join(format!("{hostname}.self-signed.pem")),
        key: folder.join(format!("{hostname}.self-signed.key")),
    }
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("tls")
}

fn create(hostname: &str, folder: &Path, files: &CertificateFiles) -> Result<(), CredentialError> {
    let failed = |error: rcgen::Error| CredentialError::SelfSigned {
        hostname: hostname.to_owned(),
        reason: error.to_string(),
    };
    let key = KeyPair::generate().map_err(failed)?;
    let mut parameters = CertificateParams::new([hostname.to_owned()]).map_err(failed)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, hostname);
    let certificate = parameters.self_signed(&key).map_err(failed)?;

    let stored = |path: &Path, result: io::Result<()>| {
        result.map_err(|source| CredentialError::Store { path: path.to_owned(), source })
    };
    stored(folder, fs::create_dir_all(folder))?;
    // The key first: a chain is only ever there with its key.
    stored(&files.key, write_whole(&files.key, &key.serialize_pem(), 0o600))?;
    stored(&files.chain, write_whole(&files.chain, &certificate.pem(), 0o644))
}

/// The file is there whole or not at all, also after a crash.
fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut unfinished = PathBuf::from(path);
    unfinished.as_mut_os_string().push(".tmp");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_kept() {
        let state = tempfile::tempdir().unwrap();
        let first = load_or_create("mx.example.net", state.path()).unwrap();
        let second = load_or_create("mx.example.net", state.path()).unwrap();
        assert_eq!(first.chain, second.chain);
    }

    #[test]
    fn only_the_owner_reads_the_key() {
        let state = tempfile::tempdir().unwrap();
        load_or_create("mx.example.net", state.path()).unwrap();
        let key = state.path().join("tls/mx.example.net.self-signed.key");
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_broken_kept_file_is_named() {
        let state = tempfile::tempdir().unwrap();
        load_or_create("mx.example.net", state.path()).unwrap();
        let chain = state.path().join("tls/mx.example.net.self-signed.pem");
        fs::write(&chain, "nonsense").unwrap();
        let error = load_or_create("mx.example.net", state.path()).unwrap_err().to_string();
        assert!(error.contains("mx.example.net.self-signed.pem"), "{error}");
    }
}
