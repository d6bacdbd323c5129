//! The MTA-STS policy over HTTPS (RFC 8461 3.3): one small file, to whoever asks for it by the right name.
//!
//! It is a service beside the mail: what goes wrong here is logged and costs a policy, never a message. Everything that a
//! client can take is bounded, descriptors first.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::limited::Limited;
use super::status::MtaStsStatus;
use crate::config::MtaStsConfig;
use crate::dns::policy::{Mode, Policy};
use crate::policy::RecipientDomains;
use crate::tls::reload::Certificates;

/// From the accept to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// From the handshake to the end of the request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest life of a connection. It is for one request, and senders give up after a minute (RFC 8461 3.3).
const LIFETIME_MAX: Duration = Duration::from_secs(30);

/// Octets of a request's header. Those of browsers have less than 2 KiB; hyper takes no smaller bound than 8 KiB.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// Connections at once of one client. Fewer than are served in all: nobody is to keep the policy from others, since who does
/// not get it delivers without (RFC 8461 10.2).
const CLIENT_CONNECTIONS_MAX: usize = 8;

/// What makes a client: an IPv6 host has a network of this size.
const CLIENT_IPV6_PREFIX: u8 = 64;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Why the policy cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the MTA-STS policy on {address} (mta_sts.listen): {source}")]
pub struct MtaStsError {
    address: SocketAddr,
    source: io::Error,
}

/// Sockets to serve the policy on, bound before the daemon says that it is ready.
#[derive(Debug)]
pub struct BoundMtaSts(Vec<(SocketAddr, TcpListener)>);

impl BoundMtaSts {
    /// Fails when the system refuses an address.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, MtaStsError> {
        let bind = |&address: &SocketAddr| {
            listener(address).map_err(|source| MtaStsError { address, source })
        };
        addresses.iter().map(bind).collect::<Result<_, _>>().map(Self)
    }

    /// With the ports the kernel chose where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|(address, _)| *address).collect()
    }

    /// Answers, and logs after each reload what is wrong with the certificates, until dropped. Needs a tokio runtime with I/O
    /// and time.
    pub async fn serve(self, site: Arc<PolicySite>) {
        let mut tasks = JoinSet::new();
        for (address, listener) in self.0 {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => drop(tasks.spawn(accept(listener, Arc::clone(&site)))),
                Err(error) => tracing::error!(%address, %error, "MTA-STS policy not served"),
            }
        }
        let mut reloads = site.certificates.reloads();
        loop {
            site.report();
            if reloads.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whose policy is served, and what it is made from.
#[derive(Debug)]
pub struct PolicySite {
    hostname: String,
    domains: RecipientDomains,
    settings: MtaStsConfig,
    certificates: Arc<Certificates>,
}

impl PolicySite {
    pub fn new(
        hostname: &str,
        domains: RecipientDomains,
        settings: MtaStsConfig,
        certificates: Arc<Certificates>,
    ) -> Self {
        Self { hostname: hostname.to_owned(), domains, settings, certificates }
    }

    /// Those for mail, and those that the policy is served with.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// That of the certificates of the moment, as `ingress dns` prints it.
    fn policy(&self) -> Policy {
        let served = self.certificates.served();
        let certificates = served.iter().map(|served| (&served.names, served.is_self_signed));
        Policy::new(&self.hostname, &self.settings, certificates)
    }

    /// `addresses`: where it is served.
    pub fn status(&self, addresses: Vec<SocketAddr>) -> MtaStsStatus {
        let mode = (!addresses.is_empty()).then(|| self.policy().mode.keyword().to_owned());
        MtaStsStatus { addresses, mode }
    }

    /// Logs why senders would not get the policy, or would bring no mail because of it.
    fn report(&self) {
        let uncovered = self.uncovered();
        if !uncovered.is_empty() {
            tracing::warn!(
                names = uncovered.join(", "),
                "no certificate is for the host of the MTA-STS policy: senders do not take the policy from it"
            );
        }
        let policy = self.policy();
        if policy.mode == Mode::Enforce && !policy.is_verifiable {
            tracing::warn!(
                hostname = self.hostname,
                "mta_sts.mode is \"enforce\", and the certificate is self-signed or not for this host: \
                 senders that heed the policy bring no mail"
            );
        }
    }

    /// Names that senders ask for and no certificate is for.
    fn uncovered(&self) -> Vec<String> {
        let served = self.certificates.served_https();
        let hosts = self.domains.names().into_iter().map(Policy::host);
        hosts.filter(|host| !served.iter().any(|served| served.names.fit(host))).collect()
    }

    fn answer<B: Body>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let is_ours = host(request).is_some_and(|host| Policy::is_host(&host, &self.domains));
        if !is_ours || request.uri().path() != Policy::PATH {
            let known =
                format!("There is nothing here but the MTA-STS policy, at {}.\n", Policy::PATH);
            return text(StatusCode::NOT_FOUND, known);
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let sentence = "The MTA-STS policy can only be read.\n".to_owned();
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, sentence);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if !request.body().is_end_stream() {
            let sentence = "A request for the MTA-STS policy has no body.\n".to_owned();
            return text(StatusCode::PAYLOAD_TOO_LARGE, sentence);
        }
        text(StatusCode::OK, self.policy().text)
    }
}

