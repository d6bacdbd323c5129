//! TLS 1.3 against Postfix's smtpd and `openssl s_server`, round by round in one run, with the same certificates and client.
//!
//! The client runs on the CPUs of the servers, so a rate is of both; the CPU of the server's processes is the sturdy figure.

pub(crate) mod client;
mod load;
mod peers;
mod report;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use self::load::{Entry, Load, Target};
use self::peers::{Keeping, Postfix, SServer};
use self::report::{Report, Sample, Series};
use crate::certificate::{Certificate, Key};
use crate::server::{self, Appliance};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds; in each, all servers get the same load, and the order changes
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Handshakes with each server in a round; 0 leaves them out
    #[arg(long, default_value_t = 2_000)]
    handshakes: u64,
    /// Messages to each server in a round; 0 leaves them out
    #[arg(long, default_value_t = 16)]
    messages: u64,
    /// Octets of a message
    #[arg(long, default_value_t = 10_000_000)]
    size: usize,
    /// Connections at once for handshakes
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// Sessions at once for messages
    #[arg(long, default_value_t = 2)]
    sessions: u32,
    /// Let s_server write what it gets to a file, without fsync, instead of throwing it away
    #[arg(long)]
    s_server_keeps: bool,
    /// Write the figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "nothing to measure");
    let mut reports = Vec::new();
    for key in [Key::EcdsaP256, Key::Rsa2048] {
        let stand = Stand::start(key, options)?;
        if options.handshakes > 0 {
            let work = Work::Handshakes { count: options.handshakes };
            reports.push(stand.compare(options, options.connections, &work)?);
        }
        // The key is no matter of records.
        if options.messages > 0 && key == Key::EcdsaP256 {
            let message = load::message(options.size);
            let work = Work::Messages { count: options.messages, message };
            reports.push(stand.compare(options, options.sessions, &work)?);
        }
    }
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_vec_pretty(&reports)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// What each server gets in a round.
enum Work {
    Handshakes { count: u64 },
    Messages { count: u64, message: Vec<u8> },
}

impl Work {
    fn title(&self) -> String {
        match self {
            Self::Handshakes { count } => format!("{count} full handshakes"),
            Self::Messages { count, message } => {
                format!("{count} messages of {} octets", message.len())
            }
        }
    }

    fn unit(&self) -> &'static str {
        match self {
            Self::Handshakes { .. } => "handshake",
            Self::Messages { .. } => "MB",
        }
    }

    /// A part of it, for the first connections, which bring along what later ones find.
    fn to_warm_up(&self) -> Self {
        match self {
            Self::Handshakes { count } => Self::Handshakes { count: count.div_ceil(10) },
            Self::Messages { message, .. } => Self::Messages { count: 2, message: message.clone() },
        }
    }
}

/// All servers with one certificate.
struct Stand {
    key: Key,
    appliance: Appliance,
    postfix: Postfix,
    s_server: SServer,
    // Last: the servers may read it as long as they run.
    _certificate: Certificate,
}

/// A way into a server.
struct Subject<'s> {
    name: &'static str,
    target: Target,
    pid: u32,
    /// Waits for what the server does after its last reply.
    settle: Box<dyn Fn() + 's>,
}

impl Stand {
    fn start(key: Key, options: &Options) -> Result<Self> {
        let certificate = Certificate::new(key)?;
        let keeping = if options.s_server_keeps { Keeping::File } else { Keeping::Nothing };
        Ok(Self {
            key,
            appliance: Appliance::with_certificate(&certificate)?,
            postfix: Postfix::start(&certificate)?,
            s_server: SServer::start(&certificate, keeping)?,
            _certificate: certificate,
        })
    }

    /// In pairs, ours first: the ones that speak SMTP with STARTTLS, then the ones that begin with TLS.
    fn subjects(&self) -> [Subject<'_>; 4] {
        let target = |address, entry| Target { address, entry };
        let ours = |address, entry| Subject {
            name: "ingress",
            target: target(address, entry),
            pid: self.appliance.pid(),
            settle: Box::new(|| self.appliance.wait_until_delivered()),
        };
        [
            ours(self.appliance.address(), Entry::Starttls),
            Subject {
                name: "Postfix",
                target: target(self.postfix.address(), Entry::Starttls),
                pid: self.postfix.pid(),
                settle: Box::new(|| self.postfix.wait_until_delivered()),
            },
            ours(self.appliance.implicit_address(), Entry::Implicit),
            Subject {
                name: "s_server",
                target: target(self.s_server.address(), Entry::Raw),
                pid: self.s_server.pid(),
                settle: Box::new(|| {}),
            },
        ]
    }

    fn compare(&self, options: &Options, sessions: u32, work: &Work) -> Result<Report> {
        let load = Load { config: client::config()?, sessions };
        let mut subjects = self.subjects().map(|subject| (subject, Vec::new()));
        for (subject, _) in &subjects {
            subject.measure(&load, &work.to_warm_up())?;
        }
        for _ in 0..options.rounds {
            for (subject, samples) in &mut subjects {
                samples.push(subject.measure(&load, work)?);
            }
            // Who was first is last in the next round. Ratios are of neighbours, so that both see the same host.
            subjects.reverse();
            eprint!(".");
        }
        eprintln!();
        if options.rounds % 2 == 1 {
            subjects.reverse();
        }
        let series = subjects.map(|(subject, samples)| Series { name: subject.name, samples });
        let title = format!("{}, {}, {sessions} at once", work.title(), self.key.name());
        let report = Report::new(title, work.unit(), series);
        report.print();
        Ok(report)
    }
}

impl Subject<'_> {
    fn measure(&self, load: &Load, work: &Work) -> Result<Sample> {
        let before = server::cpu_of_tree(self.pid)?;
        let threads_before = server::cpu_by_thread(self.pid)?;
        let (result, units) = match work {
            Work::Handshakes { count } => (load.handshakes(self.target, *count), *count as f64),
            Work::Messages { count, message } => {
                let megabytes = *count as f64 * message.len() as f64 / 1e6;
                (load.messages(self.target, *count, message), megabytes)
            }
        };
        let seconds = result.with_context(|| format!("{} at {:?}", self.name, self.target))?;
        (self.settle)();
        let cpu = server::cpu_of_tree(self.pid)? - before;
        Ok(Sample {
            per_second: units / seconds,
            cpu_us: cpu * 1e6 / units,
            threads: server::spent(&threads_before, server::cpu_by_thread(self.pid)?, units),
        })
    }
}
