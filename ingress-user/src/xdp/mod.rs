//! Loads and attaches the kernel programs; the only user of aya.
//!
//! - [`DataPlane`]: what the daemon holds: the attached programs and the steering [`Tier`] that came out
//! - [`Prefilter`]: the XDP program, loaded but not yet attached
//! - [`InterfaceTelemetry`]: the counters
//! - [`object()`]: the eBPF object inside the binary
//! - `steering`: configuration to tier, a pure function
//! - [`Filter`]: bans, lists and samples of the loaded program; `lists`: how one set of networks is exchanged for another
//! - [`DenyLists`]: lists from files; [`SampleFeed`]: dropped packets for the log and for people
//! - [`check`]: whether XDP will work on an interface, told without attaching
//! - `cookies`: whether the kernel makes those that the program sends
//! - `load`: object to kernel; `maps`: typed handles, the only place that knows the maps
//!
//! Everything hangs on file descriptors of this process: when it dies, however it dies, the kernel detaches the
//! programs and the host goes on without them.

mod blocks;
pub mod check;
mod cookies;
mod deny;
mod error;
mod filter;
mod lists;
mod load;
mod maps;
mod object;
mod plane;
mod samples;
mod steering;
mod telemetry;

pub use deny::{DenyError, DenyLists, InForce, watch_lists};
pub use error::XdpError;
pub use filter::{DroppedPacket, Filter};
pub use lists::{ListFile, Lists};
pub use load::{Action, Prefilter, Redirection, Setup};
pub use object::object;
pub use plane::DataPlane;
pub use samples::{SampleFeed, SampleReader};
pub use steering::Tier;
pub use telemetry::{CpuTelemetry, InterfaceTelemetry, QueueTelemetry, VerdictCounts};
