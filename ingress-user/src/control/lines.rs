//! Answers without end: lines as they come, until either side ends it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often lines are collected: soon enough for a reader's eye, and no work for those who write them.
const COLLECT_INTERVAL: Duration = Duration::from_millis(100);

/// A response body: what `take` has, every [`COLLECT_INTERVAL`].
pub(super) struct Lines<F> {
    take: F,
    interval: Interval,
}

impl<F: FnMut() -> Vec<String>> Lines<F> {
    pub(super) fn new(take: F) -> Self {
        let mut interval = interval(COLLECT_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { take, interval }
    }
}

impl<F: FnMut() -> Vec<String> + Unpin> hyper::body::Body for Lines<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.interval.poll_tick(context).is_ready() {
            let lines = (self.take)();
            if !lines.is_empty() {
                let mut text = lines.join("\n");
                text.push('\n');
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
        }
        Poll::Pending
    }
}
