//! When certificates end, and when an operator is told.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;

use super::reload::Served;

/// Days left at which the log has a warning: the first in time to look at a renewal that failed (certificates of 90 days are
/// renewed with 30 left), the last before mail from senders that verify (MTA-STS, DANE) stops.
const WARNING_DAYS: [i64; 3] = [1, 7, 21];

const DAY_SECONDS: i64 = 86_400;

/// The last second in which a certificate is valid (RFC 5280 4.1.2.5), counted from 1970. Displays as RFC 3339 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAfter(i64);

impl NotAfter {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        Self(certificate.validity().not_after.timestamp())
    }

    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    pub fn unix_seconds(self) -> i64 {
        self.0
    }

    /// Whole days: 0 on the last day, negative once it has expired.
    pub fn days_left(self, now: SystemTime) -> i64 {
        let now = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs().try_into().unwrap_or(i64::MAX),
            // A clock that was never set.
            Err(_) => 0,
        };
        self.0.saturating_sub(now).div_euclid(DAY_SECONDS)
    }
}

impl fmt::Display for NotAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond the year 9999, where neither X.509 nor RFC 3339 has a time.
        let Ok(time) = OffsetDateTime::from_unix_timestamp(self.0) else {
            return write!(f, "{} s after 1970", self.0);
        };
        let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
        let (hour, minute, second) = time.to_hms();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// What an operator is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// So many days are left, or fewer: one of [`WARNING_DAYS`].
    DaysLeft(i64),
    Expired,
}

impl Notice {
    /// The nearest to the end that has been reached with so many days left.
    fn reached(days_left: i64) -> Option<Self> {
        if days_left < 0 {
            return Some(Self::Expired);
        }
        WARNING_DAYS.into_iter().find(|&days| days_left <= days).map(Self::DaysLeft)
    }

    /// What is to be said now, having `looked` before: each threshold once, and of an expired certificate every time.
    fn due(not_after: NotAfter, looked: Option<SystemTime>, now: SystemTime) -> Option<Self> {
        let said = looked.and_then(|looked| Self::reached(not_after.days_left(looked)));
        let reached = Self::reached(not_after.days_left(now))?;
        (reached == Self::Expired || said != Some(reached)).then_some(reached)
    }
}

/// Logs which certificates end soon or have ended. `looked`: when this was done before; `None` for the first time.
pub(super) fn report(served: &[Served], looked: Option<SystemTime>, now: SystemTime) {
    for Served { file, not_after, .. } in served {
        let days_left = not_after.days_left(now);
        match Notice::due(*not_after, looked, now) {
            Some(Notice::DaysLeft(_)) => {
                tracing::warn!(file = %file.display(), %not_after, days_left, "certificate expires soon: renew it");
            }
            Some(Notice::Expired) => {
                tracing::error!(
                    file = %file.display(), %not_after,
                    "certificate has expired: clients that verify it do not deliver"
                );
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const END: NotAfter = NotAfter(1_800_000_000);

    /// So many days before the end, or after it.
    fn before_end(days: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((1_800_000_000.0 - days * 86_400.0) as u64)
    }

    #[test]
    fn each_threshold_is_told_once_and_the_end_every_day() {
        // Looks at any hour, a day apart, from 30 days before the end to 3 after it.
        let looks: Vec<f64> = (0..34).map(|day| 30.3 - f64::from(day)).collect();
        let told: Vec<(f64, Notice)> = looks
            .windows(2)
            .filter_map(|pair| {
                let (looked, now) = (before_end(pair[0]), before_end(pair[1]));
                Some((pair[1].floor(), Notice::due(END, Some(looked), now)?))
            })
            .collect();
        let expected = [
            (21.0, Notice::DaysLeft(21)),
            (7.0, Notice::DaysLeft(7)),
            (1.0, Notice::DaysLeft(1)),
            (-1.0, Notice::Expired),
            (-2.0, Notice::Expired),
            (-3.0, Notice::Expired),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_first_look_tells_the_nearest_threshold() {
        let first = |days| Notice::due(END, None, before_end(days));
        assert_eq!(first(22.0), None);
        assert_eq!(first(21.9), Some(Notice::DaysLeft(21)));
        assert_eq!(first(5.0), Some(Notice::DaysLeft(7)));
        assert_eq!(first(0.0), Some(Notice::DaysLeft(1)));
        assert_eq!(first(-0.01), Some(Notice::Expired));
    }

    #[test]
    fn a_pause_across_several_thresholds_tells_the_last() {
        let due = Notice::due(END, Some(before_end(40.0)), before_end(0.5));
        assert_eq!(due, Some(Notice::DaysLeft(1)));
    }

    #[test]
    fn days_are_whole_and_the_last_one_is_0() {
        assert_eq!(END.days_left(before_end(2.0)), 2);
        assert_eq!(END.days_left(before_end(1.99)), 1);
        assert_eq!(END.days_left(before_end(0.0)), 0);
        assert_eq!(END.days_left(before_end(-0.01)), -1);
    }

    #[test]
    fn the_end_reads_as_rfc_3339() {
        assert_eq!(END.to_string(), "2027-01-15T08:00:00Z");
        assert_eq!(NotAfter(253_402_300_799).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(NotAfter(i64::MAX).to_string(), format!("{} s after 1970", i64::MAX));
    }
}
