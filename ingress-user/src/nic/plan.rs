//! From what is to what is wanted for pinned workers. Nothing is touched here.

use serde::{Deserialize, Serialize};

use super::{Channels, CpuSet, Direction, Machine, Nic, Queue, Steered};

/// One thing to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub what: String,
    pub now: String,
    pub wanted: String,
    pub why: &'static str,
    pub how: How,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// A file of the kernel, from the root, is given this text.
    Write { file: String, text: String },
    /// The driver is asked.
    Change(Change),
    /// Left to the operator: a command, or what to decide.
    Operator(String),
}

/// What a driver is asked for. Absent is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Channels { rx: Option<u32>, tx: Option<u32>, combined: Option<u32> },
    Rings { rx: u32, tx: u32 },
    Coalescing { rx_adaptive: Option<bool>, rx_microseconds: Option<u32> },
}

/// What of the host matters to all its interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    pub sysctls: Vec<Sysctl>,
    /// A daemon that moves interrupts.
    pub irqbalance: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    pub name: &'static str,
    /// None where the kernel has none of this name.
    pub value: Option<u64>,
}

impl Host {
    pub fn read(machine: &Machine) -> Self {
        let sysctl = |wanted: &WantedSysctl| Sysctl {
            name: wanted.name,
            value: machine.number(&sysctl_file(wanted.name)),
        };
        Self {
            sysctls: SYSCTLS.iter().map(sysctl).collect(),
            irqbalance: machine.runs("irqbalance"),
        }
    }
}

/// The workers that a plan is for.
#[derive(Debug, Clone, Copy)]
pub struct Workers<'a> {
    /// The CPUs that they are pinned to, never empty.
    pub cpus: &'a [usize],
    pub steered: Steered,
}

/// What to change on `nic` and the host for these workers. Empty when all is as wanted.
pub fn plan(nic: &Nic, workers: Workers<'_>, host: &Host) -> Vec<Step> {
    let Workers { cpus: workers, steered } = workers;
    let mut steps = Vec::new();
    steps.extend(channels(nic, workers));
    steps.extend(irqs(nic, workers));
    steps.extend(receive_queues(nic, workers, steered));
    steps.extend(transmit_queues(nic, workers));
    steps.extend(rings(nic));
    steps.extend(coalescing(nic));
    steps.extend(offloads(nic));
    steps.extend(sysctls(host));
    steps.extend(irqbalance(nic, workers, host));
    steps
}

fn channels(nic: &Nic, workers: &[usize]) -> Option<Step> {
    let channels = nic.settings.channels?;
    let wanted = |max: u32| u32::try_from(workers.len()).unwrap_or(u32::MAX).min(max);
    let Channels { rx, rx_max, tx, tx_max, combined, .. } = channels;
    let combined_max = nic.combined_max_with_xdp()?;
    let (change, now, wanted) = if combined_max > 0 {
        let count = wanted(combined_max);
        let change = Change::Channels { rx: None, tx: None, combined: Some(count) };
        (change, combined.to_string(), count.to_string())
    } else {
        let (rx_wanted, tx_wanted) = (wanted(rx_max), wanted(tx_max));
        let change = Change::Channels { rx: Some(rx_wanted), tx: Some(tx_wanted), combined: None };
        (change, format!("rx {rx}, tx {tx}"), format!("rx {rx_wanted}, tx {tx_wanted}"))
    };
    (now != wanted).then(|| Step {
        what: format!("queues of {}", nic.name),
        now,
        wanted,
        why: "a queue for each worker: a connection stays on one CPU",
        how: How::Change(change),
    })
}

/// Each queue's interrupt to the CPU of one worker, in turn.
fn irqs(nic: &Nic, workers: &[usize]) -> Vec<Step> {
    let mut seen = Vec::new();
    let mut steps = Vec::new();
    for queue in &nic.queues {
        let Some(irq) = nic.irq(queue).filter(|irq| !seen.contains(&irq.number)) else { continue };
        seen.push(irq.number);
        let wanted: CpuSet = [worker_of(queue, workers)].into_iter().collect();
        if irq.affinity == wanted {
            continue;
        }
        steps.push(Step {
            what: format!("interrupt {} ({})", irq.number, irq.name),
            now: format!("CPU {}", irq.affinity),
            wanted: format!("CPU {wanted}"),
            why: "packets are handled on the CPU of the worker that serves them",
            how: How::Write { file: affinity_file(irq.number), text: format!("{wanted}\n") },
        });
    }
    steps
}

