//! What is remembered of peers and TLS, so that no mail is lost to it and its removal is noticed.
//!
//! A peer whose handshake failed for a reason of negotiation is not offered STARTTLS for a while: large senders bounce mail
//! rather than try in clear once STARTTLS was offered, and where it is not offered they come in clear at once. That opens a
//! peer to whoever can make its handshakes fail, so it is hedged: never for a peer that got TLS done lately, never for more
//! than a share of all peers.
//!
//! The reverse is noticed too: a peer that has always come with TLS and now comes without, though STARTTLS was offered, may
//! have someone in the path who strips it.
//!
//! Time is seconds since 1970, because the memory outlives the process.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::Networks;

/// A peer that got TLS done within this time can do it: its failure has another cause.
const SUCCESS_COUNTS: Duration = Duration::from_secs(30 * 86_400);

/// Peers not seen for this long are forgotten, unless pinned.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 86_400);

/// So many peers may be denied STARTTLS whatever their share: on a small host one is many percent.
const WITHHELD_FLOOR: usize = 10;

/// TLS sessions after which a peer counts as one that always comes with TLS.
const ALWAYS_SESSIONS_MIN: u32 = 3;

/// Of all peers, how many go at once when there are too many: forgetting the oldest one by one would cost a search each.
const EVICTED_SHARE: usize = 16;

/// A customer of a hoster or an access network has a /64 (RFC 6177).
const IPV6_PREFIX: u8 = 64;

/// Bounds and rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySettings {
    /// How long STARTTLS is withheld after a failure. Default a day: the next tries of any sender fall into it.
    pub withhold: Duration,
    /// Of the peers known, at most so many percent are denied STARTTLS at a time, and ten in any case; 0 is none ever. Default 5.
    pub withheld_percent_max: u8,
    /// Default 100,000, which take about 20 MiB.
    pub peers_max: usize,
    /// 24 to 32: how much of an IPv4 address makes a peer. Default 32; large senders retry from other addresses of a /24.
    pub ipv4_prefix: u8,
    /// Never denied STARTTLS.
    pub exempt: Networks,
}

/// The values named in the documentation of each field.
impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            withhold: Duration::from_secs(86_400),
            withheld_percent_max: 5,
            peers_max: 100_000,
            ipv4_prefix: 32,
            exempt: Networks::default(),
        }
    }
}

/// All peers known.
#[derive(Debug)]
pub struct Memory {
    settings: MemorySettings,
    peers: HashMap<IpNet, Peer>,
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    pub last_seen: u64,
    pub last_success: Option<u64>,
    pub last_failure: Option<u64>,
    /// Of a session in clear that brought a message.
    pub last_clear: Option<u64>,
    /// Of a session under TLS that brought a message.
    pub last_mail_over_tls: Option<u64>,
    pub withheld_until: Option<u64>,
    pub pin: Option<Pin>,
    /// Sessions under TLS, and in clear though STARTTLS was offered.
    pub tls_sessions: u32,
    pub clear_sessions: u32,
}

/// The operator's word, which overrides the memory's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// Always offer STARTTLS.
    Offer,
    /// Never offer it.
    Withhold,
}

/// What follows from a failed handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// STARTTLS is not offered until then.
    Withheld { until: u64 },
    /// It goes on being offered.
    Offered(Because),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The failure was no matter of negotiation: a retry in clear is not what it asks for.
    NotNegotiation,
    /// It got TLS done within 30 days.
    RecentSuccess,
    /// It is in the operator's list, or pinned.
    Exempt,
    /// As many peers as may be are denied STARTTLS already.
    ShareExhausted,
}

/// A peer that always came with TLS came without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripped {
    pub tls_sessions: u32,
    pub last_success: u64,
}

impl Memory {
    pub fn new(settings: MemorySettings) -> Self {
        Self { settings, peers: HashMap::new() }
    }

    /// The network that makes `client` a peer.
    pub fn network_of(&self, client: IpAddr) -> IpNet {
        network_of(client, self.settings.ipv4_prefix)
    }

    /// Takes in what was known before, as [`peers`](Self::peers) gave it.
    pub fn restore(&mut self, peers: impl IntoIterator<Item = (IpNet, Peer)>) {
        self.peers.extend(peers);
    }

