//! What a packet meets: the program as it is loaded, and the same on the host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ingress_ebpf::abi::{INTERFACES_MAX, Listing, Verdict};
use ingress_ebpf::decode::{Miss, Segment, decode};
use ingress_ebpf::filter::{self, Policy, v4_key, v6_key};
use ingress_ebpf::packets::{Frame, Network};
use ingress_ebpf::tables::{PlainTables, Prefix};
use ingress_user::config::{FilterConfig, FilterMode};
use ingress_user::xdp::{self, Action, Lists, Prefilter, Redirection, XdpError};
use ipnet::IpNet;

const PORTS: [u16; 2] = [25, 465];

/// Who a client is, its address says, wherever there is a filter.
const BANNED: [&str; 3] = ["192.0.2.66", "203.0.113.99", "2001:db8:0:66::1"];
/// Their bans have ended.
const BANNED_BEFORE: [&str; 2] = ["192.0.2.67", "2001:db8:0:67::1"];
const DENIED: [&str; 2] = ["203.0.113.0/24", "2001:db8:dead::/48"];
const ALLOWED: [&str; 2] = ["203.0.113.64/26", "2001:db8:dead:a::/64"];
/// Those that have opened a connection in set-ups with `spent`.
const SPENT: [&str; 3] = ["192.0.2.80", "203.0.113.80", "2001:db8:0:80::1"];
/// Those that have used up the CPU's budget in set-ups with `pressure`.
const STRANGERS: [&str; 4] = ["198.18.0.1", "198.18.0.2", "198.18.0.3", "198.18.0.4"];

/// In a test run every frame comes from the loopback interface, whose index is 1 in every network namespace. It is the second
/// of the interfaces, so that frames of no known interface, which count for the first, would be noticed.
const INTERFACES: [u32; 2] = [1 << 20, 1];
pub(crate) const LOOPBACK_SLOT: u32 = 1;

/// Octets that a SYN may carry with `fast-open`.
const FAST_OPEN_BYTES_MAX: u32 = 100;

const SECOND: u64 = 1_000_000_000;

/// Longer than any test.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The words of a `setup:` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Setup {
    mode: Mode,
    is_steered: bool,
    is_fast_open: bool,
    is_spent: bool,
    is_pressed: bool,
    is_unattended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Off,
    Monitor,
    Drop,
}

impl FromStr for Setup {
    type Err = String;

    fn from_str(words: &str) -> Result<Self, String> {
        let mut words = words.split(' ');
        let unknown = |word: &str| format!("`{word}` is no word of a set-up");
        let mode = match words.next() {
            Some("off") => Mode::Off,
            Some("monitor") => Mode::Monitor,
            Some("drop") => Mode::Drop,
            other => return Err(unknown(other.unwrap_or_default())),
        };
        let mut setup = Self {
            mode,
            is_steered: false,
            is_fast_open: false,
            is_spent: false,
            is_pressed: false,
            is_unattended: false,
        };
        for word in words {
            match word {
                "steered" => setup.is_steered = true,
                "fast-open" => setup.is_fast_open = true,
                "spent" => setup.is_spent = true,
                "pressure" => setup.is_pressed = true,
                "unattended" => setup.is_unattended = true,
                _ => return Err(unknown(word)),
            }
        }
        Ok(setup)
    }
}

impl Setup {
    /// Whether one packet leaves nothing behind that another would notice.
    pub(crate) fn is_shared(self) -> bool {
        !(self.is_spent || self.is_pressed)
    }

    fn syn_payload_bytes_max(self) -> u32 {
        if self.is_fast_open { FAST_OPEN_BYTES_MAX } else { 0 }
    }

