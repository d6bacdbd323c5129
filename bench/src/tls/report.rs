//! Figures of a comparison, as text and as JSON.

use std::iter;

use serde::Serialize;

use crate::server;
use crate::statistics::Spread;

/// One server in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// Of all processes of the server.
    pub(crate) cpu_us: f64,
    /// Of each thread of the first process.
    pub(crate) threads: Vec<(String, f64)>,
}

/// One server in all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    title: String,
    unit: &'static str,
    starttls: Pair,
    implicit: Pair,
}

/// Ours and another, through the same door.
#[derive(Debug, Serialize)]
struct Pair {
    ours: Series,
    theirs: Series,
    /// Ours over theirs, within each round.
    cpu_ratio: Spread,
    /// Of our workers alone, which do what a server does that keeps nothing.
    workers_cpu_ratio: Spread,
    rate_ratio: Spread,
}

impl Report {
    /// `series` are two pairs, ours first in each.
    pub(crate) fn new(title: String, unit: &'static str, series: [Series; 4]) -> Self {
        let [starttls, postfix, implicit, s_server] = series;
        Self {
            title,
            unit,
            starttls: Pair::new(starttls, postfix),
            implicit: Pair::new(implicit, s_server),
        }
    }

    #[expect(clippy::print_stdout, reason = "the figures are the output")]
    pub(crate) fn print(&self) {
        let rounds = self.starttls.ours.samples.len();
        println!("{}, {rounds} rounds: median (min to max)", self.title);
        for (door, pair) in [("STARTTLS", &self.starttls), ("implicit", &self.implicit)] {
            for series in [&pair.ours, &pair.theirs] {
                let cpu = Spread::of(series.samples.iter().map(|sample| sample.cpu_us));
                let rate = Spread::of(series.samples.iter().map(|sample| sample.per_second));
                let (name, unit) = (series.name, self.unit);
                println!("  {door} {name:8} CPU {cpu:.0} us/{unit}   {rate:.0} {unit}/s");
            }
            if let Some(sample) = pair.ours.samples.last() {
                let threads = server::busy(&sample.threads);
                println!("  threads of {} in the last round: {threads}", pair.ours.name);
            }
            let (ours, theirs) = (pair.ours.name, pair.theirs.name);
            let (cpu, workers) = (pair.cpu_ratio, pair.workers_cpu_ratio);
            println!(
                "  {ours} / {theirs}: CPU {cpu:.2}, of the workers alone {workers:.2}; rate {:.2}",
                pair.rate_ratio
            );
        }
    }
}

impl Pair {
    fn new(ours: Series, theirs: Series) -> Self {
        let ratio = |of: fn(&Sample) -> f64| {
            Spread::of(iter::zip(&ours.samples, &theirs.samples).map(|(o, t)| of(o) / of(t)))
        };
        let (cpu_ratio, rate_ratio) = (ratio(|s| s.cpu_us), ratio(|s| s.per_second));
        let workers_cpu_ratio = Spread::of(
            iter::zip(&ours.samples, &theirs.samples).map(|(o, t)| o.workers_cpu_us() / t.cpu_us),
        );
        Self { ours, theirs, cpu_ratio, workers_cpu_ratio, rate_ratio }
    }
}

impl Sample {
    fn workers_cpu_us(&self) -> f64 {
        let workers = self.threads.iter().filter(|(name, _)| name.starts_with("worker-"));
        workers.map(|(_, micros)| micros).sum()
    }
}
