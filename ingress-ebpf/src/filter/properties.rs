//! What holds of the filter whatever comes, over plain tables.

use proptest::prelude::*;

use super::*;
use crate::tables::{PlainTables, Prefix};

const SECOND: u64 = 1_000_000_000;

fn tables(source_period: u64, source_burst: u64) -> PlainTables {
    let policy = Policy {
        syn_payload_bytes_max: 0,
        source_period,
        source_burst,
        pressure_period: SECOND / 10,
        pressure_burst: SECOND,
    };
    PlainTables::new(policy, 3_600 * SECOND)
}

fn v4(source: u32, flags: u8, payload_bytes: u32) -> Segment {
    let addresses = Addresses::V4 { source, destination: 1 };
    Segment { addresses, source_port: 40_000, destination_port: 25, flags, payload_bytes }
}

proptest! {
    #[test]
    fn a_source_never_passes_more_than_a_burst_and_its_rate(
        gaps in prop::collection::vec(0..SECOND, 1..200),
        period in 1..SECOND,
        periods_at_once in 0_u64..20,
    ) {
        let burst = period * periods_at_once;
        let mut tables = tables(period, burst);
        tables.policy.pressure_period = 0;
        let mut passed: Vec<u64> = Vec::new();
        for gap in gaps {
            tables.now += gap;
            let now = tables.now;
            // As many since each of those that passed as fit into the time since then.
            let is_beyond = passed.iter().rev().zip(1..).any(|(at, n)| n * period > burst + now - at);
            let expected = if is_beyond { Verdict::OverBudget } else { Verdict::Passed };
            prop_assert_eq!(judge(&v4(1, flag::SYN, 0), &mut tables), expected);
            passed.extend((!is_beyond).then_some(now));
        }
    }

    #[test]
    fn only_a_new_connection_that_passes_is_charged(
        segments in prop::collection::vec((0..8_u32, any::<u8>(), 0..2_u32, 0..SECOND), 1..100),
        banned in 0..8_u32,
        denied in 0..8_u32,
    ) {
        let mut tables = tables(SECOND, SECOND);
        tables.bans.insert(v4_key(banned), u64::MAX);
        let denied_prefix = Prefix::V4 { address: denied, bits: 32 };
        tables.listings.push((denied_prefix, Listing::Denied));
        for (source, flags, payload_bytes, gap) in segments {
            tables.now += gap;
            let before = tables.clone();
            let verdict = judge(&v4(source, flags, payload_bytes), &mut tables);
            let is_charged = (&tables.sources, tables.whole_at) != (&before.sources, before.whole_at);
            let is_new = verdict == Verdict::Passed && flags & (flag::SYN | flag::ACK) == flag::SYN;
            prop_assert_eq!(is_charged, is_new);
            prop_assert!(!is_new || ![banned, denied].contains(&source));
            prop_assert!(tables.first_seen == before.first_seen || verdict == Verdict::UnderPressure);
        }
    }
}
