//! `ingress xdp check`: what can be known of XDP before a daemon runs.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cli::daemon::block_on;
use crate::config::{Config, XdpMode};
use crate::xdp::check::{self, Report, Subject};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The interfaces; without any, those of `xdp.interfaces`
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
    /// The configuration file (TOML); without it, that of the trial server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print an object with the findings and the tier
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Config { worker_cpus, listeners, mut xdp, .. } = match &arguments.config {
        Some(path) => Config::load(path)?,
        None => Config::embedded()?,
    };
    if arguments.config.is_none() {
        // The trial server is off, but that is not the question.
        xdp.mode = XdpMode::Auto;
    }
    if !arguments.interfaces.is_empty() {
        xdp.interfaces.clone_from(&arguments.interfaces);
    }
    ensure!(
        !xdp.interfaces.is_empty(),
        "no interface: name one (see `ip link`), or set `xdp.interfaces` and give --config FILE"
    );
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.address.port()).collect();
    let subject = Subject { xdp: &xdp, workers: &worker_cpus, ports: &ports };
    let report = block_on(check::check(&subject))?;
    print(&report, arguments.json)?;
    let failures = report.failures();
    ensure!(
        failures == 0,
        "{failures} of {} findings are in the way of XDP",
        report.findings.len()
    );
    Ok(())
}

fn print(report: &Report, json: bool) -> Result<()> {
    match json {
        true => {
            let json = serde_json::to_string_pretty(report).context("cannot write JSON")?;
            crate::cli::print(&format!("{json}\n"))
        }
        false => crate::cli::print(&report.to_string()),
    }
}
