//! Handshakes of real programs that cannot succeed: each is explained by name, and the next try of the same program comes in
//! clear and brings its mail, unless an exemption says otherwise.
//!
//! Each test has a daemon of its own: all clients come from 127.0.0.1, which is one peer.

use std::process::{Command, Output, Stdio};

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::handshakes::{REPORT_TIMEOUT, explained, failure, report, withheld};
use ingress_tests::programs::{gnutls_cli, openssl, posttls_finger, succeed, swaks};
use ingress_tests::tunnel::Tunnel;
use ingress_tests::wait::wait_for;
use serde_json::json;

const TEXT: &str = "Subject: in clear\r\n\r\ntext\r\n";

const TLS_1_1: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.1";

#[test]
fn gnutls_with_tls_1_0_only() {
    gnutls_comes_in_clear("NORMAL:-VERS-ALL:+VERS-TLS1.0", "old_versions_only");
}

#[test]
fn gnutls_with_tls_1_1_only() {
    gnutls_comes_in_clear(TLS_1_1, "old_versions_only");
}

#[test]
fn gnutls_with_rsa_key_exchange_only() {
    let only = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+RSA";
    gnutls_comes_in_clear(only, "rsa_key_exchange_only");
}

#[test]
fn gnutls_with_finite_field_diffie_hellman_only() {
    gnutls_comes_in_clear("NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA", "dhe_only");
}

#[test]
fn gnutls_with_cbc_only() {
    let only = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-ECDSA:-CIPHER-ALL:+AES-128-CBC";
    gnutls_comes_in_clear(only, "cbc_only");
}

#[test]
fn gnutls_without_a_group_of_ours() {
    let only = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-GROUP-ALL:+GROUP-SECP521R1";
    gnutls_comes_in_clear(only, "no_common_group");
}

#[test]
fn swaks_with_tls_1_1_only() {
    let (site, daemon) = started("");
    let mut command = swaks();
    command.args(["--server", &daemon.smtp("starttls").to_string(), "--quit-after", "helo"]);
    command.args(["-tls", "--tls-protocol", "tlsv1_1", "--tls-cipher", "ALL:@SECLEVEL=0"]);
    fail(&mut command);
    comes_in_clear(&site, daemon, "old_versions_only");
}

#[test]
fn posttls_finger_with_tls_1_1_only() {
    let (site, daemon) = started("");
    let address = daemon.smtp("starttls");
    let mut command = posttls_finger();
    command.args(["-c", "-l", "encrypt", "-p", "TLSv1.1", "-g", "null"]);
    command.args(["-o", "tls_null_cipherlist=ALL:@SECLEVEL=0"]);
    // It reports what it finds, and finding no TLS is no failure of its own.
    let output = succeed(command.arg(format!("[{}]:{}", address.ip(), address.port())));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("SSL_connect error"), "{said}");
    comes_in_clear(&site, daemon, "old_versions_only");
}

#[test]
fn gnutls_that_distrusts_our_certificate_is_offered_starttls_again() {
    let (site, daemon) = started("");
    let mut command = gnutls(&daemon, "NORMAL");
    command.arg("--ca-verification");
    fail(&mut command);
    is_offered(&site, daemon, "distrusts_certificate", "STARTTLS goes on being offered");
}

#[test]
fn openssl_that_does_not_know_our_authority_is_offered_starttls_again() {
    let (site, daemon) = started("");
    let mut command = openssl();
    let address = daemon.smtp("starttls").to_string();
    command.args(["s_client", "-starttls", "smtp", "-verify_return_error", "-connect", &address]);
    fail(&mut command);
    let explanation = failure(&site)["remedy"].as_str().unwrap().to_owned();
    assert!(explanation.contains("(unknown_ca)"), "{explanation}");
    let expected = "ending=AlertReceived(48) verdict=\"distrusts_certificate\"";
    let log = is_offered(&site, daemon, "distrusts_certificate", "STARTTLS goes on being offered");
    assert!(log.contains(expected), "{log}");
}

#[test]
fn who_got_tls_done_within_30_days_is_offered_it_after_a_failure() {
    let (site, daemon) = started("");
    let mut command = gnutls(&daemon, "NORMAL");
    command.arg("--insecure");
    Tunnel::hello(command, "starttls").quit();
    fail(&mut gnutls(&daemon, TLS_1_1));
    is_offered(&site, daemon, "old_versions_only", "it could do TLS within 30 days");
}

#[test]
fn an_exempt_network_is_offered_starttls_after_a_failure() {
    let (site, daemon) = started("[tls.memory]\nexempt = [\"127.0.0.1\"]\n");
    fail(&mut gnutls(&daemon, TLS_1_1));
    is_offered(&site, daemon, "old_versions_only", "it is exempt");
}

