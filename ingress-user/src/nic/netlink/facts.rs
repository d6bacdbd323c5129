//! From attributes to what they tell.

use ethtool::{
    EthtoolAttr, EthtoolChannelAttr, EthtoolCoalesceAttr, EthtoolFeatureAttr, EthtoolRingAttr,
};
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkXdp, XdpAttached};

use super::super::{AttachedProgram, Channels, Coalescing, Direction, Offload, Rings, XdpFeatures};
use super::message::{Attributes, netdev, number};

/// What rtnetlink tells of an interface.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Link {
    pub(in super::super) kind: Option<String>,
    pub(in super::super) xdp: Option<AttachedProgram>,
}

/// What the family `netdev` tells of a queue.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct QueueFacts {
    pub(in super::super) direction: Direction,
    pub(in super::super) number: u32,
    pub(in super::super) irq: Option<u32>,
    pub(in super::super) packets: Option<u64>,
    pub(in super::super) drops: Option<u64>,
}

pub(super) fn link_facts(attributes: &[LinkAttribute]) -> Link {
    let mut link = Link::default();
    for attribute in attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Xdp(facts) => link.xdp = attached_program(facts),
            _ => {}
        }
    }
    link
}

fn attached_program(facts: &[LinkXdp]) -> Option<AttachedProgram> {
    let mode = facts.iter().find_map(|fact| match fact {
        LinkXdp::Attached(mode) => Some(mode),
        _ => None,
    })?;
    let id = facts.iter().find_map(|fact| match fact {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) => Some(*id),
        _ => None,
    });
    let mode = match mode {
        XdpAttached::Driver => "native",
        XdpAttached::SocketBuffer => "generic",
        XdpAttached::Hardware => "offloaded",
        XdpAttached::Multiple => "multiple",
        _ => return None,
    };
    Some(AttachedProgram { id: id.unwrap_or_default(), mode })
}

/// What the family `netdev` tells of XDP in the driver.
pub(super) fn xdp_features(device: &Attributes) -> Option<XdpFeatures> {
    let bits = number(device, netdev::DEV_XDP_FEATURES)?;
    Some(XdpFeatures {
        basic: bits & netdev::XDP_BASIC != 0,
        redirect: bits & netdev::XDP_REDIRECT != 0,
        fragments: bits & netdev::XDP_FRAGMENTS != 0,
    })
}

pub(super) fn channels(attributes: &[EthtoolAttr]) -> Channels {
    let mut channels = Channels::default();
    for attribute in attributes {
        let EthtoolAttr::Channel(attribute) = attribute else { continue };
        match attribute {
            EthtoolChannelAttr::RxMax(count) => channels.rx_max = *count,
            EthtoolChannelAttr::TxMax(count) => channels.tx_max = *count,
            EthtoolChannelAttr::CombinedMax(count) => channels.combined_max = *count,
            EthtoolChannelAttr::RxCount(count) => channels.rx = *count,
            EthtoolChannelAttr::TxCount(count) => channels.tx = *count,
            EthtoolChannelAttr::CombinedCount(count) => channels.combined = *count,
            _ => {}
        }
    }
    channels
}

pub(super) fn rings(attributes: &[EthtoolAttr]) -> Rings {
    let mut rings = Rings::default();
    for attribute in attributes {
        match attribute {
            EthtoolAttr::Ring(EthtoolRingAttr::Rx(count)) => rings.rx = *count,
            EthtoolAttr::Ring(EthtoolRingAttr::RxMax(count)) => rings.rx_max = *count,
            EthtoolAttr::Ring(EthtoolRingAttr::Tx(count)) => rings.tx = *count,
            EthtoolAttr::Ring(EthtoolRingAttr::TxMax(count)) => rings.tx_max = *count,
            _ => {}
        }
    }
    rings
}

pub(super) fn coalescing(attributes: &[EthtoolAttr]) -> Coalescing {
    let mut coalescing = Coalescing::default();
    for attribute in attributes {
        let EthtoolAttr::Coalesce(attribute) = attribute else { continue };
        match attribute {
            EthtoolCoalesceAttr::RxUsecs(count) => coalescing.rx_microseconds = Some(*count),
            EthtoolCoalesceAttr::TxUsecs(count) => coalescing.tx_microseconds = Some(*count),
            EthtoolCoalesceAttr::UseAdaptiveRx(on) => coalescing.rx_adaptive = Some(*on),
            _ => {}
        }
    }
    coalescing
}

/// What the driver can switch, and whatever else is on.
pub(super) fn offloads(attributes: &[EthtoolAttr]) -> Vec<Offload> {
    let list = |wanted: fn(&EthtoolFeatureAttr) -> Option<&Vec<_>>| {
        attributes.iter().find_map(|attribute| match attribute {
            EthtoolAttr::Feature(attribute) => wanted(attribute),
            _ => None,
        })
    };
    let hardware = list(|attribute| match attribute {
        EthtoolFeatureAttr::Hw(bits) => Some(bits),
        _ => None,
    });
    let active = list(|attribute| match attribute {
        EthtoolFeatureAttr::Active(bits) => Some(bits),
        _ => None,
    });
    let active: Vec<&str> =
        active.into_iter().flatten().filter(|bit| bit.value).map(|bit| &*bit.name).collect();
    let mut names: Vec<&str> = hardware
        .into_iter()
        .flatten()
        .filter(|bit| bit.value)
        .map(|bit| &*bit.name)
        .chain(active.iter().copied())
        .collect();
    names.sort_unstable();
    names.dedup();
    let offload = |name: &str| Offload { name: name.to_owned(), on: active.contains(&name) };
    names.into_iter().map(offload).collect()
}

