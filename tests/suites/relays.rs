//! Postfix and Exim, from which much of the world's mail comes, relaying to the real binary.

use ingress_tests::daemon::{Daemon, ONE_DOMAIN, Site};
use ingress_tests::exim::Exim;
use ingress_tests::maildir::text_of;
use ingress_tests::postfix::Postfix;
use ingress_tests::texts::{stop, text_of_size};

const SENDER: &str = "sender@example.org";
const USER: &str = "user@example.net";

/// Complete, so that a relay has nothing to add but its own `Received:`.
const HEAD: &str = "From: <sender@example.org>\r\nTo: <user@example.net>\r\nSubject: relayed\r\n\
                    Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-Id: <1@client.test>\r\n\r\n";

/// How the field begins that each adds.
const POSTFIX: &str = "Received: by relay.test (Postfix, from userid 0)\r\n\tid ";
const EXIM: &str = "Received: from root by relay.test with local (Exim ";

/// What Postfix logs for each recipient of a message that was taken.
const SENT: &str = "status=sent (250 2.0.0 Ok: queued as ";

#[test]
fn postfix_in_clear() {
    postfix_with("smtp_tls_security_level = none", "ESMTP");
}

#[test]
fn postfix_with_tls() {
    postfix_with("smtp_tls_security_level = encrypt", "ESMTPS");
}

#[test]
fn a_message_from_postfix_keeps_all_its_recipients() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let mut postfix = Postfix::start(daemon.smtp("starttls"), &[]);
    let text = [HEAD, "text\r\n"].concat();
    let recipients = ["one@example.net", "two@example.net", "three@example.org"];
    postfix.submit(&[], SENDER, &recipients, text.as_bytes());
    for _ in recipients {
        postfix.wait_for_log(SENT);
    }
    let messages = delivered(&site, daemon);
    assert_eq!(messages.len(), 1);
    assert_relayed(&messages[0], &recipients, "ESMTP", POSTFIX, text.as_bytes());
}

#[test]
fn postfix_returns_what_is_refused_and_delivers_to_the_others() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = site.start().unwrap();
    let mut postfix = Postfix::start(daemon.smtp("starttls"), &[]);
    let text = [HEAD, "text\r\n"].concat();
    let recipients = ["one@elsewhere.example", USER, "two@elsewhere.example"];
    postfix.submit(&[], SENDER, &recipients, text.as_bytes());
    let statuses: Vec<String> = recipients.map(|_| postfix.wait_for_log("status=")).into();
    let refused = |line: &&String| line.contains("dsn=5.7.1, status=bounced");
    assert_eq!(statuses.iter().filter(refused).count(), 2, "{statuses:#?}");
    let messages = delivered(&site, daemon);
    assert_eq!(messages.len(), 1);
    assert_relayed(&messages[0], &[USER], "ESMTP", POSTFIX, text.as_bytes());
}

#[test]
fn postfix_passes_dsn_parameters_on_where_the_target_keeps_them() {
    let site = Site::with_config(&format!("{ONE_DOMAIN}extensions = [\"dsn\"]\n")).unwrap();
    let daemon = site.start().unwrap();
    let mut postfix = Postfix::start(daemon.smtp("starttls"), &[]);
    let flags = ["-N", "success,delay", "-V", "id+1", "-R", "hdrs"];
    postfix.submit(&flags, SENDER, &[USER], [HEAD, "text\r\n"].concat().as_bytes());
    postfix.wait_for_log(SENT);
    let messages = delivered(&site, daemon);
    let message = String::from_utf8_lossy(&messages[0]).into_owned();
    let head = "Return-Path: <sender@example.org>\r\nX-Ingress-Mail: RET=HDRS ENVID=id+2B1\r\n\
                Delivered-To: user@example.net\r\n\
                X-Ingress-Rcpt: NOTIFY=SUCCESS,DELAY ORCPT=rfc822;user@example.net\r\nReceived: ";
    assert!(message.starts_with(head), "{message}");
}

#[test]
fn postfix_answers_for_success_itself_where_the_target_keeps_no_dsn() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = site.start().unwrap();
    let mut postfix = Postfix::start(daemon.smtp("starttls"), &[]);
    let text = [HEAD, "text\r\n"].concat();
    postfix.submit(&["-N", "success"], SENDER, &[USER], text.as_bytes());
    postfix.wait_for_log(SENT);
    // RFC 3461 5.2.2: who hands on to a server without DSN says that it was relayed.
    postfix.wait_for_log("sender delivery status notification");
    let messages = delivered(&site, daemon);
    assert_relayed(&messages[0], &[USER], "ESMTP", POSTFIX, text.as_bytes());
}

