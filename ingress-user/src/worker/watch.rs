//! Live traces: what is said in sessions of chosen clients, line by line, to whoever asked for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};
use ipnet::IpNet;

/// Live traces at once. Each costs a comparison for every command of every client.
pub const WATCHES_MAX: usize = 8;

/// Lines that wait for a reader. Beyond, lines are missed, counted, and the worker goes on.
const LINES_WAITING_MAX: usize = 1024;

/// All live traces. Workers read it without a lock.
#[derive(Clone, Default)]
pub struct WatchList {
    watches: Arc<ArcSwap<Vec<Arc<Watch>>>>,
}

struct Watch {
    network: IpNet,
    lines: Sender<String>,
    missed: AtomicU64,
}

/// The reader's end. Dropping it ends the trace.
pub struct Watcher {
    list: WatchList,
    watch: Arc<Watch>,
    lines: Receiver<String>,
}

/// There are [`WATCHES_MAX`] already.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("there are {WATCHES_MAX} live traces already; end one of them first")]
pub struct TooManyWatches;

impl WatchList {
    /// Begins a trace of all clients in `network`.
    pub fn watch(&self, network: IpNet) -> Result<Watcher, TooManyWatches> {
        let (sender, lines) = crossbeam_channel::bounded(LINES_WAITING_MAX);
        let watch = Arc::new(Watch { network, lines: sender, missed: AtomicU64::new(0) });
        let before = self.watches.rcu(|watches| {
            let mut watches = Vec::clone(watches);
            if watches.len() < WATCHES_MAX {
                watches.push(Arc::clone(&watch));
            }
            watches
        });
        if before.len() >= WATCHES_MAX {
            return Err(TooManyWatches);
        }
        Ok(Watcher { list: self.clone(), watch, lines })
    }

    /// Whether anybody watches `client`.
    pub(super) fn is_watched(&self, client: IpAddr) -> bool {
        self.watches.load().iter().any(|watch| watch.network.contains(&client))
    }

    /// Hands a line to all who watch `client`.
    pub(super) fn tell(&self, client: IpAddr, line: &str) {
        for watch in self.watches.load().iter().filter(|watch| watch.network.contains(&client)) {
            if watch.lines.try_send(line.to_owned()).is_err() {
                watch.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn remove(&self, ended: &Arc<Watch>) {
        self.watches.rcu(|watches| {
            watches.iter().filter(|watch| !Arc::ptr_eq(watch, ended)).cloned().collect::<Vec<_>>()
        });
    }
}

impl Watcher {
    /// Lines that came since the last call, with a note of how many had no room.
    pub fn take(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.lines.try_iter().collect();
        let missed = self.watch.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            lines.push(format!("({missed} lines missed: more was said than could be shown)"));
        }
        lines
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.list.remove(&self.watch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn only_clients_in_the_network_are_told_of() {
        let list = WatchList::default();
        let watcher = list.watch(network("192.0.2.0/24")).unwrap();
        let (inside, outside) = ([192, 0, 2, 7].into(), [198, 51, 100, 7].into());
        assert!(list.is_watched(inside) && !list.is_watched(outside));
        list.tell(inside, "one");
        list.tell(outside, "two");
        assert_eq!(watcher.take(), ["one"]);
        drop(watcher);
        assert!(!list.is_watched(inside));
    }

    #[test]
    fn a_reader_that_does_not_keep_up_misses_lines_and_is_told_how_many() {
        let list = WatchList::default();
        let watcher = list.watch(network("0.0.0.0/0")).unwrap();
        for _ in 0..LINES_WAITING_MAX + 3 {
            list.tell([192, 0, 2, 7].into(), "line");
        }
        let lines = watcher.take();
        assert_eq!(lines.len(), LINES_WAITING_MAX + 1);
        assert!(lines[LINES_WAITING_MAX].starts_with("(3 lines missed"));
        assert!(watcher.take().is_empty());
    }

    #[test]
    fn there_are_so_many_traces_and_no_more() {
        let list = WatchList::default();
        let mut watchers: Vec<_> =
            (0..WATCHES_MAX).map(|_| list.watch(network("::/0")).unwrap()).collect();
        assert!(list.watch(network("::/0")).is_err());
        watchers.pop();
        assert!(list.watch(network("::/0")).is_ok());
    }
}