pub(super) fn queue_facts(
    queue: &Attributes,
    napis: &[Attributes],
    stats: &[Attributes],
) -> Option<QueueFacts> {
    let id = number(queue, netdev::QUEUE_ID)?;
    let kind = number(queue, netdev::QUEUE_TYPE)?;
    let napi = number(queue, netdev::QUEUE_NAPI_ID);
    let irq = napis
        .iter()
        .find(|found| napi.is_some() && number(found, netdev::NAPI_ID) == napi)
        .and_then(|found| number(found, netdev::NAPI_IRQ));
    let counts = stats.iter().find(|found| {
        number(found, netdev::STATS_QUEUE_ID) == Some(id)
            && number(found, netdev::STATS_QUEUE_TYPE) == Some(kind)
    });
    let (direction, packets, drops) = match kind {
        0 => (Direction::Rx, netdev::STATS_RX_PACKETS, netdev::STATS_RX_DROPS),
        1 => (Direction::Tx, netdev::STATS_TX_PACKETS, netdev::STATS_TX_DROPS),
        _ => return None,
    };
    Some(QueueFacts {
        direction,
        number: id.try_into().ok()?,
        irq: irq.and_then(|irq| irq.try_into().ok()),
        packets: counts.and_then(|found| number(found, packets)),
        drops: counts.and_then(|found| number(found, drops)),
    })
}

#[cfg(test)]
mod tests {
    use ethtool::EthtoolFeatureBit;
    use netlink_packet_core::DefaultNla;

    use super::super::message::integer;
    use super::*;

    fn long(kind: u16, value: u64) -> DefaultNla {
        DefaultNla::new(kind, value.to_ne_bytes().to_vec())
    }

    #[test]
    fn a_queue_finds_its_interrupt_through_napi_and_its_counts_by_kind() {
        let queue = |kind: u32| {
            let id = integer(netdev::QUEUE_ID, 1);
            vec![id, integer(netdev::QUEUE_TYPE, kind), integer(netdev::QUEUE_NAPI_ID, 500)]
        };
        let napi =
            |id: u32, irq: u32| vec![integer(netdev::NAPI_ID, id), integer(netdev::NAPI_IRQ, irq)];
        let napis = [napi(499, 40), napi(500, 41)];
        let counts = |kind: u32, attribute: u16, count: DefaultNla| {
            let of = integer(netdev::STATS_QUEUE_TYPE, kind);
            vec![of, integer(netdev::STATS_QUEUE_ID, 1), count, integer(attribute, 7)]
        };
        let stats = [
            counts(1, netdev::STATS_TX_DROPS, integer(netdev::STATS_TX_PACKETS, 3)),
            counts(0, netdev::STATS_RX_DROPS, long(netdev::STATS_RX_PACKETS, 1 << 40)),
        ];
        let receive = queue_facts(&queue(0), &napis, &stats).unwrap();
        assert_eq!((receive.direction, receive.number, receive.irq), (Direction::Rx, 1, Some(41)));
        assert_eq!((receive.packets, receive.drops), (Some(1 << 40), Some(7)));
        let transmit = queue_facts(&queue(1), &[], &stats).unwrap();
        assert_eq!((transmit.direction, transmit.irq), (Direction::Tx, None));
        assert_eq!((transmit.packets, transmit.drops), (Some(3), Some(7)));
        assert!(queue_facts(&queue(2), &napis, &stats).is_none());
    }

    #[test]
    fn xdp_features_are_bits() {
        let features = |bits| xdp_features(&vec![long(netdev::DEV_XDP_FEATURES, bits)]);
        assert_eq!(features(0), Some(XdpFeatures::default()));
        let all = XdpFeatures { basic: true, redirect: true, fragments: true };
        assert_eq!(features(1 | 2 | 32), Some(all));
        assert_eq!(xdp_features(&vec![]), None);
    }

    #[test]
    fn an_offload_that_can_be_switched_is_listed_on_or_off() {
        let bits = |names: &[&str]| -> Vec<EthtoolFeatureBit> {
            let bit =
                |name: &&str| EthtoolFeatureBit { index: 0, name: (*name).to_owned(), value: true };
            names.iter().map(bit).collect()
        };
        let attributes = [
            EthtoolAttr::Feature(EthtoolFeatureAttr::Hw(bits(&["rx-lro", "rx-gro"]))),
            EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits(&["rx-gro", "netns-local"]))),
        ];
        let found: Vec<_> =
            offloads(&attributes).into_iter().map(|offload| (offload.name, offload.on)).collect();
        let expected = [("netns-local", true), ("rx-gro", true), ("rx-lro", false)];
        assert_eq!(found, expected.map(|(name, on)| (name.to_owned(), on)));
    }

    #[test]
    fn a_program_is_attached_only_where_a_mode_is_told() {
        let program = |mode| attached_program(&[LinkXdp::Attached(mode), LinkXdp::ProgId(9)]);
        assert_eq!(program(XdpAttached::None), None);
        let expected = AttachedProgram { id: 9, mode: "native" };
        assert_eq!(program(XdpAttached::Driver), Some(expected));
    }
}
