//! The status as people read it: one subject a line, the workers as a table.

use std::fmt::{self, Display, Formatter};

use super::status::{CertificateStatus, Status, WorkerStatus, XdpQueueStatus, XdpStatus};
use crate::config::TlsMode;
use crate::smtp::dialect::Dialect;

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (version, uptime) = (&self.version, Uptime(self.uptime_seconds));
        writeln!(f, "{} (ingress {version}), up {uptime}", self.hostname)?;
        for listener in &self.listeners {
            let tls = match listener.tls {
                TlsMode::Off => "in clear",
                TlsMode::StartTls => "STARTTLS",
                TlsMode::Implicit => "implicit TLS",
            };
            let lmtp = if listener.protocol == Dialect::Lmtp { "LMTP, " } else { "" };
            line(f, "listener", format_args!("{} ({lmtp}{tls})", listener.address))?;
        }
        let mode = self.mta_sts.mode.as_deref().unwrap_or("none");
        for address in &self.mta_sts.addresses {
            line(f, "mta-sts", format_args!("{address} (policy over HTTPS, mode {mode})"))?;
        }
        let (all, messages) = (&self.connections, &self.messages);
        line(
            f,
            "connections",
            format_args!("{} accepted, {} open, {} refused", all.total, all.open, all.refused),
        )?;
        for (reason, count) in self.sessions.closed.iter().filter(|(_, count)| **count > 0) {
            line(f, "", format_args!("{count:>12} ended: {reason}"))?;
        }
        if self.bans.now > 0 {
            line(f, "bans", format_args!("{} in force (ingress ban list)", self.bans.now))?;
        }
        let bytes = messages.bytes_accepted;
        line(
            f,
            "messages",
            format_args!(
                "{} accepted ({bytes} bytes), {} refused",
                messages.accepted, messages.refused
            ),
        )?;
        line(
            f,
            "delivery",
            format_args!(
                "{} delivered, {} attempts deferred",
                messages.delivered, messages.deferred
            ),
        )?;
        self.write_spool(f)?;
        self.write_tls(f)?;
        let steering = &self.steering;
        line(
            f,
            "steering",
            format_args!(
                "{} ({}): {} local, {} remote",
                steering.tier, steering.reason, steering.local, steering.remote
            ),
        )?;
        write_xdp(f, &self.xdp)?;
        write_workers(f, &self.workers)
    }
}

impl Status {
    fn write_spool(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let spool = &self.spool;
        line(
            f,
            "spool",
            format_args!(
                "{} pending in {} segments, {} syncs, {} bytes written",
                spool.pending, spool.segments, spool.syncs, spool.bytes_written
            ),
        )?;
        if spool.damaged != 0 {
            line(f, "", format_args!("{} DAMAGED records kept aside", spool.damaged))?;
        }
        if spool.poisoned {
            line(
                f,
                "",
                format_args!("POISONED by a failed write: no mail is accepted until restart"),
            )?;
        }
        Ok(())
    }

    fn write_tls(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tls = &self.tls;
        line(
            f,
            "tls",
            format_args!(
                "{} handshakes, {} failed",
                tls.handshakes_completed, tls.handshakes_failed
            ),
        )?;
        for (reason, count) in tls.broken.iter().filter(|(_, count)| **count > 0) {
            line(f, "", format_args!("{count} broken: {reason}"))?;
        }
        for CertificateStatus { file, names, not_after, days_left } in &tls.certificates {
            let (file, names) = (file.display(), names.join(", "));
            let end = match days_left {
                ..0 => format!("EXPIRED at {not_after}"),
                days => format!("until {not_after}, {days} days left"),
            };
            line(f, "", format_args!("{file} ({names}): {end}"))?;
        }
        Ok(())
    }
}

