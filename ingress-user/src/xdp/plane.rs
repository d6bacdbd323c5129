//! The data plane as the daemon holds it.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;

use crate::config::XdpConfig;
use crate::nic::{Machine, Survey};

use super::cookies::{self, Making};
use super::error::XdpError;
use super::filter::Filter;
use super::load::{self, Attached, Prefilter, Redirection, Setup};
use super::object::object;
use super::steering::{self, Attach, Tier};
use super::telemetry::InterfaceTelemetry;

/// The kernel programs of one daemon. Dropping it detaches them from the interfaces.
pub struct DataPlane {
    tier: Tier,
    reason: String,
    /// None where it is not attached.
    prefilter: Option<Prefilter>,
    interfaces: Vec<Attached>,
}

impl DataPlane {
    /// Attaches what `config` asks for. `worker_cpus` are the CPUs that have a worker, `ports` those of the listeners;
    /// `survey` what is known of the interfaces.
    ///
    /// With `xdp.mode = "auto"` a failure is a warning in the log, and the tier one that needs no XDP.
    ///
    /// # Errors
    /// [`XdpError`] when native or generic XDP is demanded and cannot be had.
    pub fn start(
        config: &XdpConfig,
        worker_cpus: &[usize],
        ports: &[u16],
        survey: &Survey,
    ) -> Result<Self, XdpError> {
        let plan = steering::plan(config, survey.queues_fit);
        let Some(attach) = plan.attach else {
            return Ok(Self::without_prefilter(plan.tier, plan.reason.into()));
        };
        let redirection = match plan.tier {
            Tier::Cpumap => Redirection::Cpus(worker_cpus),
            Tier::Queues | Tier::IncomingCpu | Tier::None => Redirection::Off,
        };
        let attached = attach_all(config, attach, ports, redirection);
        match attached.map_err(|error| error.with_occupant(&survey.programs)) {
            Ok((prefilter, interfaces)) => {
                if config.filter.sends_cookies() && Making::read(&Machine::this()) == Making::Never
                {
                    tracing::warn!("{}: {}", cookies::NEVER, cookies::REMEDY);
                }
                Ok(Self {
                    tier: plan.tier,
                    reason: plan.reason.into(),
                    prefilter: Some(prefilter),
                    interfaces,
                })
            }
            Err(error) if attach.required => Err(error),
            Err(error) => {
                let reason = format!("XDP is not in use: {}.", error.with_causes());
                tracing::warn!("{reason}");
                if let Some(log) = error.verifier_log() {
                    tracing::debug!("verifier log:\n{log}");
                }
                Ok(Self::without_prefilter(steering::without_xdp(config.steering), reason))
            }
        }
    }

    /// Makes the kernel give each connection to the listener of the CPU it comes in on; does nothing in a tier that
    /// does without. Once for every listener address: `group` is that address's SO_REUSEPORT group, all of it, with
    /// the CPU of each listener's worker.
    ///
    /// A CPU without a listener, and a listener that was closed, leave the choice to the kernel's hash.
    ///
    /// # Errors
    /// [`XdpError::Listener`] when a socket was not in SO_REUSEPORT before it was bound.
    pub fn attach_listeners(&mut self, group: &[(usize, &TcpListener)]) -> Result<(), XdpError> {
        if !self.tier.selects_worker() {
            return Ok(());
        }
        load::attach_select_worker(object().ok_or(XdpError::NoObject)?, group)
    }

    fn without_prefilter(tier: Tier, reason: String) -> Self {
        Self { tier, reason, prefilter: None, interfaces: vec![] }
    }

    /// A worker has died; those on `cpus` live. Its connections go to them from now on, those of the living ones as before. A
    /// failure is in the log.
    pub fn redirect_to(&self, cpus: &[usize]) {
        let Some(prefilter) = self.prefilter.as_ref().filter(|_| self.tier == Tier::Cpumap) else {
            return;
        };
        if let Err(error) = prefilter.redirect_to(cpus) {
            tracing::error!(
                "connections of a dead worker are not redirected: {}",
                error.with_causes()
            );
        }
    }

    /// The filter, where XDP is in use.
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        self.prefilter.as_ref().map(Prefilter::filter)
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

/// All or none: when one interface fails, those before it are detached by their drop.
fn attach_all(
    config: &XdpConfig,
    attach: Attach,
    ports: &[u16],
    redirection: Redirection<'_>,
) -> Result<(Prefilter, Vec<Attached>), XdpError> {
    let object = object().ok_or(XdpError::NoObject)?;
    let indexes =
        config.interfaces.iter().map(|name| index_of(name)).collect::<Result<Vec<_>, _>>()?;
    let setup = Setup { ports, interfaces: &indexes, redirection, filter: &config.filter };
    let mut prefilter = Prefilter::load(object, setup)?;
    let attached = config
        .interfaces
        .iter()
        .map(|name| prefilter.attach(name, attach.mode))
        .collect::<Result<_, _>>()?;
    Ok((prefilter, attached))
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