#[test]
fn who_is_pinned_to_be_offered_starttls_is_so_after_a_failure() {
    let (site, daemon) = started("");
    pin(&site, "offer");
    fail(&mut gnutls(&daemon, TLS_1_1));
    is_offered(&site, daemon, "old_versions_only", "it is exempt");
}

#[test]
fn who_is_pinned_to_come_in_clear_does_so_though_it_can_do_tls() {
    let (site, daemon) = started("");
    let mut command = gnutls(&daemon, "NORMAL");
    command.arg("--insecure");
    Tunnel::hello(command, "starttls").quit();
    pin(&site, "withhold");
    assert!(!daemon.offers_starttls());
    sends_if_it_can(&site, &daemon, "ESMTP");
}

#[test]
fn where_nobody_may_be_withheld_a_failure_changes_nothing() {
    let (site, daemon) = started("[tls.memory]\nwithheld_percent_max = 0\n");
    fail(&mut gnutls(&daemon, TLS_1_1));
    is_offered(&site, daemon, "old_versions_only", "too many peers are denied STARTTLS");
}

fn started(extra: &str) -> (Site, Daemon) {
    let site = Site::new(extra).unwrap();
    let daemon = site.start().unwrap();
    (site, daemon)
}

fn gnutls(daemon: &Daemon, priority: &str) -> Command {
    let mut command = gnutls_cli();
    command.args(["--starttls-proto=smtp", "--priority", priority]);
    command.args(["--port", &daemon.smtp("starttls").port().to_string(), "127.0.0.1"]);
    command
}

fn fail(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("timeout(1) is there");
    assert!(!output.status.success(), "it was to fail: {output:?}");
    output
}

fn pin(site: &Site, what: &str) {
    let output = site.command_after("tls", &["memory", "pin", "127.0.0.1", what]).unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn gnutls_comes_in_clear(priority: &str, verdict: &str) {
    let (site, daemon) = started("");
    fail(&mut gnutls(&daemon, priority));
    comes_in_clear(&site, daemon, verdict);
}

fn comes_in_clear(site: &Site, daemon: Daemon, verdict: &str) {
    let failure = failure(site);
    assert_eq!(failure["verdict"], verdict, "{failure:#}");
    wait_for("clear retry", REPORT_TIMEOUT, || !daemon.offers_starttls());
    let memory = report(site)["memory"].clone();
    assert_eq!(
        (&memory[0]["network"], &memory[0]["reason"]),
        (&json!("127.0.0.1/32"), &json!(verdict))
    );
    assert!(memory[0]["until"].is_u64(), "{memory}");
    sends_if_it_can(site, &daemon, "ESMTP");
    wait_for("word of the mail that came", REPORT_TIMEOUT, || {
        report(site)["failures"][0]["afterwards"] == "in clear"
    });
    let log = daemon.stop().unwrap().stderr;
    let line = format!("stage=HelloReceived ending=WeRefused verdict=\"{verdict}\"");
    let lines = explained(&log);
    assert!(lines.len() == 1 && lines[0].contains(&line), "no {line} in {lines:#?}");
}

/// `because` is in the log. Gives that back.
fn is_offered(site: &Site, daemon: Daemon, verdict: &str, because: &str) -> String {
    let failure = failure(site);
    assert_eq!(failure["verdict"], verdict, "{failure:#}");
    assert!(withheld(site).is_empty());
    assert!(daemon.offers_starttls());
    sends_if_it_can(site, &daemon, "ESMTPS");
    let log = daemon.stop().unwrap().stderr;
    let lines = explained(&log);
    assert!(lines.len() == 1 && lines[0].contains(because), "no {because} in {lines:#?}");
    log
}

/// A program that takes STARTTLS where it is offered, and goes on in clear where it is not.
fn sends_if_it_can(site: &Site, daemon: &Daemon, protocol: &str) {
    let mut command = swaks();
    command.args(["--server", &daemon.smtp("starttls").to_string(), "--tls-optional-strict"]);
    command.args(["--from", "sender@example.org", "--to", "user@example.net"]);
    succeed(command.args(["--no-data-fixup", "--data", &format!("{TEXT}.\r\n")]));
    daemon.wait_until_delivered();
    assert_eq!(site.maildir().texts().unwrap(), [TEXT.as_bytes()]);
    let message = site.maildir().messages().unwrap().remove(0);
    let message = String::from_utf8_lossy(&message);
    assert!(message.contains(&format!("by mx.test with {protocol} id ")), "{message}");
}
