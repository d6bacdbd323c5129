//! Allowed and denied networks, and how one set of them is exchanged for another without a moment in between.

use ipnet::IpNet;

use ingress_ebpf::abi::Listing;

/// What is allowed and what is denied. The allowed come first: a denied network within an allowed one does not count, and in a
/// denied one an allowed one is an exception.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// In order, a network before those within it; each once.
    entries: Vec<(IpNet, Listing)>,
}

/// One prefix in the exchange of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) network: IpNet,
    /// What an address means whose longest prefix this is, by the lists before and by those after.
    pub(super) before: Listing,
    pub(super) after: Listing,
    /// It is in the lists after.
    pub(super) stays: bool,
}

impl Lists {
    pub fn new(
        allowed: impl IntoIterator<Item = IpNet>,
        denied: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let allowed = allowed.into_iter().map(|network| (network.trunc(), Listing::Allowed));
        let denied = denied.into_iter().map(|network| (network.trunc(), Listing::Denied));
        // Stable: of the same network twice, the allowed one comes first and stays.
        let mut entries: Vec<(IpNet, Listing)> = allowed.chain(denied).collect();
        entries.sort_by_key(|(network, _)| *network);
        entries.dedup_by_key(|(network, _)| *network);
        let mut covering = Covering::default();
        entries.retain(|(network, listing)| {
            // A denied network that is left out does not stand between those within it and the allowed one around it.
            let is_kept =
                *listing == Listing::Allowed || covering.around(*network) != Listing::Allowed;
            covering.enter(*network, is_kept.then_some(*listing));
            is_kept
        });
        Self { entries }
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.entries.iter().map(|(network, _)| *network)
    }

    /// Prefixes, of both families.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Change {
    /// All prefixes of both lists. A lookup by longest prefix that takes `before` answers as the lists before did, and one that
    /// takes `after` as those after do, since a prefix of one list alone means in the other what covers it there.
    pub(super) fn between(before: &Lists, after: &Lists) -> Vec<Self> {
        let (mut old, mut new) =
            (before.entries.iter().peekable(), after.entries.iter().peekable());
        let (mut covering_old, mut covering_new) = (Covering::default(), Covering::default());
        let mut changes = Vec::with_capacity(before.len().max(after.len()));
        loop {
            let network = match (old.peek(), new.peek()) {
                (Some((old, _)), Some((new, _))) => *old.min(new),
                (Some((network, _)), None) | (None, Some((network, _))) => *network,
                (None, None) => return changes,
            };
            let was = old.next_if(|(known, _)| *known == network).map(|(_, listing)| *listing);
            let is = new.next_if(|(known, _)| *known == network).map(|(_, listing)| *listing);
            let around_before = covering_old.enter(network, was);
            let around_after = covering_new.enter(network, is);
            changes.push(Self {
                network,
                before: was.unwrap_or(around_before),
                after: is.unwrap_or(around_after),
                stays: is.is_some(),
            });
        }
    }
}

/// The networks around the one that is looked at, in a walk in order.
#[derive(Default)]
struct Covering(Vec<(IpNet, Listing)>);

impl Covering {
    /// What is listed around `network`, to which the walk goes on.
    fn around(&mut self, network: IpNet) -> Listing {
        while self.0.last().is_some_and(|(around, _)| !around.contains(&network)) {
            self.0.pop();
        }
        self.0.last().map_or(Listing::None, |(_, listing)| *listing)
    }

    /// Goes on to `network`, which from then on is around those within it if it is listed. What is listed around it.
    fn enter(&mut self, network: IpNet, listing: Option<Listing>) -> Listing {
        let around = self.around(network);
        if let Some(listing) = listing {
            self.0.push((network, listing));
        }
        around
    }
}

/// A list as it stands in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ListFile {
    pub networks: Vec<IpNet>,
    /// Line number, counted from 1, and what is wrong with it.
    pub bad_lines: Vec<(usize, String)>,
}

impl ListFile {
    /// One network or address a line; what follows `#` or `;` is a comment. A bad line is reported and left out.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split(['#', ';']).next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            match parse_network(entry) {
                Ok(network) => list.networks.push(network),
                Err(problem) => list.bad_lines.push((index + 1, problem)),
            }
        }
        list
    }
}

