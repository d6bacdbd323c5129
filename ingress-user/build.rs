//! Passes the eBPF object to the `xdp` module, when there is one.
//!
//! The object needs a toolchain of its own, so `cargo xtask build` makes it first and names it in `INGRESS_EBPF_OBJECT`
//! (an absolute path). Without the variable the daemon is built without XDP, and says so when it is asked for it.

use std::env;
use std::path::Path;

const OBJECT: &str = "INGRESS_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rustc-check-cfg=cfg(ebpf_object)");
    let Some(path) = env::var_os(OBJECT).filter(|path| !path.is_empty()) else { return };
    let path = Path::new(&path);
    // A relative path would mean this package's folder here and the caller's for whoever set it.
    assert!(
        path.is_absolute() && path.is_file(),
        "{OBJECT} must be the absolute path of the eBPF object, but is `{}`",
        path.display()
    );
    println!("cargo::rerun-if-changed={}", path.display());
    println!("cargo::rustc-env={OBJECT}={}", path.display());
    println!("cargo::rustc-cfg=ebpf_object");
}
