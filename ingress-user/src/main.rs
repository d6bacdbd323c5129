use std::process::ExitCode;

use clap::Parser;
use ingress_user::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::dispatch(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output went away, as `head` does: nothing to complain about.
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ingress: {}", cli::one_line(&error));
            ExitCode::FAILURE
        }
    }
}
