use anyhow::Result;

use crate::{build, shell, tools};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Arguments of the benchmark program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Sets up, builds, and runs the benchmarks against the release daemon.
pub(crate) fn run(options: Options) -> Result<()> {
    let object = build::build(true)?;
    // smtp-source is the load, the others are yardsticks; a benchmark that lacks one says so.
    let yardsticks = [("smtp-sink", "postfix"), ("openssl", "openssl")];
    tools::install(&[&[("smtp-source", "postfix")], yardsticks.as_slice()].concat());
    let mut cargo = shell::cargo();
    cargo.args(["run", "--quiet", "--locked", "--release", "--package", "bench", "--"]);
    object.embed(&mut cargo);
    shell::run(cargo.args(options.arguments).env("INGRESS_BIN", shell::daemon()))
}
