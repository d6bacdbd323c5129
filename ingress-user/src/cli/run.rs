use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::control::ListenerStatus;
use crate::daemon::{Daemon, Ready};
use crate::handover::Predecessor;
use crate::tls::reload::{self, Certificates, Trigger};
use crate::worker::Ending;
use crate::xdp::{self, DenyLists};

/// Environment variable with the log filter, in the syntax of tracing's `EnvFilter`: `debug`, `ingress_user::spool=trace`.
const LOG_VARIABLE: &str = "INGRESS_LOG";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file (TOML); without it, a trial server on 127.0.0.1:2525 with its state below the home
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Take over from the daemon that runs with the same state_dir, so that no client is refused; start as usual if none does
    #[arg(long)]
    take_over: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let config = match &arguments.config {
        Some(path) => Config::load(path)?,
        None => Config::embedded()?,
    };
    start_log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Delivery, DNS and control wait more than they work; the CPUs belong to the workers.
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Before anything can be stopped halfway.
    let (stop, hangup) = {
        let _context = runtime.enter();
        let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // Without a file there is nothing to reload, and a trial server ends with its terminal.
        let hangup = arguments.config.is_some().then(|| signal(SignalKind::hangup()));
        (stop, hangup.transpose().context("cannot catch SIGHUP")?)
    };
    let predecessor =
        if arguments.take_over { Predecessor::find(&config.state_dir)? } else { None };
    if let Some(running) = &predecessor {
        tracing::info!(process = running.process_id(), "taking over from the running daemon");
        // Before the kernel programs are loaded with one.
        xdp::inherit_hash_seed(running.hash_seed());
    }
    let daemon = Daemon::start(config, predecessor, &runtime)?;
    if let Some(hangup) = hangup {
        let lists = daemon.deny_lists().cloned();
        runtime.spawn(reload_at(hangup, Arc::clone(daemon.certificates()), lists));
    }
    super::print(&ready_line(daemon.ready()))?;
    let ending = runtime.block_on(async {
        tokio::select! {
            () = stop => Ending::Stop,
            () = daemon.successor() => Ending::Handover,
        }
    });
    match ending {
        Ending::Stop => {
            tracing::info!("draining: open transactions are finished, no new connections taken");
        }
        Ending::Handover => {
            tracing::info!("draining: open transactions are finished, another daemon takes over");
        }
    }
    daemon.drain(ending, &runtime);
    Ok(())
}

/// Certificates and deny lists are all that is read anew.
async fn reload_at(
    mut hangup: Signal,
    certificates: Arc<Certificates>,
    lists: Option<Arc<DenyLists>>,
) {
    while hangup.recv().await.is_some() {
        // Both are logged there.
        let _result = reload::reload(&certificates, Trigger::Signal).await;
        if let Some(lists) = lists.clone() {
            let _result = tokio::task::spawn_blocking(move || lists.reload()).await;
        }
    }
}

fn start_log() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

/// What supervisors and tests wait for.
fn ready_line(ready: &Ready) -> String {
    let listeners: String = ready
        .listeners
        .iter()
        .map(|listener| {
            let ListenerStatus { address, protocol, tls } = listener;
            format!(" {}={address}/{}", protocol.keyword(), tls.keyword())
        })
        .collect();
    let metrics = ready.metrics.map(|address| format!(" metrics={address}")).unwrap_or_default();
    let mta_sts: String =
        ready.mta_sts.iter().map(|address| format!(" mta_sts={address}")).collect();
    format!("ready{listeners} control={}{metrics}{mta_sts}\n", ready.control.display())
}
