//! The XDP filter across a network: real clients that are denied, exceed their budget, or come by VLAN and by a second interface.
//!
//! Needs root, iproute2, ethtool, two CPUs and a daemon built with the eBPF object; else each test says why it was skipped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, CLIENT_V4, INTERFACE, Pair, SERVER_V4, SERVER_V6};
use ingress_tests::wait::wait_for;

/// What a client waits for a connection. A SYN that was dropped is sent again after a second, and then after two more.
const CONNECT_SECONDS: &str = "2";

/// From an event to its trace in counters and readers.
const DEADLINE: Duration = Duration::from_secs(20);

fn site(xdp: &str) -> Site {
    let interfaces = format!("[xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n");
    site_with_interfaces(&interfaces, xdp)
}

fn site_with_interfaces(interfaces: &str, filter: &str) -> Site {
    Site::with_config(&format!(
        "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n\
         [[listener]]\naddress = \"0.0.0.0:25\"\n[[listener]]\naddress = \"[::]:25\"\n\
         [recipients]\ndomains = [\"*\"]\n[delivery]\nkind = \"discard\"\n\
         {interfaces}[xdp.filter]\n{filter}"
    ))
    .unwrap()
}

fn start(pair: &Pair, site: &Site) -> Daemon {
    let mut command = pair.server.command(ingress_tests::bin());
    command.arg("run").arg("--config").arg(site.config());
    Daemon::start(command).unwrap()
}

/// Whether a client is greeted there.
fn is_greeted(pair: &Pair, address: &str) -> bool {
    let script = format!("exec 3<>/dev/tcp/{address}/25 && head -n 1 <&3");
    let mut client = pair.client.command("timeout");
    client.args([CONNECT_SECONDS, "bash", "-c", &script]);
    let output = client.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).starts_with("220 ")
}

/// Whether the first SYN of a connection there is answered, whoever is to serve it.
fn is_answered(pair: &Pair, address: &str) -> bool {
    let mut client = pair.client.command("timeout");
    // Before it is sent again.
    client.args(["0.5", "bash", "-c", &format!("exec 3<>/dev/tcp/{address}/25")]);
    client.stdin(Stdio::null()).output().unwrap().status.success()
}

fn verdict(daemon: &Daemon, name: &str) -> u64 {
    daemon.count(&format!("/xdp/verdicts/{name}")).unwrap()
}

fn ip(pair: &netns::Namespace, arguments: &str) {
    netns::output(pair.command("ip").args(arguments.split(' '))).unwrap();
}

#[test]
fn a_denied_network_is_not_heard_until_its_list_says_otherwise() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("deny_files = [\"deny.txt\"]\n");
    let deny = site.folder().join("deny.txt");
    fs::write(&deny, format!("# not these\n{CLIENT_V4}\nnonsense\n")).unwrap();
    let daemon = start(&pair, &site);
    let samples = watch(&site);
    assert!(!is_greeted(&pair, SERVER_V4));
    assert!(is_greeted(&pair, SERVER_V6));
    assert!(verdict(&daemon, "denied") >= 1);
    let sample = samples.recv_timeout(DEADLINE).expect("a sample of what was dropped");
    assert!(sample.starts_with(&format!("denied {CLIENT_V4} to port 25, flags SYN, ")), "{sample}");

    fs::write(&deny, "").unwrap();
    let output = site.command_after("xdp", &["reload"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "networks in force: 0\n", "{output:?}");
    assert!(is_greeted(&pair, SERVER_V4));
    let log = daemon.stop().unwrap().stderr;
    assert!(log.contains("deny.txt:3: \"nonsense\" is no address and no network"), "{log}");
    assert!(log.contains("XDP dropped a packet: denied"), "{log}");
}

/// Within the timeout and two seconds, so that an operator can rely on it.
#[test]
fn a_daemon_that_stands_still_filters_nothing_until_it_goes_on() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let interfaces = format!(
        "[xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\nheartbeat_timeout = \"2s\"\n"
    );
    let site = site_with_interfaces(&interfaces, "deny_files = [\"deny.txt\"]\n");
    fs::write(site.folder().join("deny.txt"), format!("{CLIENT_V4}\n")).unwrap();
    let daemon = start(&pair, &site);
    assert!(!is_answered(&pair, SERVER_V4));
    daemon.pause().unwrap();
    wait_for("answer of the kernel", Duration::from_secs(4), || is_answered(&pair, SERVER_V4));
    daemon.resume().unwrap();
    wait_for("dropped SYN", DEADLINE, || !is_answered(&pair, SERVER_V4));
    assert!(is_greeted(&pair, SERVER_V6));
    assert!(verdict(&daemon, "unattended") >= 1);
    let log = daemon.stop().unwrap().stderr;
    assert!(log.contains("the daemon stood still"), "{log}");
}

#[test]
fn a_monitor_counts_who_would_be_denied_and_serves_them() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("mode = \"monitor\"\ndeny_files = [\"deny.txt\"]\n");
    fs::write(site.folder().join("deny.txt"), "10.0.0.0/8\n").unwrap();
    let daemon = start(&pair, &site);
    assert!(is_greeted(&pair, SERVER_V4));
    assert!(verdict(&daemon, "denied") >= 1);
}

