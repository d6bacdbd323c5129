//! One interface: what its driver can, and what of its settings is in the way.

use ingress_ebpf::abi::names;

use super::{Finding, State, Subject};
use crate::config::{SteeringMode, XdpMode};
use crate::nic::{Direction, MERGING_OFFLOADS, Nic, XdpFeatures};
use crate::xdp::steering::Tier;

/// What there is to say of `nic`. `program` is the name of the XDP program that is attached, where it is known.
pub(super) fn findings(
    nic: &Nic,
    program: Option<&str>,
    tier: Tier,
    subject: &Subject<'_>,
) -> Vec<Finding> {
    let mut findings = match subject.xdp.mode {
        XdpMode::Generic => vec![generic()],
        XdpMode::Off | XdpMode::Auto | XdpMode::Native => {
            let native = native(nic);
            // Without it the rest is of no use.
            if native.state == State::Fail {
                return vec![native, attached(nic, program)];
            }
            let mut findings = vec![native, mtu(nic)];
            findings.extend(redirect(nic, tier));
            findings.extend(merging(nic));
            findings.extend(veth(nic, tier));
            findings
        }
    };
    findings.push(queues(nic, subject));
    findings.push(attached(nic, program));
    findings
}

/// Generic XDP works on every interface.
fn generic() -> Finding {
    Finding::warn(
        "mode",
        "generic XDP sees packets after they cost memory, and cannot steer",
        "`xdp.mode = \"native\"` where the driver can; a cpumap drops every packet in generic mode, so it is never used there",
    )
}

fn native(nic: &Nic) -> Finding {
    let driver = nic.driver.as_deref().unwrap_or("none");
    match nic.settings.xdp_features {
        Some(XdpFeatures { basic: true, .. }) => {
            Finding::ok("native", format!("driver {driver} has native XDP"))
        }
        Some(_) => Finding::fail(
            "native",
            format!("driver {driver} has no native XDP"),
            "choose another interface, or set `xdp.mode` to \"generic\", or to \"auto\" to go without",
        ),
        None if DRIVERS.contains(&driver) => {
            Finding::ok("native", format!("driver {driver} is known to have native XDP"))
        }
        None => Finding::warn(
            "native",
            format!(
                "driver {driver} is not known to have native XDP, and this kernel does not tell"
            ),
            "attaching decides (`ingress run`)",
        ),
    }
}

/// The program takes frames of several buffers; whether the driver hands it any is the driver's business.
fn mtu(nic: &Nic) -> Finding {
    let mtu = nic.mtu;
    let name = &nic.name;
    let remedy = format!("ip link set dev {name} mtu {ONE_BUFFER_MTU}");
    match nic.settings.xdp_features {
        Some(XdpFeatures { fragments: true, .. }) => {
            Finding::ok("mtu", format!("{mtu}; driver and program take frames of any size"))
        }
        _ if mtu <= ONE_BUFFER_MTU => Finding::ok("mtu", format!("{mtu} fits into one buffer")),
        Some(_) => {
            Finding::fail("mtu", format!("{mtu} is too large for XDP in this driver"), remedy)
        }
        None => {
            Finding::warn("mtu", format!("{mtu} may be too large for XDP in this driver"), remedy)
        }
    }
}

/// What a cpumap needs beyond plain XDP.
fn redirect(nic: &Nic, tier: Tier) -> Option<Finding> {
    let features = nic.settings.xdp_features?;
    (tier == Tier::Cpumap && !features.redirect).then(|| {
        let remedy = "set `xdp.steering = \"queues\"`";
        Finding::fail("redirect", "the driver cannot hand packets to another CPU", remedy)
    })
}

fn merging(nic: &Nic) -> Vec<Finding> {
    let finding = |name: &str| match nic.offload(name)? {
        true => Some(Finding::warn(
            "merging",
            format!(
                "{name} is on; some drivers refuse native XDP while the hardware merges packets"
            ),
            format!("ethtool -K {} {name} off", nic.name),
        )),
        false => Some(Finding::ok("merging", format!("{name} is off"))),
    };
    MERGING_OFFLOADS.iter().copied().filter_map(finding).collect()
}

