//! The data plane as the daemon holds it.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{FilterMode, XdpConfig};
use crate::nic::{Machine, Survey};

use super::cookies::{self, Making};
use super::error::XdpError;
use super::filter::Filter;
use super::load::{self, Attached, Prefilter, Redirection, Setup};
use super::maps::WorkerSockets;
use super::object::object;
use super::pins::Pins;
use super::steering::{self, Attach, Tier};
use super::telemetry::InterfaceTelemetry;

/// The kernel programs of one daemon. Dropping it detaches them from the interfaces.
pub struct DataPlane {
    tier: Tier,
    reason: String,
    /// None where it is not attached.
    prefilter: Option<Prefilter>,
    interfaces: Vec<Attached>,
    /// One for each listener address, in tiers with `select_worker`.
    selections: Mutex<Vec<WorkerSockets>>,
    pins: Option<Pins>,
}

/// The kernel programs loaded, as far as there is a need, and attached nowhere yet: the lists of the filter can be put in force before
/// the first packet comes.
pub struct PreparedDataPlane<'a> {
    config: &'a XdpConfig,
    survey: &'a Survey,
    tier: Tier,
    reason: String,
    prefilter: Option<(Prefilter, Attach)>,
    pins: Option<Pins>,
}

impl<'a> PreparedDataPlane<'a> {
    /// Loads what `config` asks for. `worker_cpus` are the CPUs that have a worker, `ports` those of the listeners;
    /// `survey` what is known of the interfaces. Between restarts maps are kept under `state_dir`'s name.
    ///
    /// With `xdp.mode = "auto"` a failure is a warning in the log, and the tier one that needs no XDP.
    ///
    /// # Errors
    /// [`XdpError`] when native or generic XDP is demanded and cannot be had.
    pub fn load(
        config: &'a XdpConfig,
        worker_cpus: &[usize],
        ports: &[u16],
        survey: &'a Survey,
        state_dir: &Path,
    ) -> Result<Self, XdpError> {
        let plan = steering::plan(config, survey.queues_fit);
        let (tier, reason) = (plan.tier, plan.reason.to_owned());
        let plane = Self { config, survey, tier, reason, prefilter: None, pins: None };
        let Some(attach) = plan.attach else { return Ok(plane) };
        let redirection = match plan.tier {
            Tier::Cpumap => Redirection::Cpus(worker_cpus),
            Tier::Queues | Tier::IncomingCpu | Tier::None => Redirection::Off,
        };
        if config.filter.sends_cookies() && Making::read(&Machine::this()) == Making::Never {
            tracing::warn!("{}: {}", cookies::NEVER, cookies::REMEDY);
        }
        let pins = open_pins(config, state_dir);
        match load(config, ports, redirection, pins.as_ref()) {
            Ok(prefilter) => Ok(Self { prefilter: Some((prefilter, attach)), pins, ..plane }),
            Err(error) => plane.without_xdp(error, attach),
        }
    }

    /// The filter, where there is one.
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        let filter = self.prefilter.as_ref().map(|(prefilter, _)| prefilter.filter());
        filter.filter(|filter| filter.is_on())
    }

    /// Attaches, in place of the program of the daemon before where that has handed it over.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn attach(mut self) -> Result<DataPlane, XdpError> {
        let mut interfaces = vec![];
        let mut prefilter = None;
        if let Some((mut loaded, attach)) = self.prefilter.take() {
            match attach_all(&mut loaded, self.config, attach, self.pins.as_ref()) {
                Ok(attached) => {
                    loaded.filter().attached();
                    (prefilter, interfaces) = (Some(loaded), attached);
                }
                Err(error) => {
                    let error = error.with_occupant(&self.survey.programs);
                    self = self.without_xdp(error, attach)?;
                }
            }
        }
        if let Some(pins) = &self.pins {
            pins.drop_links();
        }
        let Self { tier, reason, pins, .. } = self;
        let selections = Mutex::default();
        Ok(DataPlane { tier, reason, prefilter, interfaces, selections, pins })
    }

    /// What is left when XDP cannot be had and need not.
    fn without_xdp(self, error: XdpError, attach: Attach) -> Result<Self, XdpError> {
        if attach.required {
            return Err(error);
        }
        let reason = format!("XDP is not in use: {}.", error.with_causes());
        tracing::warn!("{reason}");
        if let Some(log) = error.verifier_log() {
            tracing::debug!("verifier log:\n{log}");
        }
        let tier = steering::without_xdp(self.config.steering);
        Ok(Self { tier, reason, prefilter: None, ..self })
    }
}

impl DataPlane {
    /// Makes the kernel give each connection to the listener of the CPU it comes in on; does nothing in a tier that
    /// does without. Once for every listener address: `group` is that address's SO_REUSEPORT group, all of it, with
    /// the CPU of each listener's worker.
    ///
    /// A CPU without a listener, and a listener that was closed, leave the choice to the kernel's hash.
    ///
    /// # Errors
    /// [`XdpError::Listener`] when a socket was not in SO_REUSEPORT before it was bound.
    pub fn attach_listeners(&self, group: &[(usize, &TcpListener)]) -> Result<(), XdpError> {
        if !self.tier.selects_worker() {
            return Ok(());
        }
        let object = object().ok_or(XdpError::NoObject)?;
        let selection = load::attach_select_worker(object, group)?;
        self.selections().extend(selection);
        Ok(())
    }

