//! What settings make of real connections: delays, conveyed clients, sloppy ones, LMTP, and what the operator sees of it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::programs::{python, succeed};
use ingress_tests::wait::wait_for;

/// For a line of a live trace.
const TRACE_TIMEOUT: Duration = Duration::from_secs(20);

const LMTP: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"off\"\nprotocol = \"lmtp\"\n";

fn start(extra: &str) -> (Site, Daemon) {
    let site = Site::new(extra).unwrap();
    let daemon = site.start().unwrap();
    (site, daemon)
}

/// The one message that was delivered, with our own lines.
fn delivered(site: &Site, daemon: &Daemon) -> String {
    daemon.wait_until_delivered();
    let messages = site.maildir().messages().unwrap();
    assert_eq!(messages.len(), 1);
    String::from_utf8(messages[0].clone()).unwrap()
}

#[test]
fn who_talks_before_the_greeting_is_turned_away_and_who_waits_is_served() {
    let (_site, daemon) = start("[limits]\ngreet_delay = \"1s\"\n");
    let mut patient = Client::connect(daemon.smtp("starttls"));
    let mut early = Client::connect(daemon.smtp("starttls"));
    early.send("EHLO client.test\r\n");
    early.expect("554 5.5.1");
    early.expect_close();
    patient.expect("220 ");
    patient.command("EHLO client.test", "250");
    patient.message(b"text\r\n");
    patient.quit();
    assert_eq!(daemon.count("/sessions/closed/early_talker").unwrap(), 1);
}

#[test]
fn an_undelayed_network_is_greeted_at_once() {
    // The delay is longer than a client waits for a reply here.
    let (_site, daemon) =
        start("[limits]\ngreet_delay = \"60s\"\n[networks]\nundelayed = [\"127.0.0.0/8\"]\n");
    Client::hello(daemon.smtp("starttls")).quit();
}

#[test]
fn late_answers_to_errors_hold_up_nobody_else() {
    let limits = "[limits]\nerrors_undelayed_max = 1\nerror_delay = \"2s\"\nerrors_max = 3\n";
    let (_site, daemon) = start(limits);
    let mut slow = Client::hello(daemon.smtp("starttls"));
    slow.command("FOO", "500 5.5.1");
    slow.send("BAR\r\nNOOP\r\nBAZ\r\n");
    let mut other = Client::hello(daemon.smtp("starttls"));
    other.message(b"text\r\n");
    other.quit();
    assert_eq!(daemon.count("/connections/open").unwrap(), 1, "the delay is not over yet");
    slow.expect("500 5.5.1");
    slow.expect("250 2.0.0");
    slow.expect("500 5.5.1");
    slow.expect("421 4.7.0");
    slow.expect_close();
    assert_eq!(daemon.count("/sessions/closed/too_many_errors").unwrap(), 1);
}

#[test]
fn limits_and_the_trace_line_are_those_of_the_client_that_a_proxy_header_names() {
    let (site, daemon) = start(
        "[networks]\nproxy_protocol = [\"127.0.0.1\"]\n[limits]\nconnections_per_client_max = 1\n",
    );
    let conveyed = |client: &str| {
        let mut connection = Client::connect(daemon.smtp("starttls"));
        connection.send(format!("PROXY TCP4 {client} 192.0.2.25 40000 25\r\n"));
        connection
    };
    let mut first = conveyed("192.0.2.7");
    first.expect("220 ");
    let mut second = conveyed("192.0.2.7");
    second.expect("421 4.7.0");
    second.expect_close();
    drop(second);
    let mut other = conveyed("192.0.2.8");
    other.expect("220 ");
    other.quit();
    // A health check of the balancer itself is no client's connection.
    let mut local = Client::connect(daemon.smtp("starttls"));
    local.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    local.expect("220 ");
    local.quit();

    first.command("EHLO client.test", "250");
    first.message(b"text\r\n");
    first.quit();
    let message = delivered(&site, &daemon);
    assert!(message.contains("Received: from client.test ([192.0.2.7])\r\n"), "{message}");
    conveyed("192.0.2.7").expect("220 ");
    wait_for("all places given back", TRACE_TIMEOUT, || {
        daemon.count("/connections/open").unwrap() == 0
    });
}

