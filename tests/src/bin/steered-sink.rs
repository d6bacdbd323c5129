//! The data plane and its listeners without the mail: what suites run inside a network namespace.
//!
//! `steered-sink serve MODE STEERING ADDRESS CPU..` attaches to [`netns::INTERFACE`] and accepts on one listener for
//! each CPU. It prints `ready TIER`, and for every line on its standard input one line of counts; it ends with the
//! input. `steered-sink connect ADDRESS COUNT` opens connections one after another and waits for the greeting on each.

use std::env;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, SockRef, Socket, Type};

use ingress_tests::netns;
use ingress_user::config::{SteeringMode, XdpConfig, XdpMode};
use ingress_user::nic::Survey;
use ingress_user::xdp::{DataPlane, InterfaceTelemetry, Tier};

const GREETING: &[u8] = b"220 mx.example.net\r\n";

/// Accepted connections of one listener.
struct Accepted {
    cpu: usize,
    /// Those that came in on the listener's CPU.
    local: AtomicU64,
    /// Those that came in on another.
    remote: AtomicU64,
}

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", mode, steering, address, ref cpus @ ..] => serve(mode, steering, address, cpus),
        ["connect", address, count] => connect(address.parse()?, count.parse()?),
        _ => bail!("serve MODE STEERING ADDRESS CPU.. | connect ADDRESS COUNT"),
    }
}

fn serve(mode: &str, steering: &str, address: &str, cpus: &[&str]) -> Result<()> {
    let config = XdpConfig {
        interfaces: vec![netns::INTERFACE.into()],
        mode: parse_mode(mode)?,
        steering: parse_steering(steering)?,
        // It gives no sign of life but the first, and no test is longer.
        heartbeat_timeout: Duration::from_secs(3_600),
        ..XdpConfig::default()
    };
    let address: SocketAddr = address.parse()?;
    let cpus: Vec<usize> = cpus.iter().map(|cpu| cpu.parse()).collect::<Result<_, _>>()?;
    let mut plane = DataPlane::start(&config, &cpus, &[address.port()], &Survey::default())?;
    let listeners = listen(address, &cpus, plane.tier())?;
    let group: Vec<_> = listeners.iter().map(|(cpu, listener)| (*cpu, listener)).collect();
    plane.attach_listeners(&group)?;

    let new = |(cpu, _): &(usize, _)| Accepted { cpu: *cpu, local: 0.into(), remote: 0.into() };
    let accepted: Vec<_> = listeners.iter().map(new).collect();
    println!("ready {}", plane.tier().name());
    std::thread::scope(|scope| -> Result<()> {
        for ((_, listener), accepted) in listeners.iter().zip(&accepted) {
            scope.spawn(|| accept_all(listener, accepted));
        }
        for line in io::stdin().lock().lines() {
            line?;
            report(&accepted, &plane.telemetry());
        }
        // The accepting threads have no other end.
        drop(plane);
        std::process::exit(0)
    })
}

fn listen(address: SocketAddr, cpus: &[usize], tier: Tier) -> Result<Vec<(usize, TcpListener)>> {
    let listener = |cpu: usize| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        if tier == Tier::IncomingCpu {
            socket.set_cpu_affinity(cpu)?;
        }
        socket.bind(&address.into())?;
        socket.listen(1_024)?;
        Ok((cpu, socket.into()))
    };
    cpus.iter().map(|cpu| listener(*cpu)).collect()
}

fn accept_all(listener: &TcpListener, accepted: &Accepted) {
    for stream in listener.incoming() {
        let greeted = stream.and_then(|mut stream| {
            let came_in_on = SockRef::from(&stream).cpu_affinity()?;
            let local = came_in_on == accepted.cpu;
            let counter = if local { &accepted.local } else { &accepted.remote };
            counter.fetch_add(1, Ordering::Relaxed);
            stream.write_all(GREETING)
        });
        if let Err(error) = greeted {
            eprintln!("listener of CPU {}: {error}", accepted.cpu);
        }
    }
}

/// `localCPU N remoteCPU N .. VERDICT N ..`: for each listener, then for the interface if it is attached.
fn report(accepted: &[Accepted], interfaces: &[InterfaceTelemetry]) {
    let mut words = Vec::new();
    for Accepted { cpu, local, remote } in accepted {
        words.push(format!("local{cpu} {}", local.load(Ordering::Relaxed)));
        words.push(format!("remote{cpu} {}", remote.load(Ordering::Relaxed)));
    }
    for (name, packets) in interfaces.iter().flat_map(|interface| &interface.verdicts) {
        words.push(format!("{name} {packets}"));
    }
    println!("{}", words.join(" "));
}

fn connect(address: SocketAddr, count: usize) -> Result<()> {
    for number in 0..count {
        let mut stream = TcpStream::connect(address)?;
        let mut greeting = vec![0; GREETING.len()];
        stream
            .read_exact(&mut greeting)
            .with_context(|| format!("connection {number} got no greeting"))?;
    }
    Ok(())
}

fn parse_mode(name: &str) -> Result<XdpMode> {
    Ok(match name {
        "off" => XdpMode::Off,
        "auto" => XdpMode::Auto,
        "native" => XdpMode::Native,
        "generic" => XdpMode::Generic,
        _ => bail!("no XDP mode `{name}`"),
    })
}

fn parse_steering(name: &str) -> Result<SteeringMode> {
    Ok(match name {
        "auto" => SteeringMode::Auto,
        "queues" => SteeringMode::Queues,
        "cpumap" => SteeringMode::Cpumap,
        "off" => SteeringMode::Off,
        _ => bail!("no steering `{name}`"),
    })
}
