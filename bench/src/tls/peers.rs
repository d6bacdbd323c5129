//! The servers that ours is compared with.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ingress_tests::postfix;
use ingress_tests::wait::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::certificate::Certificate;
use crate::server;

/// From the start of a server to its first accepted connection.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// From SIGTERM to the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest measurement.
const SECONDS_MAX: &str = "3600";
/// From the last 250 to an empty queue.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// Postfix with smtpd on the network, a queue on disk, and delivery into nothing.
///
/// What would slow it is lifted: limits on clients, look-ups of their names, and the exit of an smtpd after 100 connections,
/// whose successor would have to read the certificate again. Its log goes to syslog, which is not counted.
pub(crate) struct Postfix {
    // First, so that it ends before its folder goes.
    master: Terminated,
    folder: TempDir,
    address: SocketAddr,
}

impl Postfix {
    pub(crate) fn start(certificate: &Certificate) -> Result<Self> {
        ensure!(server::is_root()?, "Postfix takes root: it changes to its user");
        let folder = server::folder_on_disk()?;
        // The user postfix passes through it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let address = free_address()?;
        let chain_files = format!(
            "smtpd_tls_chain_files = {}, {}",
            certificate.key().display(),
            certificate.chain().display()
        );
        let settings = [SETTINGS, &chain_files].concat();
        // One smtpd for each connection, up to 100.
        let services = format!(
            "{address} inet n - n - 100 smtpd\n\
             anvil unix - - n - 1 anvil\nproxymap unix - - n - - proxymap\n"
        );
        let etc = postfix::furnish(folder.path(), &[&settings], &services);
        let program = postfix::master(&etc);
        // In a group of its own, which it signals when it ends; and it ends, even if the benchmark was killed.
        let mut command = Command::new("timeout");
        command.arg(SECONDS_MAX).arg(program.get_program()).args(program.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let master = Terminated(command.spawn().context("cannot start Postfix's master")?);
        wait_for("Postfix", START_TIMEOUT, || TcpStream::connect(address).is_ok());
        Ok(Self { master, folder, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.master.0.id()
    }

    pub(crate) fn wait_until_delivered(&self) {
        wait_for("empty queue", DELIVERY_TIMEOUT, || {
            ["incoming", "active"]
                .iter()
                .all(|name| is_empty(&self.folder.path().join("queue").join(name)))
        });
    }
}

const SETTINGS: &str = "
local_recipient_maps =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
default_transport = discard
message_size_limit = 0
in_flow_delay = 0
max_use = 1000000
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
smtpd_tls_security_level = may
";

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// A server that is ended with SIGTERM when dropped.
struct Terminated(Child);

impl Drop for Terminated {
    fn drop(&mut self) {
        let _gone = kill_process(Pid::from_child(&self.0), Signal::TERM);
        wait_for("end of a server", STOP_TIMEOUT, || !matches!(self.0.try_wait(), Ok(None)));
    }
}

/// `openssl s_server`, which serves one connection after the other.
pub(crate) struct SServer {
    server: Terminated,
    address: SocketAddr,
    /// Where it keeps what it gets, if it does.
    _folder: Option<TempDir>,
}

/// What s_server does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    Nothing,
    /// In a file, without fsync.
    File,
}

impl SServer {
    pub(crate) fn start(certificate: &Certificate, keeping: Keeping) -> Result<Self> {
        let address = free_address()?;
        let (output, folder) = match keeping {
            Keeping::Nothing => (Stdio::null(), None),
            Keeping::File => {
                let folder = server::folder_on_disk()?;
                (fs::File::create(folder.path().join("received"))?.into(), Some(folder))
            }
        };
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-accept", &address.to_string()]);
        command.arg("-key").arg(certificate.key()).arg("-cert").arg(certificate.chain());
        // An end of its standard input would keep it busy; the pipe stays open as long as the child.
        let server = command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::null());
        let server = Terminated(server.spawn().context("cannot start openssl s_server")?);
        wait_for("s_server", START_TIMEOUT, || TcpStream::connect(address).is_ok());
        Ok(Self { server, address, _folder: folder })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.0.id()
    }
}

/// Neither server can be asked which port it chose, so one that was free a moment ago is named.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
