//! Handshakes of real clients that fail: each is explained by name, and no mail is lost to it.
//!
//! Each test has a daemon of its own: all clients come from 127.0.0.1, which is one peer.

use std::io::Write;
use std::process::{Output, Stdio};

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::handshakes::{REPORT_TIMEOUT, failure, report, withheld};
use ingress_tests::programs::openssl;
use ingress_tests::wait::wait_for;
use serde_json::Value;

/// One worker, so that both connections are its own.
const ONE_HANDSHAKE: &str = r#"
hostname = "mx.test"
state_dir = "state"
workers = 1
[[listener]]
address = "127.0.0.1:0"
tls = "starttls"
[[listener]]
address = "127.0.0.1:0"
tls = "implicit"
[recipients]
domains = ["*"]
[limits]
handshakes_per_worker_max = 1
[delivery]
kind = "maildir"
path = "maildir"
"#;

/// Old clients take what today's OpenSSL refuses by itself.
const OLD: [&str; 2] = ["-cipher", "ALL:@SECLEVEL=0"];

/// `openssl s_client` with STARTTLS, which is expected to fail.
fn fail(daemon: &Daemon, arguments: &[&str]) -> Output {
    let address = daemon.smtp("starttls").to_string();
    let mut command = openssl();
    command.args(["s_client", "-starttls", "smtp", "-connect", &address]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "the handshake was to fail: {output:?}");
    output
}

/// What `ingress VERB --json` prints.
fn json(site: &Site, verb: &[&str]) -> Value {
    let mut arguments = verb[1..].to_vec();
    arguments.push("--json");
    let output = site.command_after(verb[0], &arguments).unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The verdict on a client whose failure is a matter of negotiation; its retry comes in clear, and its mail arrives.
fn comes_in_clear_after(arguments: &[&str], verdict: &str) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    fail(&daemon, arguments);
    let failure = failure(&site);
    assert_eq!(failure["verdict"], verdict, "{failure:#}");
    assert!(!failure["offered"]["suites"].as_array().unwrap().is_empty(), "{failure:#}");
    assert_eq!(failure["client"], "127.0.0.1");
    assert_eq!(failure["stage"], "hello_received", "{failure:#}");
    assert_eq!(failure["alert"]["direction"], "sent", "{failure:#}");
    assert!(failure["remedy"].as_str().unwrap().contains("come in clear"), "{failure:#}");
    let usable = failure["usable"].as_object().unwrap();
    let is_empty = |list: &Value| list.as_array().unwrap().is_empty();
    assert!(usable.values().any(is_empty), "all fits, so why did it fail? {failure:#}");
    wait_for("clear retry", REPORT_TIMEOUT, || !daemon.offers_starttls());
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.command("STARTTLS", "454 4.7.0");
    client.message(b"text\r\n");
    client.quit();
    daemon.wait_until_delivered();
    assert_eq!(site.maildir().texts().unwrap(), [b"text\r\n"]);
    wait_for("word of the mail that came", REPORT_TIMEOUT, || {
        report(&site)["failures"][0]["afterwards"] == "in clear"
    });
}

/// The verdict on a client that goes on being offered STARTTLS.
fn is_offered_after(site: &Site, daemon: &Daemon, verdict: &str) {
    let failure = failure(site);
    assert_eq!(failure["verdict"], verdict, "{failure:#}");
    assert!(withheld(site).is_empty());
    assert!(daemon.offers_starttls());
}

#[test]
fn a_client_with_tls_1_0_only_comes_in_clear() {
    comes_in_clear_after(&[["-tls1"].as_slice(), &OLD].concat(), "old_versions_only");
}

#[test]
fn a_client_with_tls_1_1_only_comes_in_clear() {
    comes_in_clear_after(&[["-tls1_1"].as_slice(), &OLD].concat(), "old_versions_only");
}

#[test]
fn a_client_with_rsa_key_exchange_only_comes_in_clear() {
    comes_in_clear_after(&["-tls1_2", "-cipher", "AES128-GCM-SHA256"], "rsa_key_exchange_only");
}

