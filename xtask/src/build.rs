use anyhow::Result;

use crate::shell;

/// Builds the daemon.
pub(crate) fn build(release: bool) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--locked", "--package", "ingress-user"]);
    if release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)
}
