//! The kernel programs: entry points and maps only, everything they decide is in the library and tested on the host. The maps of
//! steering are in `redirect`.
//!
//! `prefilter` (XDP, kernel 5.18 for multi-buffer frames) counts every packet, drops what is not mail, and moves the others for our
//! listeners to their worker's CPU. `select_worker` (sk_reuseport, kernel 4.19) gives a new connection to the listener of the
//! CPU that handles its SYN.
#![no_std]
#![no_main]

mod measure;
mod redirect;

use aya_ebpf::bindings::{sk_action, xdp_action};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use aya_ebpf::macros::{map, sk_reuseport, xdp};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray, ReusePortSockArray, RingBuf};
use aya_ebpf::programs::{SkReuseportContext, XdpContext};

use ingress_ebpf::abi::{
    self, COUNTER_SLOTS, Counts, DROPPED_SLOTS, Enforcement, FIRST_SEEN_SLOTS, INTERFACES_MAX,
    Listing, Listings, PORTS_MAX, PREFIXES_MAX, SAMPLES_BURST, SAMPLES_BYTES,
    SAMPLES_PER_SECOND_MAX, SOURCES_MAX, Sample, SourceState, Verdict, blocks, first_seen,
};
use ingress_ebpf::bans;
use ingress_ebpf::decode::{Addresses, Miss, Reader, Segment, decode};
use ingress_ebpf::filter::{self, Policy, Source, Tables};
use ingress_ebpf::hash;

mod cookies;

use cookies::Unanswered;

#[map]
static COUNTERS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);
#[map]
static WORKERS: ReusePortSockArray = ReusePortSockArray::with_max_entries(1, 0);
#[map]
static BANS: Array<bans::Bucket> = Array::with_max_entries(bans::BUCKETS, 0);
#[map]
static BAN_PACKETS: PerCpuArray<bans::Packets> =
    PerCpuArray::with_max_entries(bans::PACKETS_ENTRIES, 0);
#[map]
static LISTED_V4: LpmTrie<[u8; 4], Listings> = LpmTrie::with_max_entries(PREFIXES_MAX, 0);
#[map]
static LISTED_V6: LpmTrie<[u8; 16], Listings> = LpmTrie::with_max_entries(PREFIXES_MAX, 0);
#[map]
static BLOCKS_V4: Array<u64> = Array::with_max_entries(blocks::WORDS, 0);
#[map]
static BLOCKS_V6: Array<u64> = Array::with_max_entries(blocks::WORDS, 0);
#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static SOURCES: LruHashMap<u64, SourceState> = LruHashMap::with_max_entries(SOURCES_MAX, 0);
#[map]
static FIRST_SEEN: Array<u64> = Array::with_max_entries(FIRST_SEEN_SLOTS, 0);
#[map]
static PRESSURE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static DROPPED: Array<u64> = Array::with_max_entries(DROPPED_SLOTS, 0);
#[map]
static REPEATED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SAMPLED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SAMPLES_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SAMPLES: RingBuf = RingBuf::with_byte_size(SAMPLES_BYTES, 0);
#[map]
static BEAT: Array<u64> = Array::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static PORTS: [u16; PORTS_MAX] = [0; PORTS_MAX];
#[unsafe(no_mangle)]
static HASH_SEED: u64 = 0;
#[unsafe(no_mangle)]
static STEER: u32 = 0;
#[unsafe(no_mangle)]
static INTERFACES: [u32; INTERFACES_MAX] = [0; INTERFACES_MAX];
#[unsafe(no_mangle)]
static TICK: u64 = 0;
#[unsafe(no_mangle)]
static HEARTBEAT_TIMEOUT: u64 = 0;
#[unsafe(no_mangle)]
static ENFORCEMENT: u32 = 0;
#[unsafe(no_mangle)]
static SYN_PAYLOAD_BYTES_MAX: u32 = 0;
#[unsafe(no_mangle)]
static SOURCE_PERIOD: u64 = 0;
#[unsafe(no_mangle)]
static SOURCE_BURST: u64 = 0;
#[unsafe(no_mangle)]
static PRESSURE_PERIOD: u64 = 0;
#[unsafe(no_mangle)]
static PRESSURE_BURST: u64 = 0;
#[unsafe(no_mangle)]
static SAMPLE_EVERY: u64 = 0;
#[unsafe(no_mangle)]
static SYN_COOKIES: u32 = 0;

