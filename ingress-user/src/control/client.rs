use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// A daemon that does not answer in this time is stuck: it reads counters, or a few small files.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A million networks are as many system calls.
const LISTS_TIMEOUT: Duration = Duration::from_secs(60);
/// Room for the status of 1,024 workers, many times over.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The status of an answer that says why the daemon did not do what it was asked for.
pub(super) const DECLINED: StatusCode = StatusCode::CONFLICT;

/// Why there is no answer from the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers on {}: {source}", socket.display())]
    NoDaemon { socket: PathBuf, source: io::Error },
    #[error("the daemon on {} did not answer within {} s", socket.display(), timeout.as_secs())]
    Timeout { socket: PathBuf, timeout: Duration },
    #[error("the daemon on {} answered {status}", socket.display())]
    Refused { socket: PathBuf, status: StatusCode },
    /// With its reason.
    #[error("{0}")]
    Declined(String),
    #[error("{what} not reloaded, those loaded before stay: {why}")]
    NotReloaded { what: &'static str, why: String },
    /// Cut off, too long, or no HTTP.
    #[error("the answer of the daemon on {} is not usable: {reason}", socket.display())]
    Unusable { socket: PathBuf, reason: String },
}

/// Asks the daemon on `socket` for its status, as the JSON text of a [`Status`](super::Status). Takes at most 5 s.
pub async fn fetch_status(socket: &Path) -> Result<String, ClientError> {
    fetch(socket, "/status").await
}

/// Asks for `target`, a path with its query. Takes at most 5 s.
pub async fn fetch(socket: &Path, target: &str) -> Result<String, ClientError> {
    in_time(socket, ANSWER_TIMEOUT, exchange(socket, Method::GET, target)).await
}

/// Has the daemon change something; its answer. Takes at most 5 s.
pub async fn change(socket: &Path, target: &str) -> Result<String, ClientError> {
    in_time(socket, ANSWER_TIMEOUT, exchange(socket, Method::POST, target)).await
}

/// Has the daemon on `socket` read its certificates anew, and returns a line for each that it now serves. Takes at most 5 s.
pub async fn reload_tls(socket: &Path) -> Result<String, ClientError> {
    not_reloaded("certificates", change(socket, "/tls/reload").await)
}

/// Has the daemon read its deny lists anew; how many networks are in force, and a line for each that was left out. Takes at most
/// a minute.
pub async fn reload_lists(socket: &Path) -> Result<String, ClientError> {
    let reload = in_time(socket, LISTS_TIMEOUT, exchange(socket, Method::POST, "/xdp/reload"));
    not_reloaded("deny lists", reload.await)
}

async fn in_time(
    socket: &Path,
    timeout: Duration,
    exchange: impl Future<Output = Result<String, ClientError>>,
) -> Result<String, ClientError> {
    match tokio::time::timeout(timeout, exchange).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(ClientError::Timeout { socket: socket.to_owned(), timeout }),
    }
}

fn not_reloaded(
    what: &'static str,
    answer: Result<String, ClientError>,
) -> Result<String, ClientError> {
    answer.map_err(|error| match error {
        ClientError::Declined(why) => ClientError::NotReloaded { what, why },
        other => other,
    })
}

/// Follows the sessions of clients in `network`, as [`follow`] does.
pub async fn follow_trace<E: From<ClientError>>(
    socket: &Path,
    network: IpNet,
    show: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    follow(socket, &format!("/trace?network={network}"), show).await
}

/// Follows an answer without end; `show` gets whole lines as they come. Returns when the daemon ends, or with what `show` fails
/// with.
pub async fn follow<E: From<ClientError>>(
    socket: &Path,
    target: &str,
    mut show: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let unusable = |reason: String| ClientError::Unusable { socket: socket.to_owned(), reason };
    let mut exchange =
        Exchange::begin(socket, Method::GET, target).await?.expect_ok(socket).await?;
    while let Some(piece) = exchange.next_piece().await {
        let piece = piece.map_err(|error| unusable(error.to_string()))?;
        // The daemon sends whole lines of ASCII in each piece.
        show(&String::from_utf8_lossy(&piece))?;
    }
    Ok(())
}

async fn exchange(socket: &Path, method: Method, target: &str) -> Result<String, ClientError> {
    Exchange::begin(socket, method, target).await?.expect_ok(socket).await?.text(socket).await
}

/// One request under way, answered as far as its status.
struct Exchange {
    status: StatusCode,
    body: Incoming,
    /// Moves the octets; it ends with the exchange.
    connection: JoinHandle<()>,
}

impl Exchange {
    async fn begin(socket: &Path, method: Method, target: &str) -> Result<Self, ClientError> {
        let unusable = |reason: String| ClientError::Unusable { socket: socket.to_owned(), reason };
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| ClientError::NoDaemon { socket: socket.to_owned(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unusable(error.to_string()))?;
        let connection = tokio::spawn(async {
            // A failure shows in the body too.
            let _ended = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(hyper::header::HOST, "ingress")
            .body(Empty::<Bytes>::new())
            .map_err(|error| unusable(error.to_string()))?;
        let response =
            sender.send_request(request).await.map_err(|error| unusable(error.to_string()))?;
        Ok(Self { status: response.status(), body: response.into_body(), connection })
    }

    async fn expect_ok(self, socket: &Path) -> Result<Self, ClientError> {
        match self.status {
            StatusCode::OK => Ok(self),
            // Their bodies are reasons, for people.
            DECLINED | StatusCode::TOO_MANY_REQUESTS => {
                Err(ClientError::Declined(self.text(socket).await?))
            }
            status => Err(ClientError::Refused { socket: socket.to_owned(), status }),
        }
    }

    /// The whole answer.
    async fn text(mut self, socket: &Path) -> Result<String, ClientError> {
        let unusable = |reason: String| ClientError::Unusable { socket: socket.to_owned(), reason };
        let mut bytes = Vec::new();
        while let Some(piece) = self.next_piece().await {
            bytes.extend_from_slice(&piece.map_err(|error| unusable(error.to_string()))?);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(unusable(format!("it is longer than {ANSWER_BYTES_MAX} bytes")));
            }
        }
        String::from_utf8(bytes).map_err(|error| unusable(error.to_string()))
    }

    /// Octets of the answer; `None` at its end.
    async fn next_piece(&mut self) -> Option<hyper::Result<Bytes>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
