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

/// A network of either family; one of IPv4 is written as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), with 96 more bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub address: u128,
    pub bits: u32,
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
    fn contains(self, address: u128) -> bool {
        let host_bits = u128::BITS - self.bits.min(u128::BITS);
        (self.address ^ address).checked_shr(host_bits).unwrap_or(0) == 0
    }
}

impl Tables for PlainTables {
    fn is_banned(&mut self, source: u64) -> bool {
        self.bans.get(&source).is_some_and(|until| *until > self.now)
    }

    /// The longest prefix counts.
    fn listing(&mut self, addresses: Addresses) -> Listing {
        let address = match addresses {
            Addresses::V4 { source, .. } => 0xffff << 32 | u128::from(source),
            Addresses::V6 { source, .. } => u128::from(source.high) << 64 | u128::from(source.low),
        };
        let around = self.listings.iter().filter(|(prefix, _)| prefix.contains(address));
        around.max_by_key(|(prefix, _)| prefix.bits).map_or(Listing::None, |(_, listing)| *listing)
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
        let prefix = |address, bits| Prefix { address, bits };
        let v4 = 0xffff_c000_0200;
        tables.listings = vec![
            (prefix(0, 0), Listing::Denied),
            (prefix(v4, 120), Listing::Allowed),
            (prefix(v4 | 7, 128), Listing::Denied),
        ];
        let mut of = |source| tables.listing(Addresses::V4 { source, destination: 0 });
        assert_eq!(of(0xc000_0207), Listing::Denied);
        assert_eq!(of(0xc000_0208), Listing::Allowed);
        assert_eq!(of(0xc000_0308), Listing::Denied);
    }
}
