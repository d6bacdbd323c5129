//! The daemon's sign of life, without which the program passes every packet.
//!
//! An attachment by netlink outlives the process, and a process may be stopped or hang: who waits for a daemon that does not
//! move must not be dropped by lists and budgets that nobody keeps up to date.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::plane::DataPlane;

/// Half of the shortest timeout that can be set.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Gives the sign again and again. Ends where there is no program to give it to; else never.
pub async fn beat(data_plane: Arc<DataPlane>, timeout: Duration) {
    let mut turns = interval(BEAT_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match data_plane.beat() {
            None => return,
            Some(Ok(since)) if since > timeout => tracing::warn!(
                seconds = since.as_secs(),
                "the daemon stood still: XDP passed every packet after xdp.heartbeat_timeout"
            ),
            Some(Ok(_in_time)) => {}
            Some(Err(error)) => tracing::error!(
                "no heartbeat; XDP passes every packet after xdp.heartbeat_timeout: {}",
                error.with_causes()
            ),
        }
    }
}
