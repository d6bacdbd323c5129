use std::time::Duration;

use super::{
    FilterConfig, FilterMode, Limits, MtaStsConfig, PolicyMode, SpoolConfig, SteeringMode,
    XdpConfig, XdpMode,
};

/// The values named in the documentation of each field.
impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(300),
            tls_handshake_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(300),
            greet_delay: Duration::ZERO,
            proxy_header_timeout: Duration::from_secs(5),
            error_delay: Duration::from_secs(1),
            message_bytes_max: 50 << 20,
            recipients_max: 1_000,
            command_line_bytes_max: 2_048,
            text_line_bytes_max: 1 << 20,
            errors_max: 20,
            errors_undelayed_max: 10,
            messages_per_session_max: 10_000,
            connections_max: 10_000,
            connections_per_client_max: 50,
            accept_burst_max: 64,
            buffers_per_worker_max: 2_048,
            handshakes_per_worker_max: 1_000,
        }
    }
}

/// The values named in the documentation of each field.
impl Default for SpoolConfig {
    fn default() -> Self {
        Self { segment_bytes_max: 64 << 20, submissions_max: 1_024, batch_messages_max: 256 }
    }
}

/// The values named in the documentation of each field.
impl Default for XdpConfig {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            mode: XdpMode::Auto,
            steering: SteeringMode::Auto,
            pin_dir: "/sys/fs/bpf/ingress".into(),
            heartbeat_timeout: Duration::from_secs(10),
            filter: FilterConfig::default(),
        }
    }
}

/// The values named in the documentation of each field.
impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            mode: FilterMode::Drop,
            allow: Vec::new(),
            deny_files: Vec::new(),
            connections_per_second: 50,
            connections_burst: 500,
            // A CPU serves some 10,000 new connections a second; what reaches the stack without being served is lost work.
            pressure_per_second: 2_000,
            syn_cookies: false,
            syn_payload_bytes_max: 0,
            sample_every: 8_192,
        }
    }
}

/// The values named in the documentation of each field.
impl Default for MtaStsConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            mode: PolicyMode::Auto,
            max_age: Duration::from_secs(14 * 24 * 60 * 60),
            mx: Vec::new(),
            certificates: Vec::new(),
        }
    }
}