    /// All that is known, in no order.
    pub fn peers(&self) -> impl Iterator<Item = (&IpNet, &Peer)> {
        self.peers.iter()
    }

    pub fn peer(&self, network: &IpNet) -> Option<&Peer> {
        self.peers.get(network)
    }

    /// A session of `client` got under TLS.
    pub fn handshake_succeeded(&mut self, client: IpAddr, now: u64) {
        let peer = self.seen(client, now);
        peer.last_success = Some(now);
        peer.withheld_until = None;
        peer.tls_sessions = peer.tls_sessions.saturating_add(1);
    }

    /// A handshake failed after STARTTLS, `negotiation` says for which kind of reason.
    pub fn handshake_failed(&mut self, client: IpAddr, negotiation: bool, now: u64) -> Consequence {
        let exempt = self.settings.exempt.contains(client);
        let withheld = self.withheld(now).count();
        let percent = usize::from(self.settings.withheld_percent_max);
        let share = self.peers.len().saturating_mul(percent) / 100;
        let may_withhold = percent > 0 && withheld < share.max(WITHHELD_FLOOR);
        let until = now + self.settings.withhold.as_secs();
        let peer = self.seen(client, now);
        peer.last_failure = Some(now);
        let success_counts = |at: u64| now.saturating_sub(at) < SUCCESS_COUNTS.as_secs();
        let because = if !negotiation {
            Because::NotNegotiation
        } else if exempt || peer.pin == Some(Pin::Offer) {
            Because::Exempt
        } else if peer.last_success.is_some_and(success_counts) {
            Because::RecentSuccess
        } else if !may_withhold && peer.withheld_until.is_none() {
            Because::ShareExhausted
        } else {
            peer.withheld_until = Some(until);
            return Consequence::Withheld { until };
        };
        Consequence::Offered(because)
    }

    /// A session of `client` under TLS came as far as its first message.
    pub fn came_over_tls(&mut self, client: IpAddr, now: u64) {
        self.seen(client, now).last_mail_over_tls = Some(now);
    }

    /// A session of `client` came in clear as far as its first message. `offered`: though STARTTLS was on offer.
    pub fn came_in_clear(&mut self, client: IpAddr, offered: bool, now: u64) -> Option<Stripped> {
        let peer = self.seen(client, now);
        peer.last_clear = Some(now);
        if !offered {
            return None;
        }
        let always = peer.clear_sessions == 0 && peer.tls_sessions >= ALWAYS_SESSIONS_MIN;
        peer.clear_sessions = peer.clear_sessions.saturating_add(1);
        let last_success = peer.last_success.filter(|_| always)?;
        Some(Stripped { tls_sessions: peer.tls_sessions, last_success })
    }

    /// Whether a session of `client` came as far as a message since then.
    pub fn brought_mail(&self, client: IpAddr, since: u64) -> bool {
        let peer = self.peer(&self.network_of(client));
        let times = peer.map(|peer| [peer.last_clear, peer.last_mail_over_tls]);
        times.into_iter().flatten().flatten().any(|at| at >= since)
    }

