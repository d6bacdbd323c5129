//! The packet counters, added up for people.

use std::collections::BTreeMap;

use ingress_ebpf::abi::Verdict;

use super::error::XdpError;
use super::maps::Counters;

/// Packets by verdict name, every verdict once, in a fixed order.
pub type VerdictCounts = Vec<(&'static str, u64)>;

/// What came in on one interface since the daemon attached to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceTelemetry {
    pub name: String,
    /// "native" or "generic".
    pub mode: &'static str,
    /// All queues and CPUs together.
    pub verdicts: VerdictCounts,
    /// Queues that had a packet, ascending. The last one that is counted apart stands for all above it.
    pub queues: Vec<QueueTelemetry>,
    /// CPUs that had a packet before any redirection, ascending.
    pub cpus: Vec<CpuTelemetry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueTelemetry {
    pub queue: u32,
    pub verdicts: VerdictCounts,
    /// Packets that the filter has dropped.
    pub dropped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuTelemetry {
    pub cpu: usize,
    pub verdicts: VerdictCounts,
}

pub(super) fn read(
    name: &str,
    mode: &'static str,
    slot: u32,
    counters: &Counters,
    drops: bool,
) -> Result<InterfaceTelemetry, XdpError> {
    let mut total = Tally::default();
    let mut queues = BTreeMap::<u32, Tally>::new();
    let mut cpus = BTreeMap::<usize, Tally>::new();
    counters.each(slot, |queue, verdict, cpu, packets| {
        total.add(verdict, packets);
        queues.entry(queue).or_default().add(verdict, packets);
        cpus.entry(cpu).or_default().add(verdict, packets);
    })?;
    let queues = queues
        .into_iter()
        .map(|(queue, tally)| QueueTelemetry {
            queue,
            verdicts: tally.counts(),
            dropped: if drops { tally.against() } else { 0 },
        })
        .collect();
    let cpus = cpus
        .into_iter()
        .map(|(cpu, tally)| CpuTelemetry { cpu, verdicts: tally.counts() })
        .collect();
    Ok(InterfaceTelemetry { name: name.to_owned(), mode, verdicts: total.counts(), queues, cpus })
}

#[derive(Debug, Default)]
struct Tally([u64; Verdict::COUNT as usize]);

impl Tally {
    fn add(&mut self, verdict: Verdict, packets: u64) {
        self.0[verdict as usize] += packets;
    }

    fn against(&self) -> u64 {
        let packets = Verdict::ALL.iter().zip(self.0);
        packets.filter(|(verdict, _)| verdict.is_against()).map(|(_, packets)| packets).sum()
    }

    fn counts(&self) -> VerdictCounts {
        Verdict::ALL.map(Verdict::name).into_iter().zip(self.0).collect()
    }
}
