use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::client::Client;
use crate::maildir::Maildir;
use crate::wait::wait_for;

/// From the start of the process to its `ready`. Generous, because a failing test prints what the daemon said anyway.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// From SIGTERM to the exit, all connections drained.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// From a 250 to the Maildir, behind a backlog of thousands on a slow disk.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// From the exit to the end of stderr: longer only when a child of the daemon lives on and holds it open.
const STDERR_TIMEOUT: Duration = Duration::from_secs(5);

/// The sections that tests have in common, before what a test adds. Ports are 0: the kernel chooses.
const CONFIG: &str = r#"
[[listener]]
address = "127.0.0.1:0"
tls = "starttls"

[[listener]]
address = "127.0.0.1:0"
tls = "implicit"

[recipients]
domains = ["*"]

[delivery]
kind = "maildir"
path = "maildir"
"#;

/// A whole configuration that takes mail for example.net alone. It ends in `[delivery]`, which a test may go on with.
pub const ONE_DOMAIN: &str = r#"
hostname = "mx.test"
state_dir = "state"

[[listener]]
address = "127.0.0.1:0"
tls = "starttls"

[recipients]
domains = ["example.net"]

[delivery]
kind = "maildir"
path = "maildir"
"#;

/// A folder with a configuration and the state that belongs to it. Outlives the daemons started in it, so that a test can
/// kill one and start the next.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// A site with the common configuration, `extra` sections behind it and the state in its own folder.
    pub fn new(extra: &str) -> Result<Self> {
        Self::with_config(&format!(
            "hostname = \"mx.test\"\nstate_dir = \"state\"\n{CONFIG}\n{extra}"
        ))
    }

    /// A site with exactly this configuration.
    pub fn with_config(text: &str) -> Result<Self> {
        let site = Self { folder: tempfile::Builder::new().prefix("ingress-").tempdir()? };
        fs::write(site.config(), text)?;
        Ok(site)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> PathBuf {
        self.folder().join("ingress.toml")
    }

    /// Where the common configuration delivers.
    pub fn maildir(&self) -> Maildir {
        Maildir::new(self.folder().join("maildir"))
    }

    /// Starts the binary and waits for its `ready`. The error carries what it wrote to stderr.
    pub fn start(&self) -> Result<Daemon> {
        let mut command = Command::new(crate::bin());
        command.arg("run").arg("--config").arg(self.config());
        Daemon::start(command)
    }

    /// Runs `ingress VERB ARGS --config FILE` to its end, where the option belongs to a verb within `args`.
    pub fn command_after(&self, verb: &str, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(crate::bin());
        command.arg(verb).args(args).arg("--config").arg(self.config());
        Ok(command.output()?)
    }

    /// Runs `ingress VERB --config FILE ARGS` to its end.
    pub fn command(&self, verb: &str, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(crate::bin());
        command.arg(verb).arg("--config").arg(self.config()).args(args);
        Ok(command.output()?)
    }
}

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    ready: Ready,
    stderr: Receiver<String>,
    /// Reports the end of stdout, which is the end of the process: nothing else has it open.
    ended: Receiver<()>,
}

