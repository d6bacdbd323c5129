//! SYNs that are answered in place of the stack. The kernel makes the cookie, so that it believes in it when the client comes back
//! with it; between the two nothing is remembered, and the client need not send its SYN twice.

use core::hint::black_box;

use aya_ebpf::bindings::{BPF_TCP_LISTEN, bpf_sock, bpf_sock_tuple, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie, bpf_xdp_adjust_tail,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;

use ingress_ebpf::syn_ack::{
    self, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PlainSyn, TCP_HEADER_BYTES_MAX,
    TCP_HEADER_BYTES_MIN,
};

use crate::Packet;

/// Where the headers of a SYN are while they become those of the answer: the stack has no room for them.
#[map]
static HEADERS: PerCpuArray<Headers> = PerCpuArray::with_max_entries(1, 0);

/// An IPv6 header and the longest TCP header.
type Headers = [u32; 25];

/// Why a SYN was not answered.
pub(crate) enum Unanswered {
    /// Its addresses and ports are those of a connection, which may be waiting for its end (TIME_WAIT). The stack knows what to do,
    /// and would not look at a cookie. The frame is as it was.
    OpenConnection,
    /// The kernel wants no cookie, there is no listener, or the headers are not plain.
    Declined,
}

/// Makes the frame, which is a SYN, the answer to it.
///
/// A function of its own: what it keeps in registers and on the stack is then no cost to packets that are not answered.
#[inline(never)]
pub(crate) fn answer(ctx: &XdpContext) -> Result<(), Unanswered> {
    let syn = PlainSyn::find(&Packet::of(ctx)).ok_or(Unanswered::Declined)?;
    let headers = HEADERS.get_ptr_mut(0).ok_or(Unanswered::Declined)?;
    if syn.is_v4 {
        let cookie = cookie::<IPV4_HEADER_BYTES, 12>(ctx.ctx, syn, headers)?;
        // SAFETY: the words are this CPU's, and an XDP program is not interrupted by another one on its CPU.
        let answer = unsafe { syn_ack::v4(&*headers.cast(), cookie, mtu(ctx.ctx)) };
        replace(ctx.ctx, syn, headers, answer)
    } else {
        let cookie = cookie::<IPV6_HEADER_BYTES, 36>(ctx.ctx, syn, headers)?;
        // SAFETY: as above.
        let answer = unsafe { syn_ack::v6(&*headers.cast(), cookie, mtu(ctx.ctx)) };
        replace(ctx.ctx, syn, headers, answer)
    }
}

/// The kernel's cookie for this SYN, of which the headers are copied: the verifier wants room for the longest header there is, which
/// the frame need not have. A tuple is addresses and ports, which stand together where the IP header ends.
#[inline(always)]
fn cookie<const IP_BYTES: usize, const TUPLE_BYTES: usize>(
    ctx: *mut xdp_md,
    syn: PlainSyn,
    headers: *mut Headers,
) -> Result<u32, Unanswered> {
    let ip_header: *mut u8 = headers.cast();
    let bytes = IP_BYTES as u64 + bounded(syn.tcp_header_bytes)?;
    // SAFETY: there is room for both headers, of which one is bounded above, and the tuple lies within them.
    let (loaded, tcp_header, tuple) = unsafe {
        let loaded = bpf_xdp_load_bytes(ctx, syn.offset as u32, ip_header.cast(), bytes as u32);
        let tcp_header = ip_header.add(IP_BYTES);
        (loaded, tcp_header, tcp_header.add(4).sub(TUPLE_BYTES))
    };
    if loaded != 0 {
        return Err(Unanswered::Declined);
    }
    let found = Socket::find(ctx, tuple.cast(), TUPLE_BYTES as u32).ok_or(Unanswered::Declined)?;
    if !found.is_listener() {
        return Err(Unanswered::OpenConnection);
    }
    // Once more: the verifier does not remember it over the calls.
    let tcp_bytes = bounded(syn.tcp_header_bytes)? as u32;
    // SAFETY: the socket is held, and both headers are where they were.
    let made = unsafe {
        bpf_tcp_gen_syncookie(
            found.0.cast(),
            ip_header.cast(),
            IP_BYTES as u32,
            tcp_header.cast(),
            tcp_bytes,
        )
    };
    // Above the cookie stands the segment size that it remembers; below zero is an error.
    if made < 0 { Err(Unanswered::Declined) } else { Ok(made as u32) }
}

/// The same length. The compiler knows that it was compared before, and is kept from leaving this out; the verifier sees the bound
/// of a mask better than that of a range.
#[inline(always)]
fn bounded(tcp_header_bytes: u64) -> Result<u64, Unanswered> {
    let bytes = black_box(tcp_header_bytes) & TCP_HEADER_BYTES_MAX;
    if bytes < TCP_HEADER_BYTES_MIN { Err(Unanswered::Declined) } else { Ok(bytes) }
}

/// Octets that an IP packet may have on the interface; what every host takes (RFC 1122 section 3.3.3) where that is not known.
#[inline(always)]
fn mtu(ctx: *mut xdp_md) -> u32 {
    let mut mtu = 0;
    // SAFETY: interface 0 is the one that the frame came by.
    let _fits = unsafe { bpf_check_mtu(ctx.cast(), 0, &raw mut mtu, 0, 0) };
    if mtu == 0 { 576 } else { mtu }
}

/// Writes the answer over the frame from its IP header on, and sends it back to where it came from. What fails after the first write
/// leaves a frame that nobody may see.
#[inline(always)]
fn replace<const N: usize>(
    ctx: *mut xdp_md,
    syn: PlainSyn,
    headers: *mut Headers,
    answer: [u32; N],
) -> Result<(), Unanswered> {
    const STATIONS_BYTES: u32 = 12;
    let bytes = (N * 4) as u32;
    // SAFETY: the headers have room for the longest answer, and for the addresses of two stations after it; the kernel compares
    // places in the frame with its end.
    unsafe {
        headers.cast::<[u32; N]>().write(answer);
        let more = (syn.offset as u32 + bytes) as i32 - bpf_xdp_get_buff_len(ctx) as i32;
        if bpf_xdp_adjust_tail(ctx, more) != 0
            || bpf_xdp_store_bytes(ctx, syn.offset as u32, headers.cast(), bytes) != 0
            || bpf_xdp_load_bytes(ctx, 0, headers.cast(), STATIONS_BYTES) != 0
        {
            return Err(Unanswered::Declined);
        }
        let stations = headers.cast::<[u16; 6]>();
        let [d0, d1, d2, s0, s1, s2] = stations.read();
        stations.write([s0, s1, s2, d0, d1, d2]);
        match bpf_xdp_store_bytes(ctx, 0, headers.cast(), STATIONS_BYTES) {
            0 => Ok(()),
            _ => Err(Unanswered::Declined),
        }
    }
}

/// A socket that the kernel holds for us until it is dropped.
struct Socket(*mut bpf_sock);

impl Socket {
    /// The socket that a segment from and to these is for, in the namespace of the interface.
    #[inline(always)]
    fn find(ctx: *mut xdp_md, tuple: *mut bpf_sock_tuple, bytes: u32) -> Option<Self> {
        /// `BPF_F_CURRENT_NETNS`.
        const THIS_NAMESPACE: u64 = u64::MAX;
        // SAFETY: the caller's tuple is as long as it says. What is found is released by the drop of the answer.
        let socket = unsafe { bpf_skc_lookup_tcp(ctx.cast(), tuple, bytes, THIS_NAMESPACE, 0) };
        if socket.is_null() { None } else { Some(Self(socket)) }
    }

    #[inline(always)]
    fn is_listener(&self) -> bool {
        // SAFETY: not null, and held. This field is there in all of the kinds of socket that the look-up finds.
        unsafe { (*self.0).state == BPF_TCP_LISTEN }
    }
}

impl Drop for Socket {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: held since `find`, and released once.
        let _ = unsafe { bpf_sk_release(self.0.cast()) };
    }
}
