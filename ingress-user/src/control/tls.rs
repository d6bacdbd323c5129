//! What is known of TLS, on the admin socket: `GET /tls/report`, `GET /tls/memory`, the operator's word about peers, and whose
//! handshakes are self-tests.

use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use ipnet::IpNet;
use serde::Deserialize;

use crate::bans::BansHandle;
use crate::tls::journal::{JournalHandle, PeerReport, Report};
use crate::tls::memory::Pin;

/// What a report covers where nothing is said: seven days.
const REPORT_SECONDS: u64 = 7 * 86_400;

#[derive(Debug, Deserialize)]
struct Since {
    seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Peers {
    network: IpNet,
}

#[derive(Debug, Deserialize)]
struct Tested {
    network: IpNet,
    /// Whether the test goes on; otherwise it is over.
    running: bool,
}

#[derive(Debug, Deserialize)]
struct Pinned {
    network: IpNet,
    /// Missing: the operator's word is taken back.
    pin: Option<Pin>,
}

pub(super) fn router(journal: JournalHandle, bans: BansHandle) -> Router {
    let tested = (journal.clone(), bans);
    let self_tests = Router::new().route("/tls/selftest", post(self_test)).with_state(tested);
    Router::new()
        .route("/tls/report", get(report))
        .route("/tls/memory", get(peers))
        .route("/tls/memory/forget", post(forget))
        .route("/tls/memory/pin", post(pin))
        .with_state(journal)
        .merge(self_tests)
}

async fn report(State(journal): State<JournalHandle>, Query(since): Query<Since>) -> Json<Report> {
    Json(journal.report(since.seconds.unwrap_or(REPORT_SECONDS)))
}

async fn peers(State(journal): State<JournalHandle>) -> Json<Vec<PeerReport>> {
    Json(journal.peers())
}

async fn forget(State(journal): State<JournalHandle>, Query(peers): Query<Peers>) -> String {
    format!("{} peers forgotten\n", journal.forget(peers.network))
}

async fn pin(State(journal): State<JournalHandle>, Query(pinned): Query<Pinned>) -> String {
    let Pinned { network, pin } = pinned;
    journal.pin(network, pin);
    match pin {
        Some(Pin::Offer) => format!("{network} is always offered STARTTLS\n"),
        Some(Pin::Withhold) => format!("{network} is not offered STARTTLS\n"),
        None => format!("{network} is as the memory has it\n"),
    }
}

async fn self_test(
    State((journal, bans)): State<(JournalHandle, BansHandle)>,
    Query(tested): Query<Tested>,
) -> String {
    let Tested { network, running } = tested;
    bans.excuse_self_test(network, running);
    if running {
        journal.begin_self_test(network);
        format!("handshakes of {network} are counted as a self-test\n")
    } else {
        journal.end_self_test(network);
        format!("handshakes of {network} count as any other\n")
    }
}
