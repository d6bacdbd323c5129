//! What depends on the hardware: CPUs and network interfaces.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::error::ConfigError;
use super::super::file;
use super::super::source::Source;
use super::super::values::Workers;
use super::super::{FilterConfig, SteeringMode, XdpConfig, XdpMode};
use super::limits::Section;
use super::{Place, network};
use crate::spool::QueueId;

/// As many as the XDP program counts apart.
const INTERFACES_MAX: usize = ingress_ebpf::abi::INTERFACES_MAX;

/// Events a second; 0 is no limit. No CPU sees more.
const RATE: RangeInclusive<u64> = 0..=100_000_000;
const BURST: RangeInclusive<u64> = 1..=100_000_000;
/// A heartbeat comes every second. After an hour nobody waits for the daemon any more.
const HEARTBEAT_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(2)..=Duration::from_secs(3_600);
/// A SYN is one packet.
const SYN_PAYLOAD_BYTES: RangeInclusive<u64> = 0..=65_535;

/// The CPUs that get a worker, out of those this process may run on.
pub(super) fn worker_cpus(
    source: &Source<'_>,
    workers: Option<Workers>,
) -> Result<Vec<usize>, ConfigError> {
    let available: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|cpu| cpu.id).collect();
    choose_cpus(source, workers, &available)
}

fn choose_cpus(
    source: &Source<'_>,
    workers: Option<Workers>,
    available: &[usize],
) -> Result<Vec<usize>, ConfigError> {
    let usable = available.len().min(QueueId::WORKERS_MAX);
    match workers.unwrap_or(Workers::Auto) {
        // A machine that does not tell still has its first CPU.
        Workers::Auto if available.is_empty() => Ok(vec![0]),
        Workers::Auto => Ok(available[..usable].to_vec()),
        Workers::Count(count) => match usize::try_from(count) {
            Ok(count @ 1..) if count <= usable => Ok(available[..count].to_vec()),
            _ => {
                let expected = format!("1 to {usable}, the CPUs this process may run on");
                Err(source.problem("workers", expected))
            }
        },
        Workers::Cpus(cpus) => listed_cpus(source, &cpus, available),
    }
}

fn listed_cpus(
    source: &Source<'_>,
    cpus: &[u64],
    available: &[usize],
) -> Result<Vec<usize>, ConfigError> {
    if cpus.is_empty() || cpus.len() > QueueId::WORKERS_MAX {
        let expected = format!("1 to {} CPU numbers", QueueId::WORKERS_MAX);
        return Err(source.problem("workers", expected));
    }
    let mut chosen = Vec::with_capacity(cpus.len());
    for (index, cpu) in cpus.iter().enumerate() {
        let key = format!("workers.{index}");
        let Some(&cpu) = available.iter().find(|id| **id as u64 == *cpu) else {
            let expected = format!("a CPU this process may run on: {}", number_list(available));
            return Err(source.problem(&key, expected));
        };
        if chosen.contains(&cpu) {
            return Err(source.problem(&key, "each CPU once"));
        }
        chosen.push(cpu);
    }
    Ok(chosen)
}

fn number_list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn xdp(at: &Place<'_, '_>, file: file::Xdp) -> Result<XdpConfig, ConfigError> {
    let source = at.source;
    let d = XdpConfig::default();
    for (index, name) in file.interfaces.iter().enumerate() {
        let key = format!("xdp.interfaces.{index}");
        if !is_interface_name(name) {
            let expected = "an interface name of 1 to 15 characters without / or space";
            return Err(source.problem(&key, expected));
        }
        if file.interfaces[..index].contains(name) {
            return Err(source.problem(&key, "each interface once"));
        }
    }
    let mode = file.mode.unwrap_or(d.mode);
    let steering = file.steering.unwrap_or(d.steering);
    if matches!(mode, XdpMode::Native | XdpMode::Generic) && file.interfaces.is_empty() {
        let expected = "the interfaces to attach to, since a mode is demanded";
        return Err(source.problem("xdp.interfaces", expected));
    }
    // Linux 6.12 attaches the pair and then drops every packet.
    if mode == XdpMode::Generic && steering == SteeringMode::Cpumap {
        let expected = "another steering: cpumap needs mode \"native\" or \"auto\"";
        return Err(source.problem("xdp.steering", expected));
    }
    if file.interfaces.len() > INTERFACES_MAX {
        let expected = format!("at most {INTERFACES_MAX} interfaces");
        return Err(at.source.problem("xdp.interfaces", expected));
    }
    let section = Section { source, name: "xdp" };
    let heartbeat_timeout = section.duration_in(
        "heartbeat_timeout",
        file.heartbeat_timeout,
        HEARTBEAT_TIMEOUT,
        d.heartbeat_timeout,
    )?;
    let filter = filter(at, &file.filter)?;
    let pin_dir = file.pin_dir.map_or(Ok(d.pin_dir), |text| at.path("xdp.pin_dir", &text))?;
    Ok(XdpConfig {
        interfaces: file.interfaces,
        mode,
        steering,
        pin_dir,
        heartbeat_timeout,
        filter,
    })
}

