use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Which clients get a treatment of their own. Nobody does by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientNetworks {
    /// Load balancers: each connection from there begins with a PROXY protocol header, version 1 or 2.
    pub proxy_protocol: Networks,
    /// May name another client in their place, with Postfix's XCLIENT command.
    pub xclient: Networks,
    /// Honest but sloppy senders: bare CR, bare LF and NUL are normalised instead of refused.
    pub normalize: Networks,
    /// Health checks and trusted hosts: no greet delay, no delayed error replies.
    pub undelayed: Networks,
    /// TLS stacks that abort on session tickets: none are given, none are taken.
    pub without_tickets: Networks,
}

/// A list of networks of both families.
///
/// IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2) counts as IPv4, in the list and in what is looked up: a client is the same
/// client whichever socket it came through. So `::/0` is every IPv6 address and no IPv4 address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    networks: Vec<IpNet>,
}

impl Networks {
    /// Networks in one list. A lookup walks the list, once for each connection, and this many cost less than the accept
    /// itself; who needs more can write wider networks.
    pub const ENTRIES_MAX: usize = 1_024;

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// In the order given.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.networks.iter()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        Self { networks: networks.into_iter().map(canonical).collect() }
    }
}

/// A network within `::ffff:0:0/96` as the IPv4 network it is.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(v6) = network else {
        return network;
    };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_PREFIX));
    let v4 = v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        list.iter().map(|text| text.parse::<IpNet>().unwrap()).collect()
    }

    fn holds(list: &[&str], address: &str) -> bool {
        networks(list).contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_a_network_up_to_its_edges_and_no_further() {
        let list = ["192.0.2.64/26", "2001:db8:1::/48", "198.51.100.7/32"];
        for inside in [
            "192.0.2.64",
            "192.0.2.127",
            "198.51.100.7",
            "2001:db8:1::",
            "2001:db8:1:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(holds(&list, inside), "{inside}");
        }
        for outside in [
            "192.0.2.63",
            "192.0.2.128",
            "198.51.100.8",
            "2001:db8:2::",
            "2001:db8:0:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(!holds(&list, outside), "{outside}");
        }
    }

    #[test]
    fn an_ipv4_client_on_an_ipv6_socket_is_the_same_client() {
        assert!(holds(&["192.0.2.0/24"], "::ffff:192.0.2.1"));
        assert!(!holds(&["192.0.2.0/24"], "::ffff:192.0.3.1"));
        assert!(holds(&["::ffff:192.0.2.0/120"], "192.0.2.1"));
        assert!(!holds(&["::ffff:192.0.2.0/120"], "192.0.3.1"));
        assert_eq!(networks(&["::ffff:192.0.2.0/120"]), networks(&["192.0.2.0/24"]));
        // Not the IPv4-compatible form, which RFC 4291 deprecates.
        assert!(!holds(&["192.0.2.0/24"], "::192.0.2.1"));
    }

    #[test]
    fn all_of_one_family_is_nothing_of_the_other() {
        assert!(holds(&["::/0"], "2001:db8::1"));
        assert!(!holds(&["::/0"], "192.0.2.1"));
        assert!(!holds(&["::/0"], "::ffff:192.0.2.1"));
        assert!(holds(&["0.0.0.0/0"], "::ffff:192.0.2.1"));
        assert!(!holds(&["0.0.0.0/0"], "2001:db8::1"));
    }

    #[test]
    fn an_empty_list_holds_nobody() {
        assert!(Networks::default().is_empty());
        assert!(!holds(&[], "192.0.2.1"));
        assert!(!networks(&["192.0.2.1/32"]).is_empty());
    }
}
