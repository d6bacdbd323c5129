//! Live traces on the admin socket: `GET /trace?network=192.0.2.0/24` answers with a line for everything said, until either
//! side ends it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::{Bytes, Frame};
use ipnet::IpNet;
use serde::Deserialize;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::worker::watch::{WatchList, Watcher};

/// How often lines are collected: soon enough for a reader's eye, and no work for the workers.
const COLLECT_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
struct Parameters {
    network: IpNet,
}

pub(super) fn router(watches: WatchList) -> Router {
    Router::new().route("/trace", get(trace)).with_state(watches)
}

async fn trace(State(watches): State<WatchList>, Query(what): Query<Parameters>) -> Response {
    match watches.watch(what.network) {
        Ok(watcher) => Body::new(Lines::new(watcher)).into_response(),
        Err(error) => (StatusCode::TOO_MANY_REQUESTS, error.to_string()).into_response(),
    }
}

/// A response body without end: what the watcher has collected, every [`COLLECT_INTERVAL`].
struct Lines {
    watcher: Watcher,
    interval: Interval,
}

impl Lines {
    fn new(watcher: Watcher) -> Self {
        let mut interval = interval(COLLECT_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { watcher, interval }
    }
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.interval.poll_tick(context).is_ready() {
            let lines = self.watcher.take();
            if !lines.is_empty() {
                let mut text = lines.join("\n");
                text.push('\n');
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
        }
        Poll::Pending
    }
}