/// The reader of the ring looks by itself: to wake it for each sample would cost more than the drop.
const NO_WAKEUP: u64 = 1;

const OFF: u32 = Enforcement::Off as u32;
const DROP: u32 = Enforcement::Drop as u32;

#[xdp(frags)]
fn prefilter(ctx: XdpContext) -> u32 {
    let packet = Packet::of(&ctx);
    let (verdict, action) = match decode(&packet) {
        Ok(segment) if !abi::is_ours(settings(&PORTS), segment.destination_port) => {
            (Verdict::NotOurs, xdp_action::XDP_PASS)
        }
        Ok(segment) => judge(&ctx, &segment),
        Err(Miss::NotTcp) => (Verdict::NotOurs, xdp_action::XDP_PASS),
        Err(Miss::NotUnderstood) => (Verdict::NotUnderstood, xdp_action::XDP_PASS),
    };
    count(&ctx, verdict);
    action
}

#[inline(always)]
fn judge(ctx: &XdpContext, segment: &Segment) -> (Verdict, u32) {
    let beat = BEAT.get(0).copied().unwrap_or(0);
    if !filter::is_attended(beat, now(), setting(&HEARTBEAT_TIMEOUT)) {
        return (Verdict::Unattended, xdp_action::XDP_PASS);
    }
    let enforcement = setting(&ENFORCEMENT);
    let mut verdict = Verdict::Passed;
    if enforcement != OFF {
        let mut maps = Maps::default();
        verdict = filter::judge(segment, &mut maps);
        if matches!(verdict, Verdict::UnderPressure) && setting(&SYN_COOKIES) != 0 {
            match cookies::answer(ctx) {
                Ok(()) => return (Verdict::CookieSent, xdp_action::XDP_TX),
                Err(Unanswered::OpenConnection) => verdict = Verdict::Passed,
                Err(Unanswered::Declined) => {}
            }
        }
        if verdict.is_against() {
            take_sample(ctx, segment, verdict, maps.packets_of_ban);
            if enforcement == DROP {
                return (verdict, xdp_action::XDP_DROP);
            }
        }
    }
    if setting(&STEER) == 0 {
        return (verdict, xdp_action::XDP_PASS);
    }
    let connection = hash::connection(segment, setting(&HASH_SEED));
    let (steered, action) = redirect::redirect(connection, segment.flags);
    (if matches!(verdict, Verdict::Passed) { steered } else { verdict }, action)
}

/// Notes the time: that the daemon is there, and what the clock says, which it has no other way to learn. Run by
/// BPF_PROG_TEST_RUN, never attached.
#[xdp]
fn beat(_ctx: XdpContext) -> u32 {
    if let Some(beat) = BEAT.get_ptr_mut(0) {
        // SAFETY: an aligned word of the map, written as one.
        unsafe { beat.write_volatile(now()) };
    }
    xdp_action::XDP_PASS
}

#[sk_reuseport]
fn select_worker(ctx: SkReuseportContext) -> u32 {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // A miss (no worker on this CPU, or its listener is closed) leaves the choice to the kernel's own hash.
    let _ = WORKERS.select_reuseport(&ctx, cpu);
    sk_action::SK_PASS
}

#[inline(always)]
fn count(ctx: &XdpContext, verdict: Verdict) {
    let interface = abi::interface_slot(settings(&INTERFACES), ctx.ingress_ifindex() as u32);
    let slot = abi::counter_slot(interface, ctx.rx_queue_index());
    let index = verdict as usize;
    if index < Verdict::COUNT as usize
        && let Some(counts) = COUNTERS.get_ptr_mut(slot)
    {
        // SAFETY: within the array by the check above. The slot belongs to this CPU, and an XDP program is not interrupted by
        // another one on its CPU.
        unsafe {
            let packets = counts.cast::<u64>().add(index);
            *packets = (*packets).wrapping_add(1);
        }
    }
}

/// Reports the first drop of a source, as far as it is remembered, and one in some of those after it.
#[inline(always)]
fn take_sample(ctx: &XdpContext, segment: &Segment, verdict: Verdict, packets_of_ban: u64) {
    let every = setting(&SAMPLE_EVERY);
    if every == 0 {
        return;
    }
    if is_first_drop(filter::source_key(segment.addresses)) {
        sample(ctx, segment, verdict);
        return;
    }
    // A ban counts its packets by itself.
    let packets = if packets_of_ban == 0 { add_one(&REPEATED) } else { packets_of_ban };
    if packets & (every - 1) == 0 {
        sample(ctx, segment, verdict);
    }
}

