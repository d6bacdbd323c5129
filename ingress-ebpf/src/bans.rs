//! Where the kernel finds a ban: a table of our own in an array map.
//!
//! Every packet of an open connection asks whether its source is banned. In a hash map of the kernel the answer costs a call and 20 ns;
//! an array map is read without a call. So a source has two buckets of four places each, one cache line apiece, and stands in the
//! emptier one. That fills half of all places before the first source finds none (the power of two choices).
//!
//! The daemon alone writes, a bucket at a time. The kernel may see a place half written: for that moment its client is judged by
//! the end of the ban that stood there before.

use crate::abi::BANS_MAX;
use crate::hash;

/// Twice as many places as bans. 2 MiB.
pub const BUCKETS: u32 = BANS_MAX * 2 / PLACES as u32;

/// Places of a bucket.
pub const PLACES: usize = 4;

/// A source and the end of its ban for each place, in nanoseconds of the program's clock; an end of 0 makes it a free one.
pub type Bucket = [u64; 2 * PLACES];

/// Packets of so many places are one entry of a per-CPU array: the kernel allocates each entry by itself.
pub const COUNTED_TOGETHER: usize = 64;
pub type Packets = [u64; COUNTED_TOGETHER];
pub const PACKETS_ENTRIES: u32 = BUCKETS * PLACES as u32 / COUNTED_TOGETHER as u32;

/// The two buckets of a source, below [`BUCKETS`]. Seeded, so that nobody can fill those of another.
#[inline(always)]
pub fn buckets(source: u64, seed: u64) -> [u32; 2] {
    const SHIFT: u32 = u64::BITS - BUCKETS.trailing_zeros();
    let [first, second] = hash::two_of(source, seed);
    [(first >> SHIFT) as u32, (second >> SHIFT) as u32]
}

/// Where in the bucket the source has a ban that has not ended.
#[inline(always)]
pub fn place_in(bucket: &Bucket, source: u64, now: u64) -> Option<usize> {
    let [a, a_end, b, b_end, c, c_end, d, d_end] = *bucket;
    let places = [(a, a_end), (b, b_end), (c, c_end), (d, d_end)];
    places.iter().position(|(banned, end)| *banned == source && *end > now)
}

/// Where a place is counted: which entry, and where in it.
#[inline(always)]
pub fn counter(bucket: u32, place: usize) -> (u32, usize) {
    let number = bucket * PLACES as u32 + place as u32;
    (number / COUNTED_TOGETHER as u32, number as usize % COUNTED_TOGETHER)
}

const _: () = assert!(BUCKETS.is_power_of_two() && size_of::<Bucket>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_found_until_it_ends() {
        let bucket = [7, 0, 8, 1_000, 0, 0, 9, 2_000];
        assert_eq!(place_in(&bucket, 8, 999), Some(1));
        assert_eq!(place_in(&bucket, 8, 1_000), None, "ended");
        assert_eq!(place_in(&bucket, 9, 999), Some(3));
        assert_eq!(place_in(&bucket, 7, 0), None, "a free place");
        assert_eq!(place_in(&bucket, 0, 0), None, "a free place of the network ::/64");
        assert_eq!(place_in(&bucket, 10, 0), None);
    }

    #[test]
    fn every_place_is_counted_by_itself() {
        let mut seen = vec![false; PACKETS_ENTRIES as usize * COUNTED_TOGETHER];
        for (bucket, place) in (0..BUCKETS).flat_map(|b| (0..PLACES).map(move |p| (b, p))) {
            let (entry, at) = counter(bucket, place);
            let slot = &mut seen[entry as usize * COUNTED_TOGETHER + at];
            assert!(!*slot, "bucket {bucket} place {place}");
            *slot = true;
        }
        assert!(seen.into_iter().all(|slot| slot));
    }

    /// Neighbours are the hardest for a hash: addresses of one network, and networks of one provider.
    #[test]
    fn as_many_bans_as_are_allowed_find_a_place() {
        let neighbours: [fn(u64) -> u64; 3] = [
            |number| 0xffff_ffff << 32 | 0x0a00_0000 | number,
            |number| 0x2001_0db8_0000_0000 | number,
            |number| number << 32,
        ];
        for source in neighbours {
            let mut load = vec![0; BUCKETS as usize];
            let mut homeless = 0;
            for number in 0..u64::from(BANS_MAX) {
                let of = buckets(source(number), 0x1234_5678_9abc_def0);
                let emptier = of.into_iter().min_by_key(|bucket| load[*bucket as usize]).unwrap();
                match &mut load[emptier as usize] {
                    full if *full == PLACES => homeless += 1,
                    free => *free += 1,
                }
            }
            // One in 65,536 is what a fair hash leaves over.
            assert!(homeless <= 8, "{homeless}");
        }
    }
}
