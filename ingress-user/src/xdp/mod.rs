//! Loads and attaches the kernel programs; the only user of aya.
//!
//! - [`DataPlane`]: what the daemon holds: the attached programs and the steering [`Tier`] that came out;
//!   [`PreparedDataPlane`]: the same before it is attached
//! - [`Prefilter`]: the XDP program, loaded but not yet attached
//! - [`InterfaceTelemetry`]: the counters
//! - [`object()`]: the eBPF object inside the binary
//! - `steering`: configuration to tier, a pure function
//! - [`Filter`]: bans, lists and samples of the loaded program; `lists`: how one set of networks is exchanged for another
//! - [`DenyLists`]: lists from files; [`SampleFeed`]: dropped packets for the log and for people
//! - [`check`]: whether XDP will work on an interface, told without attaching
//! - `ban_table`: where a ban stands in the kernel's map
//! - [`beat`]: the daemon's sign of life, without which the program passes everything
//! - `clock`: what time it is for the program
//! - `cookies`: whether the kernel makes those that the program sends
//! - `load`: object to kernel; `maps`: typed handles, the only place that knows the maps
//!
//! - `pins`: what outlives the daemon
//!
//! Attachments hang on file descriptors of this process: when it dies, however it dies, the kernel detaches the
//! programs and the host goes on without them. Where they stay (an attachment by netlink), or the process stands still, they pass
//! every packet after a while. A planned restart hands them over.

mod ban_table;
mod blocks;
pub mod check;
mod clock;
mod cookies;
mod deny;
mod error;
mod filter;
mod heartbeat;
mod lists;
mod load;
mod maps;
mod object;
mod pins;
mod plane;
mod samples;
mod steering;
mod telemetry;

pub use deny::{DenyError, DenyLists, InForce, watch_lists};
pub use error::XdpError;
pub use filter::{DroppedPacket, Filter};
pub use heartbeat::beat;
pub use lists::{ListFile, Lists};
pub use load::{Action, Prefilter, Redirection, Setup, hash_seed, inherit_hash_seed};
pub use object::object;
pub use plane::{DataPlane, PreparedDataPlane};
pub use samples::{SampleFeed, SampleReader};
pub use steering::Tier;
pub use telemetry::{CpuTelemetry, InterfaceTelemetry, QueueTelemetry, VerdictCounts};
