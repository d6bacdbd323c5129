use std::fs;

use anyhow::{Context, Result, ensure};

use crate::build::Object;
use crate::clients::Client;
use crate::tools::{self, Tool};
use crate::{build, fuzz, shell, vm};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run these suites only (`host`, `harness`, `fuzz`, or a file name in tests/suites without .rs)
    suites: Vec<String>,
    /// Run the suite `vm` only: other kernels, in a guest of qemu
    #[arg(long, conflicts_with = "suites")]
    vm: bool,
}

/// Everything that is not a suite of the real binary: unit, property and dialogue tests.
const HOST: &str = "host";
/// What the suites of the real binary have in common.
const HARNESS: &str = "harness";
/// All fuzz targets for a minute.
const FUZZ: &str = "fuzz";

const SMTP_SOURCE: Tool = ("smtp-source", "postfix");
/// What swaks needs for STARTTLS.
const SWAKS_TLS: Tool = ("perl -MNet::SSLeay -e1", "libnet-ssleay-perl");

/// What a virtual environment needs to have pip in it.
const PYTHON_VENV: Tool = ("python3 -mensurepip --version", "python3-venv");

/// Where a container forbids it, root is not enough.
const UNSHARE: Tool = ("unshare --mount true", "util-linux");

/// Programs that suites drive the daemon with, and what those are installed with.
const TOOLS: &[Tool] = &[
    SMTP_SOURCE,
    ("postfix", "postfix"),
    ("swaks", "swaks"),
    SWAKS_TLS,
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("gnutls-cli", "gnutls-bin"),
    ("posttls-finger", "postfix"),
    ("testssl", "testssl.sh"),
    ("python3", "python3"),
    PYTHON_VENV,
    ("node", "nodejs"),
    ("npm", "npm"),
    UNSHARE,
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("setpriv", "util-linux"),
    ("unbound", "unbound"),
    ("xz", "xz-utils"),
];

/// What a suite may do to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Privilege {
    /// What every user may.
    User,
    /// Programs of it change their user.
    Root,
    /// It loads programs into the kernel and makes interfaces, as root. One test at a time: the machine has these once.
    Kernel,
    /// It loads programs into the kernel of a guest, which every user may. One guest at a time: each has all CPUs.
    Guest,
}

impl Privilege {
    fn loads_programs(self) -> bool {
        matches!(self, Self::Kernel | Self::Guest)
    }

    fn takes_root(self) -> bool {
        matches!(self, Self::Root | Self::Kernel)
    }
}

/// What a suite cannot run without, beyond the daemon. A suite not listed needs nothing.
struct Needs {
    suite: &'static str,
    privilege: Privilege,
    programs: &'static [&'static str],
    clients: &'static [Client],
}

