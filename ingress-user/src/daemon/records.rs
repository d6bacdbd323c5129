//! What is remembered of clients: the journal of their TLS handshakes, and their bans.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::bans::{self, BansHandle, BansThread};
use crate::config::Config;
use crate::tls::journal::{self, JournalHandle, JournalThread, OwnSource};
use crate::tls::reload::Certificates;
use crate::tls::verdict::Own;
use crate::xdp::Filter;

/// The two threads, what workers report to them, and what the control plane asks them.
pub(super) struct Records {
    pub(super) handshakes: journal::Reporter,
    pub(super) journal_handle: JournalHandle,
    pub(super) journal: JournalThread,
    pub(super) offences: bans::Reporter,
    pub(super) bans_handle: BansHandle,
    pub(super) bans: BansThread,
}

impl Records {
    /// Starts both. Bans are in force in `filter` when this returns.
    pub(super) fn start(
        config: &Config,
        certificates: &Arc<Certificates>,
        filter: Option<&Arc<Filter>>,
    ) -> Result<Self> {
        let own = own_of(certificates);
        let (handshakes, journal_handle, journal) =
            journal::start(config.tls.memory.clone(), own, &config.state_dir)
                .context("cannot start the journal of TLS handshakes")?;
        let mail = journal_handle.clone();
        let brought_mail = Box::new(move |client, since| mail.brought_mail(client, since));
        let settings = config.bans_with_exempt();
        let (offences, bans_handle, bans) =
            bans::start(settings, filter.cloned(), brought_mail, &config.state_dir)
                .context("cannot start the thread of bans")?;
        Ok(Self { handshakes, journal_handle, journal, offences, bans_handle, bans })
    }
}

/// What we can do with the certificates of the moment.
fn own_of(certificates: &Arc<Certificates>) -> OwnSource {
    let certificates = Arc::clone(certificates);
    Box::new(move || {
        let keys: Vec<_> = certificates.served().iter().filter_map(|served| served.key).collect();
        Own::with_keys(&keys)
    })
}
