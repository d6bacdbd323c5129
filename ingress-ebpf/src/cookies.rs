//! SYNs that are answered in place of the stack. The kernel makes the cookie, so that it believes in it when the client comes back
//! with it; between the two nothing is remembered, and the client need not send its SYN twice.

use core::hint::black_box;

use aya_ebpf::bindings::{BPF_TCP_LISTEN, bpf_sock, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie, bpf_xdp_adjust_tail,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;

use ingress_ebpf::decode::{Addresses, Reader, Segment};
use ingress_ebpf::syn_ack::{
    IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PlainSyn, SynAck, TCP_HEADER_BYTES_MAX,
    TCP_HEADER_BYTES_MIN, v6_words,
};

use crate::Packet;

/// Room for an IPv6 header and the longest TCP header.
const HEADERS_WORDS: usize = (IPV6_HEADER_BYTES + TCP_HEADER_BYTES_MAX as usize).div_ceil(8);

/// Why a SYN was not answered.
pub(crate) enum Unanswered {
    /// Its addresses and ports are those of a connection, which may be waiting for its end (TIME_WAIT). The stack knows what to do,
    /// and would not look at a cookie. The frame is as it was.
    OpenConnection,
    /// The kernel wants no cookie, there is no listener, or the headers are not plain.
    Declined,
}

/// Makes the frame, which is the SYN `segment`, the answer to it.
#[inline(always)]
pub(crate) fn answer(
    ctx: &XdpContext,
    packet: &Packet,
    segment: &Segment,
) -> Result<(), Unanswered> {
    let syn = PlainSyn::find(packet).ok_or(Unanswered::Declined)?;
    let ports = u32::from(segment.source_port) << 16 | u32::from(segment.destination_port);
    match segment.addresses {
        Addresses::V4 { source, destination } => {
            let tuple = [source, destination, ports].map(u32::to_be);
            let cookie = cookie(ctx.ctx, syn, IPV4_HEADER_BYTES as u32, tuple)?;
            let syn_ack = SynAck::to(segment, syn, cookie, mtu(ctx.ctx));
            replace(ctx.ctx, packet, syn, syn_ack.v4(source, destination))
        }
        Addresses::V6 { source, destination } => {
            let [s0, s1, s2, s3] = v6_words(source);
            let [d0, d1, d2, d3] = v6_words(destination);
            let tuple = [s0, s1, s2, s3, d0, d1, d2, d3, ports].map(u32::to_be);
            let cookie = cookie(ctx.ctx, syn, IPV6_HEADER_BYTES as u32, tuple)?;
            let syn_ack = SynAck::to(segment, syn, cookie, mtu(ctx.ctx));
            replace(ctx.ctx, packet, syn, syn_ack.v6(source, destination))
        }
    }
}

/// The kernel's cookie for this SYN. `tuple` is `bpf_sock_tuple` of its family: addresses and ports in the order of the headers.
#[inline(always)]
fn cookie<const N: usize>(
    ctx: *mut xdp_md,
    syn: PlainSyn,
    ip_header_bytes: u32,
    mut tuple: [u32; N],
) -> Result<u32, Unanswered> {
    // A copy, because the verifier wants room for the longest header there is, which the frame need not have.
    let mut headers = [0_u64; HEADERS_WORDS];
    let ip_header: *mut u8 = headers.as_mut_ptr().cast();
    let bytes = ip_header_bytes + bounded(syn.tcp_header_bytes)?;
    // SAFETY: the buffer has room for both headers, of which one is bounded above.
    if unsafe { bpf_xdp_load_bytes(ctx, syn.offset as u32, ip_header.cast(), bytes) } != 0 {
        return Err(Unanswered::Declined);
    }
    let found = Socket::find(ctx, &mut tuple).ok_or(Unanswered::Declined)?;
    if !found.is_listener() {
        return Err(Unanswered::OpenConnection);
    }
    // Once more: the verifier does not remember it over the calls.
    let tcp_header_bytes = bounded(syn.tcp_header_bytes)?;
    // SAFETY: the socket is held, and both headers are in the buffer as above.
    let made = unsafe {
        let tcp_header = ip_header.add(ip_header_bytes as usize);
        bpf_tcp_gen_syncookie(
            found.0.cast(),
            ip_header.cast(),
            ip_header_bytes,
            tcp_header.cast(),
            tcp_header_bytes,
        )
    };
    // Above the cookie stands the segment size that it remembers; below zero is an error.
    if made < 0 { Err(Unanswered::Declined) } else { Ok(made as u32) }
}

/// The same length. The compiler knows that it was compared before, and is kept from leaving this out; the verifier sees the bound
/// of a mask better than that of a range.
#[inline(always)]
fn bounded(tcp_header_bytes: u32) -> Result<u32, Unanswered> {
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
    packet: &Packet,
    syn: PlainSyn,
    mut words: [u32; N],
) -> Result<(), Unanswered> {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] =
        packet.read(0).ok_or(Unanswered::Declined)?;
    let mut stations: [u8; 12] = [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5];
    let bytes = (N * 4) as u32;
    let end = syn.offset as u32 + bytes;
    // SAFETY: both buffers are as long as is said; the kernel compares the places with the frame's end.
    unsafe {
        let more = end as i32 - bpf_xdp_get_buff_len(ctx) as i32;
        let failed = bpf_xdp_adjust_tail(ctx, more) != 0
            || bpf_xdp_store_bytes(ctx, 0, stations.as_mut_ptr().cast(), 12) != 0
            || bpf_xdp_store_bytes(ctx, syn.offset as u32, words.as_mut_ptr().cast(), bytes) != 0;
        if failed { Err(Unanswered::Declined) } else { Ok(()) }
    }
}

/// A socket that the kernel holds for us until it is dropped.
struct Socket(*mut bpf_sock);

impl Socket {
    /// The socket that a segment from and to these is for, in the namespace of the interface.
    #[inline(always)]
    fn find<const N: usize>(ctx: *mut xdp_md, tuple: &mut [u32; N]) -> Option<Self> {
        /// `BPF_F_CURRENT_NETNS`.
        const THIS_NAMESPACE: u64 = u64::MAX;
        let bytes = (N * 4) as u32;
        // SAFETY: the tuple is as long as is said. What is found is released by the drop of the answer.
        let socket = unsafe {
            bpf_skc_lookup_tcp(ctx.cast(), tuple.as_mut_ptr().cast(), bytes, THIS_NAMESPACE, 0)
        };
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
