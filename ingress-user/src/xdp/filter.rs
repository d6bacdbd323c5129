//! The filter's maps, as the daemon writes and reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use ipnet::IpNet;

use ingress_ebpf::abi::{Listings, Sample, Verdict, names, sample};
use ingress_ebpf::filter::{v4_key, v6_key};

use super::ban_table::BanTable;
use super::blocks::Blocks;
use super::clock::Pair;
use super::error::XdpError;
use super::lists::{Change, Lists};
use super::maps::take;
use crate::config::{FilterConfig, FilterMode};

/// The filter of a running program. Shared: every method may be called from any thread. Long lists take seconds to exchange; neither
/// the heartbeat nor bans nor samples wait for that, since what they need is locked by itself.
pub struct Filter {
    lists: Mutex<ListMaps>,
    bans: Mutex<Bans>,
    samples: Mutex<Samples>,
    mode: FilterMode,
    is_attached: AtomicBool,
}

struct Bans {
    table: BanTable,
    beat: Array<MapData, u64>,
    clock: Pair,
}

struct Samples {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
}

struct ListMaps {
    listed_v4: LpmTrie<MapData, [u8; 4], Listings>,
    listed_v6: LpmTrie<MapData, [u8; 16], Listings>,
    blocks_v4: Array<MapData, u64>,
    blocks_v6: Array<MapData, u64>,
    generation: Array<MapData, u32>,
    /// In force.
    lists: Lists,
    blocks: Blocks,
}

/// A packet that was dropped, or would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedPacket {
    pub source: IpAddr,
    /// A name of [`Verdict`].
    pub verdict: &'static str,
    pub destination_port: u16,
    /// TCP's control bits (RFC 9293 section 3.1).
    pub flags: u8,
    pub queue: u32,
    pub interface_index: u32,
}

/// The read-only globals of the program that belong to the filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Globals {
    pub(super) enforcement: u32,
    pub(super) syn_payload_bytes_max: u32,
    pub(super) source_period: u64,
    pub(super) source_burst: u64,
    pub(super) pressure_period: u64,
    pub(super) pressure_burst: u64,
    pub(super) sample_every: u64,
    pub(super) syn_cookies: u32,
}

impl Globals {
    pub(super) fn of(config: &FilterConfig) -> Self {
        let source_period = period(config.connections_per_second);
        let pressure_period = period(config.pressure_per_second);
        Self {
            enforcement: match config.mode {
                FilterMode::Off => 0,
                FilterMode::Monitor => 1,
                FilterMode::Drop => 2,
            },
            syn_payload_bytes_max: config.syn_payload_bytes_max,
            source_period,
            // The first of a burst finds the budget whole.
            source_burst: source_period
                .saturating_mul(u64::from(config.connections_burst.saturating_sub(1))),
            pressure_period,
            // A second's worth at once.
            pressure_burst: if pressure_period == 0 { 0 } else { 1_000_000_000 },
            sample_every: match config.sample_every {
                0 => 0,
                every => u64::from(every).next_power_of_two(),
            },
            syn_cookies: u32::from(config.sends_cookies()),
        }
    }
}

/// Nanoseconds between events at this rate; 0 for none.
fn period(per_second: u32) -> u64 {
    1_000_000_000_u64.checked_div(u64::from(per_second)).unwrap_or(0)
}

impl Filter {
    /// `seed`: of the program's hashes.
    pub(super) fn take(ebpf: &mut Ebpf, mode: FilterMode, seed: u64) -> Result<Self, XdpError> {
        let bans = Bans {
            table: BanTable::take(ebpf, seed)?,
            beat: take(ebpf, names::BEAT)?,
            // Not known before the first beat.
            clock: Pair::with(0),
        };
        let samples =
            Samples { ring: take(ebpf, names::SAMPLES)?, lost: take(ebpf, names::SAMPLES_LOST)? };
        let lists = ListMaps {
            listed_v4: take(ebpf, names::LISTED_V4)?,
            listed_v6: take(ebpf, names::LISTED_V6)?,
            blocks_v4: take(ebpf, names::BLOCKS_V4)?,
            blocks_v6: take(ebpf, names::BLOCKS_V6)?,
            generation: take(ebpf, names::GENERATION)?,
            lists: Lists::default(),
            blocks: Blocks::default(),
        };
        let (lists, bans, samples) = (Mutex::new(lists), Mutex::new(bans), Mutex::new(samples));
        Ok(Self { lists, bans, samples, mode, is_attached: AtomicBool::new(false) })
    }

    /// Whether the program asks it at all.
    pub(super) fn is_on(&self) -> bool {
        self.mode != FilterMode::Off
    }

    /// Whether packets are dropped: it is in use, and not to count alone.
    pub fn drops(&self) -> bool {
        self.mode == FilterMode::Drop && self.is_attached.load(Ordering::Relaxed)
    }

    pub(super) fn attached(&self) {
        self.is_attached.store(true, Ordering::Relaxed);
    }

