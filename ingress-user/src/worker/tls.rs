//! TLS on a worker's connection, decrypting in the receive buffer. The only file that knows this rustls.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::cipher::OutboundPlain;
use rustls::crypto::{Credentials, CryptoProvider, Identity, SelectedCredential, TicketProducer};
use rustls::error::{AlertDescription, PeerIncompatible};
use rustls::server::{
    ClientHello, InvalidSniPolicy, NoServerSessionStorage, ServerCredentialResolver,
    ServerHandshake,
};
use rustls::split::{ReceiveTraffic, ReceiveTrafficState, SendTraffic};
use rustls::{
    ConnectionOutputs, Error, HandshakeKind, NeedsInput, ServerConfig, ServerSide, SliceInput,
};

use crate::tls::Credential;
use crate::tls::choice::{self, DnsNames};
use crate::tls::verdict::{Ending, Stage};

/// A record on the wire: 5 octets of header and at most 2^14 + 2,048 of body (TLS 1.2, RFC 5246 6.2.3; RFC 8446 5.2 allows
/// less).
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + (1 << 14) + 2048;

const RECORD_HEADER_BYTES: usize = 5;

/// Octets kept of a ClientHello. Real ones have less than 2 KiB, also with post-quantum key shares.
const HELLO_BYTES_MAX: usize = 16 << 10;

/// What all connections of the daemon share: certificates, which can be replaced, and ticket keys, which stay.
#[derive(Clone)]
pub struct TlsContext(Arc<ArcSwap<ServerConfig>>);

/// Why a certificate cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsContextError {
    #[error("{}: not a chain that can be used: {reason}", path.display())]
    Chain { path: PathBuf, reason: String },
    #[error("{}: the private key cannot be used: {reason}: RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519", path.display())]
    Key { path: PathBuf, reason: Error },
    #[error("{}: the private key does not belong to the first certificate of the chain", path.display())]
    KeyMismatch { path: PathBuf },
    #[error("TLS cannot be set up: {0}")]
    Library(Error),
}

impl TlsContext {
    /// Checks each key against its certificate.
    pub fn new(credentials: Vec<Credential>) -> Result<Self, TlsContextError> {
        let provider = Arc::new(rustls_ring::DEFAULT_PROVIDER);
        let ticketer = provider.ticketer_factory.ticketer().map_err(TlsContextError::Library)?;
        let config = server_config(credentials, provider, Some(ticketer))?;
        Ok(Self(Arc::new(ArcSwap::from_pointee(config))))
    }

    /// Handshakes that begin from now on use these certificates, if all of them can be used; else nothing changes. Tickets
    /// from before are still good.
    pub fn replace(&self, credentials: Vec<Credential>) -> Result<(), TlsContextError> {
        let before = self.0.load_full();
        let provider = Arc::clone(before.provider());
        let config = server_config(credentials, provider, before.ticketer.clone())?;
        self.0.store(Arc::new(config));
        Ok(())
    }

    /// For one handshake, from its beginning to its end.
    fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

fn server_config(
    credentials: Vec<Credential>,
    provider: Arc<CryptoProvider>,
    ticketer: Option<Arc<dyn TicketProducer>>,
) -> Result<ServerConfig, TlsContextError> {
    let candidates = credentials
        .into_iter()
        .map(|credential| checked(credential, provider.key_provider))
        .collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder(provider)
        .with_no_client_auth()
        .with_server_credential_resolver(Arc::new(Resolver(candidates)))
        .map_err(TlsContextError::Library)?;
    // Tickets alone: a session store would be a lock shared by the workers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ticketer;
    // A name that is none is no reason to refuse mail.
    config.invalid_sni_policy = InvalidSniPolicy::IgnoreAll;
    Ok(config)
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsContext")
    }
}

/// The configured certificates, in the operator's order.
#[derive(Debug)]
struct Resolver(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    names: DnsNames,
    credentials: Credentials,
}

impl ServerCredentialResolver for Resolver {
    fn resolve(&self, client_hello: &ClientHello<'_>) -> Result<SelectedCredential, Error> {
        let schemes = client_hello.signature_schemes();
        let name = client_hello.server_name().map(AsRef::as_ref);
        let signer = |candidate: &Candidate| candidate.credentials.signer(schemes);
        choice::choose(&self.0, name, |candidate| &candidate.names, signer)
            .ok_or(Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon))
    }
}

