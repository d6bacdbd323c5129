use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};

use super::time_text;
use crate::cli::daemon::{DaemonArguments, block_on};
use crate::control;
use crate::tls::journal::{FailureGroup, Report};

/// Seconds of each unit of `--since`.
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

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "not a time such as 7d, 12h or 30m".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or_else(wrong)
}

fn text(report: &Report) -> String {
    let (handshakes, sessions) = (&report.handshakes, &report.sessions);
    let all = sessions.over_tls + sessions.in_clear;
    let share = if all == 0 { 0.0 } else { 100.0 * sessions.in_clear as f64 / all as f64 };
    let mut text = format!(
        "handshakes  {} established ({} resumed), {} failed\n\
         sessions    {} with mail over TLS, {} in clear ({share:.1} %), {} of them perhaps stripped\n",
        handshakes.established,
        handshakes.resumed,
        handshakes.failed,
        sessions.over_tls,
        sessions.in_clear,
        sessions.stripped
    );
    counts(&mut text, "versions", &handshakes.by_version);
    counts(&mut text, "suites", &handshakes.by_suite);
    counts(&mut text, "failures", &handshakes.by_verdict);
    if report.missed > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "missed      {} reports came faster than they were counted",
            report.missed
        );
    }
    for network in &report.withheld {
        let _ = writeln!(text, "withheld    {network} is not offered STARTTLS");
    }
    for group in &report.failures {
        failure(&mut text, group);
    }
    text
}

fn counts(text: &mut String, title: &str, counts: &BTreeMap<String, u64>) {
    let mut title = title;
    for (name, count) in counts {
        let _ = writeln!(text, "{title:<11} {count:>8} {name}");
        title = "";
    }
}

fn failure(text: &mut String, group: &FailureGroup) {
    let FailureGroup { network, verdict, explanation, count, last, afterwards, .. } = group;
    let helo = group.helo.as_ref().map(|helo| format!(" ({helo})")).unwrap_or_default();
    let _ =
        writeln!(text, "\n{network}{helo}: {verdict}, {count} times, last {}", time_text(*last));
    let _ = writeln!(text, "  {explanation}");
    let _ = writeln!(text, "  its mail came afterwards: {afterwards}");
    let offers = [
        ("versions", &group.versions),
        ("suites", &group.suites),
        ("groups", &group.groups),
        ("schemes", &group.schemes),
    ];
    for (title, offered) in offers.into_iter().filter(|(_, offered)| !offered.is_empty()) {
        let _ = writeln!(text, "  offered {title}: {}", offered.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::journal::{HandshakeCounts, SessionCounts};

    #[test]
    fn a_time_needs_its_unit() {
        assert_eq!(seconds("7d"), Ok(604_800));
        assert_eq!(seconds("30m"), Ok(1_800));
        for bad in ["7", "", "d", "1w", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
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
            failures: vec![FailureGroup {
                network: "192.0.2.7/32".parse().unwrap(),
                verdict: "old_versions_only".to_owned(),
                explanation: "the client offers TLS 1.0 only".to_owned(),
                count: 2,
                last: 1_795_508_201,
                helo: Some("old.example.org".to_owned()),
                server_name: None,
                versions: vec!["TLS 1.0".to_owned()],
                suites: Vec::new(),
                groups: Vec::new(),
                schemes: Vec::new(),
                afterwards: "in clear".to_owned(),
            }],
            withheld: vec!["192.0.2.7/32".parse().unwrap()],
            missed: 0,
        };
        assert_eq!(
            text(&report),
            "\
handshakes  3 established (0 resumed), 2 failed
sessions    3 with mail over TLS, 1 in clear (25.0 %), 0 of them perhaps stripped
versions           3 TLS 1.3
failures           2 old_versions_only
withheld    192.0.2.7/32 is not offered STARTTLS

192.0.2.7/32 (old.example.org): old_versions_only, 2 times, last 2026-11-24T08:16:41Z
  the client offers TLS 1.0 only
  its mail came afterwards: in clear
  offered versions: TLS 1.0
"
        );
    }
}
