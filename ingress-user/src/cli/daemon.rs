//! What subcommands that talk to a running daemon have in common.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::config::Config;

/// Which daemon.
#[derive(Debug, clap::Args)]
pub(super) struct DaemonArguments {
    /// Ask the daemon that runs with this file; without it, the one that runs without a file
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// Ask the daemon on this control socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl DaemonArguments {
    /// Its control socket.
    pub(super) fn socket(&self) -> Result<PathBuf> {
        Ok(match (&self.socket, &self.config) {
            (Some(socket), _) => socket.clone(),
            (None, Some(file)) => Config::load(file)?.control.socket,
            (None, None) => Config::embedded()?.control.socket,
        })
    }
}

/// Runs one exchange with the daemon to its end.
pub(super) fn block_on<T>(exchange: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(exchange))
}
