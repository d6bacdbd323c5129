//! The PROXY protocol, versions 1 and 2: what a load balancer says about its client before anything else (haproxy's
//! `doc/proxy-protocol.txt`, sections 2.1 and 2.2).
//!
//! The header is never guessed: who connects from a network that sends it has to send it, and a connection from
//! elsewhere that begins with one is garbage. Only the source is taken; TLVs are checked for their shape and skipped.

mod binary;
mod error;
#[cfg(test)]
mod tests;
mod text;

use std::net::SocketAddr;

pub use self::binary::HEADER_BYTES_MAX;
pub use self::error::ProxyError;
pub use self::text::LINE_BYTES_MAX;

/// What the octets at hand amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// They begin a header. Parse again with more, from the same first octet.
    Incomplete,
    /// They begin with a whole header, which takes `header_bytes` of them; the rest is the client's.
    Complete { header_bytes: usize, source: Source },
}

/// Who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nobody was named: a health check of the load balancer, or a client it cannot express. The connection's own
    /// address counts.
    Local,
    /// The client's address, IPv4 as IPv4 even if it came mapped into IPv6.
    Conveyed(SocketAddr),
}

/// Looks for a header at the start of `input`, which is all that has come so far.
///
/// An error comes with the octet that is wrong, not with the end of the header: what is no header never fills a buffer or
/// a timeout first. Only a checksum has to wait for the end.
pub fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    match input.first() {
        None => Ok(Parsed::Incomplete),
        Some(b'P') => text::parse(input),
        Some(b'\r') => binary::parse(input),
        Some(_) => Err(ProxyError::no_header(input)),
    }
}
