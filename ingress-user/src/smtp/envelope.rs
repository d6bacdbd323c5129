//! What a transaction carries beside the message itself (RFC 5321 section 2.3.1).

use std::net::IpAddr;

/// One accepted transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Address of MAIL FROM without angle brackets; empty is the null reverse-path `<>`.
    pub reverse_path: Box<str>,
    /// Addresses of RCPT TO without angle brackets, in the order given, never empty.
    pub recipients: Vec<Box<str>>,
    pub client: IpAddr,
    /// The name the client gave in EHLO or HELO.
    pub helo: Box<str>,
    pub protocol: Protocol,
    pub body: BodyType,
}

/// How the message came, as `with` of `Received:` says it (RFC 3848).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Smtp,
    Esmtp,
    Esmtps,
}

impl Protocol {
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Esmtp => "ESMTP",
            Self::Esmtps => "ESMTPS",
        }
    }
}

/// The BODY parameter of MAIL (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyType {
    SevenBit,
    EightBitMime,
    /// Lines of any length, octets of any value (RFC 3030); it comes by BDAT only.
    BinaryMime,
}
