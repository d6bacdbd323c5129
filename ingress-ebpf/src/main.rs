//! The kernel programs: entry points only, everything they decide is in the library and tested on the host.
//!
//! `prefilter` (XDP, kernel 5.18 for multi-buffer frames) counts every packet and moves those of our listeners to their
//! worker's CPU. `select_worker` (sk_reuseport, kernel 4.19) gives a new connection to the listener of the CPU that
//! handles its SYN. Neither drops anything.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{sk_action, xdp_action};
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::{map, sk_reuseport, xdp};
use aya_ebpf::maps::{Array, CpuMap, PerCpuArray, ReusePortSockArray};
use aya_ebpf::programs::{SkReuseportContext, XdpContext};

use ingress_ebpf::abi::{self, BUCKETS, COUNTER_SLOTS, PORTS_MAX, Verdict};
use ingress_ebpf::decode::{Miss, Reader, decode};
use ingress_ebpf::hash;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);
#[map]
static BUCKET_CPUS: Array<u32> = Array::with_max_entries(BUCKETS, 0);
#[map]
static CPUS: CpuMap = CpuMap::with_max_entries(1, 0);
#[map]
static WORKERS: ReusePortSockArray = ReusePortSockArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static PORTS: [u16; PORTS_MAX] = [0; PORTS_MAX];
#[unsafe(no_mangle)]
static HASH_SEED: u64 = 0;
#[unsafe(no_mangle)]
static STEER: u32 = 0;

/// The redirect helper returns its lowest flag bits when the map has no such CPU: the packet then passes.
const PASS_ON_MISS: u64 = xdp_action::XDP_PASS as u64;

#[xdp(frags)]
fn prefilter(ctx: XdpContext) -> u32 {
    let packet = Packet { start: ctx.data(), end: ctx.data_end() };
    let (verdict, action) = match decode(&packet) {
        Ok(segment) if !abi::is_ours(setting(&PORTS), segment.destination_port) => {
            (Verdict::NotOurs, xdp_action::XDP_PASS)
        }
        Ok(segment) if setting(&STEER) != 0 => {
            redirect(hash::bucket(&segment, setting(&HASH_SEED)))
        }
        Ok(_) => (Verdict::Passed, xdp_action::XDP_PASS),
        Err(Miss::NotTcp) => (Verdict::NotOurs, xdp_action::XDP_PASS),
        Err(Miss::NotUnderstood) => (Verdict::NotUnderstood, xdp_action::XDP_PASS),
    };
    count(ctx.rx_queue_index(), verdict);
    action
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
fn redirect(bucket: u32) -> (Verdict, u32) {
    let cpu = BUCKET_CPUS.get(bucket).copied();
    match cpu.and_then(|cpu| CPUS.redirect(cpu, PASS_ON_MISS).ok()) {
        Some(action) => (Verdict::Steered, action),
        None => (Verdict::Passed, xdp_action::XDP_PASS),
    }
}

#[inline(always)]
fn count(queue: u32, verdict: Verdict) {
    if let Some(packets) = COUNTERS.get_ptr_mut(abi::counter_slot(queue, verdict)) {
        // SAFETY: the slot belongs to this CPU, and an XDP program is not interrupted by another one on its CPU.
        unsafe { *packets = (*packets).wrapping_add(1) };
    }
}

/// Reads a read-only global as the daemon set it at load time, not as it was compiled.
#[inline(always)]
fn setting<T: Copy>(global: &'static T) -> T {
    // SAFETY: a reference to an initialized static is valid for reads; volatile only keeps the compiler from folding
    // the value in the object file.
    unsafe { core::ptr::read_volatile(global) }
}

/// The linear part of the frame. Both ends are read from the context once: the verifier forgets what it proved about
/// one pointer when the program loads it again.
struct Packet {
    start: usize,
    end: usize,
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
