//! The data plane on a real interface: a veth pair between two namespaces, TCP over both families.
//!
//! Needs root, iproute2, ethtool, two CPUs and a build with the eBPF object; else each test says why it was skipped.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ingress_tests::netns::{self, INTERFACE, Pair, SERVER_V4, SERVER_V6};

const SINK: &str = env!("CARGO_BIN_EXE_steered-sink");
const CONNECTIONS: u64 = 100;

/// A running `steered-sink serve` inside the server's namespace.
struct Sink {
    child: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Sink {
    fn start(pair: &Pair, mode: &str, steering: &str, address: &str) -> (Self, String) {
        let mut child = pair
            .server
            .command(SINK)
            .args(["serve", mode, steering, address, "0", "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut sink = Self { child, input, lines };
        let ready = sink.lines.next().expect("no word from the sink").unwrap();
        let tier = ready.strip_prefix("ready ").expect("ready line").to_owned();
        (sink, tier)
    }

    fn counts(&mut self) -> Counts {
        self.input.write_all(b"\n").unwrap();
        let line = self.lines.next().unwrap().unwrap();
        let words: Vec<_> = line.split(' ').collect();
        words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap())).collect()
    }
}

impl Drop for Sink {
    /// SIGKILL: what is left behind then is left behind after a crash.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
