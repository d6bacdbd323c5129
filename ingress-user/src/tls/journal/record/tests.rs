use super::*;
use crate::tls::journal::day::DAYS_MAX;
use crate::tls::journal::failure::FAILURES_MAX;
use crate::tls::journal::report::{Direction, HandshakeCounts};
use crate::tls::memory::MemorySettings;
use crate::tls::probe::hello::Hello;
use crate::tls::verdict::{Ending, KeyKind, Stage};

const NOW: u64 = 1_795_500_000;

fn journal() -> Journal {
    let own = Box::new(|| Own::with_keys(&[]));
    Journal::new(Memory::new(MemorySettings::default()), own)
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4((0xc000_0200 + number).into())
}

fn handshake(client: IpAddr, implicit: bool, outcome: Outcome) -> Event {
    Event::Handshake(Box::new(Handshake { client, helo: None, implicit, outcome }))
}

/// Octets that are refused as no ClientHello, which is a matter of negotiation.
fn failed() -> Outcome {
    let (stage, ending) = (Stage::HelloReceived, Ending::WeRefused);
    let hello = vec![0x16, 3, 1, 0, 1, 0xff];
    Outcome::Failed(Failed { stage, ending, alert_sent: Some(10), hello })
}

fn message(client: IpAddr, cover: Cover) -> Event {
    Event::FirstMessage { client, cover, offered: false }
}

fn tls(version: u16) -> Cover {
    Cover::Tls { version, first: false }
}

fn established() -> Outcome {
    Outcome::Established { version: 0x0304, suite: 0x1301, resumed: false }
}

#[test]
fn a_failure_where_tls_comes_first_withholds_no_starttls() {
    let mut journal = journal();
    assert!(journal.take(handshake(client(1), true, failed()), NOW));
    assert!(journal.withheld(NOW).is_empty());
    assert!(journal.take(handshake(client(1), false, failed()), NOW));
    assert_eq!(journal.withheld(NOW).len(), 1);
    let report = journal.report(NOW, DAY_SECONDS, 0);
    assert_eq!(report.handshakes.failed, 2);
    assert_eq!(report.failures.len(), 1);
    assert_eq!(report.failures[0].count, 2);
}

#[test]
fn a_report_covers_the_days_asked_for_and_a_month_at_most() {
    let mut journal = journal();
    for day in 0..40 {
        let now = NOW + day * DAY_SECONDS;
        let _ = journal.take(handshake(client(1), false, established()), now);
        let _ = journal.take(message(client(1), tls(0x0304)), now);
    }
    let now = NOW + 39 * DAY_SECONDS;
    let established = |days: u64| {
        let report = journal.report(now, days * DAY_SECONDS, 0);
        assert_eq!(report.sessions.over_tls, report.handshakes.established);
        report.handshakes.established
    };
    assert_eq!((established(0), established(1), established(7)), (1, 2, 8));
    assert_eq!(established(365), DAYS_MAX as u64);
}

#[test]
fn the_cost_of_a_higher_minimum_counts_messages_and_not_sessions() {
    let mut journal = journal();
    let floor = |journal: &Journal| journal.report(NOW, DAY_SECONDS, 0).floor.unwrap();
    let nothing = floor(&journal);
    assert_eq!((nothing.messages, nothing.would_have_come_in_clear_percent), (0, None));
    let _ = journal.take(message(client(1), tls(0x0303)), NOW);
    let _ = journal.take(message(client(2), tls(0x0304)), NOW);
    let _ = journal.take(message(client(3), Cover::Clear), NOW);
    let further = Event::FurtherMessages { cover: tls(0x0304), count: 43 };
    let _ = journal.take(further, NOW);
    let cover = Cover::Tls { version: 0x0303, first: true };
    let _ = journal.take(Event::FurtherMessages { cover, count: 2 }, NOW);
    let cost = floor(&journal);
    assert_eq!((cost.minimum.as_str(), cost.messages), ("TLS 1.3", 48));
    assert_eq!(cost.would_have_come_in_clear_percent, Some(2.08));
    assert_eq!(cost.would_not_have_come_percent, Some(4.17));
    let report = journal.report(NOW, DAY_SECONDS, 0);
    assert_eq!((report.sessions.over_tls, report.sessions.in_clear), (2, 1));
    assert_eq!((report.messages.over_tls, report.messages.in_clear), (47, 1));
    assert_eq!(report.messages.by_version["TLS 1.2"], 3);
}

#[test]
fn where_the_newest_version_is_required_there_is_no_higher_minimum() {
    let own = Box::new(|| Own { versions: vec![0x0304], ..Own::with_keys(&[]) });
    let journal = Journal::new(Memory::new(MemorySettings::default()), own);
    assert_eq!(journal.report(NOW, DAY_SECONDS, 0).floor, None);
}

#[test]
fn a_flood_of_failures_is_counted_and_only_the_last_are_kept() {
    let mut journal = journal();
    let flood = FAILURES_MAX as u32 + 10;
    for number in 0..flood {
        let _ = journal.take(handshake(client(number), true, failed()), NOW);
    }
    assert_eq!(journal.failures.latest().count(), FAILURES_MAX);
    let report = journal.report(NOW, DAY_SECONDS, 3);
    assert_eq!(report.handshakes.failed, u64::from(flood));
    assert_eq!(report.missed, 3);
}

