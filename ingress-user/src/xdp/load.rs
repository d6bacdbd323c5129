//! Object to kernel: load, attach, hold.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{Program, SkReuseport, TestRun, TestRunOptions, Xdp, XdpMode};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};

use ingress_ebpf::abi::{INTERFACES_MAX, MOVED_MAX, PORTS_MAX, names};

use super::clock;
use super::error::XdpError;
use super::filter::{Filter, Globals};
use super::maps::{Buckets, Counters, WorkerSockets};
use super::pins::{KEPT_MAPS, Pins};
use super::telemetry::{self, InterfaceTelemetry, VerdictCounts};
use crate::config::{FilterConfig, FilterMode};

/// An Ethernet header, the least that the kernel runs a program on.
const EMPTY_FRAME: [u8; 14] = [0; 14];

/// Where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttachMode {
    /// In the driver, before a packet costs any memory.
    Native,
    /// In the stack, after it did.
    Generic,
}

impl AttachMode {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What happens to packets for our ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirection<'a> {
    /// They stay on the CPU they came to.
    Off,
    /// Each connection goes to one of these CPUs, never empty.
    Cpus(&'a [usize]),
}

/// What the XDP program told the driver to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Pass,
    Redirect,
    Drop,
    /// The frame goes back to where it came from, with an answer in it.
    Answer,
    /// `XDP_ABORTED`, which the program should never return.
    Other(u32),
}

/// What the XDP program is loaded for.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Those that count as ours.
    pub ports: &'a [u16],
    /// Indexes of the interfaces, in the order in which they are counted.
    pub interfaces: &'a [u32],
    pub redirection: Redirection<'a>,
    /// After a [`beat`](Prefilter::beat); then every packet passes.
    pub heartbeat_timeout: Duration,
    pub filter: &'a FilterConfig,
}

/// By how much a frame may be longer behind the program than it came: a kernel lets XDP add 256 bytes at its front at most.
const FRAME_GROWTH_BYTES_MAX: usize = 256;

/// The XDP program, loaded once for all interfaces: they share its maps.
pub struct Prefilter {
    ebpf: Ebpf,
    counters: Counters,
    buckets: Mutex<Buckets>,
    filter: Arc<Filter>,
}

impl Prefilter {
    /// Loads `object` into the kernel.
    ///
    /// # Errors
    /// [`XdpError`], of which [`XdpError::NotPermitted`] is the usual one.
    pub fn load(object: &[u8], setup: Setup<'_>) -> Result<Self, XdpError> {
        Self::load_pinned(object, setup, None)
    }

