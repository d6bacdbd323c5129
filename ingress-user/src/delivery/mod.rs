//! What happens to a message after its 250: handed on, and only then forgotten by the spool.
//!
//! One tokio task takes references from the spool's pending index in a bounded window, has batches of them delivered on
//! blocking threads, and keeps those that failed until their [next attempt](schedule::next_attempt). A message that cannot
//! be read is set aside: logged, counted, never released and not tried again before a restart.

mod dispatch;
mod maildir;
pub mod schedule;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::DeliveryConfig;
use crate::metrics::Metrics;
use crate::spool::{PendingIndex, ReadError, Reader, RecordRef, SpoolHandle};
use dispatch::Dispatch;
use maildir::Maildir;

/// Why delivery cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("cannot create or open the Maildir {}", path.display())]
    Maildir { path: PathBuf, source: io::Error },
}

/// Starts delivering what is pending and what will be.
///
/// `hostname` becomes part of file names in a Maildir.
///
/// # Errors
///
/// When the destination cannot be used at all, which is better said at start than found out from the queue.
pub fn start(
    runtime: &Handle,
    pending: Arc<PendingIndex>,
    reader: Reader,
    spool: SpoolHandle,
    config: &DeliveryConfig,
    hostname: &str,
    metrics: Arc<Metrics>,
) -> Result<DeliveryHandle, DeliveryError> {
    let destination = match config {
        DeliveryConfig::Maildir { path } => {
            let opened = Maildir::open(path, hostname);
            Destination::Maildir(
                opened.map_err(|source| DeliveryError::Maildir { path: path.clone(), source })?,
            )
        }
        DeliveryConfig::Discard => Destination::Discard,
    };
    let (stop, stopped) = watch::channel(());
    let courier = Courier { destination, reader, spool, metrics };
    let task = runtime.spawn(Dispatch::new(pending, Arc::new(courier)).run(stopped));
    Ok(DeliveryHandle { stop, task })
}

/// The running delivery.
#[derive(Debug)]
pub struct DeliveryHandle {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl DeliveryHandle {
    /// Finishes the batches that are under way and begins no other; the rest waits in the spool for the next start. Call it
    /// before the spool is shut down, or finished deliveries cannot be noted.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "delivery had failed; undelivered mail is in the spool");
        }
    }
}

#[derive(Debug)]
enum Destination {
    Maildir(Maildir),
    Discard,
}

/// Delivers a batch on a blocking thread and tells the spool.
#[derive(Debug)]
struct Courier {
    destination: Destination,
    reader: Reader,
    spool: SpoolHandle,
    metrics: Arc<Metrics>,
}

impl Courier {
    /// Gives back what is to be tried again. May block: on the disk, and on the spool writer.
    fn carry(&self, records: Vec<RecordRef>) -> Vec<RecordRef> {
        let outcome = match &self.destination {
            Destination::Maildir(maildir) => maildir.deliver(records, &self.reader),
            Destination::Discard => Outcome { delivered: records, ..Outcome::default() },
        };
        self.metrics.delivery.delivered.add(outcome.delivered.len() as u64);
        self.metrics.delivery.deferred.add(outcome.deferred.len() as u64);
        self.metrics.spool.damaged.add(outcome.unreadable);
        if !outcome.delivered.is_empty() {
            self.spool.release(outcome.delivered);
        }
        outcome.deferred
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
struct Outcome {
    delivered: Vec<RecordRef>,
    deferred: Vec<RecordRef>,
    /// Set aside: their references are gone, their records stay.
    unreadable: u64,
}

impl Outcome {
    fn fail(&mut self, record: RecordRef, error: DeliverError) {
        // The whole chain: which file, and what the system said about it.
        let id = record.id();
        match &error {
            DeliverError::Unreadable(error) => {
                tracing::error!(
                    %id, error = error as &dyn std::error::Error,
                    "a message cannot be read back; it stays in its segment and is not delivered"
                );
                self.unreadable += 1;
            }
            DeliverError::Spool(_) | DeliverError::Output(_) => {
                tracing::warn!(
                    %id, error = &error as &dyn std::error::Error,
                    "delivery failed and will be tried again"
                );
                self.deferred.push(record);
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum DeliverError {
    /// Damaged or not understood: another attempt would find the same.
    #[error(transparent)]
    Unreadable(ReadError),
    #[error(transparent)]
    Spool(ReadError),
    #[error("cannot write to the destination")]
    Output(#[from] io::Error),
}
