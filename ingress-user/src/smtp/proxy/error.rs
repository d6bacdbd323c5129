use super::{HEADER_BYTES_MAX, LINE_BYTES_MAX};

/// Why a connection does not begin with a PROXY header. For the log of the operator, who has to set the load balancer or
/// `networks.proxy_protocol` right; the client is told nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Neither version.
    #[error("no PROXY header: the connection begins with {begins}")]
    NoHeader { begins: Box<str> },
    #[error("PROXY v1: expected {expected}, found {found}")]
    Field { expected: &'static str, found: Box<str> },
    #[error("PROXY v1: a lone CR or LF, where only the two together end the line")]
    LineEnd,
    #[error("PROXY v1: no line end in the first {LINE_BYTES_MAX} octets")]
    LineTooLong,
    #[error("PROXY v2: version {0} in a header of version 2")]
    Version(u8),
    #[error("PROXY v2: command {0}, expected 0 (LOCAL) or 1 (PROXY)")]
    Command(u8),
    /// The octet of family and transport.
    #[error(
        "PROXY v2: family and transport 0x{0:02x}, expected TCP over IPv4 (0x11) or IPv6 (0x21)"
    )]
    Transport(u8),
    #[error("PROXY v2: a header of more than {HEADER_BYTES_MAX} octets")]
    HeaderTooLong,
    #[error("PROXY v2: {length} octets for addresses that take {needed}")]
    AddressesTooShort { length: usize, needed: usize },
    /// `at` counts from the header's first octet.
    #[error("PROXY v2: the TLV at octet {at} does not end with the header or before it")]
    TlvTooLong { at: usize },
    #[error("PROXY v2: a CRC-32C that is not of 4 octets, or a second one, at octet {at}")]
    ChecksumShape { at: usize },
    #[error("PROXY v2: the header's CRC-32C is {computed:08x}, it says {carried:08x}")]
    Checksum { carried: u32, computed: u32 },
}

impl ProxyError {
    pub(super) fn no_header(input: &[u8]) -> Self {
        /// Enough to tell one protocol from another.
        const SHOWN: usize = 8;
        /// The content type that every TLS connection begins with (RFC 8446 section 5.1).
        const TLS_HANDSHAKE: u8 = 22;
        let shown = excerpt(input.get(..SHOWN).unwrap_or(input));
        let begins = match input.first() {
            Some(&TLS_HANDSHAKE) => format!("{shown}, which is TLS").into(),
            _ => shown,
        };
        Self::NoHeader { begins }
    }

    pub(super) fn field(expected: &'static str, found: &[u8]) -> Self {
        Self::Field { expected, found: excerpt(found) }
    }
}

/// Text in quotes and escaped, anything else in hexadecimal.
fn excerpt(octets: &[u8]) -> Box<str> {
    let is_text = |octet: &u8| matches!(octet, b' '..=b'~' | b'\t' | b'\r' | b'\n');
    if octets.is_empty() {
        return "nothing".into();
    }
    if octets.iter().all(is_text) {
        return format!("\"{}\"", octets.escape_ascii()).into();
    }
    let hexadecimal: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    hexadecimal.join(" ").into()
}
