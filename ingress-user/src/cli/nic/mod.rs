//! `ingress nic`: interfaces as packets meet them, and what to change for pinned workers.

mod show;
mod tune;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Subcommand;

use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Driver, queues, rings, offloads, where each queue's interrupt runs, its packets, and the worker behind it
    Show(show::Arguments),
    /// Print what to change for the workers; with --apply do it, with --undo put back what was there before
    Tune(tune::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::Show(arguments) => show::run(arguments),
        Verb::Tune(arguments) => tune::run(arguments),
    }
}

/// Interfaces, and the daemon that serves them.
#[derive(Debug, clap::Args)]
struct Interfaces {
    /// The interfaces; without any, those of `xdp.interfaces`
    #[arg(value_name = "IFACE")]
    names: Vec<String>,
    /// The configuration file (TOML); without it, that of the trial server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Interfaces {
    /// The configuration, and the names: never none.
    fn resolve(&self) -> Result<(Config, Vec<String>)> {
        let config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::embedded()?,
        };
        let names = match self.names.is_empty() {
            true => config.xdp.interfaces.clone(),
            false => self.names.clone(),
        };
        ensure!(
            !names.is_empty(),
            "no interface: name one (see `ip link`), or set `xdp.interfaces` and give --config FILE"
        );
        Ok((config, names))
    }
}