#[test]
fn without_a_valid_proxy_header_a_balancer_is_not_served() {
    let (_site, daemon) = start(
        "[networks]\nproxy_protocol = [\"127.0.0.1\"]\n[limits]\nproxy_header_timeout = \"1s\"\n",
    );
    let mut silent = Client::connect(daemon.smtp("starttls"));
    let mut wrong = Client::connect(daemon.smtp("starttls"));
    wrong.send("EHLO client.test\r\n");
    for client in [&mut wrong, &mut silent] {
        client.expect("421 4.3.2");
        client.expect_close();
    }
    assert_eq!(daemon.count("/sessions/closed/no_proxy_header").unwrap(), 2);
}

/// Python's TLS client, behind a header as a balancer in TCP mode sends it.
#[test]
fn tls_from_the_first_octet_begins_behind_the_proxy_header() {
    let (site, daemon) = start("[networks]\nproxy_protocol = [\"127.0.0.1\"]\n");
    let script = r#"
import smtplib, socket, ssl, sys
class Behind(smtplib.SMTP):
    def _get_socket(self, host, port, timeout):
        raw = socket.create_connection((host, port), timeout)
        raw.sendall(b"PROXY TCP6 2001:db8::7 2001:db8::25 40000 465\r\n")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(raw)
server = Behind("127.0.0.1", int(sys.argv[1]), timeout=20)
server.sendmail("a@example.org", ["b@example.net"], "Subject: x\r\n\r\ntext\r\n")
server.quit()
"#;
    let port = daemon.smtp("implicit").port().to_string();
    succeed(python().args(["-c", script, &port]));
    let message = delivered(&site, &daemon);
    assert!(message.contains(" ([IPv6:2001:db8::7])\r\n"), "{message}");
    assert!(message.contains(" with ESMTPS id "), "{message}");
}

#[test]
fn the_client_that_xclient_names_is_the_one_in_the_trace_line() {
    let (site, daemon) = start("[networks]\nxclient = [\"127.0.0.1\"]\n");
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.command("XCLIENT ADDR=192.0.2.9 NAME=mail.example.org", "220 ");
    client.command("EHLO other.test", "250");
    client.message(b"text\r\n");
    client.quit();
    let message = delivered(&site, &daemon);
    let from = "Received: from other.test (mail.example.org [192.0.2.9])\r\n";
    assert!(message.contains(from), "{message}");
}

#[test]
fn a_sloppy_clients_lines_are_mended_and_a_strange_ones_refused() {
    let (site, daemon) = start("[networks]\nnormalize = [\"127.0.0.1\"]\n");
    let mut client = Client::connect(daemon.smtp("starttls"));
    client.expect("220 ");
    client.send("EHLO client.test\n");
    client.expect("250");
    client.envelope();
    client.command("DATA", "354");
    client.send("Subject: x\n\n.\nMAIL FROM:<smuggled@example.org>\r\r\na\0b\r\n.\r\n");
    client.expect("250 2.0.0");
    client.quit();
    let message = delivered(&site, &daemon);
    let text = "Subject: x\r\n\r\n\r\nMAIL FROM:<smuggled@example.org>\r\nab\r\n";
    assert!(message.ends_with(text), "{message:?}");

    let (_site, daemon) = start("");
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.envelope();
    client.command("DATA", "354");
    client.send("a\0b\r\n.\r\n");
    client.expect("554 5.5.2 NUL");
    client.expect_close();
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let (site, daemon) = start(LMTP);
    let mut client = Client::connect(daemon.lmtp());
    client.expect("220 ");
    client.command("EHLO client.test", "500 5.5.1");
    client.command("LHLO client.test", "250");
    client.envelope();
    client.command("RCPT TO:<other@example.net>", "250 2.1.5");
    client.command("DATA", "354");
    client.send("text\r\n.\r\n");
    client.expect("250 2.0.0");
    client.expect("250 2.0.0");
    client.quit();
    let message = delivered(&site, &daemon);
    assert!(message.contains(" with LMTP id "), "{message}");
}

