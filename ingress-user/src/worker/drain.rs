//! The end of a worker: whom it still serves, and for how long.

use std::time::{Duration, Instant};

/// How long a drain lets open transactions go on.
const LIMIT: Duration = Duration::from_secs(30);

/// How long sessions outside a transaction go on when a successor takes over: who has just come sends its message and leaves. New
/// clients wait as long.
const GRACE: Duration = Duration::from_secs(2);

/// Why a worker ends, which decides how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nobody follows: who is not in the middle of a message is sent away at once.
    Stop,
    /// Another daemon takes over, whose clients wait for this one's end.
    Handover,
}

/// A drain that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drain {
    /// Until then sessions outside a transaction go on.
    spared_until: Instant,
    /// Then the last connections are cut.
    until: Instant,
    has_sent_away: bool,
}

impl Drain {
    pub(super) fn begin(ending: Ending, now: Instant) -> Self {
        let grace = match ending {
            Ending::Stop => Duration::ZERO,
            Ending::Handover => GRACE,
        };
        Self { spared_until: now + grace, until: now + LIMIT, has_sent_away: false }
    }

    /// Whether a session outside a transaction has to go.
    pub(super) fn sends_away(&self, now: Instant) -> bool {
        now >= self.spared_until
    }

    /// True once, as soon as all sessions outside a transaction have to go.
    pub(super) fn take_turn_to_send_away(&mut self, now: Instant) -> bool {
        self.sends_away(now) && !std::mem::replace(&mut self.has_sent_away, true)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// When it has something to do whatever the clients do.
    pub(super) fn wakes_at(&self) -> Instant {
        if self.has_sent_away { self.until } else { self.spared_until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::clock::Now;

    #[test]
    fn clients_that_say_nothing_hold_up_the_end_for_its_limit_and_no_longer() {
        for (ending, grace) in [(Ending::Stop, Duration::ZERO), (Ending::Handover, GRACE)] {
            let start = Now::read().monotonic;
            let mut drain = Drain::begin(ending, start);
            // Nothing happens but that the worker wakes when it said it would.
            let mut now = drain.wakes_at();
            assert_eq!(now, start + grace);
            assert!(drain.take_turn_to_send_away(now));
            assert!(!drain.take_turn_to_send_away(now), "once");
            now = drain.wakes_at();
            assert!(drain.is_over(now));
            assert_eq!(now, start + LIMIT);
        }
    }

    #[test]
    fn only_a_successor_lets_sessions_go_on() {
        let now = Now::read().monotonic;
        assert!(Drain::begin(Ending::Stop, now).sends_away(now));
        assert!(!Drain::begin(Ending::Handover, now).sends_away(now));
    }
}
