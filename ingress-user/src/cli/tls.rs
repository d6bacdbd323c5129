use anyhow::Result;
use clap::Subcommand;

use super::daemon::{self, DaemonArguments};
use crate::control;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Have a running daemon read its certificates anew; prints those it now serves. Open sessions go on
    Reload(DaemonArguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Verb::Reload(daemon) = &arguments.verb;
    let socket = daemon.socket()?;
    let served = daemon::block_on(control::reload_tls(&socket))??;
    super::print(&served)
}
