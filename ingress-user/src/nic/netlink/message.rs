//! Messages of generic netlink, as attributes that nobody has looked into.

use std::marker::PhantomData;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

pub(super) type Attributes = Vec<DefaultNla>;

pub(super) fn integer(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

/// An unsigned number of 4 or 8 octets in the host's order; the kernel sends whichever it fits.
pub(super) fn number(attributes: &[DefaultNla], kind: u16) -> Option<u64> {
    let attribute = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut octets = vec![0; attribute.value_len()];
    attribute.emit_value(&mut octets);
    match octets.len() {
        4 => octets.try_into().ok().map(u32::from_ne_bytes).map(u64::from),
        8 => octets.try_into().ok().map(u64::from_ne_bytes),
        _ => None,
    }
}

/// A message of generic netlink whose attributes are not looked into.
#[derive(Debug)]
pub(super) struct Message<F> {
    command: u8,
    payload: Vec<u8>,
    family: PhantomData<F>,
}

pub(super) trait Family: std::fmt::Debug + Send + 'static {
    const NAME: &'static str;
    const VERSION: u8 = 1;
}

#[derive(Debug)]
pub(super) struct Netdev;

impl Family for Netdev {
    const NAME: &'static str = "netdev";
}

#[derive(Debug)]
pub(super) struct Ethtool;

impl Family for Ethtool {
    const NAME: &'static str = "ethtool";
}

impl<F> Message<F> {
    pub(super) fn new<N: Nla>(command: u8, attributes: &[N]) -> Self {
        let mut payload = vec![0; attributes.buffer_len()];
        attributes.emit(&mut payload);
        Self { command, payload, family: PhantomData }
    }

    pub(super) fn attributes(&self) -> Result<Attributes, DecodeError> {
        NlasIterator::new(&*self.payload).map(|nla| DefaultNla::parse(&nla?)).collect()
    }
}

impl<F: Family> GenlFamily for Message<F> {
    fn family_name() -> &'static str {
        F::NAME
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        F::VERSION
    }
}

impl<F> Emitable for Message<F> {
    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.payload.len()].copy_from_slice(&self.payload);
    }
}

impl<F> ParseableParametrized<[u8], GenlHeader> for Message<F> {
    fn parse_with_param(buffer: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { command: header.cmd, payload: buffer.to_vec(), family: PhantomData })
    }
}

/// Numbers of the family `netdev` (linux/netdev.h).
pub(super) mod netdev {
    pub(in super::super) const DEV_GET: u8 = 1;
    pub(in super::super) const QUEUE_GET: u8 = 10;
    pub(in super::super) const NAPI_GET: u8 = 11;
    pub(in super::super) const STATS_GET: u8 = 12;

    pub(in super::super) const DEV_IFINDEX: u16 = 1;
    pub(in super::super) const DEV_XDP_FEATURES: u16 = 3;
    pub(in super::super) const XDP_BASIC: u64 = 1;
    pub(in super::super) const XDP_REDIRECT: u64 = 2;
    pub(in super::super) const XDP_FRAGMENTS: u64 = 32;

    pub(in super::super) const QUEUE_ID: u16 = 1;
    pub(in super::super) const QUEUE_IFINDEX: u16 = 2;
    pub(in super::super) const QUEUE_TYPE: u16 = 3;
    pub(in super::super) const QUEUE_NAPI_ID: u16 = 4;

    pub(in super::super) const NAPI_IFINDEX: u16 = 1;
    pub(in super::super) const NAPI_ID: u16 = 2;
    pub(in super::super) const NAPI_IRQ: u16 = 3;

    pub(in super::super) const STATS_IFINDEX: u16 = 1;
    pub(in super::super) const STATS_QUEUE_TYPE: u16 = 2;
    pub(in super::super) const STATS_QUEUE_ID: u16 = 3;
    pub(in super::super) const STATS_SCOPE: u16 = 4;
    pub(in super::super) const SCOPE_QUEUE: u64 = 1;
    pub(in super::super) const STATS_RX_PACKETS: u16 = 8;
    pub(in super::super) const STATS_TX_PACKETS: u16 = 10;
    pub(in super::super) const STATS_RX_DROPS: u16 = 13;
    pub(in super::super) const STATS_TX_DROPS: u16 = 24;
}
