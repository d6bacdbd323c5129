//! The contract between the kernel programs and the daemon: limits, names, map keys and verdicts.
//!
//! Keys and values are bare fixed-width integers, so there is no padding and no layout that could drift; what a slot
//! means is computed by the functions here on both sides.

/// Ports that count as ours, as many as the read-only global [`names::PORTS`] has slots. Every packet compares with
/// all of them, so the list is short: a host has two or three mail listeners.
pub const PORTS_MAX: usize = 8;

/// RX queues counted apart. Packets of a higher queue count for the last one. 64 covers the hosts we know; a queue
/// costs 8 bytes a verdict and CPU.
pub const QUEUES_MAX: u32 = 64;

/// Buckets between the connection hash and the CPU. A power of two, because a bucket is the top bits of the hash;
/// 256 keeps the worst CPU within a few percent of its share up to about 32 workers.
pub const BUCKETS: u32 = 256;

/// Connections of moved buckets that are remembered, in an LRU map: several times those that are open at a time, since one that is
/// closed is not taken out. The kernel keeps those with packets longest. 5 MiB.
pub const MOVED_MAX: u32 = 1 << 16;

/// Interfaces with the program, each counted apart.
pub const INTERFACES_MAX: usize = 8;

/// Entries of the counter map: one for every pair of interface and RX queue.
pub const COUNTER_SLOTS: u32 = INTERFACES_MAX as u32 * QUEUES_MAX;

/// Packets of one interface, queue and CPU, by verdict.
pub type Counts = [u64; Verdict::COUNT as usize];

/// Sources that can be banned at a time.
pub const BANS_MAX: u32 = 65_536;

/// Prefixes of the lists, of each family.
pub const PREFIXES_MAX: u32 = 1 << 20;

/// A prefix: what it means in even and in odd generations of the lists, as [`Listing`]. One generation is in force while the
/// other is written, so that a list is exchanged as a whole.
pub type Listings = [u32; 2];

/// Blocks of addresses of each family, a bit for each that has a prefix in it or around it: of IPv4 the 2^20 networks of /20, of
/// IPv6 the networks of /32, hashed into as many. Most packets are told by one bit that no list has their source, which costs a
/// tenth of the look-up in a trie.
pub mod blocks {
    /// Words of 64 bits.
    pub const WORDS: u32 = 1 << 14;

    /// Length of a block's prefix.
    pub const V4_LENGTH: u8 = 20;
    pub const V6_LENGTH: u8 = 32;

    #[inline(always)]
    pub const fn v4(address: u32) -> u32 {
        address >> 12
    }

