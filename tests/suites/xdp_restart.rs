//! The planned restart and the crash, with XDP: across namespaces, with maps and attachments pinned in a BPF file system that the
//! suite mounts for itself.
//!
//! Needs root, iproute2, ethtool, python3, two CPUs and a daemon built with the eBPF object; else each test says why it was
//! skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::load::Load;
use ingress_tests::netns::{self, INTERFACE, Pair, SERVER_V4};
use ingress_tests::wait::wait_for;

/// For anything that happens in a moment.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Namespaces have their own ports, so this one is always free.
const PORT: u16 = 25;

/// A second address of the client's host.
const BANNED_V4: &str = "10.77.0.3";

/// A BPF file system of the test's own, and the folder of pins in it.
struct BpfFs {
    mount: tempfile::TempDir,
}

impl BpfFs {
    fn mount() -> Self {
        let mount = tempfile::Builder::new().prefix("ingress-bpf-").tempdir().unwrap();
        netns::output(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(mount.path())).unwrap();
        Self { mount }
    }

    fn pin_dir(&self) -> PathBuf {
        self.mount.path().join("ingress")
    }

    /// All files below it.
    fn pins(&self) -> Vec<PathBuf> {
        let mut pins = Vec::new();
        collect(&self.pin_dir(), &mut pins);
        pins
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            _ => files.push(entry.path()),
        }
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // Lazily: a daemon that a failed test left behind still has it.
        let _ = netns::output(Command::new("umount").arg("-l").arg(self.mount.path()));
    }
}

/// Server and client, and one more address of the client that is banned.
struct Edge {
    pair: Pair,
    pins: BpfFs,
    site: Site,
}

impl Edge {
    /// None, with the reason printed, where there can be none.
    fn create(budget: &str) -> Option<Self> {
        let pair = netns::pair_for_steering()?;
        let pins = BpfFs::mount();
        let site = Site::with_config(&format!(
            "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n\
             [[listener]]\naddress = \"{SERVER_V4}:{PORT}\"\n\
             [recipients]\ndomains = [\"*\"]\n[delivery]\nkind = \"discard\"\n\
             [limits]\nconnections_per_client_max = 1000\n\
             [xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\npin_dir = \"{}\"\n\
             [xdp.filter]\n{budget}",
            pins.pin_dir().display()
        ))
        .unwrap();
        let address = format!("{BANNED_V4}/24");
        let mut add = pair.client.command("ip");
        netns::output(add.args(["address", "add", &address, "dev", INTERFACE])).unwrap();
        Some(Self { pair, pins, site })
    }

    fn start(&self, options: &[&str]) -> Daemon {
        let mut command = self.pair.server.command(ingress_tests::bin());
        command.arg("run").arg("--config").arg(self.site.config()).args(options);
        Daemon::start(command).unwrap()
    }