/// RPS, which is one CPU too many where each worker has a queue or XDP deals connections out, and the only way to reach
/// all workers where there are fewer queues and the CPU decides.
fn receive_queues(nic: &Nic, workers: &[usize], steered: Steered) -> Vec<Step> {
    let spread = steered == Steered::ByCpu && queues_to_come(nic, workers) < workers.len();
    let (wanted, why) = match spread {
        true => (
            workers.iter().copied().collect(),
            "fewer queues than workers: without RPS some workers would have nothing to do",
        ),
        false => (CpuSet::default(), "RPS moves packets away from the CPU that steering chose"),
    };
    let queues = nic.queues(Direction::Rx);
    queues.filter_map(|queue| queue_step(nic, queue, "RPS", wanted.clone(), why)).collect()
}

/// XPS: each worker on a queue of its own, as far as there are queues.
fn transmit_queues(nic: &Nic, workers: &[usize]) -> Vec<Step> {
    let count = nic.queues(Direction::Tx).count();
    let why = "each worker sends on a queue of its own, without a lock that others hold";
    let step = |queue| queue_step(nic, queue, "XPS", of_transmit_queue(queue, count, workers), why);
    nic.queues(Direction::Tx).filter_map(step).collect()
}

fn queue_step(
    nic: &Nic,
    queue: &Queue,
    name: &str,
    wanted: CpuSet,
    why: &'static str,
) -> Option<Step> {
    let now = queue.cpus.as_ref().filter(|now| **now != wanted)?;
    Some(Step {
        what: format!("{name} of queue {}-{}", queue.direction.name(), queue.number),
        now: format!("CPU {now}"),
        wanted: format!("CPU {wanted}"),
        why,
        how: How::Write {
            file: queue_file(&nic.name, queue),
            text: format!("{}\n", wanted.mask()),
        },
    })
}

/// Receive queues once the plan is carried out.
fn queues_to_come(nic: &Nic, workers: &[usize]) -> usize {
    let rx_max = nic.settings.channels.map(|channels| channels.rx_max);
    let max = [nic.combined_max_with_xdp(), rx_max].into_iter().flatten().find(|max| *max > 0);
    max.map_or_else(|| nic.queues(Direction::Rx).count(), |max| workers.len().min(max as usize))
}

/// The workers that send on this queue.
fn of_transmit_queue(queue: &Queue, queues: usize, workers: &[usize]) -> CpuSet {
    let is_its = |place: &usize| place % queues.max(1) == queue.number as usize;
    workers.iter().enumerate().filter(|(place, _)| is_its(place)).map(|(_, cpu)| *cpu).collect()
}

fn rings(nic: &Nic) -> Option<Step> {
    let rings = nic.settings.rings?;
    let rx = rings.rx.max(RX_RING.min(rings.rx_max));
    let tx = rings.tx.max(TX_RING.min(rings.tx_max));
    ((rx, tx) != (rings.rx, rings.tx)).then(|| Step {
        what: format!("rings of {}", nic.name),
        now: format!("rx {}, tx {}", rings.rx, rings.tx),
        wanted: format!("rx {rx}, tx {tx}"),
        why: "room for a burst while a worker is busy; the NIC drops what does not fit",
        how: How::Change(Change::Rings { rx, tx }),
    })
}

fn coalescing(nic: &Nic) -> Option<Step> {
    // It tells the same whether its device can or not, and most cannot.
    let coalescing =
        nic.settings.coalescing.filter(|_| nic.driver.as_deref() != Some("virtio_net"))?;
    let (now, wanted, change) = match (coalescing.rx_adaptive, coalescing.rx_microseconds) {
        (Some(false), _) => (
            "fixed".to_owned(),
            "adaptive".to_owned(),
            Change::Coalescing { rx_adaptive: Some(true), rx_microseconds: None },
        ),
        (None, Some(0)) => (
            "none".to_owned(),
            format!("{RX_MICROSECONDS} us"),
            Change::Coalescing { rx_adaptive: None, rx_microseconds: Some(RX_MICROSECONDS) },
        ),
        _ => return None,
    };
    Some(Step {
        what: format!("interrupt coalescing of {}", nic.name),
        now,
        wanted,
        why: "one interrupt for several packets under load",
        how: How::Change(change),
    })
}

