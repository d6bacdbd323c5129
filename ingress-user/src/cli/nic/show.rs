use anyhow::{Context, Result};

use super::{Interfaces, Served};
use crate::cli::daemon::block_on;
use crate::control::{Status, XdpQueueStatus};
use crate::nic::{self, CountedQueue, Machine, Nic, Shown};

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
            let counted = served.status.as_ref().and_then(|status| counted(status, &name));
            shown.push(Shown::new(nic, counted.as_deref(), |nic, queue| {
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

/// What XDP has counted on the receive queues of `name`, where it is attached.
fn counted(status: &Status, name: &str) -> Option<Vec<CountedQueue>> {
    let interface = status.xdp.interfaces.iter().find(|interface| interface.name == name)?;
    let counted = |queue: &XdpQueueStatus| CountedQueue {
        number: queue.queue,
        packets: queue.packets,
        dropped: queue.dropped,
    };
    Some(interface.queues.iter().map(counted).collect())
}