/// An address, or a network whose bits behind the prefix are 0.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let shown: String = text.chars().take(60).collect();
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => match text.parse::<std::net::IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => return Err(format!("{shown:?} is no address and no network")),
        },
    };
    if network.trunc() != network {
        return Err(format!(
            "{shown:?} has bits behind its prefix: the network is {}",
            network.trunc()
        ));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What the longest prefix says, by trying all.
    fn longest(entries: impl Iterator<Item = (IpNet, Listing)>, address: IpAddr) -> Listing {
        entries
            .filter(|(network, _)| network.contains(&address))
            .max_by_key(|(network, _)| network.prefix_len())
            .map_or(Listing::None, |(_, listing)| listing)
    }

    #[test]
    fn the_allowed_are_exceptions_of_the_denied_and_not_the_reverse() {
        let lists = Lists::new(
            networks(&["192.0.2.0/28", "198.51.100.0/24"]),
            networks(&["192.0.2.0/24", "198.51.100.7/32", "198.51.100.0/24"]),
        );
        let of = |address: &str| longest(lists.entries.iter().copied(), address.parse().unwrap());
        assert_eq!(of("192.0.2.1"), Listing::Allowed);
        assert_eq!(of("192.0.2.200"), Listing::Denied);
        assert_eq!(of("198.51.100.7"), Listing::Allowed);
        assert_eq!(lists.len(), 3);
    }

    #[test]
    fn bad_lines_are_told_by_number_and_the_others_count() {
        let text = "# from the office\n192.0.2.0/24\n\n2001:db8::/32 ; a comment\n10.0.0.1/8\nexample.org\n198.51.100.7";
        let list = ListFile::parse(text);
        assert_eq!(list.networks, networks(&["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"]));
        assert_eq!(
            list.bad_lines,
            [
                (
                    5,
                    "\"10.0.0.1/8\" has bits behind its prefix: the network is 10.0.0.0/8"
                        .to_owned()
                ),
                (6, "\"example.org\" is no address and no network".to_owned()),
            ]
        );
    }

    /// Networks close to each other, so that they cover one another.
    fn close_networks() -> impl Strategy<Value = Vec<IpNet>> {
        let v4 = (any::<u8>(), 20_u8..=32).prop_map(|(low, length)| {
            IpNet::new(IpAddr::from([10, 0, low & 3, low]), length).unwrap().trunc()
        });
        let v6 = (any::<u8>(), 110_u8..=128).prop_map(|(low, length)| {
            IpNet::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(low)]), length).unwrap().trunc()
        });
        prop::collection::vec(prop_oneof![v4, v6], 0..20)
    }

    proptest! {
        #[test]
        fn an_exchange_answers_as_either_list_all_along(
            old in (close_networks(), close_networks()),
            new in (close_networks(), close_networks()),
            low: u8,
        ) {
            let (old, new) = (Lists::new(old.0, old.1), Lists::new(new.0, new.1));
            let changes = Change::between(&old, &new);
            for address in [IpAddr::from([10, 0, low & 3, low]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(low)])] {
                let before = changes.iter().map(|change| (change.network, change.before));
                prop_assert_eq!(longest(before, address), longest(old.entries.iter().copied(), address));
                let after = changes.iter().map(|change| (change.network, change.after));
                let expected = longest(new.entries.iter().copied(), address);
                prop_assert_eq!(longest(after.clone(), address), expected);
                let left = changes.iter().filter(|change| change.stays);
                prop_assert_eq!(longest(left.map(|change| (change.network, change.after)), address), expected);
            }
        }

        #[test]
        fn an_allowed_address_is_allowed_whatever_is_denied(
            allowed in close_networks(),
            denied in close_networks(),
            low: u8,
        ) {
            let address = IpAddr::from([10, 0, low & 3, low]);
            let is_in = |list: &[IpNet]| list.iter().any(|network| network.contains(&address));
            let expected = match (is_in(&allowed), is_in(&denied)) {
                (true, _) => Listing::Allowed,
                (false, true) => Listing::Denied,
                (false, false) => Listing::None,
            };
            let lists = Lists::new(allowed, denied);
            prop_assert_eq!(longest(lists.entries.iter().copied(), address), expected);
        }
    }
}
