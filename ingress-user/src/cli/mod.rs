//! The command line: one file per subcommand. Usage errors exit 2, all others 1 with one line on stderr.

mod ban;
mod check;
mod daemon;
mod dns;
mod nic;
mod run;
mod status;
mod tls;
mod trace;
mod xdp;

use std::io::{self, Write};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// An MX edge server: takes mail at the speed of the hardware and keeps every message it said 250 to.
#[derive(Debug, Parser)]
#[command(name = "ingress", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve mail; prints one line `ready` with the addresses when connections are accepted
    Run(run::Arguments),
    /// Print the resolved configuration, itself a valid file, or what is wrong with the file
    Check(check::Arguments),
    /// Show what a running daemon does
    Status(status::Arguments),
    /// Who is not served for a while, and why; also the operator's own bans
    Ban(ban::Arguments),
    /// Explain what happens when clients speak TLS
    Tls(tls::Arguments),
    /// Print the DNS records to publish for the configured names, as lines of a zone file, or compare them with what is there
    Dns(dns::Arguments),
    /// Follow what is said in sessions of chosen clients, as it is said
    Trace(trace::Arguments),
    /// Show network interfaces as packets meet them, and tune them for pinned workers
    Nic(nic::Arguments),
    /// Tell whether XDP will work on an interface, see what it drops, and renew its lists
    Xdp(xdp::Arguments),
}

pub fn dispatch(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Ban(arguments) => ban::run(&arguments),
        Command::Tls(arguments) => tls::run(&arguments),
        Command::Dns(arguments) => dns::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Nic(arguments) => nic::run(&arguments),
        Command::Xdp(arguments) => xdp::run(&arguments),
    }
}

/// An error and its causes, each said once: some messages end with their cause, others leave it to the chain.
pub fn one_line(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |line, cause| {
        let cause = cause.to_string();
        match line.as_str() {
            "" => cause,
            said if said.ends_with(&cause) => line,
            said => format!("{said}: {cause}"),
        }
    })
}

/// Whether the output has no reader any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes to stdout with an error where `print!` would panic.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error =
            anyhow::anyhow!("no such file").context("a.toml: no such file").context("start");
        assert_eq!(one_line(&error), "start: a.toml: no such file");
        assert_eq!(one_line(&anyhow::anyhow!("b").context("a")), "a: b");
    }
}
