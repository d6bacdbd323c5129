//! Servers under load: started on loopback, watched through /proc, ended by their PID.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::wait::wait_for;
use tempfile::TempDir;

use crate::certificate::Certificate;

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
    /// With one listener, for STARTTLS, and the certificate that the daemon makes itself.
    pub(crate) fn start() -> Result<Self> {
        Self::with("")
    }

    /// With this certificate, and a second listener for TLS from the first octet.
    pub(crate) fn with_certificate(certificate: &Certificate) -> Result<Self> {
        Self::with(&format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\n\
             [[tls.certificates]]\nchain = {:?}\nkey = {:?}\n",
            certificate.chain(),
            certificate.key()
        ))
    }

    fn with(further: &str) -> Result<Self> {
        let state = folder_on_disk()?;
        let site = Site::with_config(&format!(
            "hostname = \"mx.test\"\nstate_dir = {:?}\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n{further}[recipients]\ndomains = [\"*\"]\n\
             [delivery]\nkind = \"discard\"\n[limits]\nconnections_per_client_max = 10000\n",
            state.path()
        ))?;
        let daemon = site.start()?;
        Ok(Self { daemon, _site: site, _state: state })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.daemon.smtp("starttls")
    }

    /// The listener for TLS from the first octet.
    pub(crate) fn implicit_address(&self) -> SocketAddr {
        self.daemon.smtp("implicit")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub(crate) fn wait_until_delivered(&self) {
        self.daemon.wait_until_delivered();
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

/// What each thread has spent between two looks, for each of `units`.
pub(crate) fn spent(
    before: &[(String, f64)],
    after: Vec<(String, f64)>,
    units: f64,
) -> Vec<(String, f64)> {
    let spent_before = |name: &str| {
        before.iter().find(|(known, _)| known == name).map_or(0.0, |(_, micros)| *micros)
    };
    let per_unit = after.into_iter().map(|(name, micros)| {
        let spent = (micros - spent_before(&name)) / units;
        (name, spent)
    });
    per_unit.collect()
}

/// The threads that were busy, as text.
pub(crate) fn busy(threads: &[(String, f64)]) -> String {
    let busy = threads.iter().filter(|(_, micros)| *micros >= 0.05);
    busy.map(|(name, micros)| format!("{name} {micros:.1}")).collect::<Vec<_>>().join(", ")
}

fn parse_schedstat(text: &str) -> Result<f64> {
    let nanos: u64 = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
    Ok(nanos as f64 / 1000.0)
}

/// CPU time of all kernel threads whose names begin with one of these, in microseconds, from `schedstat`. 0 of one that ended.
pub(crate) fn cpu_of_kernel_threads(names: &[&str]) -> Result<f64> {
    let mut micros = 0.0;
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // Not a process, or one that has ended since.
        let Ok(name) = fs::read_to_string(process.join("comm")) else { continue };
        if names.iter().any(|known| name.starts_with(known)) {
            micros += parse_schedstat(&fs::read_to_string(process.join("schedstat"))?)?;
        }
    }
    Ok(micros)
}

/// CPU time of this process and of the children that it has waited for, in microseconds, exact to 10 ms.
pub(crate) fn cpu_of_children() -> Result<f64> {
    let stat = parse_stat(&fs::read_to_string("/proc/self/stat")?).context("no /proc/self/stat")?;
    Ok(stat.ticks as f64 * MICROS_PER_TICK)
}

/// What all CPUs were busy with, interrupts included, in microseconds, exact to 10 ms.
pub(crate) fn cpu_of_machine() -> Result<f64> {
    parse_busy(&fs::read_to_string("/proc/stat")?).context("/proc/stat has another form")
}

fn parse_busy(stat: &str) -> Option<f64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    // proc_stat(5): idle and iowait are the fourth and fifth; behind softirq stand steal, which is others', and guest, which is in user.
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else { return None };
    Some((user + nice + system + irq + softirq) as f64 * MICROS_PER_TICK)
}

/// Seconds of CPU of a process, of all that it started and that live, and of all that they have waited for.
///
/// Exact to 10 ms: /proc counts in ticks, but apportions to them what the scheduler has measured.
pub(crate) fn cpu_of_tree(root: u32) -> Result<f64> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let stat = entry?.path().join("stat");
        // Not a process, or one that has ended since: its time is with its parent then.
        if let Ok(text) = fs::read_to_string(stat)
            && let Some(process) = parse_stat(&text)
        {
            processes.push(process);
        }
    }
    let mut tree = vec![root];
    // Grows while it is gone through: the children of each follow.
    let mut at = 0;
    while let Some(parent) = tree.get(at).copied() {
        tree.extend(processes.iter().filter(|process| process.parent == parent).map(|p| p.pid));
        at += 1;
    }
    let ticks: u64 = processes.iter().filter(|p| tree.contains(&p.pid)).map(|p| p.ticks).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// USER_HZ, which is 100 on every system that the daemon runs on.
const TICKS_PER_SECOND: f64 = 100.0;

const MICROS_PER_TICK: f64 = 1e6 / TICKS_PER_SECOND;

/// What /proc/PID/stat says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// Its own and those of the children it has waited for, of user and system.
    ticks: u64,
}

/// `None` of what has another form, as /proc/stat does.
fn parse_stat(text: &str) -> Option<Stat> {
    // The name stands in parentheses and may have any octets, also those.
    let (pid, rest) = text.split_once(" (")?;
    let (_name, fields) = rest.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let times: Vec<u64> = fields.skip(9).take(4).filter_map(|field| field.parse().ok()).collect();
    Some(Stat { pid: pid.parse().ok()?, parent, ticks: times.iter().sum() })
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

pub(crate) fn is_root() -> Result<bool> {
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
        let threads = [("new", 8.0), ("old", 5.0)].map(|(name, micros)| (name.to_owned(), micros));
        let spent = spent(&[("old".to_owned(), 4.9)], threads.into(), 4.0);
        assert_eq!(busy(&spent), "new 2.0");
        // proc_pid_stat(5): the parent is field 4, the times are 14 to 17.
        let stat = "7 (a) b) S 3 7 7 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 99";
        assert_eq!(parse_stat(stat), Some(Stat { pid: 7, parent: 3, ticks: 127 }));
        assert_eq!(parse_stat("cpu  1 2 3"), None);
        assert_eq!(parse_busy("cpu  1 2 3 400 500 6 7 800 9 9\ncpu0 1\n"), Some(190_000.0));
        assert_eq!(parse_busy("cpu  1 2 3\n"), None);
        let status = "Name:\tingress\nVmRSS:\t    9124 kB\nRssAnon:\t    4000 kB\n";
        assert_eq!(parse_memory(status, "VmRSS").unwrap(), 9124 * 1024);
        assert!(parse_memory(status, "VmSwap").is_err());
    }
}
