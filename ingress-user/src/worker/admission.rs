//! How many connections there may be, in all and of one client. Shared by all workers, without locks.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::smtp::reply::Closing;

/// Rows of the per-client sketch. A client is miscounted only where others share its counter in every row.
const ROWS: usize = 2;

/// Counters of a row: far above the connections a host has, so that sharing is rare. 512 KiB in all.
const COLUMNS: usize = 1 << 16;

/// Counts open connections. Per client it is a count-min sketch: never too low, and bounded whatever the number of clients.
pub struct Admission {
    connections_max: usize,
    connections_per_client_max: u32,
    open: AtomicUsize,
    open_per_client: Box<[AtomicU32]>,
    /// Seeded at start: nobody outside can choose addresses that share counters.
    hasher: [RandomState; ROWS],
}

impl Admission {
    pub fn new(connections_max: usize, connections_per_client_max: usize) -> Self {
        Self {
            connections_max,
            connections_per_client_max: u32::try_from(connections_per_client_max)
                .unwrap_or(u32::MAX),
            open: AtomicUsize::new(0),
            open_per_client: (0..ROWS * COLUMNS).map(|_| AtomicU32::new(0)).collect(),
            hasher: std::array::from_fn(|_| RandomState::new()),
        }
    }

    /// Takes a place for a connection, or says what the client is to be told. A place taken is to be
    /// [given back](Self::leave).
    pub fn enter(&self) -> Result<(), Closing> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.leave();
            return Err(Closing::TooManyConnections);
        }
        Ok(())
    }

    pub fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes a place for a connection, and one of its client's where that is known.
    pub fn enter_as(&self, client: Option<IpAddr>) -> Result<(), Closing> {
        self.enter()?;
        let entered = client.map_or(Ok(()), |client| self.enter_client(client));
        if entered.is_err() {
            self.leave();
        }
        entered
    }

    /// Takes one of the places of `client`, as [`enter`](Self::enter) does one of all. To be
    /// [given back](Self::leave_client).
    pub fn enter_client(&self, client: IpAddr) -> Result<(), Closing> {
        let before = self
            .counters(client)
            .map(|counter| counter.fetch_add(1, Ordering::Relaxed))
            .min()
            .unwrap_or(0);
        if before >= self.connections_per_client_max {
            self.leave_client(client);
            return Err(Closing::TooManyConnectionsOfClient);
        }
        Ok(())
    }

    pub fn leave_client(&self, client: IpAddr) {
        for counter in self.counters(client) {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn counters(&self, client: IpAddr) -> impl Iterator<Item = &AtomicU32> {
        self.hasher
            .iter()
            .zip(self.open_per_client.chunks(COLUMNS))
            .filter_map(move |(hasher, row)| row.get(hasher.hash_one(client) as usize % COLUMNS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_bounded_and_others_are_not() {
        let admission = Admission::new(100, 2);
        let (greedy, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        assert_eq!(admission.enter_client(greedy), Ok(()));
        assert_eq!(admission.enter_client(greedy), Ok(()));
        assert_eq!(admission.enter_client(greedy), Err(Closing::TooManyConnectionsOfClient));
        assert_eq!(admission.enter_client(other), Ok(()));
        admission.leave_client(greedy);
        assert_eq!(admission.enter_client(greedy), Ok(()));
    }

    #[test]
    fn all_clients_together_are_bounded() {
        let admission = Admission::new(3, 100);
        for _ in 0..3 {
            assert_eq!(admission.enter(), Ok(()));
        }
        assert_eq!(admission.enter(), Err(Closing::TooManyConnections));
        admission.leave();
        assert_eq!(admission.enter(), Ok(()));
    }
}
