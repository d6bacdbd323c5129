//! Memory after start and for each idle connection.

use std::net::TcpStream;

use anyhow::{Result, ensure};

use crate::server::{self, Appliance};
use crate::tls::client::{self, Client};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections that stand idle after EHLO; each is a file descriptor here too
    #[arg(long, default_value_t = 2_000)]
    connections: u64,
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.connections > 0, "nothing to measure");
    let in_clear = Appliance::start()?;
    let resident = server::memory_bytes(in_clear.pid(), "VmRSS")?;
    println!("resident after start: {} KiB", resident / 1024);
    let config = client::config()?;
    // A daemon of its own, so that what the connections in clear gave back is not used again.
    let under_tls = Appliance::start()?;
    let bytes = per_connection(options, &in_clear, || {
        let mut client = Client::connect(in_clear.address())?;
        client.expect("220")?;
        Ok(client)
    })?;
    print(options, "connection in clear", bytes);
    let bytes =
        per_connection(options, &under_tls, || Client::starttls(under_tls.address(), &config))?;
    print(options, "session under TLS 1.3", bytes);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn print(options: &Options, what: &str, bytes: u64) {
    let count = options.connections;
    println!("idle {what}: {bytes} bytes of anonymous memory ({count} at once)");
}

/// Anonymous memory that one more connection takes, once it has said EHLO.
fn per_connection(
    options: &Options,
    appliance: &Appliance,
    open: impl Fn() -> Result<Client>,
) -> Result<u64> {
    let idle = || -> Result<TcpStream> {
        let mut client = open()?;
        client.command(b"EHLO bench.example\r\n", "250")?;
        Ok(client.into_socket())
    };
    // Warm: what the first connection brings along, such as a receive buffer, is not the second's cost.
    let _first = idle()?;
    let before = server::memory_bytes(appliance.pid(), "RssAnon")?;
    let connections = (0..options.connections).map(|_| idle()).collect::<Result<Vec<_>>>()?;
    let grown = server::memory_bytes(appliance.pid(), "RssAnon")?.saturating_sub(before);
    drop(connections);
    Ok(grown / options.connections)
}