const NEEDS: &[Needs] = &[
    Needs {
        suite: "aiosmtpd",
        privilege: Privilege::User,
        programs: &["python3", PYTHON_VENV.0],
        clients: &[Client::Aiosmtpd],
    },
    Needs {
        suite: "clients",
        privilege: Privilege::User,
        programs: &["smtp-source", "swaks", SWAKS_TLS.0, "openssl", "python3"],
        clients: &[],
    },
    Needs {
        suite: "dns",
        privilege: Privilege::User,
        programs: &["openssl", "unbound"],
        clients: &[],
    },
    Needs {
        suite: "durability",
        privilege: Privilege::User,
        programs: &["smtp-source"],
        clients: &[],
    },
    Needs {
        suite: "mta_sts",
        privilege: Privilege::User,
        programs: &["curl", "openssl"],
        clients: &[],
    },
    Needs {
        suite: "netns",
        privilege: Privilege::Kernel,
        programs: &["ip", "ethtool", "setpriv", "smtp-source"],
        clients: &[],
    },
    Needs {
        suite: "nic",
        privilege: Privilege::Kernel,
        programs: &["ip", "ethtool", "setpriv"],
        clients: &[],
    },
    Needs {
        suite: "nodemailer",
        privilege: Privilege::User,
        programs: &["node", "npm"],
        clients: &[Client::Nodemailer],
    },
    Needs {
        suite: "relays",
        privilege: Privilege::Root,
        programs: &["postfix", UNSHARE.0],
        clients: &[Client::Exim],
    },
    Needs {
        suite: "restart",
        privilege: Privilege::User,
        programs: &["smtp-source"],
        clients: &[],
    },
    Needs { suite: "sessions", privilege: Privilege::User, programs: &["python3"], clients: &[] },
    Needs { suite: "tls", privilege: Privilege::User, programs: &["openssl"], clients: &[] },
    Needs {
        suite: "tls_abuse",
        privilege: Privilege::User,
        programs: &["python3", PYTHON_VENV.0],
        clients: &[Client::Tlslite],
    },
    Needs {
        suite: "tls_audit",
        privilege: Privilege::User,
        programs: &["openssl", "testssl"],
        clients: &[],
    },
    Needs {
        suite: "tls_failures",
        privilege: Privilege::User,
        programs: &["openssl"],
        clients: &[],
    },
    Needs {
        suite: "tls_fallback",
        privilege: Privilege::User,
        programs: &["openssl", "gnutls-cli", "posttls-finger", "swaks", SWAKS_TLS.0],
        clients: &[],
    },
    Needs {
        suite: "tls_injection",
        privilege: Privilege::User,
        programs: &["openssl", "python3"],
        clients: &[],
    },
    Needs {
        suite: "tls_interop",
        privilege: Privilege::User,
        programs: &["openssl", "gnutls-cli", "posttls-finger", "swaks", SWAKS_TLS.0, "python3"],
        clients: &[],
    },
    Needs {
        suite: "tls_relays",
        privilege: Privilege::Root,
        programs: &["openssl", "postfix", UNSHARE.0],
        clients: &[Client::Exim],
    },
    Needs {
        suite: "tls_stages",
        privilege: Privilege::User,
        programs: &["openssl", "python3"],
        clients: &[],
    },
    Needs { suite: vm::SUITE, privilege: Privilege::Guest, programs: &["ip", "xz"], clients: &[] },
    Needs {
        suite: "xdp_filter",
        privilege: Privilege::Kernel,
        programs: &["ip", "ethtool", "smtp-source"],
        clients: &[],
    },
    Needs {
        suite: "xdp_bans",
        privilege: Privilege::Kernel,
        programs: &["ip", "ethtool", "python3"],
        clients: &[],
    },
    Needs {
        suite: "xdp_cookies",
        privilege: Privilege::Kernel,
        programs: &["ip", "ethtool", "python3", "smtp-source"],
        clients: &[],
    },
    Needs {
        suite: "xdp_restart",
        privilege: Privilege::Kernel,
        programs: &["ip", "ethtool", "python3", "smtp-source"],
        clients: &[],
    },
    Needs {
        suite: "xdp_steering",
        privilege: Privilege::Kernel,
        programs: &["ip", "ethtool"],
        clients: &[],
    },
    Needs {
        suite: "xdp_traffic",
        privilege: Privilege::Kernel,
        programs: &["ip", "ethtool", "python3"],
        clients: &[],
    },
];

enum Outcome {
    Passed,
    Failed(anyhow::Error),
    Skipped(String),
}

/// Sets up, builds, runs every suite, and ends with what ran and what did not and why.
pub(crate) fn run(options: Options) -> Result<()> {
    let all = suites()?;
    let wanted = if options.vm { vec![vm::SUITE.to_owned()] } else { options.suites };
    if let Some(unknown) = wanted.iter().find(|suite| !all.contains(suite)) {
        anyhow::bail!("no suite {unknown}; there are {}", all.join(", "));
    }
    let chosen = |suite: &String| wanted.is_empty() || wanted.contains(suite);
    let chosen: Vec<String> = all.into_iter().filter(chosen).collect();
    install(&chosen);
    let absent = if chosen.iter().any(|suite| suite == vm::SUITE) { vm::install() } else { vec![] };
    // Its guests have a daemon of their own.
    let object = if chosen == [vm::SUITE] { build::build_object()? } else { build::build(true)? };
    let outcomes: Vec<(String, Outcome)> = chosen
        .into_iter()
        .map(|suite| {
            let outcome = run_suite(&suite, &object);
            (suite, outcome)
        })
        .collect();
    if !object.is_built() || !shell::is_root() {
        println!(
            "skipped  xdp_verdicts, xdp_cookies and the kernel half of xdp_packets, within host: they need root and a BPF toolchain"
        );
    }
    for reason in absent {
        println!("skipped  {reason}");
    }
    summarise(&outcomes)
}

