//! Who is banned, why and until when: a pure type.
//!
//! A client is an IPv4 address or an IPv6 network of /64. Its offences of one kind are counted within a window; as many as
//! allowed make a ban. A ban that follows another is twice as long, up to a bound.
//!
//! Time is seconds since 1970, because bans outlive the process.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::rules::{BanSettings, Offence};
use super::tally::Tally;
use crate::policy::Networks;

/// A customer of a hoster or an access network has a /64 (RFC 6177).
const IPV6_PREFIX: u8 = 64;

/// The widest networks that an operator may ban: 256 clients, since each is an entry of the kernel's map. What is wider belongs
/// into a list of denied networks.
const WIDEST_V4: u8 = 24;
const WIDEST_V6: u8 = 56;

/// Bans by the operator's word at a time.
const OPERATOR_BANS_MAX: usize = 1_024;

/// Networks that are excused at a time; the one named first gives way.
const EXCUSED_MAX: usize = 64;

/// Of what an operator says of a ban: a line.
const NOTE_CHARACTERS_MAX: usize = 200;

/// Of all clients, how many are forgotten at once when there are too many: one by one would cost a search each.
const EVICTED_SHARE: usize = 16;

/// One ban in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    pub network: IpNet,
    /// `None`: by the operator's word.
    pub offence: Option<Offence>,
    /// What the operator said.
    #[serde(default)]
    pub note: String,
    /// Offences that led to it.
    pub offences: u32,
    /// Which ban in a row it is, from 1.
    pub times: u32,
    pub since: u64,
    pub until: u64,
    /// Packets that XDP dropped for it under daemons before this one.
    #[serde(default)]
    pub packets: u64,
}

/// Why a network is not banned, though the operator asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotBanned {
    #[error(
        "{0} is exempt from bans, all of it or a part: see bans.exempt, xdp.filter.allow, tls.memory.exempt, and undelayed, \
         proxy_protocol and xclient in [networks]"
    )]
    Exempt(IpNet),
    #[error(
        "{0} is too wide for a ban: at most /{WIDEST_V4} or, of IPv6, /{WIDEST_V6}; a file in xdp.filter.deny_files takes any network"
    )]
    TooWide(IpNet),
    #[error(
        "the reason has at most {NOTE_CHARACTERS_MAX} characters, and no line ends or other control characters"
    )]
    Note,
    #[error("there are {OPERATOR_BANS_MAX} bans by the operator's word already")]
    TooMany,
}

/// What is to survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub bans: Vec<Ban>,
    pub past: Vec<Past>,
}

/// That a client was banned, which makes its next ban longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub network: IpNet,
    pub times: u32,
    /// Of the last ban.
    pub until: u64,
}

/// All bans, and offences on the way to one.
#[derive(Debug)]
pub struct Book {
    settings: BanSettings,
    clients: HashMap<IpNet, Client>,
    bans: HashMap<IpNet, Ban>,
    /// Whose offences do not count, until when.
    excused: Vec<(IpNet, u64)>,
}

/// What is known of a client.
#[derive(Debug, Clone, Copy, Default)]
struct Client {
    tallies: [Tally; Offence::ALL.len()],
    /// In a row, up to now.
    times: u32,
    /// Of the last of them.
    until: u64,
    last_seen: u64,
}

impl Ban {
    /// The offence, or that it is by the operator's word.
    pub fn reason(&self) -> &'static str {
        self.offence.map_or(OPERATOR, Offence::label)
    }
}

/// The reason of a ban by the operator's word.
pub const OPERATOR: &str = "operator";

impl Book {
    pub fn new(settings: BanSettings) -> Self {
        Self { settings, clients: HashMap::new(), bans: HashMap::new(), excused: Vec::new() }
    }

