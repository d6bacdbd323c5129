//! Frames for tests: built layer by layer, with the lengths right and the checksums zero (nobody here reads them).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::decode::{ether_type, protocol};

/// An 802.1Q (customer) or 802.1ad (provider) tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    Customer(u16),
    Provider(u16),
}

/// An IPv6 extension header and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    HopByHop,
    Routing,
    DestinationOptions,
    Authentication,
    Fragment,
}

/// A TCP segment in its frame; fields that a test does not set have plain values.
#[derive(Debug, Clone)]
pub struct Frame {
    pub tags: Vec<Tag>,
    pub network: Network,
    pub source_port: u16,
    pub destination_port: u16,
    pub flags: u8,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone)]
pub enum Network {
    V4 {
        source: Ipv4Addr,
        destination: Ipv4Addr,
        /// 32-bit words after the fixed header, at most 10.
        option_words: u8,
        /// Flags and offset as on the wire: 0x4000 is "don't fragment".
        fragment: u16,
        protocol: u8,
    },
    V6 {
        source: Ipv6Addr,
        destination: Ipv6Addr,
        extensions: Vec<Extension>,
    },
}

impl Frame {
    /// SYN from a documentation address (RFC 5737) to `destination_port`.
    pub fn v4(destination_port: u16) -> Self {
        Self::new(
            Network::V4 {
                source: Ipv4Addr::new(192, 0, 2, 7),
                destination: Ipv4Addr::new(198, 51, 100, 25),
                option_words: 0,
                fragment: 0x4000,
                protocol: protocol::TCP,
            },
            destination_port,
        )
    }

    /// SYN from a documentation address (RFC 3849) to `destination_port`.
    pub fn v6(destination_port: u16, extensions: &[Extension]) -> Self {
        Self::new(
            Network::V6 {
                source: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 7),
                destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 25),
                extensions: extensions.to_vec(),
            },
            destination_port,
        )
    }

    #[must_use]
    pub fn tagged(mut self, tags: &[Tag]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    fn new(network: Network, destination_port: u16) -> Self {
        let (tags, payload) = (Vec::new(), Vec::new());
        Self { tags, network, source_port: 40_000, destination_port, flags: 0x02, payload }
    }

    /// The frame from its destination MAC address on.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            let (kind, id) = match *tag {
                Tag::Customer(id) => (ether_type::VLAN, id),
                Tag::Provider(id) => (ether_type::PROVIDER_VLAN, id),
            };
            out.extend(kind.to_be_bytes());
            out.extend(id.to_be_bytes());
        }
        let segment = self.segment();
        match &self.network {
            Network::V4 { source, destination, option_words, fragment, protocol } => {
                out.extend(ether_type::IPV4.to_be_bytes());
                let words = 5 + option_words;
                let total = (usize::from(words) * 4 + segment.len()) as u16;
                out.extend([0x40 | words, 0]);
                out.extend(total.to_be_bytes());
                out.extend([0, 1]);
                out.extend(fragment.to_be_bytes());
                out.extend([64, *protocol, 0, 0]);
                out.extend(source.octets());
                out.extend(destination.octets());
                // Option 1 is "no operation" (RFC 791 section 3.1).
                out.extend(std::iter::repeat_n(1, usize::from(*option_words) * 4));
            }
            Network::V6 { source, destination, extensions } => {
                out.extend(ether_type::IPV6.to_be_bytes());
                let (first, headers) = chain(extensions);
                out.extend([0x60, 0, 0, 0]);
                out.extend(((headers.len() + segment.len()) as u16).to_be_bytes());
                out.extend([first, 64]);
                out.extend(source.octets());
                out.extend(destination.octets());
                out.extend(headers);
            }
        }
        out.extend(segment);
        out
    }

    fn segment(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.source_port.to_be_bytes());
        out.extend(self.destination_port.to_be_bytes());
        out.extend([0; 8]);
        out.extend([5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        out.extend(&self.payload);
        out
    }
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop => protocol::HOP_BY_HOP,
            Self::Routing => protocol::ROUTING,
            Self::DestinationOptions => protocol::DESTINATION_OPTIONS,
            Self::Authentication => protocol::AUTHENTICATION,
            Self::Fragment => protocol::FRAGMENT,
        }
    }

    /// Length field and whole length in bytes, different for every kind so that a wrong unit is noticed.
    fn lengths(self) -> (u8, usize) {
        match self {
            Self::HopByHop | Self::Fragment => (0, 8),
            Self::Routing => (2, 24),
            Self::DestinationOptions => (1, 16),
            // RFC 4302 section 2.2: 4-octet units minus 2; 12 fixed bytes and 12 of check value.
            Self::Authentication => (4, 24),
        }
    }
}

/// First next-header value and the bytes of all extension headers before TCP.
fn chain(extensions: &[Extension]) -> (u8, Vec<u8>) {
    let following = extensions.iter().skip(1).map(|header| header.number());
    let mut out = Vec::new();
    for (header, next) in extensions.iter().zip(following.chain([protocol::TCP])) {
        let (units, bytes) = header.lengths();
        out.extend([next, units]);
        out.extend(std::iter::repeat_n(0, bytes - 2));
    }
    (extensions.first().map_or(protocol::TCP, |header| header.number()), out)
}
