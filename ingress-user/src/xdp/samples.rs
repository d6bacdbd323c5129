//! Samples of dropped packets, on their way from the kernel's ring to the log and to whoever watches.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ingress_ebpf::abi::tcp_flags;
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio::time::{MissedTickBehavior, interval};

use super::filter::{DroppedPacket, Filter};
use crate::log_budget::LogBudget;
use crate::worker::clock::Now;

/// How often the ring is emptied. It holds some thousand samples.
const COLLECT_INTERVAL: Duration = Duration::from_millis(100);

/// Samples that wait for one reader; beyond, it misses the oldest and is told how many.
const SAMPLES_WAITING_MAX: usize = 4_096;

/// Where samples can be had.
#[derive(Clone)]
pub struct SampleFeed(broadcast::Sender<Arc<str>>);

/// One reader's end.
pub struct SampleReader(broadcast::Receiver<Arc<str>>);

impl SampleFeed {
    #[must_use]
    pub fn new() -> Self {
        Self(broadcast::channel(SAMPLES_WAITING_MAX).0)
    }

    /// Samples from now on.
    pub fn read(&self) -> SampleReader {
        SampleReader(self.0.subscribe())
    }

    /// Empties the ring again and again, into the log as far as its budget goes, and to the readers. Never ends.
    pub async fn run(self, filter: Arc<Filter>) {
        let mut turns = interval(COLLECT_INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut log = LogBudget::default();
        loop {
            turns.tick().await;
            let second = Now::read().unix_micros() / 1_000_000;
            for sample in filter.samples() {
                if let Some(suppressed) = log.take(second) {
                    tracing::info!(suppressed, "XDP dropped a packet: {sample}");
                }
                if self.0.receiver_count() > 0 {
                    // Readers may leave at any time.
                    let _ = self.0.send(sample.to_string().into());
                }
            }
        }
    }
}

impl Default for SampleFeed {
    fn default() -> Self {
        Self::new()
    }
}

impl SampleReader {
    /// Lines that came since the last call, with a note of how many had no room.
    pub fn take(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.0.try_recv() {
                Ok(line) => lines.push(line.to_string()),
                Err(TryRecvError::Lagged(missed)) => {
                    lines.push(format!(
                        "({missed} samples missed: there were more than could be shown)"
                    ));
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return lines,
            }
        }
    }
}

impl fmt::Display for DroppedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, verdict, destination_port, flags, queue, interface_index } = self;
        write!(f, "{verdict} {source} to port {destination_port}, flags ")?;
        let mut names = tcp_flags::NAMES.iter().filter(|(bit, _)| flags & bit != 0);
        match names.next() {
            None => f.write_str("none")?,
            Some((_, first)) => {
                f.write_str(first)?;
                names.try_for_each(|(_, name)| write!(f, "+{name}"))?;
            }
        }
        write!(f, ", queue {queue} of interface {interface_index}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(flags: u8) -> DroppedPacket {
        DroppedPacket {
            source: [192, 0, 2, 7].into(),
            verdict: "banned",
            destination_port: 25,
            flags,
            queue: 1,
            interface_index: 2,
        }
    }

    #[test]
    fn a_sample_reads_as_a_sentence() {
        assert_eq!(
            sample(0x12).to_string(),
            "banned 192.0.2.7 to port 25, flags SYN+ACK, queue 1 of interface 2"
        );
        assert!(sample(0).to_string().contains("flags none"));
    }

    #[test]
    fn a_reader_that_does_not_keep_up_is_told_how_many_it_missed() {
        let feed = SampleFeed::new();
        let mut reader = feed.read();
        for _ in 0..SAMPLES_WAITING_MAX + 3 {
            feed.0.send("line".into()).unwrap();
        }
        let lines = reader.take();
        assert!(lines[0].starts_with("(3 samples missed"), "{}", lines[0]);
        assert_eq!(lines.len(), SAMPLES_WAITING_MAX + 1);
        assert!(reader.take().is_empty());
    }
}
