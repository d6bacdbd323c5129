//! aiosmtpd as a relay before the real binary.

use std::net::SocketAddr;

use ingress_tests::client::{Client, stuffed};
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::process::Process;
use ingress_tests::programs::{aiosmtpd_python, script};
use ingress_tests::texts::{assert_delivered, stop, texts};

const HEAD: &[u8] = b"From: <sender@example.org>\r\nSubject: relayed\r\n";
/// What the relay adds at the end of the head: whom it had the message from.
const ADDED: &[u8] = b"X-Peer: 127.0.0.1\r\n";
/// It refuses longer lines, as RFC 5321 4.5.3.1.6 allows.
const LINE_OCTETS_MAX: usize = 1001;

#[test]
fn a_relay_passes_every_octet_on() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let mut texts = texts();
    texts.retain(|text| {
        text.split(|&octet| octet == b'\n').all(|line| line.len() < LINE_OCTETS_MAX)
    });
    let (_relay, mut client) = relay_to(&daemon);
    for text in &texts {
        send(&mut client, &["user@example.net"], &[HEAD, b"\r\n", text].concat());
    }
    client.quit();
    let expected: Vec<Vec<u8>> =
        texts.iter().map(|text| [HEAD, ADDED, b"\r\n", text].concat()).collect();
    assert_delivered(&site, daemon, &expected, "ESMTP");
}

#[test]
fn a_relayed_message_keeps_all_its_recipients() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let (_relay, mut client) = relay_to(&daemon);
    let recipients = ["one@example.net", "two@example.net", "three@example.net"];
    send(&mut client, &recipients, b"Subject: x\r\n\r\ntext\r\n");
    client.quit();
    daemon.wait_until_delivered();
    let message = &site.maildir().messages().unwrap()[0];
    let head = "Return-Path: <sender@example.org>\r\nDelivered-To: one@example.net\r\n\
                Delivered-To: two@example.net\r\nDelivered-To: three@example.net\r\nReceived: from ";
    assert!(message.starts_with(head.as_bytes()), "{}", message.escape_ascii());
    assert_eq!(site.maildir().count().unwrap(), 1);
    stop(daemon);
}

/// A relay to `daemon`, and a client of the relay.
fn relay_to(daemon: &Daemon) -> (Process, Client) {
    let mut command = aiosmtpd_python();
    command.arg(script("aiosmtpd/relay.py"));
    let mut relay = Process::start(command.arg(daemon.smtp("starttls").port().to_string()));
    let ready = relay.wait_for_line("ready ");
    let port = ready.trim_start_matches("ready ").parse().expect("a port");
    let client = Client::hello(SocketAddr::from(([127, 0, 0, 1], port)));
    (relay, client)
}

fn send(client: &mut Client, recipients: &[&str], text: &[u8]) {
    client.command("MAIL FROM:<sender@example.org>", "250");
    for recipient in recipients {
        client.command(&format!("RCPT TO:<{recipient}>"), "250");
    }
    client.command("DATA", "354");
    client.send(stuffed(text));
    client.expect("250");
}
