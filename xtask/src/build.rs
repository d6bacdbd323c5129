use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{setup, shell};

/// Tells the daemon's build which object to embed.
const OBJECT_VARIABLE: &str = "INGRESS_EBPF_OBJECT";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Optimised, as for use and for measurements
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(options: Options) -> Result<()> {
    build(options.release).map(drop)
}

/// A build of the kernel programs, to be embedded by what is built next.
#[derive(Debug)]
pub(crate) struct Object(Option<PathBuf>);

impl Object {
    /// Has `cargo` embed the programs. All builds of one run get the same, so that none undoes another's work.
    pub(crate) fn embed(&self, cargo: &mut Command) {
        if let Some(path) = &self.0 {
            cargo.env(OBJECT_VARIABLE, path);
        }
    }

    pub(crate) fn is_built(&self) -> bool {
        self.0.is_some()
    }
}

/// Builds the kernel programs, where there is a toolchain for them, and the daemon with them in it.
pub(crate) fn build(release: bool) -> Result<Object> {
    let object = build_object()?;
    let mut cargo = shell::cargo();
    cargo.args(["build", "--locked", "--package", "ingress-user"]);
    if release {
        cargo.arg("--release");
    }
    object.embed(&mut cargo);
    shell::run(&mut cargo)?;
    Ok(object)
}

/// Builds the kernel programs, where there is a toolchain for them.
pub(crate) fn build_object() -> Result<Object> {
    let Some(toolchain) = setup::ensure()? else {
        eprintln!("xtask: no BPF toolchain: the daemon is built without its kernel programs");
        return Ok(Object(None));
    };
    let target = shell::root().join("target/bpf");
    shell::run(&mut toolchain.cargo(&target))?;
    let object = target.join("bpfel-unknown-none/release/ingress-ebpf");
    ensure!(object.is_file(), "{} was not built", object.display());
    Ok(Object(Some(object)))
}
