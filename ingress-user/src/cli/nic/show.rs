use anyhow::{Context, Result};

use super::{Interfaces, Served};
use crate::cli::daemon::block_on;
use crate::control::Status;
use crate::nic::{self, Machine, Nic, Shown};

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
        let served = Served::ask(&config).await;
        let mut shown = Vec::new();
        for name in names {
            let nic = Nic::read(&Machine::this(), &name).await?;
            let packets = served.status.as_ref().and_then(|status| packets(status, &name));
            shown.push(Shown::new(nic, packets.as_deref(), |nic, queue| {
                nic::behind(nic, queue, served.steered(nic), &served.workers)
            }));
        }
        if arguments.json {
            let json = serde_json::to_string_pretty(&shown).context("cannot write JSON")?;
            return crate::cli::print(&format!("{json}\n"));
        }
        let daemon = match &served.status {
            Some(_) => "running",
            None => "does not answer; tier and workers as configured",
        };
        let texts: String = shown.iter().map(Shown::to_string).collect();
        crate::cli::print(&format!("{texts}daemon: {daemon}\n"))
    })?
}

/// What XDP has counted on each receive queue of `name`. The daemon adds interfaces up, so that only one alone is told.
fn packets(status: &Status, name: &str) -> Option<Vec<(u32, u64)>> {
    let [only] = status.xdp.interfaces.as_slice() else { return None };
    let counts = status.xdp.queues.iter().map(|queue| (queue.queue, queue.packets));
    (only.name == name).then(|| counts.collect())
}
