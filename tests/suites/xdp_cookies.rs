//! SYN cookies across a network: what XDP answers, the kernel has to believe in when the client comes back with it.
//!
//! Needs root, iproute2, ethtool, python3, smtp-source, two CPUs and a daemon built with the eBPF object; else each test says why it
//! was skipped.

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, INTERFACE, Namespace, Pair, SERVER_V4, SERVER_V6};

/// Each with a message, for each family. Without pressure two pass on each CPU at first, and one in each second after it.
const CONNECTIONS: u64 = 60;

/// Uses up what passes without pressure, then comes from one port twice; the second time the server still waits for the end of the
/// first connection, because it was the one that closed it. Prints what the server said.
const SAME_PORT_TWICE: &str = r#"
import errno, socket, sys
server = sys.argv[1]
def connect(source_port):
    while True:
        peer = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        peer.settimeout(30)
        peer.bind(("", source_port))
        try:
            peer.connect((server, 25))
            return peer
        except OSError as error:
            # The server has not acknowledged yet that this side has closed, too.
            if error.errno != errno.EADDRNOTAVAIL:
                raise
def session(source_port):
    peer = connect(source_port)
    reader = peer.makefile("rb")
    greeting = reader.readline().decode()
    peer.sendall(b"QUIT\r\n")
    # Until the server has closed.
    reader.read()
    peer.close()
    return greeting
for _ in range(20):
    session(0)
print(session(1025), end="")
print(session(1025), end="")
"#;

/// A server that is under pressure from the third connection on each CPU on.
struct World {
    daemon: Daemon,
    _peer: Daemon,
    site: Site,
    pair: Pair,
}

impl World {
    /// `None`, with the reason printed, where there can be none. `switch` is net.ipv4.tcp_syncookies.
    fn start(switch: u8) -> Option<Self> {
        let pair = netns::pair_for_steering()?;
        let write = format!("echo {switch} > /proc/sys/net/ipv4/tcp_syncookies");
        netns::output(pair.server.command("sh").args(["-c", &write])).unwrap();
        // A veth takes in what XDP sends back only where its own end has a program, too: one that lets all of it pass.
        let peer = site(&["127.0.0.1:0"], "steering = \"off\"\n[xdp.filter]\nmode = \"off\"\n");
        let filter = "[xdp.filter]\nsyn_cookies = true\npressure_per_second = 1\n";
        let site = site(&["0.0.0.0:25", "[::]:25"], filter);
        let (daemon, peer) = (start(&pair.server, &site), start(&pair.client, &peer));
        Some(Self { daemon, _peer: peer, site, pair })
    }

    fn verdict(&self, name: &str) -> u64 {
        self.daemon.count(&format!("/xdp/verdicts/{name}")).unwrap()
    }

    /// A message on each of so many connections, one after the other.
    fn send(&self, target: &str, connections: u64) {
        let mut source = self.pair.client.command("timeout");
        source.args(["60", "smtp-source", "-s", "1", "-l", "4096"]);
        netns::output(source.args(["-m", &connections.to_string(), target])).unwrap();
    }

    /// A counter of the server's TCP, as in /proc/net/netstat.
    fn tcp_counter(&self, name: &str) -> u64 {
        let table = netns::output(self.pair.server.command("cat").arg("/proc/net/netstat"));
        let table = table.unwrap();
        let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs.find(|(known, _)| *known == name).expect(name).1.parse().unwrap()
    }
}

fn site(listeners: &[&str], xdp: &str) -> Site {
    let listener = |address: &&str| format!("[[listener]]\naddress = \"{address}\"\n");
    let listeners: String = listeners.iter().map(listener).collect();
    Site::with_config(&format!(
        "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n{listeners}\
         [recipients]\ndomains = [\"*\"]\n[delivery]\nkind = \"discard\"\n\
         [xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n{xdp}"
    ))
    .unwrap()
}

fn start(namespace: &Namespace, site: &Site) -> Daemon {
    let mut command = namespace.command(ingress_tests::bin());
    command.arg("run").arg("--config").arg(site.config());
    Daemon::start(command).unwrap()
}

#[test]
fn under_pressure_mail_comes_by_cookies_at_the_first_try() {
    let Some(world) = World::start(2) else { return };
    for target in [format!("inet:{SERVER_V4}:25"), format!("inet:[{SERVER_V6}]:25")] {
        let before = world.verdict("cookie_sent");
        world.send(&target, CONNECTIONS);
        let sent = world.verdict("cookie_sent") - before;
        assert!(sent > CONNECTIONS / 2, "{sent} cookies to {target}");
    }
    assert_eq!(world.daemon.count("/messages/accepted").unwrap(), 2 * CONNECTIONS);
    assert_eq!(world.verdict("under_pressure"), 0, "nobody had to try twice");
    // The kernel answers those by itself that pass without pressure.
    assert!(world.tcp_counter("SyncookiesRecv") >= world.verdict("cookie_sent"));
    assert_eq!(world.tcp_counter("SyncookiesFailed"), 0);
    assert_eq!(world.daemon.count("/steering/remote").unwrap(), 0);
}

#[test]
fn while_the_kernel_wants_no_cookies_clients_come_at_the_second_try() {
    let Some(world) = World::start(1) else { return };
    for target in [format!("inet:{SERVER_V4}:25"), format!("inet:[{SERVER_V6}]:25")] {
        world.send(&target, 8);
    }
    assert_eq!(world.daemon.count("/messages/accepted").unwrap(), 16);
    assert_eq!(world.verdict("cookie_sent"), 0);
    assert!(world.verdict("under_pressure") > 0);
}

#[test]
fn a_client_that_comes_from_the_port_of_a_closed_connection_is_served() {
    let Some(world) = World::start(2) else { return };
    for address in [SERVER_V4, SERVER_V6] {
        let mut client = world.pair.client.command("timeout");
        client.args(["60", "python3", "-c", SAME_PORT_TWICE, address]);
        let said = netns::output(&mut client).unwrap();
        let greetings = said.lines().filter(|line| line.starts_with("220 ")).count();
        assert_eq!(greetings, 2, "{said}");
    }
    assert!(world.verdict("cookie_sent") > 0);
    assert_eq!(world.verdict("under_pressure"), 0, "nobody had to try twice");
}

#[test]
fn cookies_that_the_kernel_never_makes_are_told_before_and_at_the_start() {
    let Some(world) = World::start(0) else { return };
    let mut check = world.pair.server.command(ingress_tests::bin());
    check.args(["xdp", "check", "--config"]).arg(world.site.config());
    let said = String::from_utf8(check.output().unwrap().stdout).unwrap();
    let warning = "the kernel makes none (net.ipv4.tcp_syncookies is 0)";
    assert!(said.lines().any(|line| line.starts_with("warn") && line.contains(warning)), "{said}");
    world.send(&format!("inet:{SERVER_V4}:25"), 8);
    assert_eq!(world.daemon.count("/messages/accepted").unwrap(), 8);
    assert_eq!(world.verdict("cookie_sent"), 0);
    let log = world.daemon.stop().unwrap().stderr;
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(warning)), "{log}");
}
