//! What is dropped: the order of the checks, cheap ones first, over tables that the kernel or a test keeps.
//!
//! Packets of open connections cost a look at their flags and at the bans. Only a SYN is compared with the lists and charged to
//! its source, and only a SYN makes state.

use crate::abi::tcp_flags as flag;
use crate::abi::{Listing, Verdict};
use crate::decode::{Addresses, Segment};

/// A SYN that is sent again this much later, in nanoseconds, proves that somebody waits for the answer. RFC 6298 section 2.1: a
/// second; some stacks are faster.
const PROOF_AFTER: u64 = 500_000_000;

/// And not later than this: a connection attempt is given up after a minute or so.
const PROOF_WITHIN: u64 = 60_000_000_000;

/// What the operator allows, in nanoseconds of the clock of [`Tables`]. A period of 0 switches a limit off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Octets that a SYN may carry (RFC 7413 puts data there).
    pub syn_payload_bytes_max: u32,
    /// One new connection of a source in each period, and so many periods' worth at once.
    pub source_period: u64,
    pub source_burst: u64,
    /// The same for all sources that this CPU sees, before it counts as pressure.
    pub pressure_period: u64,
    pub pressure_burst: u64,
}

/// What is known of a source: when its budget is whole again, and whether it has proved to be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Source {
    pub whole_at: u64,
    pub is_proven: bool,
}

/// The maps of the kernel. Each is asked at most once for a packet, in the order of [`judge`].
pub trait Tables {
    /// Whether the source is banned; counts the packet for it.
    fn is_banned(&mut self, source: u64) -> bool;
    fn listing(&mut self, addresses: Addresses) -> Listing;
    fn policy(&self) -> Policy;
    /// Nanoseconds; may stand still for some milliseconds.
    fn now(&mut self) -> u64;
    fn source(&mut self, source: u64) -> Source;
    fn set_source(&mut self, source: u64, known: Source);
    /// When this CPU's budget of new connections is whole again.
    fn whole_at(&mut self) -> u64;
    fn set_whole_at(&mut self, at: u64);
    /// A hash of addresses and ports.
    fn connection(&self, segment: &Segment) -> u64;
    /// When this connection's first SYN was dropped; 0 where that is not known.
    fn first_seen(&mut self, connection: u64) -> u64;
    fn set_first_seen(&mut self, connection: u64, at: u64);
}

/// Whether the daemon has given a sign of life within `timeout` nanoseconds: `beat` is the last one, 0 where there was none. A filter
/// that nobody attends to judges nothing.
#[inline(always)]
pub fn is_attended(beat: u64, now: u64, timeout: u64) -> bool {
    // Another CPU may have seen the next tick already.
    beat != 0 && now.saturating_sub(beat) <= timeout
}

/// The verdict on a segment for one of our ports: [`Verdict::Passed`] where nothing speaks against it.
#[inline(always)]
pub fn judge<T: Tables>(segment: &Segment, tables: &mut T) -> Verdict {
    if !are_sane(segment.flags) {
        return Verdict::BadFlags;
    }
    let source = source_key(segment.addresses);
    if tables.is_banned(source) {
        return Verdict::Banned;
    }
    if segment.flags & (flag::SYN | flag::ACK) != flag::SYN {
        return Verdict::Passed;
    }
    match tables.listing(segment.addresses) {
        Listing::Allowed => return Verdict::Allowed,
        Listing::Denied => return Verdict::Denied,
        Listing::None => {}
    }
    let policy = tables.policy();
    if segment.payload_bytes > policy.syn_payload_bytes_max {
        return Verdict::SynPayload;
    }
    judge_new_connection(segment, source, policy, tables)
}

/// Charges the source and the CPU.
#[inline(always)]
fn judge_new_connection<T: Tables>(
    segment: &Segment,
    source: u64,
    policy: Policy,
    tables: &mut T,
) -> Verdict {
    let now = tables.now();
    let mut known = tables.source(source);
    match charge(known.whole_at, now, policy.source_period, policy.source_burst) {
        Some(whole_at) => known.whole_at = whole_at,
        None => return Verdict::OverBudget,
    }
    if !known.is_proven {
        let cpu = charge(tables.whole_at(), now, policy.pressure_period, policy.pressure_burst);
        match cpu {
            Some(whole_at) => tables.set_whole_at(whole_at),
            // Nobody waits for the answer to a SYN from a made-up address.
            None => {
                let connection = tables.connection(segment);
                match since(tables.first_seen(connection), now) {
                    PROOF_AFTER..=PROOF_WITHIN => known.is_proven = true,
                    0..PROOF_AFTER => return Verdict::UnderPressure,
                    _ => {
                        tables.set_first_seen(connection, now);
                        return Verdict::UnderPressure;
                    }
                }
            }
        }
    }
    tables.set_source(source, known);
    Verdict::Passed
}

/// Time since a moment that is 0 where it is not known: for ever.
#[inline(always)]
fn since(at: u64, now: u64) -> u64 {
    if at == 0 { u64::MAX } else { now.saturating_sub(at) }
}

/// No stack sends these: no flag at all, all of FIN, PSH and URG, or SYN together with what ends a connection.
#[inline(always)]
fn are_sane(flags: u8) -> bool {
    use flag::{ACK, FIN, PSH, RST, SYN, URG};
    let is_null = flags & (FIN | SYN | RST | PSH | ACK | URG) == 0;
    let is_xmas = flags & (FIN | PSH | URG | ACK) == FIN | PSH | URG;
    let ends = flags & SYN != 0 && flags & (FIN | RST) != 0;
    !(is_null | is_xmas | ends)
}

/// Takes one from a budget that is whole again at `whole_at` (the generic cell rate algorithm, ITU-T I.371 annex A). Its new
/// `whole_at`; none when it is used up.
#[inline(always)]
pub fn charge(whole_at: u64, now: u64, period: u64, burst: u64) -> Option<u64> {
    if period == 0 {
        return Some(whole_at);
    }
    let from = if whole_at > now { whole_at } else { now };
    if from - now > burst { None } else { Some(from + period) }
}

/// Who answers for a packet: an IPv4 address, or an IPv6 network of /64, which is what one host is given.
#[inline(always)]
pub fn source_key(addresses: Addresses) -> u64 {
    match addresses {
        Addresses::V4 { source, .. } => v4_key(source),
        Addresses::V6 { source, .. } => v6_key(source.high),
    }
}

/// No IPv6 packet comes from ff00::/8 (RFC 4291 section 2.7): the upper half is free for what is IPv4.
#[inline(always)]
pub const fn v4_key(address: u32) -> u64 {
    0xffff_ffff << 32 | address as u64
}

#[inline(always)]
pub const fn v6_key(network: u64) -> u64 {
    network
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
