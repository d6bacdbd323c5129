use anyhow::{Result, ensure};

use crate::toolchain::Toolchain;
use crate::{shell, tools};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

/// Says what was found, so that a person sees that nothing is missing.
pub(crate) fn run(_options: Options) -> Result<()> {
    match ensure()? {
        Some(toolchain) => println!("ready: the kernel programs are built with {toolchain:?}"),
        None => println!("ready, without a toolchain for the kernel programs"),
    }
    Ok(())
}

/// Makes sure that the workspace can be built: a C compiler for ring, and a BPF toolchain. Installs what is missing as root;
/// otherwise says what to do, and `None` stands for a build without the kernel programs. Does nothing the second time.
pub(crate) fn ensure() -> Result<Option<Toolchain>> {
    let missing = tools::install(&[("cc", "build-essential")]);
    ensure!(missing.is_empty(), "no C compiler: apt-get install build-essential");
    ensure!(shell::has("cargo"), "no cargo in PATH: install Rust with rustup");
    if let Some(toolchain) = Toolchain::find() {
        return Ok(Some(toolchain));
    }
    if shell::is_root() && shell::has("apt-get") {
        return Toolchain::install().map(Some);
    }
    eprintln!("xtask: {}", Toolchain::instructions());
    Ok(None)
}
