//! Clients that other people wrote. A suite fails where one is missing, and says which package has it: a test that is
//! quietly left out proves nothing.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A client that is stuck is ended, so that the suite fails instead of standing still.
const SECONDS_MAX: &str = "180";

/// Postfix's load generator.
pub fn smtp_source() -> Command {
    program("smtp-source", "postfix", &[])
}

pub fn swaks() -> Command {
    let tls =
        Command::new("perl").args(["-MNet::SSLeay", "-e", "1"]).stderr(Stdio::null()).status();
    assert!(
        tls.is_ok_and(|status| status.success()),
        "swaks lacks TLS: install libnet-ssleay-perl"
    );
    program("swaks", "swaks", &["--version"])
}

pub fn openssl() -> Command {
    program("openssl", "openssl", &["version"])
}

/// Without the settings and the proxies of whoever runs the tests.
pub fn curl() -> Command {
    let mut command = program("curl", "curl", &["--version"]);
    command.args(["--disable", "--noproxy", "*"]);
    command
}

pub fn gnutls_cli() -> Command {
    program("gnutls-cli", "gnutls-bin", &["--version"])
}

/// Postfix's program that looks at a server's TLS.
pub fn posttls_finger() -> Command {
    program("posttls-finger", "postfix", &[])
}

/// testssl.sh, under the name that Debian gives it.
pub fn testssl() -> Command {
    program("testssl", "testssl.sh", &["--version"])
}

pub fn python() -> Command {
    program("python3", "python3", &["--version"])
}

/// Node.js with the packages of tests/clients/nodemailer.
pub fn node() -> Command {
    let mut command = program("node", "nodejs", &["--version"]);
    command.env("NODE_PATH", installed("nodemailer/node_modules"));
    command
}

/// A Python that has the packages of tests/clients/aiosmtpd.
pub fn aiosmtpd_python() -> Command {
    bounded(installed("aiosmtpd/bin/python"))
}

/// A Python that has the packages of tests/clients/tlslite.
pub fn tlslite_python() -> Command {
    bounded(installed("tlslite/bin/python"))
}

/// What `cargo xtask test` has installed into target/clients.
pub fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients").join(path);
    assert!(path.exists(), "{} is missing: cargo xtask test SUITE installs it", path.display());
    path
}

/// A file in tests/clients, for one of these programs.
pub fn script(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(path)
}

/// A program that is ended, with all that it started, when it is stuck.
pub fn bounded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg(SECONDS_MAX).arg(program);
    command
}

/// Runs to the end and returns what it wrote. Panics, showing that, unless it exits 0.
pub fn succeed(command: &mut Command) -> Output {
    succeed_with(command, Stdio::null())
}

/// As [`succeed`], with this standard input.
pub fn succeed_with(command: &mut Command, input: impl Into<Stdio>) -> Output {
    let output = command.stdin(input).output().expect("the program was found before");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The record with which a real client begins a TLS handshake.
pub fn client_hello() -> io::Result<Vec<u8>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let mut command = openssl();
    command.args(["s_client", "-quiet", "-connect", &address]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let (mut stream, _) = listener.accept()?;
    let mut record = vec![0; 5];
    stream.read_exact(&mut record)?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..])?;
    drop(stream);
    child.wait()?;
    Ok(record)
}

/// `probe`: arguments with which it only says that it is there.
fn program(name: &str, package: &str, probe: &[&str]) -> Command {
    let found = Command::new(name).args(probe).stdin(Stdio::null()).output();
    assert!(found.is_ok(), "{name} is missing: apt-get install --no-install-recommends {package}");
    bounded(name)
}
