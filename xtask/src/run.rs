use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{build, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Arguments of `ingress run`, such as --config FILE
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Sets up, builds, and becomes the daemon: signals reach it, and its exit status is ours.
pub(crate) fn run(options: Options) -> Result<()> {
    build::build(true)?;
    let error = Command::new(shell::daemon()).arg("run").args(options.arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", shell::daemon().display()))
}
