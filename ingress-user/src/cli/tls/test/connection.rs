//! One connection of the self-test to a listener, as a mail server makes it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::config::TlsMode;
use crate::smtp::dialect::Dialect;
use crate::tls::probe::answer::{self, ANSWER_BYTES_MAX, Answer};
use crate::worker::clock::Now;

/// For the connection to stand. The listener is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the connection to the server's last octet, a delayed greeting included.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);
/// A reply with all its lines; the longest, to EHLO, has a few hundred octets.
const REPLY_BYTES_MAX: usize = 8_192;
/// Octets taken at once.
const READ_BYTES: usize = 4_096;

/// Whom the failures of a self-test are from, in reports.
const CLIENT_NAME: &str = "selftest.invalid";

/// The PROXY protocol's word for a connection of the balancer itself.
const OWN_CONNECTION: &[u8] = b"PROXY UNKNOWN\r\n";

/// A listener to test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) tls: TlsMode,
    pub(super) dialect: Dialect,
    /// It takes the own address for a load balancer, whose connections begin with a PROXY protocol header.
    pub(super) is_proxied: bool,
}

impl std::fmt::Display for Target {
    /// As in the line `ready`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.tls.keyword())
    }
}

/// What the server answers to this hello, sent where TLS begins. Hangs up then.
pub(super) fn probe(target: &Target, hello: &[u8]) -> Result<Answer> {
    let stream =
        TcpStream::connect_timeout(&target.address, CONNECT_TIMEOUT).context("cannot connect")?;
    let deadline = Now::read().monotonic + PROBE_TIMEOUT;
    let mut connection = Connection { stream, deadline };
    if target.is_proxied {
        connection.send(OWN_CONNECTION)?;
    }
    if target.tls == TlsMode::StartTls {
        connection.start_tls(target.dialect)?;
    }
    connection.send(hello)?;
    connection.answer()
}

struct Connection {
    stream: TcpStream,
    deadline: Instant,
}

impl Connection {
    /// Up to where the hello belongs (RFC 3207 4).
    fn start_tls(&mut self, dialect: Dialect) -> Result<()> {
        let greeting = self.reply()?;
        ensure!(greeting.starts_with("220"), "the greeting is \"{}\"", last_line(&greeting));
        let verb = match dialect {
            Dialect::Smtp => "EHLO",
            Dialect::Lmtp => "LHLO",
        };
        self.send(format!("{verb} {CLIENT_NAME}\r\n").as_bytes())?;
        let extensions = self.reply()?;
        ensure!(
            extensions.lines().any(|line| line.get(4..) == Some("STARTTLS")),
            "STARTTLS is not offered to this address: see `ingress tls memory list`"
        );
        self.send(b"STARTTLS\r\n")?;
        let reply = self.reply()?;
        ensure!(reply.starts_with("220"), "STARTTLS is answered \"{}\"", last_line(&reply));
        Ok(())
    }

    /// The lines of one reply.
    fn reply(&mut self) -> Result<String> {
        let mut octets = Vec::new();
        while !is_whole_reply(&octets) {
            self.receive(&mut octets, REPLY_BYTES_MAX)?;
        }
        String::from_utf8(octets).context("a reply is not text")
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut octets = Vec::new();
        loop {
            self.receive(&mut octets, ANSWER_BYTES_MAX)?;
            if let Some(answer) = answer::parse(&octets)? {
                return Ok(answer);
            }
        }
    }

    fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(self.time_left()?))?;
        self.stream.write_all(octets).context("cannot send")
    }

    /// Appends what comes next.
    fn receive(&mut self, octets: &mut Vec<u8>, bytes_max: usize) -> Result<()> {
        ensure!(octets.len() < bytes_max, "the server says more than {bytes_max} octets");
        self.stream.set_read_timeout(Some(self.time_left()?))?;
        let mut buffer = [0; READ_BYTES];
        let count = self.stream.read(&mut buffer).context("no answer")?;
        match buffer.get(..count) {
            None | Some([]) => bail!("the server closed the connection without an answer"),
            Some(received) => octets.extend_from_slice(received),
        }
        Ok(())
    }

    fn time_left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Now::read().monotonic);
        ensure!(!left.is_zero(), "no answer within {} s", PROBE_TIMEOUT.as_secs());
        Ok(left)
    }
}

/// Whether the last line is there: its code is followed by a space (RFC 5321 4.2.1).
fn is_whole_reply(octets: &[u8]) -> bool {
    let Some(lines) = octets.strip_suffix(b"\r\n") else {
        return false;
    };
    let last = lines.rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
    last.get(3) != Some(&b'-')
}

fn last_line(reply: &str) -> &str {
    reply.lines().last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Has a server say this after the connection, whatever it hears, and probes it.
    fn probe_one_that_says(script: &'static [&'static [u8]]) -> Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for said in script {
                stream.write_all(said).unwrap();
                // Each but the last is followed by a word of the client.
                let _heard = stream.read(&mut [0; 512]);
            }
        });
        let target =
            Target { address, tls: TlsMode::StartTls, dialect: Dialect::Smtp, is_proxied: false };
        let answer = probe(&target, b"hello");
        server.join().unwrap();
        answer
    }

    #[test]
    fn a_reply_ends_with_the_line_without_a_hyphen() {
        for whole in ["220 a\r\n", "250-a\r\n250 b\r\n", "220\r\n"] {
            assert!(is_whole_reply(whole.as_bytes()), "{whole:?}");
        }
        for part in ["", "220", "220 a", "250-a\r\n", "250-a\r\n250 b"] {
            assert!(!is_whole_reply(part.as_bytes()), "{part:?}");
        }
    }

    #[test]
    fn the_answer_behind_starttls_is_read() {
        let answer = probe_one_that_says(&[
            b"220 mx.test ESMTP\r\n",
            b"250-mx.test\r\n250-STARTTLS\r\n250 SIZE 1\r\n",
            b"220 go\r\n",
            b"\x15\x03\x03\x00\x02\x02\x28",
        ]);
        assert_eq!(answer.unwrap(), Answer::Alert(40));
    }

    #[test]
    fn a_server_without_starttls_or_with_another_mind_is_told() {
        let error = |script| probe_one_that_says(script).unwrap_err().to_string();
        let without = error(&[b"220 mx.test ESMTP\r\n", b"250 mx.test\r\n"]);
        assert!(without.starts_with("STARTTLS is not offered"), "{without}");
        let busy = error(&[b"421 4.3.2 busy\r\n"]);
        assert_eq!(busy, "the greeting is \"421 4.3.2 busy\"");
        assert!(error(&[]).contains("closed the connection"));
    }
}