    fn selections(&self) -> MutexGuard<'_, Vec<WorkerSockets>> {
        // Each is whole after each call.
        self.selections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker has died; those on `cpus` live. Its connections go to them from now on, those of the living ones as before. A
    /// failure is in the log.
    pub fn redirect_to(&self, cpus: &[usize]) {
        let Some(prefilter) = self.redirecting() else { return };
        if let Err(error) = prefilter.redirect_to(cpus) {
            tracing::error!(
                "connections of a dead worker are not redirected: {}",
                error.with_causes()
            );
        }
    }

    /// How many of the buckets of connections go to each of these CPUs. None where XDP does not deal them out.
    pub fn shares(&self, cpus: &[usize]) -> Option<Vec<usize>> {
        self.redirecting().map(|prefilter| prefilter.shares(cpus))
    }

    /// New connections of so many buckets go to another CPU from now on, and open ones stay; how many buckets there were. A failure
    /// is in the log.
    pub fn give(&self, from: usize, to: usize, buckets: usize) -> usize {
        let Some(prefilter) = self.redirecting() else { return 0 };
        prefilter.give(from, to, buckets).unwrap_or_else(|error| {
            tracing::error!("connections are not dealt out anew: {}", error.with_causes());
            0
        })
    }

    fn redirecting(&self) -> Option<&Prefilter> {
        self.prefilter.as_ref().filter(|_| self.tier == Tier::Cpumap)
    }

    /// A sign of life for the program, without which it passes every packet. How long it was since the last one; none where XDP
    /// is not in use.
    pub(super) fn beat(&self) -> Option<Result<Duration, XdpError>> {
        self.prefilter.as_ref().map(Prefilter::beat)
    }

    /// The filter, where there is one.
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        self.prefilter.as_ref().map(Prefilter::filter).filter(|filter| filter.is_on())
    }

    /// Leaves the attached programs, what the filter knows and the listening sockets to the daemon that takes over. Until that has
    /// replaced it the filter goes on.
    pub fn leave(&self) {
        self.selections().iter_mut().for_each(WorkerSockets::release);
        let Some(pins) = &self.pins else { return };
        for attached in &self.interfaces {
            attached.leave(pins);
        }
    }

    /// Gives up what would outlive this daemon: no other follows at once.
    pub fn remove_pins(&self) {
        if let Some(pins) = &self.pins {
            pins.remove();
        }
    }

    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Why it is this tier: one sentence.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The counters of every attached interface. An interface whose counters cannot be read is left out, with a
    /// warning in the log.
    pub fn telemetry(&self) -> Vec<InterfaceTelemetry> {
        let Some(prefilter) = &self.prefilter else { return vec![] };
        let read = |(slot, attached): (u32, &Attached)| {
            prefilter
                .telemetry(slot, attached)
                .inspect_err(|error| tracing::warn!("no counters: {}", error.with_causes()))
                .ok()
        };
        (0..).zip(&self.interfaces).filter_map(read).collect()
    }
}

/// None, with the reason in the log, where nothing can outlive the daemon: it works without.
fn open_pins(config: &XdpConfig, state_dir: &Path) -> Option<Pins> {
    if config.filter.mode == FilterMode::Off {
        return None;
    }
    Pins::open(&config.pin_dir, state_dir)
        .inspect_err(|error| {
            tracing::info!("a restart will attach the filter anew and forget its budgets: {error}");
        })
        .ok()
}

fn load(
    config: &XdpConfig,
    ports: &[u16],
    redirection: Redirection<'_>,
    pins: Option<&Pins>,
) -> Result<Prefilter, XdpError> {
    let object = object().ok_or(XdpError::NoObject)?;
    let indexes =
        config.interfaces.iter().map(|name| index_of(name)).collect::<Result<Vec<_>, _>>()?;
    let setup = Setup {
        ports,
        interfaces: &indexes,
        redirection,
        heartbeat_timeout: config.heartbeat_timeout,
        filter: &config.filter,
    };
    Prefilter::load_pinned(object, setup, pins)
}

/// All or none: when one interface fails, those before it are detached by their drop.
fn attach_all(
    prefilter: &mut Prefilter,
    config: &XdpConfig,
    attach: Attach,
    pins: Option<&Pins>,
) -> Result<Vec<Attached>, XdpError> {
    // It may have been loaded long ago.
    prefilter.beat()?;
    config.interfaces.iter().map(|name| prefilter.attach(name, attach.mode, pins)).collect()
}

fn index_of(interface: &str) -> Result<u32, XdpError> {
    let no_such = |_error| XdpError::NoSuchInterface { interface: interface.to_owned() };
    // The kernel has no names with NUL, and aya would panic on one.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .map_err(|error| XdpError::from_map("open a socket", error))?;
    rustix::net::netdevice::name_to_index(&socket, interface).map_err(no_such)
}

const _: () = {
    // The control plane reads telemetry while the main thread holds the data plane.
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<DataPlane>();
};
