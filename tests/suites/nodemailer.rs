//! nodemailer against the real binary.

use ingress_tests::daemon::Site;
use ingress_tests::programs::{node, script, succeed};
use ingress_tests::texts::{assert_delivered, texts, write_files};

/// What send.js composes: text with dots at line starts, text that is not ASCII, and an attachment.
const COMPOSED: [&str; 3] = [
    "From: sender@example.org\r\n\
     To: user@example.net\r\n\
     Subject: plain\r\n\
     Message-ID: <1@client.test>\r\n\
     Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n\
     Content-Transfer-Encoding: 7bit\r\n\
     MIME-Version: 1.0\r\n\
     Content-Type: text/plain; charset=utf-8\r\n\
     \r\n\
     one\r\n\
     .\r\n\
     ..two\r\n",
    "From: sender@example.org\r\n\
     To: user@example.net\r\n\
     Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\n\
     Message-ID: <1@client.test>\r\n\
     Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n\
     Content-Transfer-Encoding: quoted-printable\r\n\
     MIME-Version: 1.0\r\n\
     Content-Type: text/plain; charset=utf-8\r\n\
     \r\n\
     Viele Gr=C3=BC=C3=9Fe aus K=C3=B6ln\r\n",
    "From: sender@example.org\r\n\
     To: user@example.net\r\n\
     Subject: attached\r\n\
     Message-ID: <1@client.test>\r\n\
     Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n\
     MIME-Version: 1.0\r\n\
     Content-Type: multipart/mixed; boundary=\"--_NmP-part-Part_1\"\r\n\
     \r\n\
     ----_NmP-part-Part_1\r\n\
     Content-Type: text/plain; charset=utf-8\r\n\
     Content-Transfer-Encoding: 7bit\r\n\
     \r\n\
     see below\r\n\
     \r\n\
     ----_NmP-part-Part_1\r\n\
     Content-Type: application/octet-stream; name=octets.bin\r\n\
     Content-Transfer-Encoding: base64\r\n\
     Content-Disposition: attachment; filename=octets.bin\r\n\
     \r\n\
     AAoNLoD/\r\n\
     ----_NmP-part-Part_1--\r\n",
];

#[test]
fn a_pooled_connection_in_clear() {
    nodemailer_with("clear", "starttls", "ESMTP");
}

#[test]
fn a_pooled_connection_with_starttls() {
    nodemailer_with("starttls", "starttls", "ESMTPS");
}

#[test]
fn a_pooled_connection_with_implicit_tls() {
    nodemailer_with("implicit", "implicit", "ESMTPS");
}

fn nodemailer_with(tls: &str, listener: &str, protocol: &str) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let mut texts = texts();
    // Of no text at all it makes an empty line.
    texts.retain(|text| !text.is_empty());
    let mut command = node();
    command.arg(script("nodemailer/send.js"));
    command.args([tls, &daemon.smtp(listener).port().to_string()]);
    let output = succeed(command.args(write_files(&site, &texts, <[u8]>::to_vec)));
    let said = String::from_utf8_lossy(&output.stdout);
    let envelopes = said.matches("MAIL FROM:<sender@example.org> BODY=8BITMIME").count();
    assert_eq!(envelopes, texts.len(), "{said}");
    assert_eq!(daemon.count("/connections/total").unwrap(), 1);
    let composed = COMPOSED.iter().map(|text| text.as_bytes().to_vec());
    let sent: Vec<Vec<u8>> = composed.chain(texts).collect();
    assert_delivered(&site, daemon, &sent, protocol);
}