/// How a daemon ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Daemon {
    /// Starts `command`, which may wrap the daemon (`ip netns exec ..`), and waits for the line `ready`.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stderr = read_to_end(child.stderr.take().context("stderr is piped")?);
        let (first_line, ended) = watch(child.stdout.take().context("stdout is piped")?);
        let answer = first_line.recv_timeout(READY_TIMEOUT);
        let ready = match &answer {
            Ok(line) => Ready::parse(line),
            Err(RecvTimeoutError::Timeout) => {
                Err(anyhow::anyhow!("no `ready` within {} s", READY_TIMEOUT.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => Err(anyhow::anyhow!("ended without `ready`")),
        };
        match ready {
            Ok(ready) => Ok(Self { child, ready, stderr, ended }),
            Err(error) => {
                child.kill()?;
                let status = child.wait()?;
                let said = said(&stderr);
                bail!("the daemon did not start: {error:#} ({status}); stderr:\n{said}")
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The first listener with this TLS mode: "off", "starttls" or "implicit".
    pub fn smtp(&self, tls: &str) -> SocketAddr {
        let listener = self.ready.smtp.iter().find(|(_, mode)| mode == tls);
        listener.unwrap_or_else(|| panic!("no {tls} listener in {:?}", self.ready)).0
    }

    /// Whether EHLO offers STARTTLS to 127.0.0.1.
    pub fn offers_starttls(&self) -> bool {
        let mut client = Client::connect(self.smtp("starttls"));
        client.expect("220 ");
        let extensions = client.command("EHLO client.test", "250");
        client.quit();
        extensions.contains("STARTTLS")
    }

    /// The first LMTP listener.
    pub fn lmtp(&self) -> SocketAddr {
        *self.ready.lmtp.first().unwrap_or_else(|| panic!("no LMTP listener in {:?}", self.ready))
    }

    /// SIGTERM, then waits for the drained exit.
    pub fn stop(self) -> Result<Ended> {
        self.terminate()?;
        self.wait()
    }

    /// SIGTERM alone: what a test wants to see while the daemon drains.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: the process is there and does nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT, after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits for the exit that [`terminate`](Self::terminate) asked for.
    pub fn wait(mut self) -> Result<Ended> {
        match self.ended.recv_timeout(STOP_TIMEOUT) {
            Err(RecvTimeoutError::Timeout) => {
                self.child.kill()?;
                let said = self.collect()?.stderr;
                bail!("still running {} s after SIGTERM; stderr:\n{said}", STOP_TIMEOUT.as_secs())
            }
            _ => self.collect(),
        }
    }

    /// `kill -9`: what a power cut leaves of the process.
    pub fn kill(mut self) -> Result<Ended> {
        self.child.kill()?;
        let ended = self.collect()?;
        ensure!(ended.status.signal() == Some(9), "it was gone before the kill: {ended:?}");
        Ok(ended)
    }

    /// What `ingress status --json` says, as a script reads it.
    pub fn status(&self) -> Result<Value> {
        let mut command = Command::new(crate::bin());
        let output =
            command.args(["status", "--json", "--socket"]).arg(&self.ready.control).output()?;
        ensure!(output.status.success(), "status failed: {output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The number at this JSON pointer of the status, such as `/spool/pending`.
    pub fn count(&self, pointer: &str) -> Result<u64> {
        let status = self.status()?;
        let number = status.pointer(pointer).and_then(Value::as_u64);
        number.with_context(|| format!("no number at {pointer} of {status}"))
    }

    /// Memory of the process that is in use now.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?)
    }

    /// Waits until all that was accepted is delivered and the spool has forgotten it.
    pub fn wait_until_delivered(&self) {
        wait_for("an empty spool", DELIVERY_TIMEOUT, || self.count("/spool/pending").unwrap() == 0);
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal {pid:?}"))
    }

    fn collect(&mut self) -> Result<Ended> {
        let status = self.child.wait()?;
        Ok(Ended { status, stderr: said(&self.stderr) })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already waited for, or about to be ended: either way nothing is left to report.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        if thread::panicking() {
            eprintln!("the daemon wrote to stderr:\n{}", said(&self.stderr));
        }
    }
}

/// What the line `ready` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Address and TLS mode of each listener, in the order of the configuration.
    pub smtp: Vec<(SocketAddr, String)>,
    pub lmtp: Vec<SocketAddr>,
    pub control: PathBuf,
    /// Where the MTA-STS policy is served.
    pub mta_sts: Vec<SocketAddr>,
}

impl Ready {
    /// Reads `ready smtp=127.0.0.1:41234/starttls .. control=/path/sock`. Fields not known here are passed over.
    pub fn parse(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        ensure!(words.next() == Some("ready"), "expected the line `ready ..`, got {line:?}");
        let (mut smtp, mut lmtp, mut mta_sts) = (Vec::new(), Vec::new(), Vec::new());
        let mut control = None;
        for word in words {
            match word.split_once('=') {
                Some((protocol @ ("smtp" | "lmtp"), value)) => {
                    let (address, tls) = value.split_once('/').context("smtp=ADDRESS/TLS")?;
                    match protocol {
                        "smtp" => smtp.push((address.parse()?, tls.to_owned())),
                        _ => lmtp.push(address.parse()?),
                    }
                }
                Some(("control", path)) => control = Some(PathBuf::from(path)),
                Some(("mta_sts", address)) => mta_sts.push(address.parse()?),
                _ => {}
            }
        }
        ensure!(!smtp.is_empty(), "no smtp= in {line:?}");
        Ok(Self {
            smtp,
            lmtp,
            control: control.with_context(|| format!("no control= in {line:?}"))?,
            mta_sts,
        })
    }
}

/// Sends the first line of `stdout`, then drains it so that the daemon never blocks on us, and reports its end by
/// hanging up.
fn watch(stdout: impl Read + Send + 'static) -> (Receiver<String>, Receiver<()>) {
    let (first_line, line) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    thread::spawn(move || {
        let _until_the_end: mpsc::Sender<()> = end;
        let mut lines = BufReader::new(stdout).lines();
        if let Some(Ok(line)) = lines.next() {
            let _nobody_waits = first_line.send(line);
        }
        drop(first_line);
        lines.for_each(drop);
    });
    (line, ended)
}

/// All that was written to stderr, once the process is gone.
fn said(stderr: &Receiver<String>) -> String {
    stderr.recv_timeout(STDERR_TIMEOUT).unwrap_or_default()
}

fn read_to_end(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _read = stream.read_to_end(&mut bytes);
        let _nobody_waits = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const READY: &str =
        "ready smtp=127.0.0.1:41234/starttls smtp=[::1]:41235/implicit control=/run/c";

    #[test]
    fn the_ready_line_names_every_address() {
        let ready = Ready::parse(READY).unwrap();
        assert_eq!(ready.smtp[0], ("127.0.0.1:41234".parse().unwrap(), "starttls".to_owned()));
        assert_eq!(ready.smtp[1].1, "implicit");
        assert_eq!(ready.control, Path::new("/run/c"));
        assert!(Ready::parse("listening").is_err());
        assert!(Ready::parse("ready control=/run/c").is_err());
    }

    #[test]
    fn a_daemon_is_stopped_and_its_stderr_kept() {
        // `wait` ends at once for a trap; the child has to go too, because it holds stdout open.
        let script = format!(
            "echo said >&2; tail -f /dev/null & trap 'kill $!; exit 0' TERM; echo '{READY}'; wait"
        );
        let daemon = Daemon::start(shell(&script)).unwrap();
        assert_eq!(daemon.smtp("implicit").port(), 41235);
        let ended = daemon.stop().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(ended.stderr, "said\n");
    }

    #[test]
    fn a_daemon_that_does_not_start_shows_why() {
        let error = Daemon::start(shell("echo no such port >&2; exit 1")).unwrap_err().to_string();
        assert!(error.contains("ended without `ready` (exit status: 1)"), "{error}");
        assert!(error.contains("no such port"), "{error}");
    }
}
