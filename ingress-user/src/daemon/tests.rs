//! A daemon in this process, since only from here a worker can be killed.

mod wire;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use self::wire::{INTERFACE, SERVER, Wire};
use super::*;
use crate::xdp::Tier;

/// Of the whole test; waited for only when it fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Without steering the kernel's hash gives each worker its share, wherever the client runs.
const CONFIG: &str = r#"
hostname = "mx.example.net"
state_dir = "state"
workers = 2
[[listener]]
address = "127.0.0.1:0"
[recipients]
domains = ["example.net"]
[delivery]
kind = "discard"
[limits]
connections_per_client_max = 1000
[xdp]
steering = "off"
"#;

#[test]
fn who_waits_for_a_worker_that_died_is_served_by_another() {
    if core_affinity::get_core_ids().is_none_or(|cpus| cpus.len() < 2) {
        println!("skipped: it takes two CPUs");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ingress.toml");
    std::fs::write(&file, CONFIG).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let daemon = Daemon::start(Config::load(&file).unwrap(), None, &runtime).unwrap();
    let address = daemon.ready().listeners[0].address;

    // Both workers have some of them, by the kernel's hash.
    let before: Vec<TcpStream> = (0..32).map(|_| greeted(address)).collect();
    daemon.crew.kill_one();
    // Of so many, by the kernel's hash, some come to the dead worker's listener; all are greeted.
    let served: Vec<TcpStream> = (0..32).map(|_| greeted(address)).collect();
    for mut client in served {
        client.write_all(b"QUIT\r\n").unwrap();
        assert!(line(&mut client).starts_with("221 "));
    }
    let open = before.into_iter().filter_map(|mut client| {
        client.write_all(b"NOOP\r\n").ok()?;
        line(&mut client).starts_with("250 ").then_some(client)
    });
    let open: Vec<TcpStream> = open.collect();
    assert!((1..32).contains(&open.len()), "{} of 32 were the other worker's", open.len());
    drop(open);
    daemon.drain(Ending::Stop, &runtime);
    assert!(TcpStream::connect(address).is_err(), "its listeners are closed");
}

/// On a wire, steered by XDP: the dead worker's buckets go to the living one, at the next look of [`look_after`], and nobody who comes
/// meanwhile is lost.
#[test]
fn on_a_wire_connections_for_a_worker_that_died_go_to_the_other() {
    if core_affinity::get_core_ids().is_none_or(|cpus| cpus.len() < 2) || xdp::object().is_none() {
        println!("skipped: it takes two CPUs and the eBPF object");
        return;
    }
    let Some(wire) = Wire::create() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ingress.toml");
    // No BPF file system: nothing is to outlive the test.
    let config = CONFIG
        .replace("workers = 2", "workers = [0, 1]")
        .replace("127.0.0.1:0", &format!("{SERVER}:25"))
        .replace(
            "steering = \"off\"",
            &format!("interfaces = [\"{INTERFACE}\"]\nmode = \"native\""),
        )
        + &format!("pin_dir = \"{}\"\n", folder.path().display());
    std::fs::write(&file, config).unwrap();
    let address = SocketAddr::from((SERVER.parse::<std::net::Ipv4Addr>().unwrap(), 25));
    let greet = || (0..64).map(|_| greeted(address)).collect::<Vec<TcpStream>>();
    std::thread::scope(|scope| {
        let served = Wire::spawn_in(scope, &wire.server, || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let daemon = Daemon::start(Config::load(&file).unwrap(), None, &runtime).unwrap();
            assert_eq!(daemon.data_plane.tier(), Tier::Cpumap);
            let of_client = |work| Wire::spawn_in(scope, &wire.client, work).join().unwrap();
            let before = of_client(greet);
            daemon.crew.kill_one();
            let died = Now::read().monotonic;
            let living = || daemon.data_plane.shares(&[0, 1]).unwrap();
            while living()[0] != 0 {
                assert!(died.elapsed() < DEADLINE, "{:?}", living());
                std::thread::yield_now();
            }
            let after = of_client(greet);
            drop((before, after));
            daemon.drain(Ending::Stop, &runtime);
        });
        served.join().unwrap();
    });
}

fn greeted(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(line(&mut client).starts_with("220 "));
    client
}

/// A line, or nothing where the connection is gone.
fn line(client: &mut TcpStream) -> String {
    let mut line = String::new();
    let _gone = BufReader::new(client).read_line(&mut line);
    line
}