/// What merges packets before XDP sees them. No crate switches features, so the command is told.
fn offloads(nic: &Nic) -> Vec<Step> {
    let is_on = |name: &&str| nic.offload(name) == Some(true);
    let step = |name: &str| Step {
        what: format!("{name} of {}", nic.name),
        now: "on".to_owned(),
        wanted: "off".to_owned(),
        why: "some drivers refuse native XDP while the hardware merges packets",
        how: How::Operator(format!("ethtool -K {} {name} off", nic.name)),
    };
    MERGING_OFFLOADS.iter().copied().filter(is_on).map(step).collect()
}

fn sysctls(host: &Host) -> Vec<Step> {
    let step = |sysctl: &Sysctl| {
        let wanted = SYSCTLS.iter().find(|wanted| wanted.name == sysctl.name)?;
        let now = sysctl.value.filter(|now| *now < wanted.least)?;
        Some(Step {
            what: wanted.name.to_owned(),
            now: now.to_string(),
            wanted: wanted.least.to_string(),
            why: wanted.why,
            how: How::Write { file: sysctl_file(wanted.name), text: format!("{}\n", wanted.least) },
        })
    };
    host.sysctls.iter().filter_map(step).collect()
}

fn irqbalance(nic: &Nic, workers: &[usize], host: &Host) -> Option<Step> {
    let moves = host.irqbalance && nic.queues.iter().any(|queue| queue.irq.is_some());
    let cpus: CpuSet = workers.iter().copied().collect();
    moves.then(|| Step {
        what: "irqbalance".to_owned(),
        now: "running".to_owned(),
        wanted: "stopped, or kept off the workers' CPUs".to_owned(),
        why: "it moves interrupts away again",
        how: How::Operator(format!(
            "systemctl disable --now irqbalance, or IRQBALANCE_BANNED_CPULIST={cpus} in /etc/default/irqbalance"
        )),
    })
}

/// The CPU of the worker that a queue belongs to: in turn, where there are more queues than workers.
fn worker_of(queue: &Queue, workers: &[usize]) -> usize {
    workers[queue.number as usize % workers.len()]
}

pub(super) fn affinity_file(irq: u32) -> String {
    format!("proc/irq/{irq}/smp_affinity_list")
}

pub(super) fn queue_file(interface: &str, queue: &Queue) -> String {
    let file = match queue.direction {
        Direction::Rx => "rps_cpus",
        Direction::Tx => "xps_cpus",
    };
    let (direction, number) = (queue.direction.name(), queue.number);
    format!("sys/class/net/{interface}/queues/{direction}-{number}/{file}")
}

fn sysctl_file(name: &str) -> String {
    format!("proc/sys/{}", name.replace('.', "/"))
}

pub(super) fn sysctl_files() -> impl Iterator<Item = String> {
    SYSCTLS.iter().map(|wanted| sysctl_file(wanted.name))
}

struct WantedSysctl {
    name: &'static str,
    least: u64,
    why: &'static str,
}

const SYSCTLS: [WantedSysctl; 3] = [
    WantedSysctl {
        name: "net.core.somaxconn",
        // The listeners' backlog.
        least: 4096,
        why: "connections that wait for a worker; above it the kernel drops them",
    },
    WantedSysctl {
        name: "net.ipv4.tcp_max_syn_backlog",
        least: 8192,
        why: "handshakes under way; above it the kernel drops them or sends SYN cookies",
    },
    WantedSysctl {
        name: "net.ipv4.tcp_migrate_req",
        least: 1,
        why: "connections that wait in a closing listener move to another one",
    },
];

/// Descriptors in a receive ring: about a millisecond of smallest packets at 1 Gbit/s.
const RX_RING: u32 = 2048;
const TX_RING: u32 = 1024;
/// Where the driver does not adapt by itself: too short to be noticed in a dialogue of round trips.
const RX_MICROSECONDS: u32 = 20;

