//! The eBPF object inside the binary.

/// The object that `build.rs` was given, aligned for the ELF parser; none when it was given none.
pub fn object() -> Option<&'static [u8]> {
    #[cfg(ebpf_object)]
    return Some(aya::include_bytes_aligned!(env!("INGRESS_EBPF_OBJECT")));
    #[cfg(not(ebpf_object))]
    return None;
}