    /// A session of `client` ended so. The ban, if that was one too many.
    pub fn offence(&mut self, client: IpAddr, offence: Offence, now: u64) -> Option<Ban> {
        let allowed = self.settings.allowed(offence);
        let network = client_of(client);
        // Sessions that were open when a ban began end in it, and are what it was for.
        let is_excused = self.excused.iter().any(|(whose, until)| {
            *until > now && (whose.contains(&network) || network.contains(whose))
        });
        if allowed == 0 || is_excused || self.is_exempt(network) || self.is_banned(network, now) {
            return None;
        }
        self.make_room(network, now);
        let settings = &self.settings;
        let client = self.clients.entry(network).or_default();
        client.last_seen = now;
        let offences = client.tallies[offence as usize].count(now, settings.window.as_secs());
        if offences < allowed {
            return None;
        }
        let in_a_row = now.saturating_sub(client.until) < settings.lifetime_max.as_secs();
        let times = if in_a_row { client.times.saturating_add(1) } else { 1 };
        let until = now.saturating_add(settings.lifetime_of(times));
        *client = Client { times, until, last_seen: now, ..Client::default() };
        let note = String::new();
        let ban = Ban {
            network,
            offence: Some(offence),
            note,
            offences,
            times,
            since: now,
            until,
            packets: 0,
        };
        self.bans.insert(network, ban.clone());
        Some(ban)
    }

    /// The operator's ban, in place of one of the same network.
    ///
    /// # Errors
    /// [`NotBanned`] for networks that are exempt or too wide, for a note that is no line, and when there are too many.
    pub fn add(
        &mut self,
        network: IpNet,
        lifetime: Duration,
        note: String,
        now: u64,
    ) -> Result<Ban, NotBanned> {
        let network = whole_clients(network);
        let widest = if network.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
        if network.prefix_len() < widest {
            return Err(NotBanned::TooWide(network));
        }
        if self.is_exempt(network) {
            return Err(NotBanned::Exempt(network));
        }
        if note.chars().count() > NOTE_CHARACTERS_MAX || note.contains(char::is_control) {
            return Err(NotBanned::Note);
        }
        let others = self.bans.values().filter(|ban| ban.offence.is_none());
        if others.filter(|ban| ban.network != network).count() >= OPERATOR_BANS_MAX {
            return Err(NotBanned::TooMany);
        }
        let until = now.saturating_add(lifetime.as_secs().max(1));
        let ban = Ban {
            network,
            offence: None,
            note,
            offences: 0,
            times: 1,
            since: now,
            until,
            packets: 0,
        };
        self.bans.insert(network, ban.clone());
        Ok(ban)
    }

    /// Offences of `network` do not count until then: the operator tests.
    pub fn excuse(&mut self, network: IpNet, until: u64) {
        self.excused.retain(|(whose, _)| *whose != network);
        if self.excused.len() == EXCUSED_MAX {
            self.excused.remove(0);
        }
        self.excused.push((network, until));
    }

    /// Ends all bans that `network` has a part in, and forgets what led to them. Those ended.
    pub fn lift(&mut self, network: IpNet) -> Vec<IpNet> {
        let network = whole_clients(network);
        self.clients.retain(|client, _| !network.contains(client));
        let mut lifted = Vec::new();
        self.bans.retain(|banned, _| {
            let ends = network.contains(banned) || banned.contains(&network);
            if ends {
                lifted.push(*banned);
            }
            !ends
        });
        lifted.sort_unstable();
        lifted
    }

    /// Ends bans whose time is over, and forgets what no longer counts. Whether a ban ended.
    pub fn expire(&mut self, now: u64) -> bool {
        let before = self.bans.len();
        self.bans.retain(|_, ban| ban.until > now);
        let window = self.settings.window.as_secs();
        let in_a_row = self.settings.lifetime_max.as_secs();
        self.clients.retain(|_, client| {
            now.saturating_sub(client.last_seen) < window
                || now.saturating_sub(client.until) < in_a_row
        });
        self.bans.len() < before
    }

