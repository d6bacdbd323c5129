//! TLS as other people's clients speak it: both versions, both types of key, resumption, new keys, tiny pieces. Under all of
//! it a message arrives octet by octet.

use std::path::Path;
use std::process::Command;

use ingress_tests::certificates::site_with_both_keys;
use ingress_tests::client::{Client, stuffed};
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::handshakes::report_of;
use ingress_tests::programs::{
    gnutls_cli, openssl, posttls_finger, python, script, succeed, swaks,
};
use ingress_tests::texts::{assert_delivered, text_of_size, write_files};
use ingress_tests::tunnel::Tunnel;
use serde_json::Value;

const MODES: [&str; 2] = ["starttls", "implicit"];
const VERSIONS: [&str; 2] = ["1.2", "1.3"];
const KEYS: [&str; 2] = ["ECDSA", "RSA"];

/// No line begins with a capital that `openssl s_client` takes for a command of its own.
const TEXT: &[u8] = b"subject: dots\r\n\r\n.\r\n..\r\n.dot\r\n\xe4\xff\r\n";

#[test]
fn openssl_with_either_version_and_either_key() {
    let mut case = Case::start();
    for (mode, version) in modes_and_versions() {
        for key in KEYS {
            let mut command = s_client(&case.daemon, mode, version);
            let schemes = match key {
                "RSA" => "RSA-PSS+SHA256",
                _ => "ECDSA+SHA256",
            };
            command.args(["-sigalgs", schemes]);
            let said = case.send(command, mode);
            let kind =
                format!("Peer signature type: {}", if key == "RSA" { "RSA-PSS" } else { key });
            assert!(said.contains(&kind), "{mode} {version} {key}: {said}");
        }
    }
    let report = case.finish();
    assert_both_versions(&report, 4);
}

#[test]
fn openssl_resumes() {
    let mut case = Case::start();
    for (mode, version) in modes_and_versions() {
        let ticket = case.site.folder().join(format!("{mode}-{version}"));
        let mut first = s_client(&case.daemon, mode, version);
        first.arg("-sess_out").arg(&ticket);
        // The ticket of TLS 1.3 comes before the reply to what is said after the handshake.
        let said = Tunnel::hello(first, mode).quit();
        assert!(said.contains(&format!("New, TLSv{version}")), "{said}");
        let mut again = s_client(&case.daemon, mode, version);
        again.arg("-sess_in").arg(&ticket);
        let said = case.send(again, mode);
        assert!(said.contains(&format!("Reused, TLSv{version}")), "{mode}: {said}");
        case.handshakes += 1;
    }
    let report = case.finish();
    assert_eq!(report["handshakes"]["resumed"], 4, "{report:#}");
}

#[test]
fn openssl_changes_keys_in_the_middle_of_a_session() {
    let mut case = Case::start();
    for mode in MODES {
        let mut session = Tunnel::hello(s_client(&case.daemon, mode, "1.3"), mode);
        // "K" asks the server for new keys of its own too.
        for letter in ["K", "k", "K"] {
            session.send(format!("{letter}\n"));
            session.wait_for_word("KEYUPDATE");
            session.command("noop", "250");
        }
        session.command("mail from:<sender@example.org>", "250");
        session.command("rcpt to:<user@example.net>", "250");
        session.command("data", "354");
        session.send("K\n");
        session.wait_for_word("KEYUPDATE");
        session.send(stuffed(TEXT));
        session.expect("250");
        session.quit();
        case.sent(TEXT);
    }
    case.finish();
}

#[test]
fn openssl_sends_a_long_message_in_tiny_records() {
    let mut case = Case::start();
    let text = text_of_size(1 << 20);
    for (mode, version) in modes_and_versions() {
        let mut command = s_client(&case.daemon, mode, version);
        command.args(["-quiet", "-max_send_frag", "512", "-split_send_frag", "512"]);
        let mut session = Tunnel::hello(command, mode);
        session.message(&text);
        session.quit();
        case.sent(&text);
    }
    let report = case.finish();
    assert_both_versions(&report, 2);
}