#[test]
fn an_allowed_client_within_a_denied_network_is_served_beyond_every_budget() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let limits = "connections_per_second = 1\nconnections_burst = 1\ndeny_files = [\"deny.txt\"]\n";
    let site = site(&format!("allow = [\"{CLIENT_V4}\"]\n{limits}"));
    fs::write(site.folder().join("deny.txt"), "10.0.0.0/8\n").unwrap();
    let daemon = start(&pair, &site);
    for _ in 0..5 {
        assert!(is_greeted(&pair, SERVER_V4));
    }
    assert!(verdict(&daemon, "allowed") >= 5);
}

#[test]
fn a_client_beyond_its_budget_waits_and_others_do_not() {
    let Some(pair) = netns::pair_for_steering() else { return };
    ip(&pair.client, &format!("address add 10.77.0.9/24 dev {INTERFACE}"));
    let site = site("connections_per_second = 1\nconnections_burst = 3\n");
    let daemon = start(&pair, &site);
    let mut source = pair.client.command("timeout");
    source.args(["60", "smtp-source", "-s", "1", "-m", "8", &format!("inet:{SERVER_V4}:25")]);
    netns::output(&mut source).unwrap();
    // All of its mail came, but not without waiting.
    assert_eq!(daemon.count("/messages/accepted").unwrap(), 8);
    assert!(verdict(&daemon, "over_budget") >= 1);
    assert!(is_greeted(&pair, SERVER_V6));
}

#[test]
fn mail_by_vlan_is_steered_and_filtered() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let probe = pair
        .client
        .command("ip")
        .args("link add link mail0 name probe type vlan id 1".split(' '))
        .output();
    if !probe.unwrap().status.success() {
        println!("skipped: this kernel has no VLANs (8021q)");
        return;
    }
    for (namespace, address) in [(&pair.client, "10.78.0.1"), (&pair.server, "10.78.0.2")] {
        ip(namespace, &format!("link add link {INTERFACE} name vlan7 type vlan id 7"));
        ip(namespace, &format!("address add {address}/24 dev vlan7"));
        ip(namespace, "link set vlan7 up");
        // The tag stays in the frame, where XDP sees it as it does on a wire.
        netns::output(
            namespace.command("ethtool").args(["-K", INTERFACE, "txvlan", "off", "rxvlan", "off"]),
        )
        .unwrap();
    }
    let site = site("deny_files = [\"deny.txt\"]\n");
    let deny = site.folder().join("deny.txt");
    fs::write(&deny, "").unwrap();
    let daemon = start(&pair, &site);
    assert!(is_greeted(&pair, "10.78.0.2"));
    assert!(verdict(&daemon, "steered") > 0);
    fs::write(&deny, "10.78.0.1\n").unwrap();
    assert!(site.command_after("xdp", &["reload"]).unwrap().status.success());
    assert!(!is_greeted(&pair, "10.78.0.2"));
    assert!(verdict(&daemon, "denied") >= 1);
}

#[test]
fn two_interfaces_share_lists_and_are_counted_apart() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let (client, server) = (pair.client.name(), pair.server.name());
    let second = format!(
        "link add mail1 netns {client} numrxqueues 2 numtxqueues 2 type veth peer name mail1 netns {server} numrxqueues 2 numtxqueues 2"
    );
    netns::output(Command::new("ip").args(second.split(' '))).unwrap();
    netns::output(pair.client.command("ethtool").args(["-K", "mail1", "tx", "off"])).unwrap();
    for (namespace, address) in [(&pair.client, "10.79.0.1"), (&pair.server, "10.79.0.2")] {
        ip(namespace, &format!("address add {address}/24 dev mail1"));
        ip(namespace, "link set mail1 up");
    }
    let interfaces = "[xdp]\ninterfaces = [\"mail0\", \"mail1\"]\nmode = \"native\"\n";
    let site = site_with_interfaces(interfaces, "deny_files = [\"deny.txt\"]\n");
    fs::write(site.folder().join("deny.txt"), "10.77.0.0/24\n").unwrap();
    let daemon = start(&pair, &site);
    assert!(is_greeted(&pair, "10.79.0.2"));
    assert!(!is_greeted(&pair, SERVER_V4));
    let status = daemon.status().unwrap();
    let names: Vec<_> =
        status["xdp"]["interfaces"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["mail0", "mail1"]);
    fs::write(site.folder().join("deny.txt"), "10.79.0.0/24\n").unwrap();
    assert!(site.command_after("xdp", &["reload"]).unwrap().status.success());
    assert!(!is_greeted(&pair, "10.79.0.2"));
    assert!(is_greeted(&pair, SERVER_V4));
}

#[test]
fn without_xdp_there_is_nothing_to_watch_and_it_is_said() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    for verb in ["watch", "reload"] {
        let output = site.command_after("xdp", &[verb]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("XDP is not in use"), "{said}");
    }
    daemon.stop().unwrap();
}

/// Lines of `ingress xdp watch` as they come. It ends with the daemon.
fn watch(site: &Site) -> mpsc::Receiver<String> {
    let mut command = Command::new(ingress_tests::bin());
    command.args(["xdp", "watch", "--config"]).arg(site.config());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        let _ = child.kill();
        let _reaped = child.wait();
    });
    let first = lines.recv_timeout(DEADLINE).expect("the first line");
    assert!(first.starts_with("# "), "{first}");
    lines
}
