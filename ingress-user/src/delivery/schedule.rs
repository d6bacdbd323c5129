//! When a failed delivery is tried again. Pure: no clock, no randomness.

use std::time::Duration;

/// The next hop is ours and near, so the first retry is soon: a restart over there takes seconds.
const FIRST: Duration = Duration::from_secs(5);

/// RFC 5321 4.5.4.1 wants at least 30 minutes between attempts at a stranger's server. This is not one; ten minutes keep
/// the delay after a long outage short without much load.
const LONGEST: Duration = Duration::from_secs(600);

/// Wait after attempt number `attempt` failed, counted from 1.
pub fn next_attempt(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    (FIRST * (1 << doublings)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_ten_minutes() {
        let seconds: Vec<_> = (0..10).map(|attempt| next_attempt(attempt).as_secs()).collect();
        assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(next_attempt(u32::MAX), LONGEST);
    }
}
