//! A connection's received octets: which buffer they stand in, what of it is decrypted, what is message body.
//!
//! The octets of a buffer, front to back: pieces of the message and gaps (used commands, TLS framing), then `plain`, then
//! `sealed`, then free space. In clear, received octets are `plain` at once; under TLS they are `sealed` until their record
//! is decrypted in place.

use std::ops::Range;

use smallvec::SmallVec;

use super::buffers::{BUFFER_BYTES, Buffer, BufferPool, Chunk};
use super::tls::{RECORD_BYTES_MAX, record_end};

/// Free space below which a buffer counts as full in clear: a receive into less is not worth its system call.
const RECEIVE_BYTES_MIN: usize = 4096;

/// Behind so many pieces of a buffer, small ones are moved up to the piece before them: a message in chunks or TLS records of an
/// octet each would else take a buffer's space for their framing, and as much memory again for the list of pieces. A message of
/// records or chunks that are worth their framing is never moved.
const UNMOVED_PIECES_MAX: usize = 4;

/// Pieces up to this size are small.
const MOVED_PIECE_BYTES_MAX: usize = 256;

/// How received octets are framed, which decides how far a buffer is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Clear,
    /// Handshake messages may span records, so the whole buffer is theirs.
    Handshake,
    /// Records are finished in the buffer they began in, so that nothing is ever moved.
    Records,
}

/// Whether there is room to receive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Space {
    Free,
    /// The pool has lent all its buffers.
    NoBuffer,
    /// What is in the buffer fills it and makes no sense without more.
    Stuck,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    buffer: Option<Buffer>,
    plain: Range<usize>,
    sealed: Range<usize>,
    pieces: SmallVec<[Range<u32>; UNMOVED_PIECES_MAX]>,
    /// Buffers of the message that are full.
    chunks: Vec<Chunk>,
}

