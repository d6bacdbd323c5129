//! What compiles the kernel programs: rustup's nightly with rust-src, or Debian's own Rust, which ships a core library for BPF.
//! Both link with bpf-linker.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{apt, shell};

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM that Debian 12 has beside its default one, and that this version of the linker can use.
const LLVM_MAJOR: u32 = 22;

const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// A way to compile for `bpfel-unknown-none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// It builds core itself.
    Nightly,
    /// /usr/bin/cargo finds a ready core.
    Debian,
}

impl Toolchain {
    /// The toolchain that is installed and complete. Starts no build.
    pub(crate) fn find() -> Option<Self> {
        if !shell::succeeds(Command::new(LINKER).arg("--version")) {
            return None;
        }
        let debian = missing_debian_packages().is_empty();
        // A linker reads bitcode of its own LLVM and of older ones. Beside Debian's Rust it is probably the one that was
        // built for it, too old for a nightly that has moved on.
        if nightly_llvm_major().is_some_and(|major| !debian || major <= LLVM_MAJOR) {
            return Some(Self::Nightly);
        }
        debian.then_some(Self::Debian)
    }

    /// Installs Debian's toolchain. Takes root; about five minutes on two CPUs, most of it for the linker.
    pub(crate) fn install() -> Result<Self> {
        let packages = missing_debian_packages();
        let llvm = format!("llvm-{LLVM_MAJOR}-dev");
        let wanted = packages.into_iter().chain([llvm.as_str()]).collect::<Vec<_>>();
        apt::install(&wanted)?;
        if !shell::has(LINKER) {
            shell::run(&mut linker_install())?;
        }
        ensure!(shell::has(LINKER), "{LINKER} was installed but is not in PATH: add ~/.cargo/bin");
        Ok(Self::Debian)
    }

    /// What a person without root is told.
    pub(crate) fn instructions() -> String {
        format!(
            "the kernel programs need a BPF toolchain. Either:\n  rustup toolchain install nightly --component rust-src\n  \
             cargo install {LINKER}\nor, on Debian, as root:\n  apt-get install --no-install-recommends {} llvm-{LLVM_MAJOR}-dev\n  \
             LLVM_PREFIX=/usr/lib/llvm-{LLVM_MAJOR} cargo install {LINKER} --version {LINKER_VERSION} --no-default-features \
             --features llvm-{LLVM_MAJOR}",
            DEBIAN_PACKAGES.join(" ")
        )
    }

    /// The command that builds the object into `target`, up to and with its environment.
    pub(crate) fn cargo(self, target: &Path) -> Command {
        let mut cargo = match self {
            Self::Nightly => {
                let mut cargo = Command::new("rustup");
                cargo.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
                cargo
            }
            Self::Debian => {
                let mut cargo = Command::new("/usr/bin/cargo");
                cargo.arg("build").env("RUSTC_BOOTSTRAP", "1").env("PATH", debian_path());
                cargo
            }
        };
        for variable in OUTER_TOOLCHAIN {
            cargo.env_remove(variable);
        }
        // Linking is the linker's whole-program optimisation already; BTF lets the verifier name source lines.
        cargo
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("RUSTFLAGS", format!("-C linker={LINKER} -C debuginfo=2 -C link-arg=--btf"))
            .args(["--locked", "--release", "--package", "ingress-ebpf", "--bin", "ingress-ebpf"])
            .args(["--features", "bpf", "--target", "bpfel-unknown-none", "--target-dir"])
            .arg(target);
        cargo
    }
}

fn missing_debian_packages() -> Vec<&'static str> {
    DEBIAN_PACKAGES.into_iter().filter(|package| !apt::is_installed(package)).collect()
}

fn linker_install() -> Command {
    let mut cargo = Command::new("cargo");
    let features = format!("llvm-{LLVM_MAJOR}");
    cargo
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM_MAJOR}"))
        .args(["install", LINKER, "--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", &features]);
    cargo
}

/// Debian's rustc before rustup's.
fn debian_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [PathBuf::from("/usr/bin")].into_iter().chain(env::split_paths(&path));
    env::join_paths(folders).unwrap_or(path)
}

/// The LLVM version of a nightly that can build core; `None` where it or its rust-src is missing.
fn nightly_llvm_major() -> Option<u32> {
    let rustc = |arguments: &[&str]| {
        shell::output(Command::new("rustup").args(["run", "nightly", "rustc"]).args(arguments))
    };
    let sysroot = rustc(&["--print", "sysroot"])?;
    if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
        return None;
    }
    let versions = rustc(&["--version", "--verbose"])?;
    let llvm = versions.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

/// What cargo and rustup set for us and another toolchain must not inherit: it would use this one's compiler, libraries or
/// flags. Where registries and network are, they may say.
const OUTER_TOOLCHAIN: [&str; 9] = [
    "CARGO",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTUP_TOOLCHAIN",
];
