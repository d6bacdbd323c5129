//! Clients that keep coming, while a test does something to the daemon.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::netns;

/// Messages of one run of smtp-source, each with a connection of its own.
const MESSAGES: u64 = 100;

/// Sends mail until it is told to stop.
#[derive(Debug, Default)]
pub struct Load {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl Load {
    /// Sends with a command that is given smtp-source's arguments, to `inet:ADDRESS:PORT`. Panics at anything but accepted mail:
    /// smtp-source ends with an error when it is refused, reset or sent away.
    pub fn run(&self, source: impl Fn() -> Command, to: &str) {
        while !self.stop.load(Ordering::Relaxed) {
            let mut command = source();
            let count = MESSAGES.to_string();
            netns::output(command.args(["-s", "4", "-l", "1024", "-m", &count, to])).unwrap();
            self.sent.fetch_add(MESSAGES, Ordering::Relaxed);
        }
    }

    /// Messages that were accepted, in whole runs.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// After the run under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
