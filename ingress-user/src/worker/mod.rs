//! One pinned thread per CPU: a mio loop that owns its listeners, its connections and their buffers.
//!
//! A turn of the loop: wait for the poll, read the clock once, open the mailbox, serve ready sockets, go on with connections
//! that gave way to others, fire deadlines. Nothing in it waits for disk, DNS, another thread or a slow client.

mod accept;
mod admission;
pub mod balance;
pub mod buffers;
pub mod clock;
mod closing;
mod commit;
mod connection;
mod cpu_clock;
mod crew;
mod drain;
mod error_log;
#[cfg(test)]
mod in_place;
pub mod listener;
mod mailbox;
mod observed;
mod run;
mod timers;
pub mod tls;
pub mod watch;
mod window;

pub use admission::Admission;
pub use cpu_clock::CpuClock;
pub use crew::{Crew, Member};
pub use drain::Ending;
pub use mailbox::{CompletionPost, MailboxSender};
pub use run::{Listening, PreparedWorker, WorkerParts, WorkerThread};
