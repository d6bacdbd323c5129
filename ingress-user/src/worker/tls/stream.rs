//! One connection's TLS: octets in, decrypted in place, octets out.

use std::ops::Range;
use std::sync::Arc;

use rustls::crypto::cipher::OutboundPlain;
use rustls::server::ServerHandshake;
use rustls::split::{ReceiveTraffic, ReceiveTrafficState, SendTraffic};
use rustls::{
    ConnectionOutputs, Error, HandshakeKind, NeedsInput, ServerConfig, ServerSide, SliceInput,
};

use super::{TlsFailure, TlsService};
use crate::tls::verdict::Stage;

/// A record on the wire: 5 octets of header and at most 2^14 + 2,048 of body (TLS 1.2, RFC 5246 6.2.3; RFC 8446 5.2 allows
/// less).
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + (1 << 14) + 2048;

const RECORD_HEADER_BYTES: usize = 5;

/// Answers to requests for new keys in one connection. A client needs new keys after 2^24 records (RFC 8446 section 5.5), which
/// is 256 GiB; the library allows 32 in a row.
const KEY_UPDATES_MAX: u16 = 64;

/// ProtocolVersion (RFC 5246 section A.1).
const TLS_1_2: u16 = 0x0303;

/// Octets kept of a ClientHello. Real ones have less than 2 KiB, also with post-quantum key shares.
const HELLO_BYTES_MAX: usize = 16 << 10;

/// One connection's TLS, from before the ClientHello on.
pub struct TlsStream {
    state: State,
    /// Until the client has said something under TLS: some break off only when the handshake is through.
    seen: Option<Box<Seen>>,
}

/// What was seen of a handshake, to explain its failure.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the client sent up to its ClientHello's end, as it came.
    pub hello: Vec<u8>,
    /// Octets that the library has taken of it.
    consumed: usize,
    /// Our flight was sent.
    answered: bool,
    /// The name given before STARTTLS, which the session forgets when the handshake is through (RFC 3207 section 4.2).
    pub helo: Option<Box<str>>,
}

struct Handshake {
    expects: NeedsInput<ServerSide>,
    terms: Arc<ServerConfig>,
}

/// Both directions after the handshake.
struct Traffic {
    receive: ReceiveTraffic<ServerSide>,
    send: SendTraffic,
    /// Requests for new keys that were answered.
    key_updates: u16,
    version: u16,
}

enum State {
    /// Boxed: twice the size of all that follows, and gone after a round trip.
    ExpectHandshake(Box<Handshake>),
    ExpectTraffic(Traffic),
    /// The peer sent close_notify; we may still send.
    PeerClosed {
        send: SendTraffic,
    },
    /// A failure ended it, or a state is being replaced.
    Failed,
}

/// What became of received octets.
#[derive(Debug)]
pub struct Advance {
    /// Octets at the front of the input that are done with. Octets of an [`TlsEvent::Plaintext`] are among them and stay in
    /// place.
    pub used: usize,
    pub event: TlsEvent,
}

#[derive(Debug, PartialEq, Eq)]
pub enum TlsEvent {
    /// Nothing more without further octets. Those not used are to be given again, untouched, with more behind them.
    NeedInput,
    /// The handshake is through. More may be in the input.
    Established(Established),
    /// Decrypted octets, at this place in the input.
    Plaintext(Range<usize>),
    /// close_notify: the peer will send nothing more.
    PeerClosed,
}

/// What a handshake led to, by the numbers of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Established {
    pub version: u16,
    pub suite: u16,
    pub resumed: bool,
}

impl TlsStream {
    /// The server's side, waiting for a ClientHello. Without `tickets` the client is given none, and none is taken.
    pub fn accept(service: &TlsService, tickets: bool) -> Self {
        let (expects, terms) = (ServerHandshake::start(), service.terms(tickets));
        let handshake = Box::new(Handshake { expects, terms });
        Self { state: State::ExpectHandshake(handshake), seen: Some(Box::default()) }
    }

    /// What was seen of the handshake; nothing any more after [`forget_handshake`](Self::forget_handshake).
    pub fn seen(&self) -> Option<&Seen> {
        self.seen.as_deref()
    }