    fn ban(&self) {
        let output = self.site.command_after("ban", &["add", BANNED_V4]).unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn banned_packets(&self) -> u64 {
        let output = self.site.command_after("ban", &["list", "--json"]).unwrap();
        assert!(output.status.success(), "{output:?}");
        let bans: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        bans[0]["packets"].as_u64().unwrap()
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.pair.client.command("timeout");
        command.args(["120", program]).args(arguments);
        command
    }

    /// Tries to connect from the banned address until it is told to stop; what it prints is what got through.
    fn knock(&self, stop: &Path) -> Command {
        let mut command = self.client("python3", &["-c", KNOCK, BANNED_V4, SERVER_V4]);
        command.arg(PORT.to_string()).arg(stop);
        command
    }

    /// The number of the attached program.
    fn program(&self) -> Option<String> {
        let mut command = self.pair.server.command("ip");
        let link = netns::output(command.args(["-d", "link", "show", INTERFACE])).unwrap();
        let (_, behind) = link.split_once("prog/xdp id ")?;
        behind.split_whitespace().next().map(str::to_owned)
    }
}

const KNOCK: &str = r#"
import os, socket, sys
source, server, port, stop = sys.argv[1:]
while not os.path.exists(stop):
    try:
        socket.create_connection((server, int(port)), 0.3, (source, 0))
        print("connected")
    except TimeoutError:
        pass
"#;

#[test]
fn the_filter_stays_over_a_planned_restart_and_no_client_is_refused() {
    let generous = "connections_per_second = 100000\nconnections_burst = 100000\n";
    let Some(edge) = Edge::create(generous) else { return };
    let old = edge.start(&[]);
    edge.ban();
    let program = edge.program().unwrap();
    let mut open = edge.pair.client.command("python3");
    open.args(["-c", OPEN_SESSION, SERVER_V4]).arg(PORT.to_string());
    let open = open.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the open sessions", TIMEOUT, || old.count("/connections/open").unwrap() == 2);
    let stop_file = edge.site.folder().join("stop");
    let load = Load::default();
    let target = format!("inet:{SERVER_V4}:{PORT}");
    let (new, before, got_through) = thread::scope(|scope| {
        scope.spawn(|| load.run(|| edge.client("smtp-source", &[]), &target));
        let knocking = scope.spawn(|| netns::output(&mut edge.knock(&stop_file)).unwrap());
        wait_for("mail and a drop", TIMEOUT, || load.sent() > 0 && edge.banned_packets() > 0);
        let before = edge.banned_packets();
        let new = edge.start(&["--take-over"]);
        let by_the_old = load.sent();
        wait_for("mail for the successor", TIMEOUT, || load.sent() > by_the_old);
        load.stop();
        std::fs::write(&stop_file, "").unwrap();
        (new, before, knocking.join().unwrap())
    });
    assert_eq!(got_through, "", "a banned client got through");
    assert!(edge.banned_packets() >= before, "the ban goes on");
    let open = open.wait_with_output().unwrap();
    assert!(open.status.success(), "{open:?}");
    let told = String::from_utf8(open.stdout).unwrap();
    let codes: Vec<&str> = told.lines().filter_map(|line| line.get(..4)).collect();
    assert_eq!(codes, ["220 ", "250 ", "250 ", "250 ", "354 ", "250 ", "421 "], "{told}");
    assert!(old.wait().unwrap().status.success());
    let successors = edge.program().unwrap();
    assert_ne!(successors, program, "the program was replaced");
    assert!(new.count("/xdp/verdicts/steered").unwrap() > 0);
    new.stop().unwrap();
    assert_eq!(edge.program(), None);
    assert_eq!(edge.pins.pins(), Vec::<PathBuf>::new(), "a daemon that stops leaves nothing");
}

/// A session in the middle of a message, which goes on when another one that says nothing is sent away. Prints what it was told.
const OPEN_SESSION: &str = r#"
import socket, sys
server, port = sys.argv[1:]
def connect():
    peer = socket.create_connection((server, int(port)), 30)
    peer.settimeout(60)
    return peer, peer.makefile("rb")
silent, silent_reader = connect()
silent_reader.readline()
peer, reader = connect()
def tell():
    print(reader.readline().decode().strip(), flush=True)
tell()
for line in [b"HELO client.test", b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.net>", b"DATA"]:
    peer.sendall(line + b"\r\n")
    tell()
peer.sendall(b"Subject: begun\r\n\r\n")
silent_reader.readline()
peer.sendall(b"and ended\r\n.\r\n")
tell()
tell()
assert reader.read() == b""
"#;

/// Connects so many times at once; nobody waits for the answers.
const BURST: &str = r#"
import socket, sys
source, server, port, count = sys.argv[1:]
peers = [socket.socket() for _ in range(int(count))]
for peer in peers:
    peer.setblocking(False)
    peer.bind((source, 0))
    peer.connect_ex((server, int(port)))
"#;

#[test]
fn after_a_crash_nothing_is_attached_and_the_next_daemon_goes_on_with_what_was_known_of_sources() {
    let budget = "connections_per_second = 1\nconnections_burst = 200\n";
    let Some(edge) = Edge::create(budget) else { return };
    let over_budget = |daemon: &Daemon| daemon.count("/xdp/verdicts/over_budget").unwrap();
    let burst = |count: &str| {
        let mut command = edge.client("python3", &["-c", BURST, BANNED_V4, SERVER_V4]);
        netns::output(command.args([&PORT.to_string(), count])).unwrap();
    };
    let daemon = edge.start(&[]);
    burst("220");
    assert!(over_budget(&daemon) >= 10, "{:#}", daemon.status().unwrap());
    daemon.kill().unwrap();
    assert_eq!(edge.program(), None, "a crash detaches");
    assert_eq!(edge.pins.pins().len(), 2);
    let next = edge.start(&[]);
    // A budget of its own would be 200; of the old one a second gives one back.
    burst("100");
    assert!(over_budget(&next) >= 40, "{:#}", next.status().unwrap());
    next.stop().unwrap();
    assert_eq!(edge.pins.pins(), Vec::<PathBuf>::new());
}
