//! What may pass: pure decisions over values, no I/O.

mod recipients;

pub use recipients::RecipientDomains;
