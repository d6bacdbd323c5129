use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};

use super::limited::Limited;
use super::prometheus::{CONTENT_TYPE, Exporter};
use super::status::{Status, StatusSource};
use super::xdp::XdpControl;
use super::{bans, certificates, tls, trace, xdp};
use crate::bans::BansHandle;
use crate::config::ControlConfig;
use crate::tls::journal::JournalHandle;
use crate::tls::reload::Certificates;
use crate::worker::clock::Now;
use crate::worker::watch::WatchList;

/// Longest life of a connection to the metrics endpoint. Scrapers connect anew.
const METRICS_LIFETIME_MAX: Duration = Duration::from_secs(60);

/// Longest life of a connection to the admin socket, and so of a live trace.
const ADMIN_LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// Owner and group talk to the daemon; nobody else.
const SOCKET_MODE: u32 = 0o660;

/// Why the control plane cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("control socket {}: another daemon answers there", .0.display())]
    InUse(PathBuf),
    #[error("control socket {}: a file that is not a socket is in the way", .0.display())]
    NotASocket(PathBuf),
    #[error("control socket {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("metrics address {address}: {source}")]
    Metrics { address: SocketAddr, source: io::Error },
}

/// The control plane's sockets, bound before the daemon says that it is ready. The socket's file goes with this value.
#[derive(Debug)]
pub struct Bound {
    socket: SocketFile,
    listener: UnixListener,
    metrics: Option<(SocketAddr, TcpListener)>,
}

/// What the admin socket operates.
pub struct Controls {
    pub watches: WatchList,
    pub journal: JournalHandle,
    pub certificates: Arc<Certificates>,
    pub bans: BansHandle,
    /// None where XDP is not in use.
    pub xdp: Option<XdpControl>,
}

/// Binds the admin socket, in place of a dead daemon's, and the metrics address.
///
/// Creates the socket's folder. Fails when a living daemon has the socket, when a file that is no socket stands there, and
/// when the system refuses an address.
pub fn bind(config: &ControlConfig) -> Result<Bound, ControlError> {
    let metrics = config.metrics.map(bind_metrics).transpose()?;
    let path = &config.socket;
    remove_stale(path)?;
    let socket_error = |source| ControlError::Socket { path: path.clone(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(socket_error)?;
    }
    let listener = UnixListener::bind(path).map_err(socket_error)?;
    let socket = SocketFile(path.clone());
    fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE)).map_err(socket_error)?;
    listener.set_nonblocking(true).map_err(socket_error)?;
    Ok(Bound { socket, listener, metrics })
}

impl Bound {
    pub fn socket(&self) -> &Path {
        &self.socket.0
    }

    /// Where /metrics is served, with the port the kernel chose if 0 was asked for.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(address, _)| *address)
    }

    /// Answers until `shutdown` is done; a request under way then is cut off. Needs a tokio runtime with I/O.
    pub async fn serve(
        self,
        source: Arc<StatusSource>,
        controls: Controls,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ControlError> {
        let Self { socket, listener, metrics } = self;
        let Controls { watches, journal, certificates, bans, xdp: filter } = controls;
        let exporter = Arc::new(Exporter::new(Arc::clone(&source)));
        let router = Router::new()
            .route("/status", get(status))
            .with_state(source)
            .merge(trace::router(watches))
            .merge(tls::router(journal, bans.clone()))
            .merge(certificates::router(certificates))
            .merge(bans::router(bans))
            .merge(xdp::router(filter));
        let admin = serve_admin(&socket.0, listener, router);
        let metrics = async {
            match metrics {
                Some((address, listener)) => serve_metrics(address, listener, exporter).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = admin => result,
            result = metrics => result,
            () = shutdown => Ok(()),
        }
    }
}

async fn serve_admin(
    path: &Path,
    listener: UnixListener,
    router: Router,
) -> Result<(), ControlError> {
    let serve = async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        axum::serve(Limited::new(listener, ADMIN_LIFETIME_MAX), router).await
    };
    serve.await.map_err(|source| ControlError::Socket { path: path.to_owned(), source })
}

