//! A sequence of segments, bans and lists over the filter's tables, with a clock of its own: who passes is who has the right to, by a
//! record of what passed before, and state is made by SYNs that pass alone.

#![no_main]

use std::collections::HashMap;

use ingress_ebpf::abi::{Listing, Verdict, tcp_flags as flag};
use ingress_ebpf::decode::{Addresses, Segment, V6};
use ingress_ebpf::filter::{Policy, Tables, judge, source_key};
use ingress_ebpf::tables::{PlainTables, Prefix};
use libfuzzer_sys::fuzz_target;

/// Of one event.
const EVENT_BYTES: usize = 8;
const POLICY_BYTES: usize = 5;

const SECOND: u64 = 1_000_000_000;

fuzz_target!(|input: &[u8]| {
    let Some((policy, events)) = input.split_first_chunk() else { return };
    let verdicts = play(policy, events);
    assert_eq!(play(policy, events), verdicts, "the same sequence has other verdicts");
});

fn play(policy: &[u8; POLICY_BYTES], events: &[u8]) -> Vec<Verdict> {
    let mut world = World::new(policy);
    events.as_chunks().0.iter().filter_map(|event| world.take(event)).collect()
}

struct World {
    tables: PlainTables,
    /// When connections of a source passed.
    passed: HashMap<u64, Vec<u64>>,
    /// When connections passed of sources that were not proven.
    passed_unproven: Vec<u64>,
    /// When SYNs of a connection were dropped under pressure.
    pressed: HashMap<u64, Vec<u64>>,
}

impl World {
    /// Limits from none to some that a few events reach.
    fn new(&[payload, period, burst, cpu_period, cpu_burst]: &[u8; POLICY_BYTES]) -> Self {
        let (source_period, pressure_period) =
            (u64::from(period) << 22, u64::from(cpu_period) << 22);
        let policy = Policy {
            syn_payload_bytes_max: u32::from(payload),
            source_period,
            source_burst: source_period * u64::from(burst % 16),
            pressure_period,
            pressure_burst: pressure_period * u64::from(cpu_burst % 16),
        };
        Self {
            tables: PlainTables::new(policy, 3_600 * SECOND),
            passed: HashMap::new(),
            passed_unproven: Vec::new(),
            pressed: HashMap::new(),
        }
    }

    /// Lets time pass, from none to some minutes; then somebody's rights change, or a segment comes.
    fn take(&mut self, event: &[u8; EVENT_BYTES]) -> Option<Verdict> {
        let &[kind, who, flags, payload, time, shift, port, value] = event;
        self.tables.now += u64::from(time) << (shift % 32);
        let addresses = addresses(who);
        let source = source_key(addresses);
        match kind % 16 {
            0 => {
                let until = self.tables.now + (u64::from(value) << 30);
                self.tables.bans.insert(source, until);
            }
            1 => {
                self.tables.bans.remove(&source);
            }
            2 => self.list(addresses, Listing::Denied),
            3 => self.list(addresses, Listing::Allowed),
            4 => self.list(addresses, Listing::None),
            _ => {
                let (source_port, destination_port) = (40_000 + u16::from(port % 4), 25);
                // Most are SYNs.
                let flags = if kind < 0xc0 { flag::SYN } else { flags };
                let payload_bytes = u32::from(payload);
                return Some(self.judge(&Segment {
                    addresses,
                    source_port,
                    destination_port,
                    flags,
                    payload_bytes,
                }));
            }
        }
        None
    }

    fn list(&mut self, addresses: Addresses, listing: Listing) {
        let prefix = match addresses {
            Addresses::V4 { source, .. } => Prefix::V4 { address: source, bits: 32 },
            Addresses::V6 { source, .. } => {
                Prefix::V6 { address: u128::from(source.high) << 64, bits: 64 }
            }
        };
        self.tables.listings.retain(|(known, _)| *known != prefix);
        self.tables.listings.push((prefix, listing));
    }

    fn judge(&mut self, segment: &Segment) -> Verdict {
        let before = self.tables.clone();
        let verdict = judge(segment, &mut self.tables);
        assert_eq!(verdict, self.expected(segment, before.clone()), "{segment:?}");
        self.check_state(segment, verdict, &before);
        self.note(segment, verdict, before);
        verdict
    }

