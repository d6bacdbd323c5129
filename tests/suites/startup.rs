//! A start that cannot succeed says why in one line; a stop lets what is under way finish.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ingress_tests::bin;
use ingress_tests::client::Client;
use ingress_tests::daemon::{ONE_DOMAIN, Site};
use ingress_tests::programs::{openssl, succeed};
use ingress_tests::wait::wait_for;

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let site = Site::with_config(&ONE_DOMAIN.replace("127.0.0.1:0", &address)).unwrap();
    refused(&site, &format!("cannot listen on {address}"), "in use");
}

#[test]
fn a_second_daemon_on_the_same_port_is_refused() {
    let first = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = first.start().unwrap();
    let address = daemon.smtp("starttls").to_string();
    let second = Site::with_config(&ONE_DOMAIN.replace("127.0.0.1:0", &address)).unwrap();
    refused(&second, &format!("cannot listen on {address}"), "in use");
    assert!(daemon.stop().unwrap().status.success());
}

#[test]
fn an_address_that_is_not_on_this_host_is_named() {
    let site = Site::with_config(&ONE_DOMAIN.replace("127.0.0.1:0", "192.0.2.1:0")).unwrap();
    refused(&site, "192.0.2.1", "not on this host");
}

#[test]
fn a_key_that_does_not_belong_to_the_certificate_is_named() {
    let site = with_certificates("one.pem", "two.key");
    refused(&site, "one.pem", "key");
}

#[test]
fn a_key_in_place_of_a_certificate_is_named() {
    refused(&with_certificates("one.key", "one.key"), "one.key", "PEM certificates");
    refused(&with_certificates("one.pem", "two.pem"), "two.pem", "PEM private key");
}

#[test]
fn certificate_and_key_that_belong_together_are_taken() {
    let daemon = with_certificates("one.pem", "one.key").start().unwrap();
    assert!(daemon.stop().unwrap().status.success());
}

#[test]
fn a_state_dir_that_cannot_be_made_is_named() {
    // Not by permissions, which mean nothing to root: a file is in the way.
    let site = Site::with_config(&ONE_DOMAIN.replace("\"state\"", "\"file/state\"")).unwrap();
    fs::write(site.folder().join("file"), "in the way").unwrap();
    refused(&site, "file/state", "Not a directory");
}

#[test]
fn a_state_dir_that_takes_no_files_is_named() {
    let site = Site::with_config(&ONE_DOMAIN.replace("\"state\"", "\"/proc/self\"")).unwrap();
    refused(&site, "/proc/self", "");
}

#[test]
fn a_maildir_that_cannot_be_made_is_named() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    fs::write(site.folder().join("maildir"), "in the way").unwrap();
    refused(&site, "maildir", "Not a directory");
}

#[test]
fn a_second_daemon_on_the_same_control_socket_is_refused() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = site.start().unwrap();
    let socket = site.folder().join("state/control.sock");
    refused(&site, &socket.display().to_string(), "another daemon answers there");
    // The first keeps its socket and goes on.
    Client::hello(daemon.smtp("starttls")).quit();
    assert_eq!(daemon.count("/connections/total").unwrap(), 1);
    assert!(daemon.stop().unwrap().status.success());
}

#[test]
fn a_second_daemon_on_the_same_spool_is_refused() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = site.start().unwrap();
    let state = site.folder().join("state");
    let config = ONE_DOMAIN.replace("\"state\"", &format!("\"{}\"", state.display()));
    let second = Site::with_config(&format!("{config}\n[control]\nsocket = \"other.sock\"\n"));
    let second = second.unwrap();
    refused(&second, &state.join("spool").display().to_string(), "another daemon");
    assert!(!second.folder().join("other.sock").exists());
    Client::hello(daemon.smtp("starttls")).message(b"still served\r\n");
    daemon.wait_until_delivered();
    assert!(daemon.stop().unwrap().status.success());
    assert_eq!(site.maildir().count().unwrap(), 1);
}

