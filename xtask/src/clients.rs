//! Clients that no `apt-get install` brings: they come from PyPI, from npm, or out of a Debian package that conflicts with
//! another client's. Each has a folder of its own below target/clients, and changes nothing outside it but libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{apt, shell};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// In a virtual environment, because Debian forbids pip outside of one.
    Aiosmtpd,
    /// Unpacked, because a system has one mail transport agent, and that is Postfix here.
    Exim,
    Nodemailer,
    /// As aiosmtpd. A TLS in Python, which can be made to do what others cannot.
    Tlslite,
}

impl Client {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Aiosmtpd => "aiosmtpd",
            Self::Exim => "exim",
            Self::Nodemailer => "nodemailer",
            Self::Tlslite => "tlslite",
        }
    }

    /// Whether the version that the checkout asks for is installed, and starts.
    pub(crate) fn is_there(self) -> bool {
        let installed = fs::read(self.stamp()).ok();
        installed.is_some() && installed == self.wanted().ok() && shell::succeeds(&mut self.probe())
    }

    /// Does nothing the second time.
    pub(crate) fn install(self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let folder = self.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        match self {
            Self::Aiosmtpd | Self::Tlslite => self.install_with_pip(&folder)?,
            Self::Exim => apt::unpack(&[EXIM_PACKAGE], &folder)?,
            Self::Nodemailer => self.install_with_npm(&folder)?,
        }
        // Last: an installation that was cut short has none.
        fs::write(self.stamp(), self.wanted()?).context("cannot write the stamp")?;
        ensure!(self.is_there(), "{} was installed but does not start", self.name());
        Ok(())
    }

    fn install_with_pip(self, folder: &Path) -> Result<()> {
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--only-binary", ":all:", "--require-hashes", "--requirement"]);
        shell::run(pip.arg(self.source("requirements.txt")))
    }

    /// npm installs beside the lock file, and the checkout is to stay as it is.
    fn install_with_npm(self, folder: &Path) -> Result<()> {
        for file in ["package.json", "package-lock.json", ".npmrc"] {
            fs::copy(self.source(file), folder.join(file)).context(file)?;
        }
        shell::run(Command::new("npm").arg("--prefix").arg(folder).arg("ci"))
    }

    /// What decides about the installed version.
    fn wanted(self) -> Result<Vec<u8>> {
        let lock = match self {
            Self::Aiosmtpd | Self::Tlslite => "requirements.txt",
            // Debian's, whichever it has.
            Self::Exim => return Ok(EXIM_PACKAGE.into()),
            Self::Nodemailer => "package-lock.json",
        };
        let lock = self.source(lock);
        fs::read(&lock).with_context(|| lock.display().to_string())
    }

    fn probe(self) -> Command {
        let folder = self.folder();
        let mut probe;
        match self {
            Self::Aiosmtpd | Self::Tlslite => {
                probe = Command::new(folder.join("bin/python"));
                probe.args(["-c", &format!("import {}", self.name())]);
            }
            Self::Exim => {
                // It starts only where it finds its user, which a suite shows to it alone.
                probe = Command::new("sh");
                probe.args([
                    "-c",
                    r#"libraries=$(ldd "$0") && ! echo "$libraries" | grep "not found""#,
                ]);
                probe.arg(folder.join("usr/sbin/exim4"));
            }
            Self::Nodemailer => {
                probe = Command::new("node");
                probe.args(["-e", "require('nodemailer')"]).current_dir(folder);
            }
        }
        probe
    }

    fn source(self, file: &str) -> PathBuf {
        shell::root().join("tests/clients").join(self.name()).join(file)
    }

    fn folder(self) -> PathBuf {
        shell::root().join("target/clients").join(self.name())
    }

    fn stamp(self) -> PathBuf {
        self.folder().join("installed")
    }
}

const EXIM_PACKAGE: &str = "exim4-daemon-light";
