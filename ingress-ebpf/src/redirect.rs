//! Steering in the kernel: the maps behind [`ingress_ebpf::steer`], and the redirect.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, CpuMap, LruHashMap};

use ingress_ebpf::abi::{BUCKETS, MOVED_MAX, Verdict};
use ingress_ebpf::hash;
use ingress_ebpf::steer::{self, Bucket, Connections};

#[map]
static BUCKET_CPUS: Array<u64> = Array::with_max_entries(BUCKETS, 0);
#[map]
static MOVED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MOVED_MAX, 0);
#[map]
static CPUS: CpuMap = CpuMap::with_max_entries(1, 0);

/// The redirect helper returns its lowest flag bits when the map has no such CPU: the packet then passes.
const PASS_ON_MISS: u64 = xdp_action::XDP_PASS as u64;

/// Sends a packet with these TCP flags of the connection with this hash to its CPU.
#[inline(always)]
pub(crate) fn redirect(connection: u64, flags: u8) -> (Verdict, u32) {
    match cpu(connection, flags).and_then(|cpu| CPUS.redirect(cpu, PASS_ON_MISS).ok()) {
        Some(action) => (Verdict::Steered, action),
        None => (Verdict::Passed, xdp_action::XDP_PASS),
    }
}

#[inline(always)]
fn cpu(connection: u64, flags: u8) -> Option<u32> {
    let word = BUCKET_CPUS.get_ptr(hash::bucket_of(connection))?;
    // SAFETY: an aligned word of the map, read as one while the daemon may write it.
    let bucket = Bucket::unpack(unsafe { word.read_volatile() });
    Some(steer::cpu(bucket, flags, connection, &mut Moved))
}

/// What [`MOVED`] remembers.
struct Moved;

impl Connections for Moved {
    #[inline(always)]
    fn cpu(&self, connection: u64) -> Option<u32> {
        let cpu = MOVED.get_ptr(connection)?;
        // SAFETY: the value stays there until the program returns (RCU). Should the map give it to another connection meanwhile,
        // this packet goes to that one's CPU.
        Some(unsafe { cpu.read_volatile() })
    }

    #[inline(always)]
    fn remember(&mut self, connection: u64, cpu: u32) {
        // Without memory for it the connection goes home, and is served all the same.
        let _ = MOVED.insert(connection, cpu, 0);
    }
}
