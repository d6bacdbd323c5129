//! The kernel programs of a daemon: loaded, with lists in force, attached.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::Group;
use crate::config::{Config, FilterConfig};
use crate::control::XdpControl;
use crate::nic::Survey;
use crate::worker::listener;
use crate::xdp::{self, DataPlane, DenyLists, Filter, PreparedDataPlane, SampleFeed, Tier};

/// Loads the kernel programs.
pub(super) fn prepare_data_plane<'a>(
    config: &'a Config,
    groups: &[Group],
    survey: &'a Survey,
) -> Result<PreparedDataPlane<'a>> {
    let ports: Vec<u16> = groups.iter().map(|group| group.address.port()).collect();
    let Config { xdp, worker_cpus, state_dir, .. } = config;
    Ok(PreparedDataPlane::load(xdp, worker_cpus, &ports, survey, state_dir)?)
}

/// Attaches the kernel programs, and has the kernel find the right worker in the best way that there is.
pub(super) fn attach_data_plane(
    config: &Config,
    groups: &[Group],
    prepared: PreparedDataPlane<'_>,
) -> Result<DataPlane> {
    let data_plane = prepared.attach()?;
    for group in groups {
        if data_plane.tier() == Tier::IncomingCpu {
            listener::steer_by_incoming_cpu(&group.sockets, &config.worker_cpus)
                .context("cannot steer listeners by CPU (SO_INCOMING_CPU)")?;
        }
        let members: Vec<_> =
            config.worker_cpus.iter().copied().zip(group.sockets.iter()).collect();
        data_plane.attach_listeners(&members)?;
    }
    tracing::info!(tier = data_plane.tier().name(), reason = data_plane.reason(), "steering");
    Ok(data_plane)
}

/// Puts the lists in force.
pub(super) fn load_lists(config: &Config, filter: Option<&Arc<Filter>>) -> Option<Arc<DenyLists>> {
    let FilterConfig { allow, deny_files, .. } = &config.xdp.filter;
    let lists = DenyLists::new(Arc::clone(filter?), allow.clone(), deny_files.clone());
    // Logged there. A list that cannot be read is no reason to refuse mail.
    let _result = lists.reload();
    Some(Arc::new(lists))
}

/// Has samples collected and the lists kept up to date.
pub(super) fn start_filter(
    lists: Option<Arc<DenyLists>>,
    data_plane: &DataPlane,
    runtime: &Runtime,
) -> Option<XdpControl> {
    let (lists, filter) = (lists?, data_plane.filter()?);
    let samples = SampleFeed::new();
    runtime.spawn(samples.clone().run(Arc::clone(filter)));
    runtime.spawn(xdp::watch_lists(Arc::clone(&lists)));
    Some(XdpControl { samples, lists })
}