#[test]
fn gnutls_with_either_version_and_either_key() {
    let mut case = Case::start();
    for (mode, version) in modes_and_versions() {
        for key in KEYS {
            let only = match (version, key) {
                ("1.2", _) => format!(":-KX-ALL:+ECDHE-{key}"),
                (_, "RSA") => ":-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256".to_owned(),
                _ => ":-SIGN-ALL:+SIGN-ECDSA-SECP256R1-SHA256".to_owned(),
            };
            let said = case.send(gnutls(&case.daemon, mode, version, &only), mode);
            let description = said.lines().find(|line| line.starts_with("- Description: "));
            let description = description.unwrap_or_else(|| panic!("{said}"));
            let expected = format!("(TLS{version}-X.509)");
            assert!(description.contains(&expected) && description.contains(key), "{description}");
        }
    }
    let report = case.finish();
    assert_both_versions(&report, 4);
}

#[test]
fn gnutls_resumes() {
    let mut case = Case::start();
    for (mode, version) in modes_and_versions() {
        let mut command = gnutls(&case.daemon, mode, version, "");
        command.args(["--resume", "--waitresumption"]);
        let mut session = Tunnel::start(command);
        session.wait_for_word("This is a resumed session");
        if mode == "implicit" {
            session.expect("220");
        }
        session.ehlo();
        session.message(TEXT);
        session.quit();
        case.sent(TEXT);
        // The one to be resumed counts as established, and as failed since nothing is said in it.
        case.handshakes += 2;
    }
    let report = case.finish_with_failures();
    assert_eq!(report["handshakes"]["resumed"], 4, "{report:#}");
}

#[test]
fn gnutls_changes_keys_in_the_middle_of_a_session() {
    let mut case = Case::start();
    for mode in MODES {
        let mut command = gnutls(&case.daemon, mode, "1.3", "");
        command.arg("--inline-commands");
        let mut session = Tunnel::hello(command, mode);
        for _ in 0..3 {
            session.send("^renegotiate^\n");
            session.wait_for_word("ReHandshake was completed");
            session.command("noop", "250");
        }
        session.message(TEXT);
        session.quit();
        case.sent(TEXT);
    }
    case.finish();
}

#[test]
fn a_handshake_anew_under_tls_1_2_ends_that_session_alone() {
    let mut case = Case::start();
    for mode in MODES {
        let mut bystander = Client::hello(case.daemon.smtp("starttls"));
        bystander.envelope();
        let mut command = gnutls(&case.daemon, mode, "1.2", "");
        command.arg("--inline-commands");
        let mut session = Tunnel::hello(command, mode);
        session.send("^renegotiate^\n");
        session.wait_for_word("No renegotiation is allowed");
        session.rest();
        case.handshakes += 1;
        bystander.data(TEXT);
        bystander.quit();
        case.texts.push(TEXT.to_vec());
    }
    let Case { site, daemon, texts, handshakes } = case;
    let report = report_of(&site, handshakes);
    assert_eq!(report["handshakes"]["failed"], 0, "{report:#}");
    assert_delivered(&site, daemon, &texts, "ESMTP");
}

#[test]
fn python_with_either_version_new_and_resumed() {
    let mut case = Case::start();
    let text = text_of_size(3 << 20);
    let file = write_files(&case.site, std::slice::from_ref(&text), <[u8]>::to_vec).remove(0);
    for (mode, version) in modes_and_versions() {
        case.send_with_python([mode, version, "new", "65536"], &file, &text);
        case.send_with_python([mode, version, "resumed", "65536"], &file, &text);
        case.handshakes += 1;
    }
    let report = case.finish();
    assert_both_versions(&report, 6);
    assert_eq!(report["handshakes"]["resumed"], 4, "{report:#}");
}

#[test]
fn python_sends_all_octet_by_octet_from_the_first_one_on() {
    let mut case = Case::start();
    let text = text_of_size(1 << 12);
    let file = write_files(&case.site, std::slice::from_ref(&text), <[u8]>::to_vec).remove(0);
    for (mode, version) in modes_and_versions() {
        case.send_with_python([mode, version, "new", "1"], &file, &text);
    }
    let report = case.finish();
    assert_both_versions(&report, 2);
}

#[test]
fn swaks_with_either_version() {
    let mut case = Case::start();
    let file = write_files(&case.site, &[TEXT.to_vec()], stuffed).remove(0);
    for (mode, version) in modes_and_versions() {
        let mut command = swaks();
        command.args(["--server", &case.daemon.smtp(mode).to_string(), "--no-data-fixup"]);
        command.arg(if mode == "starttls" { "-tls" } else { "-tlsc" });
        command.args(["--tls-protocol", &format!("tlsv{}", version.replace('.', "_"))]);
        command.args(["--from", "sender@example.org", "--to", "user@example.net", "--data"]);
        succeed(command.arg(format!("@{}", file.display())));
        case.sent(TEXT);
    }
    let report = case.finish();
    assert_both_versions(&report, 2);
}

