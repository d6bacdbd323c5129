//! Sessions that ended in error, into the log: with what was said last, and never so many that the log becomes the flood.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::smtp::session::Transcript;

/// Lines of one worker in [`PERIOD`]; what is beyond is counted and said with the next.
const LINES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);

/// A worker's budget of such lines.
#[derive(Debug)]
pub(super) struct ErrorLog {
    period_began: Instant,
    lines: u32,
    suppressed: u64,
}

impl ErrorLog {
    pub(super) fn new(now: Instant) -> Self {
        Self { period_began: now, lines: 0, suppressed: 0 }
    }

    pub(super) fn session_ended(
        &mut self,
        client: IpAddr,
        reason: &str,
        transcript: &Transcript,
        now: Instant,
    ) {
        if self.may_log(now) {
            let suppressed = std::mem::take(&mut self.suppressed);
            tracing::info!(%client, reason, suppressed, %transcript, "session ended in error");
        } else {
            self.suppressed += 1;
        }
    }

    fn may_log(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.period_began) >= PERIOD {
            self.period_began = now;
            self.lines = 0;
        }
        self.lines += 1;
        self.lines <= LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::clock::Now;

    #[test]
    fn a_flood_of_errors_is_a_trickle_in_the_log() {
        let now = Now::read().monotonic;
        let mut log = ErrorLog::new(now);
        let logged = (0..1000).filter(|_| log.may_log(now)).count();
        assert_eq!(logged, LINES_MAX as usize);
        assert!(log.may_log(now + PERIOD));
    }
}
