//! The `Received:` line that the accepting server must put before the message (RFC 5321 4.4).

use std::io::Write;
use std::net::IpAddr;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::envelope::Envelope;
use crate::spool::QueueId;

/// Writes the line with its folds and its final CRLF.
pub fn received(envelope: &Envelope, hostname: &str, id: QueueId, at: SystemTime) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    // Writing to a Vec cannot fail; a date that does not fit RFC 2822 (after the year 9999) is left out.
    let _ = write!(out, "Received: from {} (", envelope.helo());
    if let Some(name) = envelope.client_name() {
        let _ = write!(out, "{name} ");
    }
    let _ = match envelope.client {
        IpAddr::V4(address) => write!(out, "[{address}]"),
        IpAddr::V6(address) => write!(out, "[IPv6:{address}]"),
    };
    let with = envelope.protocol.keyword(envelope.smtputf8);
    let _ = write!(out, ")\r\n\tby {hostname} with {with} id {id}");
    // RFC 5321 4.4 and 7.2: `for` names one recipient, and only where it discloses nothing.
    if let (1, Some(only)) = (envelope.recipient_count(), envelope.recipients().next()) {
        let _ = write!(out, "\r\n\tfor <{}>", only.path);
    }
    let _ = write!(out, "; ");
    let _ = OffsetDateTime::from(at).format_into(&mut out, &Rfc2822);
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::smtp::envelope::Protocol;

    fn line_of(envelope: &Envelope) -> String {
        let at = UNIX_EPOCH + Duration::from_secs(1_795_508_201);
        String::from_utf8(received(envelope, "mx.example.net", QueueId(32), at)).unwrap()
    }

    fn envelope(recipients: &[&str], client: &str) -> Envelope {
        let client = client.parse().unwrap();
        let helo = "client.example.org";
        let mut envelope = Envelope::plain(client, helo, "sender@example.org", recipients);
        envelope.protocol = Protocol::Esmtps;
        envelope
    }

    #[test]
    fn it_names_client_protocol_id_and_time() {
        assert_eq!(
            line_of(&envelope(&["user@example.net"], "192.0.2.1")),
            "Received: from client.example.org ([192.0.2.1])\r\n\
             \tby mx.example.net with ESMTPS id 0000000000010\r\n\
             \tfor <user@example.net>; Tue, 24 Nov 2026 08:16:41 +0000\r\n"
        );
    }

    #[test]
    fn several_recipients_are_not_disclosed() {
        let line = line_of(&envelope(&["one@example.net", "two@example.net"], "2001:db8::1"));
        assert!(!line.contains("@example.net"), "{line}");
        assert!(line.contains("([IPv6:2001:db8::1])"), "{line}");
    }

    #[test]
    fn a_conveyed_name_and_utf8_show() {
        let mut envelope = envelope(&["jürgen@example.net"], "192.0.2.1");
        envelope.set_client_name(Some("mail.example.org"));
        envelope.smtputf8 = true;
        let line = line_of(&envelope);
        assert!(line.contains("from client.example.org (mail.example.org [192.0.2.1])"), "{line}");
        assert!(
            line.contains("with UTF8SMTPS id") && line.contains("<jürgen@example.net>"),
            "{line}"
        );
    }
}