    /// Peers that are not offered STARTTLS.
    pub fn withheld(&self, now: u64) -> impl Iterator<Item = IpNet> + '_ {
        let is_withheld = move |peer: &Peer| match peer.pin {
            Some(pin) => pin == Pin::Withhold,
            None => peer.withheld_until.is_some_and(|until| until > now),
        };
        self.peers.iter().filter(move |(_, peer)| is_withheld(peer)).map(|(network, _)| *network)
    }

    /// The operator's word about a peer; `None` takes it back.
    pub fn pin(&mut self, network: IpNet, pin: Option<Pin>, now: u64) {
        let peer = self.peers.entry(network).or_default();
        peer.pin = pin;
        peer.last_seen = peer.last_seen.max(now);
    }

    /// Forgets all peers within `network`; how many there were.
    pub fn forget(&mut self, network: IpNet) -> usize {
        let before = self.peers.len();
        self.peers.retain(|peer, _| !network.contains(peer));
        before - self.peers.len()
    }

    /// Drops what is too old to be of use.
    pub fn expire(&mut self, now: u64) {
        let is_old = |at: u64| now.saturating_sub(at) >= FORGOTTEN_AFTER.as_secs();
        self.peers.retain(|_, peer| peer.pin.is_some() || !is_old(peer.last_seen));
    }

    fn seen(&mut self, client: IpAddr, now: u64) -> &mut Peer {
        let network = self.network_of(client);
        if self.peers.len() >= self.settings.peers_max && !self.peers.contains_key(&network) {
            self.evict(now);
        }
        let peer = self.peers.entry(network).or_default();
        peer.last_seen = now;
        peer
    }

    /// Makes room by forgetting those not seen for longest. Who is pinned or denied STARTTLS now stays.
    fn evict(&mut self, now: u64) {
        let mut seen: Vec<(u64, IpNet)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.pin.is_none() && peer.withheld_until.is_none_or(|u| u <= now))
            .map(|(network, peer)| (peer.last_seen, *network))
            .collect();
        seen.sort_unstable();
        let evicted: HashSet<IpNet> = seen
            .into_iter()
            .take(self.peers.len() / EVICTED_SHARE + 1)
            .map(|(_, network)| network)
            .collect();
        self.peers.retain(|network, _| !evicted.contains(network));
    }
}

