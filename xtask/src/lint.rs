use std::process::Command;

use anyhow::{Result, ensure};

use crate::{rules, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave out cargo-deny: what needs no network and no further program
    #[arg(long)]
    quick: bool,
}

/// Runs every check to its end, so that one run shows all there is to mend.
pub(crate) fn run(options: Options) -> Result<()> {
    let mut failed = Vec::new();
    let mut record = |name: &'static str, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("{error:#}");
            failed.push(name);
        }
    };
    record("fmt", shell::run(shell::cargo().args(["fmt", "--all", "--check"])));
    record("clippy", clippy());
    record("rules", check_rules());
    if options.quick {
        println!("skipped  deny: --quick");
    } else {
        record("deny", deny());
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn clippy() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    shell::run(&mut cargo)
}

fn check_rules() -> Result<()> {
    let violations = rules::check(shell::root())?;
    for violation in &violations {
        println!("{violation}");
    }
    ensure!(violations.is_empty(), "{} violations of the module rules", violations.len());
    Ok(())
}

/// Licences, duplicate and unwanted crates, where crates come from, known vulnerabilities: see deny.toml.
fn deny() -> Result<()> {
    if !shell::has("cargo-deny") {
        if !shell::is_root() {
            println!("skipped  deny: cargo install --locked cargo-deny");
            return Ok(());
        }
        shell::run(shell::cargo().args(["install", "--locked", "cargo-deny"]))?;
    }
    shell::run(cargo_deny().args(["check", "bans", "licenses", "sources"]))?;
    if shell::run(cargo_deny().args(["fetch", "db"])).is_err() {
        println!("skipped  deny advisories: the advisory database cannot be fetched");
        return Ok(());
    }
    shell::run(cargo_deny().args(["check", "--disable-fetch", "advisories"]))
}

fn cargo_deny() -> Command {
    let mut cargo = shell::cargo();
    cargo.args(["deny", "--all-features"]);
    cargo
}