/// Frames between namespaces are not finished as those on a wire are.
fn veth(nic: &Nic, tier: Tier) -> Option<Finding> {
    let is_veth = nic.driver.as_deref() == Some("veth");
    (is_veth && tier == Tier::Cpumap).then(|| {
        Finding::warn(
            "veth",
            "the peer leaves checksums unfinished, and redirected frames die of it; it must not have more TX queues than this side has RX queues",
            "`ethtool -K PEER tx off` on the peer",
        )
    })
}

fn queues(nic: &Nic, subject: &Subject<'_>) -> Finding {
    let workers = subject.workers.len();
    let queues = nic.queues(Direction::Rx).count();
    let text = format!("{queues} RX for {workers} workers");
    let combined = nic.settings.channels.map_or(0, |channels| channels.combined);
    if let Some(max) = nic.combined_max_with_xdp().filter(|max| combined > *max) {
        let text = format!("{combined} are too many for XDP in this driver");
        return Finding::fail("queues", text, format!("ethtool -L {} combined {max}", nic.name));
    }
    let tune = format!("`ingress nic tune {}` tells whether the driver has more", nic.name);
    match (queues < workers, subject.xdp.steering) {
        (false, _) => Finding::ok("queues", text),
        (true, SteeringMode::Queues) => Finding::warn(
            "queues",
            format!("{text}: with steering by queues some workers have nothing to do"),
            format!("set `xdp.steering = \"cpumap\"`; {tune}"),
        ),
        (true, _) => {
            Finding::ok("queues", format!("{text}; XDP can spread connections over all workers"))
        }
    }
}

fn attached(nic: &Nic, program: Option<&str>) -> Finding {
    let Some(attached) = &nic.xdp else {
        return Finding::new("occupied", State::Ok, "no XDP program is attached");
    };
    let (id, mode) = (attached.id, attached.mode);
    if program == Some(names::PREFILTER) {
        let text = format!("an ingress is attached (program {id}, {mode})");
        return Finding::warn("occupied", text, "stop it before another one starts");
    }
    let name = program.unwrap_or("of unknown name");
    Finding::fail(
        "occupied",
        format!("XDP program {id} ({name}, {mode}) is attached"),
        format!("stop its owner, or `ip link set dev {} xdp off`", nic.name),
    )
}

/// A page less the headroom of XDP (256), the kernel's note at its end (320) and the Ethernet header with two VLAN tags (22).
const ONE_BUFFER_MTU: u64 = 3498;

