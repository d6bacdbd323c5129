//! Certificates that all servers of a comparison get.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Kinds of keys that mail servers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    EcdsaP256,
    Rsa2048,
}

impl Key {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::Rsa2048 => "RSA 2048",
        }
    }

    /// Arguments of `openssl req`.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::EcdsaP256 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::Rsa2048 => &["-newkey", "rsa:2048"],
        }
    }
}

/// A self-signed certificate for mx.test, in files.
pub(crate) struct Certificate {
    folder: TempDir,
}

impl Certificate {
    pub(crate) fn new(key: Key) -> Result<Self> {
        let certificate = Self { folder: tempfile::tempdir()? };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=mx.test"]);
        command.args(["-addext", "subjectAltName=DNS:mx.test"]).args(key.arguments());
        command.arg("-keyout").arg(certificate.key()).arg("-out").arg(certificate.chain());
        let made = command.output().context("cannot start openssl: apt-get install openssl")?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "{command:?}: {}\n{said}", made.status);
        Ok(certificate)
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}
