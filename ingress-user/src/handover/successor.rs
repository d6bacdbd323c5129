//! The daemon that is starting, as the running one sees it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::{
    ANSWER_TIMEOUT, HandoverError, ListeningGroup, Offer, OfferedGroup, PREPARATION_TIMEOUT,
    VERSION, Word, socket_path, wire,
};

/// What a running daemon gives to its successor.
#[derive(Debug)]
pub struct Estate {
    pub hash_seed: u64,
    pub groups: Vec<ListeningGroup>,
}

/// Where successors knock. Its file goes with this value.
#[derive(Debug)]
pub struct HandoverSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl HandoverSocket {
    /// In place of a dead daemon's. Whoever may enter the state folder can have the daemon replaced. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`HandoverError::Socket`].
    pub fn bind(state_dir: &Path) -> Result<Self, HandoverError> {
        let path = socket_path(state_dir);
        let socket_error = |source| HandoverError::Socket { path: path.clone(), source };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(socket_error(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(socket_error)?;
        Ok(Self { listener, path })
    }

    /// Done when a successor is prepared: the daemon has to drain and end. One that gives up is logged, and the next is waited for.
    pub async fn successor(&self, estate: impl Fn() -> io::Result<Estate>) {
        loop {
            match self.offer_once(&estate).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "a daemon that was to take over gave up"),
            }
        }
    }

    async fn offer_once(&self, estate: &impl Fn() -> io::Result<Estate>) -> io::Result<()> {
        let stream = self.listener.accept().await?.0.into_std()?;
        stream.set_nonblocking(false)?;
        let estate = estate()?;
        let offered = tokio::task::spawn_blocking(move || offer(&stream, &estate));
        offered.await.map_err(io::Error::other)?
    }
}

impl Drop for HandoverSocket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Sends all, and waits for the word to drain.
fn offer(stream: &UnixStream, estate: &Estate) -> io::Result<()> {
    let Estate { hash_seed, groups } = estate;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_read_timeout(Some(PREPARATION_TIMEOUT))?;
    let offered = |group: &ListeningGroup| {
        let &ListeningGroup { configured, address, ref sockets } = group;
        OfferedGroup { configured, address, sockets: sockets.len() }
    };
    let groups_offered = groups.iter().map(offered).collect();
    wire::send(stream, &Offer { version: VERSION, hash_seed: *hash_seed, groups: groups_offered })?;
    for group in groups {
        let sockets: Vec<_> = group.sockets.iter().map(AsFd::as_fd).collect();
        wire::send_files(stream, &sockets)?;
    }
    let Word::Drain = wire::receive(stream)?;
    Ok(())
}
