//! TLS on a worker's connection, decrypting in the receive buffer. The only folder that knows this rustls.

mod context;
mod failure;
mod stream;

pub use context::{TlsContext, TlsContextError, TlsService};
pub use failure::{TlsBreak, TlsFailure};
pub use stream::{Advance, Established, RECORD_BYTES_MAX, Seen, TlsEvent, TlsStream, record_end};
