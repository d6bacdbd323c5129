//! testssl.sh against both kinds of listener. What it finds fault with must be explained in the README of the TLS module.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ingress_tests::certificates::site_with_an_authority;
use ingress_tests::programs::testssl;
use serde_json::Value;

/// Not to be denied STARTTLS after the first of its many failures.
const EXEMPT: &str = "\n[tls.memory]\nexempt = [\"127.0.0.0/8\"]\n";

/// Protocols, defaults, preferences, kinds of cipher suites, forward secrecy, vulnerabilities.
const SECTIONS: [&str; 6] = ["-p", "-S", "-P", "-s", "-f", "-U"];

/// Sections that must have been tested: what testssl.sh leaves out, it does not find.
const TESTED: [&str; 8] = [
    "TLS1",
    "TLS1_2",
    "TLS1_3",
    "cert_chain_of_trust",
    "cipherlist_NULL",
    "PFS",
    "heartbleed",
    "LUCKY13",
];

#[test]
fn testssl_finds_nothing_through_starttls_that_is_not_explained() {
    audit("starttls", &["--starttls", "smtp"]);
}

#[test]
fn testssl_finds_nothing_where_tls_comes_first_that_is_not_explained() {
    audit("implicit", &[]);
}

fn audit(mode: &str, arguments: &[&str]) {
    let (site, authority) = site_with_an_authority(EXEMPT);
    let daemon = site.start().unwrap();
    let address = daemon.smtp(mode);
    let file = site.folder().join("findings.json");
    let mut command = testssl();
    command.args(["--quiet", "--warnings=batch", "--color", "0", "--nodns", "none"]);
    command.args(["--connect-timeout", "20", "--openssl-timeout", "20"]).args(SECTIONS);
    command.arg("--add-ca").arg(authority).arg("--jsonfile").arg(&file).args(arguments);
    // It looks nothing up: the name is for SNI and the certificate.
    let host = format!("mx.test:{}", address.port());
    command.args(["--ip", &address.ip().to_string(), &host]);
    // Its exit status counts findings.
    let output = command.current_dir(site.folder()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(" Done "), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let findings = findings(&file);
    for id in TESTED {
        assert!(findings.iter().any(|finding| name(finding) == id), "{id} is missing: {said}");
    }
    let explained = explained();
    let is_explained = |(id, severity): &(String, String)| explained.get(id) == Some(severity);
    let faults: Vec<(String, String)> = findings.iter().filter_map(fault).collect();
    let unexplained: Vec<_> = faults.iter().filter(|fault| !is_explained(fault)).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}: {said}");
    // What testssl.sh could not do it may be able to do another time; a fault is one always, or its row has to go.
    for (id, severity) in explained.iter().filter(|(_, severity)| *severity != "WARN") {
        let is_it = |fault: &(String, String)| (&fault.0, &fault.1) == (id, severity);
        assert!(faults.iter().any(is_it), "{id} is found no more: {said}");
    }
    assert!(daemon.stop().unwrap().status.success());
}

fn findings(file: &Path) -> Vec<Value> {
    let text = fs::read(file).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap().as_array().unwrap().clone()
}

/// Its number says which certificate it is about, if it is about one: `cert_trust <cert#1>`.
fn name(finding: &Value) -> &str {
    finding["id"].as_str().unwrap().split(' ').next().unwrap_or_default()
}

/// Name and severity of what is above LOW, or could not be tested.
fn fault(finding: &Value) -> Option<(String, String)> {
    let severity = finding["severity"].as_str().unwrap();
    let harmless = ["OK", "INFO", "LOW", "DEBUG"].contains(&severity);
    (!harmless).then(|| (name(finding).to_owned(), severity.to_owned()))
}

/// Names and severities in the table of the README.
fn explained() -> BTreeMap<String, String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ingress-user/src/tls/README.md");
    let text = fs::read_to_string(readme).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |line: &str| {
        let [id, severity, why, _] = *line.split('|').map(str::trim).collect::<Vec<_>>() else {
            panic!("not three cells: {line}");
        };
        assert!(why.ends_with('.'), "not explained: {line}");
        (id.trim_end_matches('`').to_owned(), severity.to_owned())
    };
    rows.map(row).collect()
}
