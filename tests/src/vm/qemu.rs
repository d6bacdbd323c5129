//! The machine around a guest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use ingress_user::worker::clock::Now;

const PROGRAM: &str = "qemu-system-x86_64";

/// Of a boot with all its checks, which need a sixth of it on a machine that does nothing else.
const SECONDS_MAX: &str = "180";
/// What `timeout` exits with when it had to end the program.
const TIMED_OUT: i32 = 124;

const CPUS: usize = 2;
/// Lines of the console that a failure shows.
const TAIL_LINES: usize = 60;

/// What joins the two network cards of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Inside qemu: anybody may, and a card has one queue.
    Hub,
    /// A bridge between two taps, in a network namespace of its own, which takes root: as many queues as CPUs.
    Taps,
}

impl Wire {
    /// Why this machine cannot have it.
    pub fn missing(self) -> Option<&'static str> {
        let unshare = || Command::new("unshare").args(["--net", "true"]).output();
        let may_unshare = || unshare().is_ok_and(|output| output.status.success());
        match self {
            Self::Hub => None,
            Self::Taps if !Path::new("/dev/net/tun").exists() => Some("no /dev/net/tun"),
            Self::Taps => (!may_unshare()).then_some("a network namespace needs root"),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => write!(f, "1 queue"),
            Self::Taps => write!(f, "{CPUS} queues"),
        }
    }
}

/// How a guest ended.
pub(super) struct Ended {
    pub(super) console: String,
    pub(super) took: Duration,
}

impl Ended {
    /// The last that the guest said.
    pub(super) fn tail(&self) -> String {
        let lines: Vec<&str> = self.console.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("the console ended with\n{}\n", tail.join("\n"))
    }
}

/// Boots and waits for the end, which comes in any case.
///
/// # Errors
/// When qemu does not start, or the guest was stuck.
pub(super) fn run(kernel: &Path, initramfs: &Path, wire: Wire) -> Result<Ended> {
    let began = Now::read().monotonic;
    // It signals all that it started, also when nobody waits for it any more.
    let mut command = Command::new("timeout");
    command.args(["--kill-after", "5", SECONDS_MAX]);
    if wire == Wire::Taps {
        command.args(["unshare", "--net", "sh", "-ec", TAPS, "sh"]);
    }
    command.arg(program()?).args(machine());
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    command.args(["-append", &kernel_line(wire)]);
    command.args(cards(wire));
    let output = command.stdin(Stdio::null()).output().context("timeout")?;
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    let ended = Ended { console, took: Now::read().monotonic - began };
    if output.status.code() == Some(TIMED_OUT) {
        bail!("the guest was stuck for {SECONDS_MAX} s; {}", ended.tail());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "qemu: {}: {said}; {}", output.status, ended.tail());
    Ok(ended)
}

/// The machine's own, or the one that `cargo xtask` unpacked where a package of its own could not be installed.
fn program() -> Result<PathBuf> {
    let unpacked = super::folder().join("qemu/usr/bin").join(PROGRAM);
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    let found = Command::new(PROGRAM).arg("--version").output();
    ensure!(found.is_ok(), "no {PROGRAM}: install qemu-system-x86");
    Ok(PROGRAM.into())
}

/// Two taps with several queues in a bridge; then this becomes qemu.
const TAPS: &str = "
ip link add mail type bridge mcast_snooping 0
for tap in a b; do
    ip tuntap add dev $tap mode tap multi_queue
    ip link set dev $tap master mail
    ip link set dev $tap up
done
ip link set dev mail up
exec \"$@\"
";

/// An emulated processor: what this one lends to a guest may not be lent on.
fn machine() -> impl Iterator<Item = &'static str> {
    const CPUS_TEXT: &str = "2";
    const _: () = assert!(CPUS == 2);
    let words = [
        ["-machine", "pc"],
        ["-accel", "tcg,thread=multi"],
        ["-cpu", "max"],
        ["-smp", CPUS_TEXT],
        ["-m", "512"],
        ["-display", "none"],
        ["-serial", "stdio"],
    ];
    ["-nodefaults", "-no-reboot"].into_iter().chain(words.into_iter().flatten())
}

fn kernel_line(wire: Wire) -> String {
    let queues = if wire == Wire::Hub { 1 } else { CPUS };
    // The last two are nothing to the kernel, which puts them into the environment of the first process.
    format!("console=ttyS0 quiet panic=-1 QUEUES={queues} INGRESS_BIN=/bin/ingress")
}

/// The server's card, then the client's. Without a boot ROM, which the unpacked qemu does not have.
fn cards(wire: Wire) -> Vec<String> {
    let mut words = Vec::new();
    for (name, address) in [("a", "52:54:00:00:00:01"), ("b", "52:54:00:00:00:02")] {
        let backend = match wire {
            Wire::Hub => format!("hubport,id={name},hubid=0"),
            Wire::Taps => format!(
                "tap,id={name},ifname={name},script=no,downscript=no,vhost=off,queues={CPUS}"
            ),
        };
        // An interrupt for each queue in each direction, one for changes of settings, one for control.
        let queues = match wire {
            Wire::Hub => String::new(),
            Wire::Taps => format!(",mq=on,vectors={}", 2 * CPUS + 2),
        };
        let card = format!("virtio-net-pci,netdev={name},mac={address},romfile={queues}");
        words.extend(["-netdev".to_owned(), backend, "-device".to_owned(), card]);
    }
    words
}
