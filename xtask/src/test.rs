use std::fs;

use anyhow::{Context, Result, ensure};

use crate::tools::{self, Tool};
use crate::{build, setup, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run these suites only (`host`, `harness`, or a file name in tests/suites without .rs)
    suites: Vec<String>,
}

/// Everything that is not a suite of the real binary: unit, property and dialogue tests.
const HOST: &str = "host";
/// What the suites of the real binary have in common.
const HARNESS: &str = "harness";

const SMTP_SOURCE: Tool = ("smtp-source", "postfix");

/// Programs that suites drive the daemon with.
const TOOLS: [Tool; 7] = [
    SMTP_SOURCE,
    ("swaks", "swaks"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// What a suite cannot run without, beyond the daemon. A suite not listed needs nothing.
struct Needs {
    suite: &'static str,
    root: bool,
    programs: &'static [&'static str],
}

const NEEDS: [Needs; 4] = [
    Needs { suite: "mail", root: false, programs: &["smtp-source", "swaks", "openssl", "python3"] },
    Needs { suite: "durability", root: false, programs: &["smtp-source"] },
    Needs { suite: "netns", root: true, programs: &["ip", "ethtool"] },
    Needs { suite: "vm", root: true, programs: &["qemu-system-x86_64"] },
];

enum Outcome {
    Passed,
    Failed(anyhow::Error),
    Skipped(String),
}

/// Sets up, builds, runs every suite, and ends with what ran and what did not and why.
pub(crate) fn run(options: Options) -> Result<()> {
    setup::ensure()?;
    let all = suites()?;
    if let Some(unknown) = options.suites.iter().find(|suite| !all.contains(suite)) {
        anyhow::bail!("no suite {unknown}; there are {}", all.join(", "));
    }
    let chosen = |suite: &String| options.suites.is_empty() || options.suites.contains(suite);
    let chosen: Vec<String> = all.into_iter().filter(chosen).collect();
    install_tools(&chosen)?;
    build::build(true)?;
    let outcomes: Vec<(String, Outcome)> = chosen
        .into_iter()
        .map(|suite| {
            let outcome = run_suite(&suite);
            (suite, outcome)
        })
        .collect();
    summarise(&outcomes)
}

/// The host tests, then the files in tests/suites: a new suite is run without a change here.
fn suites() -> Result<Vec<String>> {
    let folder = shell::root().join("tests/suites");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut suites = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        suites.extend(name.to_str().and_then(|name| name.strip_suffix(".rs")).map(str::to_owned));
    }
    suites.sort();
    Ok([HOST, HARNESS].map(str::to_owned).into_iter().chain(suites).collect())
}

fn install_tools(suites: &[String]) -> Result<()> {
    let needed = |(program, _): &Tool| {
        let needs = NEEDS.iter().filter(|needs| suites.iter().any(|suite| suite == needs.suite));
        needs.flat_map(|needs| needs.programs).any(|name| name == program)
    };
    let tools: Vec<Tool> = TOOLS.into_iter().filter(needed).collect();
    // What is missing still is the reason of a skip below.
    tools::install(&tools).map(drop)
}

fn run_suite(suite: &str) -> Outcome {
    if let Some(reason) = NEEDS.iter().find(|needs| needs.suite == suite).and_then(unmet) {
        return Outcome::Skipped(reason);
    }
    let mut cargo = shell::cargo();
    cargo.args(["test", "--locked"]).env("INGRESS_BIN", shell::daemon());
    match suite {
        HOST => cargo.args(["--workspace", "--exclude", "ingress-tests"]),
        HARNESS => cargo.args(["--package", "ingress-tests", "--lib"]),
        _ => cargo.args(["--package", "ingress-tests", "--test", suite]),
    };
    if NEEDS.iter().any(|needs| needs.suite == suite && needs.root) {
        // Namespaces, interfaces and CPUs are the machine's: one test at a time.
        cargo.args(["--", "--test-threads=1"]);
    }
    match shell::run(&mut cargo) {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(error),
    }
}

fn unmet(needs: &Needs) -> Option<String> {
    if needs.root && !shell::is_root() {
        return Some("needs root".to_owned());
    }
    let missing: Vec<String> = TOOLS
        .iter()
        .filter(|(program, _)| needs.programs.contains(program) && !shell::has(program))
        .map(|(program, package)| format!("{program} (apt-get install {package})"))
        .collect();
    (!missing.is_empty()).then(|| format!("needs {}", missing.join(", ")))
}

fn summarise(outcomes: &[(String, Outcome)]) -> Result<()> {
    println!();
    for (suite, outcome) in outcomes {
        match outcome {
            Outcome::Passed => println!("passed   {suite}"),
            Outcome::Failed(error) => println!("FAILED   {suite}: {error:#}"),
            Outcome::Skipped(reason) => println!("skipped  {suite}: {reason}"),
        }
    }
    let failed = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
    let failed = failed.count();
    ensure!(failed == 0, "{failed} of {} suites failed", outcomes.len());
    Ok(())
}
