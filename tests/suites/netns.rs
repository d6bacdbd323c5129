//! The daemon across a network: two namespaces, a veth pair with two queues, smtp-source on the far side.
//!
//! Needs root, iproute2, ethtool, two CPUs and a daemon built with the eBPF object; else each test says why it was skipped.

use std::path::Path;

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, INTERFACE, Pair, SERVER_V4, SERVER_V6};

/// Namespaces have their own ports, so this one is always free.
const PORT: u16 = 25;
const CONNECTIONS: u64 = 400;

/// A daemon in the server's namespace that takes mail over both families and throws it away.
fn site(xdp: &str) -> Site {
    Site::with_config(&format!(
        "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n\
         [[listener]]\naddress = \"{SERVER_V4}:{PORT}\"\n\
         [[listener]]\naddress = \"[{SERVER_V6}]:{PORT}\"\n\
         [recipients]\ndomains = [\"*\"]\n[delivery]\nkind = \"discard\"\n\
         [limits]\nconnections_per_client_max = 1000\n{xdp}"
    ))
    .unwrap()
}

fn start(pair: &Pair, site: &Site) -> Daemon {
    let mut command = pair.server.command(ingress_tests::bin());
    command.arg("run").arg("--config").arg(site.config());
    Daemon::start(command).unwrap()
}

/// A message on each of [`CONNECTIONS`] connections, 4 at a time, over IPv4 and IPv6 in turn.
///
/// smtp-source is one process: unless it changes its CPU in between, whatever the kernel does looks steered. So half of
/// the connections come from each CPU.
fn load(pair: &Pair) {
    let count = (CONNECTIONS / 4).to_string();
    for (cpu, target) in [
        ("0", format!("inet:{SERVER_V4}:{PORT}")),
        ("1", format!("inet:{SERVER_V4}:{PORT}")),
        ("0", format!("inet:[{SERVER_V6}]:{PORT}")),
        ("1", format!("inet:[{SERVER_V6}]:{PORT}")),
    ] {
        let mut source = pair.client.command("taskset");
        source.args(["-c", cpu, "timeout", "60", "smtp-source", "-s", "4", "-l", "1024"]);
        netns::output(source.args(["-m", &count, &target])).unwrap();
    }
}

/// Share of the accepted connections whose packets were handled on the CPU of their worker.
fn local_share(daemon: &Daemon) -> f64 {
    let local = daemon.count("/steering/local").unwrap();
    let remote = daemon.count("/steering/remote").unwrap();
    assert_eq!(local + remote, CONNECTIONS);
    local as f64 / CONNECTIONS as f64
}

fn attached_program(pair: &Pair) -> bool {
    let details = netns::output(pair.server.command("ip").args(["-d", "link", "show", INTERFACE]));
    details.unwrap().contains("prog/xdp")
}

#[test]
fn native_xdp_keeps_every_connection_on_one_cpu() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site(&format!("[xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n"));
    let daemon = start(&pair, &site);
    load(&pair);
    let status = daemon.status().unwrap();
    assert_eq!(status["steering"]["tier"], "cpumap");
    assert_eq!(status["xdp"]["interfaces"][0]["mode"], "native");
    assert_eq!(daemon.count("/messages/accepted").unwrap(), CONNECTIONS);
    let share = local_share(&daemon);
    println!("steered by XDP: {:.1} % local", share * 100.0);
    assert!(share >= 0.99, "{status:#}");
    for worker in ["/workers/0/connections_total", "/workers/1/connections_total"] {
        assert!(daemon.count(worker).unwrap() >= CONNECTIONS / 4, "{status:#}");
    }
    assert!(daemon.count("/xdp/verdicts/steered").unwrap() > CONNECTIONS * 5, "{status:#}");
    daemon.stop().unwrap();
    assert!(!attached_program(&pair));
}

#[test]
fn without_steering_about_half_of_the_connections_are_remote() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site(&format!(
        "[xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\nsteering = \"off\"\n"
    ));
    let daemon = start(&pair, &site);
    load(&pair);
    assert_eq!(daemon.status().unwrap()["steering"]["tier"], "none");
    let share = local_share(&daemon);
    println!("not steered: {:.1} % local", share * 100.0);
    assert!((0.3..=0.7).contains(&share), "{share}");
}

#[test]
fn without_xdp_listeners_are_still_chosen_by_cpu() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("");
    let daemon = start(&pair, &site);
    load(&pair);
    assert_eq!(daemon.status().unwrap()["steering"]["tier"], "incoming-cpu");
    assert!(local_share(&daemon) >= 0.99);
}

#[test]
fn kill_9_leaves_no_program_on_the_interface() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site(&format!("[xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n"));
    let daemon = start(&pair, &site);
    assert!(attached_program(&pair));
    assert!(Path::new(&format!("/proc/{}", daemon.pid())).exists());
    daemon.kill().unwrap();
    assert!(!attached_program(&pair));
    // And the host is reachable: the next daemon serves through the same interface.
    let daemon = start(&pair, &site);
    load(&pair);
    assert_eq!(daemon.count("/messages/accepted").unwrap(), CONNECTIONS);
}

#[test]
fn another_program_on_the_interface_is_named_and_stays() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let xdp = format!("[xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\n");
    let first = site(&xdp);
    let daemon = start(&pair, &first);
    let config = std::fs::read_to_string(first.config()).unwrap().replace(":25\"", ":26\"");
    let second = Site::with_config(&config).unwrap();
    let mut command = pair.server.command(ingress_tests::bin());
    command.arg("run").arg("--config").arg(second.config());
    let Err(error) = Daemon::start(command) else { panic!("the interface is taken") };
    let error = format!("{error:#}");
    assert!(error.contains("another XDP program (id "), "{error}");
    assert!(error.contains(", \"prefilter\") is attached to `mail0` and not touched"), "{error}");
    load(&pair);
    assert!(local_share(&daemon) >= 0.99);
}

#[test]
fn auto_takes_a_lower_tier_where_there_is_no_native_xdp() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("[xdp]\ninterfaces = [\"lo\"]\nmode = \"auto\"\n");
    let daemon = start(&pair, &site);
    let status = daemon.status().unwrap();
    assert_eq!(status["steering"]["tier"], "incoming-cpu", "{status:#}");
    let said = daemon.stop().unwrap().stderr;
    assert!(said.contains("WARN") && said.contains("lo"), "{said}");
}

#[test]
fn a_demanded_mode_that_cannot_be_had_ends_the_start_with_one_line_that_says_what_to_do() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    for (interface, wrapper, what, remedy) in [
        ("eth9", [].as_slice(), "`eth9` does not exist", "correct `xdp.interfaces`"),
        ("lo", &[], "`lo` has no native XDP", "set `xdp.mode` to \"generic\""),
        (INTERFACE, &unprivileged, "not permitted to create BPF maps", "run as root"),
    ] {
        let site = site(&format!("[xdp]\ninterfaces = [\"{interface}\"]\nmode = \"native\"\n"));
        // Beyond 1,023, which takes no privilege.
        let config = std::fs::read_to_string(site.config()).unwrap().replace(":25\"", ":2525\"");
        std::fs::write(site.config(), config).unwrap();
        let mut command = pair.server.command("env");
        command.args(wrapper).arg(ingress_tests::bin()).arg("run").arg("--config");
        let output = command.arg(site.config()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("ingress: ")).collect();
        let [error] = errors.as_slice() else { panic!("{said}") };
        assert!(error.contains(what) && error.contains(remedy), "{error}");
        assert!(said.ends_with(&format!("{error}\n")), "{said}");
    }
}
