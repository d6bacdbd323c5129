//! One interface, asked from all sides.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::netlink::{self, Netlink, QueueFacts};
use super::{CpuSet, Direction, Irq, Machine, Nic, NicError, Queue, Totals, interrupts};

impl Nic {
    /// What the kernel tells of `name`: files, then netlink, which knows more on newer kernels.
    ///
    /// # Errors
    /// When there is no such interface, or no netlink.
    pub async fn read(machine: &Machine, name: &str) -> Result<Self, NicError> {
        let nic = Self::read_files(machine, name)?;
        let completed = nic.completed(machine);
        match tokio::time::timeout(ANSWER_TIMEOUT, completed).await {
            Ok(nic) => Ok(nic?),
            Err(elapsed) => Err(NicError::Netlink(elapsed.into())),
        }
    }

    /// With what netlink tells.
    async fn completed(mut self, machine: &Machine) -> io::Result<Self> {
        let nic = &mut self;
        let netlink = Netlink::open()?;
        nic.settings = netlink.settings(&nic.name, nic.index).await;
        let link = netlink::link(nic.index).await?;
        nic.driver = nic.driver.take().or(link.kind);
        nic.xdp = link.xdp;
        let facts = netlink.queues(nic.index).await;
        nic.irqs = read_irqs(machine, &nic.name, &facts);
        assign(&mut nic.queues, &nic.irqs, &facts);
        Ok(self)
    }

    /// What files tell.
    pub(super) fn read_files(machine: &Machine, name: &str) -> Result<Self, NicError> {
        let folder = format!("sys/class/net/{name}");
        let file = |file: &str| format!("{folder}/{file}");
        let index = machine.number(&file("ifindex")).and_then(|index| index.try_into().ok());
        let Some(index) = index.filter(|_| !name.contains('/')) else {
            let there = machine.names("sys/class/net").join(", ");
            return Err(NicError::NoSuchInterface { name: name.to_owned(), there });
        };
        let total = |name: &str| machine.number(&file(&format!("statistics/{name}"))).unwrap_or(0);
        let driver = machine.target(&file("device/driver"));
        let irqs = read_irqs(machine, name, &[]);
        let mut queues = read_queues(machine, &file("queues"));
        assign(&mut queues, &irqs, &[]);
        Ok(Self {
            name: name.to_owned(),
            index,
            driver: driver
                .as_deref()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned()),
            state: machine.text(&file("operstate")).unwrap_or_else(|| "unknown".to_owned()),
            mtu: machine.number(&file("mtu")).unwrap_or(0),
            queues,
            irqs,
            totals: Totals {
                rx_packets: total("rx_packets"),
                rx_dropped: total("rx_dropped") + total("rx_missed_errors"),
                tx_packets: total("tx_packets"),
                tx_dropped: total("tx_dropped"),
            },
            ..Self::default()
        })
    }
}

/// Receive before transmit, by number.
fn read_queues(machine: &Machine, folder: &str) -> Vec<Queue> {
    let queue = |name: String| {
        let (direction, number) = name.split_once('-')?;
        let (direction, cpus) = match direction {
            "rx" => (Direction::Rx, "rps_cpus"),
            "tx" => (Direction::Tx, "xps_cpus"),
            _ => return None,
        };
        let cpus = machine.text(&format!("{folder}/{name}/{cpus}"));
        Some(Queue {
            direction,
            number: number.parse().ok()?,
            cpus: cpus.as_deref().and_then(CpuSet::parse_mask),
            irq: None,
            packets: None,
            drops: None,
        })
    };
    let mut queues: Vec<Queue> = machine.names(folder).into_iter().filter_map(queue).collect();
    queues.sort_by_key(|queue| (queue.direction, queue.number));
    queues
}

/// The interrupts of the device, those that are named for the interface, and those that netlink names.
fn read_irqs(machine: &Machine, interface: &str, facts: &[QueueFacts]) -> Vec<Irq> {
    let of_device = device_irqs(machine, interface);
    let named_by_netlink: Vec<u32> = facts.iter().filter_map(|queue| queue.irq).collect();
    let table = machine.text("proc/interrupts").unwrap_or_default();
    let is_ours = |number: &u32, name: &str| {
        let mut words = name.split(|c: char| !c.is_alphanumeric());
        of_device.contains(number)
            || named_by_netlink.contains(number)
            || words.any(|word| word == interface)
    };
    let cpus = |file: String| machine.text(&file).and_then(|text| CpuSet::parse_list(&text));
    interrupts::parse(&table)
        .into_iter()
        .filter(|(number, name)| is_ours(number, name))
        .map(|(number, name)| Irq {
            number,
            name,
            affinity: cpus(format!("proc/irq/{number}/smp_affinity_list")).unwrap_or_default(),
            effective: cpus(format!("proc/irq/{number}/effective_affinity_list"))
                .filter(|cpus| !cpus.is_empty()),
        })
        .collect()
}

/// Message-signalled interrupts of the device, or of the one that carries it, as for virtio.
fn device_irqs(machine: &Machine, interface: &str) -> Vec<u32> {
    let Some(device) = machine.target(&format!("sys/class/net/{interface}/device")) else {
        return Vec::new();
    };
    let of = |folder: &Path| -> Vec<u32> {
        let names = machine.names(folder.join("msi_irqs"));
        names.iter().filter_map(|name| name.parse().ok()).collect()
    };
    match of(&device) {
        none if none.is_empty() => device.parent().map(of).unwrap_or_default(),
        irqs => irqs,
    }
}

/// Gives queues their interrupts: as netlink says, else by name.
fn assign(queues: &mut [Queue], irqs: &[Irq], facts: &[QueueFacts]) {
    let named: Vec<_> =
        irqs.iter().filter_map(|irq| Some((irq.number, interrupts::queue(&irq.name)?))).collect();
    for queue in queues {
        let fact = facts
            .iter()
            .find(|fact| (fact.direction, fact.number) == (queue.direction, queue.number));
        let by_name = named.iter().find(|(_, (direction, number))| {
            *number == queue.number && direction.is_none_or(|it| it == queue.direction)
        });
        queue.irq = fact.and_then(|fact| fact.irq).or(by_name.map(|(irq, _)| *irq));
        queue.packets = fact.and_then(|fact| fact.packets);
        queue.drops = fact.and_then(|fact| fact.drops);
    }
}

/// The kernel answers at once; only an answer that was lost takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
