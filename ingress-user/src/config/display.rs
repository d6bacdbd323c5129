//! The resolved configuration written as a file: what `ingress check` prints can be given back to `--config`.

use std::fmt;
use std::path::Path;

use super::file::{self, DeliveryKind, Extension};
use super::values::{Count, DurationText, OneOrMore, Size, Workers};
use super::{
    CertificateFiles, Config, DeliveryConfig, FilterConfig, Limits, ListenerConfig, MtaStsConfig,
    SpoolConfig, TlsConfig,
};
use crate::bans::BanSettings;
use crate::policy::{ClientNetworks, Networks, RecipientDomains, TargetExtensions};

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
            listener: config.listeners.iter().map(file::Listener::from).collect(),
            tls: (&config.tls).into(),
            recipients: file::Recipients { domains: Some(domain_list(&config.recipients)) },
            networks: (&config.networks).into(),
            limits: (&config.limits).into(),
            spool: (&config.spool).into(),
            delivery: delivery(&config.delivery, config.target),
            xdp: file::Xdp {
                interfaces: config.xdp.interfaces.clone(),
                mode: Some(config.xdp.mode),
                steering: Some(config.xdp.steering),
                pin_dir: Some(path_text(&config.xdp.pin_dir)),
                heartbeat_timeout: Some(DurationText(config.xdp.heartbeat_timeout)),
                filter: (&config.xdp.filter).into(),
            },
            bans: (&config.bans).into(),
            control: file::Control {
                socket: Some(path_text(&config.control.socket)),
                metrics: config.control.metrics.map(|address| address.to_string()),
            },
            mta_sts: (&config.mta_sts).into(),
        }
    }
}

impl From<&ListenerConfig> for file::Listener {
    fn from(listener: &ListenerConfig) -> Self {
        Self {
            address: Some(listener.address.to_string()),
            tls: Some(listener.tls),
            protocol: Some(listener.dialect),
        }
    }
}

impl From<&TlsConfig> for file::Tls {
    fn from(tls: &TlsConfig) -> Self {
        let memory = &tls.memory;
        Self {
            certificates: tls.certificates.iter().map(file::Certificate::from).collect(),
            memory: file::TlsMemory {
                withhold: Some(DurationText(memory.withhold)),
                withheld_percent_max: Some(Count(memory.withheld_percent_max.into())),
                peers_max: Some(Count(memory.peers_max as u64)),
                ipv4_prefix: Some(Count(memory.ipv4_prefix.into())),
                exempt: memory.exempt.iter().map(ToString::to_string).collect(),
            },
        }
    }
}

impl From<&CertificateFiles> for file::Certificate {
    fn from(files: &CertificateFiles) -> Self {
        Self { chain: Some(path_text(&files.chain)), key: Some(path_text(&files.key)) }
    }
}

impl From<&ClientNetworks> for file::Networks {
    fn from(networks: &ClientNetworks) -> Self {
        let list = |networks: &Networks| networks.iter().map(ToString::to_string).collect();
        Self {
            proxy_protocol: list(&networks.proxy_protocol),
            xclient: list(&networks.xclient),
            normalize: list(&networks.normalize),
            undelayed: list(&networks.undelayed),
            without_tickets: list(&networks.without_tickets),
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
            greet_delay: Some(DurationText(limits.greet_delay)),
            proxy_header_timeout: Some(DurationText(limits.proxy_header_timeout)),
            error_delay: Some(DurationText(limits.error_delay)),
            message_bytes_max: Some(Size(limits.message_bytes_max)),
            recipients_max: count(limits.recipients_max),
            command_line_bytes_max: Some(Size(limits.command_line_bytes_max as u64)),
            text_line_bytes_max: Some(Size(limits.text_line_bytes_max)),
            errors_max: Some(Count(limits.errors_max.into())),
            errors_undelayed_max: Some(Count(limits.errors_undelayed_max.into())),
            messages_per_session_max: Some(Count(limits.messages_per_session_max.into())),
            connections_max: count(limits.connections_max),
            connections_per_client_max: count(limits.connections_per_client_max),
            accept_burst_max: count(limits.accept_burst_max),
            buffers_per_worker_max: count(limits.buffers_per_worker_max),
            handshakes_per_worker_max: count(limits.handshakes_per_worker_max),
        }
    }
}

impl From<&FilterConfig> for file::Filter {
    fn from(filter: &FilterConfig) -> Self {
        let count = |value: u32| Some(Count(value.into()));
        Self {
            mode: Some(filter.mode),
            allow: filter.allow.iter().map(ToString::to_string).collect(),
            deny_files: filter.deny_files.iter().map(|path| path_text(path)).collect(),
            connections_per_second: count(filter.connections_per_second),
            connections_burst: count(filter.connections_burst),
            pressure_per_second: count(filter.pressure_per_second),
            syn_cookies: Some(filter.syn_cookies),
            syn_payload_bytes_max: Some(Size(filter.syn_payload_bytes_max.into())),
            sample_every: count(filter.sample_every),
        }
    }
}

impl From<&BanSettings> for file::Bans {
    fn from(bans: &BanSettings) -> Self {
        let count = |value: u32| Some(Count(value.into()));
        Self {
            early_talkers_max: count(bans.early_talkers_max),
            error_floods_max: count(bans.error_floods_max),
            silent_sessions_max: count(bans.silent_sessions_max),
            failed_handshakes_max: count(bans.failed_handshakes_max),
            window: Some(DurationText(bans.window)),
            lifetime: Some(DurationText(bans.lifetime)),
            lifetime_max: Some(DurationText(bans.lifetime_max)),
            clients_max: Some(Count(bans.clients_max as u64)),
            exempt: Some(bans.exempt.iter().map(ToString::to_string).collect()),
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

impl From<&MtaStsConfig> for file::MtaSts {
    fn from(config: &MtaStsConfig) -> Self {
        let listen = config.listen.iter().map(ToString::to_string).collect();
        Self {
            listen: Some(OneOrMore::More(listen)),
            mode: Some(config.mode),
            max_age: Some(DurationText(config.max_age)),
            mx: config.mx.clone(),
            certificates: config.certificates.iter().map(file::Certificate::from).collect(),
        }
    }
}

/// The extensions shown are all of the target's, those included that its kind is known for.
fn delivery(delivery: &DeliveryConfig, target: TargetExtensions) -> file::Delivery {
    let (kind, path) = match delivery {
        DeliveryConfig::Maildir { path } => (DeliveryKind::Maildir, Some(path_text(path))),
        DeliveryConfig::Discard => (DeliveryKind::Discard, None),
    };
    let TargetExtensions { smtputf8, binarymime, dsn, requiretls } = target;
    let extensions = [
        (smtputf8, Extension::SmtpUtf8),
        (binarymime, Extension::BinaryMime),
        (dsn, Extension::Dsn),
        (requiretls, Extension::RequireTls),
    ];
    let extensions = extensions.into_iter().filter_map(|(kept, name)| kept.then_some(name));
    file::Delivery { kind: Some(kind), path, address: None, extensions: extensions.collect() }
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