    /// `high`: the upper half of the address.
    #[inline(always)]
    pub const fn v6(high: u64) -> u32 {
        ((high >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as u32
    }

    #[inline(always)]
    pub const fn word(block: u32) -> u32 {
        (block >> 6) & (WORDS - 1)
    }

    #[inline(always)]
    pub const fn bit(block: u32) -> u64 {
        1 << (block & 63)
    }
}

/// Sources of which the budget is known, in an LRU map: when it is whole again, and 1 when the source has proved to be there.
pub const SOURCES_MAX: u32 = 1 << 17;
pub type SourceState = [u64; 2];

/// Connections whose first SYN was dropped under pressure, in an array by hash: a flood writes over the oldest. 8 MiB.
pub const FIRST_SEEN_SLOTS: u32 = 1 << 20;

/// Version of the layout of the maps that the next daemon goes on with: keys, values, their meaning and the sizes. Raised with any of
/// them, so that a daemon never reads what another version wrote.
pub const LAYOUT_VERSION: u32 = 1;

/// Sources that were dropped before, in an array by hash. 512 KiB.
pub const DROPPED_SLOTS: u32 = 1 << 16;

/// Samples that a CPU takes in a second, and in nanoseconds' worth at once: in a flood of made-up sources every drop is the first of
/// its source, and to tell of each would cost more than the drop.
pub const SAMPLES_PER_SECOND_MAX: u64 = 1_000;
pub const SAMPLES_BURST: u64 = 4_000_000_000;

/// Octets of the ring of samples.
pub const SAMPLES_BYTES: u32 = 256 << 10;

/// A dropped packet: time in nanoseconds of the program's clock; source address, two halves, IPv4 as IPv4-mapped IPv6; and the rest
/// as [`sample::pack`] puts it.
pub type Sample = [u64; 4];

/// Names in the object file. The daemon refuses an object in which one is missing.
pub mod names {
    /// XDP program.
    pub const PREFILTER: &str = "prefilter";
    /// XDP program that drops everything, for measurements.
    pub const BASELINE: &str = "baseline";
    /// XDP program that sends SYNs, for measurements.
    pub const FLOOD: &str = "flood";
    /// Its read-only globals `u32`: index of the interface to send on; how many source addresses, 0: all.
    pub const FLOOD_INTERFACE: &str = "FLOOD_INTERFACE";
    pub const FLOOD_SOURCES: &str = "FLOOD_SOURCES";
    /// XDP program that writes the time into [`BEAT`]: the daemon's sign of life, and its look at the program's clock.
    pub const BEAT_PROGRAM: &str = "beat";
    /// sk_reuseport program.
    pub const SELECT_WORKER: &str = "select_worker";

    /// Per-CPU array of [`Counts`](super::Counts), indexed by [`counter_slot`](super::counter_slot).
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of u64, indexed by bucket: [`Bucket`](crate::steer::Bucket), packed.
    pub const BUCKET_CPUS: &str = "BUCKET_CPUS";
    /// LRU hash of [`connection`](crate::hash::connection) to CPU number, u32.
    pub const MOVED: &str = "MOVED";
    /// CPU map, indexed by CPU number. Sized by the daemon: the kernel refuses more entries than possible CPUs.
    pub const CPUS: &str = "CPUS";
    /// Array of listening sockets, indexed by CPU number. Sized by the daemon.
    pub const WORKERS: &str = "WORKERS";

    /// Array of [`Bucket`](crate::bans::Bucket) of [`source_key`](crate::filter::source_key)s.
    pub const BANS: &str = "BANS";
    /// Per-CPU array of [`Packets`](crate::bans::Packets): dropped for the ban in a place, those before it included.
    pub const BAN_PACKETS: &str = "BAN_PACKETS";
    /// LPM tries of network-order addresses to [`Listings`](super::Listings).
    pub const LISTED_V4: &str = "LISTED_V4";
    pub const LISTED_V6: &str = "LISTED_V6";
    /// Arrays of u64, [`blocks`](super::blocks).
    pub const BLOCKS_V4: &str = "BLOCKS_V4";
    pub const BLOCKS_V6: &str = "BLOCKS_V6";
    /// Array of one u32: the generation of the lists that is in force.
    pub const GENERATION: &str = "GENERATION";
    /// LRU hash of [`source_key`](crate::filter::source_key) to [`SourceState`](super::SourceState).
    pub const SOURCES: &str = "SOURCES";
    /// Array of u64 by connection hash: [`first_seen`](super::first_seen).
    pub const FIRST_SEEN: &str = "FIRST_SEEN";
    /// Per-CPU array of one u64: when the CPU's budget of new connections is whole again.
    pub const PRESSURE: &str = "PRESSURE";
    /// Array of u64 by hash of the source: the source dropped last.
    pub const DROPPED: &str = "DROPPED";
    /// Per-CPU array of one u64: packets dropped of sources that had been dropped before.
    pub const REPEATED: &str = "REPEATED";
    /// Per-CPU array of one u64: samples that were beyond [`SAMPLES_PER_SECOND_MAX`](super::SAMPLES_PER_SECOND_MAX), or found the
    /// ring full.
    pub const SAMPLES_LOST: &str = "SAMPLES_LOST";
    /// Ring of [`Sample`](super::Sample).
    pub const SAMPLES: &str = "SAMPLES";
    /// Array of one u64: what the program's clock said at the daemon's last heartbeat; 0: there was none.
    pub const BEAT: &str = "BEAT";

    /// Read-only global `u64`: nanoseconds after a heartbeat, after which there is no daemon.
    pub const HEARTBEAT_TIMEOUT: &str = "HEARTBEAT_TIMEOUT";
    /// Read-only global `u64`: nanoseconds of a tick of the program's clock.
    pub const TICK: &str = "TICK";
    /// Read-only global `[u32; INTERFACES_MAX]`: interface indexes, 0 is an empty slot.
    pub const INTERFACES: &str = "INTERFACES";
    /// Read-only global `u32`: [`Enforcement`](super::Enforcement).
    pub const ENFORCEMENT: &str = "ENFORCEMENT";
    /// Read-only globals, [`Policy`](crate::filter::Policy).
    pub const SYN_PAYLOAD_BYTES_MAX: &str = "SYN_PAYLOAD_BYTES_MAX";
    pub const SOURCE_PERIOD: &str = "SOURCE_PERIOD";
    pub const SOURCE_BURST: &str = "SOURCE_BURST";
    pub const PRESSURE_PERIOD: &str = "PRESSURE_PERIOD";
    pub const PRESSURE_BURST: &str = "PRESSURE_BURST";
    /// Read-only global `u64`: of repeated drops, one in so many is sampled, a power of two; 0: none.
    pub const SAMPLE_EVERY: &str = "SAMPLE_EVERY";
    /// Read-only global `u32`: 1 answers SYNs under pressure with a cookie, 0 never does.
    pub const SYN_COOKIES: &str = "SYN_COOKIES";

    /// Read-only global `[u16; PORTS_MAX]`, host byte order; 0 is an empty slot.
    pub const PORTS: &str = "PORTS";
    /// Read-only global `u64`: secret of the connection hash, so that nobody outside can aim at one worker.
    pub const HASH_SEED: &str = "HASH_SEED";
    /// Read-only global `u32`: 0 passes our packets to the stack on this CPU, 1 redirects them.
    pub const STEER: &str = "STEER";
}

/// What becomes of packets that the filter speaks against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Enforcement {
    /// There is no filter.
    Off = 0,
    /// They are counted and sampled, and pass.
    Monitor = 1,
    /// They are dropped.
    Drop = 2,
}

/// What the lists say of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Listing {
    None = 0,
    Allowed = 1,
    Denied = 2,
}

