//! The name of every exported metric. README.md beside this file has the same list for people; a test compares them.

/// A metric as Prometheus sees it. Names end in `_total` exactly when the value is a count that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    pub name: &'static str,
    pub help: &'static str,
}

const fn of(name: &'static str, help: &'static str) -> Description {
    Description { name, help }
}

pub const BUILD_INFO: Description = of("ingress_build_info", "Always 1; the label is the version.");
pub const UPTIME: Description = of("ingress_uptime_seconds", "Seconds since the daemon was ready.");
pub const STEERING_TIER: Description =
    of("ingress_steering_tier", "Always 1; the label is how connections reach their worker.");

pub const CONNECTIONS: Description =
    of("ingress_connections_total", "Connections accepted from the kernel.");
pub const CONNECTIONS_OPEN: Description = of("ingress_connections_open", "Connections open now.");
pub const CONNECTIONS_REFUSED: Description = of(
    "ingress_connections_refused_total",
    "Connections turned away with 421 for a limit or a ban.",
);
pub const CONNECTIONS_LOCAL: Description = of(
    "ingress_connections_local_total",
    "Accepted connections whose packets came in on the worker's CPU.",
);
pub const CONNECTIONS_REMOTE: Description = of(
    "ingress_connections_remote_total",
    "Accepted connections whose packets came in on another CPU.",
);
pub const MESSAGES_ACCEPTED: Description =
    of("ingress_messages_accepted_total", "Messages answered 250 after they were durable.");
pub const MESSAGES_REFUSED: Description =
    of("ingress_messages_refused_total", "Messages refused at the end of their data.");
pub const MESSAGE_BYTES_ACCEPTED: Description =
    of("ingress_message_bytes_accepted_total", "Octets of accepted messages.");
pub const COMMANDS_REFUSED: Description =
    of("ingress_commands_refused_total", "Commands and messages refused as the client's error.");
pub const SESSIONS_CLOSED: Description =
    of("ingress_sessions_closed_total", "Sessions that the server ended, by reason.");
pub const TLS_HANDSHAKES_COMPLETED: Description =
    of("ingress_tls_handshakes_completed_total", "TLS handshakes that succeeded.");
pub const TLS_HANDSHAKES_FAILED: Description =
    of("ingress_tls_handshakes_failed_total", "TLS handshakes that did not succeed.");
pub const TLS_BREAKS: Description = of(
    "ingress_tls_connections_broken_total",
    "Connections whose TLS broke after the handshake, by what broke it.",
);
pub const TLS_FAILURES: Description = of(
    "ingress_tls_failures_total",
    "Failed TLS handshakes, by the verdict on them; without self-tests.",
);
pub const TLS_PEERS_WITHHELD: Description =
    of("ingress_tls_peers_withheld", "Peers that are not offered STARTTLS now.");
pub const TLS_STRIPPED: Description = of(
    "ingress_tls_stripped_total",
    "Sessions in clear of peers that had always come with TLS, though STARTTLS was offered.",
);
pub const TLS_REPORTS_MISSED: Description = of(
    "ingress_tls_reports_missed_total",
    "Handshakes and sessions that came faster than the journal could take them.",
);
pub const TLS_CERTIFICATE_EXPIRY: Description = of(
    "ingress_tls_certificate_expiry_timestamp_seconds",
    "When the certificate in the file expires, in seconds since 1970.",
);
pub const BANS_IN_FORCE: Description = of("ingress_bans", "Bans in force now.");
pub const BANS: Description = of("ingress_bans_total", "Bans that began, by reason.");
pub const BAN_REPORTS_MISSED: Description = of(
    "ingress_ban_reports_missed_total",
    "Offences that came faster than they could be counted for bans.",
);
pub const BUFFERS_LENT: Description =
    of("ingress_buffers_lent", "Receive buffers of 64 KiB in use by connections and the spool.");
pub const WORKER_BUCKETS: Description = of(
    "ingress_worker_buckets",
    "Of the 256 buckets of new connections, those that XDP sends to this worker.",
);

pub const SPOOL_PENDING: Description =
    of("ingress_spool_pending", "Messages durable and not yet delivered.");
pub const SPOOL_SEGMENTS: Description = of("ingress_spool_segments", "Segment files of the spool.");
pub const SPOOL_SYNCS: Description =
    of("ingress_spool_syncs_total", "Batches made durable by one fdatasync each.");
pub const SPOOL_BYTES_WRITTEN: Description =
    of("ingress_spool_bytes_written_total", "Bytes appended to the spool.");
pub const SPOOL_DAMAGED: Description =
    of("ingress_spool_damaged", "Records found damaged at start and kept aside.");
pub const SPOOL_POISONED: Description = of(
    "ingress_spool_poisoned",
    "1 after a failed write or fsync: no mail is accepted until restart.",
);

pub const DELIVERED: Description =
    of("ingress_messages_delivered_total", "Messages handed on and released from the spool.");
pub const DEFERRED: Description = of(
    "ingress_delivery_attempts_deferred_total",
    "Delivery attempts that failed and will be repeated.",
);

pub const XDP_VERDICTS: Description =
    of("ingress_xdp_packets_total", "Packets seen by the XDP program, by its verdict.");
pub const XDP_QUEUE_PACKETS: Description =
    of("ingress_xdp_queue_packets_total", "Packets seen by the XDP program, by RX queue.");
pub const XDP_QUEUE_DROPS: Description =
    of("ingress_xdp_queue_drops_total", "Packets dropped by the XDP program, by RX queue.");

/// All of the above, in the order of the table in README.md.
pub const ALL: &[Description] = &[
    BUILD_INFO,
    UPTIME,
    STEERING_TIER,
    CONNECTIONS,
    CONNECTIONS_OPEN,
    CONNECTIONS_REFUSED,
    CONNECTIONS_LOCAL,
    CONNECTIONS_REMOTE,
    MESSAGES_ACCEPTED,
    MESSAGES_REFUSED,
    MESSAGE_BYTES_ACCEPTED,
    COMMANDS_REFUSED,
    TLS_HANDSHAKES_COMPLETED,
    TLS_HANDSHAKES_FAILED,
    BUFFERS_LENT,
    WORKER_BUCKETS,
    SESSIONS_CLOSED,
    TLS_BREAKS,
    TLS_FAILURES,
    TLS_PEERS_WITHHELD,
    TLS_STRIPPED,
    TLS_REPORTS_MISSED,
    TLS_CERTIFICATE_EXPIRY,
    BANS_IN_FORCE,
    BANS,
    BAN_REPORTS_MISSED,
    SPOOL_PENDING,
    SPOOL_SEGMENTS,
    SPOOL_SYNCS,
    SPOOL_BYTES_WRITTEN,
    SPOOL_DAMAGED,
    SPOOL_POISONED,
    DELIVERED,
    DEFERRED,
    XDP_VERDICTS,
    XDP_QUEUE_PACKETS,
    XDP_QUEUE_DROPS,
];
