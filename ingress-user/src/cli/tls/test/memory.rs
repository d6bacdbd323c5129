//! Keeps the daemon's memory of peers as it was: a self-test fails on purpose, and its address must not be denied STARTTLS for it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;

use crate::cli::daemon::block_on;
use crate::control;
use crate::tls::journal::{PeerReport, Report};
use crate::tls::memory::{self, Pin};
use crate::worker::clock::Now;

/// For the daemon to have noted the last handshake.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks at it.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);

/// The peers that the self-test is, pinned to be offered STARTTLS while it runs.
pub(super) struct Pinned {
    socket: PathBuf,
    peers: Vec<Peer>,
    failures_before: u64,
}

struct Peer {
    network: IpNet,
    /// What the memory had of it.
    known: Option<PeerReport>,
}

impl Pinned {
    /// Pins the peers of these addresses.
    pub(super) fn pin(socket: PathBuf, own: &BTreeSet<IpAddr>, ipv4_prefix: u8) -> Result<Self> {
        let text = block_on(control::fetch(&socket, "/tls/memory"))??;
        let known: Vec<PeerReport> = serde_json::from_str(&text)
            .context("the daemon's answer is not what this version of ingress expects")?;
        let networks: BTreeSet<IpNet> =
            own.iter().map(|address| memory::network_of(*address, ipv4_prefix)).collect();
        let of = |network| known.iter().find(|peer| peer.network == network).cloned();
        let peers =
            networks.into_iter().map(|network| Peer { network, known: of(network) }).collect();
        let mut pinned = Self { socket, peers, failures_before: 0 };
        pinned.failures_before = pinned.failures()?;
        for peer in &pinned.peers {
            pinned.change(&format!("/tls/memory/pin?network={}&pin=offer", peer.network))?;
        }
        Ok(pinned)
    }

    /// Makes the memory as it was, once the daemon has noted `handshakes` failures; what was done.
    pub(super) fn restore(&self, handshakes: u64) -> Result<String> {
        let deadline = Now::read().monotonic + SETTLE_TIMEOUT;
        while self.failures()? < self.failures_before + handshakes
            && Now::read().monotonic < deadline
        {
            // The timer belongs to the runtime, so it is made within.
            block_on(async { tokio::time::sleep(SETTLE_INTERVAL).await })?;
        }
        let mut done = Vec::new();
        for Peer { network, known } in &self.peers {
            let Some(peer) = known else {
                self.change(&format!("/tls/memory/forget?network={network}"))?;
                done.push(format!("{network} is forgotten again"));
                continue;
            };
            let pin = match peer.pin {
                Some(Pin::Offer) => "&pin=offer",
                Some(Pin::Withhold) => "&pin=withhold",
                None => "",
            };
            self.change(&format!("/tls/memory/pin?network={network}{pin}"))?;
            done.push(format!("{network} is offered STARTTLS as before"));
        }
        Ok(done.join(", "))
    }

    /// Failed handshakes of the peers that the daemon has noted so far.
    fn failures(&self) -> Result<u64> {
        let text = block_on(control::fetch(&self.socket, "/tls/report"))??;
        let report: Report = serde_json::from_str(&text)
            .context("the daemon's answer is not what this version of ingress expects")?;
        let is_ours = |network| self.peers.iter().any(|peer| peer.network == network);
        let groups = report.failures.iter().filter(|group| is_ours(group.network));
        Ok(groups.map(|group| group.count).sum())
    }

    fn change(&self, target: &str) -> Result<String> {
        Ok(block_on(control::change(&self.socket, target))??)
    }
}
