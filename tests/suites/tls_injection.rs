//! Commands slipped in where STARTTLS is on its way (RFC 3207 6, and what is known as NO STARTTLS): none is carried out, and
//! none is remembered under TLS.

use std::io::Read;
use std::os::fd::OwnedFd;

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::handshakes::{failure, report};
use ingress_tests::programs::{client_hello, python, script, succeed_with};
use ingress_tests::sockets::wait_until_read;
use ingress_tests::texts::stop;

const INJECTED: &str =
    "MAIL FROM:<injected@example.org>\r\nRCPT TO:<user@example.net>\r\nDATA\r\ninjected\r\n.\r\n";

#[test]
fn what_was_said_before_tls_is_forgotten_under_it() {
    let (site, daemon) = started();
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.envelope();
    client.command("STARTTLS", "220");
    let forgotten = [
        ("RCPT TO:<user@example.net>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("BDAT 0 LAST", "503 5.5.1"),
        ("MAIL FROM:<sender@example.org>", "503 5.5.1 Send EHLO"),
        ("EHLO after.test", "250"),
        ("DATA", "503 5.5.1"),
        ("STARTTLS", "503 5.5.1 TLS already active"),
        ("QUIT", "221"),
    ];
    under_tls(client, &forgotten);
    nothing_came(&site, daemon);
}

#[test]
fn a_command_in_one_segment_with_starttls_ends_the_session() {
    let (site, daemon) = started();
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.send(format!("STARTTLS\r\n{INJECTED}"));
    client.expect("554 5.5.1");
    client.expect_close();
    // It never came to a handshake.
    assert_eq!(report(&site)["handshakes"]["failed"], 0);
    assert!(daemon.offers_starttls());
    nothing_came(&site, daemon);
}

#[test]
fn a_command_whose_line_was_begun_with_starttls_ends_the_session() {
    let (site, daemon) = started();
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.send("STARTTLS\r\nMAIL FR");
    client.expect("554 5.5.1");
    let _hung_up = client.try_send("OM:<injected@example.org>\r\n");
    client.expect_close();
    nothing_came(&site, daemon);
}

#[test]
fn starttls_in_two_segments_is_one_command() {
    let (site, daemon) = started();
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.send("START");
    wait_until_read(client.stream());
    client.send("TLS\r");
    wait_until_read(client.stream());
    client.send("\n");
    client.expect("220");
    under_tls(client, &[("EHLO after.test", "250"), ("QUIT", "221")]);
    nothing_came(&site, daemon);
}

#[test]
fn a_command_in_the_next_segment_is_no_hello() {
    let (site, daemon) = started();
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.send("STARTTLS\r\n");
    wait_until_read(client.stream());
    client.send(INJECTED);
    client.expect("220");
    no_reply_in_clear(client);
    assert_eq!(failure(&site)["verdict"], "not_tls");
    nothing_came(&site, daemon);
}

#[test]
fn a_command_before_the_hello_in_one_segment_is_no_hello() {
    let (site, daemon) = started();
    let mut client = after_starttls(&daemon);
    client.send([b"NOOP\r\n".as_slice(), &client_hello().unwrap()].concat());
    no_reply_in_clear(client);
    assert_eq!(failure(&site)["verdict"], "not_tls");
    nothing_came(&site, daemon);
}

#[test]
fn a_command_in_the_middle_of_a_hello_ends_the_handshake() {
    let (site, daemon) = started();
    let mut client = after_starttls(&daemon);
    // Two records, as if someone had cut the hello between them.
    let hello = client_hello().unwrap();
    let (first, second) = hello[5..].split_at(100);
    client.send(record(22, first));
    wait_until_read(client.stream());
    client.send([INJECTED.as_bytes(), &record(22, second)].concat());
    no_reply_in_clear(client);
    assert_eq!(failure(&site)["verdict"], "malformed_hello");
    nothing_came(&site, daemon);
}

#[test]
fn a_command_after_our_flight_ends_the_handshake() {
    // In clear; as data, which TLS has not agreed on keys for; and as a message of the handshake.
    let disguises =
        [INJECTED.into(), record(23, INJECTED.as_bytes()), record(22, b"MAIL FROM:<>\r\n")];
    for injected in disguises {
        let (site, daemon) = started();
        let mut client = after_starttls(&daemon);
        client.send(client_hello().unwrap());
        client.stream().read_exact(&mut [0; 100]).unwrap();
        client.send(injected);
        no_reply_in_clear(client);
        let failure = failure(&site);
        assert_eq!(failure["verdict"], "protocol_violation", "{failure:#}");
        // Whoever slips octets in must not bring it about that mail comes in clear.
        assert!(daemon.offers_starttls());
        nothing_came(&site, daemon);
    }
}

fn started() -> (Site, Daemon) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    (site, daemon)
}

fn after_starttls(daemon: &Daemon) -> Client {
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.command("STARTTLS", "220");
    client
}

/// A record of this type (RFC 8446 5.1) in clear.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [&[kind, 3, 3], length.as_slice(), body].concat()
}

/// A real client shakes hands on this connection, and each command is answered so.
fn under_tls(client: Client, dialogue: &[(&str, &str)]) {
    let mut command = python();
    command.arg(script("ssl/upgrade.py")).arg("close");
    command.args(dialogue.iter().flat_map(|(line, reply)| [line, reply]));
    succeed_with(&mut command, OwnedFd::from(client.into_stream()));
}

/// The daemon hangs up, and answers no command before.
fn no_reply_in_clear(mut client: Client) {
    let rest = client.read_to_close();
    let has = |code: &[u8]| rest.windows(code.len()).any(|octets| octets == code);
    let codes: [&[u8]; 4] = [b"250 2.0.0", b"250 2.1.0", b"503 5.5.1", b"500 5.5.1"];
    assert!(!codes.into_iter().any(has), "{}", rest.escape_ascii());
}

/// No message was taken, and the daemon serves others.
fn nothing_came(site: &Site, daemon: Daemon) {
    assert_eq!(daemon.count("/messages/accepted").unwrap(), 0);
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.message(b"text\r\n");
    client.quit();
    daemon.wait_until_delivered();
    stop(daemon);
    assert_eq!(site.maildir().texts().unwrap(), [b"text\r\n"]);
}
