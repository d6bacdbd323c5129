//! Receive buffers: a bounded pool per worker, and the chunks of message body cut out of them.
//!
//! A buffer is owned by exactly one place at a time: the pool, a connection, or the spool writer. That is what lets body
//! octets go from `recv` to `writev` without a copy.

use std::ops::Range;

use smallvec::SmallVec;

/// Size of every receive buffer. A TLS record on the wire is at most 18,437 octets (RFC 8446 5.2 with header); 64 KiB holds
/// three, so a started record can always be finished in the same buffer.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers the pool keeps when nobody needs them; the rest goes back to the allocator.
const IDLE_BUFFERS_MAX: usize = 64;

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
}

impl BufferPool {
    pub fn new(buffers_max: usize) -> Self {
        Self { idle: Vec::new(), lent: 0, buffers_max }
    }

    /// Lends a buffer, the one given back last first: its pages are warm.
    pub fn checkout(&mut self) -> Option<Buffer> {
        if self.lent == self.buffers_max {
            return None;
        }
        self.lent += 1;
        Some(self.idle.pop().unwrap_or_else(Buffer::standalone))
    }

    pub fn give_back(&mut self, buffer: Buffer) {
        debug_assert!(self.lent > 0, "a buffer came back that was never lent");
        self.lent -= 1;
        if self.idle.len() < IDLE_BUFFERS_MAX {
            self.idle.push(buffer);
        }
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

    #[test]
    fn the_pool_lends_no_more_than_its_bound() {
        let mut pool = BufferPool::new(2);
        let first = pool.checkout().unwrap();
        let _second = pool.checkout().unwrap();
        assert!(pool.checkout().is_none());
        pool.give_back(first);
        assert!(pool.checkout().is_some());
        assert_eq!(pool.lent(), 2);
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
