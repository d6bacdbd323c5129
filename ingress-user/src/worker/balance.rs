//! Which worker gives new connections away, and how many, from the load of each: no clock, no kernel.
//!
//! Connections are dealt out to workers in buckets, evenly, which is even load as long as there are many small ones. A few senders
//! that stay for long may load one worker alone; it then gets fewer of the new ones. What is open stays where it is.

use std::collections::BTreeMap;

/// A worker has too much above so many times the mean. Between this and the mean is what the hash does by chance.
const OVERLOAD: f64 = 1.25;

/// And only above this share of its CPU: below, new connections are served as fast there as anywhere.
const BUSY_MIN: f64 = 0.25;

/// So many looks in a row, that is seconds: a large message or a burst of handshakes is over by then.
const LOOKS_OVERLOADED: u32 = 5;

/// Looks between two moves: only new connections follow a move, so its effect takes some seconds to show.
const LOOKS_OF_REST: u32 = 10;

/// A worker gives an eighth of its buckets at a time. Should load follow buckets at once, one that is just overloaded is so no
/// longer, and who takes them is not so either.
const PART_GIVEN: usize = 8;

/// A worker keeps a quarter of an even share, whatever its load: it is to notice when its big senders have gone.
const PART_KEPT: usize = 4;

/// What a worker carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    pub cpu: usize,
    /// Share of the CPU that its thread took since the last look, 0 to 1.
    pub busy: f64,
    /// Buckets of which it gets the new connections.
    pub buckets: usize,
}

/// So many buckets of one CPU become another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub from: usize,
    pub to: usize,
    pub buckets: usize,
}

/// Remembers who has had too much for how long. One look a second is expected.
#[derive(Debug, Default)]
pub struct Balance {
    /// Looks in a row, by CPU.
    overloaded: BTreeMap<usize, u32>,
    rest: u32,
}

impl Balance {
    /// What to move now, given the load of every worker that lives.
    pub fn look(&mut self, loads: &[Load]) -> Option<Move> {
        self.note(loads);
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let even = loads.iter().map(|load| load.buckets).sum::<usize>() / loads.len().max(1);
        let gift = |load: &Load| {
            let spare = load.buckets.saturating_sub((even / PART_KEPT).max(1));
            (load.buckets / PART_GIVEN).max(1).min(spare)
        };
        let by_load = |one: &&Load, other: &&Load| one.busy.total_cmp(&other.busy);
        let giver = loads
            .iter()
            .filter(|load| self.overloaded.get(&load.cpu).is_some_and(|n| *n >= LOOKS_OVERLOADED))
            .filter(|load| gift(load) > 0)
            .max_by(by_load)?;
        // Below the mean, and so never the giver.
        let taker = loads.iter().min_by(by_load)?;
        self.rest = LOOKS_OF_REST;
        Some(Move { from: giver.cpu, to: taker.cpu, buckets: gift(giver) })
    }

