//! From what the file says to what the daemon does: every check, every default, every relative path.
//!
//! What only the running machine can answer (may this port be bound, does this interface exist) is left to those who try.

mod bans;
mod hosts;
mod limits;
mod machine;
mod mta_sts;
mod network;

use std::fs::File as OpenFile;
use std::path::{Component, Path, PathBuf};

use super::error::ConfigError;
use super::file::{Certificate, Delivery, DeliveryKind, Extension, File};
use super::source::Source;
use super::{CertificateFiles, Config, DeliveryConfig, TlsConfig};
use crate::policy::TargetExtensions;

/// Where the state lives when the file does not say.
const STATE_DIR_DEFAULT: &str = "/var/lib/ingress";

/// Checks `file` and completes it. Relative paths in it start at `folder`, an absolute path.
pub(super) fn resolve(
    file: File,
    source: &Source<'_>,
    folder: &Path,
) -> Result<Config, ConfigError> {
    let at = Place { source, folder };
    let state_dir = at.path("state_dir", file.state_dir.as_deref().unwrap_or(STATE_DIR_DEFAULT))?;
    let limits = limits::limits(source, &file.limits)?;
    let listeners = network::listeners(source, &file.listener)?;
    let delivery = delivery(&at, &file.delivery)?;
    let control = network::control(&at, &file.control, &state_dir, &listeners)?;
    Ok(Config {
        hostname: hosts::hostname(source, file.hostname)?,
        worker_cpus: machine::worker_cpus(source, file.workers)?,
        tls: TlsConfig {
            certificates: certificates(&at, "tls.certificates", &file.tls.certificates)?,
            memory: limits::tls_memory(source, &file.tls.memory)?,
        },
        recipients: hosts::recipients(source, file.recipients.domains)?,
        spool: limits::spool(source, &file.spool)?,
        networks: network::clients(source, &file.networks)?,
        target: target(&delivery, &file.delivery.extensions),
        delivery,
        xdp: machine::xdp(&at, file.xdp)?,
        bans: bans::bans(source, &file.bans)?,
        mta_sts: mta_sts::mta_sts(&at, &file.mta_sts, &listeners, &control)?,
        control,
        state_dir,
        listeners,
        limits,
    })
}

/// A file and the folder that its relative paths start at.
struct Place<'s, 't> {
    source: &'s Source<'t>,
    folder: &'s Path,
}

impl Place<'_, '_> {
    /// The absolute form of `text`, without `.` components.
    fn path(&self, key: &str, text: &str) -> Result<PathBuf, ConfigError> {
        if text.is_empty() {
            return Err(self.source.problem(key, "a path"));
        }
        let joined = self.folder.join(text);
        Ok(joined.components().filter(|part| *part != Component::CurDir).collect())
    }

    /// As [`path`](Self::path), of a file that can be read now.
    fn readable_file(&self, key: &str, text: Option<&str>) -> Result<PathBuf, ConfigError> {
        let text = text.ok_or_else(|| self.source.problem(key, "the path of a PEM file"))?;
        let path = self.path(key, text)?;
        let readable = OpenFile::open(&path).and_then(|file| file.metadata());
        let shown = path.display();
        match readable {
            Ok(metadata) if metadata.is_file() => Ok(path),
            Ok(_) => {
                Err(self.source.problem(key, format!("a PEM file, but {shown} is not a file")))
            }
            Err(error) => {
                let expected =
                    format!("a readable PEM file, but {shown} cannot be opened: {error}");
                Err(self.source.problem(key, expected))
            }
        }
    }
}

fn certificates(
    at: &Place<'_, '_>,
    list: &str,
    certificates: &[Certificate],
) -> Result<Vec<CertificateFiles>, ConfigError> {
    let resolve_one = |(index, certificate): (usize, &Certificate)| {
        let key = format!("{list}.{index}");
        Ok(CertificateFiles {
            chain: at.readable_file(&format!("{key}.chain"), certificate.chain.as_deref())?,
            key: at.readable_file(&format!("{key}.key"), certificate.key.as_deref())?,
        })
    };
    certificates.iter().enumerate().map(resolve_one).collect()
}

/// Keys of the other kinds may stand in the section: switching the kind is then one edit.
fn delivery(at: &Place<'_, '_>, delivery: &Delivery) -> Result<DeliveryConfig, ConfigError> {
    match delivery.kind {
        Some(DeliveryKind::Maildir) => {
            let key = "delivery.path";
            let missing = || at.source.problem(key, "the folder of the Maildir");
            let path = delivery.path.as_deref().ok_or_else(missing)?;
            Ok(DeliveryConfig::Maildir { path: at.path(key, path)? })
        }
        Some(DeliveryKind::Discard) => Ok(DeliveryConfig::Discard),
        Some(DeliveryKind::Lmtp | DeliveryKind::Smtp | DeliveryKind::Jetstream) => {
            let expected =
                "\"maildir\" or \"discard\"; this kind is not in this version of ingress";
            Err(at.source.problem("delivery.kind", expected))
        }
        None => Err(at.source.problem("delivery.kind", "\"maildir\" or \"discard\"")),
    }
}

/// What `delivery` is known to keep, and what the operator vouches for beyond it.
fn target(delivery: &DeliveryConfig, added: &[Extension]) -> TargetExtensions {
    let mut target = match delivery {
        // Final delivery to a local disk, octet by octet; RFC 8689 asks nothing more where no hop follows. Nobody here
        // sends notifications.
        DeliveryConfig::Maildir { .. } => {
            TargetExtensions { smtputf8: true, binarymime: true, dsn: false, requiretls: true }
        }
        DeliveryConfig::Discard => {
            TargetExtensions { smtputf8: true, binarymime: true, dsn: true, requiretls: true }
        }
    };
    for extension in added {
        match extension {
            Extension::SmtpUtf8 => target.smtputf8 = true,
            Extension::BinaryMime => target.binarymime = true,
            Extension::Dsn => target.dsn = true,
            Extension::RequireTls => target.requiretls = true,
        }
    }
    target
}
