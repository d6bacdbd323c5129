//! Two network namespaces joined by a veth pair, for threads of this process.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread::{Scope, ScopedJoinHandle};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The interface in either namespace.
pub(super) const INTERFACE: &str = "mail0";
pub(super) const SERVER: &str = "10.77.0.2";

/// Namespaces, by name. Both go with this value, and the wire with them.
pub(super) struct Wire {
    pub(super) server: String,
    pub(super) client: String,
}

impl Wire {
    /// None, with the reason printed, where there can be none.
    pub(super) fn create() -> Option<Self> {
        let name = |role| format!("ingress-crew-{}-{role}", std::process::id());
        let wire = Self { server: name("server"), client: name("client") };
        let Self { server, client } = &wire;
        let queues = "numrxqueues 2 numtxqueues 2";
        // A frame whose checksum was left to the "hardware" dies when XDP redirects it.
        for command in [
            format!("ip netns add {server}"),
            format!("ip netns add {client}"),
            format!(
                "ip link add {INTERFACE} netns {client} {queues} type veth \
                 peer name {INTERFACE} netns {server} {queues}"
            ),
            format!("ip netns exec {client} ethtool -K {INTERFACE} tx off"),
            format!("ip -n {client} address add 10.77.0.1/24 dev {INTERFACE}"),
            format!("ip -n {server} address add {SERVER}/24 dev {INTERFACE}"),
            format!("ip -n {client} link set {INTERFACE} up"),
            format!("ip -n {server} link set {INTERFACE} up"),
        ] {
            if !run(&command) {
                println!("skipped: `{command}` failed: namespaces need root, iproute2 and ethtool");
                return None;
            }
        }
        Some(wire)
    }

    /// Runs `work` on a thread that is in this namespace, as are the threads that it starts.
    pub(super) fn spawn_in<'scope, 'env, T: Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        namespace: &'scope str,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        scope.spawn(move || {
            let file = File::open(format!("/run/netns/{namespace}")).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            let _ = run(&format!("ip netns delete {namespace}"));
        }
    }
}

fn run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
