//! The only place that reads a clock. A worker reads it once per turn of its loop and passes the value down.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines.
    pub monotonic: Instant,
    /// For what people and records see.
    pub wall: SystemTime,
}

impl Now {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Microseconds since 1970; 0 for a clock set before it.
    pub fn unix_micros(&self) -> u64 {
        self.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }
}
