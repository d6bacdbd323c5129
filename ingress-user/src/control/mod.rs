//! The control plane: the admin socket, the metrics endpoint, and the client that the command line uses. Runs on tokio,
//! reads what others count, and passes on what an operator asks for.

mod certificates;
mod client;
mod limited;
mod prometheus;
mod server;
mod status;
mod text;
mod tls;
mod trace;

pub use client::{ClientError, change, fetch, fetch_status, follow_trace, reload_tls};
pub use server::{Bound, ControlError, bind};
pub use status::{
    CertificateStatus, ListenerStatus, Status, StatusSource, WorkerStatus, XdpInterfaceStatus,
    XdpQueueStatus, XdpStatus,
};
