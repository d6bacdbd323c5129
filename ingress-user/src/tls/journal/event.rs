//! What workers report.

use std::net::IpAddr;

use crate::tls::verdict::{Ending, Stage};

/// What a worker reports.
#[derive(Debug)]
pub enum Event {
    Handshake(Box<Handshake>),
    /// A session took its first message. `offered`: STARTTLS was on offer.
    FirstMessage {
        client: IpAddr,
        cover: Cover,
        offered: bool,
    },
    /// A session took so many messages besides its first, and takes no more under this cover.
    FurtherMessages {
        cover: Cover,
        count: u32,
    },
}

/// What messages come under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    Clear,
    Tls {
        /// By the number of the protocol.
        version: u16,
        /// On a listener where TLS comes first.
        first: bool,
    },
}

/// One handshake's end.
#[derive(Debug)]
pub struct Handshake {
    pub client: IpAddr,
    /// The name given before STARTTLS.
    pub helo: Option<Box<str>>,
    /// On a listener where TLS comes first.
    pub implicit: bool,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    /// By the numbers of the protocol.
    Established {
        version: u16,
        suite: u16,
        resumed: bool,
    },
    Failed(Failed),
}

#[derive(Debug)]
pub struct Failed {
    pub stage: Stage,
    pub ending: Ending,
    /// By its number, where we had something against it.
    pub alert_sent: Option<u8>,
    /// What the client sent up to the end of its ClientHello, as it came.
    pub hello: Vec<u8>,
}
