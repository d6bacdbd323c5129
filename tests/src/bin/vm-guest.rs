//! The first process of a guest in the suite `vm`: it makes a small system, runs the daemon across two network cards, and prints
//! one line for each check on the serial console. `vm::CHECKS` are the words that these lines begin with.
//!
//! The server's card stays in the first namespace, the client's moves to one of its own, so that packets really cross the
//! virtual wire. The same program is the client: `init client ..` runs in there. `QUEUES` of the environment, which
//! the kernel takes from its command line, is the number of queues of each card.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::panic;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, init_module, reboot};
use rustix::thread::{CpuSet, sched_setaffinity};

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::netns::{self, CLIENT_V4, CLIENT_V6, INTERFACE, SERVER_V4, SERVER_V6};
use ingress_tests::texts;
use ingress_tests::vm::{MODULES, PASSED, REPORT};

const PORT: u16 = 25;
/// The client's namespace.
const CLIENT: &str = "client";
/// Ends of a VLAN on the wire.
const VLAN_SERVER: &str = "10.78.0.2";
const VLAN_CLIENT: &str = "10.78.0.1";
/// Of either family, in each of the runs that count them.
const CONNECTIONS: u64 = 120;
const CPUS: usize = 2;
/// Some thousand packets, and more than any buffer on the way holds.
const TEXT_BYTES: usize = 4 << 20;

/// In which the answer to a SYN comes on an emulated machine, and in which one that was dropped is sent again twice.
const REFUSED_SECONDS: u64 = 4;
const GREETED_SECONDS: u64 = 30;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["client", "connect", address] => connect(address.parse()?),
        ["client", "greeted", address, seconds] => greeted(address.parse()?, seconds.parse()?),
        ["client", "send", address] => send(address.parse()?),
        [] => init(),
        _ => bail!("arguments {arguments:?}"),
    }
}

/// Ends the machine, whatever comes: the kernel would panic without its first process.
fn init() -> Result<()> {
    // A panic was printed already.
    match panic::catch_unwind(checks) {
        Ok(Ok(())) => println!("{REPORT}{PASSED}"),
        Ok(Err(error)) => println!("{error:?}"),
        Err(_) => {}
    }
    // To qemu's `-no-reboot` this is the end.
    reboot(RebootCommand::Restart)?;
    Ok(())
}

fn checks() -> Result<()> {
    make_system()?;
    let queues = std::env::var("QUEUES").context("QUEUES")?;
    // Queues that are fewer than workers cannot spread connections over them.
    let (steering, tier) = if queues == "1" { ("auto", "cpumap") } else { ("queues", "queues") };
    let site = site(steering)?;
    checked(&site, tier)?;
    let daemon = site.start()?;
    attached(&daemon, tier)?;
    steered(&daemon)?;
    denied(&site, &daemon)?;
    banned(&site, &daemon)?;
    vlan(&site, &daemon)?;
    intact(&site, daemon)?;
    unsteered()
}

/// What a distribution's own boot would do.
fn make_system() -> Result<()> {
    for (kind, folder) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
    ] {
        mount(kind, folder, kind, MountFlags::empty(), None).with_context(|| folder.to_owned())?;
    }
    let order = Path::new(MODULES).join("order");
    for name in fs::read_to_string(&order).context("the order of the modules")?.lines() {
        let image = fs::read(Path::new(MODULES).join(name)).with_context(|| name.to_owned())?;
        init_module(&image, c"").with_context(|| format!("module {name}"))?;
    }
    for arguments in [
        "link set lo up".to_owned(),
        format!("netns add {CLIENT}"),
        format!("link set eth1 netns {CLIENT}"),
        format!("link set eth0 name {INTERFACE}"),
        format!("address add {SERVER_V4}/24 dev {INTERFACE}"),
        // Without nodad the address is tentative for a second, and nothing can be bound to it.
        format!("address add {SERVER_V6}/64 dev {INTERFACE} nodad"),
        format!("link set {INTERFACE} up"),
        format!("-netns {CLIENT} address add {CLIENT_V4}/24 dev eth1"),
        format!("-netns {CLIENT} address add {CLIENT_V6}/64 dev eth1 nodad"),
        format!("-netns {CLIENT} link set eth1 up"),
    ] {
        ip(&arguments)?;
    }
    Ok(())
}

fn ip(arguments: &str) -> Result<String> {
    netns::output(Command::new("/bin/ip").args(arguments.split(' ')))
}