#[test]
fn a_file_in_place_of_the_control_socket_is_kept() {
    let site = Site::with_config(&format!("{ONE_DOMAIN}\n[control]\nsocket = \"file\"\n")).unwrap();
    fs::write(site.folder().join("file"), "precious").unwrap();
    refused(&site, "/file", "not a socket");
    assert_eq!(fs::read(site.folder().join("file")).unwrap(), b"precious");
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let xdp = "[xdp]\ninterfaces = [\"nosuch0\"]\nmode = \"native\"\n";
    let site = Site::with_config(&format!("{ONE_DOMAIN}\n{xdp}")).unwrap();
    let line = error_line(&site);
    if line.contains("built without") {
        // The line itself is right: native means XDP or nothing. Whether the interface is there, such a binary cannot tell.
        return;
    }
    assert!(line.contains("nosuch0"), "{line}");
}

#[test]
fn an_open_transaction_completes_before_a_stop() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = site.start().unwrap();
    let address = daemon.smtp("starttls");
    let (mut before_data, mut in_data) = (Client::hello(address), Client::hello(address));
    let mut idle = Client::hello(address);
    before_data.envelope();
    in_data.envelope();
    in_data.command("DATA", "354");
    in_data.send("first half\r\n");
    daemon.terminate().unwrap();
    // Who has nothing open is sent away, which also shows that the drain has begun.
    idle.expect("421 4.3.2");
    idle.expect_close();
    before_data.data(b"whole\r\n");
    in_data.send("second half\r\n.\r\n");
    in_data.expect("250 2.0.0");
    for client in [&mut before_data, &mut in_data] {
        client.expect("421 4.3.2");
        client.expect_close();
    }
    drop([before_data, in_data, idle]);
    let ended = daemon.wait().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    // What was not delivered before the stop is delivered after the next start.
    let daemon = site.start().unwrap();
    daemon.wait_until_delivered();
    assert!(daemon.stop().unwrap().status.success());
    let mut texts = site.maildir().texts().unwrap();
    texts.sort();
    assert_eq!(texts, [&b"first half\r\nsecond half\r\n"[..], b"whole\r\n"]);
}

/// A client that is left waiting by a host about to go would better have tried the next one.
#[test]
fn new_clients_are_refused_while_the_daemon_drains() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = site.start().unwrap();
    let address = daemon.smtp("starttls");
    let (mut open, mut idle) = (Client::hello(address), Client::hello(address));
    open.envelope();
    daemon.terminate().unwrap();
    idle.expect("421 4.3.2");
    wait_for("refused connection", Duration::from_secs(10), || is_refused(address));
    open.data(b"still taken\r\n");
    drop([open, idle]);
    assert_eq!(daemon.wait().unwrap().status.code(), Some(0));
}

#[test]
fn a_stop_removes_the_control_socket_and_frees_the_ports() {
    let site = Site::with_config(ONE_DOMAIN).unwrap();
    let daemon = site.start().unwrap();
    let address = daemon.smtp("starttls").to_string();
    Client::hello(daemon.smtp("starttls")).quit();
    assert!(daemon.stop().unwrap().status.success());
    assert!(!site.folder().join("state/control.sock").exists());
    let next = Site::with_config(&ONE_DOMAIN.replace("127.0.0.1:0", &address)).unwrap();
    assert_eq!(next.start().unwrap().smtp("starttls").to_string(), address);
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

/// The start fails, and its one line has both texts in it.
fn refused(site: &Site, thing: &str, problem: &str) {
    let line = error_line(site);
    assert!(line.contains(thing) && line.contains(problem), "{line}");
}

/// Runs the daemon to its failure. The log is left at errors: a failed start is not told twice.
fn error_line(site: &Site) -> String {
    let mut command = Command::new("timeout");
    command.args(["60"]).arg(bin()).arg("run").arg("--config").arg(site.config());
    let output = command.env("INGRESS_LOG", "error").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("ingress: "), "{stderr}");
    stderr
}

/// A site with the certificates `one` and `two` in its folder, of which it uses these files.
fn with_certificates(chain: &str, key: &str) -> Site {
    let tls = format!("[tls]\ncertificates = [ {{ chain = \"{chain}\", key = \"{key}\" }} ]\n");
    let site = Site::with_config(&format!("{ONE_DOMAIN}\n{tls}")).unwrap();
    for name in ["one", "two"] {
        make_certificate(&site.folder().join(name));
    }
    site
}

/// Makes PATH.pem and PATH.key.
fn make_certificate(path: &Path) {
    let mut command = openssl();
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=mx.test"]);
    command.arg("-keyout").arg(path.with_extension("key"));
    succeed(command.arg("-out").arg(path.with_extension("pem")));
}
