//! The worker behind a queue.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::{CpuSet, Direction, Nic, Queue};

/// How connections get from a queue to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steered {
    /// XDP deals them out, whatever queue they came to.
    Cpumap,
    /// The worker on the CPU that handles the packets has them.
    ByCpu,
    Not,
}

/// Who serves what comes in on a queue, or who sends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Behind {
    Any(&'static str),
    /// The numbers of workers, in the order of their CPUs.
    Workers(Vec<usize>),
    /// The queue's CPUs have no worker.
    NoWorker,
    /// Where the queue is handled is not known.
    Unknown,
}

/// The worker behind `queue`. `workers` are the CPUs of the workers, by number.
pub fn behind(nic: &Nic, queue: &Queue, steered: Steered, workers: &[usize]) -> Behind {
    match (queue.direction, steered) {
        (Direction::Rx, Steered::Cpumap) => return Behind::Any("cpumap"),
        (Direction::Rx, Steered::Not) => return Behind::Any("not steered"),
        (Direction::Rx, Steered::ByCpu) | (Direction::Tx, _) => {}
    }
    let Some(cpus) = cpus(nic, queue) else { return Behind::Unknown };
    let numbered = workers.iter().enumerate();
    let there = numbered.filter(|(_, cpu)| cpus.contains(**cpu)).map(|(number, _)| number);
    let there: Vec<usize> = there.collect();
    if there.is_empty() { Behind::NoWorker } else { Behind::Workers(there) }
}

/// Whether the receive queues by themselves spread connections over all workers: each queue is handled by one of them, and each
/// of them has one. False where that is not known.
pub fn each_worker_has_a_queue(nic: &Nic, workers: &[usize]) -> bool {
    let mut served = vec![false; workers.len()];
    for queue in nic.queues(Direction::Rx) {
        match behind(nic, queue, Steered::ByCpu, workers) {
            Behind::Workers(numbers) => match numbers[..] {
                [number] => served[number] = true,
                _ => return false,
            },
            _ => return false,
        }
    }
    served.into_iter().all(|served| served)
}

/// Where the packets of a queue are handled, or come from.
fn cpus(nic: &Nic, queue: &Queue) -> Option<CpuSet> {
    let chosen = queue.cpus.clone().filter(|cpus| !cpus.is_empty());
    match queue.direction {
        // Without RPS it is the CPU of the interrupt.
        Direction::Rx => chosen.or_else(|| nic.irq(queue).map(|irq| irq.runs_on().clone())),
        Direction::Tx => chosen,
    }
}

impl Display for Behind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(why) => write!(f, "any ({why})"),
            Self::Workers(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
                f.write_str(&numbers.join(","))
            }
            Self::NoWorker => f.write_str("none"),
            Self::Unknown => f.write_str("?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Irq;
    use super::*;

    fn nic(rps: Option<CpuSet>) -> Nic {
        let queue = |direction, cpus| Queue {
            direction,
            number: 0,
            cpus,
            irq: Some(40),
            packets: None,
            drops: None,
        };
        Nic {
            queues: vec![
                queue(Direction::Rx, rps),
                queue(Direction::Tx, Some([4, 6].into_iter().collect())),
            ],
            irqs: vec![Irq {
                number: 40,
                name: String::new(),
                affinity: (0..8).collect(),
                effective: Some([6].into_iter().collect()),
            }],
            ..Nic::default()
        }
    }

    fn of(nic: &Nic, queue: usize, steered: Steered) -> Behind {
        behind(nic, &nic.queues[queue], steered, &[4, 6])
    }

    #[test]
    fn the_cpu_of_the_interrupt_has_the_worker() {
        let nic = nic(Some(CpuSet::default()));
        assert_eq!(of(&nic, 0, Steered::ByCpu), Behind::Workers(vec![1]));
        assert_eq!(of(&nic, 1, Steered::ByCpu), Behind::Workers(vec![0, 1]));
    }

    #[test]
    fn queues_fit_where_each_worker_has_its_own() {
        let one = |irq| {
            let mut nic = nic(None);
            let Some(queue) = nic.queues.first_mut() else { unreachable!("it has two") };
            queue.irq = irq;
            nic
        };
        let mut both = one(Some(40));
        let second = Queue { irq: Some(41), ..both.queues[0].clone() };
        both.queues.push(second);
        let on_4 =
            Irq { number: 41, effective: Some([4].into_iter().collect()), ..both.irqs[0].clone() };
        both.irqs.push(on_4);
        assert!(each_worker_has_a_queue(&both, &[4, 6]));
        assert!(!each_worker_has_a_queue(&both, &[4, 6, 7]), "a worker without a queue");
        assert!(!each_worker_has_a_queue(&both, &[6]), "a queue without a worker");
        assert!(!each_worker_has_a_queue(&one(Some(40)), &[4, 6]));
        assert!(!each_worker_has_a_queue(&one(None), &[6]), "nobody knows where it is handled");
        let mut spread = both.clone();
        spread.queues[0].cpus = Some([4, 6].into_iter().collect());
        assert!(!each_worker_has_a_queue(&spread, &[4, 6]), "RPS takes it to more than one");
    }

    #[test]
    fn rps_takes_packets_to_other_workers() {
        let to = |cpu: usize| nic(Some([cpu].into_iter().collect()));
        assert_eq!(of(&to(4), 0, Steered::ByCpu), Behind::Workers(vec![0]));
        assert_eq!(of(&to(5), 0, Steered::ByCpu), Behind::NoWorker);
    }

    #[test]
    fn a_cpumap_makes_any_queue_every_workers() {
        assert_eq!(of(&nic(None), 0, Steered::Cpumap).to_string(), "any (cpumap)");
        assert_eq!(of(&nic(None), 0, Steered::Not).to_string(), "any (not steered)");
    }

    #[test]
    fn a_move_that_waits_for_the_next_interrupt_counts_as_done() {
        let mut nic = nic(None);
        nic.irqs[0].affinity = [4].into_iter().collect();
        assert_eq!(of(&nic, 0, Steered::ByCpu), Behind::Workers(vec![0]));
    }

    #[test]
    fn without_an_interrupt_nothing_is_claimed() {
        let mut nic = nic(None);
        nic.irqs.clear();
        assert_eq!(of(&nic, 0, Steered::ByCpu), Behind::Unknown);
    }
}
