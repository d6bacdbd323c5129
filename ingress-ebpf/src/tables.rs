//! The filter's tables in plain collections, for tests and fuzzing: exact where the kernel's maps may forget, with a clock that
//! the test moves.

use std::collections::HashMap;

use crate::abi::Listing;
use crate::decode::{Addresses, Segment};
use crate::filter::{Policy, Source, Tables};
use crate::hash;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainTables {
    /// Nanoseconds.
    pub now: u64,
    pub policy: Policy,
    /// When the ban of a source ends.
    pub bans: HashMap<u64, u64>,
    pub listings: Vec<(Prefix, Listing)>,
    pub sources: HashMap<u64, Source>,
    /// When the CPU's budget is whole again.
    pub whole_at: u64,
    /// By connection.
    pub first_seen: HashMap<u64, u64>,
}

/// A network, and the bits of an address that tell whether it is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    V4 { address: u32, bits: u32 },
    V6 { address: u128, bits: u32 },
}

impl PlainTables {
    /// Nobody banned, listed or seen before.
    pub fn new(policy: Policy, now: u64) -> Self {
        Self {
            now,
            policy,
            bans: HashMap::new(),
            listings: Vec::new(),
            sources: HashMap::new(),
            whole_at: 0,
            first_seen: HashMap::new(),
        }
    }
}

impl Prefix {
    fn bits(self) -> u32 {
        let (Self::V4 { bits, .. } | Self::V6 { bits, .. }) = self;
        bits
    }

    fn contains(self, addresses: Addresses) -> bool {
        match (self, addresses) {
            (Self::V4 { address, bits }, Addresses::V4 { source, .. }) => {
                (address ^ source).leading_zeros() >= bits
            }
            (Self::V6 { address, bits }, Addresses::V6 { source, .. }) => {
                let source = u128::from(source.high) << 64 | u128::from(source.low);
                (address ^ source).leading_zeros() >= bits
            }
            _ => false,
        }
    }
}

impl Tables for PlainTables {
    fn is_banned(&mut self, source: u64) -> bool {
        self.bans.get(&source).is_some_and(|until| *until > self.now)
    }

    /// The longest prefix counts.
    fn listing(&mut self, addresses: Addresses) -> Listing {
        let around = self.listings.iter().filter(|(prefix, _)| prefix.contains(addresses));
        let longest = around.max_by_key(|(prefix, _)| prefix.bits());
        longest.map_or(Listing::None, |(_, listing)| *listing)
    }

    fn policy(&self) -> Policy {
        self.policy
    }

    fn now(&mut self) -> u64 {
        self.now
    }

    fn source(&mut self, source: u64) -> Source {
        self.sources.get(&source).copied().unwrap_or_default()
    }

    fn set_source(&mut self, source: u64, known: Source) {
        self.sources.insert(source, known);
    }

    fn whole_at(&mut self) -> u64 {
        self.whole_at
    }

    fn set_whole_at(&mut self, at: u64) {
        self.whole_at = at;
    }

    fn connection(&self, segment: &Segment) -> u64 {
        hash::connection(segment, 0)
    }

    fn first_seen(&mut self, connection: u64) -> u64 {
        self.first_seen.get(&connection).copied().unwrap_or(0)
    }

    fn set_first_seen(&mut self, connection: u64, at: u64) {
        self.first_seen.insert(connection, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::V6;

    #[test]
    fn the_longest_prefix_around_an_address_counts() {
        let policy = Policy {
            syn_payload_bytes_max: 0,
            source_period: 0,
            source_burst: 0,
            pressure_period: 0,
            pressure_burst: 0,
        };
        let mut tables = PlainTables::new(policy, 1);
        let prefix = |address, bits| Prefix::V4 { address, bits };
        tables.listings = vec![
            (prefix(0, 0), Listing::Denied),
            (prefix(0xc000_0200, 24), Listing::Allowed),
            (prefix(0xc000_0207, 32), Listing::Denied),
            (Prefix::V6 { address: 0xffff << 32, bits: 96 }, Listing::Allowed),
        ];
        let mut of = |source| tables.listing(Addresses::V4 { source, destination: 0 });
        assert_eq!(of(0xc000_0207), Listing::Denied);
        assert_eq!(of(0xc000_0208), Listing::Allowed);
        assert_eq!(of(0xc000_0308), Listing::Denied);
        let source = V6 { high: 0, low: 0xffff_c000_0308 };
        let mapped = Addresses::V6 { source, destination: source };
        assert_eq!(tables.listing(mapped), Listing::Allowed);
        assert_eq!(
            tables.listing(Addresses::V6 { source: V6 { high: 1, ..source }, destination: source }),
            Listing::None
        );
    }
}
