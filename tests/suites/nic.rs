//! `ingress nic` and `ingress xdp check` on a real interface: a veth pair with two queues between two namespaces.
//!
//! Needs root, iproute2, ethtool, two CPUs and a daemon built with the eBPF object; else each test says why it was skipped.

use std::process::{Command, Output};

use ingress_tests::bin;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, INTERFACE, Pair, SERVER_V4};
use serde_json::Value;

/// What tuning changes in the server's namespace, each a file.
const SETTINGS: [&str; 7] = [
    "/sys/class/net/mail0/queues/rx-0/rps_cpus",
    "/sys/class/net/mail0/queues/rx-1/rps_cpus",
    "/sys/class/net/mail0/queues/tx-0/xps_cpus",
    "/sys/class/net/mail0/queues/tx-1/xps_cpus",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/tcp_max_syn_backlog",
    "/proc/sys/net/ipv4/tcp_migrate_req",
];

fn site(xdp: &str) -> Site {
    Site::with_config(&format!(
        "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n\
         [[listener]]\naddress = \"{SERVER_V4}:25\"\n\
         [recipients]\ndomains = [\"*\"]\n[delivery]\nkind = \"discard\"\n\
         [xdp]\ninterfaces = [\"{INTERFACE}\"]\n{xdp}"
    ))
    .unwrap()
}

/// `ingress ARGS --config FILE` in the server's namespace, to its end.
fn ingress(pair: &Pair, site: &Site, args: &[&str]) -> Output {
    let mut command = pair.server.command(bin());
    command.args(args).arg("--config").arg(site.config()).output().unwrap()
}