    /// Keeps the name that the session forgets.
    pub fn note_helo(&mut self, helo: Option<Box<str>>) {
        if let Some(seen) = &mut self.seen {
            seen.helo = helo;
        }
    }

    /// The client has come to what it came for.
    pub fn forget_handshake(&mut self) {
        self.seen = None;
    }

    pub fn is_established(&self) -> bool {
        matches!(self.state, State::ExpectTraffic(_) | State::PeerClosed { .. })
    }

    /// Goes one event ahead in `input`, decrypting in place. What is to be sent is appended to `out`, also on failure.
    pub fn advance(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Result<Advance, TlsFailure> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::ExpectHandshake(handshake) => {
                let Handshake { expects, terms } = *handshake;
                self.shake(expects, terms, input, out)
            }
            State::ExpectTraffic(traffic) => self.receive(traffic, input, out),
            closed @ State::PeerClosed { .. } => {
                self.state = closed;
                Ok(Advance { used: input.len(), event: TlsEvent::PeerClosed })
            }
            State::Failed => Err(TlsFailure::Library(Error::HandshakeNotComplete)),
        }
    }

    /// Appends `plaintext` as records. It is copied once, by encryption.
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsFailure> {
        match &mut self.state {
            State::ExpectTraffic(Traffic { send, .. }) | State::PeerClosed { send } => {
                send.write(OutboundPlain::from(plaintext), out).map_err(TlsFailure::Library)
            }
            State::ExpectHandshake(_) | State::Failed => {
                Err(TlsFailure::Library(Error::HandshakeNotComplete))
            }
        }
    }

    /// Appends close_notify, so that the peer can tell the end from a cut.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if let State::ExpectTraffic(Traffic { send, .. }) | State::PeerClosed { send } =
            std::mem::replace(&mut self.state, State::Failed)
        {
            // The connection is closed next, whether or not the alert could be made.
            let _ = send.close(out);
        }
    }

    fn shake(
        &mut self,
        mut handshake: NeedsInput<ServerSide>,
        terms: Arc<ServerConfig>,
        input: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Advance, TlsFailure> {
        let seen = self.seen.get_or_insert_default();
        seen.note(input);
        let mut used = 0;
        loop {
            let mut rest = SliceInput::new(input.get_mut(used..).unwrap_or_default());
            let next = handshake.process(&mut rest, out).map_err(TlsFailure::Library)?;
            used += rest.into_used();
            match next {
                ServerHandshake::NeedsInput(expects) => {
                    seen.consumed += used;
                    let handshake = Box::new(Handshake { expects, terms });
                    self.state = State::ExpectHandshake(handshake);
                    return Ok(Advance { used, event: TlsEvent::NeedInput });
                }
                ServerHandshake::Accepted(accepted) => {
                    let next = accepted.choose_config(Arc::clone(&terms), out);
                    match next.map_err(TlsFailure::Library)? {
                        // Octets of the next flight may already be here.
                        ServerHandshake::NeedsInput(needs_input) => {
                            seen.answered = true;
                            handshake = needs_input;
                        }
                        _ => return Err(TlsFailure::Library(Error::HandshakeNotComplete)),
                    }
                }
                ServerHandshake::Complete(connection) => {
                    let established = Established::of(&connection.outputs);
                    let (receive, send) = (connection.receive, connection.send);
                    let version = established.version;
                    let traffic = Traffic { receive, send, key_updates: 0, version };
                    self.state = State::ExpectTraffic(traffic);
                    return Ok(Advance { used, event: TlsEvent::Established(established) });
                }
                // Client certificates are not asked for, and the enum may grow.
                _ => return Err(TlsFailure::Library(Error::HandshakeNotComplete)),
            }
        }
    }

    fn receive(
        &mut self,
        traffic: Traffic,
        input: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Advance, TlsFailure> {
        let Traffic { receive, mut send, mut key_updates, version } = traffic;
        let start = input.as_ptr().addr();
        let mut slice = SliceInput::new(input);
        let (mut event, mut asked) = (TlsEvent::NeedInput, false);
        let mut state = match receive.read(&mut slice) {
            Ok(ReceiveTrafficState::Available(mut available)) => {
                let data = available.data();
                let at = data.as_ptr().addr().wrapping_sub(start);
                event = TlsEvent::Plaintext(at..at + data.len());
                available.into_next()
            }
            Ok(ReceiveTrafficState::FlushSender(flush)) => {
                flush_sender(&mut send, out);
                asked = true;
                // Not `NeedInput`: only a read that wanted more says so.
                event = TlsEvent::Plaintext(0..0);
                flush.into_next()
            }
            Ok(ReceiveTrafficState::ReadMore(receive)) => ReceiveTrafficState::ReadMore(receive),
            Ok(ReceiveTrafficState::CloseNotify) => ReceiveTrafficState::CloseNotify,
            Err(error) => {
                flush_sender(&mut send, out);
                return Err(TlsFailure::Library(error));
            }
        };
        if let ReceiveTrafficState::FlushSender(flush) = state {
            flush_sender(&mut send, out);
            asked = true;
            state = flush.into_next();
        }
        if asked && matches!(state, ReceiveTrafficState::ReadMore(_)) {
            key_updates = answered(version, key_updates)?;
        }
        self.state = match state {
            ReceiveTrafficState::ReadMore(receive) => {
                State::ExpectTraffic(Traffic { receive, send, key_updates, version })
            }
            _ => State::PeerClosed { send },
        };
        if event == TlsEvent::NeedInput && matches!(self.state, State::PeerClosed { .. }) {
            event = TlsEvent::PeerClosed;
        }
        Ok(Advance { used: slice.into_used(), event })
    }
}

/// Counts an answer that the protocol asked for: to a request for new keys in TLS 1.3, to one for a renegotiation, which was
/// refused by an alert, in TLS 1.2.
fn answered(version: u16, key_updates: u16) -> Result<u16, TlsFailure> {
    match version {
        TLS_1_2 => Err(TlsFailure::Renegotiation),
        _ if key_updates >= KEY_UPDATES_MAX => Err(TlsFailure::KeyUpdates(KEY_UPDATES_MAX)),
        _ => Ok(key_updates + 1),
    }
}

impl Seen {
    /// How far the handshake got.
    pub fn stage(&self) -> Stage {
        match (self.answered, self.hello.is_empty()) {
            (true, _) => Stage::FlightSent,
            (false, false) => Stage::HelloReceived,
            (false, true) => Stage::Nothing,
        }
    }

    /// Keeps what is new in `input`, before the library joins fragments in it. After our flight nothing in clear is told.
    fn note(&mut self, input: &[u8]) {
        if self.answered || self.hello.len() >= HELLO_BYTES_MAX {
            return;
        }
        let known = self.hello.len().saturating_sub(self.consumed);
        let room = HELLO_BYTES_MAX - self.hello.len();
        let new = input.get(known..).unwrap_or_default();
        self.hello.extend_from_slice(new.get(..room).unwrap_or(new));
    }
}

impl Established {
    fn of(outputs: &ConnectionOutputs) -> Self {
        Self {
            version: outputs.protocol_version().map_or(0, u16::from),
            suite: outputs.negotiated_cipher_suite().map_or(0, |suite| suite.suite().into()),
            resumed: outputs.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// Appends what the receiving side left for the sender: an answer to KeyUpdate, or an alert. After an alert the sender
/// reports an error of its own, which says nothing new.
fn flush_sender(send: &mut SendTraffic, out: &mut Vec<u8>) {
    let _ = send.write(OutboundPlain::new_empty(), out);
}

/// How many octets, counted from the start of `octets`, finish the record that begins there; at least a header's worth.
pub fn record_end(octets: &[u8]) -> usize {
    match octets {
        [_, _, _, high, low, ..] => {
            RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => RECORD_HEADER_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_ends_where_its_header_says() {
        assert_eq!(record_end(&[]), 5);
        assert_eq!(record_end(&[22, 3, 1, 1]), 5);
        assert_eq!(record_end(&[22, 3, 1, 1, 2]), 5 + 258);
    }
}