    /// By what is recorded of packets before this one.
    fn expected(&self, segment: &Segment, mut before: PlainTables) -> Verdict {
        let source = source_key(segment.addresses);
        if !is_sane(segment.flags) {
            return Verdict::BadFlags;
        }
        if before.bans.get(&source).is_some_and(|until| *until > before.now) {
            return Verdict::Banned;
        }
        if !is_syn(segment) {
            return Verdict::Passed;
        }
        let Policy { source_period, source_burst, pressure_period, pressure_burst, .. } =
            before.policy;
        let passed = self.passed.get(&source).map_or(&[][..], Vec::as_slice);
        match before.listing(segment.addresses) {
            Listing::Allowed => Verdict::Allowed,
            Listing::Denied => Verdict::Denied,
            Listing::None if segment.payload_bytes > before.policy.syn_payload_bytes_max => {
                Verdict::SynPayload
            }
            Listing::None if is_used_up(passed, before.now, source_period, source_burst) => {
                Verdict::OverBudget
            }
            Listing::None
                if before.source(source).is_proven
                    || self.is_proof(segment, &before)
                    || !is_used_up(
                        &self.passed_unproven,
                        before.now,
                        pressure_period,
                        pressure_burst,
                    ) =>
            {
                Verdict::Passed
            }
            Listing::None => Verdict::UnderPressure,
        }
    }

    /// Whether the connection was tried before, half a second to a minute ago, and each time since then too early.
    fn is_proof(&self, segment: &Segment, before: &PlainTables) -> bool {
        let tries = self.pressed.get(&before.connection(segment));
        let mut first = None;
        for &at in tries.map_or(&[][..], Vec::as_slice) {
            if first.is_none_or(|first| at - first > 60 * SECOND) {
                first = Some(at);
            }
        }
        first.is_some_and(|first| (SECOND / 2..=60 * SECOND).contains(&(before.now - first)))
    }

    /// Who is no new connection that passes leaves nothing behind, but for the time of a first try.
    fn check_state(&self, segment: &Segment, verdict: Verdict, before: &PlainTables) {
        let mut unchanged = before.clone();
        match verdict {
            Verdict::Passed if is_syn(segment) => {
                let source = source_key(segment.addresses);
                let known = self.tables.sources.get(&source).copied();
                assert!(known.is_some(), "a new connection is not noted");
                let was = before.sources.get(&source).copied().unwrap_or_default();
                assert!(
                    known.unwrap_or_default().is_proven || !was.is_proven,
                    "proof is forgotten"
                );
                unchanged.sources.extend(known.map(|known| (source, known)));
                unchanged.whole_at = self.tables.whole_at;
            }
            Verdict::UnderPressure => unchanged.first_seen.clone_from(&self.tables.first_seen),
            _ => {}
        }
        assert_eq!(self.tables, unchanged, "{segment:?} {verdict:?}");
    }

    fn note(&mut self, segment: &Segment, verdict: Verdict, mut before: PlainTables) {
        let now = before.now;
        let source = source_key(segment.addresses);
        match verdict {
            Verdict::Passed if is_syn(segment) => {
                self.passed.entry(source).or_default().push(now);
                let is_charged = !self.tables.source(source).is_proven;
                assert!(
                    is_charged
                        || before.source(source).is_proven
                        || self.is_proof(segment, &before)
                );
                if is_charged {
                    self.passed_unproven.push(now);
                }
            }
            Verdict::UnderPressure => {
                self.pressed.entry(before.connection(segment)).or_default().push(now);
            }
            _ => {}
        }
    }
}

/// Whether one more would be more, since any of those that passed, than a burst and the rate allow.
fn is_used_up(passed: &[u64], now: u64, period: u64, burst: u64) -> bool {
    let since = passed.iter().rev().zip(1..);
    period != 0
        && since.into_iter().any(|(&at, count): (&u64, u64)| count * period > burst + now - at)
}

fn is_syn(segment: &Segment) -> bool {
    segment.flags & (flag::SYN | flag::ACK) == flag::SYN
}

fn is_sane(flags: u8) -> bool {
    let has = |flag: u8| flags & flag != 0;
    let is_xmas = has(flag::FIN) && has(flag::PSH) && has(flag::URG) && !has(flag::ACK);
    let ends = has(flag::SYN) && (has(flag::FIN) || has(flag::RST));
    flags & 0x3f != 0 && !is_xmas && !ends
}

/// Sixteen clients of each family, those of IPv6 in four networks.
fn addresses(who: u8) -> Addresses {
    let number = u32::from(who % 16);
    if who < 0x80 {
        return Addresses::V4 { source: 0xc000_0200 | number, destination: 0xc633_6419 };
    }
    let source = V6 { high: 0x2001_0db8 << 32 | u64::from(number % 4), low: u64::from(number) };
    Addresses::V6 { source, destination: V6 { high: 0x2001_0db8 << 32, low: 25 } }
}