    /// In force, in no order.
    pub fn bans(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values()
    }

    /// What [`restore`](Self::restore) takes.
    pub fn kept(&self) -> Kept {
        let past = self.clients.iter().filter(|(_, client)| client.times > 0);
        let past =
            past.map(|(&network, &Client { times, until, .. })| Past { network, times, until });
        Kept { bans: self.bans.values().cloned().collect(), past: past.collect() }
    }

    /// Takes in what was kept before the start, as far as it counts still: who is exempt by now is not banned any more.
    pub fn restore(&mut self, kept: Kept, now: u64) {
        for Past { network, times, until } in kept.past {
            if !self.is_exempt(network) {
                self.make_room(network, now);
                let client =
                    Client { times, until, last_seen: until.min(now), ..Client::default() };
                self.clients.insert(network, client);
            }
        }
        let bans = kept.bans.into_iter();
        let counts = |ban: &Ban| {
            ban.until > now
                && !self.is_exempt(ban.network)
                && (ban.offence.is_none() || self.clients.contains_key(&ban.network))
        };
        let bans: Vec<Ban> = bans.filter(counts).collect();
        self.bans.extend(bans.into_iter().map(|ban| (ban.network, ban)));
        self.expire(now);
    }

    /// A network with an exempt host in it is exempt: its ban would be that host's too.
    fn is_exempt(&self, network: IpNet) -> bool {
        let exempt = &self.settings.exempt;
        exempt.iter().any(|exempt| exempt.contains(&network) || network.contains(exempt))
    }

    /// Whether the client is banned, or a network that it is in.
    fn is_banned(&self, client: IpNet, now: u64) -> bool {
        let widest = if client.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
        let around = (widest..=client.prefix_len())
            .filter_map(|prefix| IpNet::new(client.addr(), prefix).ok().map(|net| net.trunc()));
        around.filter_map(|network| self.bans.get(&network)).any(|ban| ban.until > now)
    }

    /// Makes room for a client by forgetting those not seen for longest, of those not banned as long as there are any.
    fn make_room(&mut self, network: IpNet, now: u64) {
        if self.clients.len() < self.settings.clients_max || self.clients.contains_key(&network) {
            return;
        }
        let mut oldest: Vec<(bool, u64, IpNet)> = self
            .clients
            .iter()
            .map(|(network, client)| (client.until > now, client.last_seen, *network))
            .collect();
        oldest.sort_unstable();
        oldest.truncate(self.clients.len() / EVICTED_SHARE + 1);
        let evicted: HashSet<IpNet> = oldest.into_iter().map(|(_, _, network)| network).collect();
        self.clients.retain(|client, _| !evicted.contains(client));
        self.bans.retain(|banned, ban| ban.offence.is_none() || !evicted.contains(banned));
    }
}

/// The network that is taken for one client.
pub(in crate::bans) fn client_of(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { 32 } else { IPV6_PREFIX };
    IpNet::new(address, prefix).map_or_else(|_beyond| address.into(), |network| network.trunc())
}

/// The clients in a network that [`Book::add`] takes: 256 at most.
pub(in crate::bans) fn clients_in(network: IpNet) -> Vec<IpNet> {
    let prefix = if network.addr().is_ipv4() { 32 } else { IPV6_PREFIX };
    network.subnets(prefix).map_or_else(|_longer| vec![network], |subnets| subnets.collect())
}

/// The network as it can be banned: IPv4 in an IPv6 address as the IPv4 it is, and of IPv6 nothing smaller than a client.
fn whole_clients(network: IpNet) -> IpNet {
    let canonical: Networks = [network].into_iter().collect();
    let network = canonical.iter().next().copied().unwrap_or(network);
    match network {
        IpNet::V6(v6) if v6.prefix_len() > IPV6_PREFIX => client_of(v6.addr().into()),
        network => network.trunc(),
    }
}

#[cfg(test)]
mod tests;
