//! Debian packages, installed without starting what they contain: a machine that builds or tests a mail server is not to
//! begin serving mail for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

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

/// The name of the newest package that begins with `prefix`, ends with `suffix` and has a version in between.
pub(crate) fn newest(prefix: &str, suffix: &str) -> Result<String> {
    update()?;
    let names = shell::output(Command::new("apt-cache").args(["pkgnames", prefix]));
    let names = names.context("no apt-cache")?;
    let names = names.lines().filter(|name| name.ends_with(suffix));
    let newest = names.max_by_key(|name| numbers(name)).map(str::to_owned);
    newest.with_context(|| format!("no package {prefix}*{suffix}"))
}

/// `6.1.0-56` is newer than `6.1.0-9`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Installs packages as root; their services stay down. A conflict is an error: nothing is removed to make room.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    update()?;
    let words =
        ["apt-get", "install", "--quiet", "--yes", "--no-remove", "--no-install-recommends"];
    let mut guarded =
        without_services(Path::new(POLICY), words.into_iter().chain(packages.iter().copied()));
    shell::run(guarded.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// The list of packages, once in a run. Who is not root takes the list as it is.
fn update() -> Result<()> {
    static UPDATED: OnceLock<()> = OnceLock::new();
    if shell::is_root() && UPDATED.get().is_none() {
        shell::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        UPDATED.get_or_init(|| ());
    }
    Ok(())
}

/// Unpacks packages that cannot be installed beside others, or are not to be, into `folder`, and installs the libraries that they
/// depend on. Nothing of the packages themselves is run or becomes known to the system.
pub(crate) fn unpack(packages: &[&str], folder: &Path) -> Result<()> {
    update()?;
    packages.iter().try_for_each(|package| unpack_one(package, folder))
}

fn unpack_one(package: &str, folder: &Path) -> Result<()> {
    // It downloads into the working directory.
    let mut download = Command::new("env");
    download.arg("--chdir").arg(folder).args(["apt-get", "download", "--quiet", package]);
    shell::run(&mut download)?;
    let archive = archive_in(folder)?;
    let depends = Command::new("dpkg-deb").arg("--field").arg(&archive).arg("Depends").output()?;
    let depends = String::from_utf8(depends.stdout)?;
    let missing: Vec<&str> = libraries(&depends).filter(|name| !is_installed(name)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(folder))?;
    // The next one is to be the only one again.
    fs::remove_file(&archive).with_context(|| archive.display().to_string())
}

/// Its name has the version in it, which Debian decides.
fn archive_in(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let archive = files.into_iter().find(|file| file.extension().is_some_and(|it| it == "deb"));
    archive.with_context(|| format!("no package in {}", folder.display()))
}

/// The libraries in the field `Depends` of a package: `libc6 (>= 2.34), debconf | debconf-2.0`.
fn libraries(depends: &str) -> impl Iterator<Item = &str> {
    let names = depends.split(',').filter_map(|choice| choice.split_whitespace().next());
    names.filter(|name| name.starts_with("lib"))
}

fn without_services<'a>(policy: &Path, command: impl Iterator<Item = &'a str>) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", WITHOUT_SERVICES]).arg(policy).args(command);
    shell
}

#[cfg(test)]
mod tests {
    use std::{env, process};

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
    fn only_libraries_are_taken_from_what_a_package_depends_on() {
        let depends =
            "mail-base (>= 4.96), debconf (>= 0.5) | debconf-2.0, libc6 (>= 2.34), libdb5.3\n";
        assert_eq!(libraries(depends).collect::<Vec<_>>(), ["libc6", "libdb5.3"]);
    }

    #[test]
    fn a_version_is_compared_number_by_number() {
        let newest = ["linux-6.1.0-9-cloud", "linux-6.1.0-56-cloud", "linux-6.1.0-10-cloud"];
        assert_eq!(newest.into_iter().max_by_key(|name| numbers(name)), Some(newest[1]));
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
        // Not INT, which is ignored, and cannot be trapped, where a shell started all this in the background.
        assert_eq!(run_guarded(&policy, "kill -TERM $PPID"), Some(130));
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
