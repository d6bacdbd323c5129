//! `ingress dns`: what it prints is what a resolver has to say, and what it says of a resolver that does not.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::Output;

use ingress_tests::daemon::Site;
use ingress_tests::process::Process;
use ingress_tests::programs::{bounded, openssl, succeed};
use serde_json::Value;

/// Ports to try: another program may take the one that was free a moment ago.
const PORT_TRIES: usize = 8;

/// Never asks another server: what is not in its own data does not exist.
const UNBOUND: &str = r#"
server:
  interface: 127.0.0.1@{port}
  directory: "{folder}"
  pidfile: ""
  logfile: ""
  use-syslog: no
  username: ""
  chroot: ""
  num-threads: 1
  module-config: "iterator"
  local-zone: "." {answer}
"#;

const CONFIG: &str = r#"
hostname = "mx.example.net"
state_dir = "state"

[[listener]]
address = "127.0.0.1:0"

[recipients]
domains = ["example.net", "bücher.example"]

[delivery]
kind = "discard"
"#;

/// A resolver with data of its own. Ended when dropped.
struct Unbound {
    // First, so that it ends before its folder goes.
    _process: Process,
    _folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Unbound {
    /// One that has these lines of a zone file, and gives this `answer` to all else: `static` or `refuse`.
    fn start<'l>(answer: &str, lines: impl IntoIterator<Item = &'l str>) -> Self {
        let folder = tempfile::Builder::new().prefix("unbound-").tempdir().unwrap();
        let path = folder.path().to_str().expect("temporary folders are ASCII");
        let data: String =
            lines.into_iter().map(|line| format!("  local-data: '{line}'\n")).collect();
        let file = folder.path().join("unbound.conf");
        for _try in 0..PORT_TRIES {
            let address = free_port();
            let config = UNBOUND
                .replace("{port}", &address.port().to_string())
                .replace("{folder}", path)
                .replace("{answer}", answer);
            fs::write(&file, config + &data).unwrap();
            // It writes to stderr, and nothing more when its port is taken.
            let script = r#"unbound -d -c "$0" 2>&1; echo "no service""#;
            let mut process = Process::start(bounded("sh").args(["-c", script]).arg(&file));
            if process.wait_for_line("service").contains("start of service") {
                return Self { _process: process, _folder: folder, address };
            }
        }
        panic!("unbound did not start at any of {PORT_TRIES} ports (apt-get install unbound)");
    }
}

/// Free for UDP now; unbound takes the same for TCP.
fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A site whose daemon has run once, and so has made its certificate.
fn site() -> Site {
    let site = Site::with_config(CONFIG).unwrap();
    drop(site.start().unwrap());
    site
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

/// What `ingress dns` prints for the zone, without comments.
fn records(site: &Site) -> Vec<String> {
    let output = site.command("dns", &[]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let is_record = |line: &&str| !line.is_empty() && !line.starts_with(';');
    stdout(&output).lines().filter(is_record).map(str::to_owned).collect()
}

fn check(site: &Site, resolver: &Unbound, args: &[&str]) -> Output {
    let address = resolver.address.to_string();
    site.command("dns", &[&["--check", "--resolver", &address], args].concat()).unwrap()
}

/// The reason on stderr for the exit status 1.
fn wrong(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).expect("errors are UTF-8")
}

#[test]
fn what_is_published_as_printed_is_ok() {
    let site = site();
    let records = records(&site);
    assert_eq!(records.len(), 7, "{records:#?}");
    assert_eq!(records[0], "example.net. IN MX 10 mx.example.net.");
    assert!(records.iter().any(|line| line.starts_with("_mta-sts.xn--bcher-kva.example. IN TXT ")));
    let resolver = Unbound::start("static", records.iter().map(String::as_str));
    let output = check(&site, &resolver, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected: Vec<String> = records.iter().map(|line| format!("ok          {line}")).collect();
    assert_eq!(stdout(&output).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_record_that_is_missing_or_other_is_named_with_what_is_there() {
    let site = site();
    let records = records(&site);
    let [tlsa, policy] = ["_25._tcp.mx.example.net.", "_mta-sts.example.net."]
        .map(|name| records.iter().find(|line| line.starts_with(name)).unwrap().as_str());
    let other = r#"_mta-sts.example.net. IN TXT "v=STSv1; id=0""#;
    let published =
        records.iter().map(String::as_str).filter(|line| ![tlsa, policy].contains(line));
    let resolver = Unbound::start("static", published.chain([other]));

    let output = check(&site, &resolver, &[]);
    assert_eq!(wrong(&output), "ingress: 2 of 7 records were not found as printed\n");
    let text = stdout(&output);
    let not_ok: Vec<&str> = text.lines().filter(|line| !line.starts_with("ok ")).collect();
    let expected =
        [format!("missing     {tlsa}"), format!("different   {policy}: there is v=STSv1; id=0")];
    assert_eq!(not_ok, expected);

    let output = check(&site, &resolver, &["--json"]);
    wrong(&output);
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let states = findings.iter().filter(|finding| finding["state"] != "ok");
    let states: Vec<_> = states.map(|finding| (&finding["state"], &finding["found"])).collect();
    let found = serde_json::json!(["v=STSv1; id=0"]);
    assert_eq!(states, [(&"missing".into(), &Value::Null), (&"different".into(), &found)]);
}

#[test]
fn a_resolver_that_refuses_does_not_make_records_missing() {
    let site = site();
    let resolver = Unbound::start("refuse", []);
    let output = check(&site, &resolver, &[]);
    assert_eq!(wrong(&output), "ingress: 7 of 7 records were not found as printed\n");
    let text = stdout(&output);
    assert_eq!(text.lines().filter(|line| line.starts_with("unanswered  ")).count(), 7, "{text}");
}

#[test]
fn the_digest_of_a_key_is_the_one_that_openssl_computes() {
    let site = site();
    let [public, der] = ["public.pem", "public.der"].map(|name| site.folder().join(name));
    let certificate = site.folder().join("state/tls/mx.example.net.self-signed.pem");
    succeed(
        openssl()
            .args(["x509", "-noout", "-pubkey", "-in"])
            .arg(certificate)
            .arg("-out")
            .arg(&public),
    );
    succeed(
        openssl()
            .args(["pkey", "-pubin", "-outform", "DER", "-in"])
            .arg(public)
            .arg("-out")
            .arg(&der),
    );
    let digest = succeed(openssl().args(["dgst", "-sha256", "-r"]).arg(der));
    let digest = stdout(&digest).split_whitespace().next().unwrap().to_owned();
    assert_eq!(digest.len(), 64, "{digest}");
    let expected = format!("_25._tcp.mx.example.net. IN TLSA 3 1 1 {digest}");
    assert!(records(&site).contains(&expected), "{expected}");
}

#[test]
fn before_the_daemon_has_run_there_is_no_key_to_print() {
    let site = Site::with_config(CONFIG).unwrap();
    let output = site.command("dns", &[]).unwrap();
    let reason = wrong(&output);
    assert!(reason.contains("no certificate yet: the daemon makes"), "{reason}");
    assert!(!site.folder().join("state").exists(), "it makes nothing itself");
}
