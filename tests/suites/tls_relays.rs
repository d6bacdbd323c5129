//! Postfix and Exim as clients of TLS: each version, TLS first, sessions that are resumed, and what they do when no TLS is
//! possible.

use ingress_tests::certificates::site_with_both_keys;
use ingress_tests::daemon::{Daemon, Site};
use ingress_tests::exim::Exim;
use ingress_tests::handshakes::{REPORT_TIMEOUT, failure, report, report_of};
use ingress_tests::postfix::Postfix;
use ingress_tests::texts::stop;
use ingress_tests::wait::wait_for;
use serde_json::Value;

const SENDER: &str = "sender@example.org";
const USER: &str = "user@example.net";

/// Complete, so that a relay has nothing to add but its own `Received:`.
const TEXT: &[u8] = b"From: <sender@example.org>\r\nTo: <user@example.net>\r\nSubject: relayed\r\n\
    Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-Id: <1@client.test>\r\n\r\n.\r\n..\r\n\xe4\r\n";

/// Old versions are refused by today's OpenSSL, unless it is told that security does not matter.
const OLD_POSTFIX: [&str; 3] = [
    "smtp_tls_protocols = TLSv1.1",
    "smtp_tls_ciphers = null",
    "tls_null_cipherlist = ALL:@SECLEVEL=0",
];

#[test]
fn postfix_with_tls_1_2_only_and_a_session_resumed() {
    postfix_resumes("starttls", "1.2", "smtp_tls_mandatory_protocols = TLSv1.2");
}

#[test]
fn postfix_with_tls_1_3_only_and_a_session_resumed() {
    postfix_resumes("starttls", "1.3", "smtp_tls_mandatory_protocols = >=TLSv1.3");
}

#[test]
fn postfix_where_tls_comes_first() {
    postfix_resumes("implicit", "1.3", "smtp_tls_wrappermode = yes");
}

#[test]
fn exim_with_tls_1_2_only() {
    exim_with("starttls", "1.2", "tls_require_ciphers = NORMAL:-VERS-ALL:+VERS-TLS1.2");
}

#[test]
fn exim_with_tls_1_3_only() {
    exim_with("starttls", "1.3", "tls_require_ciphers = NORMAL:-VERS-ALL:+VERS-TLS1.3");
}

#[test]
fn exim_where_tls_comes_first() {
    exim_with("implicit", "1.3", "protocol = smtps");
}

#[test]
fn postfix_with_tls_1_1_only_comes_in_clear() {
    let (site, daemon) = started();
    let settings = [OLD_POSTFIX.as_slice(), &["smtp_tls_security_level = may"]].concat();
    let mut postfix = Postfix::start(daemon.smtp("starttls"), &settings);
    postfix.submit(&[], SENDER, &[USER], TEXT);
    // It does not try in clear by itself: without us its mail would be stuck.
    postfix.wait_for_log("status=deferred (Cannot start TLS: handshake failure)");
    postfix.retry();
    postfix.wait_for_log("status=sent");
    assert_came_in_clear(&site, daemon);
}

#[test]
fn exim_with_tls_1_1_only_comes_in_clear() {
    let (site, daemon) = started();
    let only = "tls_require_ciphers = NORMAL:-VERS-ALL:+VERS-TLS1.1:%VERIFY_ALLOW_BROKEN";
    let exim = Exim::new(daemon.smtp("starttls"), &[only]);
    let said = exim.send(SENDER, &[USER], TEXT);
    assert!(exim.log().contains("250 2.0.0 Ok: queued as "), "{}\n{said}", exim.log());
    assert_came_in_clear(&site, daemon);
}

fn started() -> (Site, Daemon) {
    let site = site_with_both_keys("");
    let daemon = site.start().unwrap();
    (site, daemon)
}

/// Two messages one after the other, in two connections.
fn postfix_resumes(mode: &str, version: &str, setting: &str) {
    let (site, daemon) = started();
    let settings = [
        "smtp_tls_security_level = encrypt",
        "smtp_tls_loglevel = 1",
        "smtp_tls_session_cache_database = btree:$data_directory/sessions",
        "smtp_connection_cache_on_demand = no",
        setting,
    ];
    let mut postfix = Postfix::start(daemon.smtp(mode), &settings);
    for _ in 0..2 {
        postfix.submit(&[], SENDER, &[USER], TEXT);
        let line = postfix.wait_for_log("TLS connection established to ");
        assert!(line.contains(&format!(": TLSv{version} with cipher ")), "{line}");
        postfix.wait_for_log("status=sent");
    }
    let report = report_of(&site, 2);
    assert_established(&report, version, 2);
    assert_eq!(report["handshakes"]["resumed"], 1, "{report:#}");
    assert_delivered(&site, daemon, 2, "ESMTPS");
}

fn exim_with(mode: &str, version: &str, setting: &str) {
    let (site, daemon) = started();
    let exim = Exim::new(daemon.smtp(mode), &["hosts_require_tls = *", setting]);
    let said = exim.send(SENDER, &[USER], TEXT);
    assert!(exim.log().contains(&format!(" X=TLS{version}:")), "{}\n{said}", exim.log());
    assert_established(&report_of(&site, 1), version, 1);
    assert_delivered(&site, daemon, 1, "ESMTPS");
}

fn assert_established(report: &Value, version: &str, count: u64) {
    let expected = serde_json::json!({ format!("TLS {version}"): count });
    assert_eq!(report["handshakes"]["by_version"], expected, "{report:#}");
    assert_eq!(report["handshakes"]["failed"], 0, "{report:#}");
}

/// One handshake failed, because of the version, and then the same relay came again.
fn assert_came_in_clear(site: &Site, daemon: Daemon) {
    let failure = failure(site);
    assert_eq!(failure["verdict"], "old_versions_only", "{failure:#}");
    assert_eq!(failure["count"], 1, "{failure:#}");
    wait_for("word of the mail that came", REPORT_TIMEOUT, || {
        report(site)["failures"][0]["afterwards"] == "in clear"
    });
    assert!(!daemon.offers_starttls());
    assert_delivered(site, daemon, 1, "ESMTP");
}

fn assert_delivered(site: &Site, daemon: Daemon, count: usize, protocol: &str) {
    daemon.wait_until_delivered();
    stop(daemon);
    let messages = site.maildir().messages().unwrap();
    assert_eq!(messages.len(), count);
    for message in &messages {
        let shown = message.escape_ascii();
        let with = format!("by mx.test with {protocol} id ");
        let has = |words: &[u8]| message.windows(words.len()).any(|octets| octets == words);
        assert!(has(with.as_bytes()) && message.ends_with(TEXT), "{shown}");
    }
}
