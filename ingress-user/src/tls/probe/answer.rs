//! Reads a server's answer to a ClientHello as far as it comes in clear.

use crate::tls::offer::Reader;

/// An answer longer than this is refused: chains of certificates have a few KiB.
pub const ANSWER_BYTES_MAX: usize = 1 << 17;

/// What came in answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Chosen(Chosen),
    /// The alert's description.
    Alert(u8),
}

/// What the server made of the offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    pub version: u16,
    pub suite: u16,
    /// Of the key exchange.
    pub group: Option<u16>,
    /// A HelloRetryRequest: it wants a key of `group` (RFC 8446 4.1.4).
    pub retry: bool,
    /// The certificates in DER, leaf first. They come in clear in TLS 1.2 only.
    pub chain: Vec<Vec<u8>>,
}

/// What came is no answer of a TLS server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer is malformed: {0}")]
pub struct AnswerError(&'static str);

const CUT: AnswerError = AnswerError("a field reaches behind its message's end");

/// Reads all octets received since the hello was sent. `None`: more are to come.
pub fn parse(octets: &[u8]) -> Result<Option<Answer>, AnswerError> {
    let mut records = Reader(octets);
    let mut messages = Vec::new();
    while let Some((kind, body)) = record(&mut records) {
        match (kind, body) {
            (HANDSHAKE_RECORD, body) => messages.extend_from_slice(body),
            (ALERT_RECORD, [_level, description]) => return Ok(Some(Answer::Alert(*description))),
            // Behind a ServerHello of TLS 1.3, which is the end of what can be read.
            _ => break,
        }
    }
    if let [first, ..] = octets
        && ![HANDSHAKE_RECORD, ALERT_RECORD].contains(first)
    {
        return Err(AnswerError("it does not begin with a handshake or an alert"));
    }
    Ok(read_messages(&mut Reader(&messages))?.map(Answer::Chosen))
}

const ALERT_RECORD: u8 = 21;
const HANDSHAKE_RECORD: u8 = 22;

const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const SERVER_HELLO_DONE: u8 = 14;

const TLS_1_3: u16 = 0x0304;

/// Type and body of the next whole record.
fn record<'a>(octets: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let kind = octets.u8()?;
    let _version = octets.u16()?;
    Some((kind, octets.list16()?))
}

/// The flight up to the ServerHello in TLS 1.3, up to ServerHelloDone before.
fn read_messages(messages: &mut Reader<'_>) -> Result<Option<Chosen>, AnswerError> {
    let mut chosen: Option<Chosen> = None;
    while let Some((kind, body)) = message(messages) {
        let body = &mut Reader(body);
        match (kind, &mut chosen) {
            (SERVER_HELLO, none @ None) => {
                let hello = server_hello(body).ok_or(CUT)?;
                if hello.version >= TLS_1_3 {
                    return Ok(Some(hello));
                }
                *none = Some(hello);
            }
            (_, None) => return Err(AnswerError("it does not begin with a ServerHello")),
            (CERTIFICATE, Some(chosen)) => chosen.chain = certificates(body).ok_or(CUT)?,
            (SERVER_KEY_EXCHANGE, Some(chosen)) => chosen.group = named_curve(body).ok_or(CUT)?,
            (SERVER_HELLO_DONE, Some(_)) => return Ok(chosen),
            // A status of the certificate, for instance.
            (_, Some(_)) => {}
        }
    }
    Ok(None)
}

/// Type and body of the next whole handshake message.
fn message<'a>(octets: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let kind = octets.u8()?;
    Some((kind, list24(octets)?))
}

/// Octets behind a length of three octets.
fn list24<'a>(octets: &mut Reader<'a>) -> Option<&'a [u8]> {
    let high = octets.u8()?;
    let low = octets.u16()?;
    octets.take(usize::from(high) << 16 | usize::from(low))
}

/// RFC 8446 4.1.3.
fn server_hello(body: &mut Reader<'_>) -> Option<Chosen> {
    const RANDOM_BYTES: usize = 32;
    let mut chosen = Chosen { version: body.u16()?, ..Chosen::default() };
    chosen.retry = body.take(RANDOM_BYTES)? == RETRY_RANDOM;
    body.list8()?; // legacy_session_id_echo
    chosen.suite = body.u16()?;
    body.u8()?; // legacy_compression_method
    if body.0.is_empty() {
        return Some(chosen);
    }
    let mut extensions = Reader(body.list16()?);
    while !extensions.0.is_empty() {
        let (kind, mut data) = (extensions.u16()?, Reader(extensions.list16()?));
        match kind {
            SUPPORTED_VERSIONS => chosen.version = data.u16()?,
            // The group stands first, with or without a key.
            KEY_SHARE => chosen.group = Some(data.u16()?),
            _ => {}
        }
    }
    Some(chosen)
}

const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

/// The random of a HelloRetryRequest (RFC 8446 4.1.3).
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// RFC 5246 7.4.2.
fn certificates(body: &mut Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader(list24(body)?);
    let mut chain = Vec::new();
    while !list.0.is_empty() {
        chain.push(list24(&mut list)?.to_vec());
    }
    Some(chain)
}

/// RFC 8422 5.4; `None` within for a key exchange without a named curve.
fn named_curve(body: &mut Reader<'_>) -> Option<Option<u16>> {
    const NAMED_CURVE: u8 = 3;
    let kind = body.u8()?;
    let curve = body.u16()?;
    Some((kind == NAMED_CURVE).then_some(curve))
}