fn checked(
    credential: Credential,
    keys: &dyn rustls::crypto::KeyProvider,
) -> Result<Candidate, TlsContextError> {
    let Credential { chain, key, leaf, source: path } = credential;
    let key = keys
        .load_private_key(key)
        .map_err(|reason| TlsContextError::Key { path: path.clone(), reason })?;
    if key.public_key().is_some_and(|spki| spki.as_ref() != leaf.public_key) {
        return Err(TlsContextError::KeyMismatch { path });
    }
    let identity = Identity::from_cert_chain(chain)
        .map_err(|error| TlsContextError::Chain { path, reason: format!("{error:?}") })?;
    let credentials = Credentials::new_unchecked(Arc::new(identity), key);
    Ok(Candidate { names: leaf.names, credentials })
}

/// One connection's TLS, from before the ClientHello on.
pub struct TlsStream(State);

/// What was seen of a handshake, to explain its failure. Gone when it succeeds.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the client sent up to its ClientHello's end, as it came.
    pub hello: Vec<u8>,
    /// Octets that the library has taken of it.
    consumed: usize,
    /// Our flight was sent.
    answered: bool,
}

struct Handshake {
    expects: NeedsInput<ServerSide>,
    seen: Seen,
}

enum State {
    /// Boxed: twice the size of all that follows, and gone after a round trip.
    ExpectHandshake(Box<Handshake>),
    ExpectTraffic {
        receive: ReceiveTraffic<ServerSide>,
        send: SendTraffic,
    },
    /// The peer sent close_notify; we may still send.
    PeerClosed {
        send: SendTraffic,
    },
    /// A failure ended it, in the handshake if something is seen of one, or a state is being replaced.
    Failed(Option<Box<Seen>>),
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

/// The TLS of a connection broke. Whatever alert belongs to it has been appended to the output.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsFailure(Error);

impl TlsStream {
    /// The server's side, waiting for a ClientHello.
    pub fn accept() -> Self {
        let handshake = Handshake { expects: ServerHandshake::start(), seen: Seen::default() };
        Self(State::ExpectHandshake(Box::new(handshake)))
    }

    /// What was seen of a handshake that is not through.
    pub fn seen(&self) -> Option<&Seen> {
        match &self.0 {
            State::ExpectHandshake(handshake) => Some(&handshake.seen),
            State::Failed(seen) => seen.as_deref(),
            State::ExpectTraffic { .. } | State::PeerClosed { .. } => None,
        }
    }

    pub fn is_established(&self) -> bool {
        matches!(self.0, State::ExpectTraffic { .. } | State::PeerClosed { .. })
    }

    /// Goes one event ahead in `input`, decrypting in place. What is to be sent is appended to `out`, also on failure.
    pub fn advance(
        &mut self,
        input: &mut [u8],
        context: &TlsContext,
        out: &mut Vec<u8>,
    ) -> Result<Advance, TlsFailure> {
        match std::mem::replace(&mut self.0, State::Failed(None)) {
            State::ExpectHandshake(handshake) => {
                let Handshake { expects, mut seen } = *handshake;
                let result = self.shake(expects, &mut seen, input, context, out);
                match &mut self.0 {
                    State::ExpectHandshake(handshake) => handshake.seen = seen,
                    State::Failed(failed) => *failed = Some(Box::new(seen)),
                    State::ExpectTraffic { .. } | State::PeerClosed { .. } => {}
                }
                result
            }
            State::ExpectTraffic { receive, send } => self.receive(receive, send, input, out),
            closed @ State::PeerClosed { .. } => {
                self.0 = closed;
                Ok(Advance { used: input.len(), event: TlsEvent::PeerClosed })
            }
            State::Failed(seen) => {
                self.0 = State::Failed(seen);
                Err(TlsFailure(Error::HandshakeNotComplete))
            }
        }
    }

    /// Appends `plaintext` as records. It is copied once, by encryption.
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsFailure> {
        match &mut self.0 {
            State::ExpectTraffic { send, .. } | State::PeerClosed { send } => {
                send.write(OutboundPlain::from(plaintext), out).map_err(TlsFailure)
            }
            State::ExpectHandshake(_) | State::Failed(_) => {
                Err(TlsFailure(Error::HandshakeNotComplete))
            }
        }
    }

    /// Appends close_notify, so that the peer can tell the end from a cut.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if let State::ExpectTraffic { send, .. } | State::PeerClosed { send } =
            std::mem::replace(&mut self.0, State::Failed(None))
        {
            // The connection is closed next, whether or not the alert could be made.
            let _ = send.close(out);
        }
    }

