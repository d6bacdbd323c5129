/// SMTP extensions whose promise the system behind keeps. Only these may be announced: what a client hands over under
/// an extension has to survive the next hop.
///
/// Default: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TargetExtensions {
    /// Addresses and header fields in UTF-8 (RFC 6531).
    pub smtputf8: bool,
    /// Content that is not lines of text (RFC 3030).
    pub binarymime: bool,
    /// Delivery status notifications as the client asks for them (RFC 3461).
    pub dsn: bool,
    /// No hop without authenticated TLS (RFC 8689).
    pub requiretls: bool,
}
