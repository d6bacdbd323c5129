//! Debian packages, installed without starting what is in them.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Asked by Debian's package scripts before they start a service; exit status 101 forbids it.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether the package `name` is installed. False where there is no dpkg.
pub(crate) fn is_installed(name: &str) -> bool {
    let query = ["--show", "--showformat=${db:Status-Status}", name];
    let answer = Command::new("dpkg-query").args(query).output();
    answer.is_ok_and(|output| output.stdout == b"installed")
}

/// Installs packages, as root. A machine that builds or tests a mail server is not to begin serving mail for it, so no
/// service among them is started.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let _no_services = NoServices::begin()?;
    let mut update = Command::new("apt-get");
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    for command in [update.arg("update"), &mut install] {
        shell::run(command.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    Ok(())
}

/// Forbids service starts while it lives. Where the administrator has a policy, that one counts.
struct NoServices {
    written: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(SERVICE_POLICY);
        match file {
            Ok(mut file) => {
                let text = "#!/bin/sh\n# Written by `cargo xtask` of ingress for the time it installs packages.\nexit 101\n";
                file.write_all(text.as_bytes()).context(SERVICE_POLICY)?;
                Ok(Self { written: true })
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { written: false }),
            Err(error) => Err(error).context(SERVICE_POLICY),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.written && fs::remove_file(Path::new(SERVICE_POLICY)).is_err() {
            eprintln!(
                "xtask: cannot remove {SERVICE_POLICY}: remove it, or no service starts on install"
            );
        }
    }
}