fn write_xdp(f: &mut Formatter<'_>, xdp: &XdpStatus) -> fmt::Result {
    if xdp.interfaces.is_empty() {
        return line(f, "xdp", format_args!("off"));
    }
    for interface in &xdp.interfaces {
        line(f, "xdp", format_args!("{} {}", interface.name, interface.mode))?;
    }
    for (verdict, packets) in &xdp.verdicts {
        line(f, "", format_args!("{packets:>12} {verdict}"))?;
    }
    for interface in &xdp.interfaces {
        for XdpQueueStatus { queue, packets, dropped } in &interface.queues {
            let name = &interface.name;
            line(
                f,
                "",
                format_args!("{packets:>12} on queue {queue} of {name}, {dropped} dropped"),
            )?;
        }
    }
    Ok(())
}

fn write_workers(f: &mut Formatter<'_>, workers: &[WorkerStatus]) -> fmt::Result {
    writeln!(f)?;
    row(
        f,
        ["cpu", "accepted", "open", "refused", "local", "remote", "messages", "buffers", "buckets"],
    )?;
    for worker in workers {
        row(
            f,
            [
                worker.cpu as u64,
                worker.connections_total,
                worker.connections_open,
                worker.connections_refused,
                worker.steering_local,
                worker.steering_remote,
                worker.messages_accepted,
                worker.buffers_lent,
                worker.buckets,
            ],
        )?;
    }
    Ok(())
}

fn line(f: &mut Formatter<'_>, subject: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "{subject:<12} {value}")
}

fn row<T: Display>(f: &mut Formatter<'_>, cells: [T; 9]) -> fmt::Result {
    let [cpu, rest @ ..] = cells;
    write!(f, "{cpu:>4}")?;
    for cell in rest {
        write!(f, " {cell:>10}")?;
    }
    writeln!(f)
}

/// Seconds, as the two largest units that say something.
struct Uptime(u64);

impl Display for Uptime {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (minutes, hours, days) = (self.0 / 60, self.0 / 3_600, self.0 / 86_400);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{} s", self.0),
            (0, 0, _) => write!(f, "{minutes} min {} s", self.0 % 60),
            (0, _, _) => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} d {} h", hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::status::tests::{after, source};
    use super::*;

    #[test]
    fn the_text_is_aligned_and_complete() {
        let source = source();
        let text = source.status(after(&source, Duration::ZERO)).to_string();
        let expected = "\
mx.example.net (ingress VERSION), up 0 s
listener     127.0.0.1:2525 (STARTTLS)
mta-sts      127.0.0.1:4443 (policy over HTTPS, mode testing)
connections  7 accepted, 0 open, 0 refused
                        1 ended: early_talker
bans         2 in force (ingress ban list)
messages     7 accepted (0 bytes), 0 refused
delivery     3 delivered, 0 attempts deferred
spool        4 pending in 0 segments, 0 syncs, 0 bytes written
tls          0 handshakes, 0 failed
             /etc/mx.pem (mx.example.net, *.example.org): until 2027-01-15T08:00:00Z, 10 days left
steering     cpumap (2 queues for 2 workers): 5 local, 2 remote
xdp          eth0 native
                       11 pass
                       22 steer
                       33 on queue 1 of eth0, 4 dropped

 cpu   accepted       open    refused      local     remote   messages    buffers    buckets
   0          5          0          0          5          0          0          0        144
   3          2          0          0          0          2          7          0        112
";
        assert_eq!(text, expected.replace("VERSION", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn an_expired_certificate_stands_out() {
        let source = source();
        let eleven_days = Duration::from_secs(11 * 86_400);
        let mut now = after(&source, eleven_days);
        now.wall += eleven_days;
        let text = source.status(now).to_string();
        assert!(text.contains("*.example.org): EXPIRED at 2027-01-15T08:00:00Z\n"), "{text}");
    }

    #[test]
    fn uptime_shows_two_units() {
        assert_eq!(Uptime(59).to_string(), "59 s");
        assert_eq!(Uptime(61).to_string(), "1 min 1 s");
        assert_eq!(Uptime(3 * 3_600 + 120).to_string(), "3 h 2 min");
        assert_eq!(Uptime(2 * 86_400 + 3_600).to_string(), "2 d 1 h");
    }
}