#[test]
fn dsn_parameters_reach_a_target_that_keeps_them() {
    let (_site, daemon) = start("");
    let mut client = Client::connect(daemon.smtp("starttls"));
    client.expect("220 ");
    let extensions = client.command("EHLO client.test", "250");
    assert!(!extensions.contains("DSN"), "a Maildir alone sends no reports: {extensions}");
    drop((client, daemon));

    let config = "hostname = \"mx.test\"\nstate_dir = \"state\"\n\
        [[listener]]\naddress = \"127.0.0.1:0\"\n[recipients]\ndomains = [\"*\"]\n\
        [delivery]\nkind = \"maildir\"\npath = \"maildir\"\nextensions = [\"dsn\"]\n";
    let site = Site::with_config(config).unwrap();
    let daemon = site.start().unwrap();
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.command("MAIL FROM:<sender@example.org> RET=HDRS ENVID=QQ+2B1", "250");
    let rcpt = "RCPT TO:<user@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old@example.net";
    client.command(rcpt, "250");
    client.command("RCPT TO:<other@example.net>", "250");
    client.data(b"text\r\n");
    client.quit();
    let message = delivered(&site, &daemon);
    let head = "Return-Path: <sender@example.org>\r\nX-Ingress-Mail: RET=HDRS ENVID=QQ+2B1\r\n\
        Delivered-To: user@example.net\r\n\
        X-Ingress-Rcpt: NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old@example.net\r\n\
        Delivered-To: other@example.net\r\nReceived: ";
    assert!(message.starts_with(head), "{message}");
}

#[test]
fn a_session_that_ends_in_error_is_logged_with_what_was_said_and_no_content() {
    let (_site, daemon) = start("[limits]\nerrors_max = 2\n");
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.message(b"Subject: secret\r\n\r\nprivate words\r\n");
    client.command("AUTH PLAIN c2VjcmV0", "502");
    client.command("private words", "500");
    client.expect("421 4.7.0");
    client.expect_close();
    drop(client);
    // Ends the log.
    let stderr = daemon.stop().unwrap().stderr;
    let line = stderr.lines().find(|line| line.contains("session ended in error"));
    let line = line.unwrap_or_else(|| panic!("{stderr}"));
    for part in ["127.0.0.1", "too_many_errors", "C: RCPT TO:<user@example.net>", "S: 421 4.7.0"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    for secret in ["secret", "private", "c2Vj"] {
        assert!(!stderr.contains(secret), "{stderr}");
    }
}

#[test]
fn a_live_trace_shows_the_sessions_of_the_network_asked_for() {
    let (_site, daemon) = start("[networks]\nxclient = [\"127.0.0.1\"]\n");
    let trace = Trace::start(&daemon, "192.0.2.0/24");
    let mut other = Client::hello(daemon.smtp("starttls"));
    other.envelope();
    // The trace is on once a session of its network shows in it.
    let mut probes = Vec::new();
    wait_for("first line of the trace", TRACE_TIMEOUT, || {
        let mut probe = Client::hello(daemon.smtp("starttls"));
        probe.command("XCLIENT ADDR=192.0.2.9", "220 ");
        probes.push(probe);
        trace.next(Duration::from_millis(200)).is_some()
    });
    let mut client = probes.pop().unwrap();
    client.command("EHLO traced.test", "250");
    client.message(b"Subject: secret\r\n\r\ntext\r\n");
    let mut seen = String::new();
    while !seen.contains("S: 250 2.0.0 Ok: queued") {
        seen += &trace.next(TRACE_TIMEOUT).unwrap_or_else(|| panic!("no more lines after {seen}"));
        seen.push('\n');
    }
    for part in ["192.0.2.9 #", "C: EHLO traced.test", "C: DATA", "* message of 25 octets"] {
        assert!(seen.contains(part), "no {part} in {seen}");
    }
    assert!(!seen.contains("127.0.0.1") && !seen.contains("secret"), "{seen}");
}

#[test]
fn a_network_that_is_none_is_said_so() {
    let output =
        Command::new(ingress_tests::bin()).args(["trace", "example.net"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("not an address, and not a network"), "{stderr}");
}

/// `ingress trace`, ended when dropped.
struct Trace {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Trace {
    fn start(daemon: &Daemon, network: &str) -> Self {
        let mut command = Command::new(ingress_tests::bin());
        command.args(["trace", network, "--socket"]).arg(&daemon.ready().control);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // Ends with the process, or when the test wants no more.
            let _ended = lines.map(|line| sender.send(line)).find(Result::is_err);
        });
        Self { child, lines }
    }

    fn next(&self, timeout: Duration) -> Option<String> {
        self.lines.recv_timeout(timeout).ok()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
