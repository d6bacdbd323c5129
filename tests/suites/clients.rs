//! Real clients against the real binary: every message comes back octet by octet, below the lines that we add.

use std::collections::HashSet;
use std::io::Write;
use std::thread;

use ingress_tests::client::{Client, stuffed};
use ingress_tests::daemon::Site;
use ingress_tests::programs::{openssl, python, script, smtp_source, succeed, swaks};
use ingress_tests::texts::{assert_delivered, stop, texts, write_files};
use ingress_tests::tunnel::Tunnel;

#[test]
fn two_thousand_messages_from_twenty_senders_at_once() {
    smtp_source_with(&[]);
}

#[test]
fn two_thousand_messages_over_connections_that_stay_open() {
    smtp_source_with(&["-d"]);
}

#[test]
fn smtplib_in_clear() {
    smtplib_with("clear", "starttls", "ESMTP");
}

#[test]
fn smtplib_with_starttls() {
    smtplib_with("starttls", "starttls", "ESMTPS");
}

#[test]
fn smtplib_with_implicit_tls() {
    smtplib_with("implicit", "implicit", "ESMTPS");
}

#[test]
fn swaks_in_clear() {
    swaks_with(&[], "starttls", "ESMTP");
}

#[test]
fn swaks_with_starttls() {
    swaks_with(&["-tls"], "starttls", "ESMTPS");
}

#[test]
fn swaks_with_tls_on_connect() {
    swaks_with(&["-tlsc"], "implicit", "ESMTPS");
}

#[test]
fn swaks_with_xclient() {
    let told = ["--xclient-addr", "192.0.2.9", "--xclient-name", "mail.example.org"];
    let other =
        ["--xclient-delim", "--xclient-helo", "helo.example.org", "--xclient-proto", "SMTP"];
    let arguments = [told.as_slice(), &other].concat();
    conveyed_by_swaks("xclient", &arguments, "from swaks.test (mail.example.org [192.0.2.9])");
}

#[test]
fn swaks_with_xclient_for_ipv6_before_starttls() {
    let told = ["--xclient-addr", "IPV6:2001:db8::9", "--xclient-before-starttls", "-tls"];
    conveyed_by_swaks("xclient", &told, "from swaks.test ([IPv6:2001:db8::9])");
}

#[test]
fn swaks_behind_a_proxy_header_of_version_1() {
    let header = proxy_header("1", "TCP4", ["192.0.2.7", "192.0.2.25"]);
    conveyed_by_swaks("proxy_protocol", &header, "from swaks.test ([192.0.2.7])");
}

#[test]
fn swaks_behind_a_proxy_header_of_version_2() {
    let header = proxy_header("2", "AF_INET6", ["2001:db8::7", "2001:db8::25"]);
    conveyed_by_swaks("proxy_protocol", &header, "from swaks.test ([IPv6:2001:db8::7])");
}

#[test]
fn openssl_with_tls_1_2() {
    openssl_with("-tls1_2");
}

#[test]
fn openssl_with_tls_1_3() {
    openssl_with("-tls1_3");
}

#[test]
fn many_transactions_in_one_write() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let texts = texts();
    let mut wire = Vec::new();
    for text in &texts {
        wire.extend_from_slice(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n");
        wire.extend_from_slice(&stuffed(text));
    }
    wire.extend_from_slice(b"QUIT\r\n");
    let mut client = Client::hello(daemon.smtp("starttls"));
    let mut socket = client.stream().try_clone().unwrap();
    // From another thread: the write ends only when the daemon has taken almost all, and it waits for each commit.
    let writer = thread::spawn(move || socket.write_all(&wire));
    for _ in &texts {
        for reply in ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"] {
            client.expect(reply);
        }
    }
    client.expect("221");
    client.expect_close();
    writer.join().unwrap().unwrap();
    assert_delivered(&site, daemon, &texts, "ESMTP");
}

#[test]
fn messages_in_chunks_of_any_size() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let mut texts = texts();
    // What no DATA may carry, nor text in chunks.
    texts.push((0..=u8::MAX).rev().collect());
    let mut client = Client::hello(daemon.smtp("starttls"));
    for (text, size) in texts.iter().zip([1_000_000, 7, 65_536, 4_095].into_iter().cycle()) {
        client.command("MAIL FROM:<sender@example.org> BODY=BINARYMIME", "250 2.1.0");
        client.command("RCPT TO:<user@example.net>", "250 2.1.5");
        // Empty chunks are legal, and the last one may be empty.
        for chunk in text.chunks(size.max(text.len() / 500)) {
            // In one write: two small ones would wait for each other's acknowledgement.
            client.send([format!("BDAT {}\r\n", chunk.len()).as_bytes(), chunk].concat());
            client.expect("250 2.0.0");
        }
        client.command("BDAT 0", "250 2.0.0");
        client.command("BDAT 0 LAST", "250 2.0.0 Ok: queued");
    }
    client.quit();
    assert_delivered(&site, daemon, &texts, "ESMTP");
}

