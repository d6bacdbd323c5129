//! Connection to bucket: a seeded hash of the 4-tuple.
//!
//! Two 64-bit multiplications for IPv4, five for IPv6. It resists an outsider who does not know the seed and sees no
//! bucket, which is all that balance needs; it is not a cryptographic hash.

use crate::abi::BUCKETS;
use crate::decode::{Addresses, Segment};

/// Odd, with bits set all over: multiplication carries every input bit upwards (from the golden ratio, Knuth 6.4).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bits of a bucket number.
const BUCKET_BITS: u32 = BUCKETS.trailing_zeros();

/// Bucket of a connection by its hash, below [`BUCKETS`].
#[inline(always)]
pub fn bucket_of(connection: u64) -> u32 {
    // The top bits are those that every input bit reaches.
    (connection >> (u64::BITS - BUCKET_BITS)) as u32
}

/// Slot of a source in a table, to be cut to its size. Not seeded: a source that shares a slot is at worst sampled more often.
#[inline(always)]
pub fn slot_of(source: u64) -> u32 {
    (mix(0, source) >> u32::BITS) as u32
}

/// Two hashes of a source, of which the top bits are to be used.
#[inline(always)]
pub fn two_of(source: u64, seed: u64) -> [u64; 2] {
    let first = mix(seed, source);
    [first, mix(seed, first)]
}

/// Hash of the 4-tuple. Both ends of the kernel's life of a connection (SYN, data, FIN) see the same 4-tuple and thus the same bucket.
#[inline(always)]
pub fn connection(segment: &Segment, seed: u64) -> u64 {
    let ports = u64::from(segment.source_port) << 16 | u64::from(segment.destination_port);
    let state = match segment.addresses {
        Addresses::V4 { source, destination } => {
            mix(seed, u64::from(source) << 32 | u64::from(destination))
        }
        Addresses::V6 { source, destination } => {
            let state = mix(mix(seed, source.high), source.low);
            mix(mix(state, destination.high), destination.low)
        }
    };
    mix(state, ports)
}

/// The upper half of the product depends on all bits of the word, the lower half only on lower ones: fold it back.
#[inline(always)]
fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(MULTIPLIER);
    product ^ (product >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::V6;

    const SEED: u64 = 0x1234_5678_9abc_def0;

    fn v4(source: u32, source_port: u16) -> Segment {
        let addresses = Addresses::V4 { source, destination: 0x0a00_0001 };
        Segment { addresses, source_port, destination_port: 25, flags: 0, payload_bytes: 0 }
    }

    /// Fullest bucket over the mean, for 256 connections a bucket: a fair hash stays below 1.3 (4.5 sigma).
    fn worst_load(segments: impl Iterator<Item = Segment>) -> f64 {
        let mut load = [0_u32; BUCKETS as usize];
        let mut total = 0;
        for segment in segments {
            load[bucket_of(connection(&segment, SEED)) as usize] += 1;
            total += 1;
        }
        f64::from(*load.iter().max().unwrap()) * f64::from(BUCKETS) / f64::from(total)
    }

    #[test]
    fn one_client_with_many_ports_spreads() {
        let worst = worst_load((0..=u16::MAX).map(|port| v4(0xc0a8_0001, port)));
        assert!(worst < 1.3, "{worst}");
    }

    #[test]
    fn neighbouring_clients_with_one_port_spread() {
        let worst = worst_load((0..65_536).map(|host| v4(0xc0a8_0000 + host, 40_000)));
        assert!(worst < 1.3, "{worst}");
    }

    #[test]
    fn neighbouring_v6_networks_spread() {
        let worst = worst_load((0..65_536).map(|network| {
            let source = V6 { high: 0x2001_0db8_0000_0000 + network, low: 1 };
            let addresses = Addresses::V6 { source, destination: V6 { high: 0, low: 1 } };
            Segment {
                addresses,
                source_port: 40_000,
                destination_port: 25,
                flags: 0,
                payload_bytes: 0,
            }
        }));
        assert!(worst < 1.3, "{worst}");
    }

    #[test]
    fn the_seed_changes_the_bucket() {
        let moved = (0..1_000_u16)
            .filter(|port| {
                let segment = v4(1, *port);
                let [before, after] = [SEED, SEED + 1].map(|seed| connection(&segment, seed));
                bucket_of(before) != bucket_of(after)
            })
            .count();
        assert!(moved > 900, "{moved} of 1000");
    }
}