    /// The same with what an earlier daemon has left in `pins`, and leaves it there for the next.
    pub(super) fn load_pinned(
        object: &[u8],
        setup: Setup<'_>,
        pins: Option<&Pins>,
    ) -> Result<Self, XdpError> {
        let Setup { ports, interfaces, redirection, heartbeat_timeout, filter } = setup;
        let port_slots = port_slots(ports)?;
        let interface_slots = interface_slots(interfaces)?;
        let steer = u32::from(matches!(redirection, Redirection::Cpus(_)));
        let tick = clock::tick();
        let heartbeat_timeout = u64::try_from(heartbeat_timeout.as_nanos()).unwrap_or(u64::MAX);
        let globals = Globals::of(filter);
        let mut loader = loader();
        loader
            .override_global(names::PORTS, &port_slots[..], true)
            .override_global(names::HASH_SEED, hash_seed(), true)
            .override_global(names::STEER, &steer, true)
            .override_global(names::INTERFACES, &interface_slots[..], true)
            .override_global(names::TICK, &tick, true)
            .override_global(names::HEARTBEAT_TIMEOUT, &heartbeat_timeout, true)
            .override_global(names::ENFORCEMENT, &globals.enforcement, true)
            .override_global(names::SYN_PAYLOAD_BYTES_MAX, &globals.syn_payload_bytes_max, true)
            .override_global(names::SOURCE_PERIOD, &globals.source_period, true)
            .override_global(names::SOURCE_BURST, &globals.source_burst, true)
            .override_global(names::PRESSURE_PERIOD, &globals.pressure_period, true)
            .override_global(names::PRESSURE_BURST, &globals.pressure_burst, true)
            .override_global(names::SAMPLE_EVERY, &globals.sample_every, true)
            .override_global(names::SYN_COOKIES, &globals.syn_cookies, true);
        if filter.mode == FilterMode::Off {
            without_filter(&mut loader);
        } else if let Some(pins) = pins {
            for map in KEPT_MAPS {
                loader.map_pin_path(map, pins.map(map));
            }
        }
        if redirection != Redirection::Off {
            loader.map_max_entries(names::MOVED, MOVED_MAX);
        }
        let mut ebpf = loader.load(object).map_err(XdpError::from_object)?;
        let counters = Counters::take(&mut ebpf)?;
        let filter = Arc::new(Filter::take(&mut ebpf, filter.mode, *hash_seed())?);
        let mut buckets = Buckets::take(&mut ebpf)?;
        if let Redirection::Cpus(cpus) = redirection {
            buckets.deal(cpus)?;
        }
        for name in [names::PREFILTER, names::BEAT_PROGRAM] {
            let program: &mut Xdp = program(&mut ebpf, name)?;
            program.load().map_err(|error| XdpError::from_load(name, error))?;
        }
        let prefilter = Self { ebpf, counters, buckets: Mutex::new(buckets), filter };
        // Before it is attached, so that it never passes what it is to drop.
        prefilter.beat()?;
        Ok(prefilter)
    }