/// The host tests, then the files in tests/suites: a new suite is run without a change here. Fuzzing comes last: it
/// builds all anew, with flags of its own.
fn suites() -> Result<Vec<String>> {
    let folder = shell::root().join("tests/suites");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut suites = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        suites.extend(name.to_str().and_then(|name| name.strip_suffix(".rs")).map(str::to_owned));
    }
    suites.sort();
    let first = [HOST, HARNESS].map(str::to_owned);
    Ok(first.into_iter().chain(suites).chain([FUZZ.to_owned()]).collect())
}

/// What is missing still is the reason of a skip below.
fn install(suites: &[String]) {
    let is_chosen = |needs: &&Needs| suites.iter().any(|suite| suite == needs.suite);
    let needs: Vec<&Needs> = NEEDS.iter().filter(is_chosen).collect();
    let needed = |(program, _): &Tool| needs.iter().any(|needs| needs.programs.contains(program));
    let tools: Vec<Tool> = TOOLS.iter().copied().filter(needed).collect();
    tools::install(&tools);
    for client in needs.iter().filter(|needs| may_run(needs)).flat_map(|needs| needs.clients) {
        if let Err(error) = client.install() {
            eprintln!("xtask: cannot install {}: {error:#}", client.name());
        }
    }
}

fn may_run(needs: &Needs) -> bool {
    !needs.privilege.takes_root() || shell::is_root()
}

fn run_suite(suite: &str, object: &Object) -> Outcome {
    if suite == FUZZ {
        return fuzz::unmet().map_or_else(|| outcome(fuzz::suite()), Outcome::Skipped);
    }
    let needs = NEEDS.iter().find(|needs| needs.suite == suite);
    if let Some(reason) = needs.and_then(|needs| unmet(needs, object)) {
        return Outcome::Skipped(reason);
    }
    if suite == vm::SUITE
        && let Err(error) = vm::build(object)
    {
        return Outcome::Failed(error);
    }
    let mut cargo = shell::cargo();
    cargo.args(["test", "--locked"]).env("INGRESS_BIN", shell::daemon());
    object.embed(&mut cargo);
    match suite {
        HOST => cargo.args(["--workspace", "--exclude", "ingress-tests"]),
        HARNESS => cargo.args(["--package", "ingress-tests", "--lib"]),
        _ => cargo.args(["--package", "ingress-tests", "--test", suite]),
    };
    if needs.is_some_and(|needs| needs.privilege.loads_programs()) {
        cargo.args(["--", "--test-threads=1"]);
    }
    if suite == vm::SUITE {
        // A line of figures for each guest, and why there was none.
        cargo.arg("--nocapture");
    }
    outcome(shell::run(&mut cargo))
}

fn outcome(result: Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(error),
    }
}

fn unmet(needs: &Needs, object: &Object) -> Option<String> {
    if !may_run(needs) {
        return Some("needs root".to_owned());
    }
    if needs.privilege.loads_programs() && !object.is_built() {
        return Some("needs a BPF toolchain (cargo xtask setup)".to_owned());
    }
    if needs.suite == vm::SUITE
        && let Some(reason) = vm::unmet()
    {
        return Some(reason);
    }
    let programs = TOOLS
        .iter()
        .filter(|(program, _)| needs.programs.contains(program) && !tools::is_there(program))
        .map(|(program, package)| format!("{program} (apt-get install {package})"));
    let clients = needs
        .clients
        .iter()
        .filter(|client| !client.is_there())
        .map(|client| format!("{} (could not be installed: see above)", client.name()));
    let missing: Vec<String> = programs.chain(clients).collect();
    (!missing.is_empty()).then(|| format!("needs {}", missing.join(", ")))
}

fn summarise(outcomes: &[(String, Outcome)]) -> Result<()> {
    println!();
    for (suite, outcome) in outcomes {
        match outcome {
            Outcome::Passed => println!("passed   {suite}"),
            Outcome::Failed(error) => println!("FAILED   {suite}: {error:#}"),
            Outcome::Skipped(reason) => println!("skipped  {suite}: {reason}"),
        }
    }
    let failed = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
    let failed = failed.count();
    ensure!(failed == 0, "{failed} of {} suites failed", outcomes.len());
    Ok(())
}
