//! Handshakes that end at every stage: how far it got, how it ended and what that is called are told, and STARTTLS goes on
//! being offered, because nobody who cuts connections is to gain a try in clear by it. Mail in clear comes in all the same.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::handshakes::{REPORT_TIMEOUT, explained, failure, withheld};
use ingress_tests::programs::{client_hello, python, script};
use ingress_tests::sockets::wait_until_read;
use ingress_tests::wait::wait_for;
use rustix::net::sockopt::set_socket_linger;

/// Where a client stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    BeforeHello,
    InHello,
    /// At once after the hello, so that the daemon's answer finds nobody.
    AfterHello,
    /// The client has the beginning of the daemon's answer.
    AfterFlight,
}

/// What it does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    Reset,
    Silence,
}

#[test]
fn a_close_before_the_hello() {
    ends(Stage::BeforeHello, End::Close, "Nothing ClosedByClient closed_before_hello");
}

#[test]
fn a_reset_before_the_hello() {
    ends(Stage::BeforeHello, End::Reset, "Nothing ClosedByClient closed_before_hello");
}

#[test]
fn silence_before_the_hello() {
    ends(Stage::BeforeHello, End::Silence, "Nothing TimedOut no_hello");
}

#[test]
fn a_close_in_the_middle_of_the_hello() {
    ends(Stage::InHello, End::Close, "HelloReceived ClosedByClient incomplete_hello");
}

#[test]
fn a_reset_in_the_middle_of_the_hello() {
    ends(Stage::InHello, End::Reset, "HelloReceived ClosedByClient incomplete_hello");
}

#[test]
fn silence_in_the_middle_of_the_hello() {
    ends(Stage::InHello, End::Silence, "HelloReceived TimedOut incomplete_hello");
}

#[test]
fn a_close_right_after_the_hello() {
    ends(Stage::AfterHello, End::Close, "FlightSent ClosedByClient closed_after_flight");
}

#[test]
fn a_reset_right_after_the_hello() {
    ends(Stage::AfterHello, End::Reset, "FlightSent ClosedByClient closed_after_flight");
}

#[test]
fn a_close_after_our_flight() {
    ends(Stage::AfterFlight, End::Close, "FlightSent ClosedByClient closed_after_flight");
}

#[test]
fn a_reset_after_our_flight() {
    ends(Stage::AfterFlight, End::Reset, "FlightSent ClosedByClient closed_after_flight");
}

#[test]
fn silence_after_our_flight() {
    ends(Stage::AfterFlight, End::Silence, "FlightSent TimedOut timed_out_after_flight");
}

#[test]
fn a_close_after_the_handshake() {
    ends_when_finished("close", "Finished ClosedByClient broke_after_finish");
}

#[test]
fn a_reset_after_the_handshake() {
    ends_when_finished("reset", "Finished ClosedByClient broke_after_finish");
}

#[test]
fn silence_after_the_handshake() {
    ends_when_finished("silence", "Finished TimedOut broke_after_finish");
}

#[test]
fn where_tls_comes_first_the_stages_are_the_same() {
    for (octets, verdict) in [(0, "closed_before_hello"), (100, "incomplete_hello")] {
        let site = site();
        let daemon = site.start().unwrap();
        let mut client = Client::connect(daemon.smtp("implicit"));
        client.send(&client_hello().unwrap()[..octets]);
        wait_until_read(client.stream());
        drop(client);
        let failure = failure(&site);
        assert_eq!(failure["verdict"], verdict, "{failure:#}");
        assert_eq!(failure["helo"], serde_json::Value::Null, "{failure:#}");
        comes_in_clear(&site, daemon, &format!("verdict=\"{verdict}\""));
    }
}

#[test]
fn garbage_instead_of_a_hello_brings_the_next_try_in_clear() {
    let site = site();
    let daemon = site.start().unwrap();
    let mut client = after_starttls(&daemon);
    client.send([0x99; 64]);
    client.read_to_close();
    let failure = failure(&site);
    assert_eq!(failure["verdict"], "not_tls", "{failure:#}");
    wait_for("clear retry", REPORT_TIMEOUT, || !daemon.offers_starttls());
    assert_eq!(withheld(&site), ["127.0.0.1/32"]);
    arrives(&site, daemon, "stage=HelloReceived ending=WeRefused verdict=\"not_tls\"");
}

