//! An SMTP client on a bare socket: it says exactly what a test wants said, also what no decent client says.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// For each reply and each write. A daemon that says nothing for so long is stuck.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection. Dropping it hangs up without QUIT.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects without waiting for the greeting.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the daemon listens")
    }

    /// Connects to a daemon that may be gone.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect(address)?)
    }

    /// Connects from this address of the host.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let connect = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect(&address.into())?;
            Self::of(socket.into())
        };
        connect().expect("the daemon listens")
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Connects, and is greeted back after EHLO.
    pub fn hello(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.expect("220 ");
        client.command("EHLO client.test", "250");
        client
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// The connection, for a program that goes on with it. All that the daemon said so far must have been read.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.stream.buffer().is_empty(), "{}", self.stream.buffer().escape_ascii());
        self.stream.into_inner()
    }

    /// Sends octets as they are.
    pub fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.try_send(octets).expect("the daemon takes what is sent");
    }

    /// Sends octets to a daemon that may have hung up.
    pub fn try_send(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(octets.as_ref())
    }

    /// Sends a line and expects a reply that begins like this.
    pub fn command(&mut self, line: &str, reply: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.expect(reply)
    }

    /// Reads one reply, continuation lines included, which must begin like this.
    pub fn expect(&mut self, prefix: &str) -> String {
        let reply = self.reply().unwrap_or_else(|error| panic!("no reply {prefix:?}: {error}"));
        assert!(reply.starts_with(prefix), "expected {prefix:?}, got {reply:?}");
        reply
    }

    /// Reads one reply, continuation lines included.
    pub fn reply(&mut self) -> io::Result<String> {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            if self.stream.read_line(&mut reply)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                return Ok(reply);
            }
        }
    }

    /// What the daemon still says, up to its close.
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("still open: {error}"),
        }
        rest
    }

    /// The daemon has closed, and said nothing more before.
    pub fn expect_close(&mut self) {
        let rest = self.read_to_close();
        assert!(rest.is_empty(), "more than was expected: {}", rest.escape_ascii());
    }

    /// MAIL and RCPT.
    pub fn envelope(&mut self) {
        self.command("MAIL FROM:<sender@example.org>", "250 2.1.0");
        self.command("RCPT TO:<user@example.net>", "250 2.1.5");
    }

    /// DATA with this text, dots doubled here, up to the 250.
    pub fn data(&mut self, text: &[u8]) {
        self.command("DATA", "354");
        self.send(stuffed(text));
        self.expect("250 2.0.0");
    }

    pub fn message(&mut self, text: &[u8]) {
        self.envelope();
        self.data(text);
    }

    pub fn quit(mut self) {
        self.command("QUIT", "221");
        self.expect_close();
    }

    /// Sends nothing more, and reads on.
    pub fn close_sending_side(&self) {
        self.stream().shutdown(Shutdown::Write).expect("the connection is open");
    }
}

/// The wire form of a text made of CRLF lines (RFC 5321 4.5.2), its end included.
pub fn stuffed(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + 16);
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_doubled_at_line_starts_only() {
        assert_eq!(stuffed(b"a.b\r\n.\r\n..c\r\n"), b"a.b\r\n..\r\n...c\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
    }
}