/// A client of CBC suites alone.
fn refused() -> Outcome {
    let (stage, ending) = (Stage::HelloReceived, Ending::WeRefused);
    let hello = Hello::of_2012(&[0xc009]).octets();
    Outcome::Failed(Failed { stage, ending, alert_sent: Some(40), hello })
}

#[test]
fn a_group_of_failures_tells_the_last_one_in_full() {
    let mut journal = journal();
    journal.own = Box::new(|| Own::with_keys(&[KeyKind::EcdsaP256]));
    let _ = journal.take(handshake(client(1), false, refused()), NOW);
    let group = journal.report(NOW, DAY_SECONDS, 0).failures.remove(0);
    assert_eq!(group.client, client(1));
    assert_eq!((group.stage, group.outcome.as_str()), (Stage::HelloReceived, "we_refused"));
    let alert = group.alert.unwrap();
    assert_eq!((alert.direction, alert.name.as_str()), (Direction::Sent, "handshake_failure"));
    assert_eq!(
        group.offered.as_ref().unwrap().parameters.suites,
        ["TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"]
    );
    let usable = group.usable.unwrap();
    assert_eq!(usable.versions, ["TLS 1.2"]);
    assert!(usable.suites.is_empty() && !usable.groups.is_empty(), "{usable:?}");
}

#[test]
fn an_alert_received_is_told_from_one_sent_and_an_unread_hello_has_nothing_usable() {
    let mut journal = journal();
    let (stage, ending) = (Stage::FlightSent, Ending::AlertReceived(48));
    let failed = Failed { stage, ending, alert_sent: None, hello: Vec::new() };
    let _ = journal.take(handshake(client(1), false, Outcome::Failed(failed)), NOW);
    let group = journal.report(NOW, DAY_SECONDS, 0).failures.remove(0);
    let alert = group.alert.unwrap();
    assert_eq!((alert.direction, alert.name.as_str()), (Direction::Received, "unknown_ca"));
    assert_eq!(group.usable, None);
}

#[test]
fn the_sentence_fits_the_listener_and_what_the_memory_did() {
    let mut journal = journal();
    let mut explanation = |number: u32, implicit: bool| {
        let _ = journal.take(handshake(client(number), implicit, refused()), NOW);
        journal.report(NOW, DAY_SECONDS, 0).failures.remove(0).remedy
    };
    assert!(explanation(1, false).contains("its next try will come in clear"));
    assert!(explanation(2, true).contains("none of its mail comes in on this port"));
    let _ = journal.take(handshake(client(3), false, established()), NOW);
    let _ = journal.take(handshake(client(3), false, refused()), NOW);
    let report = journal.report(NOW, DAY_SECONDS, 0);
    assert!(report.failures[0].remedy.contains("tries with STARTTLS fail"));
}

#[test]
fn a_self_test_leaves_no_trace_but_its_count() {
    let mut journal = journal();
    let network = IpNet::from(client(1));
    journal.pin(network, Some(Pin::Withhold), NOW);
    assert_eq!(journal.withheld(NOW).len(), 1);
    journal.begin_self_test(network, NOW);
    assert!(journal.withheld(NOW).is_empty(), "the self-test is not offered STARTTLS");
    let before = journal.peer_reports(NOW);
    for implicit in [false, true] {
        let _ = journal.take(handshake(client(1), implicit, failed()), NOW);
    }
    let _ = journal.take(handshake(client(1), false, established()), NOW);
    assert_eq!(journal.peer_reports(NOW), before);
    let report = journal.report(NOW, DAY_SECONDS, 0);
    assert_eq!(report.handshakes, HandshakeCounts { self_tests: 3, ..Default::default() });
    assert!(report.failures.is_empty() && journal.totals.verdicts.is_empty());
    journal.end_self_test(network);
    assert_eq!(journal.withheld(NOW).len(), 1);
    let _ = journal.take(handshake(client(1), false, failed()), NOW);
    assert_eq!(journal.report(NOW, DAY_SECONDS, 0).handshakes.failed, 1);
}

#[test]
fn what_came_afterwards_is_told() {
    let mut journal = journal();
    let _ = journal.take(handshake(client(1), false, failed()), NOW);
    let afterwards =
        |journal: &Journal| journal.report(NOW, DAY_SECONDS, 0).failures[0].afterwards.clone();
    assert_eq!(afterwards(&journal), "not yet");
    let _ = journal.take(message(client(1), Cover::Clear), NOW + 1);
    assert_eq!(afterwards(&journal), "in clear");
    let _ = journal.take(handshake(client(1), false, established()), NOW + 2);
    assert_eq!(afterwards(&journal), "in clear", "a handshake alone brings no mail");
    let _ = journal.take(message(client(1), tls(0x0304)), NOW + 2);
    assert_eq!(afterwards(&journal), "over TLS");
}

#[test]
fn mail_just_before_a_failure_did_not_come_after_it() {
    let mut journal = journal();
    // All within the same second.
    let _ = journal.take(handshake(client(1), false, established()), NOW);
    let _ = journal.take(message(client(1), tls(0x0304)), NOW);
    let _ = journal.take(handshake(client(1), false, failed()), NOW);
    let afterwards =
        |journal: &Journal| journal.report(NOW, DAY_SECONDS, 0).failures[0].afterwards.clone();
    assert_eq!(afterwards(&journal), "not yet");
    let _ = journal.take(message(client(1), Cover::Clear), NOW);
    assert_eq!(afterwards(&journal), "in clear");
}
