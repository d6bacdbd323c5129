//! An interface as people read it.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::{Behind, Direction, Nic, Queue};

/// An interface with the workers behind its queues.
#[derive(Debug, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    pub nic: Nic,
    /// Behind each of the queues, in their order.
    pub workers: Vec<Behind>,
    pub packets_by: Counted,
}

/// What the daemon's XDP program has counted on a receive queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedQueue {
    pub number: u32,
    pub packets: u64,
    pub dropped: u64,
}

/// Who counted the packets of each receive queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Counted {
    /// The XDP program of the running daemon, since it started.
    Xdp,
    Driver,
    Nobody,
}

impl Display for Counted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => {
                "packets and drops of receive queues: by XDP since the daemon started; the rest by the driver"
            }
            Self::Driver => "packets by the driver",
            Self::Nobody => "packets: neither XDP nor the driver counts them per queue",
        })
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nic = &self.nic;
        let driver = nic.driver.as_deref().unwrap_or("no driver");
        write!(f, "{}: {driver}, {}, MTU {}", nic.name, nic.state, nic.mtu)?;
        match &nic.xdp {
            Some(xdp) => writeln!(f, ", {} XDP program {}", xdp.mode, xdp.id)?,
            None => writeln!(f, ", no XDP program")?,
        }
        write_settings(f, nic)?;
        let totals = &nic.totals;
        line(
            f,
            "packets",
            format_args!(
                "rx {} (dropped {}), tx {} (dropped {})",
                totals.rx_packets, totals.rx_dropped, totals.tx_packets, totals.tx_dropped
            ),
        )?;
        let header = ["queue", "irq", "runs on", "RPS/XPS", "packets", "drops", "worker"];
        row(f, &header.map(str::to_owned))?;
        for (queue, worker) in nic.queues.iter().zip(&self.workers) {
            row(f, &cells(nic, queue, worker))?;
        }
        line(f, "", self.packets_by)
    }
}

fn write_settings(f: &mut Formatter<'_>, nic: &Nic) -> fmt::Result {
    let settings = &nic.settings;
    if let Some(channels) = &settings.channels {
        let counts = [
            ("combined", channels.combined, channels.combined_max),
            ("rx", channels.rx, channels.rx_max),
            ("tx", channels.tx, channels.tx_max),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(_, _, max)| *max > 0)
            .map(|(name, count, max)| format!("{name} {count} of {max}"))
            .collect();
        line(f, "queues", counts.join(", "))?;
    }
    if let Some(rings) = &settings.rings {
        let (rx, rx_max, tx, tx_max) = (rings.rx, rings.rx_max, rings.tx, rings.tx_max);
        line(f, "rings", format_args!("rx {rx} of {rx_max}, tx {tx} of {tx_max}"))?;
    }
    if let Some(coalescing) = &settings.coalescing {
        let adaptive = coalescing.rx_adaptive.map(|on| format!("rx adaptive {}", on_off(on)));
        let rx = coalescing.rx_microseconds.map(|time| format!("rx {time} us"));
        let tx = coalescing.tx_microseconds.map(|time| format!("tx {time} us"));
        let said: Vec<String> = [adaptive, rx, tx].into_iter().flatten().collect();
        line(f, "coalescing", said.join(", "))?;
    }
    let offloads: Vec<String> = SHOWN_OFFLOADS
        .iter()
        .filter_map(|name| Some(format!("{name} {}", on_off(nic.offload(name)?))))
        .collect();
    if !offloads.is_empty() {
        line(f, "offloads", offloads.join(", "))?;
    }
    Ok(())
}

fn cells(nic: &Nic, queue: &Queue, worker: &Behind) -> [String; 7] {
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let irq = nic.irq(queue);
    let runs_on = irq.map(|irq| irq.runs_on().to_string());
    [
        format!("{}-{}", queue.direction.name(), queue.number),
        count(queue.irq.map(u64::from)),
        runs_on.unwrap_or_else(|| "-".to_owned()),
        queue.cpus.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        count(queue.packets),
        count(queue.drops),
        worker.to_string(),
    ]
}

fn row(f: &mut Formatter<'_>, cells: &[String; 7]) -> fmt::Result {
    let [queue, irq, runs_on, cpus, packets, drops, worker] = cells;
    writeln!(f, "  {queue:<8}{irq:>5}  {runs_on:<9}{cpus:<9}{packets:>14}{drops:>10}  {worker}")
}

