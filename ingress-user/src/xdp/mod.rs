//! Loads and attaches the kernel programs; the only user of aya.
//!
//! - [`DataPlane`]: what the daemon holds: the attached programs and the steering [`Tier`] that came out
//! - [`Prefilter`]: the XDP program, loaded but not yet attached
//! - [`InterfaceTelemetry`]: the counters
//! - [`object()`]: the eBPF object inside the binary
//! - `steering`: configuration to tier, a pure function
//! - `load`: object to kernel; `maps`: typed handles, the only place that knows the maps
//!
//! Everything hangs on file descriptors of this process: when it dies, however it dies, the kernel detaches the
//! programs and the host goes on without them.

mod error;
mod load;
mod maps;
mod object;
mod plane;
mod steering;
mod telemetry;

pub use error::XdpError;
pub use load::{Action, Prefilter, Redirection};
pub use object::object;
pub use plane::DataPlane;
pub use steering::Tier;
pub use telemetry::{CpuTelemetry, InterfaceTelemetry, QueueTelemetry, VerdictCounts};
