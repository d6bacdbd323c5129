//! The data plane on a real interface: a veth pair between two namespaces, TCP over both families.
//!
//! Needs root, iproute2, ethtool, two CPUs and a build with the eBPF object; else each test says why it was skipped.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, INTERFACE, Pair, SERVER_V4, SERVER_V6};
use ingress_tests::wait::wait_for;

const SENDERS: &str = env!("CARGO_BIN_EXE_big-senders");
const SINK: &str = env!("CARGO_BIN_EXE_steered-sink");
const CONNECTIONS: u64 = 100;

/// A program inside a namespace that answers lines with lines.
struct Program {
    child: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it has ended").unwrap()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        self.line()
    }
}

impl Drop for Program {
    /// SIGKILL: what is left behind then is left behind after a crash.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `steered-sink serve` inside the server's namespace.
struct Sink(Program);

impl Sink {
    fn start(pair: &Pair, mode: &str, steering: &str, address: &str) -> (Self, String) {
        let arguments = ["serve", mode, steering, address, "0", "1"];
        let mut program = Program::start(pair.server.command(SINK).args(arguments));
        let ready = program.line();
        let tier = ready.strip_prefix("ready ").expect("ready line").to_owned();
        (Self(program), tier)
    }

    fn counts(&mut self) -> Counts {
        let line = self.0.ask("");
        let words: Vec<_> = line.split(' ').collect();
        words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap())).collect()
    }
}

fn connect(pair: &Pair, address: &str) {
    // `ip netns exec` replaces itself by the program, so that the deadline reaches it.
    netns::output(pair.client.command("timeout").args([
        "60",
        SINK,
        "connect",
        address,
        &CONNECTIONS.to_string(),
    ]))
    .unwrap();
}

fn link_details(pair: &Pair) -> String {
    let show: &mut Command = &mut pair.server.command("ip");
    netns::output(show.args(["-details", "link", "show", "dev", INTERFACE])).unwrap()
}

type Counts = HashMap<String, u64>;

/// Serves [`CONNECTIONS`] over either family; none where that is skipped.
fn serve(mode: &str, steering: &str, tier: &str) -> Option<[Counts; 2]> {
    let pair = netns::pair_for_steering()?;
    let addresses = [format!("{SERVER_V4}:2525"), format!("[{SERVER_V6}]:2525")];
    Some(addresses.map(|address| {
        let (mut sink, started) = Sink::start(&pair, mode, steering, &address);
        assert_eq!(started, tier);
        connect(&pair, &address);
        let counts = sink.counts();
        let served = ["local0", "local1", "remote0", "remote1"].map(|key| counts[key]);
        assert_eq!(served.iter().sum::<u64>(), CONNECTIONS, "{address}: {counts:?}");
        counts
    }))
}

fn serve_locally(mode: &str, steering: &str, tier: &str) -> Option<[Counts; 2]> {
    let runs = serve(mode, steering, tier)?;
    for counts in &runs {
        assert_eq!(counts["remote0"] + counts["remote1"], 0, "{counts:?}");
    }
    Some(runs)
}

#[test]
fn cpumap_steers_every_connection_to_its_worker() {
    let Some(runs) = serve_locally("native", "auto", "cpumap") else { return };
    for counts in runs {
        // SYN, ACK and at least one more of every connection.
        assert!(counts["steered"] >= 3 * CONNECTIONS, "{counts:?}");
        assert_eq!(counts["passed"], 0, "{counts:?}");
        // The hash deals them out; a fair one leaves a worker below a fifth once in a thousand million runs.
        let least = counts["local0"].min(counts["local1"]);
        assert!(least >= CONNECTIONS / 5, "{counts:?}");
    }
}

/// The control: locality is not there by itself.
#[test]
fn without_steering_connections_go_anywhere() {
    let Some(runs) = serve("native", "off", "none") else { return };
    for counts in runs {
        assert!(counts["remote0"] + counts["remote1"] >= CONNECTIONS / 5, "{counts:?}");
        assert!(counts["passed"] >= 3 * CONNECTIONS, "{counts:?}");
    }
}

#[test]
fn queues_are_followed_without_a_redirect() {
    let Some(runs) = serve_locally("native", "queues", "queues") else { return };
    for counts in runs {
        assert!(counts["passed"] >= 3 * CONNECTIONS, "{counts:?}");
        assert_eq!(counts["steered"], 0, "{counts:?}");
    }
}

#[test]
fn generic_mode_counts_and_loses_nothing() {
    let Some(runs) = serve_locally("generic", "cpumap", "incoming-cpu") else { return };
    for counts in runs {
        assert!(counts["passed"] >= 3 * CONNECTIONS, "{counts:?}");
        assert_eq!(counts["steered"], 0, "{counts:?}");
    }
}

#[test]
fn without_xdp_the_incoming_cpu_is_followed() {
    serve_locally("off", "auto", "incoming-cpu");
}

#[test]
fn killed_daemon_leaves_no_program_behind() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let (sink, _) = Sink::start(&pair, "native", "auto", &format!("{SERVER_V4}:2525"));
    assert!(link_details(&pair).contains("prog/xdp"), "{}", link_details(&pair));
    drop(sink);
    assert!(!link_details(&pair).contains("prog/xdp"), "{}", link_details(&pair));
}

