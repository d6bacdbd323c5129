//! What can go wrong with the kernel programs, told by what the operator can do about it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use aya::EbpfError;
use aya::programs::{ProgramError, loaded_programs};
use ingress_ebpf::abi::{INTERFACES_MAX, PORTS_MAX};
use rustix::io::Errno;

/// The program that is in the way, as far as it is known: its id, and its name where the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant(Option<Box<(u32, Option<String>)>>);

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref() {
            Some((id, Some(name))) => write!(f, " (id {id}, {name:?})"),
            Some((id, None)) => write!(f, " (id {id})"),
            None => Ok(()),
        }
    }
}

/// Failure to load or attach a kernel program. The message is one line; causes are in `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    #[error(
        "this binary was built without the eBPF object: build it with `cargo xtask build`, or set `xdp.mode = \"off\"`"
    )]
    NoObject,
    /// The object was built from other sources than this binary.
    #[error("the eBPF object has no `{name}`: rebuild both with `cargo xtask build`")]
    MissingPart { name: &'static str },
    #[error("interface `{interface}` does not exist: correct `xdp.interfaces` (see `ip link`)")]
    NoSuchInterface { interface: String },
    #[error("not permitted to {action}: run as root, or with CAP_BPF and CAP_NET_ADMIN")]
    NotPermitted { action: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error(
        "the driver of `{interface}` has no native XDP: set `xdp.mode` to \"generic\", or to \"auto\" to go without"
    )]
    NoNativeXdp { interface: String, source: ProgramError },
    #[error(
        "another XDP program{occupant} is attached to `{interface}` and not touched: stop its owner, or \
         `ip link set dev {interface} xdp off`"
    )]
    Occupied { interface: String, occupant: Occupant, source: ProgramError },
    #[error(
        "cannot attach to `{interface}`: its driver may want a smaller MTU or fewer queues (see `dmesg`), \
         or set `xdp.mode = \"off\"`"
    )]
    Attach { interface: String, source: ProgramError },
    /// [`XdpError::verifier_log`] has the reasoning.
    #[error(
        "the kernel's verifier refused `{program}`: report the kernel version and the verifier log, \
         or set `xdp.mode = \"off\"`"
    )]
    Verifier { program: &'static str, log: String, source: io::Error },
    #[error("cannot load `{program}`: it needs kernel 5.18 or later")]
    Program { program: &'static str, source: ProgramError },
    #[error("cannot load the eBPF object: it needs kernel 5.18 or later with CONFIG_BPF_SYSCALL")]
    Object { source: EbpfError },
    #[error("cannot {action}")]
    Map { action: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error(
        "{count} listener ports, but the kernel programs know at most {PORTS_MAX}: listen on fewer"
    )]
    TooManyPorts { count: usize },
    #[error(
        "{count} interfaces, but the kernel program knows at most {INTERFACES_MAX}: name fewer in `xdp.interfaces`"
    )]
    TooManyInterfaces { count: usize },
    #[error(
        "cannot steer to the listener on {address}: it must be in SO_REUSEPORT before it is bound"
    )]
    Listener { address: SocketAddr, source: Box<dyn Error + Send + Sync> },
    #[error("there are as many bans as the kernel's table has room for")]
    TooManyBans,
    #[error("cannot run `{program}` on a test packet")]
    TestRun { program: &'static str, source: ProgramError },
}

impl XdpError {
    /// The verifier's own words, many lines, when it is the one who refused.
    pub fn verifier_log(&self) -> Option<&str> {
        match self {
            Self::Verifier { log, .. } => Some(log),
            _ => None,
        }
    }

    /// With the program that is in the way of an attachment, by the ids of those on the interfaces.
    pub(super) fn with_occupant(self, programs: &BTreeMap<String, u32>) -> Self {
        match self {
            Self::Occupied { interface, source, .. } => {
                let id = programs.get(&interface).copied();
                let occupant = Occupant(id.map(|id| Box::new((id, program_name(id)))));
                Self::Occupied { interface, occupant, source }
            }
            other => other,
        }
    }

    /// The message with its causes, in one line.
    pub(super) fn with_causes(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some of aya's errors print their cause as well as returning it.
            if !line.contains(&text) {
                line.push_str(": ");
                // A verifier log is in there sometimes.
                line.push_str(text.lines().next().unwrap_or_default());
            }
            cause = error.source();
        }
        line
    }

    pub(super) fn from_object(source: EbpfError) -> Self {
        if not_permitted(&source) {
            return Self::NotPermitted { action: "create BPF maps", source: source.into() };
        }
        Self::Object { source }
    }

    pub(super) fn from_load(program: &'static str, source: ProgramError) -> Self {
        if not_permitted(&source) {
            return Self::NotPermitted { action: "load BPF programs", source: source.into() };
        }
        match source {
            // The kernel refuses before it asks the verifier when it does not know the program type or a flag.
            ProgramError::LoadError { io_error, verifier_log }
                if !verifier_log.to_string().is_empty() =>
            {
                Self::Verifier { program, log: verifier_log.to_string(), source: io_error }
            }
            source => Self::Program { program, source },
        }
    }

    /// Errors of `BPF_LINK_CREATE` and of the netlink request that aya falls back to.
    pub(super) fn from_attach(interface: &str, source: ProgramError) -> Self {
        let interface = interface.to_owned();
        if matches!(source, ProgramError::UnknownInterface { .. }) {
            return Self::NoSuchInterface { interface };
        }
        match errno(&source) {
            Some(Errno::PERM) => {
                Self::NotPermitted { action: "attach XDP programs", source: source.into() }
            }
            Some(Errno::OPNOTSUPP) => Self::NoNativeXdp { interface, source },
            // EEXIST: one in the other mode (native beside generic).
            Some(Errno::BUSY | Errno::EXIST) => {
                Self::Occupied { interface, occupant: Occupant(None), source }
            }
            _ => Self::Attach { interface, source },
        }
    }

    pub(super) fn from_map(
        action: &'static str,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        if not_permitted(&source) {
            return Self::NotPermitted { action, source: source.into() };
        }
        Self::Map { action, source: source.into() }
    }
}

/// None where the kernel does not tell, which takes CAP_SYS_ADMIN.
pub(super) fn program_name(id: u32) -> Option<String> {
    let program = loaded_programs().flatten().find(|program| program.id() == id)?;
    program.name_as_str().map(str::to_owned)
}

fn not_permitted(error: &(dyn Error + 'static)) -> bool {
    errno(error) == Some(Errno::PERM)
}

/// The error number of the system call at the bottom of the chain.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io_error) = error.downcast_ref::<io::Error>() {
            return Errno::from_io_error(io_error);
        }
        cause = error.source();
    }
    None
}
