//! Harness for the suites.
//!
//! - [`certificates`]: made for a test
//! - [`client`]: an SMTP client that can also misbehave
//! - [`corpus`]: dialogues in files
//! - [`daemon`]: a daemon of its own for each test, on ports the kernel chose
//! - [`dialogue`]: plays them against the SMTP core with a clock of their own
//! - [`exim`], [`postfix`]: other servers, which relay to the daemon
//! - [`handshakes`]: what the daemon has to say of them
//! - [`maildir`]: what was delivered
//! - [`netns`]: two hosts and a cable, for what crosses a network
//! - [`programs`]: other people's clients
//! - [`process`]: what runs beside the daemon as long as a test does
//! - [`sockets`]: what the kernel knows of a connection
//! - [`spool`]: a backlog made without a daemon
//! - [`texts`]: what clients send, and whether it arrived
//! - [`tunnel`]: a program that carries a session under TLS
//! - [`vm`]: kernels that this machine does not have
//! - [`wait`]: for what raises no event
//!
//! Nothing here sleeps: waiting is for an event, with a deadline.

pub mod certificates;
pub mod client;
pub mod corpus;
pub mod daemon;
pub mod dialogue;
pub mod exim;
pub mod handshakes;
pub mod load;
pub mod maildir;
pub mod netns;
mod player;
pub mod postfix;
pub mod process;
pub mod programs;
pub mod sockets;
pub mod spool;
pub mod texts;
pub mod tunnel;
pub mod vm;
pub mod wait;

use std::env;
use std::path::PathBuf;

/// The binary under test: `INGRESS_BIN`, else `ingress` beside the test binaries of the same build.
///
/// Panics when neither exists: a suite must not pass because it drove nothing.
pub fn bin() -> PathBuf {
    if let Some(path) = env::var_os("INGRESS_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "INGRESS_BIN={} is not a file", path.display());
        return path;
    }
    let test = env::current_exe().expect("a test binary knows its own path");
    // target/PROFILE/deps/SUITE-HASH
    let path = test.ancestors().nth(2).expect("a test binary has a profile folder").join("ingress");
    assert!(path.is_file(), "{} is missing: cargo build, or set INGRESS_BIN", path.display());
    path
}
