use std::process::Command;

use anyhow::Result;

use crate::shell;

/// A program and the Debian package that has it.
pub(crate) type Tool = (&'static str, &'static str);

/// Installs the packages of missing tools when root, and returns the tools that are missing still.
pub(crate) fn install(tools: &[Tool]) -> Result<Vec<Tool>> {
    let missing = missing(tools);
    if missing.is_empty() || !shell::is_root() || !shell::has("apt-get") {
        return Ok(missing);
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut update = Command::new("apt-get");
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    for command in [update.arg("update"), &mut install] {
        shell::run(command.args(["--quiet"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    Ok(self::missing(tools))
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|(program, _)| !shell::has(program)).collect()
}
