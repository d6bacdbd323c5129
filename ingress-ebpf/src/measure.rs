//! Programs of the benchmarks, never attached: the zero of a packet's cost, and a flood of SYNs.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;

use ingress_ebpf::flood;

/// SYNs made on this CPU.
#[map]
static FLOOD_SYNS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static FLOOD_INTERFACE: u32 = 0;
#[unsafe(no_mangle)]
static FLOOD_SOURCES: u32 = 0;

/// What a packet costs where nobody looks at it.
#[xdp]
fn baseline(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Makes the next SYN of the frame that it is given, a SYN of the flood, and sends it. Run on live frames
/// (BPF_F_TEST_XDP_LIVE_FRAMES, kernel 5.18), which come back with what was written into them.
#[xdp]
fn flood(ctx: XdpContext) -> u32 {
    let Some(syns) = FLOOD_SYNS.get_ptr_mut(0) else { return xdp_action::XDP_DROP };
    // SAFETY: the slot belongs to this CPU.
    let number = unsafe {
        *syns = (*syns).wrapping_add(1);
        *syns as u32
    };
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + flood::FRAME_BYTES > end {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: the frame lies within the packet by the check above; a byte array needs no alignment.
    let frame = unsafe { &mut *(start as *mut [u8; flood::FRAME_BYTES]) };
    flood::write_syn(frame, number, crate::setting(&FLOOD_SOURCES));
    // SAFETY: the helper has no preconditions; an interface that does not exist drops the frame.
    unsafe { bpf_redirect(crate::setting(&FLOOD_INTERFACE), 0) as u32 }
}
