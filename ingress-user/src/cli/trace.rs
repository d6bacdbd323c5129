use anyhow::Result;
use ipnet::IpNet;

use super::daemon::DaemonArguments;
use super::tls::network;
use crate::control;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Clients to follow: an address, or a network such as 192.0.2.0/24 or 2001:db8::/32
    #[arg(value_name = "NET", value_parser = network)]
    network: IpNet,
    #[command(flatten)]
    daemon: DaemonArguments,
}

/// Prints every command and reply of the network's sessions until interrupted or the daemon ends.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let socket = arguments.daemon.socket()?;
    let follow = control::follow_trace(&socket, arguments.network, super::print);
    super::daemon::block_on(follow)?
}
