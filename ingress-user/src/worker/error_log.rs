//! Sessions that ended in error, into the log: with what was said last, and never so many that the log becomes the flood.

use std::net::IpAddr;

use super::clock::Now;
use crate::log_budget::LogBudget;
use crate::smtp::session::Transcript;

/// A worker's budget of such lines.
#[derive(Debug, Default)]
pub(super) struct ErrorLog(LogBudget);

impl ErrorLog {
    pub(super) fn session_ended(
        &mut self,
        client: IpAddr,
        reason: &str,
        transcript: &Transcript,
        now: Now,
    ) {
        if let Some(suppressed) = self.0.take(now.unix_micros() / 1_000_000) {
            tracing::info!(%client, reason, suppressed, %transcript, "session ended in error");
        }
    }
}
