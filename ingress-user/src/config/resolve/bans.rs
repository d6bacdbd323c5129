//! Who is banned for what, and for how long.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::error::ConfigError;
use super::super::file;
use super::super::source::Source;
use super::super::values::DurationText;
use super::limits::Section;
use super::network;
use crate::bans::BanSettings;

/// Of one kind, within the window; 0 is none ever.
const OFFENCES: RangeInclusive<u64> = 0..=1_000_000;
/// What is no longer a ban belongs into a list of denied networks.
const LIFETIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
/// Offences further apart have nothing to do with each other.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const CLIENTS: RangeInclusive<u64> = 1..=1_000_000;

pub(super) fn bans(source: &Source<'_>, file: &file::Bans) -> Result<BanSettings, ConfigError> {
    let at = Section { source, name: "bans" };
    let d = BanSettings::default();
    let offences = |key, given, default: u32| {
        at.count_in(key, given, OFFENCES, default as usize).map(|value| value as u32)
    };
    let lifetime = at.duration_in("lifetime", file.lifetime, LIFETIME, d.lifetime)?;
    let lifetime_max =
        at.duration_in("lifetime_max", file.lifetime_max, LIFETIME, d.lifetime_max)?;
    if lifetime > lifetime_max {
        let expected =
            format!("at least \"{}\", the lifetime of a first ban", DurationText(lifetime));
        return Err(source.problem("bans.lifetime_max", expected));
    }
    Ok(BanSettings {
        early_talkers_max: offences(
            "early_talkers_max",
            file.early_talkers_max,
            d.early_talkers_max,
        )?,
        error_floods_max: offences("error_floods_max", file.error_floods_max, d.error_floods_max)?,
        silent_sessions_max: offences(
            "silent_sessions_max",
            file.silent_sessions_max,
            d.silent_sessions_max,
        )?,
        failed_handshakes_max: offences(
            "failed_handshakes_max",
            file.failed_handshakes_max,
            d.failed_handshakes_max,
        )?,
        window: at.duration_in("window", file.window, WINDOW, d.window)?,
        lifetime,
        lifetime_max,
        clients_max: at.count_in("clients_max", file.clients_max, CLIENTS, d.clients_max)?,
        exempt: match &file.exempt {
            Some(exempt) => network::networks(source, "bans.exempt", exempt)?,
            None => d.exempt,
        },
    })
}
