//! Memory after start and for each idle connection.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};

use crate::server::{self, Appliance};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections that stand idle after EHLO; each is a file descriptor here too
    #[arg(long, default_value_t = 2_000)]
    connections: u64,
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.connections > 0, "nothing to measure");
    let appliance = Appliance::start()?;
    let pid = appliance.pid();
    // Warm: what the first connection brings along, such as a receive buffer, is not the second's cost.
    let _first = idle_connection(&appliance)?;
    println!("resident after start: {} KiB", server::memory_bytes(pid, "VmRSS")? / 1024);
    let before = server::memory_bytes(pid, "RssAnon")?;
    let connections = (0..options.connections)
        .map(|_| idle_connection(&appliance))
        .collect::<Result<Vec<_>>>()?;
    let grown = server::memory_bytes(pid, "RssAnon")?.saturating_sub(before);
    println!(
        "idle connection in clear: {} bytes of anonymous memory ({} connections)",
        grown / options.connections,
        connections.len()
    );
    Ok(())
}

/// Greeted, and through with EHLO.
fn idle_connection(appliance: &Appliance) -> Result<TcpStream> {
    let stream = TcpStream::connect(appliance.address())
        .context("cannot connect; more connections take a higher `ulimit -n`")?;
    let mut replies = BufReader::new(&stream);
    let mut line = String::new();
    replies.read_line(&mut line)?;
    ensure!(line.starts_with("220"), "greeted with {line:?}");
    (&stream).write_all(b"EHLO bench.example\r\n")?;
    while line.get(..4) != Some("250 ") {
        line.clear();
        ensure!(replies.read_line(&mut line)? > 0, "closed after EHLO");
    }
    Ok(stream)
}