    /// Reckons with what the program's clock said at its last beat. To be called right behind it. How long that was after the one
    /// before, which is very long for the first.
    pub(super) fn read_clock(&self) -> Result<Duration, XdpError> {
        let mut bans = locked(&self.bans);
        let read = bans.beat.get(&0, 0);
        let program =
            read.map_err(|error| XdpError::from_map("read the program's clock", error))?;
        let since = bans.clock.until(program);
        bans.clock = Pair::with(program);
        Ok(since)
    }

    /// Drops all packets of the client for so long. An IPv6 client is its network of /64.
    ///
    /// # Errors
    /// [`XdpError::TooManyBans`] when there is no place for it.
    pub fn ban(&self, client: IpAddr, lifetime: Duration) -> Result<(), XdpError> {
        let lifetime = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
        let mut bans = locked(&self.bans);
        let until = bans.clock.now().saturating_add(lifetime);
        bans.table.ban(key_of(client), until)
    }

    /// Ends a ban, if there is one.
    pub fn lift_ban(&self, client: IpAddr) {
        locked(&self.bans).table.lift(key_of(client));
    }

    /// Packets that the ban of this client has dropped.
    pub fn packets_of_ban(&self, client: IpAddr) -> u64 {
        locked(&self.bans).table.packets(key_of(client))
    }

    /// Puts these lists in force in place of the ones before, all at once. Costs a system call for each prefix of both.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the kernel has no memory for them; those before stay in force.
    pub fn set_lists(&self, lists: Lists) -> Result<(), XdpError> {
        let mut maps = locked(&self.lists);
        let map_error = |error| XdpError::from_map("write the lists of networks", error);
        let generation = maps.generation.get(&0, 0).map_err(map_error)?;
        let changes = Change::between(&maps.lists, &lists);
        for change in &changes {
            let (before, after) = (change.before as u32, change.after as u32);
            let value = if generation & 1 == 0 { [before, after] } else { [after, before] };
            maps.set_listing(change.network, value).map_err(map_error)?;
        }
        let blocks = Blocks::of(lists.networks());
        // Those before are looked up still.
        let of_either = maps.blocks.union(&blocks);
        maps.set_blocks(of_either).map_err(map_error)?;
        maps.generation.set(0, generation.wrapping_add(1), 0).map_err(map_error)?;
        for change in changes.iter().filter(|change| !change.stays) {
            // Means the same as what covers it, so it may as well stay where it cannot be removed.
            let _ = maps.remove_listing(change.network);
        }
        maps.lists = lists;
        maps.set_blocks(blocks).map_err(map_error)
    }

    /// Samples that came since the last call.
    pub fn samples(&self) -> Vec<DroppedPacket> {
        let mut maps = locked(&self.samples);
        let mut samples = Vec::new();
        while let Some(item) = maps.ring.next() {
            samples.extend(DroppedPacket::parse(&item));
        }
        samples
    }

    /// Samples that found no room, since the program was loaded.
    pub fn samples_lost(&self) -> u64 {
        locked(&self.samples).lost.get(&0, 0).map_or(0, |values| values.iter().sum())
    }
}

impl ListMaps {
    fn set_listing(&mut self, network: IpNet, value: Listings) -> Result<(), aya::maps::MapError> {
        let length = u32::from(network.prefix_len());
        match network.network() {
            IpAddr::V4(address) => {
                self.listed_v4.insert(&Key::new(length, address.octets()), value, 0)
            }
            IpAddr::V6(address) => {
                self.listed_v6.insert(&Key::new(length, address.octets()), value, 0)
            }
        }
    }

    fn set_blocks(&mut self, blocks: Blocks) -> Result<(), aya::maps::MapError> {
        for (place, word) in blocks.v4.changed(&self.blocks.v4) {
            self.blocks_v4.set(place, word, 0)?;
        }
        for (place, word) in blocks.v6.changed(&self.blocks.v6) {
            self.blocks_v6.set(place, word, 0)?;
        }
        self.blocks = blocks;
        Ok(())
    }

    fn remove_listing(&mut self, network: IpNet) -> Result<(), aya::maps::MapError> {
        let length = u32::from(network.prefix_len());
        match network.network() {
            IpAddr::V4(address) => self.listed_v4.remove(&Key::new(length, address.octets())),
            IpAddr::V6(address) => self.listed_v6.remove(&Key::new(length, address.octets())),
        }
    }
}

impl DroppedPacket {
    /// None when it is not a sample of this version.
    fn parse(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; size_of::<Sample>()] = octets.try_into().ok()?;
        let mut words = octets.chunks_exact(8).filter_map(|word| word.try_into().ok());
        let [_time, high, low, packed] =
            std::array::from_fn(|_| words.next().map_or(0, u64::from_ne_bytes));
        let (verdict, flags, destination_port, queue, interface_index) = sample::unpack(packed);
        let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
        Some(Self {
            source: IpAddr::V6(address).to_canonical(),
            verdict: Verdict::ALL.get(verdict as usize)?.name(),
            destination_port,
            flags,
            queue,
            interface_index,
        })
    }
}

fn locked<T>(maps: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each map is whole after each call, so a panic elsewhere leaves nothing half done.
    maps.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key_of(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => v4_key(Ipv4Addr::to_bits(address)),
        IpAddr::V6(address) => v6_key((address.to_bits() >> 64) as u64),
    }
}
