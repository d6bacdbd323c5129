//! The kernel and what this process may do.

use super::{Finding, State};
use crate::nic::Machine;

/// What files tell of the kernel and of this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// As `uname -r` prints it.
    release: String,
    /// Effective capabilities, a bit each.
    capabilities: Option<u64>,
    has_btf: bool,
    /// net.core.bpf_jit_enable; none in a network namespace, and where the kernel has no such switch.
    jit: Option<u64>,
}

impl Facts {
    pub(super) fn read(machine: &Machine) -> Self {
        let status = machine.text("proc/self/status").unwrap_or_default();
        Self {
            release: machine.text("proc/sys/kernel/osrelease").unwrap_or_default(),
            capabilities: capabilities(&status),
            has_btf: machine.has("sys/kernel/btf/vmlinux"),
            jit: machine.number("proc/sys/net/core/bpf_jit_enable"),
        }
    }
}

fn capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    vec![
        kernel(&facts.release),
        permission(facts.capabilities),
        btf(facts.has_btf),
        jit(facts.jit),
        Finding::ok("memlock", "no limit to raise: since 5.11 BPF memory counts for the cgroup"),
    ]
}

fn kernel(release: &str) -> Finding {
    let Some(version) = version(release) else {
        return Finding::warn(
            "kernel",
            format!("`{release}` is no version"),
            "6.1 is the oldest supported",
        );
    };
    if version < OLDEST_WORKING {
        let remedy = "upgrade to 6.1 or later, or set `xdp.mode = \"off\"`";
        return Finding::fail("kernel", format!("{release} is too old, 5.10 included"), remedy);
    }
    if version < OLDEST_SUPPORTED {
        let remedy = "6.1 is the oldest supported";
        return Finding::warn("kernel", format!("{release} has what it takes, untested"), remedy);
    }
    Finding::ok("kernel", release)
}

/// Major and minor.
fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn permission(capabilities: Option<u64>) -> Finding {
    let Some(capabilities) = capabilities else {
        let remedy = "the trial load below tells";
        return Finding::warn("permission", "the capabilities of this process are unknown", remedy);
    };
    let has = |bit: u32| capabilities >> bit & 1 == 1;
    let bpf = has(CAP_BPF) || has(CAP_SYS_ADMIN);
    let missing = [(!bpf).then_some("CAP_BPF"), (!has(CAP_NET_ADMIN)).then_some("CAP_NET_ADMIN")];
    let missing: Vec<&str> = missing.into_iter().flatten().collect();
    match missing.is_empty() {
        true => Finding::ok("permission", "CAP_BPF and CAP_NET_ADMIN, all that it takes"),
        false => Finding::fail(
            "permission",
            format!("{} missing", missing.join(" and ")),
            "run as root, or give the daemon both (AmbientCapabilities= in its unit)",
        ),
    }
}

fn btf(has_btf: bool) -> Finding {
    match has_btf {
        true => Finding::ok("btf", "the kernel describes its types (/sys/kernel/btf/vmlinux)"),
        // No program here reads the kernel's structures.
        false => {
            Finding::ok("btf", "the kernel does not describe its types; these programs do without")
        }
    }
}

fn jit(enabled: Option<u64>) -> Finding {
    match enabled {
        Some(0) => Finding::warn(
            "jit",
            "BPF programs are interpreted, several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok("jit", "BPF programs are compiled"),
        None => Finding::new(
            "jit",
            State::Ok,
            "no switch to be seen from here; most kernels always compile",
        ),
    }
}

/// Programs that are declared for fragments, which large frames need.
const OLDEST_WORKING: (u32, u32) = (5, 18);
const OLDEST_SUPPORTED: (u32, u32) = (6, 1);

/// Bits of linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_refused_and_an_untested_one_noted() {
        let table = [
            ("4.19.0-27-amd64", State::Fail),
            ("5.10.0-32-amd64", State::Fail),
            ("5.17.9", State::Fail),
            ("5.18.0", State::Warn),
            ("6.0.12", State::Warn),
            ("6.1.0-40-amd64", State::Ok),
            ("6.18-rc1", State::Ok),
            ("", State::Warn),
        ];
        for (release, state) in table {
            assert_eq!(kernel(release).state, state, "{release}");
        }
        assert!(kernel("5.10.0").to_string().contains("5.10 included: upgrade to 6.1"));
    }

    #[test]
    fn the_missing_capability_is_named() {
        let both = 1 << CAP_BPF | 1 << CAP_NET_ADMIN;
        assert_eq!(permission(Some(both)).state, State::Ok);
        assert_eq!(permission(Some(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN)).state, State::Ok);
        let without = permission(Some(1 << CAP_BPF)).to_string();
        assert!(
            without.starts_with("FAIL permission: CAP_NET_ADMIN missing: run as root"),
            "{without}"
        );
        assert!(permission(Some(0)).text.starts_with("CAP_BPF and CAP_NET_ADMIN"));
    }

    #[test]
    fn effective_capabilities_are_found_among_the_others() {
        let status = "CapPrm:\t0000000000000000\nCapEff:\t0000008000001000\nCapBnd:\t1\n";
        assert_eq!(capabilities(status), Some(1 << CAP_BPF | 1 << CAP_NET_ADMIN));
        assert_eq!(capabilities("CapEff:\tx\n"), None);
        assert_eq!(capabilities(""), None);
    }

    #[test]
    fn an_interpreted_program_is_a_warning_with_the_switch() {
        assert_eq!(jit(Some(0)).state, State::Warn);
        assert_eq!(jit(Some(1)).state, State::Ok);
        assert_eq!(jit(None).state, State::Ok);
    }
}
