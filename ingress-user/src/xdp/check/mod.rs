//! Whether XDP will work here, told before a daemon runs: nothing is attached.
//!
//! - [`check()`]: asks the kernel, loads the program once for trial, and judges
//! - `host`: kernel, permissions, features; `interface`: driver, frames, queues. Both are pure, on facts that tests make up

mod host;
mod interface;

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::{fs, io};

use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::cookies::{self, Making};
use super::error::{XdpError, program_name};
use super::lists::ListFile;
use super::load::{self, Prefilter, Redirection, Setup};
use super::object::object;
use super::pins::{self, PinError};
use super::steering::{self, Plan, Tier};
use crate::config::{XdpConfig, XdpMode};
use crate::nic::{self, Machine, Nic};

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// With the interfaces to look at.
    pub xdp: &'a XdpConfig,
    /// CPUs that will have a worker, never empty.
    pub workers: &'a [usize],
    pub ports: &'a [u16],
}

/// All that was found out, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// The tier of steering that results; none where the daemon will not start.
    pub tier: Option<&'static str>,
    /// Why it is this one: a sentence.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: &'static str,
    /// None where it is about the host.
    pub interface: Option<String>,
    pub state: State,
    pub text: String,
    /// What to do.
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It may be in the way, or costs something.
    Warn,
    /// It is in the way.
    Fail,
}

impl Finding {
    fn new(name: &'static str, state: State, text: impl Into<String>) -> Self {
        Self { name, interface: None, state, text: text.into(), remedy: None }
    }

    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, State::Ok, text)
    }

    fn warn(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(name, State::Warn, text) }
    }

    fn fail(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(name, State::Fail, text) }
    }

    fn on(self, interface: &str) -> Self {
        Self { interface: Some(interface.to_owned()), ..self }
    }
}

/// The tier of `config` where nothing fails.
pub fn expected_tier(config: &XdpConfig, queues_fit: bool) -> Tier {
    steering::plan(config, queues_fit).tier
}

/// Asks every question of a daemon that attaches to the interfaces of `subject`.
pub async fn check(subject: &Subject<'_>) -> Report {
    let machine = Machine::this();
    let mut nics = Vec::with_capacity(subject.xdp.interfaces.len());
    for name in &subject.xdp.interfaces {
        nics.push((name, Nic::read(&machine, name).await));
    }
    let fits = |nic: &Nic| nic::each_worker_has_a_queue(nic, subject.workers);
    let queues_fit = nics.iter().all(|(_, nic)| nic.as_ref().is_ok_and(fits));
    let plan = steering::plan(subject.xdp, queues_fit);
    let mut findings = host::findings(&host::Facts::read(&machine));
    let mut indexes = Vec::new();
    for (name, nic) in nics {
        let found = match nic {
            Ok(nic) => {
                indexes.push(nic.index);
                let program = nic.xdp.and_then(|program| program_name(program.id));
                interface::findings(&nic, program.as_deref(), plan.tier, subject)
            }
            Err(error) => vec![Finding::new("interface", State::Fail, error.to_string())],
        };
        findings.extend(found.into_iter().map(|finding| finding.on(name)));
    }
    if subject.xdp.filter.sends_cookies() {
        findings.push(cookies(Making::read(&machine)));
    }
    findings.push(pins(&subject.xdp.pin_dir));
    findings.extend(subject.xdp.filter.deny_files.iter().map(|file| list(file)));
    findings.push(trial(subject, plan.tier, &indexes));
    if plan.tier.selects_worker() {
        findings.push(listener_trial(subject.workers));
    }
    let (tier, reason) = result(subject.xdp, plan, &findings);
    Report { findings, tier: tier.map(Tier::name), reason }
}

/// Whether a restart can keep the filter in place.
fn pins(pin_dir: &Path) -> Finding {
    let shown = pin_dir.display();
    match pins::are_possible(pin_dir) {
        Ok(()) => Finding::ok("pins", format!("{shown} is on a BPF file system")),
        Err(PinError::NotBpf(_)) => Finding::warn(
            "pins",
            format!("{shown} is not on a BPF file system: a restart attaches the filter anew"),
            "mount -t bpf bpf /sys/fs/bpf, or set `xdp.pin_dir`",
        ),
        Err(PinError::Io { source, .. }) => Finding::warn(
            "pins",
            format!("{shown}: {source}: a restart attaches the filter anew"),
            "set `xdp.pin_dir` to a folder on a BPF file system",
        ),
    }
}

fn cookies(making: Making) -> Finding {
    match making {
        Making::Never => Finding::warn("cookies", cookies::NEVER, cookies::REMEDY),
        Making::WhenFull => {
            Finding::ok("cookies", "the kernel makes them while the queue of a listener is full")
        }
        Making::Always => Finding::ok("cookies", "the kernel makes them for every SYN"),
    }
}

/// Whether every line of a file of networks is one.
fn list(file: &Path) -> Finding {
    let shown = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let remedy = "correct `xdp.filter.deny_files`";
            return Finding::fail("list", format!("cannot read {shown}: {error}"), remedy);
        }
    };
    let ListFile { networks, bad_lines } = ListFile::parse(&text);
    match bad_lines.first() {
        None => Finding::ok("list", format!("{shown} has {} networks", networks.len())),
        Some((line, problem)) => Finding::warn(
            "list",
            format!("{shown}:{line}: {problem} ({} such lines)", bad_lines.len()),
            "write an address or a network such as 192.0.2.0/24; such lines are left out",
        ),
    }
}

