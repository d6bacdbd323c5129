//! Certificates as OpenSSL sees them: which one it is given, and when a new one takes its place.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ingress_tests::certificates::{Key, make};
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::programs::{openssl, succeed};
use ingress_tests::tunnel::Tunnel;
use ingress_tests::wait::wait_for;
use rustix::process::{Pid, Signal, kill_process};

/// From a signal to the certificate that it brings.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

const ECDSA_ONLY: [&str; 2] = ["-sigalgs", "ECDSA+SHA256"];
const RSA_ONLY: [&str; 2] = ["-sigalgs", "RSA-PSS+SHA256"];

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let site = with_four_certificates();
    let daemon = site.start().unwrap();
    for mode in ["starttls", "implicit"] {
        let given = |name: &str| subject(&daemon, mode, &["-servername", name]);
        assert_eq!(given("one.test"), "one-ecdsa", "{mode}");
        assert_eq!(given("two.test"), "two-ecdsa", "{mode}");
        assert_eq!(given("TWO.Test"), "two-ecdsa", "{mode}");
        assert_eq!(given("mx.two.test"), "two-ecdsa", "{mode}");
    }
}

#[test]
fn a_client_gets_the_key_that_it_can_verify() {
    let site = with_four_certificates();
    let daemon = site.start().unwrap();
    for mode in ["starttls", "implicit"] {
        for name in ["one", "two"] {
            let host = format!("{name}.test");
            let given = |schemes: [&str; 2]| {
                subject(&daemon, mode, &[["-servername", &host], schemes].concat())
            };
            assert_eq!(given(ECDSA_ONLY), format!("{name}-ecdsa"), "{mode}");
            assert_eq!(given(RSA_ONLY), format!("{name}-rsa"), "{mode}");
        }
    }
}

#[test]
fn a_name_that_is_unknown_missing_or_none_at_all_does_not_end_the_handshake() {
    let site = with_four_certificates();
    let daemon = site.start().unwrap();
    let names = [["-servername", "three.test"], ["-servername", "not a name"]];
    for mode in ["starttls", "implicit"] {
        for name in names.iter().map(<[_; 2]>::as_slice).chain([["-noservername"].as_slice()]) {
            assert_eq!(subject(&daemon, mode, name), "one-ecdsa", "{mode} {name:?}");
            let rsa_only = [name, &RSA_ONLY].concat();
            assert_eq!(subject(&daemon, mode, &rsa_only), "one-rsa", "{mode} {name:?}");
        }
    }
}

#[test]
fn tls_1_2_is_served_by_name_and_key_too() {
    let site = with_four_certificates();
    let daemon = site.start().unwrap();
    let two = ["-tls1_2", "-servername", "two.test"];
    assert_eq!(subject(&daemon, "starttls", &two), "two-ecdsa");
    let rsa = [two.as_slice(), &["-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]].concat();
    assert_eq!(subject(&daemon, "starttls", &rsa), "two-rsa");
}

#[test]
fn a_reload_serves_renewed_files_and_keeps_sessions_and_tickets() {
    let site = with_certificate();
    let daemon = site.start().unwrap();
    let mut session = Tunnel::hello(s_client(&daemon, "starttls"), "starttls");
    session.command("noop", "250");
    let ticket = site.folder().join("ticket");
    let asked = keep_ticket(&daemon, &ticket, &["-tls1_3"]);
    assert!(asked.contains("New, TLSv1.3"), "{asked}");

    make(&site.folder().join("mx"), Key::Ecdsa, "new-ecdsa", "DNS:mx.test");
    let output = reload(&site);
    assert!(output.status.success(), "{output:?}");
    let served = format!("{}: mx.test, until ", site.folder().join("mx.pem").display());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with(&served) && said.lines().count() == 1, "{said}");
    assert_eq!(subject(&daemon, "starttls", &[]), "new-ecdsa");
    assert_eq!(subject(&daemon, "implicit", &[]), "new-ecdsa");

    session.command("noop", "250");
    session.quit();
    let again = succeed(s_client(&daemon, "implicit").arg("-sess_in").arg(&ticket));
    let again = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(again.contains("Reused, TLSv1.3"), "{again}");
    let ended = daemon.stop().unwrap();
    assert!(ended.stderr.contains("certificates reloaded"), "{}", ended.stderr);
}

#[test]
fn a_ticket_is_good_for_the_service_that_gave_it_and_no_other() {
    let site = with_certificate();
    let daemon = site.start().unwrap();
    for version in ["-tls1_3", "-tls1_2"] {
        let ticket = site.folder().join(version);
        let asked = keep_ticket(&daemon, &ticket, &[version]);
        assert!(asked.contains("TLS session ticket:"), "{asked}");
        let shown = |mode| {
            let mut again = s_client(&daemon, mode);
            let again = succeed(again.args([version, "-sess_in"]).arg(&ticket));
            String::from_utf8_lossy(&again.stdout).into_owned()
        };
        let (same, other) = (shown("implicit"), shown("starttls"));
        assert!(same.contains("Reused, "), "{version} {same}");
        assert!(other.contains("New, "), "{version} {other}");
    }
}

#[test]
fn a_network_without_tickets_is_given_none_and_served() {
    let site = with_certificate_and("[networks]\nwithout_tickets = [\"127.0.0.0/8\"]\n");
    let daemon = site.start().unwrap();
    for version in ["-tls1_3", "-tls1_2"] {
        let asked = keep_ticket(&daemon, &site.folder().join(version), &[version]);
        assert!(asked.contains("New, "), "{asked}");
        assert!(!asked.contains("TLS session ticket"), "{asked}");
    }
}

#[test]
fn a_broken_file_is_named_and_the_old_certificate_stays() {
    let site = with_certificate();
    let daemon = site.start().unwrap();
    let chain = site.folder().join("mx.pem");
    fs::write(&chain, "nonsense").unwrap();
    let output = reload(&site);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&*chain.to_string_lossy()), "{said}");
    assert_eq!(subject(&daemon, "starttls", &[]), "old-ecdsa");
    let log = daemon.stop().unwrap().stderr;
    let line = log.lines().find(|line| line.contains("certificates not reloaded"));
    assert!(line.is_some_and(|line| line.contains(&*chain.to_string_lossy())), "{log}");
}

