//! From the connection to the first command: PROXY header, greet delay, greeting; and the beginning anew after TLS.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Action, Session, State, Step, Tls};
use crate::smtp::proxy::{self, Parsed, Source};
use crate::smtp::reply::{Closing, Reply};

impl Session {
    /// Begins: with the greeting, or what has to come before it.
    pub fn open(&mut self, now: Instant, out: &mut Vec<u8>) -> Action {
        self.now = now;
        if self.settings.networks.proxy_protocol.contains(self.client.address) {
            self.state = State::ExpectProxyHeader;
            self.deadline = now + self.settings.proxy_header_timeout;
            return Action::Continue;
        }
        self.begin(out)
    }

    /// The client named by [`Action::Admit`] may stay.
    pub fn admit(&mut self, client: IpAddr, now: Instant, out: &mut Vec<u8>) -> Action {
        self.now = now;
        let settings = Arc::clone(&self.settings);
        self.client.set_address(client, &settings.networks);
        // A balancer conveys clients; it does not speak for them.
        self.client.may_xclient = settings.networks.xclient.contains(client);
        self.begin(out)
    }

    /// The handshake is through. Whatever was known from before is forgotten (RFC 3207 section 4.2).
    pub fn handle_tls_established(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.now = now;
        self.transcript.note(format_args!("TLS established"), now);
        self.helo = None;
        self.secure = true;
        self.reset();
        self.deadline = now + self.settings.idle_timeout;
        if !self.greeted {
            self.greet(out);
        }
    }

    pub(super) fn handle_proxy_header(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        let before = self.line.len();
        self.line.extend_from_slice(input.get(..proxy::HEADER_BYTES_MAX).unwrap_or(input));
        let (header_bytes, source) = match proxy::parse(&self.line) {
            Ok(Parsed::Incomplete) => return Step::command(input.len(), Action::Continue),
            Ok(Parsed::Complete { header_bytes, source }) => (header_bytes, source),
            Err(error) => {
                self.transcript.note(format_args!("{error}"), self.now);
                return Step::command(input.len(), self.end(Closing::NoProxyHeader, out));
            }
        };
        self.line = Vec::new();
        let action = match source {
            Source::Local => {
                self.transcript.note(format_args!("PROXY header without a client"), self.now);
                self.begin(out)
            }
            Source::Conveyed(client) => {
                self.transcript.note(format_args!("PROXY header for {client}"), self.now);
                self.state = State::AwaitAdmission;
                Action::Admit(client.ip())
            }
        };
        Step::command(header_bytes.saturating_sub(before), action)
    }

    /// RFC 5321 3.1 and 4.3.1: the client waits for the greeting. Who does not is no mail server.
    pub(super) fn handle_early_talk(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        Step::command(input.len(), self.end(Closing::EarlyTalker, out))
    }

    fn begin(&mut self, out: &mut Vec<u8>) -> Action {
        if self.settings.tls == Tls::Implicit {
            if self.tls_busy {
                return self.end(Closing::TooManyHandshakes, out);
            }
            self.await_tls();
            return Action::StartTls;
        }
        if self.settings.greet_delay.is_zero() || self.client.is_undelayed {
            self.greet(out);
        } else {
            self.state = State::AwaitGreetDelay;
            self.deadline = self.now + self.settings.greet_delay;
        }
        Action::Continue
    }

    pub(super) fn greet(&mut self, out: &mut Vec<u8>) {
        self.greeted = true;
        self.state = State::ExpectCommand(None);
        self.deadline = self.now + self.settings.idle_timeout;
        let settings = Arc::clone(&self.settings);
        let hostname = &settings.hostname;
        let _ = self.say(Reply::Greeting { hostname, dialect: settings.dialect }, out);
    }

    pub(super) fn await_tls(&mut self) {
        self.reset();
        self.state = State::ExpectTls;
        self.deadline = self.now + self.settings.tls_handshake_timeout;
    }
}
