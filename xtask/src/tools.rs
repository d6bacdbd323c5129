use std::process::Command;

use crate::{apt, shell};

/// A program, or a command that succeeds where the tool is there, and the Debian package that has it.
pub(crate) type Tool = (&'static str, &'static str);

/// Installs the packages of missing tools when root, and returns the tools that are missing still.
pub(crate) fn install(tools: &[Tool]) -> Vec<Tool> {
    let missing = missing(tools);
    if missing.is_empty() || !shell::is_root() || !shell::has("apt-get") {
        return missing;
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if let Err(error) = apt::install(&packages) {
        // What is missing still is for the caller to judge: a suite that is skipped is better than no test at all.
        eprintln!("xtask: {error:#}");
    }
    self::missing(tools)
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|(program, _)| !is_there(program)).collect()
}

/// A library has no program of its own: a command with arguments, which loads it, stands for it.
pub(crate) fn is_there(program: &str) -> bool {
    let mut words = program.split_whitespace();
    let name = words.next().unwrap_or_default();
    let mut arguments = words.peekable();
    if arguments.peek().is_none() || !shell::has(name) {
        return shell::has(name);
    }
    shell::succeeds(Command::new(name).args(arguments))
}