#[test]
fn a_certificate_that_ends_soon_is_in_the_log_and_the_status() {
    let site = with_certificate();
    let daemon = site.start().unwrap();
    let status = daemon.status().unwrap();
    let certificate = &status["tls"]["certificates"][0];
    assert_eq!(certificate["file"], *site.folder().join("mx.pem").to_string_lossy());
    assert_eq!(certificate["names"][0], "mx.test");
    // Made for two days: the first may not be a second old.
    let days_left = certificate["days_left"].as_i64();
    assert!(days_left.is_some_and(|days| (1..=2).contains(&days)), "{certificate}");
    let log = daemon.stop().unwrap().stderr;
    let line = log.lines().find(|line| line.contains("certificate expires soon"));
    assert!(line.is_some_and(|line| line.contains("WARN") && line.contains("mx.pem")), "{log}");
}

#[test]
fn sighup_reloads_and_does_not_end_the_daemon() {
    let site = with_certificate();
    let daemon = site.start().unwrap();
    assert_eq!(subject(&daemon, "implicit", &[]), "old-ecdsa");
    make(&site.folder().join("mx"), Key::Ecdsa, "new-ecdsa", "DNS:mx.test");
    kill_process(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    wait_for("new certificate", RELOAD_TIMEOUT, || {
        subject(&daemon, "implicit", &[]) == "new-ecdsa"
    });
    assert!(daemon.stop().unwrap().status.success());
}

#[test]
fn a_self_signed_certificate_has_nothing_to_reload() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let output = reload(&site);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("self-signed, there is nothing to reload"), "{said}");
    assert!(daemon.stop().unwrap().status.success());
}

/// The common name of the certificate that `openssl s_client` with these arguments is given.
fn subject(daemon: &Daemon, mode: &str, arguments: &[&str]) -> String {
    let output = succeed(s_client(daemon, mode).args(arguments));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let subject = output.lines().find_map(|line| line.strip_prefix("subject=CN = "));
    subject.unwrap_or_else(|| panic!("no certificate in {output}")).to_owned()
}

fn s_client(daemon: &Daemon, mode: &str) -> Command {
    let mut command = openssl();
    command.args(["s_client", "-connect", &daemon.smtp(mode).to_string()]);
    if mode == "starttls" {
        command.args(["-starttls", "smtp"]);
    }
    command
}

/// Runs to the end, given these lines, and returns what it wrote.
fn with_input(command: &mut Command, lines: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl starts");
    child.stdin.take().expect("stdin is piped").write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Says QUIT where TLS comes first, and keeps the session in the file. A TLS 1.3 ticket comes after the handshake, so s_client is
/// to wait for the server's close.
fn keep_ticket(daemon: &Daemon, file: &Path, arguments: &[&str]) -> String {
    let mut command = s_client(daemon, "implicit");
    command.args(["-ign_eof", "-crlf", "-sess_out"]).arg(file).args(arguments);
    with_input(&mut command, "QUIT\n")
}

/// A site with one certificate, of mx.test, in mx.pem.
fn with_certificate() -> Site {
    with_certificate_and("")
}

fn with_certificate_and(extra: &str) -> Site {
    let tls = "[tls]\ncertificates = [ { chain = \"mx.pem\", key = \"mx.key\" } ]\n";
    let site = Site::new(&format!("{tls}{extra}")).unwrap();
    make(&site.folder().join("mx"), Key::Ecdsa, "old-ecdsa", "DNS:mx.test");
    site
}

fn reload(site: &Site) -> Output {
    let mut command = Command::new(ingress_tests::bin());
    command.args(["tls", "reload", "--config"]).arg(site.config()).output().unwrap()
}

/// A site with a certificate of each kind for one.test, and for two.test and the hosts below it, in this order.
fn with_four_certificates() -> Site {
    let names = ["one-ecdsa", "one-rsa", "two-ecdsa", "two-rsa"];
    let files = names.map(|name| format!("{{ chain = \"{name}.pem\", key = \"{name}.key\" }}"));
    let site = Site::new(&format!("[tls]\ncertificates = [ {} ]\n", files.join(", "))).unwrap();
    for name in names {
        let names = match name.starts_with("one") {
            true => "DNS:one.test",
            false => "DNS:two.test,DNS:*.two.test",
        };
        let key = if name.ends_with("rsa") { Key::Rsa } else { Key::Ecdsa };
        make(&site.folder().join(name), key, name, names);
    }
    site
}
