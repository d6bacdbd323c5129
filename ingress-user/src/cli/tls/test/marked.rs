//! Has the daemon take the handshakes for what they are: a self-test fails on purpose, which must cost its address nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;

use crate::cli::daemon::block_on;
use crate::control;
use crate::tls::journal::Report;
use crate::tls::memory;
use crate::worker::clock::Now;

/// For the daemon to have noted the last handshake.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks at it.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);

/// The peers that the self-test is. The daemon forgets the mark by itself if this process does not come to take it back.
pub(super) struct Marked {
    socket: PathBuf,
    networks: BTreeSet<IpNet>,
    counted_before: u64,
}

impl Marked {
    /// Marks the peers of these addresses.
    pub(super) fn mark(socket: PathBuf, own: &BTreeSet<IpAddr>, ipv4_prefix: u8) -> Result<Self> {
        let networks =
            own.iter().map(|address| memory::network_of(*address, ipv4_prefix)).collect();
        let mut marked = Self { socket, networks, counted_before: 0 };
        marked.counted_before = marked.counted()?;
        marked.renew()?;
        Ok(marked)
    }

    /// To be called before each handshake: a test may take longer than the daemon waits for word of it.
    pub(super) fn renew(&self) -> Result<()> {
        self.say(true)
    }

    /// Takes the marks back, once the daemon has noted `handshakes`; what that leaves.
    pub(super) fn end(&self, handshakes: u64) -> Result<String> {
        let deadline = Now::read().monotonic + SETTLE_TIMEOUT;
        while self.counted()? < self.counted_before + handshakes && Now::read().monotonic < deadline
        {
            // The timer belongs to the runtime, so it is made within.
            block_on(async { tokio::time::sleep(SETTLE_INTERVAL).await })?;
        }
        self.say(false)?;
        let kept = self.networks.iter().map(|network| format!("{network} is as before"));
        Ok(kept.collect::<Vec<_>>().join(", "))
    }

    /// Handshakes of self-tests that the daemon has noted so far.
    fn counted(&self) -> Result<u64> {
        let text = block_on(control::fetch(&self.socket, "/tls/report"))??;
        let report: Report = serde_json::from_str(&text)
            .context("the daemon's answer is not what this version of ingress expects")?;
        Ok(report.handshakes.self_tests)
    }

    fn say(&self, running: bool) -> Result<()> {
        for network in &self.networks {
            let target = format!("/tls/selftest?network={network}&running={running}");
            block_on(control::change(&self.socket, &target))??;
        }
        Ok(())
    }
}
