//! `cargo xtask TASK`: one file per task.

mod apt;
mod bench;
mod build;
mod clients;
mod fuzz;
mod lint;
mod rules;
mod run;
mod setup;
mod shell;
mod test;
mod toolchain;
mod tools;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Tasks of this checkout
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Find or install what the build needs
    Setup(setup::Options),
    /// Build the kernel programs and the daemon
    Build(build::Options),
    /// Build everything, then run the daemon (release) with the arguments given
    Run(run::Options),
    /// Install what is missing and run every suite this machine can run
    Test(test::Options),
    /// Fuzz the protocol core for long
    Fuzz(fuzz::Options),
    /// Check format, clippy, the dependency rules of the modules, and cargo-deny
    Lint(lint::Options),
    /// Build everything, then run the benchmarks with the arguments given
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Setup(options) => setup::run(options),
        Task::Build(options) => build::run(options),
        Task::Run(options) => run::run(options),
        Task::Test(options) => test::run(options),
        Task::Fuzz(options) => fuzz::run(options),
        Task::Lint(options) => lint::run(options),
        Task::Bench(options) => bench::run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
