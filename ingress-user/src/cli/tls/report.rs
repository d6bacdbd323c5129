use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};

use super::time_text;
use crate::cli::daemon::{DaemonArguments, block_on};
use crate::control;
use crate::tls::journal::{
    Alert, Direction, FailureGroup, Floor, ParameterNames, Report, Withheld,
};
use crate::tls::verdict::Stage;

/// Seconds of each unit.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How far to look back, such as 7d or 12h; counts are by whole days, of which a month is kept
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = seconds)]
    since: u64,
    /// Print the daemon's JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let target = format!("/tls/report?seconds={}", arguments.since);
    let json = block_on(control::fetch(&arguments.daemon.socket()?, &target))??;
    if arguments.json {
        return crate::cli::print(&format!("{json}\n"));
    }
    let report: Report = serde_json::from_str(&json)
        .context("the daemon's answer is not what this version of ingress expects")?;
    crate::cli::print(&text(&report))
}

/// A length of time, as arguments have it.
pub(in crate::cli) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "not a time such as 7d, 12h or 30m".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or_else(wrong)
}

fn text(report: &Report) -> String {
    let Report { handshakes, sessions, messages, .. } = report;
    let share = messages.in_clear_percent.map(|share| format!(" ({share:.1} %)"));
    // Writing to a String cannot fail.
    let mut text = format!(
        "handshakes  {} established ({} resumed), {} failed\n\
         sessions    {} with mail over TLS, {} in clear, {} of them perhaps stripped\n\
         messages    {} over TLS, {} in clear{}\n",
        handshakes.established,
        handshakes.resumed,
        handshakes.failed,
        sessions.over_tls,
        sessions.in_clear,
        sessions.stripped,
        messages.over_tls,
        messages.in_clear,
        share.unwrap_or_default()
    );
    counts(&mut text, "mail over", &messages.by_version);
    if let Some(floor) = &report.floor {
        let _ = writeln!(text, "floor       {}", cost(floor, report.since_seconds));
    }
    if handshakes.self_tests > 0 {
        let count = handshakes.self_tests;
        let _ = writeln!(text, "self-tests  {count} handshakes, in no other count");
    }
    counts(&mut text, "versions", &handshakes.by_version);
    counts(&mut text, "suites", &handshakes.by_suite);
    counts(&mut text, "failures", &handshakes.by_verdict);
    if report.missed > 0 {
        let _ = writeln!(
            text,
            "missed      {} reports came faster than they were counted",
            report.missed
        );
    }
    for Withheld { network, reason, until } in &report.memory {
        let until = until.map(|until| format!(" until {}", time_text(until))).unwrap_or_default();
        let _ = writeln!(text, "withheld    {network} is not offered STARTTLS{until} ({reason})");
    }
    for group in &report.failures {
        failure(&mut text, group);
    }
    text
}

/// What a higher minimum would have done to the mail of the time.
fn cost(floor: &Floor, since_seconds: u64) -> String {
    let (minimum, period) = (&floor.minimum, period(since_seconds));
    let Some(in_clear) = floor.would_have_come_in_clear_percent else {
        return format!(
            "no mail came in the last {period}: what raising the minimum to {minimum} costs is not known"
        );
    };
    let away = match floor.would_not_have_come_percent {
        Some(away) if away > 0.0 => {
            format!(", and kept away {away:.1} % that came where TLS comes first")
        }
        _ => String::new(),
    };
    format!(
        "raising the minimum to {minimum} would have sent {in_clear:.1} % of mail of the last {period} in clear{away}"
    )
}

/// In the largest unit that divides it: "7 days".
fn period(seconds: u64) -> String {
    let names = ["day", "hour", "minute", "second"];
    let units = UNITS.iter().map(|(_, unit)| unit).zip(names);
    let mut whole = units.filter(|(unit, _)| seconds.is_multiple_of(**unit));
    match whole.next().map(|(unit, name)| (seconds / unit, name)) {
        Some((1, name)) => name.to_owned(),
        Some((count, name)) => format!("{count} {name}s"),
        None => format!("{seconds} seconds"),
    }
}

fn counts(text: &mut String, title: &str, counts: &BTreeMap<String, u64>) {
    let mut title = title;
    for (name, count) in counts {
        let _ = writeln!(text, "{title:<11} {count:>8} {name}");
        title = "";
    }
}

fn failure(text: &mut String, group: &FailureGroup) {
    let FailureGroup { network, verdict, remedy, count, at, afterwards, .. } = group;
    let helo = group.helo.as_ref().map(|helo| format!(" ({helo})")).unwrap_or_default();
    let _ = writeln!(text, "\n{network}{helo}: {verdict}, {count} times, last {}", time_text(*at));
    let _ = writeln!(text, "  {remedy}");
    let _ = writeln!(text, "  its mail came afterwards: {afterwards}");
    let _ = writeln!(text, "  last from {}{}", group.client, progress(group));
    if let Some(offered) = &group.offered {
        let offers = by_title(&offered.parameters);
        for (title, offered) in offers.into_iter().filter(|(_, offered)| !offered.is_empty()) {
            let _ = writeln!(text, "  offered {title}: {}", offered.join(", "));
        }
    }
    for (title, usable) in group.usable.iter().flat_map(by_title) {
        let names = if usable.is_empty() { "none".to_owned() } else { usable.join(", ") };
        let _ = writeln!(text, "  usable {title}: {names}");
    }
}