/// IPv4 by `ipv4_prefix`, IPv6 by /64.
pub fn network_of(client: IpAddr, ipv4_prefix: u8) -> IpNet {
    let client = client.to_canonical();
    let prefix = if client.is_ipv4() { ipv4_prefix } else { IPV6_PREFIX };
    IpNet::new(client, prefix).map_or_else(|_beyond| client.into(), |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    const NOW: u64 = 1_795_500_000;

    fn settings() -> MemorySettings {
        MemorySettings {
            withhold: Duration::from_secs(HOUR),
            withheld_percent_max: 10,
            peers_max: 1_000,
            ipv4_prefix: 32,
            exempt: ["198.51.100.0/24".parse::<IpNet>().unwrap()].into_iter().collect(),
        }
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::V4((0xc000_0200 + number).into())
    }

    fn is_withheld(memory: &Memory, client: IpAddr, now: u64) -> bool {
        let network = memory.network_of(client);
        memory.withheld(now).any(|withheld| withheld == network)
    }

    #[test]
    fn a_failed_negotiation_withholds_starttls_for_a_while() {
        let mut memory = Memory::new(settings());
        let until = NOW + HOUR;
        let consequence = memory.handshake_failed(client(1), true, NOW);
        assert_eq!(consequence, Consequence::Withheld { until });
        assert!(is_withheld(&memory, client(1), until - 1));
        assert!(!is_withheld(&memory, client(1), until));
        assert!(!is_withheld(&memory, client(2), NOW));
    }

    #[test]
    fn silence_or_distrust_withholds_nothing() {
        let mut memory = Memory::new(settings());
        let consequence = memory.handshake_failed(client(1), false, NOW);
        assert_eq!(consequence, Consequence::Offered(Because::NotNegotiation));
        assert_eq!(memory.withheld(NOW).count(), 0);
    }

    #[test]
    fn who_got_tls_done_within_thirty_days_is_offered_it_again() {
        let mut memory = Memory::new(settings());
        memory.handshake_succeeded(client(1), NOW);
        let later = NOW + 30 * DAY - 1;
        let consequence = memory.handshake_failed(client(1), true, later);
        assert_eq!(consequence, Consequence::Offered(Because::RecentSuccess));
        let consequence = memory.handshake_failed(client(1), true, NOW + 30 * DAY);
        assert!(matches!(consequence, Consequence::Withheld { .. }));
    }

    #[test]
    fn a_success_ends_the_withholding() {
        let mut memory = Memory::new(settings());
        let _ = memory.handshake_failed(client(1), true, NOW);
        memory.handshake_succeeded(client(1), NOW + 1);
        assert!(!is_withheld(&memory, client(1), NOW + 2));
    }

    #[test]
    fn the_operators_list_and_word_override_the_memory() {
        let mut memory = Memory::new(settings());
        let listed = "198.51.100.7".parse().unwrap();
        let exempt = Consequence::Offered(Because::Exempt);
        assert_eq!(memory.handshake_failed(listed, true, NOW), exempt);
        memory.pin(memory.network_of(client(1)), Some(Pin::Offer), NOW);
        assert_eq!(memory.handshake_failed(client(1), true, NOW), exempt);
        memory.pin(memory.network_of(client(2)), Some(Pin::Withhold), NOW);
        assert!(is_withheld(&memory, client(2), NOW + 300 * DAY));
        memory.pin(memory.network_of(client(2)), None, NOW);
        assert!(!is_withheld(&memory, client(2), NOW));
    }

    #[test]
    fn only_a_share_of_the_peers_is_denied_starttls() {
        let mut memory = Memory::new(settings());
        for number in 0..500 {
            memory.handshake_succeeded(client(number), NOW);
        }
        let later = NOW + 40 * DAY;
        let consequences: Vec<_> =
            (0..100).map(|number| memory.handshake_failed(client(number), true, later)).collect();
        let withheld = |c: &&Consequence| matches!(c, Consequence::Withheld { .. });
        assert_eq!(consequences.iter().filter(withheld).count(), 50);
        assert_eq!(consequences[99], Consequence::Offered(Because::ShareExhausted));
        // Whose time is running may fail again.
        assert!(matches!(
            memory.handshake_failed(client(0), true, later + 1),
            Consequence::Withheld { .. }
        ));
        let never = MemorySettings { withheld_percent_max: 0, ..settings() };
        let consequence = Memory::new(never).handshake_failed(client(1), true, NOW);
        assert_eq!(consequence, Consequence::Offered(Because::ShareExhausted));
    }

    #[test]
    fn a_peer_that_always_came_with_tls_and_comes_without_is_told_once() {
        let mut memory = Memory::new(settings());
        assert_eq!(memory.came_in_clear(client(2), true, NOW), None, "it never had TLS");
        for _ in 0..3 {
            memory.handshake_succeeded(client(1), NOW);
        }
        let stripped = Stripped { tls_sessions: 3, last_success: NOW };
        assert_eq!(memory.came_in_clear(client(1), true, NOW + HOUR), Some(stripped));
        assert_eq!(memory.came_in_clear(client(1), true, NOW + HOUR), None, "it is known to do so");
    }

    #[test]
    fn who_brought_mail_is_known_with_the_time() {
        let mut memory = Memory::new(settings());
        memory.came_over_tls(client(1), NOW);
        let _ = memory.came_in_clear(client(2), false, NOW);
        memory.handshake_succeeded(client(3), NOW);
        for (number, brought) in [(1, true), (2, true), (3, false), (4, false)] {
            assert_eq!(memory.brought_mail(client(number), NOW), brought, "{number}");
            assert!(!memory.brought_mail(client(number), NOW + 1), "{number}");
        }
    }

    #[test]
    fn peers_are_networks() {
        for (address, prefix, network) in [
            ("192.0.2.7", 32, "192.0.2.7/32"),
            ("192.0.2.7", 24, "192.0.2.0/24"),
            ("::ffff:192.0.2.7", 24, "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", 32, "2001:db8:1:2::/64"),
        ] {
            assert_eq!(network_of(address.parse().unwrap(), prefix).to_string(), network);
        }
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_whom_it_must() {
        let mut memory = Memory::new(MemorySettings { peers_max: 100, ..settings() });
        let _ = memory.handshake_failed(client(0), true, NOW);
        memory.pin(memory.network_of(client(1)), Some(Pin::Offer), NOW);
        for number in 2..2_000 {
            memory.handshake_succeeded(client(number), NOW + u64::from(number));
            assert!(memory.peers().count() <= 100);
        }
        assert!(is_withheld(&memory, client(0), NOW + 2_000));
        let network = memory.network_of(client(1));
        assert!(memory.peers().any(|(peer, _)| *peer == network));
    }

    #[test]
    fn what_is_old_is_forgotten_and_what_is_named_too() {
        let mut memory = Memory::new(settings());
        memory.handshake_succeeded(client(1), NOW);
        memory.handshake_succeeded(client(2), NOW + DAY);
        memory.expire(NOW + 60 * DAY);
        assert_eq!(memory.peers().count(), 1);
        assert_eq!(memory.forget("192.0.2.0/24".parse().unwrap()), 1);
        assert_eq!(memory.peers().count(), 0);
    }
}