/// Its output, when it succeeds.
fn told(pair: &Pair, site: &Site, args: &[&str]) -> String {
    let output = ingress(pair, site, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Output and the one line of the error, when it exits 1.
fn refused(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    (String::from_utf8(output.stdout.clone()).unwrap(), error)
}

fn settings(pair: &Pair) -> Vec<String> {
    let all = netns::output(pair.server.command("cat").args(SETTINGS)).unwrap();
    all.lines().map(str::to_owned).collect()
}

fn set(pair: &Pair, setting: &str, value: &str) {
    let script = format!("echo {value} > {setting}");
    netns::output(pair.server.command("sh").args(["-c", &script])).unwrap();
}

/// The number of queues that are in use, each way.
fn queues(pair: &Pair) -> Value {
    let site = site("");
    let shown: Value =
        serde_json::from_str(&told(pair, &site, &["nic", "show", "--json"])).unwrap();
    serde_json::json!([shown[0]["channels"]["rx"], shown[0]["channels"]["tx"]])
}

#[test]
fn show_lists_every_queue_with_what_the_driver_tells() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("");
    let text = told(&pair, &site, &["nic", "show"]);
    // Whether the link is up already is the kernel's secret for a moment.
    assert!(text.starts_with("mail0: veth, "), "{text}");
    assert!(text.contains(", MTU 1500, no XDP program\n"), "{text}");
    for line in ["queues      rx 2 of 2, tx 2 of 2", "rx-0 ", "rx-1 ", "tx-0 ", "tx-1 "] {
        assert!(text.contains(&format!("\n  {line}")), "{text}");
    }
    assert!(text.contains("any (cpumap)"), "{text}");
    let json = told(&pair, &site, &["nic", "show", "lo", INTERFACE, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["name"], "lo");
    assert_eq!(json[1]["queues"].as_array().unwrap().len(), 4, "{json:#}");
    assert_eq!(json[1]["xdp_features"]["redirect"], true, "{json:#}");
}

#[test]
fn show_tells_what_a_running_daemons_program_has_counted() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("mode = \"native\"\n");
    let mut command = pair.server.command(bin());
    command.arg("run").arg("--config").arg(site.config());
    let daemon = Daemon::start(command).unwrap();
    let address = format!("{SERVER_V4}:25");
    let connect = ["60", env!("CARGO_BIN_EXE_steered-sink"), "connect", &address, "10"];
    netns::output(pair.client.command("timeout").args(connect)).unwrap();
    let shown = told(&pair, &site, &["nic", "show", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["packets_by"], "xdp", "{shown:#}");
    assert_eq!(shown[0]["xdp"]["mode"], "native", "{shown:#}");
    let receive = shown[0]["queues"].as_array().unwrap();
    let packets: u64 = receive.iter().filter_map(|queue| queue["packets"].as_u64()).sum();
    assert!(packets >= 30, "{shown:#}");
    // The own program is no stranger's.
    let report = told(&pair, &site, &["xdp", "check"]);
    assert!(report.contains("\nwarn mail0 occupied: an ingress is attached"), "{report}");
    daemon.stop().unwrap();
}

#[test]
fn a_plan_is_printed_and_nothing_is_changed() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("");
    set(&pair, SETTINGS[1], "3");
    let before = settings(&pair);
    let plan = told(&pair, &site, &["nic", "tune"]);
    for line in [
        "  RPS of queue rx-1: CPU 0-1 -> CPU none\n",
        "  XPS of queue tx-1: CPU none -> CPU 1\n",
        "    echo 1 > /proc/sys/net/ipv4/tcp_migrate_req\n",
    ] {
        assert!(plan.contains(line), "{plan}");
    }
    let json: Value =
        serde_json::from_str(&told(&pair, &site, &["nic", "tune", "--json"])).unwrap();
    assert_eq!(json[0]["interface"], INTERFACE);
    assert_eq!(settings(&pair), before);
}

#[test]
fn apply_sets_all_that_undo_restores() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("");
    for (setting, value) in [(SETTINGS[1], "3"), (SETTINGS[4], "128"), (SETTINGS[5], "256")] {
        set(&pair, setting, value);
    }
    let before = settings(&pair);
    told(&pair, &site, &["nic", "tune", "--apply"]);
    assert_eq!(settings(&pair), ["0", "0", "1", "2", "4096", "8192", "1"]);
    assert_eq!(told(&pair, &site, &["nic", "tune"]), "mail0: all is as wanted\n");
    // Changed again and tuned again, it still leads back to the beginning.
    set(&pair, SETTINGS[4], "512");
    told(&pair, &site, &["nic", "tune", "--apply"]);
    told(&pair, &site, &["nic", "tune", "--undo"]);
    assert_eq!(settings(&pair), before);
    let (_, error) = refused(&ingress(&pair, &site, &["nic", "tune", "--undo"]));
    assert!(error.starts_with("ingress: nothing to undo: there is no "), "{error}");
}

#[test]
fn queues_are_opened_for_the_workers_and_closed_again() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("");
    let command = &mut pair.server.command("ethtool");
    netns::output(command.args(["-L", INTERFACE, "rx", "1", "tx", "1"])).unwrap();
    let before = netns::output(pair.server.command("cat").args(&SETTINGS[4..])).unwrap();
    let plan = told(&pair, &site, &["nic", "tune"]);
    assert!(plan.contains("    ethtool -L mail0 rx 2 tx 2\n"), "{plan}");
    told(&pair, &site, &["nic", "tune", "--apply"]);
    assert_eq!(queues(&pair), serde_json::json!([2, 2]));
    // The queues that came are tuned too.
    assert_eq!(settings(&pair)[..4], ["0", "0", "1", "2"]);
    told(&pair, &site, &["nic", "tune", "--undo"]);
    assert_eq!(queues(&pair), serde_json::json!([1, 1]));
    let after = netns::output(pair.server.command("cat").args(&SETTINGS[4..])).unwrap();
    assert_eq!(after, before);
}