/// With all that the verifier may ever see.
fn site(steering: &str) -> Result<Site> {
    let site = Site::with_config(&format!(
        "hostname = \"mx.test\"\nstate_dir = \"state\"\nworkers = [0, 1]\n\
         [[listener]]\naddress = \"0.0.0.0:{PORT}\"\n[[listener]]\naddress = \"[::]:{PORT}\"\n\
         [recipients]\ndomains = [\"*\"]\n[delivery]\nkind = \"maildir\"\npath = \"maildir\"\n\
         [xdp]\ninterfaces = [\"{INTERFACE}\"]\nmode = \"native\"\nsteering = \"{steering}\"\n\
         [xdp.filter]\ndeny_files = [\"deny.txt\"]\nsyn_cookies = true\n"
    ))?;
    fs::write(site.folder().join("deny.txt"), "")?;
    Ok(site)
}

/// The verifier took the programs, and the driver the native one.
fn attached(daemon: &Daemon, tier: &str) -> Result<()> {
    let status = daemon.status()?;
    assert_eq!(status["steering"]["tier"], tier, "{status:#}");
    assert_eq!(status["xdp"]["interfaces"][0]["mode"], "native", "{status:#}");
    println!("{REPORT}tier {tier}, native");
    Ok(())
}

/// Every connection has all of its work on one CPU, and both CPUs have work.
fn steered(daemon: &Daemon) -> Result<()> {
    let (local, workers) = serve(daemon)?;
    let all = workers[0] + workers[1];
    println!("{REPORT}steered: {local} of {all} local, workers {workers:?}");
    assert!(local * 100 >= all * 99, "{:#}", daemon.status()?);
    // A hash deals them out: fairly, a worker has fewer than this once in a hundred million runs.
    assert!(workers.iter().all(|&connections| connections >= all / 4), "{workers:?}");
    Ok(())
}

/// The control: without steering, locality is not there by itself.
fn unsteered() -> Result<()> {
    let site = site("off")?;
    let daemon = site.start()?;
    let (local, workers) = serve(&daemon)?;
    let all = workers[0] + workers[1];
    println!("{REPORT}unsteered: {local} of {all} local");
    assert!((all / 4..=all * 3 / 4).contains(&local), "{:#}", daemon.status()?);
    texts::stop(daemon);
    Ok(())
}

/// Connections accepted on the CPU of their worker, and those of each worker.
fn serve(daemon: &Daemon) -> Result<(u64, [u64; 2])> {
    for address in [SERVER_V4, SERVER_V6] {
        netns::output(&mut client(&["connect", address]))?;
    }
    let workers = [
        daemon.count("/workers/0/connections_total")?,
        daemon.count("/workers/1/connections_total")?,
    ];
    assert_eq!(workers[0] + workers[1], 2 * CONNECTIONS, "{:#}", daemon.status()?);
    Ok((daemon.count("/steering/local")?, workers))
}

/// `ingress xdp check` foretells what the daemon will find.
fn checked(site: &Site, tier: &str) -> Result<()> {
    let output = site.command_after("xdp", &["check"])?;
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && report.contains(tier), "{output:?}");
    let result = report.lines().last().unwrap_or_default();
    println!("{REPORT}checked: {result}");
    Ok(())
}

/// A ban by the operator drops packets of the client it names and of nobody else; lifted, that one is served again.
fn banned(site: &Site, daemon: &Daemon) -> Result<()> {
    let ban = |verb| {
        let output = site.command_after("ban", &[verb, CLIENT_V4])?;
        ensure!(output.status.success(), "ban {verb}: {output:?}");
        Ok(())
    };
    ban("add")?;
    assert!(!is_greeted(SERVER_V4, REFUSED_SECONDS)?, "the banned client was greeted");
    assert!(is_greeted(SERVER_V6, GREETED_SECONDS)?, "a client not banned was not greeted");
    let dropped = daemon.count("/xdp/verdicts/banned")?;
    assert!(dropped > 0, "{:#}", daemon.status()?);
    println!("{REPORT}banned: {dropped} packets dropped");
    ban("del")?;
    assert!(is_greeted(SERVER_V4, GREETED_SECONDS)?, "the client is silenced still");
    println!("{REPORT}served again");
    Ok(())
}

