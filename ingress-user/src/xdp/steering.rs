//! Which tier of steering is wanted: the configuration judged, nothing touched.

use crate::config::{SteeringMode, XdpConfig, XdpMode};

use super::load::AttachMode;

/// How a connection gets to the worker that serves it, best first for a NIC with fewer queues than workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The NIC's queues spread connections over CPUs; `select_worker` picks the listener of the CPU.
    Queues,
    /// XDP spreads them; `select_worker` picks the listener of the CPU.
    Cpumap,
    /// The kernel prefers the listener whose SO_INCOMING_CPU is the CPU; the worker sets it, nobody needs a privilege.
    IncomingCpu,
    /// The kernel's hash picks any listener.
    None,
}

impl Tier {
    /// Name in configuration, status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queues => "queues",
            Self::Cpumap => "cpumap",
            Self::IncomingCpu => "incoming-cpu",
            Self::None => "none",
        }
    }

    /// Do the listeners need `select_worker`?
    pub const fn selects_worker(self) -> bool {
        matches!(self, Self::Queues | Self::Cpumap)
    }
}

/// What to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) attach: Option<Attach>,
    /// Tier when the attachment works, or when there is none to make.
    pub(super) tier: Tier,
    /// One sentence.
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attach {
    pub(super) mode: AttachMode,
    /// Failure is an error; else a warning and [`without_xdp`].
    pub(super) required: bool,
}

/// `queues_fit`: each worker's CPU has receive queues of its own, on every interface.
pub(super) fn plan(config: &XdpConfig, queues_fit: bool) -> Plan {
    let without = |reason| Plan { attach: None, tier: without_xdp(config.steering), reason };
    if config.interfaces.is_empty() {
        return without("No interface is configured for XDP.");
    }
    let mode = match config.mode {
        XdpMode::Off => return without("XDP is switched off."),
        XdpMode::Auto | XdpMode::Native => AttachMode::Native,
        XdpMode::Generic => AttachMode::Generic,
    };
    let (tier, reason) = match (mode, config.steering) {
        (_, SteeringMode::Off) => (Tier::None, "Steering is switched off; XDP only counts."),
        // Generic XDP with a CPU map attaches and then drops every packet (seen on 6.12 and 6.18).
        (AttachMode::Generic, _) => {
            (Tier::IncomingCpu, "Generic XDP cannot redirect between CPUs; XDP only counts.")
        }
        (AttachMode::Native, SteeringMode::Queues) => {
            (Tier::Queues, "The RX queues spread connections over the workers' CPUs.")
        }
        (AttachMode::Native, SteeringMode::Auto) if queues_fit => {
            (Tier::Queues, "Each worker's CPU has RX queues of its own, which spread connections.")
        }
        (AttachMode::Native, SteeringMode::Auto | SteeringMode::Cpumap) => {
            (Tier::Cpumap, "XDP redirects each connection to its worker's CPU.")
        }
    };
    let required = config.mode != XdpMode::Auto;
    Plan { attach: Some(Attach { mode, required }), tier, reason }
}

/// The tier that needs nothing from XDP.
pub(super) fn without_xdp(steering: SteeringMode) -> Tier {
    match steering {
        SteeringMode::Off => Tier::None,
        SteeringMode::Auto | SteeringMode::Queues | SteeringMode::Cpumap => Tier::IncomingCpu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_enough_where_each_worker_has_one_and_nothing_else_is_asked_for() {
        let tiers = STEERINGS.map(|steering| plan(&config(XdpMode::Auto, steering), true).tier);
        assert_eq!(tiers, [Tier::Queues, Tier::Queues, Tier::Cpumap, Tier::None]);
        assert_eq!(
            plan(&config(XdpMode::Generic, SteeringMode::Auto), true).tier,
            Tier::IncomingCpu
        );
    }

    fn config(mode: XdpMode, steering: SteeringMode) -> XdpConfig {
        XdpConfig { interfaces: vec!["eth0".into()], mode, steering, ..XdpConfig::default() }
    }

    fn planned(mode: XdpMode, steering: SteeringMode) -> Plan {
        plan(&config(mode, steering), false)
    }

    const STEERINGS: [SteeringMode; 4] =
        [SteeringMode::Auto, SteeringMode::Queues, SteeringMode::Cpumap, SteeringMode::Off];

    #[test]
    fn generic_mode_never_redirects() {
        for steering in STEERINGS {
            let plan = planned(XdpMode::Generic, steering);
            assert!(!plan.tier.selects_worker(), "{steering:?}");
            assert_eq!(plan.attach, Some(Attach { mode: AttachMode::Generic, required: true }));
        }
    }

    #[test]
    fn native_mode_gives_the_tier_asked_for() {
        let tiers = STEERINGS.map(|steering| planned(XdpMode::Native, steering).tier);
        assert_eq!(tiers, [Tier::Cpumap, Tier::Queues, Tier::Cpumap, Tier::None]);
    }

    #[test]
    fn only_auto_may_go_without() {
        let required =
            |mode| planned(mode, SteeringMode::Auto).attach.map(|attach| attach.required);
        assert_eq!(required(XdpMode::Auto), Some(false));
        assert_eq!(required(XdpMode::Native), Some(true));
        assert_eq!(required(XdpMode::Off), None);
    }

    #[test]
    fn without_interfaces_nothing_is_attached() {
        for steering in STEERINGS {
            let config = XdpConfig { interfaces: vec![], ..config(XdpMode::Native, steering) };
            let plan = plan(&config, false);
            assert_eq!((plan.attach, plan.tier), (None, without_xdp(steering)));
        }
    }
}
