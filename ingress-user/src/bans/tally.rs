//! How often something happened of late, in a space that does not grow.

/// Parts of the window that are counted apart: it slides by one of them at a time.
const PARTS: usize = 8;

/// Counts of the last parts of a window. Never more than happened within the window, and all that happened within three
/// quarters of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// The part of time that was counted last.
    newest: u64,
    counts: [u32; PARTS],
}

impl Tally {
    /// Counts one, and says how many that makes within the last `window` seconds.
    pub(super) fn count(&mut self, now: u64, window: u64) -> u32 {
        let width = window.div_ceil(PARTS as u64).max(1);
        // Fewer than there is room for where the window has fewer seconds.
        let parts = (window / width).max(1);
        let part = now / width;
        let passed = part.saturating_sub(self.newest);
        for gone in 0..passed.min(PARTS as u64) {
            self.counts[slot(part - gone)] = 0;
        }
        self.newest = self.newest.max(part);
        let count = &mut self.counts[slot(self.newest)];
        *count = count.saturating_add(1);
        let of_window = (0..parts).map(|age| self.counts[slot(self.newest.saturating_sub(age))]);
        of_window.fold(0, u32::saturating_add)
    }
}

fn slot(part: u64) -> usize {
    (part % PARTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Against a list of all times.
        #[test]
        fn a_tally_is_between_three_quarters_of_the_window_and_all_of_it(
            window in 8_u64..1_000,
            steps in proptest::collection::vec(0_u64..200, 1..200),
        ) {
            let (mut tally, mut times, mut now) = (Tally::default(), Vec::new(), 1_795_500_000);
            for step in steps {
                now += step;
                times.push(now);
                let within = |seconds: u64| times.iter().filter(|at| now - **at < seconds).count();
                let counted = tally.count(now, window) as usize;
                proptest::prop_assert!(counted <= within(window));
                proptest::prop_assert!(counted >= within(window * 3 / 4));
            }
        }
    }

    #[test]
    fn a_window_of_a_second_counts_that_second() {
        let mut tally = Tally::default();
        assert_eq!([7, 7, 8, 8, 8].map(|now| tally.count(now, 1)), [1, 2, 1, 2, 3]);
    }

    #[test]
    fn a_clock_that_was_set_back_counts_on() {
        let mut tally = Tally::default();
        assert_eq!([1_000, 10, 10].map(|now| tally.count(now, 80)), [1, 2, 3]);
    }
}
