use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::client::stuffed;

/// A program that carries an SMTP session under TLS between its pipes and the daemon, as `openssl s_client` does.
///
/// Such programs talk about TLS in between: whatever is no reply is set aside, and told at the end. Start it with a
/// command of [`programs`](crate::programs), which is ended when it is stuck; then its pipe ends, and no wait lasts longer.
#[derive(Debug)]
pub struct Tunnel {
    child: Child,
    stdin: ChildStdin,
    output: BufReader<PipeReader>,
    said: String,
}

impl Tunnel {
    pub fn start(mut command: Command) -> Self {
        let (output, input) = io::pipe().expect("there are descriptors left");
        let errors = input.try_clone().expect("there are descriptors left");
        command.stdin(Stdio::piped()).stdout(input).stderr(errors);
        let mut child = command.spawn().expect("timeout(1) is there");
        // `command` goes, and our ends of the pipe with it.
        let stdin = child.stdin.take().expect("stdin is piped");
        Self { child, stdin, output: BufReader::new(output), said: String::new() }
    }

    /// Starts a session up to the reply to EHLO. `tls` is that of the listener.
    pub fn hello(command: Command, tls: &str) -> Self {
        let mut tunnel = Self::start(command);
        if tls == "implicit" {
            tunnel.expect("220 ");
        }
        tunnel.ehlo();
        tunnel
    }

    /// EHLO and its reply, which has several lines. OpenSSL shows the last line of the reply in clear before it.
    pub fn ehlo(&mut self) {
        self.send("ehlo client.test\r\n");
        while !self.line().expect("a reply to EHLO").starts_with("250-") {}
        self.expect("250");
    }

    /// Sends a line and expects a reply that begins like this. In lower case, because programs take lines that begin with
    /// some capitals for themselves.
    pub fn command(&mut self, line: &str, reply: &str) {
        self.send(format!("{line}\r\n"));
        self.expect(reply);
    }

    pub fn send(&mut self, octets: impl AsRef<[u8]>) {
        let sent = self.stdin.write_all(octets.as_ref()).and_then(|()| self.stdin.flush());
        sent.unwrap_or_else(|error| panic!("{error}, after:\n{}", self.rest()));
    }

    /// Reads one reply, continuation lines included, which must begin like this.
    pub fn expect(&mut self, prefix: &str) {
        loop {
            let Some(line) = self.line() else {
                panic!("no reply {prefix:?} after:\n{}", self.said);
            };
            if !is_reply(&line) {
                continue;
            }
            assert!(line.starts_with(prefix), "expected {prefix:?}, got {line:?}");
            if line.as_bytes()[3] != b'-' {
                return;
            }
        }
    }

    /// Reads on until the program says something with `text` in it.
    pub fn wait_for_word(&mut self, text: &str) {
        loop {
            match self.line() {
                Some(line) if line.contains(text) => return,
                Some(_) => {}
                None => panic!("no {text:?} in:\n{}", self.said),
            }
        }
    }

    /// One message, dots doubled here, up to the 250.
    pub fn message(&mut self, text: &[u8]) {
        self.command("mail from:<sender@example.org>", "250 2.1.0");
        self.command("rcpt to:<user@example.net>", "250 2.1.5");
        self.command("data", "354");
        self.send(stuffed(text));
        self.expect("250 2.0.0");
    }

    /// Ends the session in order. Gives back what the program said of its own.
    pub fn quit(mut self) -> String {
        self.command("quit", "221");
        let said = self.rest();
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}:\n{said}");
        said
    }

    /// Reads to the end, which the daemon or the program has made. Gives back what the program said of its own.
    pub fn rest(&mut self) -> String {
        while self.line().is_some() {}
        std::mem::take(&mut self.said)
    }

    /// The next line; what is not said by the daemon is kept.
    fn line(&mut self) -> Option<String> {
        let mut octets = Vec::new();
        self.output.read_until(b'\n', &mut octets).expect("a pipe can be read");
        let line = String::from_utf8_lossy(&octets).into_owned();
        if !is_reply(&line) {
            self.said.push_str(&line);
        }
        (!line.is_empty()).then_some(line)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// RFC 5321 4.2: three digits, and a blank or a hyphen.
fn is_reply(line: &str) -> bool {
    let octets = line.as_bytes();
    octets.len() > 3
        && octets[..3].iter().all(u8::is_ascii_digit)
        && (octets[3] == b' ' || octets[3] == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::bounded;

    fn shell(script: &str) -> Tunnel {
        let mut command = bounded("sh");
        command.args(["-c", script]);
        Tunnel::start(command)
    }

    #[test]
    fn what_a_program_says_of_its_own_is_told_from_replies() {
        let mut tunnel = shell("echo '- TLS 1.3'; echo 250-a; echo note >&2; echo 250 b; head -n1");
        tunnel.expect("250");
        tunnel.send("221 c\n");
        tunnel.expect("221 c");
        assert_eq!(tunnel.rest(), "- TLS 1.3\nnote\n");
    }

    #[test]
    #[should_panic(expected = "no reply \"250\" after:\nno such host")]
    fn the_last_words_of_a_program_are_shown() {
        shell("echo no such host").expect("250");
    }
}
