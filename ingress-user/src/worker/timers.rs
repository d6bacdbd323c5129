//! Deadlines of connections: a timer wheel with lazy re-insertion.
//!
//! Every connection has one live entry. Moving a deadline back, which every received octet does, costs nothing: the entry
//! fires at the old time, the owner sees that the deadline has moved, and schedules again. Only moving it forward inserts.

use std::time::{Duration, Instant};

/// Precision of deadlines: they fire up to this much late, never early.
const TICK: Duration = Duration::from_millis(100);

/// Deadlines further ahead than this many ticks fire once on the way and are scheduled again.
const SLOTS: u64 = 1024;

/// When an entry fires, in ticks since the wheel began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

#[derive(Debug)]
pub(super) struct TimerWheel {
    began: Instant,
    slots: Vec<Vec<(u64, Tick)>>,
    /// All ticks up to and with this one have fired.
    fired: u64,
    /// No entry is earlier than this tick.
    earliest: Option<u64>,
}

impl TimerWheel {
    pub(super) fn new(now: Instant) -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { began: now, slots, fired: 0, earliest: None }
    }

    /// Has `key` fire at `deadline`, or on the way to it. The tick tells this entry from others of the same key.
    pub(super) fn schedule(&mut self, key: u64, deadline: Instant) -> Tick {
        let tick = self.tick_of(deadline);
        if let Some(slot) = self.slots.get_mut((tick.0 % SLOTS) as usize) {
            slot.push((key, tick));
        }
        self.earliest = Some(self.earliest.map_or(tick.0, |earliest| earliest.min(tick.0)));
        tick
    }

    /// The tick at which an entry for `deadline` would fire now.
    pub(super) fn tick_of(&self, deadline: Instant) -> Tick {
        let since = deadline.saturating_duration_since(self.began).as_nanos();
        let ticks = since.div_ceil(TICK.as_nanos()) as u64;
        Tick(ticks.clamp(self.fired + 1, self.fired + SLOTS - 1))
    }

    /// Moves every entry due at `now` into `due`.
    pub(super) fn expire(&mut self, now: Instant, due: &mut Vec<(u64, Tick)>) {
        let passed =
            (now.saturating_duration_since(self.began).as_nanos() / TICK.as_nanos()) as u64;
        if self.earliest.is_none_or(|earliest| earliest > passed) {
            self.fired = self.fired.max(passed);
            return;
        }
        let first = self.fired + 1;
        // After a long stall one round of the wheel sees every entry.
        for tick in first..=passed.min(first + SLOTS - 1) {
            if let Some(slot) = self.slots.get_mut((tick % SLOTS) as usize) {
                due.append(slot);
            }
        }
        self.fired = passed;
        self.earliest = self.next_occupied();
    }

    /// How long the loop may wait before [`expire`](Self::expire) has something; `None` without entries.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let at = TICK.checked_mul(u32::try_from(self.earliest?).ok()?)?;
        Some((self.began + at).saturating_duration_since(now))
    }

    fn next_occupied(&self) -> Option<u64> {
        (self.fired + 1..=self.fired + SLOTS).find(|tick| {
            self.slots.get((tick % SLOTS) as usize).is_some_and(|slot| !slot.is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::worker::clock::Now;

    fn fired(wheel: &mut TimerWheel, now: Instant) -> Vec<u64> {
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        due.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn an_entry_fires_once_and_not_early() {
        let start = Now::read().monotonic;
        let mut wheel = TimerWheel::new(start);
        wheel.schedule(7, start + Duration::from_millis(250));
        assert_eq!(wheel.wait(start), Some(Duration::from_millis(300)));
        assert!(fired(&mut wheel, start + Duration::from_millis(299)).is_empty());
        assert_eq!(fired(&mut wheel, start + Duration::from_millis(300)), [7]);
        assert!(fired(&mut wheel, start + Duration::from_secs(10)).is_empty());
        assert_eq!(wheel.wait(start), None);
    }

    #[test]
    fn a_far_deadline_fires_on_the_way() {
        let start = Now::read().monotonic;
        let mut wheel = TimerWheel::new(start);
        let deadline = start + Duration::from_secs(3600);
        let tick = wheel.schedule(1, deadline);
        let on_the_way = start + wheel.wait(start).unwrap();
        assert!(on_the_way < deadline);
        let mut due = Vec::new();
        wheel.expire(on_the_way, &mut due);
        assert_eq!(due, [(1, tick)]);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick() {
        let start = Now::read().monotonic;
        let mut wheel = TimerWheel::new(start);
        let later = start + Duration::from_secs(50);
        assert!(fired(&mut wheel, later).is_empty());
        wheel.schedule(3, start);
        assert_eq!(fired(&mut wheel, later + TICK), [3]);
    }

    proptest! {
        /// Driven by its own waits, the wheel fires everything once, never before its deadline.
        #[test]
        fn everything_fires_in_time(deadlines in proptest::collection::vec(0u64..90_000, 1..50)) {
            let start = Now::read().monotonic;
            let mut wheel = TimerWheel::new(start);
            for (key, &millis) in deadlines.iter().enumerate() {
                wheel.schedule(key as u64, start + Duration::from_millis(millis));
            }
            let mut now = start;
            let mut seen = vec![false; deadlines.len()];
            while let Some(wait) = wheel.wait(now) {
                now += wait;
                for key in fired(&mut wheel, now) {
                    let due = start + Duration::from_millis(deadlines[key as usize]);
                    prop_assert!(now >= due && now <= due + 2 * TICK);
                    prop_assert!(!std::mem::replace(&mut seen[key as usize], true));
                }
            }
            prop_assert!(seen.into_iter().all(|fired| fired));
        }
    }
}
