//! What a message costs with steering by XDP and without, across network namespaces, in turn within one run.
//!
//! Much of the network's work is billed to whoever ran when it came up, so the daemon's figure alone says little: beside it stand the
//! kernel's threads for packets, the clients, and all that the machine was busy with, which other processes spoil.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, INTERFACE, Pair, SERVER_V4};
use ingress_user::worker::clock::Now;

use crate::server;
use crate::statistics::Spread;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds; in each, both ways get the same load, and the order changes
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Messages of a measurement, of 1 KiB, half of them from either CPU, in 20 sessions
    #[arg(long, default_value_t = 40_000)]
    messages: u64,
    /// A new connection for each message, instead of one for all of a session
    #[arg(long)]
    reconnect: bool,
}

const PORT: &str = "25";

/// The names of both settings of `xdp.steering`: nothing else differs.
const WAYS: [&str; 2] = ["cpumap", "off"];

/// One measurement, in microseconds of CPU for a message.
#[derive(Debug, Clone, Copy)]
struct Sample {
    daemon: f64,
    /// Those that redirected packets wake, and those of soft interrupts.
    kernel_threads: f64,
    clients: f64,
    machine: f64,
    messages_per_second: f64,
    /// Connections that were handled on their worker's CPU, in percent.
    local: f64,
}

impl Sample {
    /// Of everybody who has to do with the message.
    fn all(&self) -> f64 {
        self.daemon + self.kernel_threads + self.clients
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0 && options.messages > 1, "nothing to measure");
    let pair = netns::pair_for_steering().context("steering needs namespaces: see above")?;
    let mut samples: [Vec<Sample>; 2] = Default::default();
    for round in 0..options.rounds {
        for way in [round % 2, 1 - round % 2] {
            samples[way].push(measure(&pair, WAYS[way], options)?);
        }
        eprint!(".");
    }
    eprintln!();
    print(options, &samples);
    Ok(())
}

fn measure(pair: &Pair, steering: &str, options: &Options) -> Result<Sample> {
    let state = server::folder_on_disk()?;
    let site = Site::with_config(&format!(
        "hostname = \"mx.test\"\nstate_dir = {:?}\nworkers = [0, 1]\n\
         [[listener]]\naddress = \"{SERVER_V4}:{PORT}\"\n[recipients]\ndomains = [\"*\"]\n\
         [delivery]\nkind = \"discard\"\n[xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n\
         steering = \"{steering}\"\n[xdp.filter]\nmode = \"off\"\n",
        state.path()
    ))?;
    let mut command = pair.server.command(ingress_tests::bin());
    command.arg("run").arg("--config").arg(site.config());
    let daemon = Daemon::start(command)?;
    let before = Cpu::of(&daemon)?;
    let began = Now::read().monotonic;
    send(pair, options)?;
    let seconds = (Now::read().monotonic - began).as_secs_f64();
    let after = Cpu::of(&daemon)?;
    let accepted = daemon.count("/messages/accepted")?;
    let messages = options.messages / 2 * 2;
    ensure!(accepted == messages, "{accepted} of {messages} messages accepted");
    let (local, remote) = (daemon.count("/steering/local")?, daemon.count("/steering/remote")?);
    let micros = |spent: fn(&Cpu) -> f64| (spent(&after) - spent(&before)) / messages as f64;
    Ok(Sample {
        daemon: micros(|cpu| cpu.daemon),
        kernel_threads: micros(|cpu| cpu.kernel_threads),
        clients: micros(|cpu| cpu.clients),
        machine: micros(|cpu| cpu.machine),
        messages_per_second: messages as f64 / seconds,
        local: 100.0 * local as f64 / (local + remote) as f64,
    })
}

/// CPU time so far, in microseconds.
struct Cpu {
    daemon: f64,
    kernel_threads: f64,
    clients: f64,
    machine: f64,
}

impl Cpu {
    fn of(daemon: &Daemon) -> Result<Self> {
        let threads = server::cpu_by_thread(daemon.pid())?;
        Ok(Self {
            daemon: threads.iter().map(|(_, micros)| micros).sum(),
            kernel_threads: server::cpu_of_kernel_threads(&["cpumap/", "ksoftirqd/"])?,
            clients: server::cpu_of_children()?,
            machine: server::cpu_of_machine()?,
        })
    }
}

/// From both CPUs at once: packets come in where they were sent, as through two queues.
fn send(pair: &Pair, options: &Options) -> Result<()> {
    let messages = (options.messages / 2).to_string();
    let start = |cpu: &str| {
        let mut source = pair.client.command("taskset");
        source.args(["-c", cpu, "timeout", "120", "smtp-source", "-s", "10", "-l", "1024"]);
        source.args(["-m", &messages]).args((!options.reconnect).then_some("-d"));
        spawn(source.arg(format!("inet:{SERVER_V4}:{PORT}")))
    };
    for mut source in [start("0")?, start("1")?] {
        let status = source.wait()?;
        ensure!(status.success(), "smtp-source: {status}");
    }
    Ok(())
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {command:?}"))
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn print(options: &Options, samples: &[Vec<Sample>; 2]) {
    println!("{} messages, {} rounds: median (min to max)", options.messages, options.rounds);
    for (way, samples) in WAYS.into_iter().zip(samples) {
        let of = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        println!("steering {way}: {:.0} % local", of(|sample| sample.local));
        println!("  {:.0} messages/s", of(|sample| sample.messages_per_second));
        println!("  CPU of the daemon     {:.1} us/message", of(|sample| sample.daemon));
        println!("  of kernel threads     {:.1}", of(|sample| sample.kernel_threads));
        println!("  of clients            {:.1}", of(|sample| sample.clients));
        println!("  of these together     {:.1}", of(Sample::all));
        println!("  of the whole machine  {:.1}", of(|sample| sample.machine));
    }
    let [steered, free] = samples;
    let ratio = |figure: fn(&Sample) -> f64| {
        Spread::of(steered.iter().zip(free).map(|(steered, free)| figure(steered) / figure(free)))
    };
    println!("with steering over without, round by round:");
    println!("  CPU of the daemon     {:.2}", ratio(|sample| sample.daemon));
    println!("  of these together     {:.2}", ratio(Sample::all));
    println!("  of the whole machine  {:.2}", ratio(|sample| sample.machine));
    println!("  messages/s            {:.2}", ratio(|sample| sample.messages_per_second));
}
