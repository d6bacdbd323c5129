//! The certificates of a running daemon: where they are read from, what is served, and how renewed ones take their place.
//!
//! Files are read as at start, checked, and only then swapped in; what is broken changes nothing. Sessions that are open keep
//! what they began with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch as news;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_rustls::TlsAcceptor;

use super::choice::DnsNames;
use super::expiry::{self, NotAfter};
use super::https::{Checked, HttpsContext, HttpsError};
use super::verdict::KeyKind;
use super::{Credential, CredentialError, load, load_files};
use crate::config::{CertificateFiles, TlsConfig};
use crate::file_stamp::FileStamp;
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
    #[error(transparent)]
    Https(#[from] HttpsError),
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
    /// Whether no authority vouches for it.
    pub is_self_signed: bool,
}

/// Everything about certificates that outlives a connection. Workers have the [`TlsContext`] alone.
#[derive(Debug)]
pub struct Certificates {
    config: TlsConfig,
    hostname: String,
    state_dir: PathBuf,
    context: TlsContext,
    /// Those for mail.
    served: ArcSwap<Vec<Served>>,
    https: Option<Https>,
    /// Sent to after each reload that changed something.
    reloads: news::Sender<()>,
    /// The files as they were before they were last read. Held throughout a reload, so that of two the later reading stays.
    stamps: Mutex<Vec<Option<FileStamp>>>,
}

/// What HTTPS is served with.
#[derive(Debug)]
struct Https {
    /// None: as mail.
    files: Vec<CertificateFiles>,
    context: HttpsContext,
    /// Of `files`.
    served: ArcSwap<Vec<Served>>,
}

/// What has been read and checked for HTTPS.
struct NextHttps {
    checked: Checked,
    served: Vec<Served>,
}

impl Certificates {
    /// Loads the configured certificates, or the self-signed one.
    pub fn load(
        config: TlsConfig,
        hostname: &str,
        state_dir: &Path,
    ) -> Result<Self, CertificatesError> {
        let stamps = stamps(&config.certificates);
        let credentials = load(&config, hostname, state_dir)?;
        let served = served(&credentials);
        let context = TlsContext::new(credentials)?;
        expiry::report(&served, None, Now::read().wall);
        Ok(Self {
            context,
            served: ArcSwap::from_pointee(served),
            https: None,
            reloads: news::Sender::new(()),
            stamps: Mutex::new(stamps),
            config,
            hostname: hostname.to_owned(),
            state_dir: state_dir.to_owned(),
        })
    }

    /// Loads what HTTPS is to be served with as well: these files, or, without any, what mail is served with.
    pub fn with_https(mut self, files: Vec<CertificateFiles>) -> Result<Self, CertificatesError> {
        let stamps = stamps(&files);
        let credentials = match files.is_empty() {
            true => load(&self.config, &self.hostname, &self.state_dir)?,
            false => load_files(&files)?,
        };
        let NextHttps { checked, served } = NextHttps::new(credentials, &files)?;
        expiry::report(&served, None, Now::read().wall);
        let (context, served) = (HttpsContext::new(checked), ArcSwap::from_pointee(served));
        self.https = Some(Https { files, context, served });
        self.stamps().extend(stamps);
        Ok(self)
    }

    /// For the workers. It follows every reload.
    pub fn context(&self) -> &TlsContext {
        &self.context
    }

    /// What mail clients are given.
    pub fn served(&self) -> Arc<Vec<Served>> {
        self.served.load_full()
    }

    /// What HTTPS clients are given.
    pub fn served_https(&self) -> Arc<Vec<Served>> {
        match &self.https {
            Some(https) if !https.files.is_empty() => https.served.load_full(),
            _ => self.served(),
        }
    }

    /// What mail clients are given, then what HTTPS clients alone are.
    pub fn all_served(&self) -> Vec<Served> {
        let https = self.https.iter().flat_map(|https| https.served.load().to_vec());
        self.served.load().iter().cloned().chain(https).collect()
    }

    /// For one HTTPS handshake; `None` where HTTPS is not served.
    pub fn https_acceptor(&self) -> Option<TlsAcceptor> {
        self.https.as_ref().map(|https| https.context.acceptor())
    }

    /// Changes after each reload that served something new.
    pub fn reloads(&self) -> news::Receiver<()> {
        self.reloads.subscribe()
    }

    /// Reads all files anew and serves what they hold, or, on any error, what was served before. Either is logged. Blocks on
    /// files.
    pub fn reload(&self, trigger: Trigger) -> Result<Vec<Served>, CertificatesError> {
        self.reload_locked(self.stamps(), trigger)
    }

    /// Reloads when a file is not what it was at the last reading, also if that failed: chain and key are renewed one after
    /// the other, and between the two they do not belong together.
    pub fn reload_if_changed(&self) -> Option<Result<Vec<Served>, CertificatesError>> {
        let known = self.stamps();
        let is_changed = *known != self.stamps_now();
        is_changed.then(|| self.reload_locked(known, Trigger::ChangedFiles))
    }

