//! The XDP filter on the admin socket: `GET /xdp/watch` answers with a line for every sampled drop until either side ends it,
//! `POST /xdp/reload` reads the deny lists anew.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::client::DECLINED;
use super::lines::Lines;
use crate::xdp::{DenyLists, SampleFeed};

/// What the control plane has of the filter, where XDP is in use.
#[derive(Clone)]
pub struct XdpControl {
    pub samples: SampleFeed,
    pub lists: Arc<DenyLists>,
}

pub(super) fn router(xdp: Option<XdpControl>) -> Router {
    Router::new().route("/xdp/watch", get(watch)).route("/xdp/reload", post(reload)).with_state(xdp)
}

async fn watch(State(xdp): State<Option<XdpControl>>) -> Response {
    match xdp {
        Some(XdpControl { samples, .. }) => {
            let mut reader = samples.read();
            let mut first = Some(WATCHING.to_owned());
            let take = move || first.take().map_or_else(|| reader.take(), |line| vec![line]);
            Body::new(Lines::new(take)).into_response()
        }
        None => NOT_IN_USE.into_response(),
    }
}

async fn reload(State(xdp): State<Option<XdpControl>>) -> Response {
    let Some(XdpControl { lists, .. }) = xdp else { return NOT_IN_USE.into_response() };
    match tokio::task::spawn_blocking(move || lists.reload()).await {
        Ok(Ok(in_force)) => {
            let mut text = format!("networks in force: {}\n", in_force.networks);
            text.extend(in_force.bad_lines.iter().map(|line| format!("left out: {line}\n")));
            text.into_response()
        }
        Ok(Err(error)) => (DECLINED, error.to_string()).into_response(),
        Err(_stopping) => (DECLINED, "the daemon is stopping").into_response(),
    }
}

/// Says that from now on nothing is missed.
const WATCHING: &str = "# the first drop of each source from here on, and some of those after it";

const NOT_IN_USE: (StatusCode, &str) = (DECLINED, "XDP is not in use: `ingress status` says why");
