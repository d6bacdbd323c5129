//! Measurements. Figures of one run stand side by side: machines differ and drift, ratios within a run hold.

mod certificate;
mod core;
mod flood;
mod memory;
mod server;
mod sink;
mod spool;
mod statistics;
mod steering;
mod tls;
mod xdp;

use std::process::ExitCode;

use clap::Parser;

/// Measures the release daemon (`INGRESS_BIN`, else beside this program)
#[derive(Debug, Parser)]
#[command(name = "bench")]
enum Measurement {
    /// The protocol core alone: a transaction, and scanning for the end of a message
    Core(core::Options),
    /// CPU per accepted, durable message, against smtp-sink throwing it away
    Sink(sink::Options),
    /// Resident memory after start, and what an idle connection costs, in clear and under TLS
    Memory(memory::Options),
    /// Throughput of the spool writer, and how long a start with a backlog takes
    Spool(spool::Options),
    /// TLS handshakes and large messages, against Postfix's smtpd and `openssl s_server`
    Tls(tls::Options),
    /// What a packet costs in the XDP program; needs root
    Xdp(xdp::Options),
    /// Messages a second while a SYN flood runs, with the XDP filter and without; needs root
    Flood(flood::Options),
    /// CPU per message with steering by XDP and without, across namespaces; needs root
    Steering(steering::Options),
    /// The flood of that measurement
    #[command(hide = true)]
    FloodSource(flood::SourceOptions),
}

fn main() -> ExitCode {
    let result = match Measurement::parse() {
        Measurement::Core(options) => core::run(&options),
        Measurement::Sink(options) => sink::run(&options),
        Measurement::Memory(options) => memory::run(&options),
        Measurement::Spool(options) => spool::run(&options),
        Measurement::Tls(options) => tls::run(&options),
        Measurement::Xdp(options) => xdp::run(&options),
        Measurement::Flood(options) => flood::run(&options),
        Measurement::Steering(options) => steering::run(&options),
        Measurement::FloodSource(options) => flood::run_source(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
