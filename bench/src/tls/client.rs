//! The load: a client that is the same for every server, and spends as little as it can.
//!
//! It checks no certificate and no signature, resumes nothing, and offers nothing but TLS 1.3 with X25519 and
//! AES-128-GCM, so that no server can choose something cheaper than another.

use std::borrow::Cow;
use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::danger::{
    HandshakeSignatureValid, ServerIdentity, ServerVerifier, SignatureVerificationInput,
};
use rustls::client::{ClientConfig, ClientSide, Resumption};
use rustls::crypto::cipher::OutboundPlain;
use rustls::crypto::{CryptoProvider, SignatureScheme, VerifiedIdentity};
use rustls::{Connection, Error, Tcp, VecInput};
use rustls_pki_types::ServerName;

/// For each receive: a server that is stuck fails the measurement.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Octets that are encrypted before they are sent: four records of the largest size.
const WRITE_BYTES: usize = 64 * 1024;

/// A configuration for all connections of a measurement.
pub(crate) fn config() -> Result<Arc<ClientConfig>> {
    let provider = CryptoProvider {
        tls13_cipher_suites: Cow::Owned(vec![rustls_ring::cipher_suite::TLS13_AES_128_GCM_SHA256]),
        kx_groups: Cow::Owned(vec![rustls_ring::kx_group::X25519]),
        ..rustls_ring::DEFAULT_TLS13_PROVIDER
    };
    let mut config = ClientConfig::builder(Arc::new(provider))
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll))
        .with_no_client_auth()?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A connection, in clear until [`start_tls`](Self::start_tls).
pub(crate) struct Client {
    stream: TcpStream,
    tls: Option<Connection<ClientSide, Tcp>>,
    /// Sealed octets received.
    input: VecInput,
    /// Sealed octets to be sent.
    output: Vec<u8>,
    /// Received in clear, or decrypted, and not read yet.
    plain: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .context("cannot connect; more connections take a higher `ulimit -n`")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        let (input, output, plain) = (VecInput::default(), Vec::new(), Vec::new());
        Ok(Self { stream, tls: None, input, output, plain })
    }

    /// From the greeting to an encrypted session of SMTP, by STARTTLS.
    pub(crate) fn starttls(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let mut client = Self::connect(address)?;
        client.expect("220")?;
        client.command(b"EHLO bench.example\r\n", "250")?;
        client.command(b"STARTTLS\r\n", "220")?;
        client.start_tls(config)?;
        Ok(client)
    }

    /// A whole handshake, up to our Finished.
    pub(crate) fn start_tls(&mut self, config: &Arc<ClientConfig>) -> Result<()> {
        ensure!(self.plain.is_empty(), "the server went on in clear");
        let name = ServerName::try_from("mx.test")?;
        self.tls = Some(config.connect(name).build(&mut self.output)?);
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.flush()?;
            ensure!(self.receive()? > 0, "closed in the handshake");
        }
        self.flush()
    }

    /// Sends a line and reads the reply.
    pub(crate) fn command(&mut self, line: &[u8], code: &str) -> Result<()> {
        self.send(line)?;
        self.expect(code)
    }

    /// Reads a reply to its last line, which has to begin with `code`.
    pub(crate) fn expect(&mut self, code: &str) -> Result<()> {
        loop {
            while let Some(end) = self.plain.windows(2).position(|octets| octets == b"\r\n") {
                let line: Vec<u8> = self.plain.drain(..end + 2).collect();
                if line.get(3) != Some(&b'-') {
                    let line = String::from_utf8_lossy(&line);
                    ensure!(line.starts_with(code), "expected {code}, got {line:?}");
                    return Ok(());
                }
            }
            ensure!(self.receive()? > 0, "closed, expected {code}");
        }
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.stream.write_all(octets)?);
        };
        for part in octets.chunks(WRITE_BYTES) {
            tls.write(OutboundPlain::from(part), &mut self.output)?;
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Says that nothing more comes, and waits until the server has closed: it has done then all that it had to.
    pub(crate) fn close(mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify(&mut self.output)?;
        }
        self.flush()?;
        while self.receive()? > 0 {
            self.plain.clear();
        }
        Ok(())
    }

    /// The socket alone, for a connection that stands idle: the client's TLS takes memory too.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.stream
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Octets that came from the socket; 0 at its end, or at the end of TLS.
    fn receive(&mut self) -> Result<usize> {
        let Some(tls) = &mut self.tls else {
            let mut octets = [0; 4096];
            let count = self.stream.read(&mut octets)?;
            self.plain.extend_from_slice(octets.get(..count).unwrap_or_default());
            return Ok(count);
        };
        let count = self.input.read(&mut self.stream)?;
        if let Err(error) =
            tls.read_tls(&mut self.input, &mut self.output).handle_all(&mut self.plain)
        {
            bail!("the server's TLS: {error}");
        }
        Ok(count)
    }
}

/// Believes everything: what the client would spend on checks is no matter of the server's.
#[derive(Debug)]
struct TrustAll;

impl ServerVerifier for TrustAll {
    fn verify_identity<'a>(
        &self,
        server: &ServerIdentity<'a, '_>,
    ) -> Result<VerifiedIdentity<'a>, Error> {
        Ok(VerifiedIdentity::assertion(server.identity.clone()))
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
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }

    fn request_ocsp_response(&self) -> bool {
        false
    }

    fn hash_config(&self, _hasher: &mut dyn Hasher) {}
}
