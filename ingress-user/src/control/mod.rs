//! The control plane: the admin socket, the metrics endpoint, the MTA-STS policy, and the client that the command line uses. Runs on tokio,
//! reads what others count, and passes on what an operator asks for.

mod bans;
mod certificates;
mod client;
mod limited;
mod lines;
mod mta_sts;
mod prometheus;
mod server;
mod status;
mod text;
mod tls;
mod trace;
mod xdp;

pub use client::{
    ClientError, change, fetch, fetch_status, follow, follow_trace, reload_lists, reload_tls,
};
pub use mta_sts::{BoundMtaSts, MtaStsError, PolicySite};
pub use server::{Bound, ControlError, Controls, bind};
pub use status::{
    CertificateStatus, ListenerStatus, MtaStsStatus, Status, StatusSource, WorkerStatus,
    XdpInterfaceStatus, XdpQueueStatus, XdpStatus,
};
pub use xdp::XdpControl;
