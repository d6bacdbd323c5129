//! The control plane: the admin socket, the metrics endpoint, and the client that the command line uses. Runs on tokio and
//! only reads what others count.

mod client;
mod limited;
mod prometheus;
mod server;
mod status;
mod text;
mod tls;
mod trace;

pub use client::{ClientError, change, fetch, fetch_status, follow_trace};
pub use server::{Bound, ControlError, bind};
pub use status::{
    ListenerStatus, Status, StatusSource, WorkerStatus, XdpInterfaceStatus, XdpQueueStatus,
    XdpStatus,
};