    fn shake(
        &mut self,
        mut handshake: NeedsInput<ServerSide>,
        seen: &mut Seen,
        input: &mut [u8],
        context: &TlsContext,
        out: &mut Vec<u8>,
    ) -> Result<Advance, TlsFailure> {
        seen.note(input);
        let mut used = 0;
        loop {
            let mut rest = SliceInput::new(input.get_mut(used..).unwrap_or_default());
            let next = handshake.process(&mut rest, out).map_err(TlsFailure)?;
            used += rest.into_used();
            match next {
                ServerHandshake::NeedsInput(expects) => {
                    seen.consumed += used;
                    let handshake = Handshake { expects, seen: Seen::default() };
                    self.0 = State::ExpectHandshake(Box::new(handshake));
                    return Ok(Advance { used, event: TlsEvent::NeedInput });
                }
                ServerHandshake::Accepted(accepted) => {
                    let next = accepted.choose_config(context.current(), out);
                    match next.map_err(TlsFailure)? {
                        // Octets of the next flight may already be here.
                        ServerHandshake::NeedsInput(needs_input) => {
                            seen.answered = true;
                            handshake = needs_input;
                        }
                        _ => return Err(TlsFailure(Error::HandshakeNotComplete)),
                    }
                }
                ServerHandshake::Complete(connection) => {
                    let established = Established::of(&connection.outputs);
                    let (receive, send) = (connection.receive, connection.send);
                    self.0 = State::ExpectTraffic { receive, send };
                    return Ok(Advance { used, event: TlsEvent::Established(established) });
                }
                // Client certificates are not asked for, and the enum may grow.
                _ => return Err(TlsFailure(Error::HandshakeNotComplete)),
            }
        }
    }

    fn receive(
        &mut self,
        receive: ReceiveTraffic<ServerSide>,
        mut send: SendTraffic,
        input: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Advance, TlsFailure> {
        let start = input.as_ptr().addr();
        let mut slice = SliceInput::new(input);
        let mut event = TlsEvent::NeedInput;
        let mut state = match receive.read(&mut slice) {
            Ok(ReceiveTrafficState::Available(mut available)) => {
                let data = available.data();
                let at = data.as_ptr().addr().wrapping_sub(start);
                event = TlsEvent::Plaintext(at..at + data.len());
                available.into_next()
            }
            Ok(ReceiveTrafficState::FlushSender(flush)) => {
                flush_sender(&mut send, out);
                // Not `NeedInput`: only a read that wanted more says so.
                event = TlsEvent::Plaintext(0..0);
                flush.into_next()
            }
            Ok(ReceiveTrafficState::ReadMore(receive)) => ReceiveTrafficState::ReadMore(receive),
            Ok(ReceiveTrafficState::CloseNotify) => ReceiveTrafficState::CloseNotify,
            Err(error) => {
                flush_sender(&mut send, out);
                return Err(TlsFailure(error));
            }
        };
        if let ReceiveTrafficState::FlushSender(flush) = state {
            flush_sender(&mut send, out);
            state = flush.into_next();
        }
        self.0 = match state {
            ReceiveTrafficState::ReadMore(receive) => State::ExpectTraffic { receive, send },
            _ => State::PeerClosed { send },
        };
        if event == TlsEvent::NeedInput && matches!(self.0, State::PeerClosed { .. }) {
            event = TlsEvent::PeerClosed;
        }
        Ok(Advance { used: slice.into_used(), event })
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

impl TlsFailure {
    /// Who ended it, by what the library says.
    pub fn ending(&self) -> Ending {
        match &self.0 {
            Error::AlertReceived(alert) => Ending::AlertReceived((*alert).into()),
            _ => Ending::WeRefused,
        }
    }

    /// The alert that was sent for it, by its number.
    pub fn alert_sent(&self) -> Option<u8> {
        AlertDescription::try_from(&self.0).ok().map(u8::from)
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

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let credential = |name: &str| {
            let state = tempfile::tempdir().unwrap();
            crate::tls::load(&Default::default(), name, state.path()).unwrap().remove(0)
        };
        let (one, two) = (credential("one.example.net"), credential("two.example.net"));
        assert!(TlsContext::new(vec![one.clone()]).is_ok());
        let mixed = Credential { key: two.key, ..one };
        assert!(matches!(TlsContext::new(vec![mixed]), Err(TlsContextError::KeyMismatch { .. })));
    }
}
