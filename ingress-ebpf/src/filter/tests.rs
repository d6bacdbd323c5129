use std::ops::{Deref, DerefMut};

use super::*;
use crate::decode::V6;
use crate::tables::{PlainTables, Prefix};

const SECOND: u64 = 1_000_000_000;
const SYN: u8 = flag::SYN;

/// Ten connections a second of a source, twenty at once; a thousand a second of the CPU.
const POLICY: Policy = Policy {
    syn_payload_bytes_max: 0,
    source_period: SECOND / 10,
    source_burst: 2 * SECOND,
    pressure_period: SECOND / 1_000,
    pressure_burst: SECOND,
};

/// Tables that note what they were asked.
struct World {
    tables: PlainTables,
    asked: Vec<&'static str>,
}

impl Deref for World {
    type Target = PlainTables;

    fn deref(&self) -> &PlainTables {
        &self.tables
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut PlainTables {
        &mut self.tables
    }
}

impl World {
    fn new() -> Self {
        Self { tables: PlainTables::new(POLICY, 3_600 * SECOND), asked: vec![] }
    }

    fn list(&mut self, address: u32, listing: Listing) {
        self.listings.push((Prefix::V4 { address, bits: 32 }, listing));
    }

    fn judge(&mut self, segment: &Segment) -> Verdict {
        self.asked.clear();
        judge(segment, self)
    }

    /// The SYN of a source that was never seen, on a connection of its own.
    fn judge_made_up(&mut self, number: u32) -> Verdict {
        judge(&v4(number, SYN), self)
    }

    /// More new connections than this CPU's budget.
    fn flood(&mut self) {
        for number in 10_000..12_000 {
            let _ = self.judge_made_up(number);
        }
    }
}

impl Tables for World {
    fn is_banned(&mut self, source: u64) -> bool {
        self.asked.push("ban");
        self.tables.is_banned(source)
    }

    fn listing(&mut self, addresses: Addresses) -> Listing {
        self.asked.push("listing");
        self.tables.listing(addresses)
    }

    fn policy(&self) -> Policy {
        self.tables.policy()
    }

    fn now(&mut self) -> u64 {
        self.asked.push("now");
        self.tables.now()
    }

    fn source(&mut self, source: u64) -> Source {
        self.tables.source(source)
    }

    fn set_source(&mut self, source: u64, known: Source) {
        self.tables.set_source(source, known);
    }

    fn whole_at(&mut self) -> u64 {
        self.tables.whole_at()
    }

    fn set_whole_at(&mut self, at: u64) {
        self.tables.set_whole_at(at);
    }

    fn connection(&self, segment: &Segment) -> u64 {
        self.tables.connection(segment)
    }

    fn first_seen(&mut self, connection: u64) -> u64 {
        self.tables.first_seen(connection)
    }

