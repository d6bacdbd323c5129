//! Waiting for what raises no event that a test could block on: a counter of another process, a file in a folder.

use std::sync::mpsc;
use std::time::Duration;

use ingress_user::worker::clock::Now;

/// Between two looks. A look may cost a process (`ingress status`), so not all the time.
const STEP: Duration = Duration::from_millis(20);

/// Returns as soon as `condition` holds; panics, naming `what`, when it does not within `timeout`.
///
/// This is not a sleep: nothing depends on the length of a step. The channel, which never brings anything, is only what a
/// thread can wait on with a deadline.
pub fn wait_for(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Now::read().monotonic + timeout;
    let (_never_sends, step) = mpsc::channel::<()>();
    while !condition() {
        assert!(Now::read().monotonic < deadline, "no {what} within {timeout:?}");
        let _step_is_over = step.recv_timeout(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_asked_until_it_holds() {
        let mut asked = 0;
        wait_for("third question", Duration::from_secs(10), || {
            asked += 1;
            asked == 3
        });
        assert_eq!(asked, 3);
    }

    #[test]
    #[should_panic(expected = "no miracle within 1ms")]
    fn what_never_comes_is_named() {
        wait_for("miracle", Duration::from_millis(1), || false);
    }
}
