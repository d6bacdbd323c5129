use anyhow::{Result, ensure};

use crate::{shell, tools};

/// Makes sure that the workspace can be built: a C compiler for ring.
pub(crate) fn ensure() -> Result<()> {
    let missing = tools::install(&[("cc", "build-essential")])?;
    ensure!(missing.is_empty(), "no C compiler: apt-get install build-essential");
    ensure!(shell::has("cargo"), "no cargo in PATH: install Rust with rustup");
    Ok(())
}
