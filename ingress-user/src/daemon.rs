//! The running daemon: every part started in the order in which each needs the others, and stopped in reverse.

#[cfg(test)]
mod tests;
mod workers;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use self::workers::{WorkerSeed, look_after, prepare_workers};
use crate::bans::{self, BansThread};
use crate::config::{Config, FilterConfig, FilterMode, ListenerConfig, TlsMode};
use crate::control::{
    self, Bound, BoundMtaSts, Controls, ListenerStatus, PolicySite, StatusSource, XdpControl,
    XdpInterfaceStatus, XdpQueueStatus, XdpStatus,
};
use crate::delivery::{self, DeliveryHandle};
use crate::metrics::Metrics;
use crate::nic::Survey;
use crate::policy::RecipientDomains;
use crate::smtp::dialect::Dialect;
use crate::spool::{Spool, SpoolHandle, SpoolThread};
use crate::tls::journal::{self, JournalThread, OwnSource};
use crate::tls::reload::{self, Certificates};
use crate::tls::verdict::Own;
use crate::worker::clock::Now;
use crate::worker::watch::WatchList;
use crate::worker::{CompletionPost, Crew, MailboxSender, PreparedWorker, listener};
use crate::xdp::{self, DataPlane, DenyLists, InterfaceTelemetry, SampleFeed, Tier};

/// File descriptors beside those of connections: listeners, event loops, segments, deliveries, kernel maps.
const OTHER_FILES: usize = 512;

/// Where the daemon can be reached, with the ports the kernel chose.
#[derive(Debug)]
pub struct Ready {
    pub listeners: Vec<ListenerStatus>,
    pub control: PathBuf,
    pub metrics: Option<SocketAddr>,
    pub mta_sts: Vec<SocketAddr>,
}

/// All threads and tasks of a started daemon.
pub struct Daemon {
    ready: Ready,
    crew: Arc<Crew>,
    certificates: Arc<Certificates>,
    filter: Option<XdpControl>,
    journal: JournalThread,
    bans: BansThread,
    delivery: DeliveryHandle,
    spool: SpoolThread,
    /// Ends the control plane when dropped.
    control: oneshot::Sender<()>,
    /// Serves the MTA-STS policy.
    mta_sts: AbortHandle,
    /// Detaches the kernel programs when dropped.
    data_plane: Arc<DataPlane>,
}

