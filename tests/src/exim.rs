use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::programs::{bounded, installed};

/// Sends everything to one place, without DNS and in the foreground.
const CONFIG: &str = "
primary_hostname = relay.test
log_file_path = {folder}/log/%s
spool_directory = {folder}/spool
exim_path = {folder}/exim4
keep_environment =
begin routers
all:
  driver = manualroute
  route_list = * {ip}::{port} byname
  self = send
  transport = relay
begin transports
relay:
  driver = smtp
  allow_localhost
  hosts_try_chunking = *
";

/// Debian's Exim runs as this user, whom only its installation would make.
const USER: &str = "Debian-exim";
/// Whom it runs as here: `nobody`.
const UID: u32 = 65534;

/// Runs `"$@"` where /etc/passwd and /etc/group are those in the folder `$0`. They are so for this command alone.
const AS_ITS_USER: &str =
    r#"mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@""#;

/// An Exim of a test's own: its configuration, spool and log have nothing to do with the system.
///
/// Needs root, for the mounts and because it changes its user.
#[derive(Debug)]
pub struct Exim {
    folder: tempfile::TempDir,
}

impl Exim {
    /// One that sends everything to `relay`. `settings` are further lines of its smtp transport.
    pub fn new(relay: SocketAddr, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("exim-").tempdir().unwrap();
        let path = folder.path();
        // Its user passes through it.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["spool", "log"] {
            fs::create_dir(path.join(name)).unwrap();
            chown(path.join(name), Some(UID), Some(UID)).unwrap();
        }
        // It starts itself anew as its user, who may not be let into the checkout.
        fs::copy(installed("exim/usr/sbin/exim4"), path.join("exim4")).unwrap();
        let config = CONFIG
            .replace("{folder}", path.to_str().expect("temporary folders are ASCII"))
            .replace("{ip}", &relay.ip().to_string())
            .replace("{port}", &relay.port().to_string());
        let settings: String = settings.iter().map(|line| format!("  {line}\n")).collect();
        fs::write(path.join("exim.conf"), config + &settings).unwrap();
        with_line(
            "/etc/passwd",
            &path.join("passwd"),
            &format!("{USER}:x:{UID}:{UID}::/nonexistent:"),
        );
        with_line("/etc/group", &path.join("group"), &format!("{USER}:x:{UID}:"));
        Self { folder }
    }

    /// Takes a message of CRLF lines and sends it before it returns. Gives back what it says of the SMTP dialogue, a line
    /// `SMTP>> COMMAND` for each command.
    pub fn send(&self, sender: &str, recipients: &[&str], text: &[u8]) -> String {
        let path = self.folder.path();
        let mut command = bounded("unshare");
        command.args(["--mount", "sh", "-c", AS_ITS_USER]).arg(path).arg(path.join("exim4"));
        command.arg("-C").arg(path.join("exim.conf"));
        command.args(["-d-all+transport", "-odi", "-oi", "-f", sender, "--"]).args(recipients);
        // Not through a pipe: that could be full while nobody reads what Exim says.
        let input = path.join("input");
        fs::write(&input, text).unwrap();
        command.stdin(fs::File::open(&input).unwrap());
        let output = command.output().expect("timeout(1) is there");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
        said
    }

    /// The line of its log for each delivery, which ends with the reply.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log/main")).expect("it writes a log")
    }
}

/// Writes `file` to `copy`, with `line` before it: of two lines with one name the first counts.
fn with_line(file: &str, copy: &Path, line: &str) {
    let text = fs::read_to_string(file).expect("every system has it");
    fs::write(copy, format!("{line}\n{text}")).unwrap();
}