#[test]
fn a_client_that_broke_off_after_the_handshake_has_not_come_over_tls_since() {
    let site = site();
    let daemon = site.start().unwrap();
    finish(&daemon, "close");
    let failure = failure(&site);
    assert_eq!(failure["afterwards"], "not yet", "{failure:#}");
}

/// Waits for no client long.
fn site() -> Site {
    Site::new("[limits]\ntls_handshake_timeout = \"1s\"\nidle_timeout = \"2s\"\n").unwrap()
}

fn after_starttls(daemon: &Daemon) -> Client {
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.command("STARTTLS", "220");
    client
}

/// `expected`: stage, ending and verdict by their names.
fn ends(stage: Stage, end: End, expected: &str) {
    let site = site();
    let daemon = site.start().unwrap();
    let client = reach(stage, &daemon);
    match end {
        End::Close => drop(client),
        End::Reset => {
            set_socket_linger(client.stream(), Some(Duration::ZERO)).unwrap();
            drop(client);
        }
        End::Silence => {
            let mut client = client;
            client.read_to_close();
        }
    }
    is_told(&site, daemon, expected);
}

fn reach(stage: Stage, daemon: &Daemon) -> Client {
    let mut client = after_starttls(daemon);
    let hello = client_hello().unwrap();
    match stage {
        Stage::BeforeHello => {}
        Stage::InHello => client.send(&hello[..hello.len() / 2]),
        Stage::AfterHello | Stage::AfterFlight => client.send(&hello),
    }
    if stage != Stage::AfterHello {
        wait_until_read(client.stream());
    }
    if stage == Stage::AfterFlight {
        client.stream().read_exact(&mut [0; 100]).unwrap();
    }
    client
}

/// As [`ends`], under TLS that a real client brought about.
fn ends_when_finished(end: &str, expected: &str) {
    let site = site();
    let daemon = site.start().unwrap();
    finish(&daemon, end);
    // The handshake was through, and yet it is known who it was and what was offered.
    let failure = failure(&site);
    assert_eq!(failure["helo"], "client.test", "{failure:#}");
    for offered in ["versions", "suites", "groups", "signature_schemes"] {
        let names = failure["offered"][offered].as_array();
        assert!(names.is_some_and(|names| !names.is_empty()), "{offered}: {failure:#}");
    }
    is_told(&site, daemon, expected);
}

fn finish(daemon: &Daemon, end: &str) {
    let mut command: Command = python();
    command.arg(script("ssl/upgrade.py")).arg(end);
    command.stdin(OwnedFd::from(after_starttls(daemon).into_stream()));
    let mut child = command.spawn().unwrap();
    // It has our end of the connection, which the client must be the last to close.
    drop(command);
    assert!(child.wait().unwrap().success());
}

fn is_told(site: &Site, daemon: Daemon, expected: &str) {
    let [stage, ending, verdict] = *expected.split(' ').collect::<Vec<_>>() else {
        panic!("{expected}");
    };
    let failure = failure(site);
    assert_eq!(failure["verdict"], verdict, "{failure:#}");
    // RFC 3207 4.2: under TLS the name from before is forgotten.
    if stage != "Finished" {
        assert_eq!(failure["helo"], "client.test", "{failure:#}");
    }
    let line = format!("stage={stage} ending={ending} verdict=\"{verdict}\"");
    comes_in_clear(site, daemon, &line);
}

/// STARTTLS goes on being offered, and who does not take it is served. `line` is in the one line of log on TLS.
fn comes_in_clear(site: &Site, daemon: Daemon, line: &str) {
    assert!(withheld(site).is_empty());
    assert!(daemon.offers_starttls());
    arrives(site, daemon, line);
}

fn arrives(site: &Site, daemon: Daemon, line: &str) {
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.message(b"text\r\n");
    client.quit();
    daemon.wait_until_delivered();
    assert_eq!(site.maildir().texts().unwrap(), [b"text\r\n"]);
    let ended = daemon.stop().unwrap();
    let lines = explained(&ended.stderr);
    assert!(lines.len() == 1 && lines[0].contains(line), "no {line} in {lines:#?}");
}
