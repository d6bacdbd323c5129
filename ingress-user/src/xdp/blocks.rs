//! Which blocks of addresses have any listed prefix: a bit for each block, which the program looks at before a trie.

use std::net::IpAddr;

use ingress_ebpf::abi::blocks;
use ipnet::IpNet;

/// The bits of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

/// Of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) v4: Bits,
    pub(super) v6: Bits,
}

impl Default for Bits {
    fn default() -> Self {
        Self(vec![0; blocks::WORDS as usize])
    }
}

impl Bits {
    fn set(&mut self, block: u32) {
        if let Some(word) = self.0.get_mut(blocks::word(block) as usize) {
            *word |= blocks::bit(block);
        }
    }

    /// Bits of either.
    fn union(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one | other).collect())
    }

    /// The words that differ from those of `before`, with their places.
    pub(super) fn changed(&self, before: &Self) -> impl Iterator<Item = (u32, u64)> {
        let words = (0..).zip(self.0.iter().zip(&before.0));
        words.filter(|(_, (word, before))| word != before).map(|(place, (word, _))| (place, *word))
    }
}

impl Blocks {
    pub(super) fn of(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut all = Self::default();
        for network in networks {
            all.add(network);
        }
        all
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    fn add(&mut self, network: IpNet) {
        let length = network.prefix_len();
        match network.network() {
            IpAddr::V4(address) => {
                let first = blocks::v4(address.to_bits());
                let count = 1_u32 << blocks::V4_LENGTH.saturating_sub(length);
                (first..first + count).for_each(|block| self.v4.set(block));
            }
            // Shorter ones have too many blocks to go through one by one, and so all are taken for listed.
            IpAddr::V6(_) if length < blocks::V6_LENGTH => self.v6.0.fill(u64::MAX),
            IpAddr::V6(address) => self.v6.set(blocks::v6((address.to_bits() >> 64) as u64)),
        }
    }

    #[cfg(test)]
    fn has(&self, address: IpAddr) -> bool {
        let (bits, block) = match address {
            IpAddr::V4(address) => (&self.v4, blocks::v4(address.to_bits())),
            IpAddr::V6(address) => (&self.v6, blocks::v6((address.to_bits() >> 64) as u64)),
        };
        bits.0[blocks::word(block) as usize] & blocks::bit(block) != 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_block_of_every_listed_address_has_its_bit(
            v4: Ipv4Addr,
            v4_length in 0_u8..=32,
            v6: Ipv6Addr,
            v6_length in 0_u8..=128,
            host: u128,
        ) {
            let v4 = IpNet::new(v4.into(), v4_length).unwrap().trunc();
            let v6 = IpNet::new(v6.into(), v6_length).unwrap().trunc();
            let blocks = Blocks::of([v4, v6]);
            for network in [v4, v6] {
                // Any address of the network: its prefix, and bits of `host` behind it.
                let inside: IpAddr = match (network.network(), network.hostmask()) {
                    (IpAddr::V4(prefix), IpAddr::V4(mask)) => {
                        Ipv4Addr::from_bits(prefix.to_bits() | (host as u32 & mask.to_bits())).into()
                    }
                    (IpAddr::V6(prefix), IpAddr::V6(mask)) => {
                        Ipv6Addr::from_bits(prefix.to_bits() | (host & mask.to_bits())).into()
                    }
                    _ => unreachable!("address and mask are of one family"),
                };
                prop_assert!(blocks.has(inside), "{inside} of {network}");
            }
        }
    }

    #[test]
    fn far_from_every_network_no_bit_is_set() {
        let blocks =
            Blocks::of(["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        assert!(!blocks.has([198, 51, 100, 7].into()));
        assert!(!blocks.has([0x2001, 0xdb9, 0, 0, 0, 0, 0, 7].into()));
    }

    #[test]
    fn only_words_that_changed_are_written() {
        let one = Blocks::of(["192.0.2.0/24".parse().unwrap()]);
        let other = Blocks::of(["198.51.100.0/24".parse().unwrap()]);
        assert_eq!(other.v4.changed(&one.v4).count(), 2);
        assert_eq!(one.union(&other).v4.changed(&one.v4).count(), 1);
        assert_eq!(one.v6.changed(&other.v6).count(), 0);
    }
}
