//! Typed handles of the maps: outside this file nobody knows a map's name, key or value type.

use std::net::TcpListener;

use aya::Ebpf;
use aya::maps::{Array, CpuMap, Map, MapData, MapError, PerCpuArray, ReusePortSockArray};

use ingress_ebpf::abi::{BUCKETS, Counts, QUEUES_MAX, Verdict, counter_slot, names};
use ingress_ebpf::steer::Bucket;

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

/// Where the buckets of connections go. Nobody else writes the map, so that it need not be read.
pub(super) struct Buckets {
    map: Array<MapData, u64>,
    cpus: CpuMap<MapData>,
    /// What stands in the map; empty as long as none are dealt out.
    dealt: Vec<Bucket>,
}

impl Buckets {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        let map = take(ebpf, names::BUCKET_CPUS)?;
        let cpus = take(ebpf, names::CPUS)?;
        Ok(Self { map, cpus, dealt: vec![] })
    }

    /// Deals the buckets out to `cpus` in turn, so that shares differ by one bucket at most. For once, before there are packets.
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
            let dealt = Bucket::at(cpu_number(cpu));
            self.map
                .set(bucket, dealt.pack(), 0)
                .map_err(|error| XdpError::from_map("deal connections out to workers", error))?;
            self.dealt.push(dealt);
        }
        Ok(())
    }

    /// Deals out what goes to all other CPUs to `cpus` in turn, open connections and new ones; what goes to `cpus` stays. Without
    /// any nothing changes.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the map cannot be written.
    pub(super) fn take_over(&mut self, cpus: &[usize]) -> Result<(), XdpError> {
        let cpus: Vec<u32> = cpus.iter().map(|&cpu| cpu_number(cpu)).collect();
        let mut heirs = cpus.iter().copied().cycle();
        self.change(|mut bucket| {
            if !cpus.contains(&bucket.current)
                && let Some(heir) = heirs.next()
            {
                bucket.current = heir;
            }
            if !cpus.contains(&bucket.home) {
                // The worker's connections are lost; who waited in its listeners is another's now.
                bucket.home = bucket.current;
            }
            bucket
        })
    }

    /// Has new connections of so many buckets go to another CPU; how many there were. Buckets that have moved before go first,
    /// since their packets cost a look-up already.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the map cannot be written.
    pub(super) fn give(
        &mut self,
        from: usize,
        to: usize,
        buckets: usize,
    ) -> Result<usize, XdpError> {
        let (from, to) = (cpu_number(from), cpu_number(to));
        let mut given = 0;
        for moved_before in [true, false] {
            self.change(|bucket| {
                let is_next = bucket.current == from && bucket.has_moved == moved_before;
                if !is_next || given == buckets {
                    return bucket;
                }
                given += 1;
                bucket.moved_to(to)
            })?;
        }
        Ok(given)
    }

    /// How many buckets have their new connections go to this CPU.
    pub(super) fn share(&self, cpu: usize) -> usize {
        self.dealt.iter().filter(|bucket| bucket.current == cpu_number(cpu)).count()
    }

    fn change(&mut self, mut change: impl FnMut(Bucket) -> Bucket) -> Result<(), XdpError> {
        for (number, bucket) in (0..).zip(&mut self.dealt) {
            let changed = change(*bucket);
            if changed != *bucket {
                self.map.set(number, changed.pack(), 0).map_err(|error| {
                    XdpError::from_map("deal connections out to other workers", error)
                })?;
                *bucket = changed;
            }
        }
        Ok(())
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
