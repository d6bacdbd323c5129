//! Bans on the admin socket: `GET /bans`, `POST /bans/add`, `POST /bans/del`.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ipnet::IpNet;
use serde::Deserialize;

use super::client::DECLINED;
use crate::bans::{BanReport, BansHandle};

#[derive(Debug, Deserialize)]
struct Added {
    network: IpNet,
    seconds: u64,
    #[serde(default)]
    note: String,
}

#[derive(Debug, Deserialize)]
struct Lifted {
    network: IpNet,
}

pub(super) fn router(bans: BansHandle) -> Router {
    Router::new()
        .route("/bans", get(list))
        .route("/bans/add", post(add))
        .route("/bans/del", post(lift))
        .with_state(bans)
}

async fn list(State(bans): State<BansHandle>) -> Json<Vec<BanReport>> {
    Json(bans.list())
}

async fn add(State(bans): State<BansHandle>, Query(added): Query<Added>) -> (StatusCode, String) {
    let Added { network, seconds, note } = added;
    match bans.add(network, Duration::from_secs(seconds), note) {
        Ok(ban) => (StatusCode::OK, format!("{} is banned for {seconds} s\n", ban.network)),
        Err(error) => (DECLINED, error.to_string()),
    }
}

async fn lift(
    State(bans): State<BansHandle>,
    Query(lifted): Query<Lifted>,
) -> (StatusCode, String) {
    let ended = bans.lift(lifted.network);
    if ended.is_empty() {
        return (DECLINED, format!("no ban is in force for {}", lifted.network));
    }
    (
        StatusCode::OK,
        ended.iter().map(|network| format!("{network} is not banned any more\n")).collect(),
    )
}
