//! The resolved configuration written as a file: what `ingress check` prints can be given back to `--config`.

use std::fmt;
use std::path::Path;

use super::file::{self, DeliveryKind};
use super::values::{Count, DurationText, Size, Workers};
use super::{Config, DeliveryConfig, Limits, SpoolConfig};
use crate::policy::RecipientDomains;

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = file::File::from(self);
        f.write_str(&toml::to_string(&file).map_err(|_unwritable| fmt::Error)?)
    }
}

impl From<&Config> for file::File {
    fn from(config: &Config) -> Self {
        Self {
            hostname: Some(config.hostname.clone()),
            state_dir: Some(path_text(&config.state_dir)),
            workers: Some(Workers::Cpus(
                config.worker_cpus.iter().map(|&cpu| cpu as u64).collect(),
            )),
            listener: config
                .listeners
                .iter()
                .map(|listener| file::Listener {
                    address: Some(listener.address.to_string()),
                    tls: Some(listener.tls),
                })
                .collect(),
            tls: file::Tls {
                certificates: config
                    .tls
                    .certificates
                    .iter()
                    .map(|files| file::Certificate {
                        chain: Some(path_text(&files.chain)),
                        key: Some(path_text(&files.key)),
                    })
                    .collect(),
            },
            recipients: file::Recipients { domains: Some(domain_list(&config.recipients)) },
            limits: (&config.limits).into(),
            spool: (&config.spool).into(),
            delivery: (&config.delivery).into(),
            xdp: file::Xdp {
                interfaces: config.xdp.interfaces.clone(),
                mode: Some(config.xdp.mode),
                steering: Some(config.xdp.steering),
            },
            control: file::Control {
                socket: Some(path_text(&config.control.socket)),
                metrics: config.control.metrics.map(|address| address.to_string()),
            },
        }
    }
}

impl From<&Limits> for file::Limits {
    fn from(limits: &Limits) -> Self {
        let count = |value: usize| Some(Count(value as u64));
        Self {
            idle_timeout: Some(DurationText(limits.idle_timeout)),
            tls_handshake_timeout: Some(DurationText(limits.tls_handshake_timeout)),
            commit_timeout: Some(DurationText(limits.commit_timeout)),
            message_bytes_max: Some(Size(limits.message_bytes_max)),
            recipients_max: count(limits.recipients_max),
            command_line_bytes_max: Some(Size(limits.command_line_bytes_max as u64)),
            text_line_bytes_max: Some(Size(limits.text_line_bytes_max)),
            errors_max: Some(Count(limits.errors_max.into())),
            connections_max: count(limits.connections_max),
            connections_per_client_max: count(limits.connections_per_client_max),
            accept_burst_max: count(limits.accept_burst_max),
            buffers_per_worker_max: count(limits.buffers_per_worker_max),
        }
    }
}

impl From<&SpoolConfig> for file::Spool {
    fn from(spool: &SpoolConfig) -> Self {
        Self {
            segment_bytes_max: Some(Size(spool.segment_bytes_max)),
            submissions_max: Some(Count(spool.submissions_max as u64)),
            batch_messages_max: Some(Count(spool.batch_messages_max as u64)),
        }
    }
}

impl From<&DeliveryConfig> for file::Delivery {
    fn from(delivery: &DeliveryConfig) -> Self {
        let (kind, path) = match delivery {
            DeliveryConfig::Maildir { path } => (DeliveryKind::Maildir, Some(path_text(path))),
            DeliveryConfig::Discard => (DeliveryKind::Discard, None),
        };
        Self { kind: Some(kind), path, address: None }
    }
}

/// TOML is UTF-8; a path that is not loses what cannot be shown.
fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn domain_list(domains: &RecipientDomains) -> Vec<String> {
    let mut list: Vec<String> = match domains {
        RecipientDomains::Any => vec!["*".to_owned()],
        RecipientDomains::Listed(domains) => domains.iter().map(|d| d.to_string()).collect(),
    };
    list.sort();
    list
}
