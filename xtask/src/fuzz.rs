//! Runs the targets of tests/fuzz with cargo-fuzz, which brings libFuzzer. What libFuzzer writes goes to target/fuzz, where the
//! corpora grow from run to run; inputs that break a target go to tests/fuzz/artifacts.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::shell;

/// Beside the checkout's own folder, so that commands can be pasted.
const PACKAGE: &str = "tests/fuzz";
const OUTPUT: &str = "target/fuzz";

/// Of all targets together, in `cargo xtask test`.
const SUITE_SECONDS: u64 = 60;

/// Octets of an input: enough to cross every limit that the targets set, and no more, because time goes with length.
const INPUT_BYTES_MAX: usize = 512;
/// Of one input, after which libFuzzer calls it a hang.
const INPUT_SECONDS_MAX: u64 = 10;

/// What is fuzzed has no unsafe code for a sanitizer to watch. Without one it runs faster, and stable Rust can build it.
/// Following every comparison would take more than half of the time, to find words that smtp.dict has.
const BUILD: [&str; 7] = [
    "--fuzz-dir",
    PACKAGE,
    "--target-dir",
    "target/fuzz/build",
    "--sanitizer",
    "none",
    "--no-trace-compares",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Names in tests/fuzz/fuzz_targets without .rs (all, where none is given)
    targets: Vec<String>,
    /// Seconds in all, shared equally among the targets
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

pub(crate) fn run(options: Options) -> Result<()> {
    if let Some(reason) = unmet() {
        bail!("fuzzing {reason}");
    }
    let all = targets()?;
    if let Some(unknown) = options.targets.iter().find(|target| !all.contains(target)) {
        bail!("no target {unknown}; there are {}", all.join(", "));
    }
    let chosen = if options.targets.is_empty() { all } else { options.targets };
    fuzz(&chosen, options.seconds)
}

/// The suite of `cargo xtask test`.
pub(crate) fn suite() -> Result<()> {
    fuzz(&targets()?, SUITE_SECONDS)
}

/// Why this machine cannot fuzz.
pub(crate) fn unmet() -> Option<String> {
    let tools = [
        ("cargo-fuzz", "cargo install --locked cargo-fuzz"),
        ("c++", "apt-get install build-essential"),
    ];
    let missing = tools.iter().filter(|(program, _)| !shell::has(program));
    let missing: Vec<String> =
        missing.map(|(program, command)| format!("{program} ({command})")).collect();
    (!missing.is_empty()).then(|| format!("needs {}", missing.join(", ")))
}

/// The files in fuzz_targets: a new one is run without a change here.
fn targets() -> Result<Vec<String>> {
    let folder = shell::root().join(PACKAGE).join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut targets = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        targets.extend(name.to_str().and_then(|name| name.strip_suffix(".rs")).map(str::to_owned));
    }
    targets.sort();
    Ok(targets)
}

/// Builds all first, so that the seconds are spent on fuzzing alone. Runs every target, also behind one that fails.
fn fuzz(targets: &[String], seconds: u64) -> Result<()> {
    for target in targets {
        shell::run(cargo_fuzz("build").arg(target))?;
    }
    let share = (seconds / targets.len().max(1) as u64).max(1);
    println!("{share} s for each target");
    let mut total = 0;
    let mut failed = Vec::new();
    for target in targets {
        let outcome = fuzz_one(target, share)?;
        let executions = outcome.executions.unwrap_or_default();
        println!("{target:10} {executions:12} executions");
        total += executions;
        if let Some(failure) = outcome.failure {
            println!("{failure}");
            failed.push(target.as_str());
        }
    }
    println!("{:10} {total:12} executions", "total");
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

struct Outcome {
    executions: Option<u64>,
    /// What a person is told.
    failure: Option<String>,
}

fn fuzz_one(target: &str, seconds: u64) -> Result<Outcome> {
    let output = shell::root().join(OUTPUT);
    let corpus = output.join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    let log = output.join(target).with_extension("log");
    let file = File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = cargo_fuzz("run");
    // The first folder takes what is found.
    command.arg(target).arg(&corpus).args(seeds(target)).arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-dict={}", shell::root().join(PACKAGE).join("smtp.dict").display()),
        "-print_final_stats=1".to_owned(),
    ]);
    command.stdout(file.try_clone()?).stderr(file);
    let result = shell::run(&mut command);
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let executions = executions(&text);
    let failure = match result {
        Ok(()) if executions.is_some() => None,
        Ok(()) => Some(format!("  it does not say what it ran; the log is {}", log.display())),
        Err(error) => Some(failure(target, &error, &log, &text)),
    };
    Ok(Outcome { executions, failure })
}

fn cargo_fuzz(task: &str) -> Command {
    let mut cargo = shell::cargo();
    // What cargo has set for us is news to build scripts: a command pasted from our output would build half of it anew.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo.args(["fuzz", task]).args(BUILD);
    cargo
}

/// What a fresh corpus begins with, where the target has seeds.
fn seeds(target: &str) -> Option<PathBuf> {
    Some(shell::root().join(PACKAGE).join("seeds").join(target)).filter(|folder| folder.is_dir())
}

fn failure(target: &str, error: &anyhow::Error, log: &Path, text: &str) -> String {
    let Some(artifact) = artifact(text) else {
        return format!("  {error:#}; the log is {}", log.display());
    };
    let panic = text.lines().skip_while(|line| !line.contains("panicked at")).take(2);
    let panic: String = panic.map(|line| format!("  {line}\n")).collect();
    let options = BUILD.join(" ");
    format!(
        "{panic}  input:     {artifact}\n  log:       {}\n  reproduce: cargo fuzz run {options} {target} {artifact}\n  \
         minimise:  cargo fuzz tmin {options} {target} {artifact}",
        log.display()
    )
}

/// Where libFuzzer has put the input that broke the target.
fn artifact(log: &str) -> Option<&str> {
    log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path)
}

fn executions(log: &str) -> Option<u64> {
    let line = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n\
        thread '<unnamed>' panicked at fuzz_targets/line.rs:20:9:\n\
        a reason\n\
        note: run with a backtrace\n\
        artifact_prefix='artifacts/line/'; Test unit written to artifacts/line/crash-1\n\
        stat::number_of_executed_units: 4711\n\
        stat::average_exec_per_sec:     100\n";

    #[test]
    fn executions_are_read_from_the_final_statistics() {
        assert_eq!(executions(LOG), Some(4711));
        assert_eq!(executions("#4711 DONE"), None);
    }

    #[test]
    fn a_failure_says_what_broke_where_the_input_is_and_how_to_reproduce_it() {
        let error = anyhow::anyhow!("exit status: 77");
        let said = failure("line", &error, Path::new("line.log"), LOG);
        assert!(said.contains("  a reason\n"), "{said}");
        assert!(said.contains("input:     artifacts/line/crash-1\n"), "{said}");
        assert!(said.contains(" line artifacts/line/crash-1\n"), "{said}");
    }

    #[test]
    fn a_failure_without_an_input_names_the_log() {
        let error = anyhow::anyhow!("exit status: 101");
        let said = failure("line", &error, Path::new("line.log"), "error: no bin target");
        assert!(said.contains("exit status: 101") && said.contains("line.log"), "{said}");
    }

    #[test]
    fn every_target_has_a_line_in_the_manifest() {
        let manifest = shell::root().join(PACKAGE).join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).unwrap();
        let targets = targets().unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            let line = format!("name = \"{target}\", path = \"fuzz_targets/{target}.rs\"");
            assert!(manifest.contains(&line), "{target}");
        }
    }
}
