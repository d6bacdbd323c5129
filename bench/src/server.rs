//! Servers under load: started on loopback, watched through /proc, ended by their PID.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::wait::wait_for;
use tempfile::TempDir;

/// From the start of a server to its first accepted connection.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Debian's smtp-sink: it reads mail and throws it away, and so is the least that receiving mail can cost a C program.
pub(crate) struct SmtpSink {
    child: Child,
    address: SocketAddr,
}

impl SmtpSink {
    pub(crate) fn start() -> Result<Self> {
        // It cannot be asked for a free port, so one that was free a moment ago is named.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("smtp-sink");
        if is_root()? {
            command.args(["-u", "root"]);
        }
        let child =
            command.args([&address.to_string(), "1000"]).stdin(Stdio::null()).spawn().context(
                "cannot start smtp-sink: apt-get install --no-install-recommends postfix",
            )?;
        let sink = Self { child, address };
        wait_for("smtp-sink", START_TIMEOUT, || TcpStream::connect(address).is_ok());
        Ok(sink)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The daemon with a durable spool on the disk that the build is on, delivering into nothing.
pub(crate) struct Appliance {
    daemon: Daemon,
    _site: Site,
    _state: TempDir,
}

impl Appliance {
    pub(crate) fn start() -> Result<Self> {
        let state = folder_on_disk()?;
        let site = Site::with_config(&format!(
            "hostname = \"mx.test\"\nstate_dir = {:?}\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n[recipients]\ndomains = [\"*\"]\n\
             [delivery]\nkind = \"discard\"\n[limits]\nconnections_per_client_max = 10000\n",
            state.path()
        ))?;
        let daemon = site.start()?;
        Ok(Self { daemon, _site: site, _state: state })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.daemon.smtp("starttls")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub(crate) fn accepted(&self) -> Result<u64> {
        self.daemon.count("/messages/accepted")
    }
}

/// CPU time of all living threads of a process, by thread name, in microseconds.
///
/// From `schedstat`, in nanoseconds: `stat` counts ticks of 10 ms. A thread that ended takes its time with it; within a
/// round none of the servers ends one.
pub(crate) fn cpu_by_thread(pid: u32) -> Result<Vec<(String, f64)>> {
    let mut threads: Vec<(String, f64)> = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
        let micros = parse_schedstat(&fs::read_to_string(task.join("schedstat"))?)?;
        match threads.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += micros,
            None => threads.push((name, micros)),
        }
    }
    Ok(threads)
}

fn parse_schedstat(text: &str) -> Result<f64> {
    let nanos: u64 = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
    Ok(nanos as f64 / 1000.0)
}

/// A field of /proc/PID/status that is in kB, in bytes.
pub(crate) fn memory_bytes(pid: u32, field: &str) -> Result<u64> {
    parse_memory(&fs::read_to_string(format!("/proc/{pid}/status"))?, field)
}

fn parse_memory(status: &str, field: &str) -> Result<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .with_context(|| format!("no {field} in /proc/PID/status"))?;
    let kib: u64 = value.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

fn is_root() -> Result<bool> {
    let user = Command::new("id").arg("-u").output()?;
    ensure!(user.status.success(), "id -u: {}", user.status);
    Ok(user.stdout.trim_ascii() == b"0")
}

/// A new folder beside the daemon. Not where temporary files are: that may be memory, and an fsync there costs nothing.
pub(crate) fn folder_on_disk() -> Result<TempDir> {
    let bin = ingress_tests::bin();
    let parent = bin.parent().context("the daemon's file has no folder")?;
    let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(parent).output()?;
    ensure!(kind.stdout.trim_ascii() != b"tmpfs", "{} is in memory, not on disk", parent.display());
    Ok(TempDir::with_prefix_in("bench-", parent)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_texts_are_read() {
        assert_eq!(parse_schedstat("1234567 89 10\n").unwrap(), 1234.567);
        assert!(parse_schedstat("").is_err());
        let status = "Name:\tingress\nVmRSS:\t    9124 kB\nRssAnon:\t    4000 kB\n";
        assert_eq!(parse_memory(status, "VmRSS").unwrap(), 9124 * 1024);
        assert!(parse_memory(status, "VmSwap").is_err());
    }
}