    /// Who has sent a SYN before.
    fn before(self) -> impl Iterator<Item = Frame> {
        let spent = SPENT.iter().filter(move |_| self.is_spent);
        spent.chain(STRANGERS.iter().filter(move |_| self.is_pressed)).map(|client| syn(client))
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn networks(texts: &[&str]) -> impl Iterator<Item = IpNet> {
    texts.iter().map(|text| text.parse().unwrap())
}

fn syn(client: &str) -> Frame {
    let mut frame = match address(client) {
        IpAddr::V4(_) => Frame::v4(25),
        IpAddr::V6(_) => Frame::v6(25, &[]),
    };
    match (&mut frame.network, address(client)) {
        (Network::V4 { source, .. }, IpAddr::V4(client)) => *source = client,
        (Network::V6 { source, .. }, IpAddr::V6(client)) => *source = client,
        _ => unreachable!("the frame is of the family of its source"),
    }
    frame
}

/// The loaded program.
pub(crate) struct Kernel {
    prefilter: Prefilter,
    /// When it was last asked.
    counts: Counts,
}

/// Packets of an interface, by its place, and a queue of it.
pub(crate) type Counts = BTreeMap<(u32, u32, &'static str), u64>;

impl Kernel {
    /// None, with the reason printed, where the program cannot be loaded.
    pub(crate) fn load(setup: Setup) -> Option<Self> {
        let Some(object) = xdp::object() else {
            println!("skipped: {}", XdpError::NoObject);
            return None;
        };
        // The CPU's budget is that of one CPU: the test stays there.
        let cpus = core_affinity::get_core_ids().unwrap_or_default();
        let _ = cpus.first().map(|cpu| core_affinity::set_for_current(*cpu));
        let filter = FilterConfig {
            mode: match setup.mode {
                Mode::Off => FilterMode::Off,
                Mode::Monitor => FilterMode::Monitor,
                Mode::Drop => FilterMode::Drop,
            },
            connections_per_second: if setup.is_spent { 1 } else { 100_000 },
            connections_burst: if setup.is_spent { 1 } else { 1_000_000 },
            pressure_per_second: u32::from(setup.is_pressed),
            syn_payload_bytes_max: setup.syn_payload_bytes_max(),
            ..FilterConfig::default()
        };
        let redirection = if setup.is_steered { Redirection::Cpus(&[0]) } else { Redirection::Off };
        let setup_of_program = xdp::Setup {
            ports: &PORTS,
            interfaces: &INTERFACES,
            redirection,
            heartbeat_timeout: if setup.is_unattended { Duration::ZERO } else { HEARTBEAT_TIMEOUT },
            filter: &filter,
        };
        let mut prefilter = match Prefilter::load(object, setup_of_program) {
            Ok(prefilter) => prefilter,
            Err(error @ XdpError::NotPermitted { .. }) => {
                println!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}: {error:?}"),
        };
        if setup.mode != Mode::Off {
            fill(&prefilter);
        }
        for frame in setup.before() {
            let _ = prefilter.run(&frame.bytes()).unwrap();
        }
        let counts = counts(&prefilter);
        let mut kernel = Self { prefilter, counts };
        while setup.is_unattended && !kernel.is_left_alone() {
            // Until the clock ticks for the first time since the beat.
            let _ = kernel.run(&Frame::v4(25).bytes());
        }
        Some(kernel)
    }

    /// What the program does, and the frame as it hands it on.
    pub(crate) fn run(&mut self, octets: &[u8]) -> (Action, Vec<u8>) {
        self.prefilter.run_through(octets).unwrap()
    }

    /// Whether a packet has been counted as that of a filter without a daemon since the last time.
    fn is_left_alone(&mut self) -> bool {
        self.counted().keys().any(|(_, _, verdict)| *verdict == Verdict::Unattended.name())
    }

    /// What was counted since the last time.
    pub(crate) fn counted(&mut self) -> Counts {
        let before = std::mem::replace(&mut self.counts, counts(&self.prefilter));
        let since = self.counts.iter().map(|(key, n)| (*key, n - before.get(key).unwrap_or(&0)));
        since.filter(|(_, packets)| *packets != 0).collect()
    }
}

/// Of all interfaces and queues, those that had a packet.
fn counts(prefilter: &Prefilter) -> Counts {
    let mut counts = Counts::new();
    for slot in 0..INTERFACES_MAX as u32 {
        for queue in prefilter.traffic(slot).unwrap().queues {
            let seen = queue.verdicts.into_iter().filter(|(_, packets)| *packets != 0);
            counts.extend(seen.map(|(name, n)| ((slot, queue.queue, name), n)));
        }
    }
    counts
}

fn fill(prefilter: &Prefilter) {
    let filter = prefilter.filter();
    for (clients, lifetime) in
        [(&BANNED[..], Duration::from_secs(3_600)), (&BANNED_BEFORE[..], Duration::ZERO)]
    {
        for client in clients {
            filter.ban(address(client), lifetime).unwrap();
        }
    }
    filter.set_lists(Lists::new(networks(&ALLOWED), networks(&DENIED))).unwrap();
}

/// The decoder and the filter without a kernel.
pub(crate) struct Host {
    setup: Setup,
    tables: PlainTables,
}

impl Host {
    pub(crate) fn new(setup: Setup) -> Self {
        let period = |is_short: bool| if is_short { SECOND } else { 0 };
        let policy = Policy {
            syn_payload_bytes_max: setup.syn_payload_bytes_max(),
            source_period: period(setup.is_spent),
            source_burst: 0,
            pressure_period: period(setup.is_pressed),
            pressure_burst: period(setup.is_pressed),
        };
        let now = 3_600 * SECOND;
        let mut tables = PlainTables::new(policy, now);
        tables.bans.extend(BANNED.iter().map(|client| (key(client), now + 3_600 * SECOND)));
        tables.bans.extend(BANNED_BEFORE.iter().map(|client| (key(client), now)));
        let listed = |texts, listing| networks(texts).map(move |net| (prefix(net), listing));
        tables.listings.extend(listed(&ALLOWED, Listing::Allowed));
        tables.listings.extend(listed(&DENIED, Listing::Denied));
        let mut host = Self { setup, tables };
        for frame in setup.before() {
            let _ = host.run(&frame.bytes());
        }
        host
    }

    pub(crate) fn run(&mut self, octets: &[u8]) -> (Action, Verdict) {
        match decode(&octets) {
            Ok(segment) if PORTS.contains(&segment.destination_port) => self.judge(&segment),
            Ok(_) | Err(Miss::NotTcp) => (Action::Pass, Verdict::NotOurs),
            Err(Miss::NotUnderstood) => (Action::Pass, Verdict::NotUnderstood),
        }
    }

    fn judge(&mut self, segment: &Segment) -> (Action, Verdict) {
        if self.setup.is_unattended {
            return (Action::Pass, Verdict::Unattended);
        }
        let verdict = match self.setup.mode {
            Mode::Off => Verdict::Passed,
            Mode::Monitor | Mode::Drop => filter::judge(segment, &mut self.tables),
        };
        if verdict.is_against() && self.setup.mode == Mode::Drop {
            return (Action::Drop, verdict);
        }
        match (self.setup.is_steered, verdict) {
            (false, _) => (Action::Pass, verdict),
            (true, Verdict::Passed) => (Action::Redirect, Verdict::Steered),
            (true, _) => (Action::Redirect, verdict),
        }
    }
}

fn key(client: &str) -> u64 {
    match address(client) {
        IpAddr::V4(client) => v4_key(client.to_bits()),
        IpAddr::V6(client) => v6_key((client.to_bits() >> 64) as u64),
    }
}

fn prefix(network: IpNet) -> Prefix {
    let bits = u32::from(network.prefix_len());
    match network.network() {
        IpAddr::V4(address) => Prefix::V4 { address: address.to_bits(), bits },
        IpAddr::V6(address) => Prefix::V6 { address: address.to_bits(), bits },
    }
}
