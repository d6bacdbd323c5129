//! Every counter as Prometheus text, read at the moment of the scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::status::{StatusSource, XdpQueueStatus, XdpStatus};
use crate::metrics::names::{self, Description};
use crate::metrics::{DeliveryMetrics, SpoolMetrics, WorkerMetrics};
use crate::tls::reload::Served;
use crate::worker::clock::Now;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The exporter of one daemon.
pub(super) struct Exporter(Registry);

impl Exporter {
    pub(super) fn new(source: Arc<StatusSource>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(source)));
        Self(registry)
    }

    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

struct Scrape(Arc<StatusSource>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (source, encoder) = (&*self.0, &mut encoder);
        let version = env!("CARGO_PKG_VERSION");
        family(encoder, names::BUILD_INFO, "version", [(version, 1)])?;
        let uptime = Now::read().monotonic.saturating_duration_since(source.started);
        single(encoder, names::UPTIME, uptime.as_secs())?;
        family(encoder, names::STEERING_TIER, "tier", [(source.tier, 1)])?;

        let workers: Vec<_> =
            source.metrics.workers.iter().map(|w| (w.cpu.to_string(), worker_values(w))).collect();
        let described = workers.first().map(|(_, values)| values.as_slice()).unwrap_or_default();
        for (index, (description, _)) in described.iter().enumerate() {
            let values = workers.iter().map(|(cpu, values)| (cpu.as_str(), values[index].1));
            family(encoder, *description, "cpu", values)?;
        }
        let closed = source.metrics.sessions_closed();
        family(encoder, names::SESSIONS_CLOSED, "reason", closed.map(|(why, n)| (why.label(), n)))?;
        let broken = source.metrics.tls_breaks().map(|(kind, n)| (kind.label(), n));
        family(encoder, names::TLS_BREAKS, "reason", broken)?;
        let tls = (source.tls)();
        let verdicts = tls.verdicts.iter().map(|(verdict, count)| (*verdict, *count));
        family(encoder, names::TLS_FAILURES, "verdict", verdicts)?;
        single(encoder, names::TLS_PEERS_WITHHELD, tls.withheld)?;
        single(encoder, names::TLS_STRIPPED, tls.stripped)?;
        single(encoder, names::TLS_REPORTS_MISSED, tls.missed)?;
        let expiry = certificate_expiry(source);
        let expiry = expiry.iter().map(|(file, seconds)| (file.as_str(), *seconds));
        family(encoder, names::TLS_CERTIFICATE_EXPIRY, "file", expiry)?;
        let bans = (source.bans)();
        single(encoder, names::BANS_IN_FORCE, bans.now)?;
        let begun = bans.by_reason.iter().map(|(reason, count)| (*reason, *count));
        family(encoder, names::BANS, "reason", begun)?;
        single(encoder, names::BAN_REPORTS_MISSED, bans.missed)?;
        for (description, value) in spool_values(&source.metrics.spool) {
            single(encoder, description, value)?;
        }
        for (description, value) in delivery_values(&source.metrics.delivery) {
            single(encoder, description, value)?;
        }

        let xdp = (source.xdp)();
        let verdicts = xdp.verdicts.iter().map(|(verdict, packets)| (verdict.as_str(), *packets));
        family(encoder, names::XDP_VERDICTS, "verdict", verdicts)?;
        queue_family(encoder, names::XDP_QUEUE_PACKETS, &xdp, |queue| queue.packets)?;
        queue_family(encoder, names::XDP_QUEUE_DROPS, &xdp, |queue| queue.dropped)
    }
}

/// By interface and queue.
fn queue_family(
    encoder: &mut DescriptorEncoder<'_>,
    description: Description,
    xdp: &XdpStatus,
    value: impl Fn(&XdpQueueStatus) -> u64,
) -> fmt::Result {
    let (name, metric_type) = name_and_type(description);
    let mut metric = encoder.encode_descriptor(name, description.help, None, metric_type)?;
    for interface in &xdp.interfaces {
        for queue in &interface.queues {
            let number = queue.queue.to_string();
            let labels = [("interface", interface.name.as_str()), ("queue", &number)];
            encode_value(metric.encode_family(&labels)?, metric_type, value(queue))?;
        }
    }
    Ok(())
}

/// By file, so that a file that is configured twice is one value: a scraper takes nothing where a label comes twice.
fn certificate_expiry(source: &StatusSource) -> BTreeMap<String, u64> {
    let served = (source.certificates)();
    let expiry = |served: &Served| {
        let seconds = served.not_after.unix_seconds();
        (served.file.display().to_string(), seconds.try_into().unwrap_or(0))
    };
    served.iter().map(expiry).collect()
}

// The three functions below take their struct apart by name, so that a new counter does not compile until it is exported.

