//! Sets of CPUs, in the two notations of the kernel.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use serde::{Serialize, Serializer};

/// CPU numbers. Displays as a list such as `0-3,8`, the empty one as `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<usize>);

impl CpuSet {
    /// A list such as `0-3,8`, which the files `*_list` have.
    pub fn parse_list(text: &str) -> Option<Self> {
        let mut cpus = BTreeSet::new();
        for piece in text.trim().split(',').filter(|piece| !piece.is_empty()) {
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            // More CPUs than any kernel has: no list of CPUs.
            if last >= CPUS_MAX {
                return None;
            }
            cpus.extend(first..=last);
        }
        Some(Self(cpus))
    }

    /// A mask such as `00000000,0000000f`: words of 32 bits in hexadecimal, the highest first.
    pub fn parse_mask(text: &str) -> Option<Self> {
        let mut cpus = BTreeSet::new();
        for (word, digits) in text.trim().rsplit(',').enumerate() {
            let bits = u32::from_str_radix(digits, 16).ok()?;
            cpus.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * 32 + bit));
        }
        Some(Self(cpus))
    }

    /// As the kernel takes it, the highest word first.
    pub fn mask(&self) -> String {
        let words = self.0.last().map_or(1, |last| last / 32 + 1);
        let word = |index: usize| {
            let within = self.0.range(index * 32..(index + 1) * 32);
            within.fold(0_u32, |bits, cpu| bits | 1 << (cpu % 32))
        };
        let rest = (0..words - 1).rev().map(|index| format!(",{:08x}", word(index)));
        format!("{:x}{}", word(words - 1), rest.collect::<String>())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    pub fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl Display for CpuSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut comma = "";
        for &first in self.0.iter().filter(|&&cpu| cpu == 0 || !self.contains(cpu - 1)) {
            let last = (first..).take_while(|&cpu| self.contains(cpu)).last().unwrap_or(first);
            match last == first {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Eight times what the kernel can be built for.
const CPUS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_notations_are_read() {
        let cpus: CpuSet = [0, 1, 2, 34].into_iter().collect();
        assert_eq!(CpuSet::parse_mask("00000004,00000007\n"), Some(cpus.clone()));
        assert_eq!(CpuSet::parse_list("0-2,34\n"), Some(cpus.clone()));
        assert_eq!((cpus.to_string().as_str(), cpus.mask().as_str()), ("0-2,34", "4,00000007"));
        assert_eq!(CpuSet::parse_mask("0"), Some(CpuSet::default()));
        assert_eq!(CpuSet::parse_list("\n"), Some(CpuSet::default()));
    }

    #[test]
    fn what_is_no_set_of_cpus_is_none() {
        for text in ["x", "1-", "-1", "0-99999999999"] {
            assert_eq!(CpuSet::parse_list(text), None, "{text}");
        }
        assert_eq!(CpuSet::parse_mask("xyz"), None);
        assert_eq!(CpuSet::parse_mask(""), None);
    }

    proptest! {
        #[test]
        fn each_notation_gives_the_set_back(cpus in prop::collection::btree_set(0_usize..300, 1..40)) {
            let cpus = CpuSet(cpus);
            prop_assert_eq!(CpuSet::parse_mask(&cpus.mask()), Some(cpus.clone()));
            prop_assert_eq!(CpuSet::parse_list(&cpus.to_string()), Some(cpus));
        }
    }
}
