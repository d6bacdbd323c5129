//! `ingress xdp`: what the filter before the network stack does.

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
    /// Print samples of dropped packets as they come: the first of each source, and some of those after it
    Watch(DaemonArguments),
    /// Have the daemon read its deny lists anew; prints how many networks are in force, and which lines were left out
    Reload(DaemonArguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Watch(daemon) => {
            block_on(control::follow(&daemon.socket()?, "/xdp/watch", super::print))?
        }
        Command::Reload(daemon) => {
            super::print(&block_on(control::reload_lists(&daemon.socket()?))??)
        }
    }
}
