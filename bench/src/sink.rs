//! The appliance against smtp-sink, round by round in one run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{fs, iter};

use anyhow::{Context, Result, ensure};
use ingress_user::worker::clock::Now;
use serde::Serialize;

use crate::server::{self, Appliance, SmtpSink};
use crate::statistics::Spread;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds; in each, both servers get the same load, and the order changes
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages of a round
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Sessions at once
    #[arg(long, default_value_t = 50)]
    sessions: u32,
    /// Octets of a message
    #[arg(long, default_value_t = 1024)]
    size: u32,
    /// A new connection for each message, instead of one for all of a session
    #[arg(long)]
    reconnect: bool,
    /// Write the figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One server in one round.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    cpu_us_per_message: f64,
    messages_per_second: f64,
    /// CPU of each thread, us per message.
    threads: Vec<(String, f64)>,
}

#[derive(Debug, Serialize)]
struct Report {
    load: String,
    smtp_sink: Vec<Sample>,
    ingress: Vec<Sample>,
    /// CPU of ingress over CPU of smtp-sink, within each round.
    cpu_ratio: Spread,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0 && options.messages > 0, "nothing to measure");
    let sink = SmtpSink::start()?;
    let appliance = Appliance::start()?;
    let (mut of_sink, mut of_ingress) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        for first in [round % 2 == 0, round % 2 != 0] {
            if first {
                of_sink.push(measure(options, sink.pid(), sink.address())?);
            } else {
                of_ingress.push(measure_durable(options, &appliance)?);
            }
        }
        eprint!(".");
    }
    eprintln!();
    let ratios = iter::zip(&of_ingress, &of_sink)
        .map(|(ours, theirs)| ours.cpu_us_per_message / theirs.cpu_us_per_message);
    let report = Report {
        load: load(options, None).join(" "),
        cpu_ratio: Spread::of(ratios),
        smtp_sink: of_sink,
        ingress: of_ingress,
    };
    print(&report);
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// A round in which a message was lost is an error, not a figure.
fn measure_durable(options: &Options, appliance: &Appliance) -> Result<Sample> {
    let before = appliance.accepted()?;
    let sample = measure(options, appliance.pid(), appliance.address())?;
    let accepted = appliance.accepted()? - before;
    ensure!(accepted == options.messages, "{accepted} of {} messages accepted", options.messages);
    Ok(sample)
}

fn measure(options: &Options, pid: u32, address: SocketAddr) -> Result<Sample> {
    let before = server::cpu_by_thread(pid)?;
    let start = Now::read().monotonic;
    let status = Command::new("smtp-source")
        .args(load(options, Some(address)))
        .stdin(Stdio::null())
        .status()
        .context("cannot start smtp-source: apt-get install --no-install-recommends postfix")?;
    let seconds = Now::read().monotonic.duration_since(start).as_secs_f64();
    ensure!(status.success(), "smtp-source: {status}");
    let messages = options.messages as f64;
    let threads = server::spent(&before, server::cpu_by_thread(pid)?, messages);
    Ok(Sample {
        cpu_us_per_message: threads.iter().map(|(_, micros)| micros).sum(),
        messages_per_second: messages / seconds,
        threads,
    })
}

/// Arguments of smtp-source.
fn load(options: &Options, address: Option<SocketAddr>) -> Vec<String> {
    let reuse = (!options.reconnect).then(|| "-d".to_owned());
    let counts = [
        ("-s", u64::from(options.sessions)),
        ("-l", options.size.into()),
        ("-m", options.messages),
    ];
    let counts = counts.into_iter().flat_map(|(flag, count)| [flag.to_owned(), count.to_string()]);
    reuse.into_iter().chain(counts).chain(address.map(|address| address.to_string())).collect()
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn print(report: &Report) {
    println!("smtp-source {}, {} rounds: median (min to max)", report.load, report.ingress.len());
    for (name, samples) in [("smtp-sink", &report.smtp_sink), ("ingress", &report.ingress)] {
        let cpu = Spread::of(samples.iter().map(|sample| sample.cpu_us_per_message));
        let rate = Spread::of(samples.iter().map(|sample| sample.messages_per_second));
        println!("{name:10} CPU {cpu:.1} us/message   {rate:.0} messages/s");
    }
    if let Some(sample) = report.ingress.last() {
        let threads = server::busy(&sample.threads);
        println!("ingress threads in the last round, us/message: {threads}");
    }
    println!("CPU of ingress / CPU of smtp-sink: {:.2}", report.cpu_ratio);
}
