//! What the kernel programs and the daemon share, buildable for both: no std, no aya, no allocation.
//!
//! - [`decode`]: Ethernet frame to TCP segment, one decoder for kernel (pointer pair) and host (slice)
//! - [`filter`]: what is dropped, over tables that the kernel keeps
//! - [`hash`]: connection to bucket
//! - [`abi`]: map layouts, verdicts and limits
//! - [`syn_ack`]: the answer to a SYN, for which nothing is remembered
//! - `packets`: builds frames for tests (feature `packets`)
//!
//! The rule of the whole crate: what is not understood is handed on untouched, never dropped.
#![cfg_attr(not(any(test, feature = "packets")), no_std)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod abi;
pub mod decode;
pub mod filter;
pub mod hash;
#[cfg(any(test, feature = "packets"))]
pub mod packets;
pub mod syn_ack;