    /// A sign of life: has the program note its time, and the filter reckon with that. How long it was since the last one.
    ///
    /// # Errors
    /// [`XdpError`], when the kernel does not run `beat` (BPF_PROG_TEST_RUN).
    pub fn beat(&self) -> Result<Duration, XdpError> {
        let name = names::BEAT_PROGRAM;
        let beat: &Xdp = self
            .ebpf
            .program(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(XdpError::MissingPart { name })?;
        let options = TestRunOptions { data_in: Some(&EMPTY_FRAME), ..TestRunOptions::default() };
        beat.test_run(options).map_err(|source| XdpError::TestRun { program: name, source })?;
        self.filter.read_clock()
    }

    /// Connections that were redirected to other CPUs than these go to these from now on.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the kernel does not let the map be changed.
    pub fn redirect_to(&self, cpus: &[usize]) -> Result<(), XdpError> {
        self.buckets().take_over(cpus)
    }

    /// New connections of so many buckets go to another CPU from now on, and open ones stay; how many buckets there were.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the kernel does not let the map be changed.
    pub fn give(&self, from: usize, to: usize, buckets: usize) -> Result<usize, XdpError> {
        self.buckets().give(from, to, buckets)
    }

    /// How many buckets have their new connections go to each of these CPUs.
    pub fn shares(&self, cpus: &[usize]) -> Vec<usize> {
        let buckets = self.buckets();
        cpus.iter().map(|&cpu| buckets.share(cpu)).collect()
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        // Map and copy are the same after each call.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its bans, lists and samples.
    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    /// Attaches to `interface`, until the answer is dropped; in place of the program of the daemon before, where that has left its
    /// attachment in `pins`. Never generic with a redirection: the kernel would then drop every packet (`steering` sees to that).
    ///
    /// # Errors
    /// [`XdpError`], by what the operator can do about it.
    pub(super) fn attach(
        &mut self,
        interface: &str,
        mode: AttachMode,
        pins: Option<&Pins>,
    ) -> Result<Attached, XdpError> {
        let program: &mut Xdp = program(&mut self.ebpf, names::PREFILTER)?;
        if let Some(left) = pins.and_then(|pins| pins.take_link(interface, mode))
            && let Some(link) = replace(program, interface, left)
        {
            return Ok(Attached::new(interface, mode, Some(link)));
        }
        let flags = match mode {
            // Said explicitly: the kernel's default silently becomes generic.
            AttachMode::Native => XdpMode::Driver,
            AttachMode::Generic => XdpMode::Skb,
        };
        let link = program
            .attach(interface, flags)
            .and_then(|id| program.take_link(id))
            .map_err(|error| XdpError::from_attach(interface, error))?;
        // The only link that does not convert is the netlink attachment to which aya falls back on EINVAL.
        let link = FdLink::try_from(link).ok();
        if link.is_none() {
            tracing::warn!(
                interface,
                "attached by netlink, because the kernel refused a bpf_link: the program stays when the daemon ends, and passes \
                 everything from xdp.heartbeat_timeout later on; \
                 `ip link set dev {interface} xdp off` removes it"
            );
        }
        Ok(Attached::new(interface, mode, link))
    }

    /// Runs the program on one frame without any interface (BPF_PROG_TEST_RUN): the kernel gives it queue 0 of the loopback
    /// interface, and where that is not among those given at load, the frame counts for the first one.
    ///
    /// # Errors
    /// [`XdpError::TestRun`]; the kernel wants at least 14 bytes, an Ethernet header.
    pub fn run(&mut self, frame: &[u8]) -> Result<Action, XdpError> {
        Ok(self.run_through(frame)?.0)
    }

    /// The same, and the frame as the program hands it on.
    ///
    /// # Errors
    /// [`XdpError::TestRun`], as for [`run`](Self::run).
    pub fn run_through(&mut self, frame: &[u8]) -> Result<(Action, Vec<u8>), XdpError> {
        let program: &mut Xdp = program(&mut self.ebpf, names::PREFILTER)?;
        let mut out = vec![0; frame.len() + FRAME_GROWTH_BYTES_MAX];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let result = program
            .test_run(options)
            .map_err(|source| XdpError::TestRun { program: names::PREFILTER, source })?;
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Answer,
            4 => Action::Redirect,
            other => Action::Other(other),
        };
        Ok((action, out))
    }

    /// What a packet costs: the program's time for so many runs on the same frame, each of which is counted.
    ///
    /// # Errors
    /// [`XdpError::TestRun`], as for [`run`](Self::run).
    pub fn time(&mut self, frame: &[u8], packets: u32) -> Result<Duration, XdpError> {
        time(&mut self.ebpf, names::PREFILTER, frame, packets)
    }

    /// The same for a program that drops the packet unseen.
    ///
    /// # Errors
    /// [`XdpError`], when it cannot be loaded or run.
    pub fn time_baseline(&mut self, frame: &[u8], packets: u32) -> Result<Duration, XdpError> {
        let baseline: &mut Xdp = program(&mut self.ebpf, names::BASELINE)?;
        if baseline.fd().is_err() {
            baseline.load().map_err(|error| XdpError::from_load(names::BASELINE, error))?;
        }
        time(&mut self.ebpf, names::BASELINE, frame, packets)
    }

    /// Packets by verdict, since the program was loaded.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the kernel has no memory for the answer.
    pub fn verdicts(&self) -> Result<VerdictCounts, XdpError> {
        Ok(self.traffic(0)?.verdicts)
    }

    /// What the interface at this place among those given at load has had, whether the program is attached to it or not: its
    /// name and mode are empty.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the kernel has no memory for the answer.
    pub fn traffic(&self, slot: u32) -> Result<InterfaceTelemetry, XdpError> {
        telemetry::read("", "", slot, &self.counters, self.filter.drops())
    }

    /// What the interface at this place among those given at load has had.
    ///
    /// # Errors
    /// [`XdpError::Map`] when the kernel has no memory for the answer.
    pub(super) fn telemetry(
        &self,
        slot: u32,
        attached: &Attached,
    ) -> Result<InterfaceTelemetry, XdpError> {
        let (name, mode) = (&attached.interface, attached.mode.name());
        telemetry::read(name, mode, slot, &self.counters, self.filter.drops())
    }
}

fn time(
    ebpf: &mut Ebpf,
    name: &'static str,
    frame: &[u8],
    packets: u32,
) -> Result<Duration, XdpError> {
    let program: &mut Xdp = program(ebpf, name)?;
    let options =
        TestRunOptions { data_in: Some(frame), repeat: packets, ..TestRunOptions::default() };
    let result =
        program.test_run(options).map_err(|source| XdpError::TestRun { program: name, source })?;
    // The kernel tells the mean.
    Ok(result.duration * packets)
}

/// Puts the program in the place of the one that `link` attaches: there is no packet that neither of them sees. None, with the old
/// one detached, when the kernel refuses.
fn replace(program: &mut Xdp, interface: &str, link: FdLink) -> Option<FdLink> {
    let replaced = match XdpLink::try_from(link) {
        Ok(link) => program.attach_to_link(link).and_then(|id| program.take_link(id)),
        Err(error) => {
            tracing::warn!(interface, %error, "what the daemon before has left is no attachment of XDP");
            return None;
        }
    };
    match replaced {
        Ok(link) => {
            tracing::info!(interface, "the filter took the place of the one before");
            FdLink::try_from(link).ok()
        }
        Err(error) => {
            tracing::warn!(interface, %error, "the filter cannot take the place of the one before and is attached anew");
            None
        }
    }
}

/// The XDP program on an interface. Dropping it detaches.
pub(super) struct Attached {
    interface: String,
    mode: AttachMode,
    /// Keeps the program attached; it keeps its maps alive in turn. None after a netlink attachment.
    link: Mutex<Option<FdLink>>,
}

impl Attached {
    fn new(interface: &str, mode: AttachMode, link: Option<FdLink>) -> Self {
        Self { interface: interface.to_owned(), mode, link: Mutex::new(link) }
    }

