//! Typed handles of the maps: outside this file nobody knows a map's name, key or value type.

use std::net::TcpListener;

use aya::Ebpf;
use aya::maps::{Array, CpuMap, Map, MapData, MapError, PerCpuArray, ReusePortSockArray};

use ingress_ebpf::abi::{BUCKETS, Counts, QUEUES_MAX, Verdict, counter_slot, names};

use super::error::XdpError;

/// Packets that may wait for one CPU before the kernel drops the next. As deep as a large NIC ring, so that a burst of
/// one NAPI round (64) from every queue fits.
const CPU_QUEUE_PACKETS: u32 = 2_048;

/// Packets by interface, RX queue, verdict and CPU, since the program was loaded.
pub(super) struct Counters(PerCpuArray<MapData, Counts>);

impl Counters {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        take(ebpf, names::COUNTERS).map(Self)
    }

    /// Calls `visit` with queue, verdict, CPU and packets, for every counter of an interface that is not zero; `interface` is
    /// its place among those given at load. Costs a system call for each queue.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the kernel has no memory for the answer.
    pub(super) fn each(
        &self,
        interface: u32,
        mut visit: impl FnMut(u32, Verdict, usize, u64),
    ) -> Result<(), XdpError> {
        for queue in 0..QUEUES_MAX {
            let by_cpu = self
                .0
                .get(&counter_slot(interface, queue), 0)
                .map_err(|error| XdpError::from_map("read the packet counters", error))?;
            for (cpu, counts) in by_cpu.iter().enumerate() {
                for (verdict, &packets) in Verdict::ALL.iter().zip(counts).filter(|(_, n)| **n != 0)
                {
                    visit(queue, *verdict, cpu, packets);
                }
            }
        }
        Ok(())
    }
}

/// Where the buckets of connections go.
pub(super) struct Buckets {
    bucket_cpus: Array<MapData, u32>,
    cpus: CpuMap<MapData>,
}

impl Buckets {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        let bucket_cpus = take(ebpf, names::BUCKET_CPUS)?;
        let cpus = take(ebpf, names::CPUS)?;
        Ok(Self { bucket_cpus, cpus })
    }

    /// Deals the buckets out to `cpus` in turn, so that shares differ by one bucket at most.
    ///
    /// # Errors
    /// [`XdpError::Map`] when a CPU does not exist.
    pub(super) fn deal(&mut self, cpus: &[usize]) -> Result<(), XdpError> {
        for &cpu in cpus {
            self.cpus.set(cpu_number(cpu), CPU_QUEUE_PACKETS, None, 0).map_err(|error| {
                XdpError::from_map("redirect packets to a CPU of `workers`", error)
            })?;
        }
        for (bucket, &cpu) in (0..BUCKETS).zip(cpus.iter().cycle()) {
            self.bucket_cpus
                .set(bucket, cpu_number(cpu), 0)
                .map_err(|error| XdpError::from_map("deal connections out to workers", error))?;
        }
        Ok(())
    }
}

impl Buckets {
    /// Deals out the buckets of all other CPUs to `cpus` in turn; those of `cpus` stay where they are. Without any nothing changes.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the map cannot be read or written.
    pub(super) fn take_over(&mut self, cpus: &[usize]) -> Result<(), XdpError> {
        let map_error = |error| XdpError::from_map("deal connections out to other workers", error);
        let mut heirs = cpus.iter().map(|&cpu| cpu_number(cpu)).cycle();
        for bucket in 0..BUCKETS {
            let cpu = self.bucket_cpus.get(&bucket, 0).map_err(map_error)?;
            let is_served = cpus.iter().any(|&living| cpu_number(living) == cpu);
            if !is_served && let Some(heir) = heirs.next() {
                self.bucket_cpus.set(bucket, heir, 0).map_err(map_error)?;
            }
        }
        Ok(())
    }

    /// The CPU of each bucket.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the map cannot be read.
    pub(super) fn cpus(&self) -> Result<Vec<u32>, XdpError> {
        let map_error = |error| XdpError::from_map("read where connections go", error);
        (0..BUCKETS).map(|bucket| self.bucket_cpus.get(&bucket, 0).map_err(map_error)).collect()
    }
}

/// The listeners that `select_worker` chooses from, by CPU number. All of them belong to one SO_REUSEPORT group: the
/// kernel refuses to select a socket of another.
pub(super) struct WorkerSockets(ReusePortSockArray<MapData>);

impl WorkerSockets {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        take(ebpf, names::WORKERS).map(Self)
    }

    pub(super) fn set(&mut self, cpu: usize, listener: &TcpListener) -> Result<(), MapError> {
        self.0.set(cpu_number(cpu), listener, 0)
    }

    /// Lets go of the sockets, which can be in one such array at a time. The kernel's hash picks one until they are in another.
    pub(super) fn release(&mut self) {
        let cpus: Vec<u32> = self.0.indices().flatten().collect();
        for cpu in cpus {
            // Without a socket it is as it should be.
            let _ = self.0.clear_index(&cpu);
        }
    }
}

pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, XdpError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(XdpError::MissingPart { name })?;
    // A map of the right name and the wrong type or size comes from other sources, too.
    M::try_from(map).ok().ok_or(XdpError::MissingPart { name })
}

/// No machine has that many CPUs; a wrong number is refused by the map's bounds.
fn cpu_number(cpu: usize) -> u32 {
    u32::try_from(cpu).unwrap_or(u32::MAX)
}
