//! `ingress xdp`: the programs before the network stack.

mod check;

use anyhow::Result;
use clap::Subcommand;

use super::daemon::{DaemonArguments, block_on};
use crate::control;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Whether XDP will work here, and which tier of steering results; exits 1 when something is in the way
    Check(check::Arguments),
    /// Print samples of dropped packets as they come: the first of each source, and some of those after it
    Watch(DaemonArguments),
    /// Have the daemon read its deny lists anew; prints how many networks are in force, and which lines were left out
    Reload(DaemonArguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Check(arguments) => check::run(arguments),
        Command::Watch(daemon) => {
            block_on(control::follow(&daemon.socket()?, "/xdp/watch", super::print))?
        }
        Command::Reload(daemon) => {
            super::print(&block_on(control::reload_lists(&daemon.socket()?))??)
        }
    }
}
