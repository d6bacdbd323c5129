//! Message octets under TLS, from the socket to the spool: they stay where they were received, and are decrypted there.
//!
//! That the spool writes them from there is a test of the spool's.

use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ClientSide;
use rustls::client::danger::{
    HandshakeSignatureValid, ServerIdentity, ServerVerifier, SignatureVerificationInput,
};
use rustls::crypto::cipher::OutboundPlain;
use rustls::crypto::{CryptoProvider, SignatureScheme, VerifiedIdentity};
use rustls::{ClientConfig, Connection as TlsConnection, Error, Tcp, VecInput};

use super::admission::Admission;
use super::buffers::{BufferPool, Chunk};
use super::clock::Now;
use super::connection::{Connection, Handshakes, Outcome, Scratch};
use super::error_log::ErrorLog;
use super::run::Shared;
use super::tls::TlsContext;
use super::watch::WatchList;
use crate::bans;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::policy::{ClientNetworks, RecipientDomains, TargetExtensions};
use crate::smtp::dialect::Dialect;
use crate::smtp::session::Tls;
use crate::smtp::{Session, Settings};
use crate::tls::journal;
use crate::tls::memory::MemorySettings;
use crate::tls::verdict::Own;

/// For what the kernel does with octets on the loopback: long enough for any machine, waited for only when a test fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Before each plaintext stands the header of its record.
const HEADER_BYTES: usize = 5;

/// What else a record has, beside its plaintext. In TLS 1.2 an explicit nonce (RFC 5288 section 3), over which decryption writes,
/// and the tag; in TLS 1.3 the content type (RFC 8446 section 5.2) and the tag.
const TLS_1_2_OVERHEAD_BYTES: usize = 8 + 16;
const TLS_1_3_OVERHEAD_BYTES: usize = 1 + 16;

#[test]
fn a_message_under_tls_1_3_is_where_it_was_received() {
    is_where_it_was_received(&rustls_ring::DEFAULT_TLS13_PROVIDER, TLS_1_3_OVERHEAD_BYTES);
}

#[test]
fn a_message_under_tls_1_2_is_where_it_was_received() {
    is_where_it_was_received(&rustls_ring::DEFAULT_TLS12_PROVIDER, TLS_1_2_OVERHEAD_BYTES);
}

/// A message that fills several buffers: each of its pieces is the plaintext of a whole record that still has its header before
/// it, in the buffer that the socket was read into.
fn is_where_it_was_received(provider: &CryptoProvider, overhead_bytes: usize) {
    let mut exchange = Exchange::start(provider);
    for (line, reply) in [
        ("EHLO client.example.org", "250"),
        ("MAIL FROM:<sender@example.org>", "250"),
        ("RCPT TO:<user@example.net>", "250"),
        ("DATA", "354"),
    ] {
        exchange.command(line, reply);
    }
    let text = message();
    let body = exchange.send_message(&text);
    assert!(body.len() > 2, "several buffers, not {}", body.len());
    let mut arrived = Vec::new();
    for chunk in body {
        let pieces: Vec<_> =
            chunk.pieces().map(|piece| (piece.as_ptr().addr(), piece.len())).collect();
        let buffer = chunk.into_buffer();
        let start = buffer.bytes().as_ptr().addr();
        for (address, length) in pieces {
            let at = address - start;
            let header = &buffer.bytes()[at - HEADER_BYTES..at];
            let record = u16::from_be_bytes([header[3], header[4]]);
            assert_eq!(header[..3], [23, 3, 3], "no record begins before the piece at {at}");
            assert_eq!(usize::from(record), length + overhead_bytes, "at {at}");
            arrived.extend_from_slice(&buffer.bytes()[at..at + length]);
        }
    }
    assert!(arrived == text, "{} octets arrived of {}", arrived.len(), text.len());
}

/// 300,000 octets of text, no two lines alike, with its end.
fn message() -> Vec<u8> {
    let lines = (0..10_000).map(|number| format!("line {number:020} text\r\n"));
    lines.chain([".\r\n".to_owned()]).collect::<String>().into_bytes()
}

/// A client and the connection that serves it, one after the other on the same thread.
struct Exchange {
    server: Shared,
    connection: Connection,
    client: Client,
}

