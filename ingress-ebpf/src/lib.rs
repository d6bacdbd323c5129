//! What the kernel programs and the daemon share, buildable for both: no std, no aya, no allocation.
//!
//! - [`decode`]: Ethernet frame to TCP segment, one decoder for kernel (pointer pair) and host (slice)
//! - [`filter`]: what is dropped, over tables that the kernel keeps
//! - [`bans`]: where it finds a ban
//! - [`flood`]: the packets of a benchmark
//! - [`hash`]: connection to bucket
//! - [`steer`]: bucket to CPU, while buckets move and open connections stay
//! - [`abi`]: map layouts, verdicts and limits
//! - [`syn_ack`]: the answer to a SYN, for which nothing is remembered
//! - `packets`: builds frames for tests, `tables`: the filter's tables without a kernel (feature `packets`)
//!
//! The rule of the whole crate: what is not understood is handed on untouched, never dropped.
#![cfg_attr(not(any(test, feature = "packets")), no_std)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod abi;
pub mod bans;
pub mod decode;
pub mod filter;
pub mod flood;
pub mod hash;
#[cfg(any(test, feature = "packets"))]
pub mod packets;
pub mod steer;
pub mod syn_ack;
#[cfg(any(test, feature = "packets"))]
pub mod tables;
