//! All workers of a daemon, and what becomes of the work of one that dies.
//!
//! A worker's thread ends when its loop fails or panics. Its connections are lost with it, but not who waits in its listeners: they
//! are held here a second time, so that the kernel keeps their queues, and another worker takes them over.

use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::drain::Ending;
use super::mailbox::MailboxSender;
use super::run::{Listening, WorkerThread};

/// One worker, from its start to its end.
pub struct Member {
    pub cpu: usize,
    pub mailbox: MailboxSender,
    pub thread: WorkerThread,
    /// Its listeners, each a second time.
    pub listeners: Vec<Listening>,
}

/// The workers that live.
pub struct Crew(Mutex<Vec<Member>>);

impl Crew {
    pub fn new(members: Vec<Member>) -> Self {
        Self(Mutex::new(members))
    }

    /// Has the listeners of workers that have died served by others. The CPUs of those that live, if any has died since the last
    /// look.
    pub fn look_after(&self) -> Option<Vec<usize>> {
        let mut members = self.members();
        let mut orphans = Vec::new();
        let mut has_died = false;
        // From behind, so that places in front stay.
        for place in (0..members.len()).rev() {
            if members.get(place).is_some_and(|member| member.thread.handle.is_finished()) {
                let Member { cpu, listeners, thread, .. } = members.swap_remove(place);
                let panicked = thread.handle.join().is_err();
                tracing::error!(cpu, panicked, "a worker has died, and its connections with it");
                orphans.extend(listeners);
                has_died = true;
            }
        }
        for (orphan, place) in orphans.into_iter().zip((0..members.len()).cycle()) {
            if let Some(member) = members.get_mut(place) {
                member.adopt(orphan);
            }
        }
        has_died.then(|| members.iter().map(|member| member.cpu).collect())
    }

    /// All listening sockets, each once more.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        let members = self.members();
        let listeners = members.iter().flat_map(|member| &member.listeners);
        listeners.map(|listening| listening.socket.try_clone()).collect()
    }

    /// The CPU of each worker and the CPU time that its thread has taken. None where one of them cannot be told, such as that of a
    /// worker that is about to be found dead.
    pub fn cpu_times(&self) -> Option<Vec<(usize, Duration)>> {
        let time = |member: &Member| {
            let spent = member.thread.clock.as_ref().ok()?.spent().ok()?;
            Some((member.cpu, spent))
        };
        self.members().iter().map(time).collect()
    }

    /// Has all workers let their transactions finish, and waits for their ends.
    pub fn drain(&self, ending: Ending) {
        let members = std::mem::take(&mut *self.members());
        let end = |member: Member| {
            member.mailbox.drain(ending);
            // Its listeners are closed here as there: who comes now is refused at once.
            member.thread.handle
        };
        let threads: Vec<_> = members.into_iter().map(end).collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked; its connections were lost");
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first worker panics, and is dead when this returns. Nobody looks after it meanwhile.
    #[cfg(test)]
    pub(crate) fn kill_one(&self) {
        let members = self.members();
        members[0].mailbox.kill();
        while !members[0].thread.handle.is_finished() {
            std::thread::yield_now();
        }
    }
}

impl Member {
    /// Has the worker serve this listener too.
    fn adopt(&mut self, orphan: Listening) {
        let second = orphan.try_clone();
        if !self.mailbox.adopt(orphan) {
            // It has a letter in its box that it does not read: it is about to be found dead as well, or overloaded.
            tracing::error!(cpu = self.cpu, "a worker does not take over a listener");
        }
        match second {
            Ok(second) => self.listeners.push(second),
            Err(error) => tracing::error!(%error, "a listener is held once only"),
        }
    }
}
