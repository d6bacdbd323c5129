//! Certificates as OpenSSL sees them: which one it is given.

use std::path::Path;
use std::process::Command;

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::programs::{openssl, succeed};

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
        make_certificate(&site.folder().join(name), name, names);
    }
    site
}

/// Makes PATH.pem and PATH.key, RSA where the common name ends so.
fn make_certificate(path: &Path, common_name: &str, names: &str) {
    let mut command = openssl();
    command.args(["req", "-x509", "-nodes", "-days", "2", "-newkey"]);
    match common_name.ends_with("rsa") {
        true => command.arg("rsa:2048"),
        false => command.args(["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
    };
    command.args(["-subj", &format!("/CN={common_name}")]);
    command.args(["-addext", &format!("subjectAltName={names}")]);
    command.arg("-keyout").arg(path.with_extension("key"));
    succeed(command.arg("-out").arg(path.with_extension("pem")));
}
