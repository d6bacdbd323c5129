//! The SMTP core: bytes and time in, replies and actions out. No sockets, clock, TLS, files or randomness.

pub mod envelope;