    fn set_first_seen(&mut self, connection: u64, at: u64) {
        self.tables.set_first_seen(connection, at);
    }
}

fn v4(source: u32, flags: u8) -> Segment {
    segment(Addresses::V4 { source, destination: 1 }, flags)
}

fn segment(addresses: Addresses, flags: u8) -> Segment {
    Segment { addresses, source_port: 40_000, destination_port: 25, flags, payload_bytes: 0 }
}

#[test]
fn a_filter_is_attended_until_the_heartbeat_is_too_old() {
    let beat = 3_600 * SECOND;
    assert!(is_attended(beat, beat, 2 * SECOND));
    assert!(is_attended(beat, beat + 2 * SECOND, 2 * SECOND));
    assert!(!is_attended(beat, beat + 2 * SECOND + 1, 2 * SECOND));
    assert!(is_attended(beat, beat - 1, 2 * SECOND), "a CPU that is behind");
    assert!(!is_attended(0, SECOND, 2 * SECOND), "no heartbeat ever");
}

#[test]
fn only_flags_that_no_stack_sends_together_are_refused() {
    let refused: Vec<u8> =
        (0..64).filter(|&flags| World::new().judge(&v4(1, flags)) == Verdict::BadFlags).collect();
    let expected: Vec<u8> = (0..64_u8)
        .filter(|flags| {
            let has = |flag: u8| flags & flag != 0;
            let xmas = has(flag::FIN) && has(flag::PSH) && has(flag::URG) && !has(flag::ACK);
            *flags == 0 || xmas || (has(SYN) && (has(flag::FIN) || has(flag::RST)))
        })
        .collect();
    assert_eq!(refused, expected);
    // Congestion bits (RFC 3168) are nobody's fault.
    assert_eq!(World::new().judge(&v4(1, SYN | 0xc0)), Verdict::Passed);
}

#[test]
fn an_open_connection_costs_a_look_at_the_bans_alone() {
    let mut world = World::new();
    for flags in
        [flag::ACK, flag::ACK | flag::PSH, flag::RST, flag::FIN | flag::ACK, SYN | flag::ACK]
    {
        assert_eq!(world.judge(&v4(1, flags)), Verdict::Passed);
        assert_eq!(world.asked, ["ban"]);
    }
    assert!(world.sources.is_empty());
}

#[test]
fn a_banned_source_is_dropped_whatever_it_sends() {
    let mut world = World::new();
    world.bans.insert(v4_key(7), u64::MAX);
    for flags in [SYN, flag::ACK, flag::RST] {
        assert_eq!(world.judge(&v4(7, flags)), Verdict::Banned);
        assert_eq!(world.asked, ["ban"]);
    }
    assert_eq!(world.judge(&v4(8, SYN)), Verdict::Passed);
}

#[test]
fn a_denied_source_makes_no_state() {
    let mut world = World::new();
    world.list(7, Listing::Denied);
    assert_eq!(world.judge(&v4(7, SYN)), Verdict::Denied);
    assert_eq!(world.asked, ["ban", "listing"]);
    assert!(world.sources.is_empty() && world.first_seen.is_empty() && world.whole_at == 0);
}

#[test]
fn an_allowed_source_has_no_budget_and_feels_no_pressure() {
    let mut world = World::new();
    world.list(7, Listing::Allowed);
    world.whole_at = u64::MAX;
    for _ in 0..1_000 {
        assert_eq!(world.judge(&v4(7, SYN)), Verdict::Allowed);
    }
}

#[test]
fn a_syn_may_carry_what_the_policy_says() {
    let mut world = World::new();
    let mut fast_open = v4(1, SYN);
    fast_open.payload_bytes = 500;
    assert_eq!(world.judge(&fast_open), Verdict::SynPayload);
    world.policy.syn_payload_bytes_max = 500;
    assert_eq!(world.judge(&fast_open), Verdict::Passed);
}

#[test]
fn a_source_gets_its_burst_and_then_its_rate() {
    let mut world = World::new();
    let at_once = (0..100).take_while(|_| world.judge(&v4(1, SYN)) == Verdict::Passed).count();
    // The first finds the budget whole, and 20 more use it up.
    assert_eq!(at_once, 21);
    assert_eq!(world.judge(&v4(1, SYN)), Verdict::OverBudget);
    assert_eq!(world.judge(&v4(2, SYN)), Verdict::Passed);
    world.now += SECOND;
    let next = (0..100).take_while(|_| world.judge(&v4(1, SYN)) == Verdict::Passed).count();
    assert_eq!(next, 10);
}

#[test]
fn a_network_of_ipv6_has_one_budget() {
    let mut world = World::new();
    let address =
        |high, low| Addresses::V6 { source: V6 { high, low }, destination: V6 { high: 1, low: 1 } };
    let passed = (0..100)
        .filter(|&low| world.judge(&segment(address(5, low), SYN)) == Verdict::Passed)
        .count();
    assert_eq!(passed, 21);
    assert_eq!(world.judge(&segment(address(6, 0), SYN)), Verdict::Passed);
}

#[test]
fn under_pressure_a_client_that_tries_again_is_served_from_then_on() {
    let mut world = World::new();
    let flood =
        (1_000..).take_while(|&number| world.judge_made_up(number) == Verdict::Passed).count();
    assert_eq!(flood, 1_001);
    assert_eq!(world.judge(&v4(1, SYN)), Verdict::UnderPressure);
    world.now += SECOND / 10;
    world.flood();
    assert_eq!(world.judge(&v4(1, SYN)), Verdict::UnderPressure, "sent twice at once");
    world.now += SECOND;
    world.flood();
    assert_eq!(world.judge(&v4(1, SYN)), Verdict::Passed, "sent again after a second");
    let another = Segment { source_port: 40_001, ..v4(1, SYN) };
    assert_eq!(world.judge(&another), Verdict::Passed, "another connection of it");
    assert_eq!(world.judge_made_up(30_000), Verdict::UnderPressure);
}

#[test]
fn what_does_not_try_again_makes_no_state_under_pressure() {
    let mut world = World::new();
    for number in 0..1_001 {
        let _ = world.judge_made_up(number);
    }
    let before = world.sources.len();
    for number in 5_000..9_000 {
        assert_eq!(world.judge_made_up(number), Verdict::UnderPressure);
    }
    assert_eq!(world.sources.len(), before);
}

#[test]
fn a_client_that_tries_again_much_later_begins_anew() {
    let mut world = World::new();
    world.policy.pressure_burst = 0;
    world.whole_at = u64::MAX / 2;
    assert_eq!(world.judge(&v4(1, SYN)), Verdict::UnderPressure);
    world.now += 3_600 * SECOND;
    assert_eq!(world.judge(&v4(1, SYN)), Verdict::UnderPressure);
    world.now += SECOND;
    assert_eq!(world.judge(&v4(1, SYN)), Verdict::Passed);
}

#[test]
fn a_limit_with_a_period_of_0_is_off() {
    let mut world = World::new();
    world.policy = Policy { source_period: 0, pressure_period: 0, ..POLICY };
    world.whole_at = u64::MAX;
    for _ in 0..1_000 {
        assert_eq!(world.judge(&v4(1, SYN)), Verdict::Passed);
    }
}

#[test]
fn addresses_of_both_families_have_keys_of_their_own() {
    assert_ne!(v4_key(0x0102_0304), v6_key(0x0102_0304));
    assert_eq!(v4_key(u32::MAX), u64::MAX);
    assert_eq!(v4_key(0) >> 56, 0xff);
}