#[test]
fn a_client_with_cbc_only_comes_in_clear() {
    comes_in_clear_after(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"], "cbc_only");
}

#[test]
fn a_client_without_a_scheme_for_our_key_comes_in_clear() {
    // The self-signed certificate is ECDSA.
    comes_in_clear_after(&["-tls1_2", "-sigalgs", "RSA+SHA256"], "no_common_scheme");
}

#[test]
fn a_client_that_distrusts_our_certificate_is_offered_starttls_again() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    fail(&daemon, &["-verify_return_error"]);
    is_offered_after(&site, &daemon, "distrusts_certificate");
    let remedy = failure(&site)["remedy"].as_str().unwrap().to_owned();
    assert!(remedy.contains("unknown_ca"), "{remedy}");
    let failure = failure(&site);
    assert_eq!(failure["alert"]["direction"], "received", "{failure:#}");
    assert_eq!(failure["alert"]["name"], "unknown_ca", "{failure:#}");
    assert_eq!(failure["stage"], "flight_sent", "{failure:#}");
}

#[test]
fn where_tls_comes_first_no_mail_in_clear_is_promised() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let address = daemon.smtp("implicit").to_string();
    let mut command = openssl();
    command.args(["s_client", "-tls1", "-connect", &address]).args(OLD);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    is_offered_after(&site, &daemon, "old_versions_only");
    let failure = failure(&site);
    let remedy = failure["remedy"].as_str().unwrap();
    assert!(remedy.contains("none of its mail comes in on this port"), "{remedy}");
    // The alert in the report is the one that the client got.
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("alert handshake failure"), "{stderr}");
    assert_eq!(failure["alert"]["name"], "handshake_failure", "{failure:#}");
}

#[test]
fn a_client_that_hangs_up_after_starttls_is_offered_it_again() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.command("STARTTLS", "220");
    drop(client);
    is_offered_after(&site, &daemon, "closed_before_hello");
    assert_eq!(failure(&site)["helo"], "client.test");
}

#[test]
fn a_client_that_finishes_the_handshake_and_says_nothing_is_in_the_report() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let address = daemon.smtp("starttls").to_string();
    let mut command = openssl();
    command.args(["s_client", "-starttls", "smtp", "-connect", &address]);
    assert!(command.stdin(Stdio::null()).output().unwrap().status.success());
    is_offered_after(&site, &daemon, "broke_after_finish");
}

#[test]
fn a_client_that_got_tls_done_before_is_offered_it_after_a_failure() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    succeed(&daemon);
    fail(&daemon, &[["-tls1"].as_slice(), &OLD].concat());
    is_offered_after(&site, &daemon, "old_versions_only");
}

#[test]
fn an_exempt_network_is_always_offered_starttls() {
    let site = Site::new("[tls.memory]\nexempt = [\"127.0.0.0/8\"]\n").unwrap();
    let daemon = site.start().unwrap();
    fail(&daemon, &[["-tls1"].as_slice(), &OLD].concat());
    is_offered_after(&site, &daemon, "old_versions_only");
}

#[test]
fn the_operator_sees_and_overrides_the_memory_and_it_outlives_a_restart() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    fail(&daemon, &[["-tls1"].as_slice(), &OLD].concat());
    wait_for("clear retry", REPORT_TIMEOUT, || !daemon.offers_starttls());
    assert!(daemon.stop().unwrap().status.success());

    let daemon = site.start().unwrap();
    assert!(!daemon.offers_starttls(), "forgotten by a restart");
    let list = site.command_after("tls", &["memory", "list"]).unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.starts_with("127.0.0.1/32") && list.contains("not offered STARTTLS"), "{list}");
    let change = |arguments: &[&str]| {
        let output = site.command_after("tls", &[&["memory"], arguments].concat()).unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    change(&["pin", "127.0.0.1", "offer"]);
    assert!(daemon.offers_starttls());
    change(&["pin", "127.0.0.1", "none"]);
    assert!(!daemon.offers_starttls());
    change(&["forget", "127.0.0.0/8"]);
    assert!(daemon.offers_starttls());
    assert_eq!(json(&site, &["tls", "memory", "list"]), Value::Array(Vec::new()));
}

#[test]
fn starttls_is_kept_from_the_client_that_xclient_names_and_not_from_who_names_it() {
    let site = Site::new("[networks]\nxclient = [\"127.0.0.1\"]\n").unwrap();
    let daemon = site.start().unwrap();
    let pin = site.command_after("tls", &["memory", "pin", "192.0.2.9", "withhold"]).unwrap();
    assert!(pin.status.success(), "{pin:?}");
    assert!(daemon.offers_starttls());
    let mut client = Client::connect(daemon.smtp("starttls"));
    client.expect("220 ");
    // In one segment: the name counts from the next command on.
    client.send("XCLIENT ADDR=192.0.2.9\r\nEHLO client.test\r\n");
    client.expect("220 ");
    let extensions = client.expect("250");
    assert!(!extensions.contains("STARTTLS"), "{extensions}");
    client.quit();
}

