//! What a daemon needs before any part of it starts.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::policy::RecipientDomains;
use crate::tls::reload::Certificates;

/// File descriptors beside those of connections: listeners, event loops, segments, deliveries, kernel maps.
const OTHER_FILES: usize = 512;

/// What has to be there before anything starts: the state folder, and certificates that can be served.
pub(super) fn prepare_state(config: &Config) -> Result<Arc<Certificates>> {
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
