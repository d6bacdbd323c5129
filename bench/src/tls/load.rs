//! What the client does in a round.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use ingress_user::worker::clock::Now;
use rustls::client::ClientConfig;

use super::client::Client;

/// How a server is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// SMTP, then STARTTLS.
    Starttls,
    /// SMTP in TLS from the first octet.
    Implicit,
    /// TLS that carries anything.
    Raw,
}

/// Where a load goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) entry: Entry,
}

/// Connections at once, and what they have in common.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) sessions: u32,
}

impl Load {
    /// Seconds for `count` connections, each with a full handshake and nothing more.
    pub(crate) fn handshakes(&self, target: Target, count: u64) -> Result<f64> {
        let done = AtomicU64::new(0);
        self.run(|| {
            while done.fetch_add(1, Ordering::Relaxed) < count {
                let mut client = self.open(target)?;
                if target.entry == Entry::Starttls {
                    client.command(b"QUIT\r\n", "221")?;
                }
                client.close()?;
            }
            Ok(())
        })
    }

    /// Seconds for `count` messages, spread over sessions that stay open.
    pub(crate) fn messages(&self, target: Target, count: u64, message: &[u8]) -> Result<f64> {
        let done = AtomicU64::new(0);
        self.run(|| {
            let mut client = self.open(target)?;
            match target.entry {
                Entry::Starttls => client.command(b"EHLO bench.example\r\n", "250")?,
                Entry::Implicit => {
                    client.expect("220")?;
                    client.command(b"EHLO bench.example\r\n", "250")?;
                }
                Entry::Raw => {}
            }
            while done.fetch_add(1, Ordering::Relaxed) < count {
                if target.entry == Entry::Raw {
                    client.send(message)?;
                } else {
                    transaction(&mut client, message)?;
                }
            }
            client.close()
        })
    }

    fn open(&self, target: Target) -> Result<Client> {
        if target.entry == Entry::Starttls {
            return Client::starttls(target.address, &self.config);
        }
        let mut client = Client::connect(target.address)?;
        client.start_tls(&self.config)?;
        Ok(client)
    }

    /// Seconds until every session has done its part.
    fn run(&self, session: impl Fn() -> Result<()> + Sync) -> Result<f64> {
        let start = Now::read().monotonic;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.sessions).map(|_| scope.spawn(&session)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))
            })
        })?;
        Ok(Now::read().monotonic.duration_since(start).as_secs_f64())
    }
}

fn transaction(client: &mut Client, message: &[u8]) -> Result<()> {
    client.command(b"MAIL FROM:<sender@example.org>\r\n", "250")?;
    client.command(b"RCPT TO:<user@example.net>\r\n", "250")?;
    client.command(b"DATA\r\n", "354")?;
    client.send(message)?;
    client.command(b".\r\n", "250")
}

/// Lines of 78 octets, as most text has them, none with a dot in front.
pub(crate) fn message(bytes: usize) -> Vec<u8> {
    let line = [b"x".repeat(76).as_slice(), b"\r\n"].concat();
    line.repeat(bytes.div_ceil(line.len()))
}
