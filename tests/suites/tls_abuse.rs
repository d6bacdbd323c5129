//! What TLS allows and no honest client does without end: each is cut off and counted, by a client that can do it.

use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::programs::{script, succeed, tlslite_python};
use serde_json::Value;

/// Has the client do `kind` so many times in one connection. How it ended, by its own words.
fn abuse(daemon: &Daemon, kind: &str, times: usize) -> String {
    let mut client = tlslite_python();
    client.arg(script("tlslite/abuse.py")).arg(daemon.smtp("implicit").port().to_string());
    let output = succeed(client.args([kind, &times.to_string()]));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The connections whose TLS broke, by what broke it, where there are any.
fn broken(daemon: &Daemon) -> Value {
    let mut broken = daemon.status().unwrap()["tls"]["broken"].take();
    broken.as_object_mut().unwrap().retain(|_, count| *count != 0);
    broken
}

/// So many times is cut off, once is nothing.
fn is_cut_off(kind: &str, times: usize, counted_as: &str) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let ended = abuse(&daemon, kind, times);
    assert!(ended.starts_with("ended"), "{ended}");
    assert_eq!(broken(&daemon), serde_json::json!({ counted_as: 1 }));
    let log = daemon.stop().unwrap().stderr;
    assert!(log.contains(&format!("tls_{counted_as}")), "{log}");
}

/// What is said on the way to QUIT is answered, and nothing is counted.
fn is_served(kind: &str, times: usize) {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    assert_eq!(abuse(&daemon, kind, times), "ended");
    assert_eq!(broken(&daemon), serde_json::json!({}));
    assert_eq!(daemon.status().unwrap()["tls"]["handshakes_completed"], 1);
}

#[test]
fn a_client_may_ask_for_new_keys() {
    is_served("key_updates", 20);
}

#[test]
fn new_keys_again_and_again_are_refused() {
    is_cut_off("key_updates", 100, "key_updates");
}

#[test]
fn new_keys_and_nothing_else_are_refused_sooner() {
    is_cut_off("key_updates_in_a_row", 40, "key_updates");
}

#[test]
fn a_few_empty_records_are_harmless() {
    is_served("empty_records", 10);
}

#[test]
fn empty_records_without_end_are_refused() {
    is_cut_off("empty_records", 100, "empty_records");
}

#[test]
fn a_renegotiation_is_refused_the_first_time() {
    is_cut_off("renegotiation", 1, "renegotiation");
}
