//! The data plane and its listeners without the mail: what suites run inside a network namespace.
//!
//! `steered-sink serve MODE STEERING ADDRESS CPU..` attaches to [`netns::INTERFACE`] and accepts on one listener for
//! each CPU. It prints `ready TIER`, and for every empty line on its standard input one line of counts; after `give FROM TO BUCKETS`
//! it moves buckets between CPUs. It ends with the input. To every line of a client it says whether the connection still comes in
//! on the CPU that it was accepted on.
//!
//! `steered-sink connect ADDRESS COUNT` opens connections one after another and waits for the greeting on each. `steered-sink hold
//! ADDRESS` keeps them open: `open COUNT` on its standard input opens so many more, `ask` counts what all are told.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, SockRef, Socket, Type};

use ingress_tests::netns;
use ingress_user::config::{SteeringMode, XdpConfig, XdpMode};
use ingress_user::nic::Survey;
use ingress_user::xdp::{InterfaceTelemetry, PreparedDataPlane, Tier};

const GREETING: &[u8] = b"220 mx.example.net\r\n";

/// What a client is told of its connection.
const KEPT: &str = "kept\n";
const STRAYED: &str = "strayed\n";

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
        ["connect", address, count] => connect(address.parse()?, count.parse()?).map(drop),
        ["hold", address] => hold(address.parse()?),
        _ => bail!("serve MODE STEERING ADDRESS CPU.. | connect ADDRESS COUNT | hold ADDRESS"),
    }
}

fn serve(mode: &str, steering: &str, address: &str, cpus: &[&str]) -> Result<()> {
    let config = XdpConfig {
        interfaces: vec![netns::INTERFACE.into()],
        mode: parse_mode(mode)?,
        steering: parse_steering(steering)?,
        // No BPF file system: nothing is to outlive the test.
        pin_dir: env::temp_dir(),
        // It gives no sign of life but the first, and no test is longer.
        heartbeat_timeout: Duration::from_secs(3_600),
        ..XdpConfig::default()
    };
    let address: SocketAddr = address.parse()?;
    let cpus: Vec<usize> = cpus.iter().map(|cpu| cpu.parse()).collect::<Result<_, _>>()?;
    let survey = Survey::default();
    let state = env::temp_dir();
    let prepared = PreparedDataPlane::load(&config, &cpus, &[address.port()], &survey, &state)?;
    let plane = prepared.attach()?;
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
            match line?.split(' ').collect::<Vec<_>>()[..] {
                ["give", from, to, buckets] => {
                    let given = plane.give(from.parse()?, to.parse()?, buckets.parse()?);
                    println!("given {given}");
                }
                _ => report(&accepted, &plane.telemetry()),
            }
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
            stream.write_all(GREETING)?;
            // It ends with the connection.
            std::thread::spawn(move || answer(&stream, came_in_on));
            Ok(())
        });
        if let Err(error) = greeted {
            eprintln!("listener of CPU {}: {error}", accepted.cpu);
        }
    }
}

/// Tells for each line on which CPU it came, until the client has gone.
fn answer(mut stream: &TcpStream, accepted_on: usize) {
    let lines = BufReader::new(stream).lines();
    for _line in lines.map_while(Result::ok) {
        let stays = SockRef::from(stream).cpu_affinity().is_ok_and(|cpu| cpu == accepted_on);
        let told = if stays { KEPT } else { STRAYED };
        if stream.write_all(told.as_bytes()).is_err() {
            return;
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

fn connect(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let connection = |number| {
        let mut stream = TcpStream::connect(address)?;
        let mut greeting = vec![0; GREETING.len()];
        stream
            .read_exact(&mut greeting)
            .with_context(|| format!("connection {number} got no greeting"))?;
        Ok(stream)
    };
    (0..count).map(connection).collect()
}

fn hold(address: SocketAddr) -> Result<()> {
    let mut open = Vec::new();
    for line in io::stdin().lock().lines() {
        match line?.split_once(' ') {
            Some(("open", count)) => {
                open.extend(connect(address, count.parse()?)?);
                println!("opened {count}");
            }
            _ => {
                let told = open.iter().map(ask).collect::<Result<Vec<_>>>()?;
                let count = |word| told.iter().filter(|told| *told == word).count();
                println!("kept {} strayed {}", count(KEPT), count(STRAYED));
            }
        }
    }
    Ok(())
}

fn ask(mut stream: &TcpStream) -> Result<String> {
    stream.write_all(b"\n")?;
    let mut told = String::new();
    BufReader::new(stream).read_line(&mut told)?;
    Ok(told)
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