/// Serves one listener; a failure to accept is waited out there (`axum::serve::Listener`).
async fn accept(listener: tokio::net::TcpListener, site: Arc<PolicySite>) -> Infallible {
    let mut listener = Limited::new(listener, LIFETIME_MAX);
    let mut connections = JoinSet::new();
    let mut clients = Clients::default();
    loop {
        let (stream, client) = listener.accept().await;
        // Those that have ended: the set keeps them until asked.
        while connections.try_join_next().is_some() {}
        let Some(place) = clients.place(client.ip()) else { continue };
        let connection = serve_connection(stream, client, Arc::clone(&site));
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

/// Who is being served. Each connection has a share of its client's entry.
#[derive(Debug, Default)]
struct Clients(HashMap<IpAddr, Arc<()>>);

impl Clients {
    /// For as long as the connection is open; `None` where the client has enough of them.
    fn place(&mut self, client: IpAddr) -> Option<Arc<()>> {
        self.0.retain(|_, place| Arc::strong_count(place) > 1);
        let client = match client {
            IpAddr::V4(_) => client,
            IpAddr::V6(_) => {
                IpNet::new(client, CLIENT_IPV6_PREFIX).map_or(client, |net| net.network())
            }
        };
        let place = self.0.entry(client).or_default();
        (Arc::strong_count(place) <= CLIENT_CONNECTIONS_MAX).then(|| Arc::clone(place))
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: SocketAddr,
    site: Arc<PolicySite>,
) {
    let Some(acceptor) = site.certificates.https_acceptor() else { return };
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%client, %error, "MTA-STS: TLS failed"),
        Err(_elapsed) => return tracing::debug!(%client, "MTA-STS: no TLS in time"),
    };
    let service = service_fn(|request: Request<Incoming>| {
        let response = site.answer(&request);
        let (method, uri, status) = (request.method(), request.uri(), response.status().as_u16());
        tracing::debug!(%client, %method, %uri, status, "MTA-STS");
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%client, %error, "MTA-STS: no whole request");
    }
}

/// The host that is asked, without port and the root's dot: of an absolute target, else of the header (RFC 9112 3.2.2).
fn host<B>(request: &Request<B>) -> Option<String> {
    let host = match request.uri().host() {
        Some(host) => host.to_owned(),
        None => {
            let value = request.headers().get(HOST)?;
            Authority::try_from(value.as_bytes()).ok()?.host().to_owned()
        }
    };
    Some(host.strip_suffix('.').map(str::to_owned).unwrap_or(host))
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// IPv6 alone on an IPv6 address, as the listeners for mail, so that both families can have the port.
fn listener(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    Ok((listener.local_addr()?, listener))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::config::TlsConfig;

    fn site(domains: RecipientDomains) -> Arc<PolicySite> {
        let state = tempfile::tempdir().unwrap();
        let certificates =
            Certificates::load(TlsConfig::default(), "mx.example.net", state.path()).unwrap();
        let certificates = Arc::new(certificates.with_https(Vec::new()).unwrap());
        let settings = MtaStsConfig::default();
        Arc::new(PolicySite::new("mx.example.net", domains, settings, certificates))
    }

    fn listed() -> Arc<PolicySite> {
        site(RecipientDomains::listed(["example.net", "example.org"]))
    }

    fn request(method: &str, target: &str, host: Option<&str>) -> Request<Empty<Bytes>> {
        let builder = Request::builder().method(method).uri(target);
        let builder = host.into_iter().fold(builder, |builder, host| builder.header(HOST, host));
        builder.body(Empty::new()).unwrap()
    }

    fn status(site: &PolicySite, method: &str, target: &str, host: Option<&str>) -> u16 {
        site.answer(&request(method, target, host)).status().as_u16()
    }

    #[tokio::test]
    async fn the_policy_is_plain_text_and_the_one_of_the_host() {
        let site = listed();
        let request = request("GET", Policy::PATH, Some("mta-sts.example.net"));
        let response = site.answer(&request);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, site.policy().text);
        assert!(site.policy().text.contains("mx: mx.example.net\n"));
    }

    #[test]
    fn a_host_has_a_policy_in_any_case_and_with_any_port() {
        let site = listed();
        for host in ["MTA-STS.Example.ORG", "mta-sts.example.net:443", "mta-sts.example.net."] {
            assert_eq!(status(&site, "GET", Policy::PATH, Some(host)), 200, "{host}");
            assert_eq!(status(&site, "HEAD", Policy::PATH, Some(host)), 200, "{host}");
        }
        // The target counts, not the header (RFC 9112 3.2.2).
        let absolute = Policy::address("example.net");
        assert_eq!(status(&site, "GET", &absolute, Some("other.example")), 200);
        let other = Policy::address("example.com");
        assert_eq!(status(&site, "GET", &other, Some("mta-sts.example.net")), 404);
    }

    #[test]
    fn another_host_or_path_is_not_found() {
        let site = listed();
        for host in
            ["example.net", "mx.example.net", "mta-sts.example.com", "127.0.0.1", "", "[", "a b"]
        {
            assert_eq!(status(&site, "GET", Policy::PATH, Some(host)), 404, "{host}");
        }
        assert_eq!(status(&site, "GET", Policy::PATH, None), 404);
        for path in ["/", "/.well-known/", "/.well-known/mta-sts.txt/", "/.WELL-KNOWN/MTA-STS.TXT"]
        {
            assert_eq!(status(&site, "GET", path, Some("mta-sts.example.net")), 404, "{path}");
        }
        let any = self::site(RecipientDomains::Any);
        assert_eq!(status(&any, "GET", Policy::PATH, Some("mta-sts.example.net")), 404);
    }

    #[test]
    fn only_reading_is_allowed_and_no_body_is_taken() {
        let site = listed();
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            let request = request(method, Policy::PATH, Some("mta-sts.example.net"));
            let response = site.answer(&request);
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
            assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        }
        let request = Request::get(Policy::address("example.net"));
        let request = request.body(Full::new(Bytes::from_static(b"a"))).unwrap();
        assert_eq!(site.answer(&request).status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn hosts_without_a_certificate_are_named() {
        let site = listed();
        assert_eq!(site.uncovered(), ["mta-sts.example.net", "mta-sts.example.org"]);
        assert!(self::site(RecipientDomains::Any).uncovered().is_empty());
    }

    #[test]
    fn an_address_in_use_is_named_with_its_key() {
        let bound = BoundMtaSts::bind(&[([127, 0, 0, 1], 0).into()]).unwrap();
        let addresses = bound.addresses();
        assert_ne!(addresses[0].port(), 0);
        let error = BoundMtaSts::bind(&addresses).unwrap_err().to_string();
        assert!(error.contains("(mta_sts.listen): Address already in use"), "{error}");
        assert!(error.contains(&addresses[0].to_string()), "{error}");
    }

    #[test]
    fn a_client_has_so_many_places_and_leaves_the_rest_to_others() {
        let mut clients = Clients::default();
        for (client, same, other) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1"),
        ] {
            let [client, same, other]: [IpAddr; 3] =
                [client, same, other].map(|address| address.parse().unwrap());
            let mut places: Vec<_> = (0..CLIENT_CONNECTIONS_MAX)
                .map(|_| clients.place(client).expect("there is room"))
                .collect();
            assert!(clients.place(same).is_none());
            assert!(clients.place(other).is_some());
            places.pop();
            assert!(clients.place(same).is_some());
        }
        clients.place([192, 0, 2, 3].into());
        assert_eq!(clients.0.len(), 1, "who has gone is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_finishes_its_hello_is_cut_off() {
        let (mut client, server) = duplex(1 << 10);
        let began = Instant::now();
        let serving = tokio::spawn(serve_connection(server, ([127, 0, 0, 1], 1).into(), listed()));
        // The header of a record, and nothing of what it announces.
        client.write_all(&[22, 3, 1, 1, 0]).await.unwrap();
        assert_eq!(client.read(&mut [0; 64]).await.unwrap(), 0);
        serving.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), HANDSHAKE_TIMEOUT.as_secs());
    }
}
