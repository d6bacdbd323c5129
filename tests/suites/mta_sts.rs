//! The MTA-STS policy as a sender fetches it (RFC 8461 3.3): by the right name, over HTTPS that it can verify.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::programs::{curl, openssl, succeed};
use serde_json::Value;

const CONFIG: &str = r#"
hostname = "mx.example.net"
state_dir = "state"

[[listener]]
address = "127.0.0.1:0"

[recipients]
domains = ["example.net", "bücher.example"]

[delivery]
kind = "discard"

[mta_sts]
listen = "127.0.0.1:0"
"#;

/// The names that senders ask for.
const HOSTS: [&str; 2] = ["mta-sts.example.net", "mta-sts.xn--bcher-kva.example"];

const PATH: &str = "/.well-known/mta-sts.txt";

/// More than are served at once.
const SILENT_CLIENTS: usize = 40;

/// The daemon's limits on a silent client, and as much again.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(40);

/// A site with a certificate in `NAME.pem` for each of these, with the names that it is for; the policy is served with all.
fn site(certificates: &[(&str, &str)], more: &str) -> Site {
    let files = certificates.iter().map(|(file, _)| pair(file)).collect::<Vec<_>>().join(", ");
    let site = Site::with_config(&format!("{CONFIG}certificates = [ {files} ]\n{more}")).unwrap();
    for (file, names) in certificates {
        make_certificate(&site.folder().join(file), names);
    }
    site
}

/// A site with one certificate, for all that senders ask for.
fn with_certificate(more: &str) -> Site {
    site(&[("web", &names(&HOSTS))], more)
}

fn pair(file: &str) -> String {
    format!("{{ chain = \"{file}.pem\", key = \"{file}.key\" }}")
}

fn names(hosts: &[&str]) -> String {
    hosts.iter().map(|host| format!("DNS:{host}")).collect::<Vec<_>>().join(",")
}

/// Makes PATH.pem and PATH.key.
fn make_certificate(path: &Path, names: &str) {
    let mut command = openssl();
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=test"]);
    command.args(["-addext", &format!("subjectAltName={names}")]);
    command.arg("-keyout").arg(path.with_extension("key"));
    succeed(command.arg("-out").arg(path.with_extension("pem")));
}

fn address(daemon: &Daemon) -> SocketAddr {
    let ready = daemon.ready();
    *ready.mta_sts.first().unwrap_or_else(|| panic!("no mta_sts= in {ready:?}"))
}

/// What curl makes of `path` at `host`, when it trusts `NAME.pem` alone. With `arguments` before the URL.
fn fetch(
    site: &Site,
    to: SocketAddr,
    trust: &str,
    url: (&str, &str),
    arguments: &[&str],
) -> Output {
    let ((host, path), port) = (url, to.port());
    let mut command = curl();
    command.args(["--silent", "--show-error", "--max-time", "60"]).args(arguments);
    command.arg("--cacert").arg(site.folder().join(format!("{trust}.pem")));
    command.args(["--resolve", &format!("{host}:{port}:{}", to.ip())]);
    command.arg(format!("https://{host}:{port}{path}")).output().unwrap()
}

/// The body of the policy.
fn policy(site: &Site, to: SocketAddr, host: &str) -> String {
    let output = fetch(site, to, "web", (host, PATH), &["--fail"]);
    assert!(output.status.success(), "{host}: {output:?}");
    text(&output.stdout)
}

/// The HTTP status, then what was said.
fn answer(site: &Site, to: SocketAddr, url: (&str, &str), arguments: &[&str]) -> (String, String) {
    let arguments = [&["--write-out", "\n%{http_code}"], arguments].concat();
    let output = fetch(site, to, "web", url, &arguments);
    assert!(output.status.success(), "{url:?}: {output:?}");
    let said = text(&output.stdout);
    let (body, status) = said.rsplit_once('\n').expect("the status is written");
    (status.to_owned(), body.to_owned())
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).expect("all is UTF-8")
}

/// What `ingress dns` has of the type `kind`: name and value.
fn printed(site: &Site, kind: &str) -> Vec<(String, String)> {
    let output = succeed(
        std::process::Command::new(ingress_tests::bin())
            .args(["dns", "--json", "--config"])
            .arg(site.config()),
    );
    let records: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of_kind = records.iter().filter(|record| record["type"] == kind);
    let string = |value: &Value| value.as_str().expect("it is text").to_owned();
    of_kind.map(|record| (string(&record["name"]), string(&record["value"]))).collect()
}

