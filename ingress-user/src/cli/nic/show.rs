use anyhow::{Context, Result};

use super::Interfaces;
use crate::cli::daemon::block_on;
use crate::control::{self, Status};
use crate::nic::{self, Machine, Nic, Shown, Steered};
use crate::xdp::{Tier, check};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    interfaces: Interfaces,
    /// Print a list of objects, one for each interface
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (config, names) = arguments.interfaces.resolve()?;
    block_on(async {
        // A daemon of another version counts as none.
        let answer = control::fetch_status(&config.control.socket).await.ok();
        let status = answer.and_then(|json| serde_json::from_str::<Status>(&json).ok());
        let workers: Vec<usize> = match &status {
            Some(status) => status.workers.iter().map(|worker| worker.cpu).collect(),
            None => config.worker_cpus.clone(),
        };
        let steered = match &status {
            Some(status) => steered(&status.steering.tier),
            None => steered(check::expected_tier(&config.xdp).name()),
        };
        let mut shown = Vec::new();
        for name in names {
            let nic = Nic::read(&Machine::this(), &name).await?;
            let packets = status.as_ref().and_then(|status| packets(status, &name));
            shown.push(Shown::new(nic, packets.as_deref(), |nic, queue| {
                nic::behind(nic, queue, steered, &workers)
            }));
        }
        if arguments.json {
            let json = serde_json::to_string_pretty(&shown).context("cannot write JSON")?;
            return crate::cli::print(&format!("{json}\n"));
        }
        let daemon = match &status {
            Some(_) => "running",
            None => "does not answer; tier and workers as configured",
        };
        let texts: String = shown.iter().map(Shown::to_string).collect();
        crate::cli::print(&format!("{texts}daemon: {daemon}\n"))
    })?
}

fn steered(tier: &str) -> Steered {
    match tier {
        tier if tier == Tier::Cpumap.name() => Steered::Cpumap,
        tier if tier == Tier::None.name() => Steered::Not,
        _ => Steered::ByCpu,
    }
}

/// What XDP has counted on each receive queue of `name`. The daemon adds interfaces up, so that only one alone is told.
fn packets(status: &Status, name: &str) -> Option<Vec<(u32, u64)>> {
    let [only] = status.xdp.interfaces.as_slice() else { return None };
    let counts = status.xdp.queues.iter().map(|queue| (queue.queue, queue.packets));
    (only.name == name).then(|| counts.collect())
}
