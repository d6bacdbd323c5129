//! When the kernel makes SYN cookies: it is asked for each of those that the program sends.

use crate::nic::Machine;

/// Of the network namespace, for IPv6 as well.
const SWITCH: &str = "proc/sys/net/ipv4/tcp_syncookies";

/// What is said where they are wanted and there are none, and what to do.
pub(super) const NEVER: &str =
    "`syn_cookies` has no effect, the kernel makes none (net.ipv4.tcp_syncookies is 0)";
pub(super) const REMEDY: &str = "sysctl -w net.ipv4.tcp_syncookies=1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    Never,
    /// While the queue of a listener is full.
    WhenFull,
    Always,
}

impl Making {
    pub(super) fn read(machine: &Machine) -> Self {
        match machine.number(SWITCH) {
            // A kernel without cookies has no switch.
            Some(0) | None => Self::Never,
            Some(1) => Self::WhenFull,
            Some(_) => Self::Always,
        }
    }
}
