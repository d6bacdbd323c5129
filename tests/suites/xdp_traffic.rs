//! Every verdict of the filter comes up in traffic on a wire, for packets that no ordinary client sends too: two namespaces, raw
//! sockets on the client's side.
//!
//! Needs root, iproute2, ethtool, python3, two CPUs and a daemon built with the eBPF object; else each test says why it was
//! skipped.

use std::collections::BTreeMap;
use std::fs;

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, INTERFACE, Pair, SERVER_V4};
use serde_json::Value;

/// `send.py SERVER PACKET..` with packets as `SOURCE FLAGS COUNT KIND`: SYNs and worse, from addresses that need not exist.
const SENDER: &str = r#"
import socket, struct, sys

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff

def tcp(source, target, port, flags, data):
    fixed = (port, 25, 1, 0, 5 << 4, flags, 0xffff)
    pseudo = source + target + struct.pack("!BBH", 0, 6, 20 + len(data))
    header = struct.pack("!HHIIBBHHH", *fixed, 0, 0)
    return struct.pack("!HHIIBBHHH", *fixed, checksum(pseudo + header + data), 0) + data

def ip(source, target, protocol, fragment, payload):
    fixed = (0x45, 0, 20 + len(payload), 7, fragment, 64, protocol)
    header = struct.pack("!BBHHHBBH4s4s", *fixed, 0, source, target)
    return struct.pack("!BBHHHBBH4s4s", *fixed, checksum(header), source, target) + payload

server, packets = sys.argv[1], sys.argv[2:]
target = socket.inet_aton(server)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for packet in packets:
    address, flags, count, kind = packet.split()
    source = socket.inet_aton(address)
    for number in range(int(count)):
        if kind == "each":
            source = socket.inet_aton(address.rsplit(".", 1)[0] + f".{number + 100}")
        segment = tcp(source, target, 40000 + number, int(flags, 16), b"x" * 64 * (kind == "data"))
        protocol = 17 if kind == "udp" else 6
        fragment = 0x2000 if kind == "fragment" else 0
        raw.sendto(ip(source, target, protocol, fragment, segment), (server, 0))
"#;

const ALLOWED: &str = "10.77.0.10";
const DENIED: &str = "10.77.0.11";
const BANNED: &str = "10.77.0.12";

fn start(pair: &Pair, xdp: &str, filter: &str) -> (Site, Daemon) {
    let site = Site::with_config(&format!(
        "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n\
         [[listener]]\naddress = \"{SERVER_V4}:25\"\n\
         [recipients]\ndomains = [\"*\"]\n[delivery]\nkind = \"discard\"\n\
         [xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n{xdp}\
         [xdp.filter]\nallow = [\"{ALLOWED}\"]\ndeny_files = [\"deny.txt\"]\n{filter}"
    ))
    .unwrap();
    fs::write(site.folder().join("deny.txt"), DENIED).unwrap();
    let mut command = pair.server.command(ingress_tests::bin());
    command.arg("run").arg("--config").arg(site.config());
    let daemon = Daemon::start(command).unwrap();
    let ban = site.command_after("ban", &["add", BANNED]).unwrap();
    assert!(ban.status.success(), "{ban:?}");
    (site, daemon)
}

fn send(pair: &Pair, packets: &[&str]) {
    let mut command = pair.client.command("timeout");
    command.args(["60", "python3", "-c", SENDER, SERVER_V4]).args(packets);
    netns::output(&mut command).unwrap();
}

fn verdicts(daemon: &Daemon) -> BTreeMap<String, u64> {
    let status = daemon.status().unwrap();
    let verdicts = status["xdp"]["verdicts"].as_object().unwrap();
    let count = |value: &Value| value.as_u64().unwrap();
    verdicts.iter().map(|(name, packets)| (name.clone(), count(packets))).collect()
}

/// What each kind of packet is told by, each as often as it was sent. All of it has been judged when the sender ends: a veth hands
/// over at once, and the sender's last packet makes an answer for nobody.
#[test]
fn each_packet_on_the_wire_has_its_verdict() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let filter = "connections_per_second = 1\nconnections_burst = 3\npressure_per_second = 0\n";
    let (_site, daemon) = start(&pair, "", filter);
    for (packet, verdict, expected) in [
        ("10.77.0.20 02 1 syn", "steered", 1),
        ("10.77.0.20 10 5 ack", "steered", 5),
        ("10.77.0.10 02 9 syn", "allowed", 9),
        ("10.77.0.11 02 4 syn", "denied", 4),
        ("10.77.0.12 02 4 syn", "banned", 4),
        ("10.77.0.12 10 3 ack", "banned", 3),
        ("10.77.0.21 00 2 null", "bad_flags", 2),
        ("10.77.0.21 29 2 xmas", "bad_flags", 2),
        ("10.77.0.21 03 2 syn-fin", "bad_flags", 2),
        ("10.77.0.21 06 2 syn-rst", "bad_flags", 2),
        ("10.77.0.22 02 3 data", "syn_payload", 3),
        ("10.77.0.23 02 1 fragment", "not_understood", 1),
        ("10.77.0.23 02 2 udp", "not_ours", 2),
    ] {
        let before = verdicts(&daemon)[verdict];
        send(&pair, &[packet]);
        let after = verdicts(&daemon)[verdict];
        // The hosts' own neighbour discovery is not ours either, and answers may be acknowledged or reset.
        let is_exact = !matches!(verdict, "steered" | "not_ours");
        assert!(after - before >= expected, "{packet}: {before} to {after} {verdict}");
        assert!(!is_exact || after - before == expected, "{packet}: {before} to {after} {verdict}");
    }
    send(&pair, &["10.77.0.24 02 10 syn"]);
    assert_eq!(verdicts(&daemon)["over_budget"], 7);
    assert_eq!(verdicts(&daemon)["under_pressure"], 0);
}

#[test]
fn made_up_sources_are_told_under_pressure_and_what_is_not_steered_is_passed() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let (_site, daemon) = start(&pair, "steering = \"off\"\n", "pressure_per_second = 5\n");
    send(&pair, &["10.77.0.0 02 100 each"]);
    let verdicts = verdicts(&daemon);
    // Of each CPU a second's worth at once.
    assert!((80..=95).contains(&verdicts["under_pressure"]), "{verdicts:?}");
    assert!(verdicts["passed"] >= 5, "{verdicts:?}");
    assert_eq!(verdicts["steered"], 0);
}
