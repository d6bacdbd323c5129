//! Network interfaces as packets meet them: queues, interrupts, rings, offloads, and what to change for pinned workers.
//!
//! - [`Nic`]: what the kernel tells about one interface; [`Nic::read`] asks it
//! - [`Machine`]: `/sys` and `/proc`; `netlink`: ethtool, the family `netdev` and rtnetlink; `interrupts`: names to queues
//! - [`plan()`]: what is, and what is wanted, to [`Step`]s: a pure function
//! - [`Tuning`]: does the steps, remembers what was there before, and takes them back
//! - [`behind()`]: which worker serves the connections of a queue
//! - [`Shown`]: an interface as people read it

mod behind;
mod cpus;
mod interrupts;
mod machine;
mod netlink;
mod plan;
mod read;
mod survey;
#[cfg(test)]
mod tests;
mod text;
mod tuning;

use serde::{Deserialize, Serialize};

pub use behind::{Behind, Steered, behind, each_worker_has_a_queue};
pub use cpus::CpuSet;
pub use machine::Machine;
pub use netlink::NetlinkError;
pub use plan::{Change, Host, How, MERGING_OFFLOADS, Step, Workers, plan};
pub use survey::Survey;
pub use text::{Counted, CountedQueue, Shown};
pub use tuning::{Done, Tuning, TuningError};

/// Why nothing can be told about an interface. One line.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    #[error("interface `{name}` does not exist: there are {there} (see `ip link`)")]
    NoSuchInterface { name: String, there: String },
    #[error("cannot ask the kernel about interfaces: {0}")]
    Netlink(#[from] std::io::Error),
}

/// One interface. What a driver does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Nic {
    pub name: String,
    pub index: u32,
    /// The driver's module, or the kind of a virtual interface, such as "veth".
    pub driver: Option<String>,
    /// "up", "down", "unknown" and others (RFC 2863).
    pub state: String,
    /// Octets.
    pub mtu: u64,
    pub queues: Vec<Queue>,
    pub irqs: Vec<Irq>,
    #[serde(flatten)]
    pub settings: Settings,
    pub xdp: Option<AttachedProgram>,
    /// Packets and drops of all queues together, of every interface.
    pub totals: Totals,
}

impl Nic {
    /// The queues of one direction.
    pub fn queues(&self, direction: Direction) -> impl Iterator<Item = &Queue> {
        self.queues.iter().filter(move |queue| queue.direction == direction)
    }

    /// The interrupt of a queue.
    pub fn irq(&self, queue: &Queue) -> Option<&Irq> {
        self.irqs.iter().find(|irq| Some(irq.number) == queue.irq)
    }

    /// The most combined queues that still leave the driver what it needs for native XDP; none where it does not tell.
    pub fn combined_max_with_xdp(&self) -> Option<u32> {
        let max = self.settings.channels?.combined_max;
        // ena gives every queue a second one to send from XDP.
        Some(if self.driver.as_deref() == Some("ena") { max / 2 } else { max })
    }

    /// Whether an offload is on; none where the driver has no such thing.
    pub fn offload(&self, name: &str) -> Option<bool> {
        self.settings.offloads.iter().find(|offload| offload.name == name).map(|offload| offload.on)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Rx,
    Tx,
}

impl Direction {
    /// As sysfs names its folders.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    pub direction: Direction,
    pub number: u32,
    /// Receive: the CPUs that RPS spreads its packets over. Transmit: those whose packets take this queue (XPS).
    pub cpus: Option<CpuSet>,
    /// The number of the interrupt.
    pub irq: Option<u32>,
    /// By the driver (Linux 6.10, where the driver counts so).
    pub packets: Option<u64>,
    pub drops: Option<u64>,
}

/// An interrupt, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Irq {
    pub number: u32,
    pub name: String,
    /// Where it may run.
    pub affinity: CpuSet,
    /// Where it does run, where the kernel tells.
    pub effective: Option<CpuSet>,
}

impl Irq {
    /// The CPUs that handle it. A new affinity takes effect at the next interrupt only, so one that contradicts it is
    /// about to end.
    pub fn runs_on(&self) -> &CpuSet {
        let effective = self.effective.as_ref();
        effective.filter(|cpus| cpus.is_within(&self.affinity)).unwrap_or(&self.affinity)
    }
}

/// What ethtool sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    pub channels: Option<Channels>,
    pub rings: Option<Rings>,
    pub coalescing: Option<Coalescing>,
    pub offloads: Vec<Offload>,
    pub xdp_features: Option<XdpFeatures>,
}

/// Queues in use, and the most that the driver has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    pub rx: u32,
    pub rx_max: u32,
    pub tx: u32,
    pub tx_max: u32,
    /// Queues that do both.
    pub combined: u32,
    pub combined_max: u32,
}

/// Descriptors in each queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rings {
    pub rx: u32,
    pub rx_max: u32,
    pub tx: u32,
    pub tx_max: u32,
}

/// How long an interrupt waits for more packets. Absent is what the driver does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coalescing {
    pub rx_microseconds: Option<u32>,
    pub tx_microseconds: Option<u32>,
    pub rx_adaptive: Option<bool>,
}

/// One of the features of `ethtool -k`, by the kernel's name for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offload {
    pub name: String,
    pub on: bool,
}

/// What XDP can do in the driver, as the driver says (Linux 6.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct XdpFeatures {
    /// Pass, drop and transmit.
    pub basic: bool,
    pub redirect: bool,
    /// Frames that take several buffers.
    pub fragments: bool,
}

/// The XDP program of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AttachedProgram {
    pub id: u32,
    /// "native", "generic", "offloaded" or "multiple".
    pub mode: &'static str,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub rx_packets: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_dropped: u64,
}
