//! The running daemon, as the one that is starting sees it.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{
    ANSWER_TIMEOUT, END_TIMEOUT, HandoverError, ListeningGroup, Offer, OfferedGroup, SOCKETS_MAX,
    VERSION, Word, socket_path, wire,
};

/// A daemon that runs, and what it has offered.
#[derive(Debug)]
pub struct Predecessor {
    pub(super) stream: UnixStream,
    process: Pid,
    hash_seed: u64,
    groups: Vec<ListeningGroup>,
}

impl Predecessor {
    /// The daemon that runs with this state folder, if there is one, with its listening sockets.
    ///
    /// # Errors
    /// [`HandoverError`]: it does not answer as it should.
    pub fn find(state_dir: &Path) -> Result<Option<Self>, HandoverError> {
        let path = socket_path(state_dir);
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                    _ => Err(HandoverError::Socket { path, source: error }),
                };
            }
        };
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let process = socket_peercred(&stream).map_err(io::Error::from)?.pid;
        let Offer { version, hash_seed, groups } = wire::receive(&stream)?;
        if version != VERSION {
            return Err(HandoverError::Version { theirs: version });
        }
        let count = groups.iter().fold(0_usize, |sum, group| sum.saturating_add(group.sockets));
        if count > SOCKETS_MAX {
            return Err(HandoverError::TooManySockets { count });
        }
        let groups =
            groups.iter().map(|group| receive_group(&stream, group)).collect::<io::Result<_>>()?;
        Ok(Some(Self { stream, process, hash_seed, groups }))
    }

    pub fn process_id(&self) -> i32 {
        self.process.as_raw_nonzero().get()
    }

    pub fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// The listening sockets for an address of the configuration, once.
    pub fn take_group(&mut self, configured: std::net::SocketAddr) -> Option<ListeningGroup> {
        let place = self.groups.iter().position(|group| group.configured == configured)?;
        Some(self.groups.remove(place))
    }

    /// Has it drain and end, and waits until its process is gone. Addresses that were not taken are closed with it.
    ///
    /// # Errors
    /// [`HandoverError`]: it could not be told, or it does not end.
    pub fn replace(self) -> Result<(), HandoverError> {
        // Before it can end, so that it is this process and no later one of its number.
        let process = pidfd_open(self.process, PidfdFlags::empty()).map_err(io::Error::from)?;
        wire::send(&self.stream, &Word::Drain)?;
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        let timeout = rustix::fs::Timespec {
            tv_sec: i64::try_from(END_TIMEOUT.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        loop {
            match poll(&mut ended, Some(&timeout)) {
                Ok(0) => return Err(HandoverError::StillRuns { pid: self.process_id() }),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

fn receive_group(stream: &UnixStream, group: &OfferedGroup) -> io::Result<ListeningGroup> {
    let files = wire::receive_files(stream, group.sockets)?;
    let sockets: Vec<TcpListener> = files.into_iter().map(TcpListener::from).collect();
    for socket in &sockets {
        if socket.local_addr()? != group.address {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a socket of another address"));
        }
    }
    Ok(ListeningGroup { configured: group.configured, address: group.address, sockets })
}
