//! What senders look up in DNS before they bring mail: the records to publish, and what a resolver says of them.
//!
//! - [`publication`]: which records; [`policy`]: the MTA-STS policy that belongs to them; both pure
//! - [`comparison`]: whether what is there serves the purpose; pure
//! - [`lookup`]: asks a resolver; the only user of hickory

pub mod comparison;
pub mod lookup;
pub mod policy;
pub mod publication;