    /// The program stays for the daemon that comes next, beyond this value.
    pub(super) fn leave(&self, pins: &Pins) {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(link) = link {
            pins.leave_link(&self.interface, self.mode, link);
        }
    }
}

/// Loads `select_worker` for one SO_REUSEPORT group and attaches it. The group keeps the program, and the program its
/// sockets, until the last listener is closed or they are released.
pub(super) fn attach_select_worker(
    object: &[u8],
    group: &[(usize, &TcpListener)],
) -> Result<Option<WorkerSockets>, XdpError> {
    let Some((_, any)) = group.first() else { return Ok(None) };
    let mut loader = loader();
    let mut ebpf = without_filter(&mut loader).load(object).map_err(XdpError::from_object)?;
    let mut sockets = WorkerSockets::take(&mut ebpf)?;
    for (cpu, listener) in group {
        sockets.set(*cpu, listener).map_err(|error| listener_error(listener, error))?;
    }
    let program: &mut SkReuseport = program(&mut ebpf, names::SELECT_WORKER)?;
    program.load().map_err(|error| XdpError::from_load(names::SELECT_WORKER, error))?;
    // Last, when every socket is in its place.
    program.attach(any).map_err(|error| listener_error(any, error))?;
    Ok(Some(sockets))
}

fn listener_error(
    listener: &TcpListener,
    source: impl std::error::Error + Send + Sync + 'static,
) -> XdpError {
    match listener.local_addr() {
        Ok(address) => XdpError::Listener { address, source: source.into() },
        Err(error) => XdpError::from_map("read the address of a listener", error),
    }
}

/// A loader with the maps sized for this machine.
fn loader<'a>() -> EbpfLoader<'a> {
    // Without sysfs the maps keep their single entry, and the first CPU above 0 is refused with its number.
    let cpus = nr_cpus().map_or(1, |cpus| u32::try_from(cpus).unwrap_or(u32::MAX));
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(names::CPUS, cpus).map_max_entries(names::WORKERS, cpus);
    // Where nothing is steered, nothing moves.
    loader.map_max_entries(names::MOVED, 1);
    loader
}

/// The filter's maps at their smallest, where nobody looks at them.
fn without_filter<'l, 'a>(loader: &'l mut EbpfLoader<'a>) -> &'l mut EbpfLoader<'a> {
    for map in [names::BANS, names::BAN_PACKETS, names::SOURCES, names::FIRST_SEEN, names::DROPPED]
    {
        loader.map_max_entries(map, 1);
    }
    loader
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, XdpError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    let program = ebpf.program_mut(name).ok_or(XdpError::MissingPart { name })?;
    program.try_into().ok().ok_or(XdpError::MissingPart { name })
}

/// One for the process, so that a connection has the same CPU on every interface.
static HASH_SEED: OnceLock<u64> = OnceLock::new();

/// The secret of the connection hash.
pub fn hash_seed() -> &'static u64 {
    // The standard library's hasher is seeded with random numbers of the kernel.
    HASH_SEED.get_or_init(|| RandomState::new().hash_one(()))
}