/// With native XDP since Linux 5.18 at the latest: for kernels before 6.3, which do not tell.
const DRIVERS: [&str; 22] = [
    "atlantic",
    "bnxt_en",
    "dpaa2-eth",
    "ena",
    "enetc",
    "fec",
    "fsl_dpa",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "nfp",
    "qede",
    "veth",
    "virtio_net",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpConfig;
    use crate::nic::{AttachedProgram, Channels, Offload, Queue, Settings};

    fn nic(features: Option<XdpFeatures>) -> Nic {
        let queue = |number| Queue {
            direction: Direction::Rx,
            number,
            cpus: None,
            irq: None,
            packets: None,
            drops: None,
        };
        Nic {
            name: "eth0".into(),
            driver: Some("mlx5_core".into()),
            mtu: 1500,
            queues: vec![queue(0), queue(1)],
            settings: Settings { xdp_features: features, ..Settings::default() },
            ..Nic::default()
        }
    }

    fn all() -> Option<XdpFeatures> {
        Some(XdpFeatures { basic: true, redirect: true, fragments: true })
    }

    /// What is not ok.
    fn found(nic: &Nic, program: Option<&str>, change: fn(&mut XdpConfig)) -> Vec<Finding> {
        let mut xdp = XdpConfig { interfaces: vec!["eth0".into()], ..XdpConfig::default() };
        change(&mut xdp);
        let subject = Subject { xdp: &xdp, workers: &[0, 1, 2], ports: &[25] };
        let tier = super::super::expected_tier(&xdp, false);
        let mut findings = findings(nic, program, tier, &subject);
        findings.retain(|finding| finding.state != State::Ok);
        findings
    }

    #[test]
    fn nothing_is_in_the_way_of_a_driver_that_can_all() {
        assert_eq!(found(&nic(all()), None, |_| ()), []);
        // Nor of one that is known, on a kernel that does not tell.
        assert_eq!(found(&nic(None), None, |_| ()), []);
    }

    #[test]
    fn each_obstacle_is_named_with_its_remedy() {
        type Spoil = fn(&mut Nic);
        let table: [(Spoil, &str, State, &str); 9] = [
            (
                |nic| {
                    let combined = Channels { combined: 8, combined_max: 8, ..Channels::default() };
                    nic.settings.channels = Some(combined);
                    nic.driver = Some("ena".into());
                },
                "queues",
                State::Fail,
                "ethtool -L eth0 combined 4",
            ),
            (
                |nic| nic.settings.xdp_features = Some(XdpFeatures::default()),
                "native",
                State::Fail,
                "generic",
            ),
            (
                |nic| {
                    nic.settings.xdp_features = None;
                    nic.driver = Some("r8169".into());
                },
                "native",
                State::Warn,
                "attaching decides",
            ),
            (
                |nic| {
                    nic.settings.xdp_features.as_mut().unwrap().fragments = false;
                    nic.mtu = 9000;
                },
                "mtu",
                State::Fail,
                "ip link set dev eth0 mtu 3498",
            ),
            (
                |nic| {
                    nic.settings.xdp_features = None;
                    nic.mtu = 9000;
                },
                "mtu",
                State::Warn,
                "ip link set dev eth0 mtu 3498",
            ),
            (
                |nic| nic.settings.xdp_features.as_mut().unwrap().redirect = false,
                "redirect",
                State::Fail,
                "queues",
            ),
            (
                |nic| nic.settings.offloads = vec![Offload { name: "rx-lro".into(), on: true }],
                "merging",
                State::Warn,
                "ethtool -K eth0 rx-lro off",
            ),
            (|nic| nic.driver = Some("veth".into()), "veth", State::Warn, "tx off"),
            (
                |nic| nic.xdp = Some(AttachedProgram { id: 7, mode: "native" }),
                "occupied",
                State::Fail,
                "ip link set dev eth0 xdp off",
            ),
        ];
        for (spoil, name, state, remedy) in table {
            let mut nic = nic(all());
            spoil(&mut nic);
            let findings = found(&nic, None, |_| ());
            let [finding] = findings.as_slice() else { panic!("{name}: {findings:?}") };
            assert_eq!((finding.name, finding.state), (name, state));
            assert!(finding.remedy.as_ref().unwrap().contains(remedy), "{finding:?}");
        }
    }

    #[test]
    fn large_frames_are_no_obstacle_where_the_driver_takes_several_buffers() {
        let mut nic = nic(all());
        nic.mtu = 9000;
        assert_eq!(found(&nic, None, |_| ()), []);
    }

    #[test]
    fn the_own_program_is_told_from_others() {
        let mut nic = nic(all());
        nic.xdp = Some(AttachedProgram { id: 7, mode: "native" });
        let findings = found(&nic, Some(names::PREFILTER), |_| ());
        assert_eq!(findings[0].state, State::Warn);
        let findings = found(&nic, Some("xdp_fw"), |_| ());
        assert!(findings[0].text.contains("7 (xdp_fw, native)"), "{findings:?}");
    }

    #[test]
    fn too_few_queues_matter_to_steering_by_queues_alone() {
        assert_eq!(found(&nic(all()), None, |xdp| xdp.steering = SteeringMode::Cpumap), []);
        let findings = found(&nic(all()), None, |xdp| xdp.steering = SteeringMode::Queues);
        assert_eq!((findings[0].name, findings[0].state), ("queues", State::Warn));
    }

    #[test]
    fn generic_mode_asks_nothing_of_the_driver() {
        let findings = found(&nic(Some(XdpFeatures::default())), None, |xdp| {
            xdp.mode = XdpMode::Generic;
        });
        let names: Vec<_> = findings.iter().map(|finding| finding.name).collect();
        assert_eq!(names, ["mode"]);
    }
}