fn filter(at: &Place<'_, '_>, file: &file::Filter) -> Result<FilterConfig, ConfigError> {
    let d = FilterConfig::default();
    let section = Section { source: at.source, name: "xdp.filter" };
    let count = |key, given, default: u32| {
        section.count_in(key, given, RATE, default as usize).map(|value| value as u32)
    };
    let deny_file =
        |(index, text): (usize, &String)| at.path(&format!("xdp.filter.deny_files.{index}"), text);
    let payload = section.size(
        "syn_payload_bytes_max",
        file.syn_payload_bytes_max,
        SYN_PAYLOAD_BYTES,
        d.syn_payload_bytes_max.into(),
    )?;
    let burst = section.count_in(
        "connections_burst",
        file.connections_burst,
        BURST,
        d.connections_burst as usize,
    )?;
    Ok(FilterConfig {
        mode: file.mode.unwrap_or(d.mode),
        allow: network::networks(at.source, "xdp.filter.allow", &file.allow)?
            .iter()
            .copied()
            .collect(),
        deny_files: file.deny_files.iter().enumerate().map(deny_file).collect::<Result<_, _>>()?,
        connections_per_second: count(
            "connections_per_second",
            file.connections_per_second,
            d.connections_per_second,
        )?,
        connections_burst: burst as u32,
        pressure_per_second: count(
            "pressure_per_second",
            file.pressure_per_second,
            d.pressure_per_second,
        )?,
        syn_cookies: file.syn_cookies.unwrap_or(d.syn_cookies),
        syn_payload_bytes_max: payload as u32,
        sample_every: count("sample_every", file.sample_every, d.sample_every)?,
    })
}

/// What the kernel allows (dev_valid_name), IFNAMSIZ being 16 with the NUL.
fn is_interface_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == ':' || c == '\0' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(workers: Workers, available: &[usize]) -> Result<Vec<usize>, String> {
        let (source, _) = Source::parse("t", "workers = [0, 9]").unwrap();
        choose_cpus(&source, Some(workers), available).map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_every_cpu_the_process_may_run_on() {
        assert_eq!(choose(Workers::Auto, &[1, 3]), Ok(vec![1, 3]));
        assert_eq!(choose(Workers::Auto, &[]), Ok(vec![0]));
    }

    #[test]
    fn a_count_takes_the_first_ones() {
        assert_eq!(choose(Workers::Count(1), &[1, 3]), Ok(vec![1]));
        assert!(choose(Workers::Count(0), &[1, 3]).is_err());
        assert!(choose(Workers::Count(3), &[1, 3]).is_err());
    }

    #[test]
    fn a_listed_cpu_must_exist_and_stand_there_once() {
        assert_eq!(choose(Workers::Cpus(vec![3, 1]), &[1, 3]), Ok(vec![3, 1]));
        let error = choose(Workers::Cpus(vec![3, 9]), &[1, 3]).unwrap_err();
        assert_eq!(error, "t:1: workers[1] = 9: expected a CPU this process may run on: 1, 3");
        assert!(choose(Workers::Cpus(vec![1, 1]), &[1, 3]).unwrap_err().contains("each CPU once"));
        assert!(choose(Workers::Cpus(vec![]), &[1, 3]).is_err());
    }
}
