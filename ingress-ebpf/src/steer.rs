//! Which CPU a packet goes to. Buckets of the connection hash move between CPUs; connections that are open stay.
//!
//! A bucket that never moved names one CPU, and nothing else is looked at. In one that moved, each new connection is remembered
//! with the CPU it was given, and whoever is not remembered was there before the first move. A connection that is forgotten goes
//! home as well: its packets are then handled on another CPU than its worker's, which costs time and loses nothing.

use crate::abi::tcp_flags as flag;

/// Where the connections of a bucket go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// CPU of new connections.
    pub current: u32,
    /// CPU of those that were open before the first move. 31 bits.
    pub home: u32,
    /// Stays set, back at home too: connections may be open elsewhere.
    pub has_moved: bool,
}

const HOME_SHIFT: u32 = 32;
const MOVED: u64 = 1 << 63;

impl Bucket {
    /// One that never moved.
    pub const fn at(cpu: u32) -> Self {
        Self { current: cpu, home: cpu, has_moved: false }
    }

    /// New connections go to `cpu` from now on.
    pub const fn moved_to(self, cpu: u32) -> Self {
        Self { current: cpu, has_moved: true, ..self }
    }

    /// As one word, so that a packet never sees half a move.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        let moved = if self.has_moved { MOVED } else { 0 };
        self.current as u64 | (self.home as u64) << HOME_SHIFT | moved
    }

    /// What [`pack`](Self::pack) was given.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        let home = ((word & !MOVED) >> HOME_SHIFT) as u32;
        Self { current: word as u32, home, has_moved: word & MOVED != 0 }
    }
}

/// The connections of moved buckets, as far as they are remembered: a map of the kernel.
pub trait Connections {
    /// The CPU that this connection was given.
    fn cpu(&self, connection: u64) -> Option<u32>;
    /// The same for a new one; it may push out another.
    fn remember(&mut self, connection: u64, cpu: u32);
}

/// The CPU for a packet with these TCP flags of the connection with this hash.
#[inline(always)]
pub fn cpu<C: Connections>(bucket: Bucket, flags: u8, connection: u64, connections: &mut C) -> u32 {
    if !bucket.has_moved {
        return bucket.current;
    }
    if flags & (flag::SYN | flag::ACK) == flag::SYN {
        // Also where it is remembered: ports are used again.
        connections.remember(connection, bucket.current);
        return bucket.current;
    }
    connections.cpu(connection).unwrap_or(bucket.home)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Remembered(HashMap<u64, u32>);

    impl Connections for Remembered {
        fn cpu(&self, connection: u64) -> Option<u32> {
            self.0.get(&connection).copied()
        }

        fn remember(&mut self, connection: u64, cpu: u32) {
            self.0.insert(connection, cpu);
        }
    }

    /// Fails when it is asked.
    struct Untouched;

    impl Connections for Untouched {
        fn cpu(&self, _connection: u64) -> Option<u32> {
            panic!("looked up");
        }

        fn remember(&mut self, _connection: u64, _cpu: u32) {
            panic!("remembered");
        }
    }

    const FLAGS: [u8; 5] = [flag::ACK, flag::ACK | flag::PSH, flag::FIN, flag::RST, flag::SYN];

    #[test]
    fn nothing_is_looked_up_in_a_bucket_that_never_moved() {
        for flags in FLAGS {
            assert_eq!(cpu(Bucket::at(3), flags, 7, &mut Untouched), 3);
        }
    }

    #[test]
    fn a_connection_keeps_its_cpu_whatever_its_bucket_does() {
        let mut connections = Remembered::default();
        let mut bucket = Bucket::at(0);
        // The first of them came before any move.
        let mut open = vec![(0, 0)];
        for (connection, to) in [(1, 2), (2, 1), (3, 0), (4, 2)] {
            bucket = bucket.moved_to(to);
            open.push((connection, to));
            assert_eq!(cpu(bucket, flag::SYN, connection, &mut connections), to);
            for &(connection, given) in &open {
                for flags in [flag::ACK, flag::ACK | flag::PSH, flag::FIN | flag::ACK] {
                    assert_eq!(cpu(bucket, flags, connection, &mut connections), given);
                }
            }
        }
    }

    #[test]
    fn a_port_that_is_used_again_goes_where_its_bucket_went() {
        let mut connections = Remembered::default();
        let first = Bucket::at(0).moved_to(1);
        assert_eq!(cpu(first, flag::SYN, 7, &mut connections), 1);
        let second = first.moved_to(0);
        assert_eq!(cpu(second, flag::SYN, 7, &mut connections), 0);
        assert_eq!(cpu(second, flag::ACK, 7, &mut connections), 0);
    }

    #[test]
    fn who_is_forgotten_goes_home() {
        let bucket = Bucket::at(2).moved_to(1);
        assert_eq!(cpu(bucket, flag::ACK, 7, &mut Remembered::default()), 2);
    }

    #[test]
    fn an_answer_to_a_syn_opens_nothing() {
        let mut connections = Remembered::default();
        let bucket = Bucket::at(2).moved_to(1);
        assert_eq!(cpu(bucket, flag::SYN | flag::ACK, 7, &mut connections), 2);
        assert!(connections.0.is_empty());
    }

    proptest! {
        #[test]
        fn a_bucket_unpacks_to_what_was_packed(
            current: u32,
            home in 0..=u32::MAX >> 1,
            has_moved: bool,
        ) {
            let bucket = Bucket { current, home, has_moved };
            prop_assert_eq!(Bucket::unpack(bucket.pack()), bucket);
        }
    }
}
