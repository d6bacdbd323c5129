//! Where the status document gets its numbers.

use std::sync::Arc;
use std::time::Instant;

use super::Ready;
use crate::config::Config;
use crate::control::{
    Controls, PolicySite, StatusSource, XdpInterfaceStatus, XdpQueueStatus, XdpStatus,
};
use crate::metrics::Metrics;
use crate::xdp::{DataPlane, InterfaceTelemetry, QueueTelemetry};

pub(super) fn status_source(
    config: &Config,
    ready: &Ready,
    started: Instant,
    metrics: Arc<Metrics>,
    site: Arc<PolicySite>,
    controls: &Controls,
    data_plane: Arc<DataPlane>,
) -> StatusSource {
    let (journal, bans) = (controls.journal.clone(), controls.bans.clone());
    let (mta_sts, certificates) = (ready.mta_sts.clone(), Arc::clone(site.certificates()));
    StatusSource {
        metrics,
        hostname: config.hostname.clone(),
        started,
        tier: data_plane.tier().name(),
        tier_reason: data_plane.reason().to_owned(),
        listeners: ready.listeners.clone(),
        certificates: Box::new(move || certificates.all_served()),
        mta_sts: Box::new(move || site.status(mta_sts.clone())),
        tls: Box::new(move || journal.totals()),
        bans: Box::new(move || bans.totals()),
        xdp: Box::new(move || xdp_status(&data_plane.telemetry())),
    }
}

/// Sums verdicts over interfaces.
fn xdp_status(telemetry: &[InterfaceTelemetry]) -> XdpStatus {
    let mut status = XdpStatus::default();
    for interface in telemetry {
        let queue = |queue: &QueueTelemetry| XdpQueueStatus {
            queue: queue.queue,
            packets: queue.verdicts.iter().map(|(_, packets)| packets).sum(),
            dropped: queue.dropped,
        };
        status.interfaces.push(XdpInterfaceStatus {
            name: interface.name.clone(),
            mode: interface.mode.to_owned(),
            queues: interface.queues.iter().map(queue).collect(),
        });
        for &(verdict, packets) in &interface.verdicts {
            *status.verdicts.entry(verdict.to_owned()).or_default() += packets;
        }
    }
    status
}
