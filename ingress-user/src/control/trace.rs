//! Live traces on the admin socket: `GET /trace?network=192.0.2.0/24` answers with a line for everything said, until either
//! side ends it.

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ipnet::IpNet;
use serde::Deserialize;

use super::lines::Lines;
use crate::worker::watch::WatchList;

#[derive(Debug, Deserialize)]
struct Parameters {
    network: IpNet,
}

pub(super) fn router(watches: WatchList) -> Router {
    Router::new().route("/trace", get(trace)).with_state(watches)
}

async fn trace(State(watches): State<WatchList>, Query(what): Query<Parameters>) -> Response {
    match watches.watch(what.network) {
        Ok(watcher) => Body::new(Lines::new(move || watcher.take())).into_response(),
        Err(error) => (StatusCode::TOO_MANY_REQUESTS, error.to_string()).into_response(),
    }
}
