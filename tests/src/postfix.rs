use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::Process;
use crate::programs::{bounded, succeed};

/// Relays all mail. Nothing is looked up in DNS, nothing is kept: what cannot be sent is
/// returned at once, which its log tells.
const MAIN: &str = "
compatibility_level = 3.6
myhostname = relay.test
inet_interfaces = loopback-only
inet_protocols = ipv4
mydestination =
alias_maps =
alias_database =
smtp_host_lookup = native
smtp_dns_support_level = disabled
bounce_queue_lifetime = 0
";

/// The services on the way from `sendmail` or smtpd to another server; none listens on the network.
const MASTER: &str = "
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
";

/// A Postfix of a test's own: its configuration, queue and log have nothing to do with those of the system.
///
/// Needs root, because its processes change to the user postfix.
#[derive(Debug)]
pub struct Postfix {
    // First, so that it ends before its folder goes.
    master: Process,
    folder: tempfile::TempDir,
}

impl Postfix {
    /// Starts one that sends everything to `relay`. `settings` are further lines of its main.cf.
    pub fn start(relay: SocketAddr, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("postfix-").tempdir().unwrap();
        // The user postfix passes through it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let relay = format!("relayhost = [{}]:{}", relay.ip(), relay.port());
        let own = [&["maillog_file = /dev/stdout", &relay], settings].concat();
        let etc = furnish(folder.path(), &own, "");
        let program = master(&etc);
        let mut master = Process::start(bounded(program.get_program()).args(program.get_args()));
        master.wait_for_line("daemon started");
        Self { master, folder }
    }

    /// Hands a message of CRLF lines in, as a local program does. `flags` are further ones of sendmail(1), such as
    /// `["-N", "success,failure", "-V", "envelope-id", "-R", "hdrs"]`; addresses may be UTF-8.
    pub fn submit(&self, flags: &[&str], sender: &str, recipients: &[&str], text: &[u8]) {
        let mut command = bounded("sendmail");
        command.arg("-C").arg(self.folder.path().join("etc"));
        command.args(["-i", "-f", sender]).args(flags).arg("--").args(recipients);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("timeout(1) is there");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin.write_all(text).expect("sendmail reads");
        drop(stdin);
        let status = child.wait().expect("it is our child");
        assert!(status.success(), "{command:?}: {status}");
    }

    /// Tries at once what it has put off.
    pub fn retry(&self) {
        succeed(bounded("postqueue").arg("-c").arg(self.folder.path().join("etc")).arg("-f"));
    }

    /// The next line of its log with `text` in it: `status=sent`, `status=bounced`, `TLS connection established`.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        self.master.wait_for_line(text)
    }
}

/// Makes the folders of a Postfix below `folder`, which the user postfix has to be able to pass through, and returns the one
/// with its configuration. `settings` are further lines of its main.cf, `services` of its master.cf.
pub fn furnish(folder: &Path, settings: &[&str], services: &str) -> PathBuf {
    let [etc, queue, data] = ["etc", "queue", "data"].map(|name| folder.join(name));
    for made in [&etc, &queue, &data] {
        fs::create_dir(made).unwrap();
    }
    let own = format!(
        "queue_directory = {}\ndata_directory = {}\n{}\n",
        queue.display(),
        data.display(),
        settings.join("\n")
    );
    fs::write(etc.join("main.cf"), format!("{MAIN}{own}")).unwrap();
    fs::write(etc.join("master.cf"), format!("{MASTER}{services}")).unwrap();
    succeed(bounded("chown").arg("postfix").arg(&data));
    // Makes what belongs into the queue folder.
    succeed(bounded("postfix").arg("-c").arg(&etc).arg("check"));
    etc
}

/// The program that runs what [`furnish`] has made, in the foreground.
pub fn master(etc: &Path) -> Command {
    let mut command = Command::new(programs_folder().join("master"));
    command.args(["-d", "-c"]).arg(etc);
    command
}

/// Where the programs are that its master starts.
fn programs_folder() -> PathBuf {
    let output = Command::new("postconf").args(["-dh", "daemon_directory"]).output();
    let output =
        output.expect("postfix is missing: apt-get install --no-install-recommends postfix");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}