impl Window {
    /// Octets to be given to the session.
    pub(super) fn plain(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|b| b.bytes().get(self.plain.clone())).unwrap_or_default()
    }

    /// Octets to be given to TLS.
    pub(super) fn sealed_mut(&mut self) -> &mut [u8] {
        let sealed = self.sealed.clone();
        self.buffer.as_mut().and_then(|b| b.bytes_mut().get_mut(sealed)).unwrap_or_default()
    }

    /// TLS has used `used` octets, and `plain` of them, counted from the front, are decrypted.
    pub(super) fn unsealed(&mut self, used: usize, plain: Range<usize>) {
        debug_assert!(self.plain.is_empty(), "the last record is read before the next is opened");
        let start = self.sealed.start;
        self.plain = start + plain.start..start + plain.end;
        self.sealed.start = (start + used).min(self.sealed.end);
    }

    /// What was received in clear is TLS from here on.
    pub(super) fn seal(&mut self) {
        self.sealed = self.plain.clone();
        self.plain = self.sealed.start..self.sealed.start;
    }

    /// The first `count` octets of [`plain`](Self::plain) are done with, and not needed.
    pub(super) fn consume(&mut self, count: usize) {
        self.plain.start += count;
    }

    /// The first `count` octets of [`plain`](Self::plain) are message body.
    pub(super) fn keep(&mut self, count: usize) {
        let start = self.plain.start;
        self.plain.start += count;
        if count == 0 {
            return;
        }
        let piece = start as u32..self.plain.start as u32;
        let is_crowded = self.pieces.len() >= UNMOVED_PIECES_MAX;
        match (self.pieces.last_mut(), &mut self.buffer) {
            (Some(last), _) if last.end == piece.start => last.end = piece.end,
            (Some(last), Some(buffer)) if is_crowded && count <= MOVED_PIECE_BYTES_MAX => {
                let target = last.end as usize;
                buffer.bytes_mut().copy_within(start..start + count, target);
                last.end += count as u32;
            }
            _ => self.pieces.push(piece),
        }
    }

    /// Forgets the message kept so far.
    pub(super) fn drop_message(&mut self, pool: &mut BufferPool) {
        self.pieces.clear();
        for chunk in self.chunks.drain(..) {
            pool.give_back(chunk.into_buffer());
        }
    }

    /// Takes the message kept so far. Octets behind it, which are commands of the next transaction, move to a fresh buffer;
    /// `None` when the pool has none, and then nothing has changed.
    pub(super) fn take_message(&mut self, pool: &mut BufferPool) -> Option<Vec<Chunk>> {
        if self.pieces.is_empty() {
            return Some(std::mem::take(&mut self.chunks));
        }
        let rest = self.plain.len() + self.sealed.len();
        let mut fresh = if rest == 0 { None } else { Some(pool.checkout()?) };
        let full = self.buffer.take()?;
        if let Some(fresh) = &mut fresh {
            let (plain, sealed) = (self.plain.clone(), self.sealed.clone());
            let target = fresh.bytes_mut();
            target[..plain.len()].copy_from_slice(&full.bytes()[plain.clone()]);
            target[plain.len()..rest].copy_from_slice(&full.bytes()[sealed]);
            self.plain = 0..plain.len();
            self.sealed = plain.len()..rest;
        } else {
            (self.plain, self.sealed) = (0..0, 0..0);
        }
        self.buffer = fresh;
        self.chunks.push(Chunk::new(full, std::mem::take(&mut self.pieces)));
        Some(std::mem::take(&mut self.chunks))
    }

    /// Makes room for a receive: a buffer if there is none, another if this one is full of message.
    pub(super) fn make_space(&mut self, framing: Framing, pool: &mut BufferPool) -> Space {
        self.rotate(framing, pool);
        if self.buffer.is_none() {
            match pool.checkout() {
                Some(buffer) => self.buffer = Some(buffer),
                None => return Space::NoBuffer,
            }
        }
        if self.free(framing).is_empty() {
            self.move_sealed_to_front();
        }
        if self.free(framing).is_empty() { Space::Stuck } else { Space::Free }
    }

    /// Where the next octets go. Empty before [`make_space`](Self::make_space).
    pub(super) fn space(&mut self, framing: Framing) -> &mut [u8] {
        let free = self.free(framing);
        self.buffer.as_mut().and_then(|b| b.bytes_mut().get_mut(free)).unwrap_or_default()
    }

    /// `count` octets have been received into [`space`](Self::space).
    pub(super) fn received(&mut self, count: usize, framing: Framing) {
        match framing {
            Framing::Clear => self.plain.end += count,
            Framing::Handshake | Framing::Records => {
                if self.sealed.is_empty() {
                    let end = self.filled();
                    self.sealed = end..end;
                }
                self.sealed.end += count;
            }
        }
    }

    /// Gives the buffer back when nothing in it is needed: an idle connection holds none.
    pub(super) fn settle(&mut self, pool: &mut BufferPool) {
        if self.plain.is_empty() && self.sealed.is_empty() && self.pieces.is_empty() {
            (self.plain, self.sealed) = (0..0, 0..0);
            if let Some(buffer) = self.buffer.take() {
                pool.give_back(buffer);
            }
        }
    }

    /// Gives everything back.
    pub(super) fn close(&mut self, pool: &mut BufferPool) {
        self.drop_message(pool);
        (self.plain, self.sealed) = (0..0, 0..0);
        self.settle(pool);
    }

    /// Begins anew at the front of the buffer where nothing in it is needed; hands a full one over to the message.
    fn rotate(&mut self, framing: Framing, pool: &mut BufferPool) {
        if !self.plain.is_empty() || !self.sealed.is_empty() {
            return;
        }
        // What stood between the message and here is used.
        let end = self.pieces.last().map_or(0, |piece| piece.end as usize);
        (self.plain, self.sealed) = (end..end, end..end);
        if self.pieces.is_empty() {
            return;
        }
        let needed = match framing {
            Framing::Clear => RECEIVE_BYTES_MIN,
            Framing::Handshake | Framing::Records => RECORD_BYTES_MAX + RECEIVE_BYTES_MIN,
        };
        if BUFFER_BYTES - self.filled() >= needed {
            return;
        }
        if let Some(fresh) = pool.checkout()
            && let Some(full) = self.buffer.replace(fresh)
        {
            self.chunks.push(Chunk::new(full, std::mem::take(&mut self.pieces)));
            (self.plain, self.sealed) = (0..0, 0..0);
        }
    }

    /// After a handshake that filled the buffer, a record may have begun where it does not fit. Only then, and never with
    /// message body in the buffer, are octets moved.
    fn move_sealed_to_front(&mut self) {
        if !self.plain.is_empty() || !self.pieces.is_empty() {
            return;
        }
        if let Some(buffer) = &mut self.buffer {
            buffer.bytes_mut().copy_within(self.sealed.clone(), 0);
            (self.plain, self.sealed) = (0..0, 0..self.sealed.len());
        }
    }

    /// End of what the buffer holds.
    fn filled(&self) -> usize {
        let message_end = self.pieces.last().map_or(0, |piece| piece.end as usize);
        self.plain.end.max(self.sealed.end).max(message_end)
    }

    fn free(&self, framing: Framing) -> Range<usize> {
        let filled = self.filled();
        let limit = match framing {
            Framing::Clear | Framing::Handshake => BUFFER_BYTES,
            // A record is begun only where it surely fits, and one that began is finished here.
            Framing::Records if self.sealed.is_empty() => BUFFER_BYTES - RECORD_BYTES_MAX,
            Framing::Records => {
                let sealed = self.buffer.as_ref().and_then(|b| b.bytes().get(self.sealed.clone()));
                let finished = self.sealed.start + record_end(sealed.unwrap_or_default());
                finished.clamp(BUFFER_BYTES - RECORD_BYTES_MAX, BUFFER_BYTES)
            }
        };
        filled..limit.max(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::clock::Now;

    fn receive(window: &mut Window, pool: &mut BufferPool, octets: &[u8], framing: Framing) {
        assert_eq!(window.make_space(framing, pool), Space::Free);
        window.space(framing)[..octets.len()].copy_from_slice(octets);
        window.received(octets.len(), framing);
    }

    fn message(chunks: &[Chunk]) -> Vec<u8> {
        chunks.iter().flat_map(Chunk::pieces).flatten().copied().collect()
    }

    #[test]
    fn an_idle_connection_holds_no_buffer() {
        let mut pool = BufferPool::new(1, Now::read().monotonic);
        let mut window = Window::default();
        receive(&mut window, &mut pool, b"NOOP\r\n", Framing::Clear);
        assert_eq!(pool.lent(), 1);
        window.consume(6);
        window.settle(&mut pool);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn commands_behind_a_message_survive_its_hand_over() {
        let mut pool = BufferPool::new(2, Now::read().monotonic);
        let mut window = Window::default();
        receive(&mut window, &mut pool, b"DATA\r\nbody\r\n.\r\nQUIT\r\n", Framing::Clear);
        window.consume(6);
        window.keep(6);
        window.keep(3);
        let chunks = window.take_message(&mut pool).unwrap();
        assert_eq!(message(&chunks), b"body\r\n.\r\n");
        assert_eq!(window.plain(), b"QUIT\r\n");
    }

    #[test]
    fn without_a_buffer_for_what_is_behind_nothing_is_taken() {
        let mut pool = BufferPool::new(1, Now::read().monotonic);
        let mut window = Window::default();
        receive(&mut window, &mut pool, b"body\r\n.\r\nQUIT\r\n", Framing::Clear);
        window.keep(9);
        assert!(window.take_message(&mut pool).is_none());
        assert_eq!(window.plain(), b"QUIT\r\n");
        window.drop_message(&mut pool);
        assert_eq!(window.plain(), b"QUIT\r\n");
    }

    #[test]
    fn a_message_larger_than_a_buffer_becomes_chunks_in_order() {
        let mut pool = BufferPool::new(4, Now::read().monotonic);
        let mut window = Window::default();
        let mut sent = Vec::new();
        for round in 0..40u8 {
            let octets = vec![round; 4000];
            receive(&mut window, &mut pool, &octets, Framing::Clear);
            window.keep(octets.len());
            sent.extend(octets);
        }
        let chunks = window.take_message(&mut pool).unwrap();
        assert_eq!(chunks.len(), 3);
        assert_eq!(message(&chunks), sent);
    }

    #[test]
    fn a_message_in_tiny_chunks_takes_little_more_than_its_octets() {
        let mut pool = BufferPool::new(2, Now::read().monotonic);
        let mut window = Window::default();
        // In clear with a command before each octet, ten at a time.
        for round in 0..2_000 {
            receive(&mut window, &mut pool, &b"BDAT 1\r\nx".repeat(10), Framing::Clear);
            for _ in 0..10 {
                window.consume(8);
                window.keep(1);
            }
            assert!(window.pieces.len() <= UNMOVED_PIECES_MAX, "round {round}");
        }
        assert_eq!(pool.lent(), 1);
        assert_eq!(message(&window.take_message(&mut pool).unwrap()), b"x".repeat(20_000));
    }

    #[test]
    fn a_message_in_tiny_records_takes_little_more_than_its_octets() {
        let mut pool = BufferPool::new(2, Now::read().monotonic);
        let mut window = Window::default();
        for _ in 0..20_000 {
            receive(&mut window, &mut pool, b"hhhhhAtttttttttttttttt", Framing::Records);
            window.unsealed(22, 5..6);
            window.keep(1);
        }
        assert_eq!((pool.lent(), window.pieces.len()), (1, UNMOVED_PIECES_MAX));
        assert_eq!(message(&window.take_message(&mut pool).unwrap()), b"A".repeat(20_000));
    }

    #[test]
    fn a_started_record_is_finished_in_its_buffer() {
        let mut pool = BufferPool::new(2, Now::read().monotonic);
        let mut window = Window::default();
        // A record of 16,000 octets of which the header has come, in a buffer that is full up to its last record's worth.
        let body = vec![0; BUFFER_BYTES - RECORD_BYTES_MAX - RECEIVE_BYTES_MIN];
        receive(&mut window, &mut pool, &body, Framing::Records);
        window.unsealed(body.len(), 0..body.len());
        window.keep(body.len());
        receive(&mut window, &mut pool, &[23, 3, 3, 0x3e, 0x80], Framing::Records);
        assert_eq!(window.space(Framing::Records).len(), 16_000);
        assert_eq!(pool.lent(), 1);
    }

    #[test]
    fn an_endless_handshake_message_gets_stuck_instead_of_growing() {
        let mut pool = BufferPool::new(1, Now::read().monotonic);
        let mut window = Window::default();
        receive(&mut window, &mut pool, &vec![22; BUFFER_BYTES], Framing::Handshake);
        assert_eq!(window.make_space(Framing::Handshake, &mut pool), Space::Stuck);
    }

    #[test]
    fn a_record_begun_at_the_end_of_a_handshake_is_moved_to_where_it_fits() {
        let mut pool = BufferPool::new(1, Now::read().monotonic);
        let mut window = Window::default();
        receive(&mut window, &mut pool, &vec![22; BUFFER_BYTES], Framing::Handshake);
        window.unsealed(BUFFER_BYTES - 3, 0..0);
        assert_eq!(window.make_space(Framing::Records, &mut pool), Space::Free);
        assert_eq!(window.sealed_mut(), [22; 3]);
    }

    #[test]
    fn decrypted_octets_are_pieces_without_their_framing() {
        let mut pool = BufferPool::new(1, Now::read().monotonic);
        let mut window = Window::default();
        receive(&mut window, &mut pool, b"hhhhhAAAAtthhhhhBBtt", Framing::Records);
        window.unsealed(11, 5..9);
        assert_eq!(window.plain(), b"AAAA");
        window.keep(4);
        assert_eq!(window.sealed_mut(), b"hhhhhBBtt");
        window.unsealed(9, 5..7);
        window.keep(2);
        let chunks = window.take_message(&mut pool).unwrap();
        assert_eq!(message(&chunks), b"AAAABB");
    }
}
