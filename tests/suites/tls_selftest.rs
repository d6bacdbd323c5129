//! `ingress tls test` against a daemon with what it makes by itself: a self-signed ECDSA certificate.

use std::process::Output;
use std::time::Duration;

use ingress_tests::client::Client;
use ingress_tests::daemon::Site;
use ingress_tests::wait::wait_for;
use serde_json::Value;

/// `ingress tls test` with these arguments besides the file.
fn run(site: &Site, arguments: &[&str]) -> Output {
    let output = site.command_after("tls", &[&["test"], arguments].concat()).unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn json(site: &Site, arguments: &[&str]) -> Value {
    let output = run(site, &[&["--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the test says of the listener with this TLS mode.
fn listener<'r>(report: &'r Value, tls: &str) -> &'r Value {
    let mut listeners = report["listeners"].as_array().unwrap().iter();
    let is_it = |listener: &&Value| listener["listener"].as_str().unwrap().ends_with(tls);
    listeners.find(is_it).unwrap_or_else(|| panic!("no {tls} listener in {report:#}"))
}

/// Outcome, verdict and explanation of a profile.
fn row<'r>(listener: &'r Value, profile: &str) -> (&'r str, Option<&'r str>, &'r str) {
    let mut rows = listener["profiles"].as_array().unwrap().iter();
    let row = rows.find(|row| row["profile"] == profile);
    let row = row.unwrap_or_else(|| panic!("no {profile} in {listener:#}"));
    let text = |key: &str| row[key].as_str();
    (text("outcome").unwrap(), text("verdict"), text("explanation").unwrap())
}

/// The peers that the daemon remembers.
fn peers(site: &Site) -> Vec<Value> {
    let output = site.command_after("tls", &["memory", "list", "--json"]).unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The outcome, verdict and a phrase for each profile.
const EXPECTED: [(&str, &str, Option<&str>, &str); 11] = [
    ("modern", "works", None, "TLS 1.3"),
    ("TLS 1.2, ECDHE only", "works", None, "TLS_ECDHE_ECDSA_WITH_"),
    ("RSA signatures only", "falls_to_clear", Some("no_common_scheme"), "add an RSA certificate"),
    ("ECDSA signatures only", "works", None, "TLS 1.3"),
    ("CBC only", "falls_to_clear", Some("cbc_only"), "AES-GCM"),
    ("RSA key exchange only", "falls_to_clear", Some("rsa_key_exchange_only"), "forward secrecy"),
    ("TLS 1.0 only", "falls_to_clear", Some("old_versions_only"), "at most TLS 1.0"),
    ("no server name", "works", None, "TLS 1.3"),
    ("unknown server name", "works", None, "TLS 1.3"),
    ("tiny fragments", "works", None, "TLS 1.3"),
    ("post-quantum first", "works", None, "x25519"),
];

#[test]
fn each_listener_is_tested_as_the_outside_sees_it() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let report = json(&site, &[]);
    let (starttls, implicit) = (listener(&report, "starttls"), listener(&report, "implicit"));
    assert_eq!(starttls["listener"], format!("{}/starttls", daemon.smtp("starttls")));
    assert_eq!(starttls["profiles"].as_array().unwrap().len(), EXPECTED.len());
    for (profile, outcome, verdict, phrase) in EXPECTED {
        let found = row(starttls, profile);
        assert_eq!((found.0, found.1), (outcome, verdict), "{profile}: {report:#}");
        assert!(found.2.contains(phrase), "{profile}: {}", found.2);
        // There is no clear to fall to where TLS comes first.
        let outcome = if outcome == "works" { "works" } else { "fails" };
        let found = row(implicit, profile);
        assert_eq!((found.0, found.1), (outcome, verdict), "{profile}: {report:#}");
    }
}

#[test]
fn the_self_signed_certificate_is_read_from_outside() {
    let site = Site::new("").unwrap();
    let _daemon = site.start().unwrap();
    let report = json(&site, &[]);
    for tls in ["starttls", "implicit"] {
        let certificates = listener(&report, tls)["certificates"].as_array().unwrap();
        let [certificate] = certificates.as_slice() else {
            panic!("one key, so one chain: {report:#}");
        };
        assert_eq!(certificate["key"], "ECDSA P-256");
        assert_eq!(certificate["names"][0], "mx.test");
        let findings = certificate["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{certificate:#}");
        assert!(findings[0].as_str().unwrap().starts_with("self-signed"), "{certificate:#}");
    }
}

#[test]
fn the_memory_of_peers_is_as_before() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let report = json(&site, &[]);
    assert_eq!(report["memory"], "127.0.0.1/32 is as before");
    assert!(peers(&site).is_empty(), "{:?}", peers(&site));
    assert!(daemon.offers_starttls());
    // Not only the first time.
    assert_eq!(row(listener(&json(&site, &[]), "starttls"), "modern").0, "works");
    assert!(daemon.offers_starttls());
}

#[test]
fn the_report_has_no_failures_of_a_self_test_but_those_after_it() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let report = || -> Value {
        let output = site.command_after("tls", &["report", "--json"]).unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    json(&site, &[]);
    let after = report();
    assert!(after["handshakes"]["self_tests"].as_u64().unwrap() > 20, "{after:#}");
    assert_eq!(after["handshakes"]["failed"], 0, "{after:#}");
    assert_eq!(after["failures"], Value::Array(Vec::new()));
    assert_eq!(after["handshakes"]["by_verdict"].as_object().unwrap().len(), 0);
    // The mark is taken back.
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.command("STARTTLS", "220");
    drop(client);
    wait_for("failure in the report", Duration::from_secs(20), || {
        report()["handshakes"]["failed"] == 1
    });
}

#[test]
fn the_operators_word_about_the_own_address_outlives_the_test() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let pin = ["memory", "pin", "127.0.0.1", "withhold"];
    assert!(site.command_after("tls", &pin).unwrap().status.success());
    assert!(!daemon.offers_starttls());
    assert_eq!(row(listener(&json(&site, &[]), "starttls"), "modern").0, "works");
    assert!(!daemon.offers_starttls(), "the pin is gone");
    assert_eq!(peers(&site)[0]["pin"], "withhold");
}

#[test]
fn one_address_is_tested_alone_and_the_table_names_it() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let address = daemon.smtp("starttls").to_string();
    let output = run(&site, &["--address", &address]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("profile "), "{text}");
    assert_eq!(text.matches(&format!("{address}/starttls ")).count(), EXPECTED.len(), "{text}");
    assert!(!text.contains("/implicit"), "{text}");
    assert!(text.contains(&format!("{address}/starttls: ECDSA P-256 certificate for mx.test")));
    assert!(text.ends_with("memory of peers: 127.0.0.1/32 is as before\n"), "{text}");
}

#[test]
fn a_daemon_behind_a_balancer_on_the_same_host_is_tested_too() {
    let site = Site::new("[networks]\nproxy_protocol = [\"127.0.0.0/8\"]\n").unwrap();
    let _daemon = site.start().unwrap();
    let report = json(&site, &[]);
    for tls in ["starttls", "implicit"] {
        assert_eq!(row(listener(&report, tls), "modern").0, "works", "{report:#}");
    }
    assert!(peers(&site).is_empty(), "{:?}", peers(&site));
}

#[test]
fn without_a_daemon_there_is_nothing_to_test() {
    let site = Site::new("").unwrap();
    let output = site.command_after("tls", &["test"]).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no daemon answers on"), "{stderr}");
}