#[test]
fn posttls_finger_finds_tls_at_each_level_and_resumes() {
    let case = Case::start();
    let mut handshakes = 0;
    for (mode, version) in modes_and_versions() {
        for level in ["may", "encrypt"] {
            let mut command = posttls_finger();
            // Once more a second later, with the session of the first time.
            command.args(["-c", "-L", "summary", "-l", level, "-r", "1", "-m", "2"]);
            let versions = if version == "1.2" { "TLSv1.2" } else { ">=TLSv1.3" };
            command.args(["-p", versions]);
            if mode == "implicit" {
                command.arg("-w");
            }
            let address = case.daemon.smtp(mode);
            let output = succeed(command.arg(format!("[{}]:{}", address.ip(), address.port())));
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let established = format!(
                "TLS connection established to {}[{}]:{}: TLSv{version} ",
                address.ip(),
                address.ip(),
                address.port()
            );
            assert_eq!(said.matches(&established).count(), 2, "{mode} {level}: {said}");
            assert!(said.contains("Reusing old session"), "{mode} {level}: {said}");
            handshakes += 2;
        }
    }
    let report = report_of(&case.site, handshakes);
    assert_eq!(report["handshakes"]["resumed"], handshakes / 2, "{report:#}");
    assert_both_versions(&report, handshakes / 2);
}

/// A daemon with an ECDSA and an RSA certificate, and what clients have done to it.
struct Case {
    site: Site,
    daemon: Daemon,
    texts: Vec<Vec<u8>>,
    handshakes: u64,
}

impl Case {
    fn start() -> Self {
        let site = site_with_both_keys("");
        let daemon = site.start().unwrap();
        Self { site, daemon, texts: Vec::new(), handshakes: 0 }
    }

    /// A session with one message. Gives back what the client said.
    fn send(&mut self, command: Command, mode: &str) -> String {
        let mut session = Tunnel::hello(command, mode);
        session.message(TEXT);
        self.sent(TEXT);
        session.quit()
    }

    /// The arguments of tests/clients/ssl/send.py but the port and the file.
    fn send_with_python(
        &mut self,
        [mode, version, kind, octets]: [&str; 4],
        file: &Path,
        text: &[u8],
    ) {
        let port = self.daemon.smtp(mode).port().to_string();
        let mut command = python();
        command.arg(script("ssl/send.py")).args([mode, &port, version, kind, octets]);
        succeed(command.arg(file));
        self.sent(text);
    }

    /// One message, after one handshake.
    fn sent(&mut self, text: &[u8]) {
        self.texts.push(text.to_vec());
        self.handshakes += 1;
    }

    /// Each handshake succeeded, and each message is there. Gives back the report.
    fn finish(self) -> Value {
        let failed = report_of(&self.site, self.handshakes)["handshakes"]["failed"].clone();
        assert_eq!(failed, 0);
        self.finish_with_failures()
    }

    fn finish_with_failures(self) -> Value {
        let report = report_of(&self.site, self.handshakes);
        assert_delivered(&self.site, self.daemon, &self.texts, "ESMTPS");
        report
    }
}

fn modes_and_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    MODES.into_iter().flat_map(|mode| VERSIONS.into_iter().map(move |version| (mode, version)))
}

fn s_client(daemon: &Daemon, mode: &str, version: &str) -> Command {
    let mut command = openssl();
    command.args(["s_client", "-connect", &daemon.smtp(mode).to_string()]);
    command.arg(format!("-tls{}", version.replace('.', "_")));
    if mode == "starttls" {
        command.args(["-starttls", "smtp"]);
    }
    command
}

/// `only`: what is left of the algorithms of that version.
fn gnutls(daemon: &Daemon, mode: &str, version: &str, only: &str) -> Command {
    let mut command = gnutls_cli();
    command.args(["--insecure", "--port", &daemon.smtp(mode).port().to_string()]);
    command.args(["--priority", &format!("NORMAL:-VERS-ALL:+VERS-TLS{version}{only}")]);
    if mode == "starttls" {
        command.arg("--starttls-proto=smtp");
    }
    command.arg("127.0.0.1");
    command
}

/// So many handshakes of each version, and no others.
fn assert_both_versions(report: &Value, each: u64) {
    let by_version = &report["handshakes"]["by_version"];
    let expected = serde_json::json!({ "TLS 1.2": each, "TLS 1.3": each });
    assert_eq!(*by_version, expected, "{report:#}");
}
