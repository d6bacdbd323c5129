//! The running daemon: every part started in the order in which each needs the others, and stopped in reverse.

mod balancing;
mod data_plane;
mod records;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod workers;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use self::balancing::Balancing;
use self::data_plane::{attach_data_plane, load_lists, prepare_data_plane, start_filter};
use self::records::Records;
use self::state::prepare_state;
use self::status::status_source;
use self::workers::{WorkerSeed, look_after, prepare_workers};
use crate::bans::BansThread;
use crate::config::{Config, ListenerConfig, TlsMode};
use crate::control::{
    self, Bound, BoundMtaSts, Controls, ListenerStatus, PolicySite, StatusSource, XdpControl,
};
use crate::delivery::{self, DeliveryHandle};
use crate::handover::{Estate, HandoverSocket, ListeningGroup, Predecessor};
use crate::metrics::Metrics;
use crate::nic::Survey;
use crate::smtp::dialect::Dialect;
use crate::spool::{Spool, SpoolHandle, SpoolThread};
use crate::tls::journal::JournalThread;
use crate::tls::reload::{self, Certificates};
use crate::worker::clock::Now;
use crate::worker::watch::WatchList;
use crate::worker::{CompletionPost, Crew, Ending, MailboxSender, PreparedWorker, listener};
use crate::xdp::{self, DataPlane, DenyLists};

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
        let control = control::bind(&config.control)?;
        let mta_sts = BoundMtaSts::bind(&config.mta_sts.listen)?;

        let metrics = Arc::new(Metrics::new(&config.worker_cpus));
        let commits_in_flight_max = config.spool.submissions_max + config.spool.batch_messages_max;
        let workers = prepare_workers(&config, commits_in_flight_max)?;
        let mailboxes: Vec<MailboxSender> = workers.iter().map(PreparedWorker::mailbox).collect();
        // Before anything else is written in the state folder: it has the lock.
        let (spool, spool_thread, delivery) = open_spool(&config, mailboxes, &metrics, runtime)?;
        let records = Records::start(&config, &certificates, prepared.filter())?;
        let data_plane = Arc::new(attach_data_plane(&config, &groups, prepared)?);
        runtime.spawn(xdp::beat(Arc::clone(&data_plane), config.xdp.heartbeat_timeout));
        let filter = start_filter(lists, &data_plane, runtime);
        let ready = Ready {
            listeners: groups.iter().map(Group::status).collect(),
            control: control.socket().to_owned(),
            metrics: control.metrics_address(),
            mta_sts: mta_sts.addresses(),
        };
        let watches = WatchList::default();
        let controls = Controls {
            watches: watches.clone(),
            journal: records.journal_handle,
            certificates: Arc::clone(&certificates),
            bans: records.bans_handle,
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
            journal: records.handshakes,
            bans: records.offences,
            commits_in_flight_max,
        };
        let crew = Arc::new(Crew::new(seed.start_workers(workers, groups)?));
        let balancing = Balancing::new(Arc::clone(&data_plane), metrics);
        runtime.spawn(look_after(Arc::clone(&crew), balancing));
        Ok(Self {
            ready,
            addresses,
            handover,
            crew,
            certificates,
            filter,
            journal: records.journal,
            bans: records.bans,
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

/// Where the next daemon may knock. It can be done without.
fn bind_handover(config: &Config, runtime: &Runtime) -> Option<HandoverSocket> {
    let _context = runtime.enter();
    HandoverSocket::bind(&config.state_dir)
        .inspect_err(|error| tracing::warn!("no other daemon can take over from this one: {error}"))
        .ok()
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
