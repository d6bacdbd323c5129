//! Debian packages, installed without starting what they contain: a machine that builds or tests a mail server is not to
//! begin serving mail for it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// The system's word on which services a package may start; nobody's file unless an administrator wrote one.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Runs `"$@"` while a policy forbids every service to start (exit code 101), unless the system has a policy already.
/// A shell's trap and not a destructor, because it also runs when ctrl-C ends us: a policy left behind would silently
/// keep every later package's service down. `set -C` makes the redirection create the file or fail, never overwrite.
const WITHOUT_SERVICES: &str = r#"
policy=$0
if (set -C; printf '#!/bin/sh\nexit 101\n' > "$policy") 2>/dev/null; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    chmod 755 "$policy" || exit
fi
"$@"
"#;

/// Whether the package `name` is installed. False where there is no dpkg.
pub(crate) fn is_installed(name: &str) -> bool {
    let query = ["--show", "--showformat=${db:Status-Status}", name];
    let answer = Command::new("dpkg-query").args(query).output();
    answer.is_ok_and(|output| output.stdout == b"installed")
}

/// Installs packages as root; their services stay down. A conflict is an error: nothing is removed to make room.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    shell::run(Command::new("apt-get").args(["update", "--quiet"]))?;
    let words =
        ["apt-get", "install", "--quiet", "--yes", "--no-remove", "--no-install-recommends"];
    let mut guarded =
        without_services(Path::new(POLICY), words.into_iter().chain(packages.iter().copied()));
    shell::run(guarded.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn without_services<'a>(policy: &Path, command: impl Iterator<Item = &'a str>) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", WITHOUT_SERVICES]).arg(policy).args(command);
    shell
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::{env, fs, process};

    use super::*;

    fn scratch_policy(test: &str) -> PathBuf {
        env::temp_dir().join(format!("xtask-policy-{test}-{}", process::id()))
    }

    /// Runs `script` guarded, with the policy's path in `$1`; its exit code.
    fn run_guarded(policy: &Path, script: &str) -> Option<i32> {
        let command = ["sh", "-c", script, "sh", policy.to_str().unwrap()];
        without_services(policy, command.into_iter()).status().unwrap().code()
    }

    #[test]
    fn services_are_forbidden_only_while_the_command_runs() {
        let policy = scratch_policy("during");
        assert_eq!(run_guarded(&policy, r#""$1"; test $? = 101"#), Some(0));
        assert!(!policy.exists());
    }

    #[test]
    fn the_policy_goes_when_the_command_fails_or_a_signal_ends_it() {
        let policy = scratch_policy("failure");
        assert_eq!(run_guarded(&policy, "exit 7"), Some(7));
        assert!(!policy.exists());
        assert_eq!(run_guarded(&policy, "kill -INT $PPID"), Some(130));
        assert!(!policy.exists());
    }

    #[test]
    fn a_policy_of_the_administrator_stays_as_it_is() {
        let policy = scratch_policy("existing");
        fs::write(&policy, "theirs").unwrap();
        assert_eq!(run_guarded(&policy, "true"), Some(0));
        assert_eq!(fs::read_to_string(&policy).unwrap(), "theirs");
        fs::remove_file(&policy).unwrap();
    }
}