#[inline(always)]
fn sample(ctx: &XdpContext, segment: &Segment, verdict: Verdict) {
    let (high, low) = match segment.addresses {
        Addresses::V4 { source, .. } => (0, 0xffff << 32 | u64::from(source)),
        Addresses::V6 { source, .. } => (source.high, source.low),
    };
    let (queue, interface) = (ctx.rx_queue_index(), ctx.ingress_ifindex() as u32);
    let packed = abi::sample::pack(
        verdict as u32,
        segment.flags,
        segment.destination_port,
        queue,
        interface,
    );
    let now = now();
    let sample: Sample = [now, high, low, packed];
    if !may_sample(now) || SAMPLES.output::<Sample>(sample, NO_WAKEUP).is_err() {
        add_one(&SAMPLES_LOST);
    }
}

/// Takes one from the samples that this CPU may take.
#[inline(always)]
fn may_sample(now: u64) -> bool {
    const PERIOD: u64 = 1_000_000_000 / SAMPLES_PER_SECOND_MAX;
    let Some(whole_at) = SAMPLED.get_ptr_mut(0) else { return false };
    // SAFETY: the slot belongs to this CPU.
    unsafe {
        let charged = filter::charge(*whole_at, now, PERIOD, SAMPLES_BURST);
        *whole_at = charged.unwrap_or(*whole_at);
        charged.is_some()
    }
}

#[inline(always)]
fn is_first_drop(source: u64) -> bool {
    let slot = hash::slot_of(source) & (DROPPED_SLOTS - 1);
    let Some(last) = DROPPED.get_ptr_mut(slot) else { return false };
    // SAFETY: an aligned word of the map, read and written as one. Other CPUs write it too; the last one stays.
    unsafe {
        let is_first = last.read_volatile() != source;
        if is_first {
            last.write_volatile(source);
        }
        is_first
    }
}

/// Adds to a per-CPU counter; what it is now.
#[inline(always)]
fn add_one(counter: &PerCpuArray<u64>) -> u64 {
    let Some(value) = counter.get_ptr_mut(0) else { return 0 };
    // SAFETY: the slot belongs to this CPU, and an XDP program is not interrupted by another one on its CPU.
    unsafe {
        *value = (*value).wrapping_add(1);
        *value
    }
}

/// Counts the packet for the ban in this place; how many it is on this CPU.
#[inline(always)]
fn count_for_ban(bucket: u32, place: usize) -> u64 {
    let (entry, at) = bans::counter(bucket, place);
    let Some(packets) = BAN_PACKETS.get_ptr_mut(entry) else { return 0 };
    // SAFETY: `at` is below the length of the entry, which is this CPU's.
    unsafe {
        let packets = packets.cast::<u64>().add(at);
        *packets = (*packets).wrapping_add(1);
        *packets
    }
}

/// The maps that the filter looks at, and what it found in them.
#[derive(Default)]
struct Maps {
    /// In the place of the source's ban, this one included, on this CPU; 0 without a ban.
    packets_of_ban: u64,
    /// Its place, to be written without looking it up again.
    source: Option<*mut SourceState>,
}

