//! From misbehaviour in SMTP to a dropped SYN, and back: two namespaces, a veth pair, XDP on the server's end.
//!
//! Needs root, iproute2, ethtool, python3, two CPUs and a daemon built with the eBPF object; else each test says why it was
//! skipped.

use std::process::Command;
use std::time::Duration;

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, CLIENT_V4, CLIENT_V6, INTERFACE, Pair, SERVER_V4, SERVER_V6};
use ingress_tests::wait::wait_for;
use serde_json::Value;

/// Namespaces have their own ports, so this one is always free.
const PORT: u16 = 25;

/// For the daemon to ban, and for a ban to end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A second address of the client's host.
const ALLOWED_V4: &str = "10.77.0.3";

/// Connects from `source`, within `seconds`, and says so much nonsense; prints what it was told until the end, or `timed out`.
const CLIENT: &str = r#"
import socket, sys
source, server, port, seconds, lines = sys.argv[1:]
try:
    peer = socket.create_connection((server, int(port)), float(seconds), (source, 0))
except TimeoutError:
    print("timed out")
    sys.exit()
peer.settimeout(30)
reader = peer.makefile("rb")
print(reader.readline().decode(), end="")
for _ in range(int(lines)):
    peer.sendall(b"NONSENSE\r\n")
    print(reader.readline().decode(), end="")
if int(lines):
    print(reader.read().decode(), end="")
else:
    peer.sendall(b"QUIT\r\n")
    print(reader.read().decode(), end="")
"#;

struct Server {
    pair: Pair,
    site: Site,
    daemon: Option<Daemon>,
}

impl Server {
    /// `None`, with the reason printed, where there can be none.
    fn start(bans: &str) -> Option<Self> {
        let pair = netns::pair_for_steering()?;
        let site = Site::with_config(&format!(
            "hostname = \"mx.test\"\nstate_dir = \"state\"\n\
             [[listener]]\naddress = \"{SERVER_V4}:{PORT}\"\n\
             [[listener]]\naddress = \"[{SERVER_V6}]:{PORT}\"\n\
             [recipients]\ndomains = [\"*\"]\n[delivery]\nkind = \"discard\"\n\
             [limits]\nerrors_max = 3\n\
             [xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n{bans}"
        ))
        .unwrap();
        let mut server = Self { pair, site, daemon: None };
        server.start_daemon();
        Some(server)
    }

    fn start_daemon(&mut self) {
        let mut command = self.pair.server.command(ingress_tests::bin());
        command.arg("run").arg("--config").arg(self.site.config());
        self.daemon = Some(Daemon::start(command).unwrap());
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.daemon.take().unwrap().stop().unwrap();
        self.start_daemon();
    }

    /// What the client at this address is told.
    fn client(&self, source: &str, seconds: u32, lines: u32) -> String {
        let server = if source.contains(':') { SERVER_V6 } else { SERVER_V4 };
        let mut command: Command = self.pair.client.command("timeout");
        command.args(["60", "python3", "-c", CLIENT, source, server]);
        command.args([PORT.to_string(), seconds.to_string(), lines.to_string()]);
        netns::output(&mut command).unwrap()
    }

    fn flood(&self, source: &str) {
        let told = self.client(source, 20, 3);
        assert!(told.contains("421 4.7.0 mx.test Too many errors"), "{told}");
    }

    fn expect_served(&self, source: &str) {
        let told = self.client(source, 20, 0);
        assert!(told.starts_with("220 mx.test") && told.contains("\n221 "), "{told}");
    }

    /// Its SYN is dropped: nothing answers, and no worker hears of it.
    fn expect_dropped(&self, source: &str) {
        let before = self.daemon().count("/connections/total").unwrap();
        assert_eq!(self.client(source, 2, 0), "timed out\n");
        assert_eq!(self.daemon().count("/connections/total").unwrap(), before);
    }

    fn bans(&self) -> Vec<Value> {
        let output = self.site.command_after("ban", &["list", "--json"]).unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn ban(&self, args: &[&str]) {
        let output = self.site.command_after("ban", args).unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn wait_for_ban(&self) -> Value {
        wait_for("ban", TIMEOUT, || !self.bans().is_empty());
        self.bans().remove(0)
    }
}

#[test]
fn a_flood_of_errors_ends_in_dropped_syns_until_the_ban_is_over() {
    let Some(server) = Server::start("[bans]\nerror_floods_max = 2\nlifetime = \"12s\"\n") else {
        return;
    };
    for (source, network) in [(CLIENT_V4, "10.77.0.1/32"), (CLIENT_V6, "fd00:77::/64")] {
        server.flood(source);
        server.flood(source);
        let ban = server.wait_for_ban();
        assert_eq!((&ban["network"], &ban["reason"]), (&network.into(), &"error_flood".into()));
        server.expect_dropped(source);
        let ban = server.bans().remove(0);
        assert!(ban["packets"].as_u64().unwrap() > 0, "{ban}");
        wait_for("end of the ban", TIMEOUT, || server.bans().is_empty());
        server.expect_served(source);
    }
    assert!(server.daemon().count("/xdp/verdicts/banned").unwrap() > 0);
    assert_eq!(server.daemon().count("/bans/begun/error_flood").unwrap(), 2);
}

#[test]
fn an_allowed_client_is_never_banned_and_nobody_else_is_with_it() {
    let allow = format!("[xdp.filter]\nallow = [\"{ALLOWED_V4}\"]\n[bans]\nerror_floods_max = 1\n");
    let Some(server) = Server::start(&allow) else { return };
    let address = format!("{ALLOWED_V4}/24");
    let mut ip = server.pair.client.command("ip");
    netns::output(ip.args(["address", "add", &address, "dev", INTERFACE])).unwrap();
    for _ in 0..3 {
        server.flood(ALLOWED_V4);
    }
    // Reports come in their order: those of the allowed one would have been first.
    server.flood(CLIENT_V4);
    assert_eq!(server.wait_for_ban()["network"], "10.77.0.1/32");
    assert_eq!(server.bans().len(), 1);
    server.expect_dropped(CLIENT_V4);
    server.expect_served(ALLOWED_V4);
}

#[test]
fn a_ban_is_in_the_kernel_again_after_a_restart_and_goes_when_it_is_lifted() {
    let Some(mut server) = Server::start("") else { return };
    server.expect_served(CLIENT_V4);
    server.ban(&["add", "10.77.0.0/30", "--for", "1h", "--reason", "a network"]);
    server.expect_dropped(CLIENT_V4);
    server.restart();
    server.expect_dropped(CLIENT_V4);
    assert!(server.bans()[0]["packets"].as_u64().unwrap() > 0);
    server.ban(&["del", CLIENT_V4]);
    server.expect_served(CLIENT_V4);
}
