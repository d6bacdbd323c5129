//! The appliance as a library: the daemon, its tests and its benchmarks build on the same parts.
//!
//! The modules stand in the order of a message's way:
//!
//! - [`config`]: TOML file to typed parts, every check in one place
//! - [`xdp`]: loads and attaches the kernel programs; the only user of aya
//! - [`worker`]: one pinned mio loop per CPU: sockets, TLS, buffers, timers
//! - [`smtp`]: the sans-IO protocol core
//! - [`policy`]: may this recipient
//! - [`spool`]: the append-only log that makes a 250 true
//! - [`delivery`]: what happens to a message afterwards
//! - [`tls`]: certificates and the choice between them
//! - [`dns`]: the records to publish, and what a resolver says of them
//! - [`bans`]: who is not served for a while
//! - [`control`]: admin socket, metrics endpoint and MTA-STS policy (tokio)
//! - [`metrics`]: every counter and its name
//! - [`nic`]: queues, interrupts and offloads of interfaces, and what to change for pinned workers
//! - [`daemon`]: all of it started and stopped
//! - [`cli`]: one file per subcommand

// Whatever needs raw system calls gets a module `sys` of its own, where each `unsafe` states its invariant.
#![deny(unsafe_code)]

pub mod bans;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod delivery;
pub mod dns;
mod file_stamp;
pub mod handover;
mod log_budget;
pub mod metrics;
pub mod nic;
pub mod policy;
pub mod smtp;
pub mod spool;
mod state_file;
pub mod tls;
pub mod worker;
pub mod xdp;
