//! The certificates of a running daemon: where they are read from, what is served, and how renewed ones take their place.
//!
//! Files are read as at start, checked, and only then swapped in; what is broken changes nothing. Sessions that are open keep
//! what they began with.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::choice::DnsNames;
use super::expiry::{self, NotAfter};
use super::verdict::KeyKind;
use super::{Credential, CredentialError, load};
use crate::config::TlsConfig;
use crate::worker::clock::Now;
use crate::worker::tls::{TlsContext, TlsContextError};

/// Between two looks at the files. A certificate is renewed days before it ends, so a minute is soon; and a look is a few
/// system calls.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Between two looks at what is left of the certificates' days.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Why certificates cannot be served. Each but the last two names the file.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Context(#[from] TlsContextError),
    #[error(
        "the certificate is self-signed, there is nothing to reload: [tls] certificates would name files"
    )]
    SelfSigned,
    #[error("the daemon is stopping")]
    Stopping,
}

/// Who asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// `ingress tls reload`.
    Command,
    /// A file is not what it was.
    ChangedFiles,
}

/// A certificate that clients are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The chain's file.
    pub file: PathBuf,
    pub names: DnsNames,
    pub not_after: NotAfter,
    /// `None` for a kind that no TLS client of today takes.
    pub key: Option<KeyKind>,
}

/// Everything about certificates that outlives a connection. Workers have the [`TlsContext`] alone.
#[derive(Debug)]
pub struct Certificates {
    config: TlsConfig,
    hostname: String,
    state_dir: PathBuf,
    context: TlsContext,
    served: ArcSwap<Vec<Served>>,
    /// The files as they were before they were last read. Held throughout a reload, so that of two the later reading stays.
    stamps: Mutex<Vec<Stamp>>,
}

impl Certificates {
    /// Loads the configured certificates, or the self-signed one.
    pub fn load(
        config: TlsConfig,
        hostname: &str,
        state_dir: &Path,
    ) -> Result<Self, CertificatesError> {
        let stamps = stamps(&config);
        let credentials = load(&config, hostname, state_dir)?;
        let served = served(&credentials);
        let context = TlsContext::new(credentials)?;
        expiry::report(&served, None, Now::read().wall);
        Ok(Self {
            context,
            served: ArcSwap::from_pointee(served),
            stamps: Mutex::new(stamps),
            config,
            hostname: hostname.to_owned(),
            state_dir: state_dir.to_owned(),
        })
    }

    /// For the workers. It follows every reload.
    pub fn context(&self) -> &TlsContext {
        &self.context
    }

    pub fn served(&self) -> Arc<Vec<Served>> {
        self.served.load_full()
    }

    /// Reads all files anew and serves what they hold, or, on any error, what was served before. Either is logged. Blocks on
    /// files.
    pub fn reload(&self, trigger: Trigger) -> Result<Arc<Vec<Served>>, CertificatesError> {
        self.reload_locked(self.stamps(), trigger)
    }

    /// Reloads when a file is not what it was at the last reading, also if that failed: chain and key are renewed one after
    /// the other, and between the two they do not belong together.
    pub fn reload_if_changed(&self) -> Option<Result<Arc<Vec<Served>>, CertificatesError>> {
        let known = self.stamps();
        let is_changed = *known != stamps(&self.config);
        is_changed.then(|| self.reload_locked(known, Trigger::ChangedFiles))
    }

    fn reload_locked(
        &self,
        mut known: MutexGuard<'_, Vec<Stamp>>,
        trigger: Trigger,
    ) -> Result<Arc<Vec<Served>>, CertificatesError> {
        // Before the reading: what changes during it is seen at the next look.
        *known = stamps(&self.config);
        let result = self.replace();
        let trigger = trigger.name();
        match &result {
            Ok(served) => {
                tracing::info!(trigger, certificates = served.len(), "certificates reloaded");
                expiry::report(served, None, Now::read().wall);
            }
            // No fault of anybody.
            Err(error @ CertificatesError::SelfSigned) => tracing::info!(trigger, "{error}"),
            Err(error) => {
                tracing::error!(trigger, %error, "certificates not reloaded, those loaded before stay");
            }
        }
        result
    }

    fn replace(&self) -> Result<Arc<Vec<Served>>, CertificatesError> {
        if self.config.certificates.is_empty() {
            return Err(CertificatesError::SelfSigned);
        }
        let credentials = load(&self.config, &self.hostname, &self.state_dir)?;
        let served = Arc::new(served(&credentials));
        self.context.replace(credentials)?;
        self.served.store(Arc::clone(&served));
        Ok(served)
    }

    fn stamps(&self) -> MutexGuard<'_, Vec<Stamp>> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Certificates::reload`] on a blocking thread: files can be on a disk that is slow.
pub async fn reload(
    certificates: &Arc<Certificates>,
    trigger: Trigger,
) -> Result<Arc<Vec<Served>>, CertificatesError> {
    let certificates = Arc::clone(certificates);
    let reload = tokio::task::spawn_blocking(move || certificates.reload(trigger));
    reload.await.unwrap_or(Err(CertificatesError::Stopping))
}

/// Looks every minute whether files have changed, and then reloads; and every day how many are left. Never ends.
pub async fn watch(certificates: Arc<Certificates>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut days = interval_at(Instant::now() + EXPIRY_INTERVAL, EXPIRY_INTERVAL);
    let mut reported = Now::read().wall;
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let certificates = Arc::clone(&certificates);
                let look = move || certificates.reload_if_changed();
                // The result is logged; no thread is to be had only when the daemon stops.
                let _done = tokio::task::spawn_blocking(look).await;
            }
            _ = days.tick() => {
                let now = Now::read().wall;
                expiry::report(&certificates.served(), Some(reported), now);
                reported = now;
            }
        }
    }
}

