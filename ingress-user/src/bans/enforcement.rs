//! Bans in force outside the book: in what workers read, and in the kernel's map.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::book::{Ban, Book, clients_in};
use crate::log_budget::LogBudget;
use crate::xdp::Filter;

/// Clients that are banned, and until when.
pub(super) type Banned = ArcSwap<HashMap<IpNet, u64>>;

pub(super) struct Enforcement {
    banned: Arc<Banned>,
    /// None where there is no filter.
    filter: Option<Arc<Filter>>,
    log: LogBudget,
}

impl Enforcement {
    pub(super) fn new(filter: Option<Arc<Filter>>) -> Self {
        Self { banned: Arc::default(), filter, log: LogBudget::default() }
    }

    /// What workers read.
    pub(super) fn banned(&self) -> &Arc<Banned> {
        &self.banned
    }

    /// Brings all in line with the book.
    pub(super) fn follow(&mut self, book: &Book, now: u64) {
        let mut banned = HashMap::new();
        for ban in book.bans().filter(|ban| ban.until > now) {
            for client in clients_in(ban.network) {
                let until = banned.entry(client).or_insert(ban.until);
                *until = ban.until.max(*until);
            }
        }
        let before = self.banned.swap(Arc::new(banned));
        let after = self.banned.load_full();
        let Some(filter) = self.filter.clone() else { return };
        // First, so that there is room for those to come.
        for client in before.keys().filter(|client| !after.contains_key(client)) {
            filter.lift_ban(client.addr());
        }
        for (client, until) in
            after.iter().filter(|&(client, until)| before.get(client) != Some(until))
        {
            let lifetime = Duration::from_secs(until.saturating_sub(now));
            if let Err(error) = filter.ban(client.addr(), lifetime)
                && let Some(suppressed) = self.log.take(now)
            {
                tracing::warn!(%client, %error, suppressed, "XDP does not drop its packets; it is turned away when it connects");
            }
        }
    }

    /// Packets that XDP has dropped for this ban; `None` where XDP drops nothing.
    pub(super) fn packets_of(&self, ban: &Ban) -> Option<u64> {
        let filter = self.filter.as_ref().filter(|filter| filter.drops())?;
        let of_client = |client: &IpNet| filter.packets_of_ban(client.addr());
        Some(clients_in(ban.network).iter().map(of_client).sum())
    }
}