#[test]
fn the_policy_served_is_the_one_that_dns_prints() {
    let settings = "mode = \"enforce\"\nmax_age = \"1d\"\nmx = [\"*.backup.example\"]\n";
    for settings in ["", settings] {
        let site = with_certificate(settings);
        let daemon = site.start().unwrap();
        let to = address(&daemon);
        let printed = printed(&site, "file");
        assert_eq!(printed.len(), HOSTS.len());
        for host in HOSTS {
            let url = format!("https://{host}{PATH}");
            let (_, expected) = printed.iter().find(|(name, _)| *name == url).expect(host);
            assert_eq!(policy(&site, to, host), *expected);
        }
        let (_, shown) = &printed[0];
        let has_all = settings.is_empty() || shown.contains("mx: *.backup.example\nmax_age: 86400");
        assert!(has_all, "{shown}");
    }
}

#[test]
fn the_status_has_the_port_that_the_kernel_chose_and_the_mode() {
    let site = with_certificate("");
    let daemon = site.start().unwrap();
    let status = daemon.status().unwrap();
    let to = address(&daemon);
    assert_ne!(to.port(), 0);
    // The certificate for mail is the self-signed one.
    let expected = serde_json::json!({ "addresses": [to.to_string()], "mode": "testing" });
    assert_eq!(status["mta_sts"], expected);
}

#[test]
fn the_policy_is_plain_text_and_its_head_comes_without_it() {
    let site = with_certificate("");
    let daemon = site.start().unwrap();
    let to = address(&daemon);
    let url = (HOSTS[0], PATH);
    let (status, head) = answer(&site, to, url, &["--head"]);
    assert_eq!(status, "200");
    assert!(head.to_ascii_lowercase().contains("content-type: text/plain"), "{head}");
    let length = format!("content-length: {}\r", policy(&site, to, HOSTS[0]).len());
    assert!(head.to_ascii_lowercase().contains(&length), "{head}");
    assert!(!head.contains("STSv1"), "{head}");
}

#[test]
fn nothing_else_is_served_and_nobody_is_sent_elsewhere() {
    let site = with_certificate("");
    let daemon = site.start().unwrap();
    let to = address(&daemon);
    let host = |host: &str| ["--header".to_owned(), format!("Host: {host}")];
    for other in ["example.net", "mta-sts.example.com", "mx.example.net", "127.0.0.1"] {
        let [option, header] = host(other);
        let (status, sentence) = answer(&site, to, (HOSTS[0], PATH), &[&option, &header]);
        assert_eq!(status, "404", "{other}");
        assert!(sentence.contains("nothing here but the MTA-STS policy"), "{sentence}");
    }
    for path in ["/", "/.well-known/security.txt", "/.well-known/mta-sts.txt/"] {
        assert_eq!(answer(&site, to, (HOSTS[0], path), &[]).0, "404", "{path}");
    }
    assert_eq!(answer(&site, to, (HOSTS[0], PATH), &["--data", "a"]).0, "405");
    let long = format!("X-Long: {}", "a".repeat(16 << 10));
    assert_eq!(answer(&site, to, (HOSTS[0], PATH), &["--header", &long]).0, "431");
    let body = ["--request", "GET", "--data", "a"];
    assert_eq!(answer(&site, to, (HOSTS[0], PATH), &body).0, "413");
}

#[test]
fn the_certificate_is_the_one_of_the_name_that_is_asked_for() {
    let site = site(&[("one", &names(&HOSTS[..1])), ("web", &names(&HOSTS[1..]))], "");
    let daemon = site.start().unwrap();
    let to = address(&daemon);
    policy(&site, to, HOSTS[1]);
    let trusted = |trust| fetch(&site, to, trust, (HOSTS[0], PATH), &["--fail"]).status.success();
    assert!(trusted("one") && !trusted("web"));
}