#[test]
fn a_peer_that_always_came_with_tls_and_comes_without_is_noticed() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    for _ in 0..3 {
        succeed(&daemon);
    }
    wait_for("three handshakes", REPORT_TIMEOUT, || {
        report(&site)["handshakes"]["established"] == 3
    });
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.message(b"text\r\n");
    client.quit();
    wait_for("word of it", REPORT_TIMEOUT, || report(&site)["sessions"]["stripped"] == 1);
    let stderr = daemon.stop().unwrap().stderr;
    assert!(stderr.contains("TLS was stripped?"), "{stderr}");
}

#[test]
fn handshakes_beyond_the_limit_are_put_off_and_taken_when_others_are_through() {
    let site = Site::with_config(ONE_HANDSHAKE).unwrap();
    let daemon = site.start().unwrap();
    let mut half_open = Client::hello(daemon.smtp("starttls"));
    half_open.command("STARTTLS", "220");
    let mut next = Client::hello(daemon.smtp("starttls"));
    next.command("STARTTLS", "454 4.3.2");
    let mut implicit = Client::connect(daemon.smtp("implicit"));
    implicit.expect_close();
    drop(implicit);
    // In clear nothing waits.
    next.message(b"text\r\n");
    next.quit();
    drop(half_open);
    wait_for("end of the handshake", REPORT_TIMEOUT, || {
        daemon.count("/connections/open").unwrap() == 0
    });
    succeed(&daemon);
    assert_eq!(daemon.count("/sessions/closed/too_many_handshakes").unwrap(), 1);
}

/// A session under TLS up to QUIT.
fn succeed(daemon: &Daemon) {
    let address = daemon.smtp("starttls").to_string();
    let mut command = openssl();
    command.args(["s_client", "-starttls", "smtp", "-quiet", "-connect", &address]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"QUIT\r\n").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_cost_of_a_higher_minimum_is_told_by_messages() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let floor = report(&site)["floor"].clone();
    assert_eq!(floor["minimum"], "TLS 1.3");
    assert_eq!(floor["would_have_come_in_clear_percent"], Value::Null, "nothing came yet");
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.message(b"one\r\n");
    client.message(b"two\r\n");
    client.message(b"three\r\n");
    client.quit();
    bring_message_over_tls_1_2(&daemon);
    wait_for("all messages in the report", REPORT_TIMEOUT, || {
        report(&site)["floor"]["messages"] == 4
    });
    let report = report(&site);
    assert_eq!(report["floor"]["would_have_come_in_clear_percent"], 25.0, "{report:#}");
    assert_eq!(report["messages"]["in_clear_percent"], 75.0, "{report:#}");
    assert_eq!(report["sessions"]["in_clear"], 1, "{report:#}");
    let output = site.command_after("tls", &["report", "--since", "1d"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line =
        "raising the minimum to TLS 1.3 would have sent 25.0 % of mail of the last day in clear";
    assert!(text.contains(line), "{text}");
}

fn bring_message_over_tls_1_2(daemon: &Daemon) {
    let address = daemon.smtp("starttls").to_string();
    let mut command = openssl();
    let arguments = ["s_client", "-starttls", "smtp", "-quiet", "-tls1_2", "-crlf", "-connect"];
    command.args(arguments).arg(&address);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let said = b"EHLO client.test\nMAIL FROM:<>\nRCPT TO:<user@mx.test>\nDATA\ntext\n.\nQUIT\n";
    child.stdin.take().unwrap().write_all(said).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_report_outlives_a_restart() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    fail(&daemon, &["-verify_return_error"]);
    let failure = failure(&site);
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.message(b"one\r\n");
    client.message(b"two\r\n");
    client.quit();
    assert!(daemon.stop().unwrap().status.success());

    let _daemon = site.start().unwrap();
    let report = report(&site);
    assert_eq!(report["messages"]["in_clear"], 2, "{report:#}");
    assert_eq!(report["handshakes"]["by_verdict"]["distrusts_certificate"], 1, "{report:#}");
    assert_eq!(report["failures"][0]["remedy"], failure["remedy"]);
    assert_eq!(report["failures"][0]["afterwards"], "in clear");
}
