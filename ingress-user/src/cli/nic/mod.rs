//! `ingress nic`: interfaces as packets meet them, and what to change for pinned workers.

mod show;
mod tune;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Subcommand;

use crate::config::Config;
use crate::control::{self, Status};
use crate::nic::{Nic, Steered, Survey, XdpFeatures};
use crate::xdp::{Tier, check};

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

/// The daemon that serves the interfaces: as it runs, else as it is configured.
struct Served {
    status: Option<Status>,
    tier: String,
    /// CPUs of the workers, by number.
    workers: Vec<usize>,
}

impl Served {
    async fn ask(config: &Config) -> Self {
        // A daemon of another version counts as none.
        let answer = control::fetch_status(&config.control.socket).await.ok();
        let status = answer.and_then(|json| serde_json::from_str::<Status>(&json).ok());
        let (tier, workers) = match &status {
            Some(status) => {
                let workers = status.workers.iter().map(|worker| worker.cpu).collect();
                (status.steering.tier.clone(), workers)
            }
            None => {
                let survey = Survey::of(&config.xdp.interfaces, &config.worker_cpus).await;
                let tier = check::expected_tier(&config.xdp, survey.queues_fit).name();
                (tier.to_owned(), config.worker_cpus.clone())
            }
        };
        Self { status, tier, workers }
    }

    /// How connections get from `nic` to the workers.
    fn steered(&self, nic: &Nic) -> Steered {
        let without_xdp =
            matches!(nic.settings.xdp_features, Some(XdpFeatures { basic: false, .. }));
        match self.tier.as_str() {
            tier if tier == Tier::None.name() => Steered::Not,
            // Expected, but a driver without native XDP leads to the next tier.
            tier if tier == Tier::Cpumap.name() && (self.status.is_some() || !without_xdp) => {
                Steered::Cpumap
            }
            _ => Steered::ByCpu,
        }
    }
}