impl Listing {
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Allowed,
            2 => Self::Denied,
            _ => Self::None,
        }
    }
}

/// What `prefilter` decided about a packet.
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
    /// A SYN from a network of the allow list: passed or redirected.
    Allowed = 4,
    /// For one of our listeners, while the daemon gives no sign of life: passed unseen, on the CPU it came to.
    Unattended = 5,
    /// A SYN that would be under pressure, answered with a cookie in place of the stack: there is nothing left to pass.
    CookieSent = 6,
    /// Flags that no stack sends together: dropped, and so are those below.
    BadFlags = 7,
    Banned = 8,
    Denied = 9,
    /// A SYN with more data than allowed.
    SynPayload = 10,
    /// A SYN of a source that opens connections faster than allowed.
    OverBudget = 11,
    /// A SYN of a source that has not proved to be there, while there are too many.
    UnderPressure = 12,
}

impl Verdict {
    pub const COUNT: u32 = 13;

    /// Every verdict, in the order of its number.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::NotOurs,
        Self::NotUnderstood,
        Self::Passed,
        Self::Steered,
        Self::Allowed,
        Self::Unattended,
        Self::CookieSent,
        Self::BadFlags,
        Self::Banned,
        Self::Denied,
        Self::SynPayload,
        Self::OverBudget,
        Self::UnderPressure,
    ];

    /// Whether it speaks against the packet.
    #[inline(always)]
    pub const fn is_against(self) -> bool {
        self as u32 >= Self::BadFlags as u32
    }

    /// Name in metrics and in `ingress status --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::NotUnderstood => "not_understood",
            Self::Passed => "passed",
            Self::Steered => "steered",
            Self::Allowed => "allowed",
            Self::Unattended => "unattended",
            Self::CookieSent => "cookie_sent",
            Self::BadFlags => "bad_flags",
            Self::Banned => "banned",
            Self::Denied => "denied",
            Self::SynPayload => "syn_payload",
            Self::OverBudget => "over_budget",
            Self::UnderPressure => "under_pressure",
        }
    }
}

/// Index in [`names::COUNTERS`], always below [`COUNTER_SLOTS`].
#[inline(always)]
pub const fn counter_slot(interface: u32, queue: u32) -> u32 {
    let interface = if interface < INTERFACES_MAX as u32 { interface } else { 0 };
    let queue = if queue < QUEUES_MAX { queue } else { QUEUES_MAX - 1 };
    interface * QUEUES_MAX + queue
}

/// Place of an interface among those with the program, which come up to the first empty slot; the first, where it is not among
/// them, as in a test run.
#[inline(always)]
pub fn interface_slot(interfaces: impl Iterator<Item = u32>, index: u32) -> u32 {
    let places = interfaces.zip(0..);
    places.fold(0, |slot, (known, place)| if known == index { place } else { slot })
}

/// The time at which a connection's first SYN was dropped, with a tag of the connection, since others share its slot: 16 bits of
/// tag above 48 of time in units of 2^20 ns, which is about a millisecond.
pub mod first_seen {
    use super::FIRST_SEEN_SLOTS;

    const TIME_BITS: u32 = 48;
    const UNIT_BITS: u32 = 20;

    #[inline(always)]
    pub const fn slot(connection: u64) -> u32 {
        connection as u32 & (FIRST_SEEN_SLOTS - 1)
    }

