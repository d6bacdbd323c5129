//! Mail while a SYN flood runs: across network namespaces, with the XDP filter, without it, and smtp-sink beside them.

mod source;

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, INTERFACE, Pair, SERVER_V4};
use ingress_tests::wait::wait_for;
use ingress_user::worker::clock::Now;

pub(crate) use self::source::Options as SourceOptions;
pub(crate) use self::source::run as run_source;
use crate::statistics::Spread;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds; in each, all servers get the same mail and the same floods
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages of each measurement, of 1 KiB, in 20 sessions
    #[arg(long, default_value_t = 40_000)]
    messages: u64,
}

/// Where the flood goes in the undisturbed measurement: into an interface whose other end is down, so that it costs its CPU and
/// nobody receives it.
const VOID: &str = "void0";
const NOWHERE: &str = "198.51.100.25";
const PORT: &str = "25";

/// Who floods: made-up addresses, each once, or a hundred that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Nowhere,
    Spoofed,
    Fixed,
}

const FLOODS: [Flood; 3] = [Flood::Nowhere, Flood::Spoofed, Flood::Fixed];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Filtered,
    Unfiltered,
    Sink,
}

const SERVERS: [Server; 3] = [Server::Filtered, Server::Unfiltered, Server::Sink];

#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0 && options.messages > 0, "nothing to measure");
    let pair = netns::pair_for_steering().context("the flood needs namespaces: see above")?;
    prepare(&pair)?;
    let mut rates: [[Vec<f64>; 3]; 3] = Default::default();
    let mut sent = Vec::new();
    for _ in 0..options.rounds {
        for (server, rates) in SERVERS.into_iter().zip(&mut rates) {
            let running = server.start(&pair)?;
            for (flood, rates) in FLOODS.into_iter().zip(rates) {
                let source = flood.start(&pair)?;
                rates.push(messages_a_second(&pair, options.messages)?);
                let packets = stop(source)?;
                if flood != Flood::Nowhere {
                    sent.push(packets);
                }
            }
            drop(running);
        }
    }
    println!("floods sent {:.0} SYNs a second", Spread::of(sent));
    for (server, rates) in SERVERS.into_iter().zip(&rates) {
        let [undisturbed, disturbed @ ..] = rates;
        println!(
            "{server:?}: {:.0} messages/s undisturbed",
            Spread::of(undisturbed.iter().copied())
        );
        for (flood, rates) in FLOODS.into_iter().skip(1).zip(disturbed) {
            let share = rates.iter().zip(undisturbed).map(|(flooded, free)| 100.0 * flooded / free);
            println!("  {flood:?}: {:.0} %", Spread::of(share));
        }
    }
    Ok(())
}

/// Routes that let answers to made-up addresses go out, and the way to nowhere.
fn prepare(pair: &Pair) -> Result<()> {
    let ip = |namespace: &netns::Namespace, arguments: &str| {
        netns::output(namespace.command("ip").args(arguments.split(' '))).map(drop)
    };
    ip(&pair.server, &format!("route add default via 10.77.0.1 dev {INTERFACE}"))?;
    for file in ["all", INTERFACE] {
        let script = format!("echo 0 > /proc/sys/net/ipv4/conf/{file}/rp_filter");
        netns::output(pair.server.command("sh").args(["-c", &script]))?;
    }
    ip(&pair.client, &format!("link add {VOID} type veth peer name void1"))?;
    ip(&pair.client, &format!("link set {VOID} up"))?;
    // Frames from an XDP program are received by a veth that has NAPI: with GRO, or with an XDP program of its own.
    netns::output(pair.server.command("ethtool").args(["-K", INTERFACE, "gro", "on"])).map(drop)
}

/// A server in its namespace, until it is dropped.
enum Running {
    Ingress { _daemon: Daemon, _site: Site },
    Sink(Child),
}

impl Server {
    fn start(self, pair: &Pair) -> Result<Running> {
        let mode = match self {
            Self::Filtered => "drop",
            Self::Unfiltered => "off",
            Self::Sink => return start_sink(pair),
        };
        let site = Site::with_config(&format!(
            "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n\
             [[listener]]\naddress = \"0.0.0.0:{PORT}\"\n[recipients]\ndomains = [\"*\"]\n\
             [delivery]\nkind = \"discard\"\n\
             [xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n[xdp.filter]\nmode = \"{mode}\"\n"
        ))?;
        let mut command = pair.server.command(ingress_tests::bin());
        command.arg("run").arg("--config").arg(site.config());
        Ok(Running::Ingress { _daemon: Daemon::start(command)?, _site: site })
    }
}

fn start_sink(pair: &Pair) -> Result<Running> {
    let mut command = pair.server.command("smtp-sink");
    command.args(["-u", "root", &format!("{SERVER_V4}:{PORT}"), "1000"]);
    let child = command.stdin(Stdio::null()).spawn().context("cannot start smtp-sink")?;
    let probe = format!("exec 3<>/dev/tcp/{SERVER_V4}/{PORT}");
    wait_for("smtp-sink", Duration::from_secs(10), || {
        let mut client = pair.client.command("timeout");
        client.args(["1", "bash", "-c", &probe]).stderr(Stdio::null());
        client.status().is_ok_and(|status| status.success())
    });
    Ok(Running::Sink(child))
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Sink(child) = self {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

impl Flood {
    /// Pinned to the second CPU, which is its core's worth.
    fn start(self, pair: &Pair) -> Result<Child> {
        let this = std::env::current_exe().context("the benchmark's own file is not known")?;
        let (interface, target, sources) = match self {
            Self::Nowhere => (VOID, NOWHERE, "0"),
            Self::Spoofed => (INTERFACE, SERVER_V4, "0"),
            Self::Fixed => (INTERFACE, SERVER_V4, "100"),
        };
        let address = format!("/sys/class/net/{INTERFACE}/address");
        let neighbour = netns::output(pair.server.command("cat").arg(address))?;
        let mut command = pair.client.command("taskset");
        command.args(["-c", "1"]).arg(this).args(["flood-source", interface, neighbour.trim()]);
        command.args([target, "--sources", sources]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().context("cannot start the flood")
    }
}

/// Ends the flood; SYNs a second that it sent.
fn stop(mut source: Child) -> Result<f64> {
    drop(source.stdin.take());
    let output = source.wait_with_output()?;
    ensure!(output.status.success(), "the flood failed: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn messages_a_second(pair: &Pair, messages: u64) -> Result<f64> {
    let target = format!("inet:{SERVER_V4}:{PORT}");
    let mut source = pair.client.command("timeout");
    source.args(["120", "smtp-source", "-d", "-s", "20", "-l", "1024", "-m"]);
    let began = Now::read().monotonic;
    netns::output(source.args([&messages.to_string(), &target]))?;
    Ok(messages as f64 / (Now::read().monotonic - began).as_secs_f64())
}

/// A command of a program that ends when its standard input does.
pub(crate) fn ends_with_stdin() -> std::sync::mpsc::Receiver<()> {
    let (ended, is_ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _read = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(ended);
    });
    is_ended
}
