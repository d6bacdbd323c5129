//! What only netlink tells and sets: ethtool's settings, queues and interrupts of the family `netdev`, the XDP program.

mod facts;
mod message;

use std::io;

use ethtool::{
    EthtoolAttr, EthtoolChannelAttr, EthtoolCoalesceAttr, EthtoolError, EthtoolHandle,
    EthtoolHeader, EthtoolMessage, EthtoolRingAttr,
};
use futures_util::{Stream, StreamExt};
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::GenlMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_proto::sys::{SocketAddr, protocols::NETLINK_ROUTE};

use self::facts::Link;
pub(super) use self::facts::QueueFacts;
use self::message::{Attributes, Ethtool, Family, Message, Netdev, integer, netdev};
use super::{Change, Settings, XdpFeatures};

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel's answer.
    #[error("{0}")]
    Refused(io::Error),
    #[error("netlink: {0}")]
    Broken(String),
}

/// A connection for ethtool and its like. It lives on the runtime that it was opened on.
#[derive(Debug, Clone)]
pub(super) struct Netlink {
    ethtool: EthtoolHandle,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let (connection, ethtool, _unsolicited) = ethtool::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { ethtool })
    }

    /// What the driver of `name` can be asked; what it refuses to tell is absent.
    pub(super) async fn settings(&self, name: &str, index: u32) -> Settings {
        let mut ethtool = self.ethtool.clone();
        let name = Some(name);
        let channels = match ethtool.channel().get(name).execute().await {
            Ok(answer) => attributes(answer).await.map(|found| facts::channels(&found)),
            Err(_) => None,
        };
        let rings = match ethtool.ring().get(name).execute().await {
            Ok(answer) => attributes(answer).await.map(|found| facts::rings(&found)),
            Err(_) => None,
        };
        let coalescing = match ethtool.coalesce().get(name).execute().await {
            Ok(answer) => attributes(answer).await.map(|found| facts::coalescing(&found)),
            Err(_) => None,
        };
        let offloads = match ethtool.feature().get(name).execute().await {
            Ok(answer) => attributes(answer).await.map(|found| facts::offloads(&found)),
            Err(_) => None,
        };
        Settings {
            channels,
            rings,
            coalescing,
            offloads: offloads.unwrap_or_default(),
            xdp_features: self.xdp_features(index).await,
        }
    }

    async fn xdp_features(&self, index: u32) -> Option<XdpFeatures> {
        let ask = [integer(netdev::DEV_IFINDEX, index)];
        let answer = self.netdev(netdev::DEV_GET, NLM_F_ACK, &ask).await.ok()?;
        facts::xdp_features(answer.first()?)
    }

    /// The queues, as far as kernel and driver tell (interrupts since 6.8, counts since 6.10).
    pub(super) async fn queues(&self, index: u32) -> Vec<QueueFacts> {
        let ask = [integer(netdev::QUEUE_IFINDEX, index)];
        let queues = self.netdev(netdev::QUEUE_GET, NLM_F_DUMP, &ask).await.unwrap_or_default();
        let ask = [integer(netdev::NAPI_IFINDEX, index)];
        let napis = self.netdev(netdev::NAPI_GET, NLM_F_DUMP, &ask).await.unwrap_or_default();
        let ask = [
            integer(netdev::STATS_IFINDEX, index),
            DefaultNla::new(netdev::STATS_SCOPE, netdev::SCOPE_QUEUE.to_ne_bytes().to_vec()),
        ];
        let stats = self.netdev(netdev::STATS_GET, NLM_F_DUMP, &ask).await.unwrap_or_default();
        queues.iter().filter_map(|queue| facts::queue_facts(queue, &napis, &stats)).collect()
    }

    async fn netdev(
        &self,
        command: u8,
        flags: u16,
        attributes: &[DefaultNla],
    ) -> Result<Vec<Attributes>, NetlinkError> {
        self.request(Message::<Netdev>::new(command, attributes), flags).await
    }

    /// Has the driver of `name` change something.
    pub(super) async fn change(&self, name: &str, change: Change) -> Result<(), NetlinkError> {
        let header = vec![EthtoolHeader::DevName(name.to_owned())];
        let message = match change {
            Change::Channels { rx, tx, combined } => {
                let mut attributes = vec![EthtoolChannelAttr::Header(header)];
                attributes.extend(rx.map(EthtoolChannelAttr::RxCount));
                attributes.extend(tx.map(EthtoolChannelAttr::TxCount));
                attributes.extend(combined.map(EthtoolChannelAttr::CombinedCount));
                Message::<Ethtool>::new(ETHTOOL_CHANNELS_SET, &attributes)
            }
            Change::Rings { rx, tx } => {
                let attributes = [
                    EthtoolRingAttr::Header(header),
                    EthtoolRingAttr::Rx(rx),
                    EthtoolRingAttr::Tx(tx),
                ];
                Message::new(ETHTOOL_RINGS_SET, &attributes)
            }
            Change::Coalescing { rx_adaptive, rx_microseconds } => {
                let mut attributes = vec![EthtoolCoalesceAttr::Header(header)];
                attributes.extend(rx_adaptive.map(EthtoolCoalesceAttr::UseAdaptiveRx));
                attributes.extend(rx_microseconds.map(EthtoolCoalesceAttr::RxUsecs));
                Message::new(ETHTOOL_COALESCE_SET, &attributes)
            }
        };
        self.request(message, NLM_F_ACK).await.map(drop)
    }

    async fn request<F: Family>(
        &self,
        message: Message<F>,
        flags: u16,
    ) -> Result<Vec<Attributes>, NetlinkError> {
        let broken = |error: &dyn std::fmt::Display| NetlinkError::Broken(error.to_string());
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(message));
        message.header.flags = NLM_F_REQUEST | flags;
        let mut handle = self.ethtool.handle.clone();
        let mut answers = handle.request(message).await.map_err(|error| broken(&error))?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.map_err(|error| broken(&error))?.payload {
                NetlinkPayload::InnerMessage(message) => {
                    found.push(message.payload.attributes().map_err(|error| broken(&error))?);
                }
                NetlinkPayload::Error(error) => return Err(NetlinkError::Refused(error.to_io())),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Kind and XDP program of the interface with this index.
pub(super) async fn link(index: u32) -> io::Result<Link> {
    let (connection, handle, _unsolicited) =
        netlink_proto::new_connection::<RouteNetlinkMessage>(NETLINK_ROUTE)?;
    tokio::spawn(connection);
    let mut ask = LinkMessage::default();
    ask.header.index = index;
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetLink(ask));
    message.header.flags = NLM_F_REQUEST;
    let mut answers = handle.request(message, SocketAddr::new(0, 0)).map_err(io::Error::other)?;
    match answers.next().await.map(|answer| answer.payload) {
        Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))) => {
            Ok(facts::link_facts(&link.attributes))
        }
        Some(NetlinkPayload::Error(error)) => Err(error.to_io()),
        _ => Ok(Link::default()),
    }
}

/// The attributes of the one answer; none when the driver has no such settings.
async fn attributes(
    answer: impl Stream<Item = Result<GenlMessage<EthtoolMessage>, EthtoolError>>,
) -> Option<Vec<EthtoolAttr>> {
    let mut answer = std::pin::pin!(answer);
    Some(answer.next().await?.ok()?.payload.nlas)
}

/// Commands of the family `ethtool` that the crate does not send (linux/ethtool_netlink.h).
const ETHTOOL_RINGS_SET: u8 = 16;
const ETHTOOL_CHANNELS_SET: u8 = 18;
const ETHTOOL_COALESCE_SET: u8 = 20;
