//! Numbers and their ranges.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::error::ConfigError;
use super::super::source::Source;
use super::super::values::{Count, DurationText, Size};
use super::super::{Limits, SpoolConfig, file};
use super::network;
use crate::tls::memory::MemorySettings;
use crate::worker::buffers::BUFFER_BYTES;

/// The upper ends are there so that a slip of the pen is not taken for a wish.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);
/// What a client may be made to wait without taking it for a failure: RFC 5321 4.5.3.2 has it wait 5 minutes for a
/// greeting and for most replies.
const DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
const COUNT: RangeInclusive<u64> = 1..=1_000_000;
const COUNT_OR_NONE: RangeInclusive<u64> = 0..=1_000_000;
/// MAILMAX and RCPTMAX have at most six digits, and are not 0 (RFC 9422 section 4).
const ANNOUNCED_COUNT: RangeInclusive<u64> = 1..=999_999;
/// A command line has to fit in one receive buffer, with room for what follows it.
const COMMAND_LINE_BYTES: RangeInclusive<u64> = 512..=16 << 10;
/// RFC 5321 4.5.3.1.6: at least 1,000.
const TEXT_LINE_BYTES: RangeInclusive<u64> = 1_000..=1 << 40;
const MESSAGE_BYTES: RangeInclusive<u64> = 1..=1 << 40;
const SEGMENT_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 40;

pub(super) fn limits(source: &Source<'_>, file: &file::Limits) -> Result<Limits, ConfigError> {
    let at = Section { source, name: "limits" };
    let limits = waits(&at, file, Limits::default())?;
    let limits = sizes(&at, file, limits)?;
    let limits = counts(&at, file, limits)?;
    message_fits_in_buffers(source, &limits)?;
    Ok(limits)
}

/// `d` with the timeouts and delays of `file`.
fn waits(at: &Section<'_, '_>, file: &file::Limits, d: Limits) -> Result<Limits, ConfigError> {
    Ok(Limits {
        idle_timeout: at.timeout("idle_timeout", file.idle_timeout, d.idle_timeout)?,
        tls_handshake_timeout: at.timeout(
            "tls_handshake_timeout",
            file.tls_handshake_timeout,
            d.tls_handshake_timeout,
        )?,
        commit_timeout: at.timeout("commit_timeout", file.commit_timeout, d.commit_timeout)?,
        proxy_header_timeout: at.timeout(
            "proxy_header_timeout",
            file.proxy_header_timeout,
            d.proxy_header_timeout,
        )?,
        greet_delay: at.delay("greet_delay", file.greet_delay, d.greet_delay)?,
        error_delay: at.delay("error_delay", file.error_delay, d.error_delay)?,
        ..d
    })
}

/// `d` with the sizes of `file`.
fn sizes(at: &Section<'_, '_>, file: &file::Limits, d: Limits) -> Result<Limits, ConfigError> {
    Ok(Limits {
        message_bytes_max: at.size(
            "message_bytes_max",
            file.message_bytes_max,
            MESSAGE_BYTES,
            d.message_bytes_max,
        )?,
        command_line_bytes_max: at.size(
            "command_line_bytes_max",
            file.command_line_bytes_max,
            COMMAND_LINE_BYTES,
            d.command_line_bytes_max as u64,
        )? as usize,
        text_line_bytes_max: at.size(
            "text_line_bytes_max",
            file.text_line_bytes_max,
            TEXT_LINE_BYTES,
            d.text_line_bytes_max,
        )?,
        ..d
    })
}

/// `d` with the counts of `file`.
fn counts(at: &Section<'_, '_>, file: &file::Limits, d: Limits) -> Result<Limits, ConfigError> {
    Ok(Limits {
        recipients_max: at.count_in(
            "recipients_max",
            file.recipients_max,
            ANNOUNCED_COUNT,
            d.recipients_max,
        )?,
        errors_max: at.count("errors_max", file.errors_max, d.errors_max as usize)? as u32,
        errors_undelayed_max: at.count_in(
            "errors_undelayed_max",
            file.errors_undelayed_max,
            COUNT_OR_NONE,
            d.errors_undelayed_max as usize,
        )? as u32,
        messages_per_session_max: at.count_in(
            "messages_per_session_max",
            file.messages_per_session_max,
            ANNOUNCED_COUNT,
            d.messages_per_session_max as usize,
        )? as u32,
        connections_max: at.count("connections_max", file.connections_max, d.connections_max)?,
        connections_per_client_max: at.count(
            "connections_per_client_max",
            file.connections_per_client_max,
            d.connections_per_client_max,
        )?,
        accept_burst_max: at.count(
            "accept_burst_max",
            file.accept_burst_max,
            d.accept_burst_max,
        )?,
        buffers_per_worker_max: at.count(
            "buffers_per_worker_max",
            file.buffers_per_worker_max,
            d.buffers_per_worker_max,
        )?,
        handshakes_per_worker_max: at.count(
            "handshakes_per_worker_max",
            file.handshakes_per_worker_max,
            d.handshakes_per_worker_max,
        )?,
        ..d
    })
}

