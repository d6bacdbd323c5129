//! What the daemon has to say of TLS handshakes.

use std::time::Duration;

use serde_json::Value;

use crate::daemon::Site;
use crate::wait::wait_for;

/// From the end of a handshake to its line in the report.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(20);

/// `ingress tls report --json`.
pub fn report(site: &Site) -> Value {
    let output = site.command_after("tls", &["report", "--json"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The report, once it counts so many handshakes in all.
pub fn report_of(site: &Site, handshakes: u64) -> Value {
    let mut report = Value::Null;
    wait_for(&format!("report of {handshakes} handshakes"), REPORT_TIMEOUT, || {
        report = self::report(site);
        let counts = &report["handshakes"];
        let count = |key: &str| counts[key].as_u64().unwrap();
        count("established") + count("failed") >= handshakes
    });
    let all = &report["handshakes"];
    let counted = all["established"].as_u64().unwrap() + all["failed"].as_u64().unwrap();
    assert_eq!(counted, handshakes, "{report:#}");
    report
}

/// The only failure so far, once it is there.
pub fn failure(site: &Site) -> Value {
    let mut failures = Vec::new();
    wait_for("failure in the report", REPORT_TIMEOUT, || {
        failures = report(site)["failures"].as_array().unwrap().clone();
        !failures.is_empty()
    });
    assert_eq!(failures.len(), 1, "{failures:#?}");
    failures.remove(0)
}

/// The networks that are not offered STARTTLS, by the report.
pub fn withheld(site: &Site) -> Vec<String> {
    let network = |peer: &Value| peer["network"].as_str().unwrap().to_owned();
    report(site)["memory"].as_array().unwrap().iter().map(network).collect()
}

/// The lines of a daemon's log that explain failures.
pub fn explained(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("TLS handshake failed: ")).collect()
}
