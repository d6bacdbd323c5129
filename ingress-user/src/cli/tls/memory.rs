use std::fmt::Write;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use ipnet::IpNet;

use super::{network, time_text};
use crate::cli::daemon::{DaemonArguments, block_on};
use crate::control;
use crate::tls::journal::PeerReport;
use crate::tls::memory::Pin;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show peers that are not offered STARTTLS or pinned
    List {
        /// Show all peers known
        #[arg(long)]
        all: bool,
        /// Print the daemon's JSON document, of all peers
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        daemon: DaemonArguments,
    },
    /// Forget peers: their next handshake is as their first
    Forget {
        /// An address or a network
        #[arg(value_name = "NET", value_parser = network)]
        network: IpNet,
        #[command(flatten)]
        daemon: DaemonArguments,
    },
    /// Override the memory for a peer
    Pin {
        /// The peer's network as `list --all` shows it, or one not seen yet
        #[arg(value_name = "NET", value_parser = network)]
        network: IpNet,
        /// What holds from now on
        word: Word,
        #[command(flatten)]
        daemon: DaemonArguments,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Word {
    /// Always offer STARTTLS
    Offer,
    /// Never offer it
    Withhold,
    /// As the memory has it
    None,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::List { all, json, daemon } => {
            let text = block_on(control::fetch(&daemon.socket()?, "/tls/memory"))??;
            if *json {
                return crate::cli::print(&format!("{text}\n"));
            }
            let peers: Vec<PeerReport> = serde_json::from_str(&text)
                .context("the daemon's answer is not what this version of ingress expects")?;
            crate::cli::print(&list(&peers, *all))
        }
        Verb::Forget { network, daemon } => {
            change(daemon, &format!("/tls/memory/forget?network={network}"))
        }
        Verb::Pin { network, word, daemon } => {
            let pin = match word {
                Word::Offer => "&pin=offer",
                Word::Withhold => "&pin=withhold",
                Word::None => "",
            };
            change(daemon, &format!("/tls/memory/pin?network={network}{pin}"))
        }
    }
}

fn change(daemon: &DaemonArguments, target: &str) -> Result<()> {
    let answer = block_on(control::change(&daemon.socket()?, target))??;
    crate::cli::print(&answer)
}

fn list(peers: &[PeerReport], all: bool) -> String {
    let mut text = String::new();
    for peer in peers.iter().filter(|peer| all || peer.withheld || peer.pin.is_some()) {
        let state = match (peer.pin, peer.withheld_until) {
            (Some(Pin::Offer), _) => "pinned: always offered STARTTLS".to_owned(),
            (Some(Pin::Withhold), _) => "pinned: not offered STARTTLS".to_owned(),
            (None, Some(until)) if peer.withheld => {
                format!("not offered STARTTLS until {}", time_text(until))
            }
            (None, _) => "offered STARTTLS".to_owned(),
        };
        let PeerReport { tls_sessions, clear_sessions, .. } = peer;
        let network = peer.network.to_string();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{network:<24} {state}; sessions: {tls_sessions} over TLS, {clear_sessions} in clear; seen {}",
            time_text(peer.last_seen)
        );
    }
    if text.is_empty() {
        text.push_str("no peer is denied STARTTLS or pinned\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_denied_starttls_is_listed_with_the_time_it_ends() {
        let peer = PeerReport {
            network: "192.0.2.7/32".parse().unwrap(),
            last_seen: 1_795_508_201,
            last_success: None,
            last_failure: Some(1_795_508_201),
            withheld_until: Some(1_795_594_601),
            withheld: true,
            pin: None,
            tls_sessions: 0,
            clear_sessions: 2,
        };
        let other = PeerReport { withheld: false, withheld_until: None, ..peer.clone() };
        assert_eq!(
            list(&[peer, other.clone()], false),
            "192.0.2.7/32             not offered STARTTLS until 2026-11-25T08:16:41Z; \
             sessions: 0 over TLS, 2 in clear; seen 2026-11-24T08:16:41Z\n"
        );
        assert_eq!(
            list(std::slice::from_ref(&other), false),
            "no peer is denied STARTTLS or pinned\n"
        );
        assert!(list(&[other], true).contains("; sessions: "));
    }
}