/// The sockets of one configured address, one for each worker.
struct Group {
    config: ListenerConfig,
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Group {
    fn status(&self) -> ListenerStatus {
        let ListenerConfig { tls, dialect, .. } = self.config;
        ListenerStatus { address: self.address, protocol: dialect, tls }
    }

    /// What clients take it for: the same port and protocol on another address is the same service to them.
    fn service(&self) -> (u16, Dialect, TlsMode) {
        (self.address.port(), self.config.dialect, self.config.tls)
    }
}

impl Daemon {
    /// Starts everything. On an error nothing keeps running.
    pub fn start(config: Config, runtime: &Runtime) -> Result<Self> {
        let started = Now::read().monotonic;
        let certificates = prepare_state(&config)?;
        let groups = open_groups(&config)?;
        let control = control::bind(&config.control)?;
        let mta_sts = BoundMtaSts::bind(&config.mta_sts.listen)?;
        let data_plane = Arc::new(start_data_plane(&config, &groups, runtime)?);
        runtime.spawn(xdp::beat(Arc::clone(&data_plane), config.xdp.heartbeat_timeout));
        let filter = start_filter(&config, &data_plane, runtime);

        let metrics = Arc::new(Metrics::new(&config.worker_cpus));
        let commits_in_flight_max = config.spool.submissions_max + config.spool.batch_messages_max;
        let prepared = prepare_workers(&config, commits_in_flight_max)?;
        let mailboxes: Vec<MailboxSender> = prepared.iter().map(PreparedWorker::mailbox).collect();
        let (spool, spool_thread, delivery) = open_spool(&config, mailboxes, &metrics, runtime)?;
        let ready = Ready {
            listeners: groups.iter().map(Group::status).collect(),
            control: control.socket().to_owned(),
            metrics: control.metrics_address(),
            mta_sts: mta_sts.addresses(),
        };
        let (reporter, handle, journal) =
            journal::start(config.tls.memory.clone(), own_of(&certificates), &config.state_dir)
                .context("cannot start the journal of TLS handshakes")?;
        let mail = handle.clone();
        let brought_mail = Box::new(move |client, since| mail.brought_mail(client, since));
        let enforced = data_plane.filter().cloned();
        let (offences, bans_handle, bans) =
            bans::start(config.bans_with_exempt(), enforced, brought_mail, &config.state_dir)
                .context("cannot start the thread of bans")?;
        let watches = WatchList::default();
        let controls = Controls {
            watches: watches.clone(),
            journal: handle,
            certificates: Arc::clone(&certificates),
            bans: bans_handle,
            xdp: filter.clone(),
        };
        let site = policy_site(&config, &certificates);
        let source = status_source(
            &config,
            &ready,
            started,
            Arc::clone(&metrics),
            Arc::clone(&site),
            &controls,
            Arc::clone(&data_plane),
        );
        let control = serve_control(control, source, controls, runtime);
        let mta_sts = serve_mta_sts(mta_sts, site, runtime);
        runtime.spawn(reload::watch(Arc::clone(&certificates)));
        let seed = WorkerSeed {
            config,
            tls: certificates.context().clone(),
            spool,
            metrics,
            watches,
            journal: reporter,
            bans: offences,
            commits_in_flight_max,
        };
        let crew = Arc::new(Crew::new(seed.start_workers(prepared, groups)?));
        runtime.spawn(look_after(Arc::clone(&crew), Arc::clone(&data_plane)));
        Ok(Self {
            ready,
            crew,
            certificates,
            filter,
            journal,
            bans,
            delivery,
            spool: spool_thread,
            control,
            mta_sts,
            data_plane,
        })
    }

    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// The lists of the XDP filter, where it is in use.
    pub fn deny_lists(&self) -> Option<&Arc<DenyLists>> {
        self.filter.as_ref().map(|filter| &filter.lists)
    }

    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Stops accepting, lets open transactions finish (bounded by the workers), and ends every part. What is not delivered
    /// stays in the spool.
    pub fn drain(self, runtime: &Runtime) {
        self.crew.drain();
        // The workers were the last to report.
        self.journal.join();
        self.bans.join();
        runtime.block_on(self.delivery.stop());
        self.spool.shutdown();
        drop(self.control);
        self.mta_sts.abort();
        drop(self.data_plane);
    }
}

/// What has to be there before anything starts: the state folder, and certificates that can be served.
fn prepare_state(config: &Config) -> Result<Arc<Certificates>> {
    create_state_dir(config)?;
    tracing::info!(state_dir = %config.state_dir.display(), "spool and certificates are kept here");
    warn_about_load_test_settings(config);
    raise_file_limit(config.limits.connections_max);
    let certificates = Certificates::load(config.tls.clone(), &config.hostname, &config.state_dir)?;
    Ok(Arc::new(match config.mta_sts.listen.is_empty() {
        true => certificates,
        false => certificates.with_https(config.mta_sts.certificates.clone())?,
    }))
}

/// Recovers what the spool holds, and begins to deliver it.
fn open_spool(
    config: &Config,
    mailboxes: Vec<MailboxSender>,
    metrics: &Arc<Metrics>,
    runtime: &Runtime,
) -> Result<(SpoolHandle, SpoolThread, DeliveryHandle)> {
    let spool = Spool::open(
        &config.state_dir.join("spool"),
        &config.spool,
        Box::new(CompletionPost::new(mailboxes)),
        Arc::clone(metrics),
    )?;
    let delivery = delivery::start(
        runtime.handle(),
        spool.pending,
        spool.reader,
        spool.handle.clone(),
        &config.delivery,
        &config.hostname,
        Arc::clone(metrics),
    )?;
    Ok((spool.handle, spool.thread, delivery))
}

/// The spool's mail is nobody else's business.
fn create_state_dir(config: &Config) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state_dir)
        .with_context(|| format!("cannot create state_dir {}", config.state_dir.display()))
}

fn warn_about_load_test_settings(config: &Config) {
    if config.recipients == RecipientDomains::Any {
        tracing::warn!(
            "recipients.domains is [\"*\"]: mail for any domain is taken; for load tests only"
        );
    }
    if let Some(remark) = config.mta_sts.remark(&config.recipients) {
        tracing::warn!("{remark}");
    }
}

/// Each connection is a file descriptor, and shells give a process 1,024 by default. Going up to the hard limit takes no
/// privilege.
fn raise_file_limit(connections_max: usize) {
    let wanted = (connections_max + OTHER_FILES) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let result = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit });
    if raised < wanted || result.is_err() {
        tracing::warn!(
            wanted,
            allowed = limit.maximum,
            "limits.connections_max needs more file descriptors than the hard limit (ulimit -Hn, LimitNOFILE=) allows"
        );
    }
}

