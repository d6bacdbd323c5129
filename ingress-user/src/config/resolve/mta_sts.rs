//! The MTA-STS policy: where it is served, and what it says.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::error::ConfigError;
use super::super::source::Source;
use super::super::values::OneOrMore;
use super::super::{ControlConfig, ListenerConfig, MtaStsConfig, file};
use super::limits::Section;
use super::{Place, certificates, hosts, network};

/// RFC 8461 3.2: to a year of 365.25 days. A policy of 0 s would be none, for which there is a mode.
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31_557_600);

/// Both families on a few interfaces. Each may take 32 file descriptors for its connections, of those that are not for mail.
const LISTEN_MAX: usize = 8;

/// A policy is fetched whole, and senders limit it (RFC 8461 3.3 suggests 64 KiB).
const MX_MAX: usize = 100;

pub(super) fn mta_sts(
    at: &Place<'_, '_>,
    file: &file::MtaSts,
    listeners: &[ListenerConfig],
    control: &ControlConfig,
) -> Result<MtaStsConfig, ConfigError> {
    let taken: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.address).chain(control.metrics).collect();
    let d = MtaStsConfig::default();
    Ok(MtaStsConfig {
        listen: listen(at.source, file.listen.as_ref(), &taken)?,
        mode: file.mode.unwrap_or(d.mode),
        max_age: max_age(at.source, file, d.max_age)?,
        mx: mx(at.source, &file.mx)?,
        certificates: certificates(at, "mta_sts.certificates", &file.certificates)?,
    })
}

fn listen(
    source: &Source<'_>,
    given: Option<&OneOrMore>,
    taken: &[SocketAddr],
) -> Result<Vec<SocketAddr>, ConfigError> {
    const KEY: &str = "mta_sts.listen";
    let (texts, is_list) = match given {
        None => return Ok(Vec::new()),
        Some(OneOrMore::One(text)) => (std::slice::from_ref(text), false),
        Some(OneOrMore::More(texts)) => (texts.as_slice(), true),
    };
    if texts.len() > LISTEN_MAX {
        return Err(source.problem(KEY, format!("at most {LISTEN_MAX} addresses")));
    }
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let key = if is_list { format!("{KEY}.{index}") } else { KEY.to_owned() };
        let address = network::socket_address(source, &key, Some(text))?;
        // Port 0 is any free port: two of them are never the same.
        if address.port() != 0 && addresses.contains(&address) {
            return Err(source.problem(&key, "each address once"));
        }
        if address.port() != 0 && taken.contains(&address) {
            let expected = "an address that neither a [[listener]] nor control.metrics has";
            return Err(source.problem(&key, expected));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn max_age(
    source: &Source<'_>,
    file: &file::MtaSts,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let at = Section { source, name: "mta_sts" };
    let max_age = at.duration_in("max_age", file.max_age, MAX_AGE, default)?;
    match max_age.subsec_nanos() {
        0 => Ok(max_age),
        _ => Err(source.problem("mta_sts.max_age", "whole seconds (RFC 8461 section 3.2)")),
    }
}

fn mx(source: &Source<'_>, given: &[String]) -> Result<Vec<String>, ConfigError> {
    const KEY: &str = "mta_sts.mx";
    if given.len() > MX_MAX {
        return Err(source.problem(KEY, format!("at most {MX_MAX} hosts, not {}", given.len())));
    }
    let one = |(index, host): (usize, &String)| {
        let expected = "a host name of letters, digits and hyphens, or one after \"*.\"";
        match hosts::is_domain_name(host.strip_prefix("*.").unwrap_or(host)) {
            true => Ok(host.to_ascii_lowercase()),
            false => Err(source.problem(&format!("{KEY}.{index}"), expected)),
        }
    };
    given.iter().enumerate().map(one).collect()
}
