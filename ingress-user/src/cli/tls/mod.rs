//! `ingress tls`: what happens when clients speak TLS, and what is remembered of them.

mod memory;
mod report;
mod test;

use std::net::IpAddr;

use anyhow::Result;
use clap::Subcommand;
use ipnet::IpNet;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(super) use self::report::seconds;
use super::daemon::{DaemonArguments, block_on};
use crate::control;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Handshakes by outcome, and every failure explained
    Report(report::Arguments),
    /// Have a running daemon read its certificates anew; prints those it now serves. Open sessions go on
    Reload(DaemonArguments),
    /// Peers that are not offered STARTTLS, and what is known of the others
    Memory(memory::Arguments),
    /// Connect to the own listeners as clients of all ages do, and tell which of them get TLS
    Test(test::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::Report(arguments) => report::run(arguments),
        Verb::Reload(daemon) => {
            crate::cli::print(&block_on(control::reload_tls(&daemon.socket()?))??)
        }
        Verb::Memory(arguments) => memory::run(arguments),
        Verb::Test(arguments) => test::run(arguments),
    }
}

/// An address or a network, as arguments have it.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().map(|network| network.trunc());
    address
        .or(network)
        .ok_or_else(|| "not an address, and not a network such as 192.0.2.0/24".to_owned())
}

/// RFC 3339, in UTC.
pub(super) fn time_text(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_seconds.to_string())
}