pub(super) fn spool(source: &Source<'_>, file: &file::Spool) -> Result<SpoolConfig, ConfigError> {
    let at = Section { source, name: "spool" };
    let d = SpoolConfig::default();
    Ok(SpoolConfig {
        segment_bytes_max: at.size(
            "segment_bytes_max",
            file.segment_bytes_max,
            SEGMENT_BYTES,
            d.segment_bytes_max,
        )?,
        submissions_max: at.count("submissions_max", file.submissions_max, d.submissions_max)?,
        batch_messages_max: at.count(
            "batch_messages_max",
            file.batch_messages_max,
            d.batch_messages_max,
        )?,
    })
}

pub(super) fn tls_memory(
    source: &Source<'_>,
    file: &file::TlsMemory,
) -> Result<MemorySettings, ConfigError> {
    let at = Section { source, name: "tls.memory" };
    let d = MemorySettings::default();
    let (percent, prefix) = (d.withheld_percent_max.into(), d.ipv4_prefix.into());
    Ok(MemorySettings {
        withhold: at.timeout("withhold", file.withhold, d.withhold)?,
        withheld_percent_max: at.count_in(
            "withheld_percent_max",
            file.withheld_percent_max,
            0..=100,
            percent,
        )? as u8,
        peers_max: at.count("peers_max", file.peers_max, d.peers_max)?,
        ipv4_prefix: at.count_in("ipv4_prefix", file.ipv4_prefix, 24..=32, prefix)? as u8,
        exempt: network::networks(source, "tls.memory.exempt", &file.exempt)?,
    })
}

/// A message stays in the receive buffers of its worker until it is durable. One that can never fit would be announced by
/// SIZE and then refused for ever.
fn message_fits_in_buffers(source: &Source<'_>, limits: &Limits) -> Result<(), ConfigError> {
    let room = (limits.buffers_per_worker_max * BUFFER_BYTES) as u64;
    if limits.message_bytes_max <= room {
        return Ok(());
    }
    let message = Size(limits.message_bytes_max);
    let buffers = limits.message_bytes_max.div_ceil(BUFFER_BYTES as u64);
    // The key to blame is the one the operator wrote.
    if source.contains("limits.message_bytes_max") {
        let expected = format!(
            "at most \"{}\", the room in buffers_per_worker_max = {}",
            Size(room),
            limits.buffers_per_worker_max
        );
        return Err(source.problem("limits.message_bytes_max", expected));
    }
    let expected = format!("at least {buffers}, room for message_bytes_max = \"{message}\"");
    Err(source.problem("limits.buffers_per_worker_max", expected))
}

/// One section's numbers: the value given if it is in range, the default if none is given.
pub(super) struct Section<'s, 't> {
    pub(super) source: &'s Source<'t>,
    pub(super) name: &'static str,
}

impl Section<'_, '_> {
    fn timeout(
        &self,
        key: &str,
        given: Option<DurationText>,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        self.duration_in(key, given, TIMEOUT, default)
    }

    /// As [`timeout`](Self::timeout), but 0 is a value: no delay.
    fn delay(
        &self,
        key: &str,
        given: Option<DurationText>,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        self.duration_in(key, given, DELAY, default)
    }

    pub(super) fn duration_in(
        &self,
        key: &str,
        given: Option<DurationText>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        match given {
            None => Ok(default),
            Some(DurationText(value)) if range.contains(&value) => Ok(value),
            Some(_) => {
                let (low, high) = (DurationText(*range.start()), DurationText(*range.end()));
                Err(self.out_of_range(key, &format!("\"{low}\""), &format!("\"{high}\"")))
            }
        }
    }

    fn count(&self, key: &str, given: Option<Count>, default: usize) -> Result<usize, ConfigError> {
        self.count_in(key, given, COUNT, default)
    }

    pub(super) fn count_in(
        &self,
        key: &str,
        given: Option<Count>,
        range: RangeInclusive<u64>,
        default: usize,
    ) -> Result<usize, ConfigError> {
        match given {
            None => Ok(default),
            Some(Count(value)) if range.contains(&value) => Ok(value as usize),
            Some(_) => {
                Err(self.out_of_range(key, &range.start().to_string(), &range.end().to_string()))
            }
        }
    }

    pub(super) fn size(
        &self,
        key: &str,
        given: Option<Size>,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        match given {
            None => Ok(default),
            Some(Size(value)) if range.contains(&value) => Ok(value),
            Some(_) => {
                let (low, high) = (Size(*range.start()), Size(*range.end()));
                Err(self.out_of_range(key, &format!("\"{low}\""), &format!("\"{high}\"")))
            }
        }
    }

    fn out_of_range(&self, key: &str, low: &str, high: &str) -> ConfigError {
        self.source.problem(&format!("{}.{key}", self.name), format!("from {low} to {high}"))
    }
}
