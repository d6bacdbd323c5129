//! What the suite `vm` needs: qemu, other kernels, and programs without libraries to run in a guest. All of it is in target/vm;
//! a kernel is unpacked and never installed, because it would want to be this machine's.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::build::Object;
use crate::{apt, shell, tools};

pub(crate) const SUITE: &str = "vm";

const QEMU: &str = "qemu-system-x86_64";
/// Debian's qemu in the parts that the suite uses. The first is what a person installs.
const QEMU_PACKAGES: [&str; 4] =
    ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];

/// The oldest kernel that the programs are for among Debian's, and the next one. tests/suites/vm.rs boots them.
const KERNELS: [&str; 2] = ["6.1", "6.12"];
/// The flavour for guests: smaller, and it has the drivers for the cards that guests see.
const FLAVOUR: &str = "-cloud-amd64";

/// What is built for the guest, which has no libraries.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Brings qemu and the kernels where they are missing, and returns what could not be brought, with the reason.
pub(crate) fn install() -> Vec<String> {
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    if let Err(error) = install_qemu() {
        eprintln!("xtask: cannot install {QEMU}: {error:#}");
    }
    if !has_qemu() {
        return Vec::new();
    }
    let absent = KERNELS.iter().filter_map(|kernel| {
        let error = install_kernel(kernel).err()?;
        Some(format!("Linux {kernel}, within {SUITE}: {error:#}"))
    });
    absent.collect()
}

/// Why this machine cannot run a guest.
pub(crate) fn unmet() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("its guests are x86_64".to_owned());
    }
    (!has_qemu()).then(|| format!("needs {QEMU} (apt-get install {})", QEMU_PACKAGES[0]))
}

/// Builds the daemon and the guest's first process so that they need no library.
pub(crate) fn build(object: &Object) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--locked", "--target", TARGET, "--target-dir", "target/vm/build"]);
    cargo.args(["--package", "ingress-user", "--bin", "ingress"]);
    cargo.args(["--package", "ingress-tests", "--bin", "vm-guest"]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    // They are unpacked into the guest's memory.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
    object.embed(&mut cargo);
    shell::run(&mut cargo)
}

fn has_qemu() -> bool {
    shell::has(QEMU) || folder().join("qemu").is_dir()
}

/// Where another package forbids its installation, such as another version of qemu's tools, it is unpacked.
fn install_qemu() -> Result<()> {
    if has_qemu() || !shell::is_root() || tools::install(&[(QEMU, QEMU_PACKAGES[0])]).is_empty() {
        return Ok(());
    }
    unpack(&QEMU_PACKAGES, "qemu")
}

fn install_kernel(kernel: &str) -> Result<()> {
    let name = format!("linux-{kernel}");
    if folder().join(&name).is_dir() {
        return Ok(());
    }
    let package = apt::newest(&format!("linux-image-{kernel}."), FLAVOUR)?;
    unpack(&[&package], &name)
}

/// Under another name until it is whole: an unpacking that was cut short is begun anew.
fn unpack(packages: &[&str], name: &str) -> Result<()> {
    let whole = folder().join(name);
    let part = folder().join(format!("{name}.part"));
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| part.display().to_string())?;
    }
    fs::create_dir_all(&part).with_context(|| part.display().to_string())?;
    apt::unpack(packages, &part)?;
    fs::rename(&part, &whole).with_context(|| whole.display().to_string())
}

fn folder() -> PathBuf {
    shell::root().join("target/vm")
}