#[test]
fn postfix_sends_utf8_addresses() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = site.start().unwrap();
    let mut postfix = Postfix::start(daemon.smtp("starttls"), &["smtputf8_enable = yes"]);
    let text = "From: <j\u{fc}rgen@example.org>\r\nSubject: gr\u{fc}\u{df}e\r\n\r\ntext\r\n";
    postfix.submit(&[], "j\u{fc}rgen@example.org", &["m\u{fc}ller@example.net"], text.as_bytes());
    postfix.wait_for_log(SENT);
    let messages = delivered(&site, daemon);
    let message = String::from_utf8(messages[0].clone()).unwrap();
    let head =
        "Return-Path: <j\u{fc}rgen@example.org>\r\nDelivered-To: m\u{fc}ller@example.net\r\n";
    assert!(message.starts_with(head), "{message}");
    assert!(message.contains(" with UTF8SMTP id "), "{message}");
    assert!(message.ends_with("text\r\n") && message.contains("Subject: gr\u{fc}\u{df}e"));
}

#[test]
fn exim_sends_a_short_message_in_one_chunk() {
    let text = [HEAD, ".dot\r\n\r\n.\r\n\u{e9}\r\n"].concat();
    let said = exim_with("hosts_avoid_tls = *", text.as_bytes(), "ESMTP");
    assert_eq!(chunks(&said), 1, "{said}");
}

#[test]
fn exim_sends_a_long_message_in_several_chunks() {
    let text = [HEAD.as_bytes(), &text_of_size(1 << 20)].concat();
    let said = exim_with("hosts_require_tls = *", &text, "ESMTPS");
    assert!(chunks(&said) > 1, "{said}");
}

fn postfix_with(tls: &str, protocol: &str) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let mut postfix = Postfix::start(daemon.smtp("starttls"), &[tls]);
    let bodies = [b".\r\n..\r\n\r\n.dot\r\n".to_vec(), text_of_size(1 << 20)];
    let texts = bodies.map(|body| [HEAD.as_bytes(), &body].concat());
    for text in &texts {
        postfix.submit(&[], SENDER, &[USER], text);
        // One after the other, so that they arrive in this order.
        postfix.wait_for_log(SENT);
    }
    let messages = delivered(&site, daemon);
    assert_eq!(messages.len(), texts.len());
    for (message, text) in messages.iter().zip(&texts) {
        assert_relayed(message, &[USER], protocol, POSTFIX, text);
    }
}

/// Gives back what Exim says of the dialogue.
fn exim_with(tls: &str, text: &[u8], protocol: &str) -> String {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let exim = Exim::new(daemon.smtp("starttls"), &[tls]);
    let recipients = [USER, "other@example.net"];
    let said = exim.send(SENDER, &recipients, text);
    // K stands for CHUNKING.
    let log = exim.log();
    assert_eq!(log.matches(" K C=\"250 2.0.0 Ok: queued as ").count(), 2, "{log}\n{said}");
    let messages = delivered(&site, daemon);
    assert_eq!(messages.len(), 1);
    assert_relayed(&messages[0], &recipients, protocol, EXIM, text);
    said
}

/// The number of BDAT commands in what Exim says of a dialogue.
fn chunks(said: &str) -> usize {
    said.matches("SMTP+> BDAT ").count()
}

fn delivered(site: &Site, daemon: Daemon) -> Vec<Vec<u8>> {
    daemon.wait_until_delivered();
    stop(daemon);
    site.maildir().messages().unwrap()
}

/// The message is our lines, then one field that begins with `added`, then `text` octet by octet.
fn assert_relayed(message: &[u8], to: &[&str], protocol: &str, added: &str, text: &[u8]) {
    let recipients: String = to.iter().map(|to| format!("Delivered-To: {to}\r\n")).collect();
    let ours = format!(
        "Return-Path: <{SENDER}>\r\n{recipients}Received: from relay.test ([127.0.0.1])\r\n\
         \tby mx.test with {protocol} id "
    );
    let head = message[..message.len().min(1000)].escape_ascii().to_string();
    assert!(message.starts_with(ours.as_bytes()), "{head}");
    let theirs = text_of(message).strip_suffix(text).unwrap_or_else(|| panic!("differs: {head}"));
    assert!(theirs.starts_with(added.as_bytes()), "{head}");
    let is_folded = |line: &[u8]| line.starts_with(b"\t") || line.is_empty();
    assert!(theirs.split(|&octet| octet == b'\n').skip(1).all(is_folded), "{head}");
}
