use std::fmt::Write;

use super::{CertificateReport, ListenerReport, Report};
use crate::tls::probe::{Outcome, Row};

pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{:<23} {:<27} {:<14} why\n", "profile", "listener", "outcome");
    // Writing to a String cannot fail.
    for ListenerReport { listener, profiles, .. } in &report.listeners {
        for Row { profile, outcome, explanation, .. } in profiles {
            let outcome = match outcome {
                Outcome::Works => "works",
                Outcome::FallsToClear => "falls to clear",
                Outcome::Fails => "fails",
            };
            let _ = writeln!(text, "{profile:<23} {listener:<27} {outcome:<14} {explanation}");
        }
    }
    for ListenerReport { listener, certificates, .. } in &report.listeners {
        for certificate in certificates {
            chain(&mut text, listener, certificate);
        }
    }
    let _ = writeln!(text, "\nmemory of peers: {}", report.memory);
    text
}

fn chain(text: &mut String, listener: &str, certificate: &CertificateReport) {
    let CertificateReport { key, chain } = certificate;
    let names = chain.names.join(", ");
    let _ = writeln!(
        text,
        "\n{listener}: {key} certificate for {names}, valid until {}, {} in the chain",
        chain.not_after, chain.certificates
    );
    for finding in &chain.findings {
        let _ = writeln!(text, "  {finding}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::probe::chain::ChainReport;

    #[test]
    fn the_table_is_followed_by_the_chains_and_what_became_of_the_memory() {
        let row = Row {
            profile: "TLS 1.0 only",
            outcome: Outcome::FallsToClear,
            verdict: Some("old_versions_only"),
            explanation: "too old".to_owned(),
        };
        let chain = ChainReport {
            names: vec!["mx.test".to_owned()],
            not_after: "2027-01-01T00:00:00Z".to_owned(),
            certificates: 1,
            findings: vec!["self-signed".to_owned()],
        };
        let listener = ListenerReport {
            listener: "127.0.0.1:25/starttls".to_owned(),
            profiles: vec![row],
            certificates: vec![CertificateReport { key: "RSA", chain }],
        };
        let report = Report { listeners: vec![listener], memory: "as before".to_owned() };
        assert_eq!(
            text(&report),
            "\
profile                 listener                    outcome        why
TLS 1.0 only            127.0.0.1:25/starttls       falls to clear too old

127.0.0.1:25/starttls: RSA certificate for mx.test, valid until 2027-01-01T00:00:00Z, 1 in the chain
  self-signed

memory of peers: as before
"
        );
    }
}