    #[inline(always)]
    pub const fn entry(connection: u64, nanoseconds: u64) -> u64 {
        (connection >> TIME_BITS) << TIME_BITS | nanoseconds >> UNIT_BITS
    }

    /// Nanoseconds; 0 where the entry is another connection's.
    #[inline(always)]
    pub const fn time(connection: u64, entry: u64) -> u64 {
        if entry >> TIME_BITS == connection >> TIME_BITS {
            (entry << (64 - TIME_BITS)) >> (64 - TIME_BITS) << UNIT_BITS
        } else {
            0
        }
    }
}

/// The control bits of a TCP header (RFC 9293 section 3.1).
pub mod tcp_flags {
    pub const FIN: u8 = 1 << 0;
    pub const SYN: u8 = 1 << 1;
    pub const RST: u8 = 1 << 2;
    pub const PSH: u8 = 1 << 3;
    pub const ACK: u8 = 1 << 4;
    pub const URG: u8 = 1 << 5;

    pub const NAMES: [(u8, &str); 6] =
        [(FIN, "FIN"), (SYN, "SYN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (URG, "URG")];
}

/// The last word of a [`Sample`].
pub mod sample {
    /// Verdict, flags, destination port, RX queue and interface index, from the lowest bits up: 4, 8, 16, 12 and 24 bits.
    #[inline(always)]
    pub const fn pack(verdict: u32, flags: u8, port: u16, queue: u32, interface: u32) -> u64 {
        (verdict & 0xf) as u64
            | (flags as u64) << 4
            | (port as u64) << 12
            | ((queue & 0xfff) as u64) << 28
            | ((interface & 0xff_ffff) as u64) << 40
    }

    /// What [`pack`] was given.
    pub const fn unpack(word: u64) -> (u32, u8, u16, u32, u32) {
        let verdict = word as u32 & 0xf;
        (
            verdict,
            (word >> 4) as u8,
            (word >> 12) as u16,
            (word >> 28) as u32 & 0xfff,
            (word >> 40) as u32,
        )
    }
}

/// Is this destination port one of ours? `ports` come up to the first empty slot, which is 0 as no port is.
#[inline(always)]
pub fn is_ours(ports: impl Iterator<Item = u16>, port: u16) -> bool {
    ports.fold(false, |hit, ours| hit | (ours == port))
}

const _: () = {
    assert!(BUCKETS.is_power_of_two());
    assert!(Verdict::ALL.len() == Verdict::COUNT as usize);
    assert!(counter_slot(INTERFACES_MAX as u32 - 1, u32::MAX) == COUNTER_SLOTS - 1);
    assert!(FIRST_SEEN_SLOTS.is_power_of_two() && DROPPED_SLOTS.is_power_of_two());
    assert!(Verdict::COUNT <= 16);
    assert!(size_of::<Verdict>() == 4);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_interface_and_queue_has_its_own_slot() {
        let mut seen = vec![false; COUNTER_SLOTS as usize];
        for interface in 0..INTERFACES_MAX as u32 {
            for queue in 0..QUEUES_MAX {
                let slot = &mut seen[counter_slot(interface, queue) as usize];
                assert!(!*slot, "interface {interface} queue {queue}");
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
    fn a_sample_unpacks_to_what_was_packed() {
        for verdict in Verdict::ALL {
            let packed = (verdict as u32, 0xab, 465, 0xabc, 0xab_cdef);
            let (verdict, flags, port, queue, interface) = packed;
            assert_eq!(
                sample::unpack(sample::pack(verdict, flags, port, queue, interface)),
                packed
            );
        }
    }

    #[test]
    fn a_first_syn_is_remembered_for_its_connection_alone() {
        let connection = 0x1234_5678_9abc_def0;
        let at = 3_600_000_000_000;
        let entry = first_seen::entry(connection, at);
        assert!(at - first_seen::time(connection, entry) < 1 << 20);
        assert_eq!(first_seen::time(connection ^ 1 << 63, entry), 0);
    }

    #[test]
    fn an_interface_is_counted_at_its_place() {
        let slot = |index| interface_slot([7, 9].into_iter(), index);
        assert_eq!([7, 9, 8].map(slot), [0, 1, 0]);
    }

    #[test]
    fn only_the_ports_given_are_ours() {
        let ports = || [25, 465].into_iter();
        assert!(is_ours(ports(), 25) && is_ours(ports(), 465));
        assert!(!is_ours(ports(), 0) && !is_ours(ports(), 26));
    }
}
