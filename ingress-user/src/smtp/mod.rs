//! The SMTP core: bytes and time in, replies and actions out. No sockets, clock, TLS, files or randomness.
//!
//! Read RFC 5321 sections 3, 4.1, 4.5 and RFC 3207 before changing anything here.
//!
//! - [`session`]: the state machine of one connection
//! - [`command`]: one command line, parsed
//! - [`address`]: paths of MAIL and RCPT
//! - [`parameters`]: what stands behind the paths; [`xtext`]: how some of it is encoded
//! - [`xclient`] and [`proxy`]: whose connection it really is
//! - [`dialect`]: SMTP or LMTP
//! - [`data`]: finds the end of a message and what is wrong with it; [`chunk`]: the latter, where BDAT says the end
//! - [`envelope`]: what a transaction carries beside the message
//! - [`reply`]: every reply, its codes and its text
//! - [`trace`]: the `Received:` line

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod address;
pub mod chunk;
pub mod command;
pub mod data;
pub mod dialect;
pub mod envelope;
pub mod parameters;
pub mod proxy;
pub mod reply;
pub mod session;
pub mod trace;
pub mod xclient;
pub mod xtext;

pub use session::{Action, Octets, Session, Settings, Step};
