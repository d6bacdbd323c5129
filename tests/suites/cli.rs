//! The command line from outside: output, exit codes, one line for an error.

use std::process::{Command, Output};

use ingress_tests::bin;
use ingress_tests::daemon::Site;

fn ingress(args: &[&str]) -> Output {
    Command::new(bin()).args(args).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

/// The one line of an error that ends with exit status 1.
fn error_line(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).expect("errors are UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("ingress: "), "{stderr}");
    stderr.trim_end().to_owned()
}

#[test]
fn check_prints_a_configuration_that_checks_to_itself() {
    let site = Site::new("[limits]\nidle_timeout = \"5s\"\n").unwrap();
    let first = site.command("check", &[]).unwrap();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(stdout(&first).contains("idle_timeout = \"5s\"\n"), "{first:?}");
    let again = Site::with_config(&stdout(&first)).unwrap().command("check", &[]).unwrap();
    assert_eq!(stdout(&again), stdout(&first));
}

#[test]
fn check_names_file_line_and_key_of_an_unknown_key() {
    let site =
        Site::with_config("hostname = \"mx.test\"\n[limits]\nidle_timout = \"5s\"\n").unwrap();
    let line = error_line(&site.command("check", &[]).unwrap());
    let place =
        format!("ingress: {}:3: [limits] idle_timout: unknown key", site.config().display());
    assert!(line.starts_with(&place), "{line}");
    assert!(line.ends_with("(did you mean idle_timeout?)"), "{line}");
}

#[test]
fn check_says_what_was_expected_of_a_value() {
    let site = Site::new("[limits]\nconnections_max = \"many\"\n").unwrap();
    let line = error_line(&site.command("check", &[]).unwrap());
    assert!(
        line.ends_with("[limits] connections_max = \"many\": expected a whole number"),
        "{line}"
    );
}

#[test]
fn a_missing_certificate_is_named_by_its_key() {
    let site =
        Site::new("[tls]\ncertificates = [ { chain = \"no.pem\", key = \"no.key\" } ]\n").unwrap();
    for verb in ["check", "run", "status"] {
        let line = error_line(&site.command(verb, &[]).unwrap());
        assert!(
            line.contains("[tls] certificates[0].chain = \"no.pem\": expected a readable"),
            "{line}"
        );
    }
}

#[test]
fn a_missing_file_is_one_line() {
    for verb in ["check", "run", "status"] {
        let line = error_line(&ingress(&[verb, "--config", "/nonexistent/ingress.toml"]));
        assert!(line.starts_with("ingress: /nonexistent/ingress.toml: cannot read"), "{line}");
        assert_eq!(line.matches("No such file").count(), 1, "{line}");
    }
}

#[test]
fn status_without_a_daemon_says_where_it_looked() {
    let site = Site::new("").unwrap();
    let socket = site.folder().join("state/control.sock");
    let expected = format!("ingress: no daemon answers on {}: No such file", socket.display());
    let line = error_line(&site.command("status", &["--json"]).unwrap());
    assert!(line.starts_with(&expected), "{line}");
    let named = ingress(&["status", "--socket", socket.to_str().unwrap()]);
    assert_eq!(error_line(&named), line);
}

#[test]
fn status_without_a_file_looks_in_the_embedded_defaults_folder() {
    let site = Site::new("").unwrap();
    let mut command = Command::new(bin());
    let output = command.arg("status").env("INGRESS_STATE_DIR", site.folder()).output().unwrap();
    let socket = site.folder().join("control.sock");
    assert!(error_line(&output).contains(&*socket.to_string_lossy()));
}

#[test]
fn a_running_daemon_tells_its_status_and_ends_with_0() {
    let site = Site::new("").unwrap();
    let daemon = site.start().unwrap();
    let json = stdout(&site.command("status", &["--json"]).unwrap());
    for name in ["\"connections_total\":0", "\"tier\":", "\"pending\":0", "\"verdicts\":"] {
        assert!(json.contains(name), "{name} is not in {json}");
    }
    assert!(json.contains(&format!("\"{}\"", daemon.smtp("starttls"))), "{json}");
    let text = stdout(&site.command("status", &[]).unwrap());
    assert!(text.starts_with("mx.test (ingress "), "{text}");
    assert!(daemon.stop().unwrap().status.success());
}

#[test]
fn a_second_daemon_is_refused_and_a_killed_ones_socket_replaced() {
    let site = Site::new("").unwrap();
    let first = site.start().unwrap();
    expect_refused_start(&site.command("run", &[]).unwrap());
    first.kill().unwrap();
    let next = site.start().unwrap();
    assert_eq!(site.command("status", &[]).unwrap().status.code(), Some(0));
    drop(next);
}

/// The last line on stderr of a daemon that did not start; what it logged before does not count.
fn expect_refused_start(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.lines().last().is_some_and(|line| line.starts_with("ingress: ")), "{stderr}");
}

#[test]
fn usage_errors_exit_2() {
    let table: [&[&str]; 5] = [
        &[],
        &["frobnicate"],
        &["check"],
        &["run", "--port", "25"],
        &["status", "--config", "a", "--socket", "b"],
    ];
    for args in table {
        assert_eq!(ingress(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn help_mentions_every_verb_and_option() {
    let overview = stdout(&ingress(&["--help"]));
    for verb in ["run", "check", "status"] {
        assert!(overview.contains(verb), "{overview}");
        let help = ingress(&[verb, "--help"]);
        assert_eq!(help.status.code(), Some(0));
        assert!(stdout(&help).contains("--config <FILE>"), "{help:?}");
    }
    let help = stdout(&ingress(&["status", "--help"]));
    assert!(help.contains("--json") && help.contains("--socket <PATH>"), "{help}");
    assert!(stdout(&ingress(&["--version"])).starts_with("ingress "));
}