/// Loads the program as the daemon would, verifier and maps included, and lets it go.
fn trial(subject: &Subject<'_>, tier: Tier, interfaces: &[u32]) -> Finding {
    let redirection = match tier {
        Tier::Cpumap => Redirection::Cpus(subject.workers),
        Tier::Queues | Tier::IncomingCpu | Tier::None => Redirection::Off,
    };
    let setup = Setup {
        ports: subject.ports,
        interfaces,
        redirection,
        heartbeat_timeout: subject.xdp.heartbeat_timeout,
        filter: &subject.xdp.filter,
    };
    let loaded = object().ok_or(XdpError::NoObject).and_then(|it| Prefilter::load(it, setup));
    match loaded {
        Ok(_prefilter) => Finding::ok("program", "the kernel's verifier accepts it"),
        Err(error) => Finding::new("program", State::Fail, error.with_causes()),
    }
}

/// The same for the program that picks listeners, with a listener of its own.
fn listener_trial(workers: &[usize]) -> Finding {
    let listener = match lone_listener() {
        Ok(listener) => listener,
        Err(error) => {
            let text = format!("cannot be tried: {error}");
            return Finding::warn("listeners", text, "`ingress run` tells");
        }
    };
    let group: Vec<_> = workers.iter().take(1).map(|cpu| (*cpu, &listener)).collect();
    let attached =
        object().ok_or(XdpError::NoObject).and_then(|it| load::attach_select_worker(it, &group));
    match attached {
        Ok(_) => Finding::ok("listeners", "the kernel lets a program pick the worker's listener"),
        Err(error) => Finding::new("listeners", State::Fail, error.with_causes()),
    }
}

/// On a port that the kernel chooses, where nobody connects to it.
fn lone_listener() -> io::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    Ok(socket.into())
}

fn result(config: &XdpConfig, plan: Plan, findings: &[Finding]) -> (Option<Tier>, String) {
    let is_blocked = findings.iter().any(|finding| finding.state == State::Fail);
    if !is_blocked || plan.attach.is_none() {
        return (Some(plan.tier), plan.reason.to_owned());
    }
    match config.mode {
        XdpMode::Native | XdpMode::Generic => {
            let reason = "The daemon will not start: this mode of `xdp.mode` is demanded.";
            (None, reason.to_owned())
        }
        XdpMode::Auto | XdpMode::Off => {
            let tier = steering::without_xdp(config.steering);
            (Some(tier), "The daemon will do without XDP.".to_owned())
        }
    }
}

impl Report {
    /// Findings that are in the way.
    pub fn failures(&self) -> usize {
        self.findings.iter().filter(|finding| finding.state == State::Fail).count()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        writeln!(f, "tier: {}: {}", self.tier.unwrap_or("-"), self.reason)
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        write!(f, "{state:<5}")?;
        if let Some(interface) = &self.interface {
            write!(f, "{interface} ")?;
        }
        write!(f, "{}: {}", self.name, self.text)?;
        match &self.remedy {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(mode: XdpMode, state: State) -> Option<Tier> {
        let config = XdpConfig { interfaces: vec!["eth0".into()], mode, ..XdpConfig::default() };
        result(&config, steering::plan(&config, false), &[Finding::new("a", state, "b")]).0
    }

    #[test]
    fn a_failure_costs_the_tier_and_a_demanded_mode_the_start() {
        assert_eq!(tier(XdpMode::Auto, State::Warn), Some(Tier::Cpumap));
        assert_eq!(tier(XdpMode::Auto, State::Fail), Some(Tier::IncomingCpu));
        assert_eq!(tier(XdpMode::Native, State::Ok), Some(Tier::Cpumap));
        assert_eq!(tier(XdpMode::Native, State::Fail), None);
        assert_eq!(tier(XdpMode::Off, State::Fail), Some(Tier::IncomingCpu));
    }

    #[test]
    fn a_bad_network_in_a_list_is_named_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deny");
        fs::write(&file, "192.0.2.0/24\n192.0.2.0/33\n").unwrap();
        let finding = list(&file);
        assert_eq!(finding.state, State::Warn);
        assert!(finding.text.contains("deny:2: \"192.0.2.0/33\" is no"), "{finding}");
        assert_eq!(list(&folder.path().join("none")).state, State::Fail);
    }

    #[test]
    fn cookies_that_the_kernel_never_makes_are_told() {
        let finding = cookies(Making::Never);
        assert_eq!(finding.state, State::Warn);
        assert!(finding.to_string().ends_with("sysctl -w net.ipv4.tcp_syncookies=1"), "{finding}");
        assert_eq!(cookies(Making::WhenFull).state, State::Ok);
    }

    #[test]
    fn a_finding_is_one_line_with_what_to_do() {
        let finding = Finding::fail("mtu", "9000 is too large", "ip link set").on("eth0");
        assert_eq!(finding.to_string(), "FAIL eth0 mtu: 9000 is too large: ip link set");
    }
}
