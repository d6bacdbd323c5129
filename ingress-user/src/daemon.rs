//! The running daemon: every part started in the order in which each needs the others, and stopped in reverse.

mod balancing;
#[cfg(test)]
mod tests;
mod workers;

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

use self::balancing::Balancing;
use self::workers::{WorkerSeed, look_after, prepare_workers};
use crate::bans::{self, BansThread};
use crate::config::{Config, FilterConfig, ListenerConfig, TlsMode};
use crate::control::{
    self, Bound, BoundMtaSts, Controls, ListenerStatus, PolicySite, StatusSource, XdpControl,
    XdpInterfaceStatus, XdpQueueStatus, XdpStatus,
};
use crate::delivery::{self, DeliveryHandle};
use crate::handover::{Estate, HandoverSocket, ListeningGroup, Predecessor};
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
use crate::worker::{CompletionPost, Crew, Ending, MailboxSender, PreparedWorker, listener};
use crate::xdp::{
    self, DataPlane, DenyLists, Filter, InterfaceTelemetry, PreparedDataPlane, QueueTelemetry,
    SampleFeed, Tier,
};

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
    /// Of each listener, as configured and as it is.
    addresses: Vec<(SocketAddr, SocketAddr)>,
    /// None where it could not be bound.
    handover: Option<HandoverSocket>,
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

/// The sockets of one configured address, at least one for each worker.
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
    /// Starts everything, in the place of `predecessor` where there is one: it ends when nothing is left that could fail for want of
    /// a right setting. On an error nothing keeps running.
    pub fn start(
        config: Config,
        mut predecessor: Option<Predecessor>,
        runtime: &Runtime,
    ) -> Result<Self> {
        let started = Now::read().monotonic;
        let certificates = prepare_state(&config)?;
        let groups = open_groups(&config, predecessor.as_mut())?;
        let survey = runtime.block_on(Survey::of(&config.xdp.interfaces, &config.worker_cpus));
        let prepared = prepare_data_plane(&config, &groups, &survey)?;
        let lists = load_lists(&config, prepared.filter());
        if let Some(predecessor) = predecessor {
            predecessor.replace()?;
        }
        let (reporter, handle, journal) =
            journal::start(config.tls.memory.clone(), own_of(&certificates), &config.state_dir)
                .context("cannot start the journal of TLS handshakes")?;
        let mail = handle.clone();
        let brought_mail = Box::new(move |client, since| mail.brought_mail(client, since));
        let (offences, bans_handle, bans) = bans::start(
            config.bans_with_exempt(),
            prepared.filter().cloned(),
            brought_mail,
            &config.state_dir,
        )
        .context("cannot start the thread of bans")?;
        // Soon: until now the old filter goes on alone, and nobody chooses the worker of a new connection.
        let data_plane = Arc::new(attach_data_plane(&config, &groups, prepared)?);
        runtime.spawn(xdp::beat(Arc::clone(&data_plane), config.xdp.heartbeat_timeout));
        let filter = start_filter(lists, &data_plane, runtime);
        let control = control::bind(&config.control)?;
        let mta_sts = BoundMtaSts::bind(&config.mta_sts.listen)?;

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
        let handover = bind_handover(&config, runtime);
        let addresses = groups.iter().map(|group| (group.config.address, group.address)).collect();
        let seed = WorkerSeed {
            config,
            tls: certificates.context().clone(),
            spool,
            metrics: Arc::clone(&metrics),
            watches,
            journal: reporter,
            bans: offences,
            commits_in_flight_max,
        };
        let crew = Arc::new(Crew::new(seed.start_workers(prepared, groups)?));
        let balancing = Balancing::new(Arc::clone(&data_plane), metrics);
        runtime.spawn(look_after(Arc::clone(&crew), balancing));
        Ok(Self {
            ready,
            addresses,
            handover,
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

    /// Done when another daemon is prepared to take over: this one has to drain.
    pub async fn successor(&self) {
        match &self.handover {
            Some(socket) => socket.successor(|| self.estate()).await,
            None => std::future::pending().await,
        }
    }

    fn estate(&self) -> std::io::Result<Estate> {
        let group =
            |&(configured, address)| ListeningGroup { configured, address, sockets: vec![] };
        let mut groups: Vec<ListeningGroup> = self.addresses.iter().map(group).collect();
        for socket in self.crew.sockets()? {
            let address = socket.local_addr()?;
            if let Some(group) = groups.iter_mut().find(|group| group.address == address) {
                group.sockets.push(socket);
            }
        }
        Ok(Estate { hash_seed: *xdp::hash_seed(), groups })
    }

    /// Stops accepting, lets open transactions finish (bounded by the workers), and ends every part. What is not delivered
    /// stays in the spool.
    pub fn drain(self, ending: Ending, runtime: &Runtime) {
        drop(self.handover);
        self.crew.drain(ending);
        // The workers were the last to report.
        self.journal.join();
        self.bans.join();
        runtime.block_on(self.delivery.stop());
        self.spool.shutdown();
        drop(self.control);
        self.mta_sts.abort();
        match ending {
            Ending::Stop => self.data_plane.remove_pins(),
            Ending::Handover => self.data_plane.leave(),
        }
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

/// Sockets of the predecessor where it has the address, so that nobody who waits in them is lost.
fn open_groups(config: &Config, mut predecessor: Option<&mut Predecessor>) -> Result<Vec<Group>> {
    let workers = config.worker_cpus.len();
    let mut open = |config_of: &ListenerConfig| {
        let inherited =
            predecessor.as_mut().and_then(|daemon| daemon.take_group(config_of.address));
        let sockets = match inherited {
            Some(group) => listener::extend_group(group.sockets, workers)?,
            None => listener::open_group(config_of.address, workers)?,
        };
        let address = match sockets.first() {
            Some(socket) => socket.local_addr()?,
            None => config_of.address,
        };
        Ok(Group { config: config_of.clone(), address, sockets })
    };
    config.listeners.iter().map(&mut open).collect()
}

/// Loads the kernel programs.
fn prepare_data_plane<'a>(
    config: &'a Config,
    groups: &[Group],
    survey: &'a Survey,
) -> Result<PreparedDataPlane<'a>> {
    let ports: Vec<u16> = groups.iter().map(|group| group.address.port()).collect();
    let Config { xdp, worker_cpus, state_dir, .. } = config;
    Ok(PreparedDataPlane::load(xdp, worker_cpus, &ports, survey, state_dir)?)
}

/// Attaches the kernel programs, and has the kernel find the right worker in the best way that there is.
fn attach_data_plane(
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
fn load_lists(config: &Config, filter: Option<&Arc<Filter>>) -> Option<Arc<DenyLists>> {
    let FilterConfig { allow, deny_files, .. } = &config.xdp.filter;
    let lists = DenyLists::new(Arc::clone(filter?), allow.clone(), deny_files.clone());
    // Logged there. A list that cannot be read is no reason to refuse mail.
    let _result = lists.reload();
    Some(Arc::new(lists))
}

/// Has samples collected and the lists kept up to date.
fn start_filter(
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

/// Where the next daemon may knock. It can be done without.
fn bind_handover(config: &Config, runtime: &Runtime) -> Option<HandoverSocket> {
    let _context = runtime.enter();
    HandoverSocket::bind(&config.state_dir)
        .inspect_err(|error| tracing::warn!("no other daemon can take over from this one: {error}"))
        .ok()
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