/// Takes the secret over from the daemon before, so that open connections keep their CPUs. Does nothing once there is one.
pub fn inherit_hash_seed(seed: u64) {
    let _ = HASH_SEED.set(seed);
}

fn port_slots(ports: &[u16]) -> Result<[u16; PORTS_MAX], XdpError> {
    // Listeners of several addresses share a port.
    let ports: Vec<u16> = BTreeSet::from_iter(ports.iter().copied()).into_iter().collect();
    let mut slots = [0; PORTS_MAX];
    let used = slots.get_mut(..ports.len()).ok_or(XdpError::TooManyPorts { count: ports.len() })?;
    used.copy_from_slice(&ports);
    Ok(slots)
}

fn interface_slots(indexes: &[u32]) -> Result<[u32; INTERFACES_MAX], XdpError> {
    let mut slots = [0; INTERFACES_MAX];
    let used = slots
        .get_mut(..indexes.len())
        .ok_or(XdpError::TooManyInterfaces { count: indexes.len() })?;
    used.copy_from_slice(indexes);
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use socket2::{Domain, Socket, Type};

    use super::super::object::object;
    use super::*;

    fn listener(address: SocketAddr, reuse_port: bool) -> TcpListener {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_port(reuse_port).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(16).unwrap();
        socket.into()
    }

    /// None, with the reason printed, where programs cannot be loaded.
    fn attach(group: &[(usize, &TcpListener)]) -> Option<Result<(), XdpError>> {
        let attached = object().map_or(Err(XdpError::NoObject), |o| attach_select_worker(o, group));
        match attached {
            Err(error @ (XdpError::NoObject | XdpError::NotPermitted { .. })) => {
                println!("skipped: {error}");
                None
            }
            attached => Some(attached.map(drop)),
        }
    }

    #[test]
    fn every_address_has_a_group_of_its_own() {
        for _ in 0..2 {
            let first = listener((Ipv4Addr::LOCALHOST, 0).into(), true);
            let second = listener(first.local_addr().unwrap(), true);
            let Some(attached) = attach(&[(0, &first), (1, &second)]) else { return };
            attached.unwrap();
        }
    }

    #[test]
    fn a_listener_without_reuseport_is_named() {
        let alone = listener((Ipv4Addr::LOCALHOST, 0).into(), false);
        let Some(attached) = attach(&[(0, &alone)]) else { return };
        let error = attached.unwrap_err();
        let address = alone.local_addr().unwrap().to_string();
        assert!(matches!(error, XdpError::Listener { .. }), "{error:?}");
        assert!(error.to_string().contains(&address), "{error}");
    }
}
