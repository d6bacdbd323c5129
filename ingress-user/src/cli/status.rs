use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::control::{self, Status};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the daemon's JSON document
    #[arg(long)]
    json: bool,
    /// Ask the daemon that runs with this file; without it, the one that runs without a file
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// Ask the daemon on this control socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let socket = arguments.socket()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let json = runtime.block_on(control::fetch_status(&socket))?;
    if arguments.json {
        return super::print(&format!("{json}\n"));
    }
    let status: Status = serde_json::from_str(&json)
        .context("the daemon's status is not what this version of ingress expects")?;
    super::print(&status.to_string())
}

impl Arguments {
    fn socket(&self) -> Result<PathBuf> {
        Ok(match (&self.socket, &self.config) {
            (Some(socket), _) => socket.clone(),
            (None, Some(file)) => Config::load(file)?.control.socket,
            (None, None) => Config::embedded()?.control.socket,
        })
    }
}