#[test]
fn a_reload_serves_the_renewed_certificate() {
    let site = with_certificate("");
    let daemon = site.start().unwrap();
    let to = address(&daemon);
    fs::copy(site.folder().join("web.pem"), site.folder().join("old.pem")).unwrap();
    let trusted = |trust| fetch(&site, to, trust, (HOSTS[0], PATH), &["--fail"]).status.success();
    assert!(trusted("old"));
    make_certificate(&site.folder().join("web"), &names(&HOSTS[..1]));
    assert!(!trusted("web"), "nothing was reloaded yet");
    let output = site.command_after("tls", &["reload"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("web.pem: mta-sts.example.net, until "), "{output:?}");
    assert!(trusted("web") && !trusted("old"));
    let log = daemon.stop().unwrap().stderr;
    let warnings: Vec<&str> =
        log.lines().filter(|line| line.contains("no certificate is for the host")).collect();
    assert_eq!(warnings.len(), 1, "the new one lacks a name: {log}");
    assert!(warnings[0].contains(HOSTS[1]) && !warnings[0].contains(HOSTS[0]), "{log}");
}

#[test]
fn what_senders_would_not_take_is_in_the_log_at_the_start() {
    // The self-signed certificate for mail, which is for mx.example.net.
    let site = Site::with_config(&format!("{CONFIG}mode = \"enforce\"\n")).unwrap();
    let log = site.start().unwrap().stop().unwrap().stderr;
    let uncovered = log.lines().find(|line| line.contains("no certificate is for the host"));
    assert!(uncovered.is_some_and(|line| HOSTS.iter().all(|host| line.contains(host))), "{log}");
    assert!(log.contains("senders that heed the policy bring no mail"), "{log}");
}

#[test]
fn without_a_list_of_domains_there_is_no_policy_and_that_is_said() {
    let domains = r#"["example.net", "bücher.example"]"#;
    let site = Site::with_config(&CONFIG.replace(domains, r#"["*"]"#)).unwrap();
    let said = "there is no domain to serve an MTA-STS policy for";
    let output = site.command("check", &[]).unwrap();
    let checked = text(&output.stdout);
    assert!(output.status.success() && checked.starts_with("# "), "{output:?}");
    assert!(checked.lines().next().is_some_and(|line| line.contains(said)), "{checked}");
    let log = site.start().unwrap().stop().unwrap().stderr;
    assert!(log.contains(said), "{log}");
}

#[test]
fn an_address_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = format!("listen = \"{address}\"");
    let site = Site::with_config(&CONFIG.replace("listen = \"127.0.0.1:0\"", &listen)).unwrap();
    let error = site.start().unwrap_err().to_string();
    assert!(
        error.contains(&format!("{address} (mta_sts.listen): Address already in use")),
        "{error}"
    );
}

#[test]
fn plain_http_is_ended_and_does_no_harm() {
    let site = with_certificate("");
    let daemon = site.start().unwrap();
    let to = address(&daemon);
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(CUT_OFF_TIMEOUT)).unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", HOSTS[0]);
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read_to_end(&mut stream);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    policy(&site, to, HOSTS[0]);
}

/// They get no more than a part of the places there are, and those not for long.
#[test]
fn silent_clients_are_cut_off_and_neither_policy_nor_mail_waits_for_them() {
    let site = with_certificate("");
    let daemon = site.start().unwrap();
    let to = address(&daemon);
    let mut silent: Vec<TcpStream> =
        (0..SILENT_CLIENTS).map(|_| TcpStream::connect(to).unwrap()).collect();
    let mut client = Client::hello(daemon.smtp("starttls"));
    client.command("MAIL FROM:<>", "250");
    client.command("RCPT TO:<a@example.net>", "250");
    client.quit();
    let other_client = ["--fail", "--interface", "127.0.0.2"];
    let output = fetch(&site, to, "web", (HOSTS[0], PATH), &other_client);
    assert!(output.status.success(), "{output:?}");
    for stream in &mut silent {
        stream.set_read_timeout(Some(CUT_OFF_TIMEOUT)).unwrap();
        assert!(read_to_end(stream).is_empty());
    }
}

#[test]
fn a_client_that_asks_nothing_after_its_handshake_is_cut_off() {
    let site = with_certificate("");
    let daemon = site.start().unwrap();
    let mut command = openssl();
    command.args(["s_client", "-quiet", "-connect", &address(&daemon).to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // Open, so that it is not openssl that ends.
    let stdin = child.stdin.take().unwrap();
    let mut said = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    let ended = child.wait().unwrap();
    drop(stdin);
    // `timeout` reports 124 for what it had to end itself.
    assert_ne!(ended.code(), Some(124), "the daemon kept the connection");
}

/// What came before the end; a reset is an end too.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut octets = Vec::new();
    match stream.read_to_end(&mut octets) {
        Ok(_) => octets,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => octets,
        Err(error) => panic!("no end: {error}"),
    }
}
