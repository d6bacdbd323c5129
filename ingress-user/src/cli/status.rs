use anyhow::{Context, Result};

use super::daemon::{self, DaemonArguments};
use crate::control::{self, Status};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the daemon's JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let socket = arguments.daemon.socket()?;
    let json = daemon::block_on(control::fetch_status(&socket))??;
    if arguments.json {
        return super::print(&format!("{json}\n"));
    }
    let status: Status = serde_json::from_str(&json)
        .context("the daemon's status is not what this version of ingress expects")?;
    super::print(&status.to_string())
}
