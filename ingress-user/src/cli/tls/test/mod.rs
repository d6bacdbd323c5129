mod connection;
mod marked;
mod table;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use self::connection::{Target, probe};
use self::marked::Marked;
use crate::cli::daemon::block_on;
use crate::config::{Config, TlsMode};
use crate::control::{self, ListenerStatus, Status};
use crate::policy::Networks;
use crate::smtp::dialect::Dialect;
use crate::tls::probe::answer::Answer;
use crate::tls::probe::chain::{self, ChainReport};
use crate::tls::probe::profiles::{MODERN, PROFILES, Profile, for_key};
use crate::tls::probe::{Outcome, Row};
use crate::tls::verdict::{KeyKind, Own};
use crate::worker::clock::Now;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Test the daemon that runs with this file; without it, the one that runs without a file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Test this listener of it alone, with STARTTLS; may be repeated
    #[arg(long, value_name = "ADDR")]
    address: Vec<SocketAddr>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// The document behind `--json`.
#[derive(Debug, Serialize)]
struct Report {
    listeners: Vec<ListenerReport>,
    /// What the daemon's memory of peers has of the test.
    memory: String,
}

#[derive(Debug, Serialize)]
struct ListenerReport {
    /// As in the line `ready`.
    listener: String,
    profiles: Vec<Row>,
    certificates: Vec<CertificateReport>,
}

/// The chain that clients of one kind of signature get.
#[derive(Debug, Serialize)]
struct CertificateReport {
    key: &'static str,
    #[serde(flatten)]
    chain: ChainReport,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let config = match &arguments.config {
        Some(file) => Config::load(file)?,
        None => Config::embedded()?,
    };
    let socket = config.control.socket;
    // Without the daemon the test would cost its own address STARTTLS, and end at its first failure.
    let text = block_on(control::fetch_status(&socket))??;
    let status: Status = serde_json::from_str(&text)
        .context("the daemon's status is not what this version of ingress expects")?;
    let targets = targets(arguments, &status, &config.networks.proxy_protocol)?;
    let own: BTreeSet<IpAddr> = targets.iter().map(|target| target.address.ip()).collect();
    let marked = Marked::mark(socket, &own, config.tls.memory.ipv4_prefix)?;
    let mut test = Test { hostname: &status.hostname, marked: &marked, handshakes: 0 };
    let listeners: Vec<ListenerReport> =
        targets.iter().map(|target| test.listener(target)).collect();
    let memory = marked
        .end(test.handshakes)
        .context("handshakes of this address count as a self-test for two minutes")?;
    let report = Report { listeners, memory };
    if arguments.json {
        crate::cli::print(&format!("{}\n", serde_json::to_string(&report)?))?;
    } else {
        crate::cli::print(&table::text(&report))?;
    }
    match report.listeners.iter().find(|listener| !listener.is_modern_served()) {
        Some(listener) => bail!("{}: even current clients fail", listener.listener),
        None => Ok(()),
    }
}

/// The listeners to test: those given, else those of the daemon, which knows its ports.
fn targets(arguments: &Arguments, status: &Status, balancers: &Networks) -> Result<Vec<Target>> {
    let target = |address: SocketAddr, tls: TlsMode, dialect: Dialect| {
        // Who connects to an address of the own machine comes from that address.
        Target { address, tls, dialect, is_proxied: balancers.contains(address.ip()) }
    };
    let given = |address: &SocketAddr| target(*address, TlsMode::StartTls, Dialect::Smtp);
    let bound = |listener: &ListenerStatus| {
        target(reachable(listener.address), listener.tls, listener.protocol)
    };
    let mut targets: Vec<Target> = if arguments.address.is_empty() {
        status.listeners.iter().map(bound).collect()
    } else {
        arguments.address.iter().map(given).collect()
    };
    targets.retain(|target| target.tls != TlsMode::Off);
    ensure!(!targets.is_empty(), "no listener speaks TLS");
    Ok(targets)
}

/// A listener on all addresses is reached on the loopback interface.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

struct Test<'c> {
    hostname: &'c str,
    marked: &'c Marked,
    /// Begun so far. All of them fail: the test hangs up when it has its answer.
    handshakes: u64,
}

impl Test<'_> {
    fn listener(&mut self, target: &Target) -> ListenerReport {
        let listener = target.to_string();
        match self.certificates(target) {
            Ok((keys, certificates)) => {
                let own = Own::with_keys(&keys);
                let profiles = self.profiles(target, &own);
                ListenerReport { listener, profiles, certificates }
            }
            // Nothing else would come of the other profiles, but slowly.
            Err(error) => {
                let reason = crate::cli::one_line(&error);
                let row = |profile: &Profile| Row::without_handshake(profile.name, reason.clone());
                let profiles = PROFILES.iter().map(row).collect();
                ListenerReport { listener, profiles, certificates: Vec::new() }
            }
        }
    }

    /// The chain for each kind of signature that the server can make.
    fn certificates(&mut self, target: &Target) -> Result<(Vec<KeyKind>, Vec<CertificateReport>)> {
        let now = i64::try_from(Now::read().unix_micros() / 1_000_000).unwrap_or(i64::MAX);
        let (mut keys, mut reports) = (Vec::new(), Vec::new());
        for key in KeyKind::ALL {
            let hello = for_key(key, self.hostname).octets();
            if let Answer::Chosen(chosen) = self.handshake(target, &hello)? {
                let chain = chain::check(&chosen.chain, self.hostname, now);
                keys.push(key);
                reports.push(CertificateReport { key: key_name(key), chain });
            }
        }
        Ok((keys, reports))
    }

    fn profiles(&mut self, target: &Target, own: &Own) -> Vec<Row> {
        let may_come_in_clear = target.tls == TlsMode::StartTls;
        let mut rows = Vec::new();
        for profile in &PROFILES {
            let octets = profile.octets(self.hostname);
            rows.push(match self.handshake(target, &octets) {
                Ok(answer) => {
                    let hello = (profile.hello)(self.hostname);
                    Row::judge(profile.name, &hello, &answer, own, may_come_in_clear)
                }
                Err(error) => Row::without_handshake(profile.name, crate::cli::one_line(&error)),
            });
        }
        rows
    }

    fn handshake(&mut self, target: &Target, hello: &[u8]) -> Result<Answer> {
        self.marked.renew()?;
        let answer = probe(target, hello);
        self.handshakes += u64::from(answer.is_ok());
        answer
    }
}

impl ListenerReport {
    fn is_modern_served(&self) -> bool {
        let mut modern = self.profiles.iter().filter(|row| row.profile == MODERN);
        modern.all(|row| row.outcome == Outcome::Works)
    }
}

fn key_name(key: KeyKind) -> &'static str {
    match key {
        KeyKind::EcdsaP256 => "ECDSA P-256",
        KeyKind::EcdsaP384 => "ECDSA P-384",
        KeyKind::Ed25519 => "Ed25519",
        KeyKind::Rsa => "RSA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_the_loopback_interface() {
        let reach = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:25"), "127.0.0.1:25");
        assert_eq!(reach("[::]:25"), "[::1]:25");
        assert_eq!(reach("192.0.2.7:25"), "192.0.2.7:25");
    }
}