#[test]
fn check_finds_nothing_in_the_way_on_a_veth() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("");
    let report = told(&pair, &site, &["xdp", "check"]);
    for line in [
        "ok   permission: ",
        "ok   mail0 native: driver veth has native XDP\n",
        "ok   mail0 queues: 2 RX for 2 workers\n",
        "ok   program: the kernel's verifier accepts it\n",
        "ok   listeners: ",
        "warn mail0 veth: ",
        " pins: /sys/fs/bpf/ingress is ",
        "tier: cpumap: ",
    ] {
        assert!(report.contains(line), "{line}: {report}");
    }
    let json = told(&pair, &site, &["xdp", "check", INTERFACE, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["tier"], "cpumap", "{json:#}");
    // Nothing was attached.
    let link = netns::output(pair.server.command("ip").args(["-d", "link", "show", INTERFACE]));
    assert!(!link.unwrap().contains("prog/xdp"));
}

#[test]
fn check_names_an_interface_without_native_xdp_and_what_to_do() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let (report, error) = refused(&ingress(&pair, &site(""), &["xdp", "check", "lo"]));
    let failures: Vec<&str> = report.lines().filter(|line| line.starts_with("FAIL")).collect();
    let [failure] = failures.as_slice() else { panic!("{report}") };
    assert!(failure.starts_with("FAIL lo native: driver none has no native XDP: "), "{failure}");
    assert!(report.contains("\ntier: incoming-cpu: "), "{report}");
    assert!(error.starts_with("ingress: 1 of "), "{error}");
    // Where it is demanded, there is no tier to fall to.
    let demanding = site("mode = \"native\"\n");
    let (report, _) = refused(&ingress(&pair, &demanding, &["xdp", "check", "lo"]));
    assert!(report.contains("\ntier: -: The daemon will not start"), "{report}");
}

#[test]
fn an_unknown_interface_is_one_line_for_every_verb() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("");
    let expected = "interface `eth9` does not exist: there are lo, mail0 (see `ip link`)";
    for args in [
        ["nic", "show", "eth9"].as_slice(),
        &["nic", "tune", "eth9"],
        &["nic", "tune", "eth9", "--apply"],
    ] {
        let (_, error) = refused(&ingress(&pair, &site, args));
        assert_eq!(error, format!("ingress: {expected}\n"), "{args:?}");
    }
    let (report, _) = refused(&ingress(&pair, &site, &["xdp", "check", "eth9"]));
    assert!(report.contains(&format!("FAIL eth9 interface: {expected}\n")), "{report}");
}

#[test]
fn check_without_permission_says_which_and_how_to_get_it() {
    let Some(pair) = netns::pair_for_steering() else { return };
    let site = site("");
    let mut command: Command = pair.server.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(bin());
    let output = command.args(["xdp", "check", "--config"]).arg(site.config()).output().unwrap();
    let (report, _) = refused(&output);
    let expected = "FAIL permission: CAP_BPF and CAP_NET_ADMIN missing: run as root";
    assert!(report.contains(expected), "{report}");
    assert!(report.contains("FAIL program: not permitted to"), "{report}");
}

#[test]
fn without_any_interface_the_error_says_where_to_name_one() {
    let Some(pair) = netns::pair_for_steering() else { return };
    for args in [["nic", "show"], ["nic", "tune"], ["xdp", "check"]] {
        let mut command = pair.server.command(bin());
        let state = tempfile::tempdir().unwrap();
        let output = command.args(args).env("INGRESS_STATE_DIR", state.path()).output().unwrap();
        let (_, error) = refused(&output);
        assert!(error.starts_with("ingress: no interface: name one"), "{error}");
    }
}

#[test]
fn doing_and_undoing_at_once_is_a_usage_error() {
    let table: [&[&str]; 4] = [
        &["nic"],
        &["nic", "tune", "--apply", "--undo"],
        &["nic", "tune", "--apply", "--json"],
        &["xdp"],
    ];
    for args in table {
        let output = Command::new(bin()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
}
