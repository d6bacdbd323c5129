//! A guest of qemu with Debian's kernel, where the daemon runs on kernels that this machine does not have.
//!
//! - `initramfs`: the guest's whole system, in the format that the kernel unpacks
//! - `kernel`: an unpacked package, and the modules that the guest needs
//! - [`qemu`]: two network cards on one wire, the console, and an end in any case
//!
//! The processor is emulated: no privilege and no hardware is needed, and a boot takes seconds. `cargo xtask test vm`
//! brings the kernels and builds what runs in the guest (`tests/src/bin/vm-guest.rs`).

mod initramfs;
mod kernel;
pub mod qemu;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};

use initramfs::Archive;
use kernel::Kernel;
use qemu::Wire;

/// Before every line that the guest reports on its console.
pub const REPORT: &str = "vm: ";
/// Its last report, when all was as it should be.
pub const PASSED: &str = "passed";
/// What the reports before that begin with, in their order: a check that was not made is not one that passed.
const CHECKS: [&str; 10] = [
    "checked: ",
    "tier ",
    "steered: ",
    "denied: ",
    "banned: ",
    "served again",
    "vlan: ",
    "intact: ",
    "detached",
    "unsteered: ",
];

/// Where the guest finds the kernel's modules, and the file `order`.
pub const MODULES: &str = "/modules";

/// Why the guest cannot be started: what `cargo xtask test vm` could not bring.
pub fn missing(kernel: &str) -> Option<String> {
    let folder = kernel_folder(kernel);
    (!folder.is_dir()).then(|| format!("no kernel {kernel}: cargo xtask test vm unpacks it"))
}

/// Boots `kernel` ("6.1") with this many queues at each network card, and has the guest check everything. The answer is a
/// line for a person.
///
/// # Errors
/// With the end of the console when a check fails, or the guest does not come to its end.
pub fn run(kernel: &str, wire: Wire) -> Result<String> {
    let kernel = Kernel::open(&kernel_folder(kernel))?;
    let folder = tempfile::Builder::new().prefix("ingress-vm-").tempdir()?;
    let system = folder.path().join("initramfs");
    fs::write(&system, initramfs(&kernel)?)?;
    let ended = qemu::run(kernel.image(), &system, wire)?;
    let reports: Vec<&str> =
        ended.console.lines().filter_map(|line| line.trim_end().strip_prefix(REPORT)).collect();
    judge(&reports).map_err(|error| anyhow!("{error}; {}", ended.tail()))?;
    let checks = reports[..CHECKS.len()].join("; ");
    let seconds = ended.took.as_secs_f32();
    Ok(format!("Linux {}, {wire}: {checks}; {seconds:.0} s", kernel.release()))
}

fn judge(reports: &[&str]) -> Result<()> {
    let expected = CHECKS.iter().chain([&PASSED]);
    for (number, expected) in expected.enumerate() {
        let report = reports.get(number).copied().unwrap_or("the end");
        ensure!(report.starts_with(expected), "expected `{expected}`, the guest said `{report}`");
    }
    Ok(())
}

/// Everything that the guest has: the daemon, the program that runs the checks, `ip`, and modules.
fn initramfs(kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp", "run"] {
        archive.folder(folder);
    }
    archive.console("dev/console");
    archive.link("var/run", "/run");
    archive.program("init", &fs::read(static_program("vm-guest")?)?);
    archive.program("bin/ingress", &fs::read(static_program("ingress")?)?);
    archive.program_with_libraries("bin/ip", "ip")?;
    let mut order = String::new();
    for module in kernel.modules(&["virtio_pci", "virtio_net", "8021q"])? {
        archive.file(&format!("{MODULES}/{}", module.name), &module.image);
        order += &format!("{}\n", module.name);
    }
    archive.file(&format!("{MODULES}/order"), order.as_bytes());
    Ok(archive.finish())
}

/// Where `cargo xtask` has put what the guests need.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vm")
}

fn kernel_folder(kernel: &str) -> PathBuf {
    folder().join(format!("linux-{kernel}"))
}

fn static_program(name: &str) -> Result<PathBuf> {
    let path = folder().join("build/x86_64-unknown-linux-gnu/debug").join(name);
    ensure!(path.is_file(), "{} is missing: cargo xtask test vm builds it", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_was_left_out_is_named() {
        let mut reports: Vec<&str> = CHECKS.into_iter().chain([PASSED]).collect();
        judge(&reports).unwrap();
        reports.remove(3);
        let error = judge(&reports).unwrap_err().to_string();
        assert_eq!(error, "expected `denied: `, the guest said `banned: `");
        assert!(judge(&CHECKS).unwrap_err().to_string().contains(PASSED));
    }
}