fn open_groups(config: &Config) -> Result<Vec<Group>> {
    let open = |config_of: &ListenerConfig| {
        let sockets = listener::open_group(config_of.address, config.worker_cpus.len())?;
        let address = match sockets.first() {
            Some(socket) => socket.local_addr()?,
            None => config_of.address,
        };
        Ok(Group { config: config_of.clone(), address, sockets })
    };
    config.listeners.iter().map(open).collect()
}

/// Attaches the kernel programs, and has the kernel find the right worker in the best way that there is.
fn start_data_plane(config: &Config, groups: &[Group], runtime: &Runtime) -> Result<DataPlane> {
    let ports: Vec<u16> = groups.iter().map(|group| group.address.port()).collect();
    let Config { xdp, worker_cpus, .. } = config;
    let survey = runtime.block_on(Survey::of(&xdp.interfaces, worker_cpus));
    let mut data_plane = DataPlane::start(xdp, worker_cpus, &ports, &survey)?;
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

/// Puts the lists in force and has samples collected.
fn start_filter(config: &Config, data_plane: &DataPlane, runtime: &Runtime) -> Option<XdpControl> {
    let FilterConfig { mode, allow, deny_files, .. } = &config.xdp.filter;
    let filter = data_plane.filter().filter(|_| *mode != FilterMode::Off)?;
    let lists = DenyLists::new(Arc::clone(filter), allow.clone(), deny_files.clone());
    // Logged there. A list that cannot be read is no reason to refuse mail.
    let _result = lists.reload();
    let (samples, lists) = (SampleFeed::new(), Arc::new(lists));
    runtime.spawn(samples.clone().run(Arc::clone(filter)));
    runtime.spawn(xdp::watch_lists(Arc::clone(&lists)));
    Some(XdpControl { samples, lists })
}

/// What we can do with the certificates of the moment.
fn own_of(certificates: &Arc<Certificates>) -> OwnSource {
    let certificates = Arc::clone(certificates);
    Box::new(move || {
        let keys: Vec<_> = certificates.served().iter().filter_map(|served| served.key).collect();
        Own::with_keys(&keys)
    })
}

fn status_source(
    config: &Config,
    ready: &Ready,
    started: std::time::Instant,
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

/// Sums verdicts over interfaces, and packets over each queue's verdicts.
fn xdp_status(telemetry: &[InterfaceTelemetry]) -> XdpStatus {
    let mut status = XdpStatus::default();
    let mut queues = BTreeMap::new();
    for interface in telemetry {
        status.interfaces.push(XdpInterfaceStatus {
            name: interface.name.clone(),
            mode: interface.mode.to_owned(),
        });
        for &(verdict, packets) in &interface.verdicts {
            *status.verdicts.entry(verdict.to_owned()).or_default() += packets;
        }
        for queue in &interface.queues {
            let packets: u64 = queue.verdicts.iter().map(|(_, packets)| packets).sum();
            *queues.entry(queue.queue).or_default() += packets;
        }
    }
    let queue_status = |(queue, packets)| XdpQueueStatus { queue, packets };
    status.queues = queues.into_iter().map(queue_status).collect();
    status
}

fn policy_site(config: &Config, certificates: &Arc<Certificates>) -> Arc<PolicySite> {
    let (domains, settings) = (config.recipients.clone(), config.mta_sts.clone());
    Arc::new(PolicySite::new(&config.hostname, domains, settings, Arc::clone(certificates)))
}

/// Beside the rest of the control plane, so that neither ends with the other.
fn serve_mta_sts(bound: BoundMtaSts, site: Arc<PolicySite>, runtime: &Runtime) -> AbortHandle {
    runtime
        .spawn(async move {
            if !bound.addresses().is_empty() {
                bound.serve(site).await;
            }
        })
        .abort_handle()
}

fn serve_control(
    control: Bound,
    source: StatusSource,
    controls: Controls,
    runtime: &Runtime,
) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        // Also done when the sender is dropped.
        let _ = stopped.await;
    };
    runtime.spawn(async {
        let served = control.serve(Arc::new(source), controls, shutdown);
        if let Err(error) = served.await {
            tracing::error!(%error, "the control plane failed; mail goes on");
        }
    });
    stop
}