fn line(f: &mut Formatter<'_>, subject: &str, text: impl Display) -> fmt::Result {
    writeln!(f, "  {subject:<11} {text}")
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl Shown {
    /// `nic` with what the daemon's XDP program has counted on its receive queues, where there is one. Drops are its own and the
    /// driver's.
    pub fn new(
        mut nic: Nic,
        counted: Option<&[CountedQueue]>,
        worker: impl Fn(&Nic, &Queue) -> Behind,
    ) -> Self {
        if let Some(counted) = counted {
            for queue in nic.queues.iter_mut().filter(|queue| queue.direction == Direction::Rx) {
                // Queues that had no packet are not among them.
                let found = counted.iter().find(|counted| counted.number == queue.number);
                queue.packets = Some(found.map_or(0, |counted| counted.packets));
                let dropped = found.map_or(0, |counted| counted.dropped);
                queue.drops = Some(queue.drops.unwrap_or(0).saturating_add(dropped));
            }
        }
        let packets_by = match counted {
            Some(_) => Counted::Xdp,
            None if nic.queues.iter().any(|queue| queue.packets.is_some()) => Counted::Driver,
            None => Counted::Nobody,
        };
        let workers = nic.queues.iter().map(|queue| worker(&nic, queue)).collect();
        Self { nic, workers, packets_by }
    }
}

/// Those that matter to XDP and to mail, by the kernel's names; all are in the JSON.
const SHOWN_OFFLOADS: [&str; 8] = [
    "rx-lro",
    "rx-gro-hw",
    "rx-gro",
    "rx-checksum",
    "rx-hashing",
    "tx-checksum-ip-generic",
    "tx-tcp-segmentation",
    "tx-generic-segmentation",
];

#[cfg(test)]
mod tests {
    use super::super::{Channels, CpuSet, Irq, Offload};
    use super::*;

    fn nic() -> Nic {
        let queue = |direction, number, packets| Queue {
            direction,
            number,
            cpus: Some(CpuSet::default()),
            irq: (direction == Direction::Rx).then_some(40),
            packets,
            drops: None,
        };
        let mut nic = Nic {
            name: "eth0".into(),
            driver: Some("ice".into()),
            state: "up".into(),
            mtu: 9000,
            queues: vec![queue(Direction::Rx, 3, Some(5)), queue(Direction::Tx, 3, Some(6))],
            irqs: vec![Irq {
                number: 40,
                name: "ice-eth0-TxRx-3".into(),
                affinity: (0..8).collect(),
                effective: Some([7].into_iter().collect()),
            }],
            ..Nic::default()
        };
        nic.settings.channels =
            Some(Channels { combined: 4, combined_max: 64, ..Channels::default() });
        nic.settings.offloads = vec![Offload { name: "rx-gro-hw".into(), on: false }];
        nic
    }

    #[test]
    fn a_queue_is_a_row_with_interrupt_cpu_packets_and_worker() {
        let text = Shown::new(nic(), None, |_, _| Behind::Workers(vec![1])).to_string();
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap().join(" ");
        assert_eq!(row("eth0:"), "eth0: ice, up, MTU 9000, no XDP program");
        assert_eq!(row("queues"), "queues combined 4 of 64");
        assert_eq!(row("offloads"), "offloads rx-gro-hw off");
        assert_eq!(row("rx-3"), "rx-3 40 7 none 5 - 1");
        assert_eq!(row("tx-3"), "tx-3 - - none 6 - 1");
        assert_eq!(rows.last().unwrap().join(" "), Counted::Driver.to_string());
    }

    #[test]
    fn what_xdp_counted_stands_in_place_of_the_drivers_counts_of_received_packets() {
        for (number, received, drops) in [(3, 77, 5), (9, 0, 0)] {
            let counted = [CountedQueue { number, packets: 77, dropped: 5 }];
            let before = nic().queues[0].drops;
            let shown = Shown::new(nic(), Some(&counted), |_, _| Behind::Unknown);
            let packets: Vec<_> = shown.nic.queues.iter().map(|queue| queue.packets).collect();
            assert_eq!(packets, [Some(received), Some(6)]);
            assert_eq!(shown.nic.queues[0].drops, Some(before.unwrap_or(0) + drops));
            assert_eq!(shown.packets_by, Counted::Xdp);
        }
    }
}