#[test]
fn an_occupied_interface_is_an_error_when_native_is_demanded() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let (_owner, _) = Sink::start(&pair, "native", "auto", &format!("{SERVER_V4}:2525"));
    let second = netns::output(pair.server.command(SINK).args([
        "serve",
        "native",
        "auto",
        &format!("{SERVER_V4}:2526"),
        "0",
    ]));
    let message = second.unwrap_err().to_string();
    assert!(message.contains("another XDP program"), "{message}");
}

#[test]
fn auto_goes_without_xdp_where_it_cannot_be_had() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let (_owner, _) = Sink::start(&pair, "native", "auto", &format!("{SERVER_V4}:2525"));
    let (_second, tier) = Sink::start(&pair, "auto", "auto", &format!("{SERVER_V4}:2526"));
    assert_eq!(tier, "incoming-cpu");
}

#[test]
fn open_connections_stay_on_their_cpu_while_buckets_move() {
    let Some(pair) = netns::pair_for_steering() else { return };
    for address in [format!("{SERVER_V4}:2525"), format!("[{SERVER_V6}]:2525")] {
        let (mut sink, tier) = Sink::start(&pair, "native", "auto", &address);
        assert_eq!(tier, "cpumap");
        let mut client = pair.client.command("timeout");
        let mut client = Program::start(client.args(["60", SINK, "hold", &address]));
        client.ask("open 100");
        let mut local = ["local0", "local1"].map(|key| sink.counts()[key]);
        assert_eq!(local[0] + local[1], 100);
        for (round, (from, to)) in (2..).zip([(0, 1), (1, 0), (0, 1)]) {
            // All of them, so that every new connection tells where they are.
            sink.0.ask(&format!("give {from} {to} 256"));
            client.ask("open 100");
            local[to] += 100;
            let counts = sink.counts();
            assert_eq!(["local0", "local1"].map(|key| counts[key]), local, "{counts:?}");
            let told = client.ask("ask");
            assert_eq!(told, format!("kept {} strayed 0", round * 100), "{address}");
        }
    }
}

/// For a worker to be found overloaded, which takes five seconds when it gets a quarter of its CPU from whoever else is busy.
const MOVE_TIMEOUT: Duration = Duration::from_secs(120);

/// Sessions that stay; they have one worker.
const BIG_SENDERS: u64 = 4;

/// A daemon in the server's namespace that takes mail for anybody and throws it away.
fn start_daemon(pair: &Pair) -> (Daemon, Site) {
    let site = Site::with_config(&format!(
        "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n\
         [[listener]]\naddress = \"{SERVER_V4}:25\"\n[recipients]\ndomains = [\"*\"]\n\
         [delivery]\nkind = \"discard\"\n\
         [xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n"
    ))
    .unwrap();
    let mut command = pair.server.command(ingress_tests::bin());
    command.arg("run").arg("--config").arg(site.config());
    (Daemon::start(command).unwrap(), site)
}

/// The client's program with [`BIG_SENDERS`] sessions, all of which the first worker has.
fn big_senders(pair: &Pair, daemon: &Daemon) -> Program {
    let open = |worker| daemon.count(&format!("/workers/{worker}/connections_open")).unwrap();
    let mut command = pair.client.command("taskset");
    command.args(["-c", "1", "timeout", "240", SENDERS, &format!("{SERVER_V4}:25")]);
    let mut senders = Program::start(&mut command);
    while open(0) < BIG_SENDERS {
        senders.ask("open");
        if open(1) > 0 {
            senders.ask("close");
            wait_for("end of a session", MOVE_TIMEOUT, || open(1) == 0);
        }
    }
    senders
}

#[test]
fn a_worker_with_big_senders_gets_fewer_of_the_new_connections() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let (daemon, _site) = start_daemon(&pair);
    let count = |pointer| daemon.count(pointer).unwrap();
    assert_eq!([count("/workers/0/buckets"), count("/workers/1/buckets")], [128, 128]);
    let mut senders = big_senders(&pair, &daemon);
    senders.ask("send");
    wait_for("moved bucket", MOVE_TIMEOUT, || count("/workers/0/buckets") < 128);
    let status = daemon.status().unwrap();
    let shares = [0, 1].map(|worker| status["workers"][worker]["buckets"].as_u64().unwrap());
    assert!(shares[0] < 128 && shares[0] + shares[1] == 256, "{status:#}");

    // Who comes now is served on its CPU, and nobody who was there has noticed.
    for _ in 0..20 {
        senders.ask("open");
    }
    let accepted = senders.ask("stop");
    let accepted: u64 = accepted.strip_prefix("accepted ").unwrap().parse().unwrap();
    assert!(accepted >= BIG_SENDERS);
    assert_eq!(count("/messages/accepted"), accepted);
    assert_eq!(count("/steering/remote"), 0);
    let said = daemon.stop().unwrap().stderr;
    assert!(said.contains("new connections move to another CPU"), "{said}");
    println!("{}", said.lines().filter(|line| line.contains("move to")).collect::<String>());
}
