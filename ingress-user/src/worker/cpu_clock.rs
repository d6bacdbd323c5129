//! The CPU time of one thread, read by another.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Of the calling thread (proc(5)). Unlike `schedstat` it is there whatever the kernel was built with; its ticks are exact enough
/// for a share of a second.
const STAT: &str = "/proc/thread-self/stat";

/// A tick of [`STAT`]: USER_HZ is 100 on every system that the daemon runs on.
const TICK: Duration = Duration::from_millis(10);

/// Longer than any `stat`: a name of 64 octets at most and 51 numbers.
const STAT_BYTES_MAX: usize = 2_048;

/// Tells what a thread has taken of its CPU, as long as the thread lives.
#[derive(Debug)]
pub struct CpuClock(File);

impl CpuClock {
    /// Of the calling thread. The file stays this thread's, whoever reads it.
    pub fn of_this_thread() -> io::Result<Self> {
        File::open(STAT).map(Self)
    }

    /// CPU time of user and kernel since the thread began, to 10 ms.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn spent(&self) -> io::Result<Duration> {
        let mut stat = [0; STAT_BYTES_MAX];
        let length = self.0.read_at(&mut stat, 0)?;
        let stat = stat.get(..length).unwrap_or_default();
        let ticks = ticks(&String::from_utf8_lossy(stat)).ok_or(ErrorKind::InvalidData)?;
        Ok(TICK.saturating_mul(ticks))
    }
}

/// The sum of utime and stime, which are fields 14 and 15.
fn ticks(stat: &str) -> Option<u32> {
    // The name is field 2 and may have any octets, spaces and parentheses too.
    let (_name, from_the_third) = stat.rsplit_once(") ")?;
    let mut times = from_the_third.split(' ').skip(11);
    let mut next = || times.next()?.parse::<u32>().ok();
    next()?.checked_add(next()?)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "7 (a) b) S 3 7 7 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 99";
        assert_eq!(ticks(stat), Some(120));
        assert_eq!(ticks("7 (worker-0) S 3"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn a_thread_that_works_is_seen_from_another_and_one_that_ended_is_not() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let clock = CpuClock::of_this_thread().unwrap();
            let start = clock.spent().unwrap();
            // Nothing here but its own clock tells it when to stop, and that runs only while it does.
            while clock.spent().unwrap() < start + 5 * TICK {}
            tell.send(clock).unwrap();
            let _is_over = ended.recv();
        });
        let clock = told.recv().unwrap();
        assert!(clock.spent().unwrap() >= 5 * TICK);
        drop(end);
        thread.join().unwrap();
        assert!(clock.spent().is_err());
    }
}