impl Exchange {
    /// Up to the greeting, on a listener where TLS comes first.
    fn start(provider: &CryptoProvider) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = Client::connect(&listener, provider);
        let (socket, peer) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut server = shared();
        let session = Session::new(Arc::new(settings()), peer.ip(), Now::read().monotonic);
        let socket = mio::net::TcpStream::from_std(socket);
        let mut connection =
            Connection::new(socket, 0, Some(peer.ip()), session, &mut server.turn(Now::read()));
        client.await_reply("220", || drive(&mut connection, &mut server));
        Self { server, connection, client }
    }

    fn command(&mut self, line: &str, reply: &str) {
        self.client.write(format!("{line}\r\n").as_bytes());
        self.client.await_reply(reply, || drive(&mut self.connection, &mut self.server));
    }

    /// The body as it goes to the spool.
    fn send_message(&mut self, text: &[u8]) -> Vec<Chunk> {
        let mut client = self.client.socket.try_clone().unwrap();
        client.set_nonblocking(false).unwrap();
        let mut tls = Vec::new();
        // The library makes records of 16 KiB; the small ones in front of them stay where they are too.
        let (first, rest) = text.split_at(3_000);
        let (second, rest) = rest.split_at(100);
        for part in [first, second, rest] {
            self.client.tls.write(OutboundPlain::from(part), &mut tls).unwrap();
        }
        // More than the kernel keeps: somebody has to read meanwhile.
        let sender = std::thread::spawn(move || client.write_all(&tls));
        let until = Now::read().monotonic + DEADLINE;
        loop {
            assert!(Now::read().monotonic < until, "the message is not complete");
            self.connection.note_readable(false);
            match self.connection.drive(&mut self.server.turn(Now::read())) {
                Outcome::Submit { body, .. } => {
                    sender.join().unwrap().unwrap();
                    return body;
                }
                Outcome::Wait | Outcome::Again => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// One step of the server.
fn drive(connection: &mut Connection, server: &mut Shared) {
    connection.note_readable(false);
    let outcome = connection.drive(&mut server.turn(Now::read()));
    assert!(matches!(outcome, Outcome::Wait | Outcome::Again), "{outcome:?}");
}

/// The TLS library's own client, which trusts anybody.
struct Client {
    socket: TcpStream,
    tls: TlsConnection<ClientSide, Tcp>,
    received: VecInput,
    plaintext: Vec<u8>,
}

impl Client {
    fn connect(listener: &TcpListener, provider: &CryptoProvider) -> Self {
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let config = ClientConfig::builder(Arc::new(provider.clone()))
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_no_client_auth()
            .unwrap();
        let mut hello = Vec::new();
        let name = "mx.example.net".try_into().unwrap();
        let tls = Arc::new(config).connect(name).build(&mut hello).unwrap();
        socket.write_all(&hello).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, tls, received: VecInput::default(), plaintext: Vec::new() }
    }

    fn write(&mut self, plaintext: &[u8]) {
        let mut tls = Vec::new();
        self.tls.write(OutboundPlain::from(plaintext), &mut tls).unwrap();
        self.socket.write_all(&tls).unwrap();
    }

    /// Has the server go on until the reply is there.
    fn await_reply(&mut self, reply: &str, mut serve: impl FnMut()) {
        let until = Now::read().monotonic + DEADLINE;
        self.plaintext.clear();
        while !self.plaintext.ends_with(b"\r\n") {
            assert!(Now::read().monotonic < until, "no reply");
            serve();
            self.receive();
        }
        assert!(self.plaintext.starts_with(reply.as_bytes()), "{:?}", self.plaintext);
    }

    fn receive(&mut self) {
        let mut octets = [0; 16 << 10];
        // Nothing there yet is no error here.
        let count = self.socket.read(&mut octets).unwrap_or(0);
        self.received.read(&mut &octets[..count]).unwrap();
        let mut tls = Vec::new();
        self.tls.read_tls(&mut self.received, &mut tls).handle_all(&mut self.plaintext).unwrap();
        self.socket.write_all(&tls).unwrap();
    }
}

#[derive(Debug)]
struct Trusting;

impl ServerVerifier for Trusting {
    fn verify_identity<'a>(
        &self,
        identity: &ServerIdentity<'a, '_>,
    ) -> Result<VerifiedIdentity<'a>, Error> {
        Ok(VerifiedIdentity::assertion(identity.identity.clone()))
    }

    fn verify_tls12_signature(
        &self,
        _input: &SignatureVerificationInput<'_>,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _input: &SignatureVerificationInput<'_>,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn request_ocsp_response(&self) -> bool {
        false
    }

    fn hash_config(&self, _hasher: &mut dyn Hasher) {}
}

/// What a worker's connections share.
fn shared() -> Shared {
    let state = tempfile::tempdir().unwrap();
    let credentials =
        crate::tls::load(&Default::default(), "mx.example.net", state.path()).unwrap();
    let own = Box::new(|| Own::with_keys(&[]));
    let (journal, _, _) = journal::start(MemorySettings::default(), own, state.path()).unwrap();
    let no_mail = Box::new(|_, _| false);
    let (bans, _, _) = bans::start(Default::default(), None, no_mail, state.path()).unwrap();
    Shared {
        index: 0,
        pool: BufferPool::new(64, Now::read().monotonic),
        scratch: Scratch::default(),
        services: vec![TlsContext::new(credentials).unwrap().service().unwrap()],
        admission: Arc::new(Admission::new(1, 1)),
        watches: WatchList::default(),
        errors: ErrorLog::default(),
        journal,
        bans,
        handshakes: Handshakes { in_flight: 0, max: 1 },
        metrics: Arc::new(Metrics::new(&[0])),
    }
}

fn settings() -> Settings {
    let limits = Limits::default();
    Settings {
        hostname: "mx.example.net".into(),
        dialect: Dialect::Smtp,
        tls: Tls::Implicit,
        domains: RecipientDomains::Any,
        networks: ClientNetworks::default(),
        target: TargetExtensions::default(),
        idle_timeout: limits.idle_timeout,
        tls_handshake_timeout: limits.tls_handshake_timeout,
        commit_timeout: limits.commit_timeout,
        proxy_header_timeout: limits.proxy_header_timeout,
        greet_delay: limits.greet_delay,
        command_line_bytes_max: limits.command_line_bytes_max,
        message_bytes_max: limits.message_bytes_max,
        text_line_bytes_max: limits.text_line_bytes_max,
        recipients_max: limits.recipients_max,
        messages_max: limits.messages_per_session_max,
        errors_max: limits.errors_max,
        errors_undelayed_max: limits.errors_undelayed_max,
        error_delay: limits.error_delay,
    }
}