    fn reload_locked(
        &self,
        mut known: MutexGuard<'_, Vec<Option<FileStamp>>>,
        trigger: Trigger,
    ) -> Result<Vec<Served>, CertificatesError> {
        // Before the reading: what changes during it is seen at the next look.
        *known = self.stamps_now();
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

    fn replace(&self) -> Result<Vec<Served>, CertificatesError> {
        let mail = &self.config.certificates;
        let https = self.https.as_ref().map_or(&[][..], |https| &https.files);
        if mail.is_empty() && https.is_empty() {
            return Err(CertificatesError::SelfSigned);
        }
        // All is checked before any of it is served.
        let next_https = self.next_https()?;
        if !mail.is_empty() {
            let credentials = load_files(mail)?;
            let served = served(&credentials);
            self.context.replace(credentials)?;
            self.served.store(Arc::new(served));
        }
        if let (Some(https), Some(next)) = (&self.https, next_https) {
            https.context.replace(next.checked);
            https.served.store(Arc::new(next.served));
        }
        self.reloads.send_replace(());
        Ok(self.all_served())
    }

    fn next_https(&self) -> Result<Option<NextHttps>, CertificatesError> {
        let Some(Https { files, .. }) = &self.https else { return Ok(None) };
        let mail = &self.config.certificates;
        let files_read = if files.is_empty() { mail } else { files };
        Ok(Some(NextHttps::new(load_files(files_read)?, files)?))
    }

    fn stamps_now(&self) -> Vec<Option<FileStamp>> {
        let https = self.https.iter().flat_map(|https| &https.files);
        stamps(self.config.certificates.iter().chain(https))
    }

    fn stamps(&self) -> MutexGuard<'_, Vec<Option<FileStamp>>> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Certificates::reload`] on a blocking thread: files can be on a disk that is slow.
pub async fn reload(
    certificates: &Arc<Certificates>,
    trigger: Trigger,
) -> Result<Vec<Served>, CertificatesError> {
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
                expiry::report(&certificates.all_served(), Some(reported), now);
                reported = now;
            }
        }
    }
}

impl NextHttps {
    /// `files`: those that are for HTTPS alone.
    fn new(
        credentials: Vec<Credential>,
        files: &[CertificateFiles],
    ) -> Result<Self, CertificatesError> {
        let served = if files.is_empty() { Vec::new() } else { served(&credentials) };
        Ok(Self { checked: Checked::new(credentials)?, served })
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
        is_self_signed: credential.leaf.is_self_signed,
    };
    credentials.iter().map(of).collect()
}

fn stamps<'f>(files: impl IntoIterator<Item = &'f CertificateFiles>) -> Vec<Option<FileStamp>> {
    let files = files.into_iter().flat_map(|files| [&files.chain, &files.key]);
    files.map(|file| FileStamp::of(file)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    #[test]
    fn https_has_certificates_of_its_own_or_those_of_mail() {
        let ((mail, config), (other, own)) = (folder("one.test"), folder("two.test"));
        let load = || Certificates::load(config.clone(), "mx.test", mail.path()).unwrap();
        assert!(load().https_acceptor().is_none());
        let shared = load().with_https(Vec::new()).unwrap();
        assert_eq!(shared.all_served().len(), 1);
        let own = load().with_https(own.certificates).unwrap();
        assert_eq!(own.all_served().len(), 2);
        for certificates in [&shared, &own] {
            renew(mail.path(), "three.test", &["pem", "key"]);
            renew(other.path(), "four.test", &["pem", "key"]);
            let reloads = certificates.reloads();
            assert!(certificates.reload_if_changed().unwrap().is_ok());
            assert!(reloads.has_changed().unwrap());
            assert_eq!(names(certificates), ["three.test"]);
        }
        assert!(shared.served_https()[0].names.fit("three.test"));
        assert!(own.served_https()[0].names.fit("four.test"));
    }

    #[test]
    fn a_broken_file_of_https_leaves_those_of_mail_as_they_were() {
        let ((mail, config), (other, own)) = (folder("one.test"), folder("two.test"));
        let certificates = Certificates::load(config, "mx.test", mail.path()).unwrap();
        let certificates = certificates.with_https(own.certificates).unwrap();
        renew(mail.path(), "three.test", &["pem", "key"]);
        // The key of another certificate.
        renew(other.path(), "four.test", &["key"]);
        let error = certificates.reload(Trigger::Signal).unwrap_err();
        assert!(
            matches!(error, CertificatesError::Https(HttpsError::KeyMismatch { .. })),
            "{error}"
        );
        assert_eq!(names(&certificates), ["one.test"]);
        assert!(certificates.served_https()[0].names.fit("two.test"));
    }

    #[test]
    fn https_is_reloaded_beside_a_self_signed_certificate_for_mail() {
        let (folder, own) = folder("two.test");
        let state = tempfile::tempdir().unwrap();
        let certificates =
            Certificates::load(TlsConfig::default(), "mx.test", state.path()).unwrap();
        let certificates = certificates.with_https(own.certificates).unwrap();
        renew(folder.path(), "four.test", &["pem", "key"]);
        certificates.reload(Trigger::Signal).unwrap();
        assert_eq!(names(&certificates), ["mx.test"]);
        assert!(certificates.served_https()[0].names.fit("four.test"));
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
