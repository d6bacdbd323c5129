//! A planned restart: one daemon takes over from another that runs with the same state folder, and no client notices.
//!
//! - [`Predecessor`]: the running daemon, as the one that is starting sees it
//! - [`HandoverSocket`]: where the running daemon waits for that, and [`Estate`], what it has to give
//! - `wire`: frames of JSON, and file descriptors (SCM_RIGHTS), over a Unix stream
//!
//! The successor connects and is given an [`Offer`] and the listening sockets themselves. It prepares all that can fail, and only
//! then has the predecessor drain and end. Clients that come meanwhile wait in the queues of those sockets, which are never
//! closed. What belongs to one daemon at a time (spool, admin socket, journal) the successor opens when the predecessor's process is
//! gone. One that gives up before changes nothing.

mod predecessor;
mod successor;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use predecessor::Predecessor;
pub use successor::{Estate, HandoverSocket};

/// What the two speak; raised when a successor could misread an older daemon.
const VERSION: u32 = 1;

/// For the answer to something that costs no time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// For a successor's preparations: kernel programs, half a million denied networks, certificates.
const PREPARATION_TIMEOUT: Duration = Duration::from_secs(120);

/// From the word to drain to the end of the process: open transactions have 30 s, deliveries under way theirs.
const END_TIMEOUT: Duration = Duration::from_secs(120);

/// Sockets of all groups together: a hundred workers on forty addresses.
const SOCKETS_MAX: usize = 4_096;

/// The listening sockets of one configured address.
#[derive(Debug)]
pub struct ListeningGroup {
    /// As it stands in the configuration, where the port may be 0.
    pub configured: SocketAddr,
    /// As it is.
    pub address: SocketAddr,
    pub sockets: Vec<TcpListener>,
}

/// What the predecessor says before it sends the sockets, group by group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    version: u32,
    /// Secret of the connection hash: with another one, open connections would change their CPU.
    hash_seed: u64,
    groups: Vec<OfferedGroup>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OfferedGroup {
    configured: SocketAddr,
    address: SocketAddr,
    sockets: usize,
}

/// What the successor says when it is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    Drain,
}

/// Why a daemon cannot take over from another. The other one then goes on, but for [`HandoverError::StillRuns`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    #[error("handover socket {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot take over from the running daemon: {0}")]
    Talk(#[from] io::Error),
    #[error(
        "the running daemon hands over by version {theirs}, this one by version {VERSION}: stop it and start this one"
    )]
    Version { theirs: u32 },
    #[error("the running daemon offers {count} listening sockets, more than {SOCKETS_MAX}")]
    TooManySockets { count: usize },
    #[error(
        "the running daemon (process {pid}) has not ended {} s after it began to drain: it serves nobody; end it and start this one",
        END_TIMEOUT.as_secs()
    )]
    StillRuns { pid: i32 },
}

/// The socket's place in the state folder, which only its owner enters.
fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("handover")
}

#[cfg(test)]
mod tests;
