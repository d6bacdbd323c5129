//! What may pass: pure decisions over values, no I/O.

mod networks;
mod recipients;
mod target;

pub use networks::{ClientNetworks, Networks};
pub use recipients::RecipientDomains;
pub use target::TargetExtensions;
