//! Two network namespaces joined by a veth pair, for suites that need real packets and touch nothing of the host.
//!
//! Needs root, `ip` (iproute2) and `ethtool`; [`missing`] tells which of them is not there.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use ingress_user::xdp;

/// The interface in either namespace; they have the same name, each in its own.
pub const INTERFACE: &str = "mail0";

pub const CLIENT_V4: &str = "10.77.0.1";
pub const SERVER_V4: &str = "10.77.0.2";
pub const CLIENT_V6: &str = "fd00:77::1";
pub const SERVER_V6: &str = "fd00:77::2";

/// Queues in each direction at either end.
const QUEUES: &str = "2";

/// What this machine lacks for [`Pair::create`]: the reason to print with `skipped:`.
pub fn missing() -> Option<&'static str> {
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !is_root {
        return Some("network namespaces need root");
    }
    if output(Command::new("ip").arg("-V")).is_err() {
        return Some("no `ip`: install iproute2");
    }
    if output(Command::new("ethtool").arg("--version")).is_err() {
        return Some("no `ethtool`: install ethtool");
    }
    None
}

/// The namespaces for a test of steering; where there can be none, the reason is printed with `skipped:`.
pub fn pair_for_steering() -> Option<Pair> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    let no_object = xdp::object().is_none().then_some("built without the eBPF object");
    let one_cpu = (cpus < 2).then_some("steering needs two CPUs");
    if let Some(reason) = missing().or(no_object).or(one_cpu) {
        println!("skipped: {reason}");
        return None;
    }
    Some(Pair::create().expect("namespaces"))
}

/// A client's and a server's namespace. Dropping it deletes both, and the veth pair with them.
pub struct Pair {
    pub client: Namespace,
    pub server: Namespace,
}

impl Pair {
    /// # Errors
    /// When one of the commands fails; what was created before is deleted.
    pub fn create() -> Result<Self> {
        let pair =
            Self { client: Namespace::create("client")?, server: Namespace::create("server")? };
        let (client, server) = (pair.client.name.as_str(), pair.server.name.as_str());
        run(Command::new("ip")
            .args(["link", "add", INTERFACE, "netns", client])
            .args(["numrxqueues", QUEUES, "numtxqueues", QUEUES, "type", "veth"])
            .args(["peer", "name", INTERFACE, "netns", server])
            .args(["numrxqueues", QUEUES, "numtxqueues", QUEUES]))?;
        // A frame whose checksum was left to the "hardware" dies when XDP redirects it.
        run(pair.client.command("ethtool").args(["-K", INTERFACE, "tx", "off"]))?;
        pair.client.bring_up(CLIENT_V4, CLIENT_V6)?;
        pair.server.bring_up(SERVER_V4, SERVER_V6)?;
        Ok(pair)
    }
}

pub struct Namespace {
    name: String,
}

impl Namespace {
    fn create(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ingress-{}-{number}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        Ok(Self { name })
    }

    /// As `ip netns` has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside, its `/sys` included.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    fn bring_up(&self, v4: &str, v6: &str) -> Result<()> {
        let ip = |args: &[&str]| run(self.command("ip").args(args));
        ip(&["address", "add", &format!("{v4}/24"), "dev", INTERFACE])?;
        // Without nodad the address is tentative for a second, and nothing can be bound to it.
        ip(&["address", "add", &format!("{v6}/64"), "dev", INTERFACE, "nodad"])?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "set", INTERFACE, "up"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("namespace {} is left behind: {error:#}", self.name);
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Standard output of a command that succeeds.
///
/// # Errors
/// With the command line and its standard error when it does not.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", stderr.trim());
    String::from_utf8(output.stdout).with_context(|| format!("{command:?}: not UTF-8"))
}
