//! The contract between the kernel programs and the daemon: limits, names, map keys and verdicts.
//!
//! Keys and values are bare fixed-width integers, so there is no padding and no layout that could drift; what a slot
//! means is computed by the functions here on both sides.

/// Ports that count as ours, as many as the read-only global [`names::PORTS`] has slots. Every packet compares with
/// all of them, so the list is short: a host has two or three mail listeners.
pub const PORTS_MAX: usize = 8;

/// RX queues counted apart. Packets of a higher queue count for the last one. 64 covers the hosts we know; a queue
/// costs 32 bytes a CPU.
pub const QUEUES_MAX: u32 = 64;

/// Buckets between the connection hash and the CPU. A power of two, because a bucket is the top bits of the hash;
/// 256 keeps the worst CPU within a few percent of its share up to about 32 workers.
pub const BUCKETS: u32 = 256;

/// Entries of the counter map: one for every pair of RX queue and verdict.
pub const COUNTER_SLOTS: u32 = QUEUES_MAX * Verdict::COUNT;

/// Names in the object file. The daemon refuses an object in which one is missing.
pub mod names {
    /// XDP program.
    pub const PREFILTER: &str = "prefilter";
    /// sk_reuseport program.
    pub const SELECT_WORKER: &str = "select_worker";

    /// Per-CPU array of u64, indexed by [`counter_slot`](super::counter_slot): packets.
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of u32, indexed by bucket: CPU number.
    pub const BUCKET_CPUS: &str = "BUCKET_CPUS";
    /// CPU map, indexed by CPU number. Sized by the daemon: the kernel refuses more entries than possible CPUs.
    pub const CPUS: &str = "CPUS";
    /// Array of listening sockets, indexed by CPU number. Sized by the daemon.
    pub const WORKERS: &str = "WORKERS";

    /// Read-only global `[u16; PORTS_MAX]`, host byte order; 0 is an empty slot.
    pub const PORTS: &str = "PORTS";
    /// Read-only global `u64`: secret of the connection hash, so that nobody outside can aim at one worker.
    pub const HASH_SEED: &str = "HASH_SEED";
    /// Read-only global `u32`: 0 passes our packets to the stack on this CPU, 1 redirects them.
    pub const STEER: &str = "STEER";
}

/// What `prefilter` decided about a packet. None of them loses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Understood, and for something else than our listeners: passed.
    NotOurs = 0,
    /// Cut short, a fragment, malformed, or nested deeper than we look: passed, the stack judges it.
    NotUnderstood = 1,
    /// For one of our listeners, and left on the CPU it came to.
    Passed = 2,
    /// For one of our listeners, and redirected to its worker's CPU.
    Steered = 3,
}

impl Verdict {
    pub const COUNT: u32 = 4;

    /// Every verdict, in the order of its number.
    pub const ALL: [Self; Self::COUNT as usize] =
        [Self::NotOurs, Self::NotUnderstood, Self::Passed, Self::Steered];

    /// Name in metrics and in `ingress status --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::NotUnderstood => "not_understood",
            Self::Passed => "passed",
            Self::Steered => "steered",
        }
    }
}

/// Index in [`names::COUNTERS`], always below [`COUNTER_SLOTS`].
#[inline(always)]
pub const fn counter_slot(queue: u32, verdict: Verdict) -> u32 {
    let queue = if queue < QUEUES_MAX { queue } else { QUEUES_MAX - 1 };
    queue * Verdict::COUNT + verdict as u32
}

/// Is this destination port one of ours? Port 0 never is, because 0 marks an empty slot.
#[inline(always)]
pub fn is_ours(ports: [u16; PORTS_MAX], port: u16) -> bool {
    // No early return: eight compares without a branch are cheaper than one mispredicted branch.
    let hit = ports.into_iter().fold(false, |hit, ours| hit | (ours == port));
    hit & (port != 0)
}

const _: () = {
    assert!(BUCKETS.is_power_of_two());
    assert!(Verdict::ALL.len() == Verdict::COUNT as usize);
    assert!(counter_slot(u32::MAX, Verdict::Steered) == COUNTER_SLOTS - 1);
    assert!(size_of::<Verdict>() == 4);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_queue_and_verdict_has_its_own_slot() {
        let mut seen = vec![false; COUNTER_SLOTS as usize];
        for queue in 0..QUEUES_MAX {
            for verdict in Verdict::ALL {
                let slot = &mut seen[counter_slot(queue, verdict) as usize];
                assert!(!*slot, "queue {queue} {verdict:?}");
                *slot = true;
            }
        }
        assert!(seen.into_iter().all(|slot| slot));
    }

    #[test]
    fn verdicts_stand_at_their_number() {
        for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, index);
        }
    }

    #[test]
    fn an_empty_slot_matches_no_port() {
        let ports = [25, 465, 0, 0, 0, 0, 0, 0];
        assert!(is_ours(ports, 25) && is_ours(ports, 465));
        assert!(!is_ours(ports, 0) && !is_ours(ports, 26));
    }
}