fn proxy_header<'a>(
    version: &'a str,
    family: &'a str,
    [source, destination]: [&'a str; 2],
) -> [&'a str; 12] {
    [
        "--proxy-version",
        version,
        "--proxy-family",
        family,
        "--proxy-source",
        source,
        "--proxy-source-port",
        "40000",
        "--proxy-dest",
        destination,
        "--proxy-dest-port",
        "25",
    ]
}

/// One message whose client is another than 127.0.0.1, which `network` lists.
fn conveyed_by_swaks(network: &str, arguments: &[&str], from: &str) {
    let site = Site::new(&format!("[networks]\n{network} = [\"127.0.0.1\"]\n")).unwrap();
    let daemon = site.start().unwrap();
    let address = daemon.smtp("starttls").to_string();
    let mut command = swaks();
    command.args(["--server", &address, "--helo", "swaks.test"]);
    command.args(["--from", "sender@example.org", "--to", "user@example.net"]);
    succeed(command.args(arguments));
    daemon.wait_until_delivered();
    let messages = site.maildir().messages().unwrap();
    assert_eq!(messages.len(), 1);
    let message = String::from_utf8_lossy(&messages[0]).into_owned();
    assert!(message.contains(&format!("Received: {from}\r\n")), "{message}");
    stop(daemon);
}

/// `smtp-source` says itself when a reply is not what it wants, by its exit status.
fn smtp_source_with(arguments: &[&str]) {
    const MESSAGES: usize = 2000;
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let address = daemon.smtp("starttls").to_string();
    let mut command = smtp_source();
    command.args(["-s", "20", "-m", &MESSAGES.to_string(), "-l", "1024"]).args(arguments);
    succeed(command.args(["-f", "sender@example.org", "-t", "user@example.net", &address]));
    daemon.wait_until_delivered();
    assert_eq!(daemon.count("/messages/accepted").unwrap(), MESSAGES as u64);
    let ids: HashSet<Vec<u8>> =
        site.maildir().texts().unwrap().iter().map(|text| smtp_source_id(text)).collect();
    assert_eq!(ids.len(), MESSAGES);
    assert_eq!(site.maildir().count().unwrap(), MESSAGES);
    stop(daemon);
}

/// Compares with what smtp-source makes of `-l 1024`: lines of 80 octets that begin with their number's last digit. Gives
/// back the Message-Id, the only part that is different in each.
fn smtp_source_id(text: &[u8]) -> Vec<u8> {
    let blank = text.windows(4).position(|octets| octets == b"\r\n\r\n").expect("a head");
    let (head, body) = text.split_at(blank + 4);
    let mut expected = vec![b'X'; 1024];
    for (number, line) in expected.chunks_exact_mut(80).enumerate() {
        line[0] = b'0' + (number as u8 + 1) % 10;
        line[78..].copy_from_slice(b"\r\n");
    }
    expected.extend_from_slice(b"\r\n");
    assert!(body == expected, "{}", body.escape_ascii());
    let fields: Vec<&[u8]> = head.split(|&octet| octet == b'\n').collect();
    assert_eq!(fields[0], b"From: <sender@example.org>\r");
    assert_eq!(fields[1], b"To: <user@example.net>\r");
    assert!(fields[2].starts_with(b"Date: "), "{}", head.escape_ascii());
    assert!(fields[3].starts_with(b"Message-Id: "), "{}", head.escape_ascii());
    fields[3].to_vec()
}

fn smtplib_with(tls: &str, listener: &str, protocol: &str) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let texts = texts();
    let mut command = python();
    command.arg(script("smtplib/send.py")).args([tls, &daemon.smtp(listener).port().to_string()]);
    succeed(command.args(write_files(&site, &texts, <[u8]>::to_vec)));
    assert_delivered(&site, daemon, &texts, protocol);
}

fn swaks_with(tls: &[&str], listener: &str, protocol: &str) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let port = daemon.smtp(listener).port().to_string();
    // It takes the file for a template and mends it, unless it is given the wire form.
    let texts = texts();
    for file in write_files(&site, &texts, stuffed) {
        let mut command = swaks();
        command.args(["--server", "127.0.0.1", "--port", &port, "--no-data-fixup"]).args(tls);
        command.args(["--from", "sender@example.org", "--to", "user@example.net", "--data"]);
        succeed(command.arg(format!("@{}", file.display())));
    }
    assert_delivered(&site, daemon, &texts, protocol);
}

fn openssl_with(version: &str) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let texts = texts();
    let mut command = openssl();
    command.args(["s_client", "-starttls", "smtp", "-quiet", version]);
    command.args(["-connect", &daemon.smtp("starttls").to_string()]);
    let mut client = Tunnel::hello(command, "starttls");
    for text in &texts {
        client.message(text);
    }
    client.quit();
    assert_delivered(&site, daemon, &texts, "ESMTPS");
}
