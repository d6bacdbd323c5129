//! The end of a connection: the last replies reach the client before the socket closes.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::connection::{Connection, Outcome, RECEIVES_PER_TURN_MAX, Turn};
use super::window::{Framing, Space};

/// How long a closing connection waits for the client to take the last replies.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long octets of a client we have closed on are read and dropped, so that the kernel's reset does not overtake the
/// last reply (RFC 9293 3.6.1 and its well-known consequence).
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// The session is over; its last replies are on their way.
    Flushing {
        until: Instant,
    },
    /// All is sent and our side is shut; the client's octets are dropped until it closes too.
    Lingering {
        until: Instant,
    },
}

impl Connection {
    pub(super) fn begin_close(&mut self, turn: &mut Turn<'_>) -> Outcome {
        self.note_closing(turn);
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.output);
        }
        self.window.close(turn.pool);
        self.phase = Phase::Flushing { until: turn.now.monotonic + FLUSH_TIMEOUT };
        self.finish(turn)
    }

    pub(super) fn finish(&mut self, turn: &mut Turn<'_>) -> Outcome {
        if self.flush().is_err() {
            return Outcome::Closed;
        }
        if !self.output.is_empty() {
            return Outcome::Wait;
        }
        let client_is_done = self.session.is_closed_by_client() && !self.readable;
        if client_is_done || self.socket.shutdown(Shutdown::Write).is_err() {
            return Outcome::Closed;
        }
        self.phase = Phase::Lingering { until: turn.now.monotonic + LINGER_TIMEOUT };
        self.readable = true;
        self.linger(turn)
    }

    pub(super) fn linger(&mut self, turn: &mut Turn<'_>) -> Outcome {
        for _ in 0..RECEIVES_PER_TURN_MAX {
            if self.window.make_space(Framing::Clear, turn.pool) != Space::Free {
                return Outcome::Closed;
            }
            match self.socket.read(self.window.space(Framing::Clear)) {
                Ok(0) => return Outcome::Closed,
                Ok(_dropped) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_reset) => return Outcome::Closed,
            }
        }
        Outcome::Again
    }
}
