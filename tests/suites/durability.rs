//! What was answered with 250 is delivered, whatever happens to the daemon.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ingress_tests::client::Client;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::spool::write_backlog;
use ingress_user::worker::clock::Now;

const CLIENTS: usize = 8;

/// A client that gets no further 250 for so long is stuck.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    // Small segments, so that kills fall on their change too.
    let site = Site::new("[spool]\nsegment_bytes_max = \"256KiB\"\n").unwrap();
    let mut acknowledged = Vec::new();
    // The first 250 of a daemon that just started, then in ever fuller flow.
    for (round, kill_after) in [1, 3, 20, 150, 700].into_iter().enumerate() {
        let daemon = site.start().unwrap();
        let load = Load::start(daemon.smtp("starttls"), round);
        acknowledged.extend(load.wait_for_acknowledged(kill_after));
        daemon.kill().unwrap();
        acknowledged.extend(load.stop());
    }
    let daemon = site.start().unwrap();
    assert_all_delivered(&site, daemon, &acknowledged);
}

/// The daemon that recovers a backlog is killed as well, while it delivers.
#[test]
fn kill_9_during_recovery_loses_nothing() {
    const MESSAGES: usize = 3000;
    let site = Site::new("").unwrap();
    write_backlog(&site.folder().join("state"), MESSAGES, |number| text("backlog", 0, number));
    for _ in 0..3 {
        let daemon = site.start().unwrap();
        daemon.kill().unwrap();
    }
    let acknowledged: Vec<String> =
        (0..MESSAGES).map(|number| text("backlog", 0, number)).collect();
    let daemon = site.start().unwrap();
    assert_all_delivered(&site, daemon, &acknowledged);
    // A file's name is made from the record alone: a repetition is the same file.
    assert_eq!(site.maildir().count().unwrap(), MESSAGES);
}

#[test]
fn sigterm_under_load_loses_nothing_acknowledged() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let load = Load::start(daemon.smtp("starttls"), 0);
    let mut acknowledged = load.wait_for_acknowledged(300);
    let ended = daemon.stop().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    acknowledged.extend(load.stop());
    let daemon = site.start().unwrap();
    assert_all_delivered(&site, daemon, &acknowledged);
    // Every client was answered before its connection ended, so nothing came twice or uninvited.
    assert_eq!(site.maildir().count().unwrap(), acknowledged.len());
}

#[test]
fn a_start_with_a_hundred_thousand_messages_takes_five_seconds_at_most() {
    const MESSAGES: usize = 100_000;
    let site = Site::new("").unwrap();
    write_backlog(&site.folder().join("state"), MESSAGES, |number| text("backlog", 0, number));
    let started = Now::read().monotonic;
    let daemon = site.start().unwrap();
    let took = Now::read().monotonic - started;
    println!("{MESSAGES} messages: ready after {took:?}");
    // In this order: what is delivered between the two is counted twice, never not at all.
    let pending = daemon.count("/spool/pending").unwrap();
    let delivered = daemon.count("/messages/delivered").unwrap();
    assert!(pending + delivered >= MESSAGES as u64, "{pending} pending, {delivered} delivered");
    Client::hello(daemon.smtp("starttls")).message(b"behind the backlog\r\n");
    daemon.kill().unwrap();
    assert!(took <= Duration::from_secs(5), "ready after {took:?}");
}

#[test]
fn a_damaged_record_is_reported_and_its_neighbours_are_delivered() {
    let site = Site::new("").unwrap();
    write_backlog(&site.folder().join("state"), 3, |number| text("backlog", 0, number));
    let segment = segment_with_records(&site);
    let octets = fs::read(&segment).unwrap();
    let damaged = text("backlog", 0, 1);
    let at = octets.windows(damaged.len()).position(|octets| octets == damaged.as_bytes()).unwrap();
    let record = octets[..at].windows(4).rposition(|octets| octets == b"IREC").unwrap();
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[octets[at + 5] ^ 0x10], at as u64 + 5).unwrap();

    let daemon = site.start().unwrap();
    daemon.wait_until_delivered();
    assert_eq!(daemon.count("/spool/damaged").unwrap(), 1);
    assert_eq!(daemon.count("/messages/delivered").unwrap(), 2);
    let ended = daemon.stop().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let line = ended.stderr.lines().find(|line| line.contains("damaged on disk")).unwrap();
    assert!(line.contains(&format!("file={}", segment.display())), "{line}");
    assert!(line.contains(&format!("offset={record} ")), "{line}");
    let mut texts = site.maildir().texts().unwrap();
    texts.sort();
    assert_eq!(texts, [text("backlog", 0, 0).as_bytes(), text("backlog", 0, 2).as_bytes()]);
    assert!(segment.exists());
}

/// Clients that send one message after the other, each different, and note which were acknowledged.
struct Load {
    clients: Vec<JoinHandle<()>>,
    acknowledged: mpsc::Receiver<String>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(address: SocketAddr, round: usize) -> Self {
        let (sender, acknowledged) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number| {
            let (sender, stop) = (sender.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let name = format!("round-{round}-client-{number}");
                // Ends with an error when the daemon does.
                let _daemon_gone = send_until_stopped(address, &name, &sender, &stop);
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { clients, acknowledged, stop }
    }

    fn wait_for_acknowledged(&self, count: usize) -> Vec<String> {
        let next = |_| self.acknowledged.recv_timeout(ACK_TIMEOUT).expect("the load goes on");
        (0..count).map(next).collect()
    }

    /// What was acknowledged beyond that.
    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client only ends");
        }
        self.acknowledged.iter().collect()
    }
}

fn send_until_stopped(
    address: SocketAddr,
    name: &str,
    acknowledged: &Sender<String>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut client = Client::try_connect(address)?;
    client.reply()?;
    client.try_send("EHLO client.test\r\n")?;
    client.reply()?;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = text(name, number % 13 * 4000, number);
        client.try_send("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")?;
        for _ in 0..3 {
            client.reply()?;
        }
        client.try_send(format!("{text}.\r\n"))?;
        if client.reply()?.starts_with("250 ") {
            acknowledged.send(text).expect("the test reads to the end");
        }
    }
    Ok(())
}

/// A text that there is once only, with so many octets of filling, from which its end can be told.
fn text(name: &str, filling: usize, number: usize) -> String {
    let filling = "filling\r\n".repeat(filling / 9);
    format!("Subject: {name}-{number}\r\n\r\n{filling}end of {name}-{number}\r\n")
}

/// Waits until all is delivered, and looks for each text, whole, in the Maildir.
fn assert_all_delivered(site: &Site, daemon: Daemon, acknowledged: &[String]) {
    daemon.wait_until_delivered();
    assert_eq!(daemon.count("/spool/damaged").unwrap(), 0);
    let ended = daemon.stop().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let delivered: HashSet<Vec<u8>> = site.maildir().texts().unwrap().into_iter().collect();
    let missing: Vec<&str> = acknowledged
        .iter()
        .filter(|text| !delivered.contains(text.as_bytes()))
        .filter_map(|text| text.lines().next())
        .collect();
    assert!(missing.is_empty(), "{} of {}: {missing:?}", missing.len(), acknowledged.len());
    assert_eq!(site.maildir().unfinished().unwrap(), 0);
}

/// Each start begins a segment, so the last is empty.
fn segment_with_records(site: &Site) -> PathBuf {
    let files = fs::read_dir(site.folder().join("state/spool")).unwrap();
    files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}