/// By the kernel's names for them.
pub const MERGING_OFFLOADS: [&str; 2] = ["rx-lro", "rx-gro-hw"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Coalescing, Irq, Offload, Rings, Settings};
    use super::*;

    const FOR: Workers<'_> = Workers { cpus: &[2, 3], steered: Steered::Cpumap };

    fn queue(direction: Direction, number: u32, cpus: &[usize], irq: u32) -> Queue {
        let cpus = Some(cpus.iter().copied().collect());
        Queue { direction, number, cpus, irq: Some(irq), packets: None, drops: None }
    }

    fn irq(number: u32, cpus: &[usize]) -> Irq {
        let affinity = cpus.iter().copied().collect();
        Irq { number, name: format!("eth0-TxRx-{number}"), affinity, effective: None }
    }

    /// Two queues for workers on the CPUs 2 and 3, all as wanted.
    fn tuned() -> (Nic, Host) {
        let nic = Nic {
            name: "eth0".to_owned(),
            queues: vec![
                queue(Direction::Rx, 0, &[], 40),
                queue(Direction::Rx, 1, &[], 41),
                queue(Direction::Tx, 0, &[2], 40),
                queue(Direction::Tx, 1, &[3], 41),
            ],
            irqs: vec![irq(40, &[2]), irq(41, &[3])],
            settings: Settings {
                channels: Some(Channels { combined: 2, combined_max: 8, ..Channels::default() }),
                rings: Some(Rings { rx: 2048, rx_max: 4096, tx: 1024, tx_max: 4096 }),
                coalescing: Some(Coalescing { rx_adaptive: Some(true), ..Coalescing::default() }),
                offloads: vec![Offload { name: "rx-lro".to_owned(), on: false }],
                xdp_features: None,
            },
            ..Nic::default()
        };
        let sysctl =
            |wanted: &WantedSysctl| Sysctl { name: wanted.name, value: Some(wanted.least) };
        (nic, Host { sysctls: SYSCTLS.iter().map(sysctl).collect(), irqbalance: false })
    }

    fn whats(nic: &Nic, host: &Host) -> Vec<String> {
        plan(nic, FOR, host).into_iter().map(|step| step.what).collect()
    }

    #[test]
    fn nothing_is_to_do_when_all_is_as_wanted() {
        let (nic, host) = tuned();
        assert_eq!(plan(&nic, FOR, &host), []);
    }

    #[test]
    fn each_thing_that_differs_is_one_step() {
        type Spoil = fn(&mut Nic, &mut Host);
        let table: [(Spoil, &str); 11] = [
            (|nic, _| nic.settings.channels.as_mut().unwrap().combined = 8, "queues of eth0"),
            (|nic, _| nic.irqs[1] = irq(41, &[0, 1]), "interrupt 41 (eth0-TxRx-41)"),
            (|nic, _| nic.queues[1] = queue(Direction::Rx, 1, &[0], 41), "RPS of queue rx-1"),
            (|nic, _| nic.queues[2] = queue(Direction::Tx, 0, &[0, 1], 40), "XPS of queue tx-0"),
            (|nic, _| nic.settings.rings.as_mut().unwrap().rx = 256, "rings of eth0"),
            (
                |nic, _| nic.settings.coalescing.as_mut().unwrap().rx_adaptive = Some(false),
                "interrupt coalescing of eth0",
            ),
            (|nic, _| nic.settings.offloads[0].on = true, "rx-lro of eth0"),
            (|_, host| host.sysctls[0].value = Some(128), "net.core.somaxconn"),
            (|_, host| host.sysctls[1].value = Some(128), "net.ipv4.tcp_max_syn_backlog"),
            (|_, host| host.sysctls[2].value = Some(0), "net.ipv4.tcp_migrate_req"),
            (|_, host| host.irqbalance = true, "irqbalance"),
        ];
        for (spoil, what) in table {
            let (mut nic, mut host) = tuned();
            spoil(&mut nic, &mut host);
            assert_eq!(whats(&nic, &host), [what]);
        }
    }

    #[test]
    fn more_than_wanted_is_left_alone() {
        let (mut nic, mut host) = tuned();
        nic.settings.rings = Some(Rings { rx: 4096, rx_max: 4096, tx: 4096, tx_max: 4096 });
        nic.settings.coalescing =
            Some(Coalescing { rx_microseconds: Some(8), ..Coalescing::default() });
        host.sysctls[0].value = Some(65_535);
        assert_eq!(whats(&nic, &host), [""; 0]);
    }

    #[test]
    fn what_a_driver_does_not_have_is_not_asked_for() {
        let (mut nic, mut host) = tuned();
        nic.settings = Settings {
            channels: Some(Channels { combined: 1, combined_max: 1, ..Channels::default() }),
            rings: Some(Rings { rx: 64, rx_max: 64, tx: 64, tx_max: 64 }),
            ..Settings::default()
        };
        host.sysctls[2].value = None;
        nic.queues.iter_mut().for_each(|queue| queue.cpus = None);
        assert_eq!(whats(&nic, &host), [""; 0]);
    }

    #[test]
    fn where_the_driver_does_not_adapt_a_fixed_time_is_asked_for() {
        let (mut nic, host) = tuned();
        nic.settings.coalescing =
            Some(Coalescing { rx_microseconds: Some(0), ..Coalescing::default() });
        let change = Change::Coalescing { rx_adaptive: None, rx_microseconds: Some(20) };
        assert_eq!(plan(&nic, FOR, &host)[0].how, How::Change(change));
        nic.driver = Some("virtio_net".to_owned());
        assert_eq!(plan(&nic, FOR, &host), []);
    }

    #[test]
    fn a_driver_without_combined_queues_is_asked_for_both_kinds() {
        let (mut nic, host) = tuned();
        let channels = Channels { rx: 4, rx_max: 4, tx: 1, tx_max: 4, ..Channels::default() };
        nic.settings.channels = Some(channels);
        let steps = plan(&nic, FOR, &host);
        let change = Change::Channels { rx: Some(2), tx: Some(2), combined: None };
        assert_eq!(steps[0].how, How::Change(change));
    }

    #[test]
    fn a_driver_that_halves_its_queues_for_xdp_is_not_asked_for_more() {
        let (mut nic, host) = tuned();
        let channels = Channels { combined: 4, combined_max: 4, ..Channels::default() };
        nic.settings.channels = Some(channels);
        nic.driver = Some("ena".to_owned());
        let cpus = [2, 3, 4, 5];
        let step = &plan(&nic, Workers { cpus: &cpus, ..FOR }, &host)[0];
        assert_eq!((step.now.as_str(), step.wanted.as_str()), ("4", "2"));
        nic.driver = Some("mlx5_core".to_owned());
        assert!(
            plan(&nic, Workers { cpus: &cpus, ..FOR }, &host)
                .iter()
                .all(|step| !step.what.starts_with("queues"))
        );
    }

    #[test]
    fn rps_spreads_where_the_cpu_decides_and_queues_are_too_few() {
        let (mut nic, host) = tuned();
        let rps = |nic: &Nic, steered| {
            let steps = plan(nic, Workers { steered, ..FOR }, &host);
            let rps = steps.into_iter().filter(|step| step.what.starts_with("RPS"));
            rps.map(|step| step.wanted).collect::<Vec<_>>()
        };
        assert_eq!(rps(&nic, Steered::ByCpu), [""; 0]);
        nic.settings.channels =
            Some(Channels { combined: 1, combined_max: 1, ..Channels::default() });
        nic.queues.retain(|queue| queue.number == 0);
        assert_eq!(rps(&nic, Steered::ByCpu), ["CPU 2-3"]);
        assert_eq!(rps(&nic, Steered::Cpumap), [""; 0]);
        // The queue that the plan opens counts.
        nic.settings.channels =
            Some(Channels { combined: 1, combined_max: 8, ..Channels::default() });
        assert_eq!(rps(&nic, Steered::ByCpu), [""; 0]);
    }

    #[test]
    fn an_interrupt_of_both_directions_is_moved_once() {
        let (mut nic, host) = tuned();
        nic.irqs[0] = irq(40, &[0]);
        assert_eq!(whats(&nic, &host).len(), 1);
    }

    proptest! {
        #[test]
        fn every_worker_sends_on_exactly_one_queue(queues in 1_usize..9, workers in 1_usize..9) {
            let cpus: Vec<usize> = (0..workers).collect();
            let transmit = |number| queue(Direction::Tx, number, &[], 0);
            let sets: Vec<CpuSet> = (0..queues as u32)
                .map(|number| of_transmit_queue(&transmit(number), queues, &cpus))
                .collect();
            for cpu in cpus {
                prop_assert_eq!(sets.iter().filter(|set| set.contains(cpu)).count(), 1);
            }
        }
    }
}
