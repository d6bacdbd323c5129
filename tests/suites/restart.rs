//! The planned restart: `ingress run --take-over` beside a running daemon, with an open session and clients that keep coming. With XDP:
//! suite `xdp_restart`.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::load::Load;
use ingress_tests::wait::wait_for;

/// For anything that happens in a moment.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Many connections of one client are what these tests make.
const LIMITS: &str = "[limits]\nconnections_per_client_max = 1000\n";

fn take_over(site: &Site) -> anyhow::Result<Daemon> {
    let mut command = Command::new(ingress_tests::bin());
    command.args(["run", "--take-over", "--config"]).arg(site.config());
    Daemon::start(command)
}

/// A message begun in DATA, and one whose end has not come.
fn begin_message(address: SocketAddr) -> Client {
    let mut client = Client::hello(address);
    client.command("MAIL FROM:<a@example.org>", "250 ");
    client.command("RCPT TO:<b@example.net>", "250 ");
    client.command("DATA", "354 ");
    client.send("Subject: begun before the restart\r\n\r\nand ended ");
    client
}

fn smtp_source() -> Command {
    let mut command = Command::new("timeout");
    command.args(["120", "smtp-source"]);
    command
}

#[test]
fn an_open_message_is_finished_and_new_clients_are_served_by_the_successor() {
    let site = Site::new(LIMITS).unwrap();
    let old = site.start().unwrap();
    let (address, listeners) = (old.smtp("starttls"), old.ready().smtp.clone());
    let mut open = begin_message(address);
    let mut silent = Client::hello(address);
    let load = Load::default();
    let new = thread::scope(|scope| {
        let target = format!("inet:{address}");
        let load = &load;
        scope.spawn(move || load.run(smtp_source, &target));
        wait_for("mail", TIMEOUT, || load.sent() > 0);
        let successor = scope.spawn(|| take_over(&site));
        // Who says nothing is sent away; who is in the middle of a message is waited for.
        silent.expect("421 ");
        open.send("after it\r\n.\r\n");
        open.expect("250 ");
        open.expect("421 ");
        let new = successor.join().unwrap().unwrap();
        let before = load.sent();
        wait_for("mail for the successor", TIMEOUT, || load.sent() > before);
        load.stop();
        new
    });
    let ended = old.wait().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stderr.contains("another daemon takes over"), "{}", ended.stderr);
    assert_eq!(new.ready().smtp, listeners, "the very sockets");
    new.wait_until_delivered();
    let delivered = site.maildir().messages().unwrap().len() as u64;
    assert_eq!(delivered, load.sent() + 1);
}

#[test]
fn a_successor_that_cannot_start_leaves_the_daemon_as_it_is() {
    let site = Site::new(LIMITS).unwrap();
    let old = site.start().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = std::fs::read_to_string(site.config()).unwrap();
    let more = format!("[[listener]]\naddress = \"{}\"\n", taken.local_addr().unwrap());
    std::fs::write(site.config(), format!("{config}{more}")).unwrap();
    let error = take_over(&site).unwrap_err();
    assert!(format!("{error:#}").contains("the port is in use"), "{error:#}");
    Client::hello(old.smtp("starttls")).quit();
    // And the next one may try.
    std::fs::write(site.config(), config).unwrap();
    let new = take_over(&site).unwrap();
    assert!(old.wait().unwrap().status.success());
    new.stop().unwrap();
}

#[test]
fn without_a_running_daemon_the_successor_starts_as_usual() {
    let site = Site::new(LIMITS).unwrap();
    let killed = site.start().unwrap();
    killed.kill().unwrap();
    let daemon = take_over(&site).unwrap();
    Client::hello(daemon.smtp("starttls")).quit();
    daemon.stop().unwrap();
}
