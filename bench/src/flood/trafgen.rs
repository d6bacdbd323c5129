//! The flood by trafgen (Debian: netsniff-ng), which sends prepared packets from a ring of a packet socket, past the qdiscs.

use std::fmt::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ingress_ebpf::flood::{template, write_syn};
use ingress_tests::netns::{self, Namespace};
use ingress_user::worker::clock::Now;
use rustix::process::{Pid, Signal, kill_process_group};

use super::source::mac;

/// Packets that it sends in turn, each from another port or address.
const PACKETS: u32 = 20_000;

const PORT: u16 = 25;

/// A running trafgen, until it is stopped.
pub(super) struct Trafgen<'n> {
    child: Child,
    namespace: &'n Namespace,
    interface: &'static str,
    began: Instant,
    sent_before: u64,
    /// Goes with it.
    _config: tempfile::NamedTempFile,
}

impl<'n> Trafgen<'n> {
    /// Starts it on the second CPU. `sources`: so many addresses in turn; 0: as many as packets.
    pub(super) fn start(
        namespace: &'n Namespace,
        interface: &'static str,
        neighbour: &str,
        target: std::net::Ipv4Addr,
        sources: u32,
    ) -> Result<Self> {
        let own = counter(namespace, interface, "address")?;
        let macs = [mac(neighbour)?, mac(&own)?];
        let config = tempfile::NamedTempFile::new()?;
        let sources = if sources == 0 { PACKETS } else { sources };
        std::fs::write(&config, packets(macs, target, sources))?;
        let mut command = namespace.command("taskset");
        command.args(["-c", "1", "trafgen", "--dev", interface, "--cpus", "1", "--conf"]);
        command.arg(config.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It forks: the signal that ends it is for all of its processes.
        let child = command.process_group(0).spawn();
        let child = child.context("cannot start trafgen: install netsniff-ng")?;
        let sent_before = sent(namespace, interface)?;
        let began = Now::read().monotonic;
        Ok(Self { child, namespace, interface, began, sent_before, _config: config })
    }

    /// Ends it; packets a second that went out.
    pub(super) fn stop(mut self) -> Result<f64> {
        let packets = sent(self.namespace, self.interface)? - self.sent_before;
        let seconds = (Now::read().monotonic - self.began).as_secs_f64();
        kill_process_group(Pid::from_child(&self.child), Signal::INT)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "trafgen failed: {status}");
        Ok(packets as f64 / seconds)
    }
}

fn sent(namespace: &Namespace, interface: &str) -> Result<u64> {
    Ok(counter(namespace, interface, "statistics/tx_packets")?.trim().parse()?)
}

fn counter(namespace: &Namespace, interface: &str, file: &str) -> Result<String> {
    netns::output(namespace.command("cat").arg(format!("/sys/class/net/{interface}/{file}")))
}

/// In its language: a block of octets for each packet.
fn packets(macs: [[u8; 6]; 2], target: std::net::Ipv4Addr, sources: u32) -> String {
    let mut frame = template(macs, target.into(), PORT);
    let mut text = String::new();
    for number in 0..PACKETS {
        write_syn(&mut frame, number, sources);
        let octets = frame.map(|octet| octet.to_string()).join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{{ {octets} }}");
    }
    text
}