fn worker_values(worker: &WorkerMetrics) -> [(Description, u64); 13] {
    let WorkerMetrics {
        cpu: _,
        connections,
        connections_open,
        connections_refused,
        steering_local,
        steering_remote,
        messages_accepted,
        messages_refused,
        bytes_accepted,
        commands_refused,
        // By reason, not by worker.
        sessions_closed: _,
        tls_handshakes_completed,
        tls_handshakes_failed,
        tls_breaks: _,
        buffers_lent,
        buckets,
    } = worker;
    [
        (names::CONNECTIONS, connections.value()),
        (names::CONNECTIONS_OPEN, connections_open.value()),
        (names::CONNECTIONS_REFUSED, connections_refused.value()),
        (names::CONNECTIONS_LOCAL, steering_local.value()),
        (names::CONNECTIONS_REMOTE, steering_remote.value()),
        (names::MESSAGES_ACCEPTED, messages_accepted.value()),
        (names::MESSAGES_REFUSED, messages_refused.value()),
        (names::MESSAGE_BYTES_ACCEPTED, bytes_accepted.value()),
        (names::COMMANDS_REFUSED, commands_refused.value()),
        (names::TLS_HANDSHAKES_COMPLETED, tls_handshakes_completed.value()),
        (names::TLS_HANDSHAKES_FAILED, tls_handshakes_failed.value()),
        (names::BUFFERS_LENT, buffers_lent.value()),
        (names::WORKER_BUCKETS, buckets.value()),
    ]
}

fn spool_values(spool: &SpoolMetrics) -> [(Description, u64); 6] {
    let SpoolMetrics { pending, segments, syncs, bytes_written, damaged, poisoned } = spool;
    [
        (names::SPOOL_PENDING, pending.value()),
        (names::SPOOL_SEGMENTS, segments.value()),
        (names::SPOOL_SYNCS, syncs.value()),
        (names::SPOOL_BYTES_WRITTEN, bytes_written.value()),
        (names::SPOOL_DAMAGED, damaged.value()),
        (names::SPOOL_POISONED, poisoned.value()),
    ]
}

fn delivery_values(delivery: &DeliveryMetrics) -> [(Description, u64); 2] {
    let DeliveryMetrics { delivered, deferred } = delivery;
    [(names::DELIVERED, delivered.value()), (names::DEFERRED, deferred.value())]
}

/// One metric with a value for each value of its label.
fn family<'v>(
    encoder: &mut DescriptorEncoder<'_>,
    description: Description,
    label: &str,
    values: impl IntoIterator<Item = (&'v str, u64)>,
) -> fmt::Result {
    let (name, metric_type) = name_and_type(description);
    let mut metric = encoder.encode_descriptor(name, description.help, None, metric_type)?;
    for (label_value, value) in values {
        let labels = [(label, label_value)];
        encode_value(metric.encode_family(&labels)?, metric_type, value)?;
    }
    Ok(())
}

fn single(
    encoder: &mut DescriptorEncoder<'_>,
    description: Description,
    value: u64,
) -> fmt::Result {
    let (name, metric_type) = name_and_type(description);
    let metric = encoder.encode_descriptor(name, description.help, None, metric_type)?;
    encode_value(metric, metric_type, value)
}

/// The encoder puts `_total` behind the name of a counter by itself.
fn name_and_type(description: Description) -> (&'static str, MetricType) {
    match description.name.strip_suffix("_total") {
        Some(name) => (name, MetricType::Counter),
        None => (description.name, MetricType::Gauge),
    }
}

fn encode_value(mut metric: MetricEncoder<'_>, metric_type: MetricType, value: u64) -> fmt::Result {
    match metric_type {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::status::tests::source;
    use super::*;

    #[test]
    fn every_name_is_exported_with_its_labels() {
        let text = Exporter::new(Arc::new(source())).text().unwrap();
        for description in names::ALL {
            let sample = |line: &str| {
                line.strip_prefix(description.name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            assert!(text.lines().any(sample), "{} is not in\n{text}", description.name);
        }
        for line in [
            "ingress_connections_total{cpu=\"3\"} 2",
            "ingress_messages_delivered_total 3",
            "ingress_tls_failures_total{verdict=\"cbc_only\"} 2",
            "ingress_tls_peers_withheld 1",
            "ingress_sessions_closed_total{reason=\"early_talker\"} 1",
            "ingress_tls_certificate_expiry_timestamp_seconds{file=\"/etc/mx.pem\"} 1800000000",
            "ingress_bans 2",
            "ingress_bans_total{reason=\"early_talker\"} 3",
            "ingress_worker_buckets{cpu=\"3\"} 112",
            "ingress_spool_pending 4",
            "ingress_xdp_packets_total{verdict=\"steer\"} 22",
            "ingress_xdp_queue_packets_total{interface=\"eth0\",queue=\"1\"} 33",
            "ingress_xdp_queue_drops_total{interface=\"eth0\",queue=\"1\"} 4",
            "# TYPE ingress_connections counter",
            "# TYPE ingress_connections_open gauge",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn names_are_unique_prefixed_and_in_the_table() {
        let unique: HashSet<_> = names::ALL.iter().map(|description| description.name).collect();
        assert_eq!(unique.len(), names::ALL.len());
        let rows: Vec<(&str, &str)> = include_str!("../metrics/README.md")
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ");
                Some((cells.next()?.strip_suffix('`')?, cells.last()?))
            })
            .collect();
        let documented: Vec<_> = names::ALL.iter().map(|d| (d.name, d.help)).collect();
        assert_eq!(rows, documented);
        assert!(names::ALL.iter().all(|description| description.name.starts_with("ingress_")));
    }

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let worker = WorkerMetrics::default();
        let exported: HashSet<_> = worker_values(&worker)
            .iter()
            .chain(&spool_values(&SpoolMetrics::default()))
            .chain(&delivery_values(&DeliveryMetrics::default()))
            .map(|(description, _)| description.name)
            .collect();
        assert_eq!(exported.len(), 21);
    }
}
