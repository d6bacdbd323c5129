use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// A daemon that does not answer in this time is stuck: it only reads counters.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for the status of 1,024 workers, many times over.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why there is no answer from the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers on {}: {source}", socket.display())]
    NoDaemon { socket: PathBuf, source: io::Error },
    #[error("the daemon on {} did not answer within {} s", .0.display(), ANSWER_TIMEOUT.as_secs())]
    Timeout(PathBuf),
    #[error("the daemon on {} answered {status}", socket.display())]
    Refused { socket: PathBuf, status: StatusCode },
    /// Cut off, too long, or no HTTP.
    #[error("the answer of the daemon on {} is not usable: {reason}", socket.display())]
    Unusable { socket: PathBuf, reason: String },
}

/// Asks the daemon on `socket` for its status, as the JSON text of a [`Status`](super::Status). Takes at most 5 s.
pub async fn fetch_status(socket: &Path) -> Result<String, ClientError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, fetch(socket, "/status")).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(ClientError::Timeout(socket.to_owned())),
    }
}

async fn fetch(socket: &Path, target: &str) -> Result<String, ClientError> {
    let unusable = |reason: String| ClientError::Unusable { socket: socket.to_owned(), reason };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::NoDaemon { socket: socket.to_owned(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unusable(error.to_string()))?;
    let exchange = async {
        let request = Request::get(target)
            .header(hyper::header::HOST, "ingress")
            .body(Empty::<Bytes>::new())
            .map_err(|error| unusable(error.to_string()))?;
        let response =
            sender.send_request(request).await.map_err(|error| unusable(error.to_string()))?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(ClientError::Refused { socket: socket.to_owned(), status });
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(|error| unusable(error.to_string()))?.to_bytes();
        String::from_utf8(bytes.into()).map_err(|error| unusable(error.to_string()))
    };
    // The connection moves the octets; it ends by itself only after the exchange has.
    let drive = async {
        let _ended = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = drive => never,
    }
}
