//! A few senders that stay connected and keep a worker busy: what a suite runs inside the client's network namespace.
//!
//! `big-senders ADDRESS` does what the lines on its standard input say, and answers each with a line: `open` a session, `close` the
//! one opened last, have all that are open `send` until `stop`, which tells how many messages were accepted. It ends with the input.

use std::env;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};

use ingress_tests::client::Client;

/// Commands that are sent at once: they cost the worker much and us little. They fit a socket's buffer.
const NOOPS: usize = 5_000;

/// So often before each message, during which the worker has to wait for the disk.
const ROUNDS: usize = 20;

static IS_STOPPED: AtomicBool = AtomicBool::new(false);

fn main() -> Result<()> {
    let address: SocketAddr = env::args().nth(1).context("big-senders ADDRESS")?.parse()?;
    let mut sessions = Vec::new();
    let mut senders: Vec<JoinHandle<u64>> = Vec::new();
    for line in io::stdin().lines() {
        match line?.as_str() {
            "open" => {
                sessions.push(Client::hello(address));
                println!("opened");
            }
            "close" => {
                sessions.pop().context("no session is open")?.quit();
                println!("closed");
            }
            "send" => {
                senders.extend(sessions.drain(..).map(|session| thread::spawn(|| send(session))));
                println!("sending");
            }
            "stop" => {
                IS_STOPPED.store(true, Ordering::Relaxed);
                let accepted = senders.drain(..).map(|sender| sender.join().expect("a session"));
                println!("accepted {}", accepted.sum::<u64>());
            }
            line => bail!("what is `{line}`?"),
        }
    }
    Ok(())
}

/// Messages that were accepted.
fn send(mut session: Client) -> u64 {
    let noops = "NOOP\r\n".repeat(NOOPS);
    let expected = session.command("NOOP", "250 ").repeat(NOOPS);
    let mut replies = vec![0; expected.len()];
    let mut accepted = 0;
    while !IS_STOPPED.load(Ordering::Relaxed) {
        for _ in 0..ROUNDS {
            session.send(&noops);
            session.stream().read_exact(&mut replies).expect("a reply to each");
            assert!(replies == expected.as_bytes(), "a reply to NOOP changed");
        }
        session.message(b"Subject: one of many\r\n\r\nText\r\n");
        accepted += 1;
    }
    session.quit();
    accepted
}