fn by_title(parameters: &ParameterNames) -> [(&'static str, &[String]); 4] {
    let ParameterNames { versions, suites, groups, signature_schemes } = parameters;
    [("versions", versions), ("suites", suites), ("groups", groups), ("schemes", signature_schemes)]
}

/// How far the last handshake of the group got, and who ended it.
fn progress(group: &FailureGroup) -> String {
    let name = group.offered.as_ref().and_then(|offered| offered.server_name.as_ref());
    let name = name.map(|name| format!(" for {name}")).unwrap_or_default();
    let stage = match group.stage {
        Stage::Nothing => "no whole hello came",
        Stage::HelloReceived => "the hello came",
        Stage::FlightSent => "our answer was sent",
        Stage::Finished => "the handshake was through",
    };
    let ending = match group.outcome.as_str() {
        "closed_by_client" => "the client closed",
        "timed_out" => "time was up",
        "alert_received" => "the client broke off",
        _ => "we refused",
    };
    let alert = match &group.alert {
        None => String::new(),
        Some(Alert { direction: Direction::Sent, name }) => format!(", we sent the alert {name}"),
        Some(Alert { direction: Direction::Received, name }) => {
            format!(", it sent the alert {name}")
        }
    };
    format!("{name}: {stage}, then {ending}{alert}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::journal::{HandshakeCounts, MessageCounts, Offered, SessionCounts};

    #[test]
    fn a_time_needs_its_unit() {
        assert_eq!(seconds("7d"), Ok(604_800));
        assert_eq!(seconds("30m"), Ok(1_800));
        for bad in ["7", "", "d", "1w", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_cost_of_a_higher_minimum_is_not_guessed_from_nothing() {
        let floor = Floor { minimum: "TLS 1.3".to_owned(), ..Floor::default() };
        assert_eq!(
            cost(&floor, 86_400),
            "no mail came in the last day: what raising the minimum to TLS 1.3 costs is not known"
        );
        let floor = Floor {
            messages: 1_000,
            would_have_come_in_clear_percent: Some(2.1),
            would_not_have_come_percent: Some(0.3),
            ..floor
        };
        assert_eq!(
            cost(&floor, 43_200),
            "raising the minimum to TLS 1.3 would have sent 2.1 % of mail of the last 12 hours in clear, and kept \
             away 0.3 % that came where TLS comes first"
        );
    }

    #[test]
    fn a_failure_is_told_with_its_explanation_and_what_was_offered() {
        let report = Report {
            since_seconds: 604_800,
            handshakes: HandshakeCounts {
                established: 3,
                failed: 2,
                by_version: [("TLS 1.3".to_owned(), 3)].into(),
                by_verdict: [("old_versions_only".to_owned(), 2)].into(),
                ..HandshakeCounts::default()
            },
            sessions: SessionCounts { over_tls: 3, in_clear: 1, stripped: 0 },
            messages: MessageCounts {
                over_tls: 30,
                in_clear: 2,
                in_clear_percent: Some(6.25),
                by_version: [("TLS 1.2".to_owned(), 3), ("TLS 1.3".to_owned(), 27)].into(),
            },
            floor: Some(Floor {
                minimum: "TLS 1.3".to_owned(),
                messages: 32,
                would_have_come_in_clear_percent: Some(9.38),
                would_not_have_come_percent: Some(0.0),
            }),
            failures: vec![FailureGroup {
                network: "192.0.2.7/32".parse().unwrap(),
                verdict: "old_versions_only".to_owned(),
                remedy: "the client offers TLS 1.0 only".to_owned(),
                count: 2,
                at: 1_795_508_201,
                client: "192.0.2.7".parse().unwrap(),
                helo: Some("old.example.org".to_owned()),
                implicit: false,
                stage: Stage::HelloReceived,
                outcome: "we_refused".to_owned(),
                alert: Some(Alert {
                    direction: Direction::Sent,
                    name: "protocol_version".to_owned(),
                }),
                offered: Some(Offered {
                    server_name: Some("mx.test".to_owned()),
                    parameters: ParameterNames {
                        versions: vec!["TLS 1.0".to_owned()],
                        ..ParameterNames::default()
                    },
                }),
                usable: Some(ParameterNames {
                    groups: vec!["secp256r1".to_owned()],
                    ..ParameterNames::default()
                }),
                afterwards: "in clear".to_owned(),
            }],
            memory: vec![Withheld {
                network: "192.0.2.7/32".parse().unwrap(),
                reason: "old_versions_only".to_owned(),
                until: Some(1_795_594_601),
            }],
            missed: 0,
        };
        assert_eq!(
            text(&report),
            "\
handshakes  3 established (0 resumed), 2 failed
sessions    3 with mail over TLS, 1 in clear, 0 of them perhaps stripped
messages    30 over TLS, 2 in clear (6.2 %)
mail over          3 TLS 1.2
                  27 TLS 1.3
floor       raising the minimum to TLS 1.3 would have sent 9.4 % of mail of the last 7 days in clear
versions           3 TLS 1.3
failures           2 old_versions_only
withheld    192.0.2.7/32 is not offered STARTTLS until 2026-11-25T08:16:41Z (old_versions_only)

192.0.2.7/32 (old.example.org): old_versions_only, 2 times, last 2026-11-24T08:16:41Z
  the client offers TLS 1.0 only
  its mail came afterwards: in clear
  last from 192.0.2.7 for mx.test: the hello came, then we refused, we sent the alert protocol_version
  offered versions: TLS 1.0
  usable versions: none
  usable suites: none
  usable groups: secp256r1
  usable schemes: none
"
        );
    }
}