    fn note(&mut self, loads: &[Load]) {
        let mean = loads.iter().map(|load| load.busy).sum::<f64>() / loads.len().max(1) as f64;
        let is_overloaded = |load: &&Load| load.busy >= BUSY_MIN && load.busy > OVERLOAD * mean;
        let longer = |load: &Load| (load.cpu, self.overloaded.get(&load.cpu).unwrap_or(&0) + 1);
        self.overloaded = loads.iter().filter(is_overloaded).map(longer).collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const BUCKETS: usize = 256;

    /// Workers with an even share, and loads that a test changes.
    #[derive(Debug)]
    struct Workers {
        balance: Balance,
        loads: Vec<Load>,
    }

    impl Workers {
        fn new(busy: &[f64]) -> Self {
            let share = |cpu| (0..BUCKETS).filter(|bucket| bucket % busy.len() == cpu).count();
            let load = |(cpu, &busy)| Load { cpu, busy, buckets: share(cpu) };
            Self { balance: Balance::default(), loads: busy.iter().enumerate().map(load).collect() }
        }

        /// A second passes, and what is to be moved is.
        fn look(&mut self) -> Option<Move> {
            let moved = self.balance.look(&self.loads)?;
            assert_ne!(moved.from, moved.to);
            assert!(moved.buckets > 0);
            self.loads[moved.from].buckets -= moved.buckets;
            self.loads[moved.to].buckets += moved.buckets;
            Some(moved)
        }

        fn looks(&mut self, count: usize) -> Vec<Option<Move>> {
            (0..count).map(|_| self.look()).collect()
        }

        fn is_overloaded(&self, load: &Load) -> bool {
            let mean = self.loads.iter().map(|l| l.busy).sum::<f64>() / self.loads.len() as f64;
            load.busy > OVERLOAD * mean && load.busy >= BUSY_MIN
        }

        /// Load follows buckets at once, as it does when connections are short.
        fn spread(&mut self, total: f64) {
            for load in &mut self.loads {
                load.busy = total * load.buckets as f64 / BUCKETS as f64;
            }
        }
    }

    #[test]
    fn who_has_too_much_for_five_seconds_gives_an_eighth_and_then_rests() {
        let mut workers = Workers::new(&[0.9, 0.1]);
        assert!(workers.looks(4).iter().all(Option::is_none));
        assert_eq!(workers.look(), Some(Move { from: 0, to: 1, buckets: 16 }));
        assert!(workers.looks(10).iter().all(Option::is_none));
        assert_eq!(workers.look(), Some(Move { from: 0, to: 1, buckets: 14 }));
    }

    #[test]
    fn a_pause_begins_the_count_anew() {
        let mut workers = Workers::new(&[0.9, 0.1]);
        for _ in 0..10 {
            workers.loads[0].busy = 0.9;
            assert!(workers.looks(4).iter().all(Option::is_none));
            workers.loads[0].busy = 0.1;
            assert_eq!(workers.look(), None);
        }
    }

    #[test]
    fn who_is_hardly_busy_gives_nothing() {
        let mut workers = Workers::new(&[0.24, 0.0, 0.0]);
        assert!(workers.looks(100).iter().all(Option::is_none));
    }

    #[test]
    fn the_least_loaded_takes_them() {
        let mut workers = Workers::new(&[0.3, 0.9, 0.2, 0.4]);
        let moved = workers.looks(5)[4].unwrap();
        assert_eq!((moved.from, moved.to), (1, 2));
    }

    #[test]
    fn when_the_big_senders_have_gone_it_gets_its_share_back_from_who_is_overloaded_now() {
        let mut workers = Workers::new(&[0.9, 0.1]);
        workers.looks(200);
        assert_eq!(workers.loads[0].buckets, 32);
        for _ in 0..200 {
            workers.spread(1.0);
            workers.look();
        }
        assert!(!workers.loads.iter().any(|load| workers.is_overloaded(load)), "{workers:?}");
    }

    #[test]
    fn a_worker_that_died_is_forgotten() {
        let mut workers = Workers::new(&[0.9, 0.1, 0.1]);
        workers.looks(4);
        let dead = workers.loads.remove(0);
        assert_eq!(workers.look(), None);
        workers.loads.insert(0, dead);
        assert!(workers.looks(4).iter().all(Option::is_none));
        assert!(workers.look().is_some());
    }

    #[test]
    fn nobody_left_moves_nothing() {
        let mut balance = Balance::default();
        let alone = [Load { cpu: 0, busy: 1.0, buckets: BUCKETS }];
        for _ in 0..100 {
            assert_eq!(balance.look(&[]), None);
            assert_eq!(balance.look(&alone), None);
        }
    }

    proptest! {
        /// Whatever the loads are: no bucket is lost, no share vanishes, and moves are far between.
        #[test]
        fn shares_never_vanish(
            seconds in (1..20_usize).prop_flat_map(|count| vec(vec(0.0..=1.0, count), 1..300)),
        ) {
            let mut workers = Workers::new(&seconds[0]);
            let kept = BUCKETS / seconds[0].len() / PART_KEPT;
            let mut since = LOOKS_OF_REST;
            for busy in &seconds {
                for (load, busy) in workers.loads.iter_mut().zip(busy) {
                    load.busy = *busy;
                }
                let before = workers.loads.clone();
                let moved = workers.look();
                prop_assert_eq!(workers.loads.iter().map(|load| load.buckets).sum::<usize>(), BUCKETS);
                prop_assert!(workers.loads.iter().all(|load| load.buckets >= kept.max(1)));
                if let Some(Move { from, buckets, .. }) = moved {
                    prop_assert!(since >= LOOKS_OF_REST);
                    prop_assert!(workers.is_overloaded(&before[from]));
                    prop_assert!(buckets <= (before[from].buckets / PART_GIVEN).max(1));
                    since = 0;
                } else {
                    since += 1;
                }
            }
        }

        #[test]
        fn equal_load_moves_nothing(busy in 0.0..=1.0, count in 1..64_usize) {
            let mut workers = Workers::new(&vec![busy; count]);
            prop_assert!(workers.looks(100).iter().all(Option::is_none));
        }

        /// Load that stays whatever is moved: the worker gives until it has its least, and then nothing moves any more.
        #[test]
        fn a_lasting_skew_moves_and_ends(busy in 0.5..=1.0, count in 2..16_usize) {
            let mut loads = vec![0.05; count];
            loads[0] = busy;
            let mut workers = Workers::new(&loads);
            let moves: Vec<Move> = workers.looks(1_000).into_iter().flatten().collect();
            prop_assert!(!moves.is_empty());
            prop_assert!(moves.iter().all(|moved| moved.from == 0));
            prop_assert_eq!(workers.loads[0].buckets, BUCKETS / count / PART_KEPT);
            prop_assert!(workers.looks(100).iter().all(Option::is_none));
        }

        /// Load that follows buckets at once, from any share: within minutes nobody is overloaded, and then nothing moves.
        #[test]
        fn load_that_follows_settles(shares in vec(1..100_usize, 2..8)) {
            let mut workers = Workers::new(&vec![0.0; shares.len()]);
            let total: usize = shares.iter().sum();
            for (load, share) in workers.loads.iter_mut().zip(&shares) {
                load.buckets = BUCKETS * share / total;
            }
            let dealt: usize = workers.loads.iter().map(|load| load.buckets).sum();
            workers.loads[0].buckets += BUCKETS - dealt;
            for _ in 0..2_000 {
                workers.spread(shares.len() as f64 / 2.0);
                workers.look();
            }
            for _ in 0..100 {
                workers.spread(shares.len() as f64 / 2.0);
                prop_assert_eq!(workers.look(), None);
            }
            prop_assert!(!workers.loads.iter().any(|load| workers.is_overloaded(load)));
        }
    }
}
