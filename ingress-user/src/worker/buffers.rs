//! Receive buffers: a bounded pool per worker, and the chunks of message body cut out of them.
//!
//! A buffer is owned by exactly one place at a time: the pool, a connection, or the spool writer. That is what lets body
//! octets go from `recv` to `writev` without a copy.

use std::ops::Range;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// Size of every receive buffer. A TLS record on the wire is at most 18,437 octets (RFC 8446 5.2 with header); 64 KiB holds
/// three, so a started record can always be finished in the same buffer.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers the pool keeps whatever the load; 4 MiB.
const KEPT_BUFFERS: usize = 64;

/// So often the pool gives back to the allocator what was not needed since the last time. A buffer that is new to the process is
/// zeroed page by page, which costs more than the message that it takes.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);

/// Memory for one or more receives.
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// A buffer outside any pool, for tests and tools.
    pub fn standalone() -> Self {
        Self(vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buffer")
    }
}

/// A buffer and the pieces of it that are message body, in order.
#[derive(Debug)]
pub struct Chunk {
    buffer: Buffer,
    pieces: SmallVec<[Range<u32>; 4]>,
}

impl Chunk {
    pub fn new(buffer: Buffer, pieces: SmallVec<[Range<u32>; 4]>) -> Self {
        debug_assert!(pieces.iter().all(|p| p.start <= p.end && p.end as usize <= BUFFER_BYTES));
        Self { buffer, pieces }
    }

    /// The body octets, piece by piece.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|p| &self.buffer.bytes()[p.start as usize..p.end as usize])
    }

    pub fn byte_count(&self) -> u64 {
        self.pieces.iter().map(|p| u64::from(p.end - p.start)).sum()
    }

    pub fn into_buffer(self) -> Buffer {
        self.buffer
    }
}

/// The buffers of one worker. Lends at most `buffers_max`; `None` from [`checkout`](Self::checkout) is the answer when
/// all are out.
pub struct BufferPool {
    idle: Vec<Buffer>,
    lent: usize,
    buffers_max: usize,
    /// The most that were lent at a time since the last trim.
    lent_at_most: usize,
    trim_at: Instant,
}

impl BufferPool {
    pub fn new(buffers_max: usize, now: Instant) -> Self {
        let trim_at = now + TRIM_INTERVAL;
        Self { idle: Vec::new(), lent: 0, buffers_max, lent_at_most: 0, trim_at }
    }

    /// Lends a buffer, the one given back last first: its pages are warm.
    pub fn checkout(&mut self) -> Option<Buffer> {
        if self.lent == self.buffers_max {
            return None;
        }
        self.lent += 1;
        self.lent_at_most = self.lent_at_most.max(self.lent);
        Some(self.idle.pop().unwrap_or_else(Buffer::standalone))
    }

    pub fn give_back(&mut self, buffer: Buffer) {
        debug_assert!(self.lent > 0, "a buffer came back that was never lent");
        self.lent -= 1;
        self.idle.push(buffer);
    }

    /// Frees what was not needed since the last time, once the time for it has come.
    pub fn trim(&mut self, now: Instant) {
        if now < self.trim_at {
            return;
        }
        let needed = self.lent_at_most.max(KEPT_BUFFERS);
        self.idle.truncate(needed.saturating_sub(self.lent));
        self.idle.shrink_to(KEPT_BUFFERS);
        self.lent_at_most = self.lent;
        self.trim_at = now + TRIM_INTERVAL;
    }

    /// When there may be something to free: whoever waits for nothing else is to come back then.
    pub fn wants_trim_at(&self) -> Option<Instant> {
        (self.idle.len() + self.lent > KEPT_BUFFERS).then_some(self.trim_at)
    }

    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Buffers that can be lent now.
    pub fn available(&self) -> usize {
        self.buffers_max - self.lent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::clock::Now;

    #[test]
    fn the_pool_lends_no_more_than_its_bound() {
        let mut pool = BufferPool::new(2, Now::read().monotonic);
        let first = pool.checkout().unwrap();
        let _second = pool.checkout().unwrap();
        assert!(pool.checkout().is_none());
        pool.give_back(first);
        assert!(pool.checkout().is_some());
        assert_eq!(pool.lent(), 2);
    }

    #[test]
    fn what_a_burst_needed_is_kept_for_a_while_and_then_freed() {
        let start = Now::read().monotonic;
        let mut pool = BufferPool::new(1_000, start);
        let burst: Vec<Buffer> = (0..500).map(|_| pool.checkout().unwrap()).collect();
        burst.into_iter().for_each(|buffer| pool.give_back(buffer));
        pool.trim(start + TRIM_INTERVAL / 2);
        assert_eq!(pool.idle.len(), 500, "not yet");
        let first = pool.wants_trim_at().unwrap();
        pool.trim(first);
        assert_eq!(pool.idle.len(), 500, "needed since the last time");
        let second = pool.wants_trim_at().unwrap();
        assert_eq!(second, first + TRIM_INTERVAL);
        pool.trim(second);
        assert_eq!(pool.idle.len(), KEPT_BUFFERS, "not needed since");
        assert_eq!(pool.wants_trim_at(), None);
    }

    #[test]
    fn a_chunk_yields_its_pieces_only() {
        let mut buffer = Buffer::standalone();
        buffer.bytes_mut()[..10].copy_from_slice(b"abcdefghij");
        let chunk = Chunk::new(buffer, [0..2, 5..8].into_iter().collect());
        assert_eq!(chunk.pieces().collect::<Vec<_>>(), [&b"ab"[..], b"fgh"]);
        assert_eq!(chunk.byte_count(), 5);
    }
}
