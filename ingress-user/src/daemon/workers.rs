//! The workers of a daemon: what they are made from, their start, and who looks after them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{MissedTickBehavior, interval};

use super::Group;
use super::balancing::{Balancing, LOAD_INTERVAL};
use crate::bans;
use crate::config::{Config, ListenerConfig, TlsMode};
use crate::metrics::Metrics;
use crate::smtp::Settings;
use crate::smtp::session::Tls;
use crate::spool::{QueueId, SpoolHandle};
use crate::tls::journal::Reporter;
use crate::worker::clock::Now;
use crate::worker::tls::{TlsContext, TlsService};
use crate::worker::watch::WatchList;
use crate::worker::{Admission, Crew, Listening, Member, PreparedWorker, WorkerParts};

/// Between two looks at the workers: what one that died was to serve is served by another within a second.
const CREW_INTERVAL: Duration = Duration::from_millis(250);

/// What the workers are made from.
pub(super) struct WorkerSeed {
    pub(super) config: Config,
    pub(super) tls: TlsContext,
    pub(super) spool: SpoolHandle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) watches: WatchList,
    pub(super) journal: Reporter,
    pub(super) bans: bans::Reporter,
    pub(super) commits_in_flight_max: usize,
}

impl WorkerSeed {
    pub(super) fn start_workers(
        self,
        prepared: Vec<PreparedWorker>,
        groups: Vec<Group>,
    ) -> Result<Vec<Member>> {
        let Self { config, tls, spool, metrics, watches, journal, bans, commits_in_flight_max } =
            self;
        let admission = Arc::new(Admission::new(
            config.limits.connections_max,
            config.limits.connections_per_client_max,
        ));
        let mut listening: Vec<Vec<Listening>> = prepared.iter().map(|_| Vec::new()).collect();
        let mut services: BTreeMap<_, TlsService> = BTreeMap::new();
        for group in groups {
            let settings = Arc::new(session_settings(&config, &group.config));
            let service = match services.entry(group.service()) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => new.insert(tls.service()?).clone(),
            };
            // A predecessor with more workers leaves more sockets, and in each of them clients may wait.
            let workers = listening.len();
            for (number, socket) in group.sockets.into_iter().enumerate() {
                let (settings, service) = (Arc::clone(&settings), service.clone());
                if let Some(sockets) = listening.get_mut(number % workers) {
                    sockets.push(Listening { socket, settings, service });
                }
            }
        }
        prepared
            .into_iter()
            .zip(listening)
            .enumerate()
            .zip(&config.worker_cpus)
            .map(|((index, (worker, listeners)), &cpu)| {
                let parts = WorkerParts {
                    index,
                    hostname: config.hostname.as_str().into(),
                    listeners: listeners
                        .iter()
                        .map(Listening::try_clone)
                        .collect::<Result<_, _>>()?,
                    spool: spool.clone(),
                    admission: Arc::clone(&admission),
                    watches: watches.clone(),
                    journal: journal.clone(),
                    bans: bans.clone(),
                    metrics: Arc::clone(&metrics),
                    accept_burst_max: config.limits.accept_burst_max,
                    buffers_max: config.limits.buffers_per_worker_max,
                    handshakes_max: config.limits.handshakes_per_worker_max,
                    commits_in_flight_max,
                };
                let mailbox = worker.mailbox();
                let thread =
                    worker.start(parts).with_context(|| format!("cannot start worker {index}"))?;
                if let Err(error) = &thread.clock {
                    tracing::warn!(cpu, %error, "the worker's load is not known; nothing follows it");
                }
                Ok(Member { cpu, mailbox, thread, listeners })
            })
            .collect()
    }
}

/// Looks again and again whether a worker has died, and has its work done by the others; and whether one has too much, and gives it
/// fewer of the new connections. One after the other: what is given to a worker that nobody knows to be dead yet is taken over next.
pub(super) async fn look_after(crew: Arc<Crew>, mut balancing: Balancing) {
    let (mut looks, mut loads) = (interval(CREW_INTERVAL), interval(LOAD_INTERVAL));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => look_for_the_dead(&crew, &balancing),
            _ = loads.tick(), if balancing.is_possible() => {
                balancing.look(&crew, Now::read().monotonic);
            }
        }
    }
}

/// Without any worker left the process ends, so that whoever started it starts it anew.
fn look_for_the_dead(crew: &Crew, balancing: &Balancing) {
    match crew.look_after() {
        None => {}
        Some(cpus) if cpus.is_empty() => {
            tracing::error!("no worker is left; the process ends");
            std::process::exit(1);
        }
        Some(cpus) => balancing.redirect_to(&cpus),
    }
}

fn session_settings(config: &Config, listener: &ListenerConfig) -> Settings {
    let limits = &config.limits;
    Settings {
        hostname: config.hostname.as_str().into(),
        dialect: listener.dialect,
        tls: match listener.tls {
            TlsMode::Off => Tls::Off,
            TlsMode::StartTls => Tls::StartTls,
            TlsMode::Implicit => Tls::Implicit,
        },
        domains: config.recipients.clone(),
        networks: config.networks.clone(),
        target: config.target,
        idle_timeout: limits.idle_timeout,
        tls_handshake_timeout: limits.tls_handshake_timeout,
        commit_timeout: limits.commit_timeout,
        proxy_header_timeout: limits.proxy_header_timeout,
        greet_delay: limits.greet_delay,
        command_line_bytes_max: limits.command_line_bytes_max,
        message_bytes_max: limits.message_bytes_max,
        text_line_bytes_max: limits.text_line_bytes_max,
        recipients_max: limits.recipients_max,
        messages_max: limits.messages_per_session_max,
        errors_max: limits.errors_max,
        errors_undelayed_max: limits.errors_undelayed_max,
        error_delay: limits.error_delay,
    }
}

pub(super) fn prepare_workers(
    config: &Config,
    commits_in_flight_max: usize,
) -> Result<Vec<PreparedWorker>> {
    anyhow::ensure!(
        config.worker_cpus.len() <= QueueId::WORKERS_MAX,
        "workers: at most {} fit the queue id",
        QueueId::WORKERS_MAX
    );
    config
        .worker_cpus
        .iter()
        .map(|_| PreparedWorker::new(commits_in_flight_max))
        .collect::<Result<_, _>>()
        .context("cannot make an event loop")
}