impl Trigger {
    fn name(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Command => "ingress tls reload",
            Self::ChangedFiles => "changed files",
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().collect();
        let names = if names.is_empty() { "no names".to_owned() } else { names.join(", ") };
        write!(f, "{}: {names}, until {}", self.file.display(), self.not_after)
    }
}

fn served(credentials: &[Credential]) -> Vec<Served> {
    let of = |credential: &Credential| Served {
        file: credential.source.clone(),
        names: credential.leaf.names.clone(),
        not_after: credential.leaf.not_after,
        key: credential.key_kind(),
    };
    credentials.iter().map(of).collect()
}

/// What tells two versions of a file apart without reading it: time of the last change (s and ns), size in octets, inode,
/// behind links. The change is that of the inode, so that owner and mode count, and an old file moved into place. `None`
/// where it cannot be told.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamps(config: &TlsConfig) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.ctime(), metadata.ctime_nsec(), metadata.size(), metadata.ino()))
    };
    config.certificates.iter().flat_map(|files| [&files.chain, &files.key]).map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CertificateFiles;

    /// A folder with a certificate for `name` in `mx.pem` and `mx.key`.
    fn folder(name: &str) -> (tempfile::TempDir, TlsConfig) {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles {
            chain: folder.path().join("mx.pem"),
            key: folder.path().join("mx.key"),
        };
        let config = TlsConfig { certificates: vec![files], ..TlsConfig::default() };
        renew(folder.path(), name, &["pem", "key"]);
        (folder, config)
    }

    /// Puts a new chain, a new key or both in place, as one that is for `name`.
    fn renew(folder: &Path, name: &str, kinds: &[&str]) {
        let state = tempfile::tempdir().unwrap();
        load(&TlsConfig::default(), name, state.path()).unwrap();
        for kind in kinds {
            let made = state.path().join(format!("tls/{name}.self-signed.{kind}"));
            // Another inode: files can be made within one tick of the file system's clock.
            let next = folder.join("next");
            fs::copy(made, &next).unwrap();
            fs::rename(next, folder.join(format!("mx.{kind}"))).unwrap();
        }
    }

    fn names(certificates: &Certificates) -> Vec<String> {
        let served = certificates.served();
        served.iter().flat_map(|served| served.names.iter().map(str::to_owned)).collect()
    }

    #[test]
    fn a_renewed_certificate_is_served_after_a_reload() {
        let (folder, config) = folder("one.test");
        let certificates = Certificates::load(config, "mx.test", folder.path()).unwrap();
        renew(folder.path(), "two.test", &["pem", "key"]);
        assert_eq!(names(&certificates), ["one.test"]);
        let served = certificates.reload(Trigger::Command).unwrap();
        let line = format!("{}: two.test, until 4096-01-01T00:00:00Z", served[0].file.display());
        assert_eq!(served[0].to_string(), line);
        assert_eq!(names(&certificates), ["two.test"]);
    }

    #[test]
    fn a_broken_file_is_named_and_changes_nothing() {
        let (folder, config) = folder("one.test");
        let certificates = Certificates::load(config, "mx.test", folder.path()).unwrap();
        let chain = folder.path().join("mx.pem");
        for broken in ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            fs::write(&chain, broken).unwrap();
            let error = certificates.reload(Trigger::Signal).unwrap_err().to_string();
            assert!(error.starts_with(&chain.display().to_string()), "{error}");
        }
        fs::remove_file(&chain).unwrap();
        assert!(certificates.reload(Trigger::Signal).is_err());
        assert_eq!(names(&certificates), ["one.test"]);
    }

    #[test]
    fn only_changed_files_are_read_and_a_half_renewed_pair_is_tried_again() {
        let (folder, config) = folder("one.test");
        let certificates = Certificates::load(config, "mx.test", folder.path()).unwrap();
        assert!(certificates.reload_if_changed().is_none());
        let state = tempfile::tempdir().unwrap();
        load(&TlsConfig::default(), "two.test", state.path()).unwrap();
        for (kind, is_whole) in [("pem", false), ("key", true)] {
            let made = state.path().join(format!("tls/two.test.self-signed.{kind}"));
            fs::rename(made, folder.path().join(format!("mx.{kind}"))).unwrap();
            assert_eq!(certificates.reload_if_changed().unwrap().is_ok(), is_whole);
            // Said once, not at every look.
            assert!(certificates.reload_if_changed().is_none());
        }
        assert_eq!(names(&certificates), ["two.test"]);
    }

    #[test]
    fn a_self_signed_certificate_is_not_reloaded() {
        let state = tempfile::tempdir().unwrap();
        let certificates =
            Certificates::load(TlsConfig::default(), "mx.test", state.path()).unwrap();
        let error = certificates.reload(Trigger::Command).unwrap_err();
        assert!(matches!(error, CertificatesError::SelfSigned), "{error}");
        assert!(certificates.reload_if_changed().is_none());
        assert_eq!(names(&certificates), ["mx.test"]);
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_found_within_two_looks() {
        let (folder, config) = folder("one.test");
        let certificates = Certificates::load(config, "mx.test", folder.path()).unwrap();
        let certificates = Arc::new(certificates);
        let watching = tokio::spawn(watch(Arc::clone(&certificates)));
        tokio::time::sleep(LOOK_INTERVAL / 2).await;
        renew(folder.path(), "two.test", &["pem", "key"]);
        assert_eq!(names(&certificates), ["one.test"]);
        tokio::time::sleep(LOOK_INTERVAL * 2).await;
        assert_eq!(names(&certificates), ["two.test"]);
        watching.abort();
    }
}
