//! New connections follow the load of the workers: measured here, judged by [`Balance`], put in force by the data plane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::worker::Crew;
use crate::worker::balance::{Balance, Load, Move};
use crate::xdp::{DataPlane, Tier};

/// Between two looks at the load, as [`Balance`] expects.
pub(super) const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Who gets how many of the new connections.
pub(super) struct Balancing {
    data_plane: Arc<DataPlane>,
    metrics: Arc<Metrics>,
    balance: Balance,
    last: Option<Measurement>,
}

/// CPU time of each worker's thread, by CPU.
struct Measurement {
    at: Instant,
    spent: Vec<(usize, Duration)>,
}

impl Balancing {
    pub(super) fn new(data_plane: Arc<DataPlane>, metrics: Arc<Metrics>) -> Self {
        let balancing = Self { data_plane, metrics, balance: Balance::default(), last: None };
        balancing.show_shares();
        balancing
    }

    /// Whether there is anything to move: in other tiers there is not.
    pub(super) fn is_possible(&self) -> bool {
        self.data_plane.tier() == Tier::Cpumap
    }

    /// A worker has died; those on `cpus` live.
    pub(super) fn redirect_to(&self, cpus: &[usize]) {
        self.data_plane.redirect_to(cpus);
        self.show_shares();
    }

    /// Compares what the workers have taken of their CPUs with the last look, and moves buckets when it is time.
    pub(super) fn look(&mut self, crew: &Crew, now: Instant) {
        let Some(spent) = crew.cpu_times() else { return };
        let Some(last) = self.last.replace(Measurement { at: now, spent: spent.clone() }) else {
            return;
        };
        let loads = self.loads(&last, now, &spent);
        if let Some(Move { from, to, buckets }) = self.balance.look(&loads) {
            let buckets = self.data_plane.give(from, to, buckets);
            self.show_shares();
            let loads =
                loads.iter().map(|load| format!("{}: {:.0} %", load.cpu, load.busy * 100.0));
            let loads = loads.collect::<Vec<_>>().join(", ");
            tracing::info!(from, to, buckets, %loads, "new connections move to another CPU");
        }
    }

    fn loads(&self, last: &Measurement, now: Instant, spent: &[(usize, Duration)]) -> Vec<Load> {
        let cpus: Vec<usize> = spent.iter().map(|(cpu, _)| *cpu).collect();
        let shares = self.data_plane.shares(&cpus).unwrap_or_default();
        let seconds = now.saturating_duration_since(last.at).as_secs_f64();
        let load = |(&(cpu, spent), buckets): (&(usize, Duration), usize)| {
            let (_, before) = last.spent.iter().find(|(known, _)| *known == cpu)?;
            let busy = spent.saturating_sub(*before).as_secs_f64() / seconds;
            Some(Load { cpu, busy, buckets })
        };
        spent.iter().zip(shares).filter_map(load).collect()
    }

    fn show_shares(&self) {
        let cpus: Vec<usize> = self.metrics.workers.iter().map(|worker| worker.cpu).collect();
        let shares = self.data_plane.shares(&cpus).unwrap_or_default();
        for (worker, share) in self.metrics.workers.iter().zip(shares) {
            worker.buckets.set(share as u64);
        }
    }
}