async fn serve_metrics(
    address: SocketAddr,
    listener: TcpListener,
    exporter: Arc<Exporter>,
) -> Result<(), ControlError> {
    let serve = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = Router::new().route("/metrics", get(metrics)).with_state(exporter);
        axum::serve(Limited::new(listener, METRICS_LIFETIME_MAX), router).await
    };
    serve.await.map_err(|source| ControlError::Metrics { address, source })
}

async fn status(State(source): State<Arc<StatusSource>>) -> Json<Status> {
    Json(source.status(Now::read()))
}

async fn metrics(State(exporter): State<Arc<Exporter>>) -> impl IntoResponse {
    match exporter.text() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn bind_metrics(address: SocketAddr) -> Result<(SocketAddr, TcpListener), ControlError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, listener))
    };
    bind().map_err(|source| ControlError::Metrics { address, source })
}

/// A daemon that was killed leaves its socket file behind. Only a refused connection proves that nobody listens.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let socket_error = |source| ControlError::Socket { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(socket_error(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ControlError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ControlError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(socket_error)
        }
        Err(error) => Err(socket_error(error)),
    }
}

/// The file of our own socket. Nobody else has bound it meanwhile: our living listener would have kept them off.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "control socket not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{ClientError, fetch_status, reload_tls};
    use super::super::status::tests::source;
    use super::*;
    use crate::config::TlsConfig;
    use crate::tls::journal;
    use crate::tls::memory::MemorySettings;
    use crate::tls::verdict::Own;

    fn config(folder: &Path) -> ControlConfig {
        ControlConfig {
            socket: folder.join("run/control.sock"),
            metrics: Some(([127, 0, 0, 1], 0).into()),
        }
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        fs::create_dir(folder.path().join("run")).unwrap();
        drop(UnixListener::bind(&config.socket).unwrap());
        assert!(config.socket.exists());
        let bound = bind(&config).unwrap();
        let mode = fs::metadata(bound.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(bind(&config), Err(ControlError::InUse(path)) if path == config.socket));
        drop(bound);
        assert!(!config.socket.exists());
    }

    #[test]
    fn a_file_in_the_way_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let config = ControlConfig { socket: folder.path().join("f"), metrics: None };
        fs::write(&config.socket, "precious").unwrap();
        assert!(matches!(bind(&config), Err(ControlError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&config.socket).unwrap(), "precious");
    }

    #[test]
    fn a_metrics_port_in_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let config = ControlConfig { metrics: Some(address), ..config(folder.path()) };
        let error = bind(&config).unwrap_err().to_string();
        assert!(error.starts_with(&format!("metrics address {address}: Address already in use")));
    }

    #[tokio::test]
    async fn status_and_metrics_are_answered_until_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let bound = bind(&config(folder.path())).unwrap();
        let path = bound.socket().to_owned();
        let metrics_address = bound.metrics_address().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let own = Box::new(|| Own::with_keys(&[]));
        let (_, journal, _) =
            journal::start(MemorySettings::default(), own, folder.path()).unwrap();
        let certificates =
            Certificates::load(TlsConfig::default(), "mx.test", folder.path()).unwrap();
        let watches = WatchList::default();
        let no_mail = Box::new(|_, _| false);
        let (_, bans, _) =
            crate::bans::start(Default::default(), None, no_mail, folder.path()).unwrap();
        let (source, certificates) = (Arc::new(source()), Arc::new(certificates));
        let controls = Controls { watches, journal, certificates, bans, xdp: None };
        let server = tokio::spawn(bound.serve(source, controls, stopped));

        let json = fetch_status(&path).await.unwrap();
        let status: Status = serde_json::from_str(&json).unwrap();
        assert_eq!(status.messages.accepted, 7);

        let text = tokio::task::spawn_blocking(move || scrape(metrics_address)).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        assert!(text.contains("ingress_spool_pending 4\n"), "{text}");

        let error = reload_tls(&path).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::NotReloaded { why, .. } if why.contains("self-signed"))
        );

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        let error = fetch_status(&path).await.unwrap_err();
        assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
    }

    fn scrape(address: SocketAddr) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}