/// A deny list silences the client it names and nobody else; emptied, that one is served again.
fn denied(site: &Site, daemon: &Daemon) -> Result<()> {
    deny(site, CLIENT_V4, "networks in force: 1\n")?;
    assert!(!is_greeted(SERVER_V4, REFUSED_SECONDS)?, "the denied client was greeted");
    assert!(is_greeted(SERVER_V6, GREETED_SECONDS)?, "a client not denied was not greeted");
    let dropped = daemon.count("/xdp/verdicts/denied")?;
    assert!(dropped > 0, "{:#}", daemon.status()?);
    println!("{REPORT}denied: {dropped} packets dropped");
    deny(site, "", "networks in force: 0\n")?;
    assert!(is_greeted(SERVER_V4, GREETED_SECONDS)?, "the client is silenced still");
    Ok(())
}

fn deny(site: &Site, networks: &str, answer: &str) -> Result<()> {
    fs::write(site.folder().join("deny.txt"), networks)?;
    let output = site.command_after("xdp", &["reload"])?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), answer, "{output:?}");
    Ok(())
}

/// Mail by a VLAN on the wire comes in, and is filtered.
fn vlan(site: &Site, daemon: &Daemon) -> Result<()> {
    for arguments in [
        format!("link add link {INTERFACE} name vlan7 type vlan id 7"),
        format!("address add {VLAN_SERVER}/24 dev vlan7"),
        "link set vlan7 up".to_owned(),
        format!("-netns {CLIENT} link add link eth1 name vlan7 type vlan id 7"),
        format!("-netns {CLIENT} address add {VLAN_CLIENT}/24 dev vlan7"),
        format!("-netns {CLIENT} link set vlan7 up"),
    ] {
        ip(&arguments)?;
    }
    assert!(is_greeted(VLAN_SERVER, GREETED_SECONDS)?, "the client on the VLAN was not greeted");
    deny(site, VLAN_CLIENT, "networks in force: 1\n")?;
    let before = daemon.count("/xdp/verdicts/denied")?;
    assert!(!is_greeted(VLAN_SERVER, REFUSED_SECONDS)?, "the denied client was greeted");
    let dropped = daemon.count("/xdp/verdicts/denied")? - before;
    assert!(dropped > 0, "{:#}", daemon.status()?);
    deny(site, "", "networks in force: 0\n")?;
    println!("{REPORT}vlan: served, and {dropped} packets dropped");
    Ok(())
}

/// A message of thousands of packets arrives as it was sent, and the program goes when the daemon ends.
fn intact(site: &Site, daemon: Daemon) -> Result<()> {
    netns::output(&mut client(&["send", SERVER_V4]))?;
    texts::assert_delivered(site, daemon, &[texts::text_of_size(TEXT_BYTES)], "ESMTP");
    println!("{REPORT}intact: {} MiB", TEXT_BYTES >> 20);
    let details = ip(&format!("-details link show dev {INTERFACE}"))?;
    assert!(!details.contains("prog/xdp"), "{details}");
    println!("{REPORT}detached");
    Ok(())
}

/// This program again, in the other namespace.
fn client(arguments: &[&str]) -> Command {
    let mut command = Command::new("/bin/ip");
    command.args(["netns", "exec", CLIENT, "/init", "client"]).args(arguments);
    command
}

fn is_greeted(address: &str, seconds: u64) -> Result<bool> {
    let output = netns::output(&mut client(&["greeted", address, &seconds.to_string()]))?;
    Ok(output == "greeted\n")
}

/// Changes its CPU in mid-connection: else the kernel's own ways keep a connection local that nobody steers.
fn connect(address: IpAddr) -> Result<()> {
    for number in 0..CONNECTIONS as usize {
        pin(number % CPUS)?;
        let mut client = Client::connect(SocketAddr::new(address, PORT));
        client.expect("220 ");
        pin((number + 1) % CPUS)?;
        client.command("EHLO client.test", "250");
        client.quit();
    }
    Ok(())
}

fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("CPU {cpu}"))
}

fn greeted(address: IpAddr, seconds: u64) -> Result<()> {
    let timeout = Duration::from_secs(seconds);
    let Ok(stream) = TcpStream::connect_timeout(&SocketAddr::new(address, PORT), timeout) else {
        println!("silence");
        return Ok(());
    };
    stream.set_read_timeout(Some(timeout))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    println!("{}", if line.starts_with("220 ") { "greeted" } else { "no greeting" });
    Ok(())
}

fn send(address: IpAddr) -> Result<()> {
    let mut client = Client::hello(SocketAddr::new(address, PORT));
    client.message(&texts::text_of_size(TEXT_BYTES));
    client.quit();
    Ok(())
}
