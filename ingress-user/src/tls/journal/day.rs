//! Counts by day, of which a month is kept.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::event::Cover;

/// Days of which counts are kept.
pub(super) const DAYS_MAX: usize = 31;

pub(super) const DAY_SECONDS: u64 = 86_400;

/// One day's counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Day {
    /// Days since 1970.
    pub(super) number: u64,
    pub(super) resumed: u64,
    pub(super) versions: BTreeMap<u16, u64>,
    pub(super) suites: BTreeMap<u16, u64>,
    pub(super) verdicts: BTreeMap<Cow<'static, str>, u64>,
    pub(super) sessions_over_tls: u64,
    pub(super) sessions_in_clear: u64,
    pub(super) stripped: u64,
    /// Handshakes of self-tests, which are in no other count.
    pub(super) self_tests: u64,
    pub(super) messages: Messages,
}

/// Messages by what they came under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Messages {
    pub(super) in_clear: u64,
    /// By the version of TLS.
    pub(super) after_starttls: BTreeMap<u16, u64>,
    /// Where TLS comes first: mail that could not have come in clear.
    pub(super) tls_first: BTreeMap<u16, u64>,
}

/// The last days, oldest first.
#[derive(Debug, Default)]
pub(super) struct Days(pub(super) VecDeque<Day>);

impl Days {
    /// What was kept of the time before this start. Days to come are those of a wrong clock, and would take all counts.
    pub(super) fn restored(mut days: Vec<Day>, now: u64) -> Self {
        days.retain(|day| day.number <= now / DAY_SECONDS);
        days.sort_by_key(|day| day.number);
        let surplus = days.len().saturating_sub(DAYS_MAX);
        Self(days.into_iter().skip(surplus).collect())
    }

    /// A clock that goes back counts for the last day known.
    pub(super) fn today(&mut self, now: u64) -> &mut Day {
        let Self(days) = self;
        let number = now / DAY_SECONDS;
        if days.back().is_none_or(|day| day.number < number) {
            days.push_back(Day { number, ..Day::default() });
            if days.len() > DAYS_MAX {
                days.pop_front();
            }
        }
        let last = days.len() - 1;
        &mut days[last]
    }

    /// The days that have any part in the time from then on, as one.
    pub(super) fn since(&self, from: u64) -> Day {
        let mut sum = Day::default();
        for day in self.0.iter().filter(|day| day.number >= from / DAY_SECONDS) {
            sum.add(day);
        }
        sum
    }
}

impl Day {
    /// All but the number.
    fn add(&mut self, other: &Self) {
        self.resumed += other.resumed;
        add(&mut self.versions, &other.versions);
        add(&mut self.suites, &other.suites);
        add(&mut self.verdicts, &other.verdicts);
        self.sessions_over_tls += other.sessions_over_tls;
        self.sessions_in_clear += other.sessions_in_clear;
        self.stripped += other.stripped;
        self.self_tests += other.self_tests;
        self.messages.in_clear += other.messages.in_clear;
        add(&mut self.messages.after_starttls, &other.messages.after_starttls);
        add(&mut self.messages.tls_first, &other.messages.tls_first);
    }
}

impl Messages {
    pub(super) fn take(&mut self, cover: Cover, count: u64) {
        let slot = match cover {
            Cover::Clear => &mut self.in_clear,
            Cover::Tls { version, first: false } => self.after_starttls.entry(version).or_default(),
            Cover::Tls { version, first: true } => self.tls_first.entry(version).or_default(),
        };
        *slot += count;
    }

    pub(super) fn all(&self) -> u64 {
        let over_tls = self.after_starttls.values().chain(self.tls_first.values());
        self.in_clear + over_tls.sum::<u64>()
    }
}

fn add<K: Ord + Clone>(counts: &mut BTreeMap<K, u64>, others: &BTreeMap<K, u64>) {
    for (key, count) in others {
        *counts.entry(key.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_opens_no_older_day() {
        let mut days = Days::default();
        days.today(9 * DAY_SECONDS).resumed += 1;
        days.today(8 * DAY_SECONDS).resumed += 1;
        assert_eq!(days.since(9 * DAY_SECONDS).resumed, 2);
        assert_eq!(days.0.len(), 1);
    }

    #[test]
    fn restored_days_are_bounded_and_none_is_to_come() {
        let day = |number| Day { number, resumed: 1, ..Day::default() };
        let kept = (0..40).rev().chain([1_000]).map(day).collect();
        let mut days = Days::restored(kept, 39 * DAY_SECONDS);
        assert_eq!(days.0.len(), DAYS_MAX);
        days.today(39 * DAY_SECONDS).resumed += 1;
        assert_eq!(days.since(39 * DAY_SECONDS).resumed, 2);
    }

    #[test]
    fn the_days_of_a_report_are_summed_key_by_key() {
        let mut days = Days::default();
        for (day, version, first) in [(1, 0x0303, false), (2, 0x0303, false), (2, 0x0304, true)] {
            let messages = &mut days.today(day * DAY_SECONDS).messages;
            messages.take(Cover::Tls { version, first }, 10);
            messages.take(Cover::Clear, 1);
        }
        let messages = days.since(DAY_SECONDS).messages;
        assert_eq!(messages.all(), 33);
        assert_eq!(messages.in_clear, 3);
        assert_eq!(messages.after_starttls, [(0x0303, 20)].into());
        assert_eq!(messages.tls_first, [(0x0304, 10)].into());
        assert_eq!(days.since(2 * DAY_SECONDS).messages.all(), 22);
    }
}