impl Tables for Maps {
    #[inline(always)]
    fn is_banned(&mut self, source: u64) -> bool {
        for bucket in bans::buckets(source, setting(&HASH_SEED)) {
            let places = BANS.get(bucket);
            if let Some(place) = places.and_then(|it| bans::place_in(it, source, now())) {
                self.packets_of_ban = count_for_ban(bucket, place);
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn listing(&mut self, addresses: Addresses) -> Listing {
        let (blocks, block) = match addresses {
            Addresses::V4 { source, .. } => (&BLOCKS_V4, blocks::v4(source)),
            Addresses::V6 { source, .. } => (&BLOCKS_V6, blocks::v6(source.high)),
        };
        let listed = blocks.get(blocks::word(block)).copied().unwrap_or(0);
        if listed & blocks::bit(block) == 0 {
            return Listing::None;
        }
        let listings = match addresses {
            Addresses::V4 { source, .. } => {
                LISTED_V4.get(Key::new(u32::BITS, source.to_be_bytes()))
            }
            Addresses::V6 { source, .. } => {
                let [high, low] = [source.high.to_be_bytes(), source.low.to_be_bytes()];
                let mut address = [0; 16];
                let (front, back) = address.split_at_mut(8);
                front.copy_from_slice(&high);
                back.copy_from_slice(&low);
                LISTED_V6.get(Key::new(u128::BITS, address))
            }
        };
        let Some([even, odd]) = listings.copied() else { return Listing::None };
        let generation = GENERATION.get(0).copied().unwrap_or(0);
        Listing::from_number(if generation & 1 == 0 { even } else { odd })
    }

    #[inline(always)]
    fn policy(&self) -> Policy {
        Policy {
            syn_payload_bytes_max: setting(&SYN_PAYLOAD_BYTES_MAX),
            source_period: setting(&SOURCE_PERIOD),
            source_burst: setting(&SOURCE_BURST),
            pressure_period: setting(&PRESSURE_PERIOD),
            pressure_burst: setting(&PRESSURE_BURST),
        }
    }

    #[inline(always)]
    fn now(&mut self) -> u64 {
        now()
    }

    #[inline(always)]
    fn source(&mut self, source: u64) -> Source {
        self.source = SOURCES.get_ptr_mut(source);
        let Some(state) = self.source else { return Source::default() };
        // SAFETY: the value stays there until the program returns (RCU). Another CPU may write it meanwhile, or the map may give
        // it to another source: a budget is then off by a connection.
        let [whole_at, proven] = unsafe { *state };
        Source { whole_at, is_proven: proven != 0 }
    }

    #[inline(always)]
    fn set_source(&mut self, source: u64, known: Source) {
        let state: SourceState = [known.whole_at, u64::from(known.is_proven)];
        match self.source {
            // SAFETY: as in `source`.
            Some(place) => unsafe { *place = state },
            None => {
                // Without memory for it the source has its whole budget the next time, too.
                let _ = SOURCES.insert(source, state, 0);
            }
        }
    }

    #[inline(always)]
    fn whole_at(&mut self) -> u64 {
        PRESSURE.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn set_whole_at(&mut self, at: u64) {
        if let Some(slot) = PRESSURE.get_ptr_mut(0) {
            // SAFETY: the slot belongs to this CPU.
            unsafe { *slot = at };
        }
    }

    #[inline(always)]
    fn connection(&self, segment: &Segment) -> u64 {
        hash::connection(segment, setting(&HASH_SEED))
    }

    #[inline(always)]
    fn first_seen(&mut self, connection: u64) -> u64 {
        let entry = FIRST_SEEN.get(first_seen::slot(connection)).copied().unwrap_or(0);
        first_seen::time(connection, entry)
    }

    #[inline(always)]
    fn set_first_seen(&mut self, connection: u64, at: u64) {
        if let Some(slot) = FIRST_SEEN.get_ptr_mut(first_seen::slot(connection)) {
            // SAFETY: an aligned word of the map, written as one. Other CPUs write it too; the last one stays.
            unsafe { slot.write_volatile(first_seen::entry(connection, at)) };
        }
    }
}

/// The clock of everything here: nanoseconds, a tick at a time, from an origin of its own. Jiffies have 64 bits and begin at
/// 2^32 less 300 seconds of ticks (INITIAL_JIFFIES in include/linux/jiffies.h), so the product is never 0, and wraps after 500 years and
/// more. On a 64-bit machine the verifier makes a load of the helper (do_misc_fixups in kernel/bpf/verifier.c); to ask the
/// kernel for the coarse monotonic clock is a call, which costs a third of a packet.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }.wrapping_mul(setting(&TICK))
}

/// Reads a read-only global as the daemon set it at load time, not as it was compiled.
#[inline(always)]
fn setting<T: Copy>(global: &'static T) -> T {
    // SAFETY: a reference to an initialized static is valid for reads; volatile only keeps the compiler from folding
    // the value in the object file.
    unsafe { core::ptr::read_volatile(global) }
}

/// The settings of a list up to its first empty slot. Each is read by itself: the verifier knows what stands in the read-only
/// section, and cuts off what comes behind the last one.
#[inline(always)]
fn settings<T: Copy + Default + PartialEq, const N: usize>(
    global: &'static [T; N],
) -> impl Iterator<Item = T> {
    global.iter().map(setting).take_while(|value| *value != T::default())
}

/// The linear part of the frame. Both ends are read from the context once: the verifier forgets what it proved about
/// one pointer when the program loads it again.
struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }
}

impl Reader for Packet {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: at..at + N lies within the packet, checked above; a byte array needs no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }
}

/// Loops for ever on purpose: should a panic become reachable, the verifier refuses the program.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
