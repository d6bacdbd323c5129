//! The program's clock, as the daemon reckons with it.
//!
//! The program counts jiffies, which user space cannot read. A run of `beat` tells what they are, and from then on the daemon adds
//! what has gone by on its own clock: the kernel moves jiffies by the monotonic clock (tick_do_update_jiffies64 in
//! kernel/time/tick-sched.c), neither counts a suspended machine, and each heartbeat pairs the two anew.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

/// What the program's clock said, and what the daemon's did then. In nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    program: u64,
    monotonic: u64,
}

impl Pair {
    /// To be called after the program has said `program`.
    pub(super) fn with(program: u64) -> Self {
        Self { program, monotonic: monotonic() }
    }

    /// From then until the program's clock says `program`.
    pub(super) fn until(self, program: u64) -> Duration {
        Duration::from_nanos(program.saturating_sub(self.program))
    }

    /// What the program's clock says now, or up to a tick less: it was up to a tick behind when it was asked, and a ban without a
    /// lifetime has ended.
    pub(super) fn now(self) -> u64 {
        self.at(monotonic(), tick())
    }

    fn at(self, monotonic: u64, tick: u64) -> u64 {
        let since = monotonic.saturating_sub(self.monotonic);
        self.program.saturating_add(since).saturating_sub(tick)
    }
}

/// The length of a jiffy: the coarse clock goes with the kernel's tick, and tells its length as its resolution.
pub(super) fn tick() -> u64 {
    nanoseconds(clock_getres(ClockId::MonotonicCoarse))
}

fn monotonic() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn the_clocks_go_on_together_and_ours_is_never_ahead() {
        let pair = Pair { program: 1 << 54, monotonic: 70 * MILLISECOND };
        let tick = 4 * MILLISECOND;
        assert_eq!(pair.at(70 * MILLISECOND, tick), (1 << 54) - tick);
        assert_eq!(pair.at(1_070 * MILLISECOND, tick), (1 << 54) + 996 * MILLISECOND);
        assert_eq!(pair.at(0, tick), (1 << 54) - tick, "a clock that stands still");
    }

    #[test]
    fn a_tick_is_one_of_those_that_kernels_are_built_with() {
        // HZ is 24 to 1,200, whatever the architecture.
        assert!((800_000..=42_000_000).contains(&tick()), "{} ns", tick());
    }
}
