//! Addresses of listeners, of the control plane, and networks of clients.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;

use super::super::error::ConfigError;
use super::super::file;
use super::super::source::Source;
use super::super::{ControlConfig, ListenerConfig, TlsMode};
use super::Place;
use crate::policy::{ClientNetworks, Networks};
use crate::smtp::dialect::Dialect;

/// `sun_path` of `sockaddr_un` is 108 bytes with the NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Where the world expects SMTP.
const SMTP_PORT: u16 = 25;

pub(super) fn listeners(
    source: &Source<'_>,
    given: &[file::Listener],
) -> Result<Vec<ListenerConfig>, ConfigError> {
    if given.is_empty() {
        return Err(source.problem("listener", "at least one [[listener]] section"));
    }
    let mut listeners: Vec<ListenerConfig> = Vec::with_capacity(given.len());
    for (index, listener) in given.iter().enumerate() {
        let key = format!("listener.{index}.address");
        let address = socket_address(source, &key, listener.address.as_deref())?;
        // Port 0 is any free port: two of them are never the same.
        if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
            return Err(source.problem(&key, "each address once"));
        }
        let dialect = listener.protocol.unwrap_or(Dialect::Smtp);
        if dialect == Dialect::Lmtp && address.port() == SMTP_PORT {
            let expected = "\"smtp\", since LMTP must not be used on port 25 (RFC 2033 section 5)";
            return Err(source.problem(&format!("listener.{index}.protocol"), expected));
        }
        let tls = listener.tls.unwrap_or(TlsMode::StartTls);
        listeners.push(ListenerConfig { address, tls, dialect });
    }
    Ok(listeners)
}

pub(super) fn clients(
    source: &Source<'_>,
    file: &file::Networks,
) -> Result<ClientNetworks, ConfigError> {
    Ok(ClientNetworks {
        proxy_protocol: networks(source, "networks.proxy_protocol", &file.proxy_protocol)?,
        xclient: networks(source, "networks.xclient", &file.xclient)?,
        normalize: networks(source, "networks.normalize", &file.normalize)?,
        undelayed: networks(source, "networks.undelayed", &file.undelayed)?,
        without_tickets: networks(source, "networks.without_tickets", &file.without_tickets)?,
    })
}

pub(super) fn networks(
    source: &Source<'_>,
    key: &str,
    given: &[String],
) -> Result<Networks, ConfigError> {
    if given.len() > Networks::ENTRIES_MAX {
        let expected = format!("at most {} networks, not {}", Networks::ENTRIES_MAX, given.len());
        return Err(source.problem(key, expected));
    }
    let parse_one = |(index, text): (usize, &String)| {
        network(text).map_err(|expected| source.problem(&format!("{key}.{index}"), expected))
    };
    given.iter().enumerate().map(parse_one).collect()
}

/// An address or a network; else what was expected. Bits behind the prefix are a slip in the address or in the prefix,
/// and which of the two only the operator knows.
fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(network) = text.parse::<IpNet>() else {
        return Err(
            "an IP address or a network, such as \"192.0.2.0/24\" or \"2001:db8::1\"".into()
        );
    };
    let (whole, address) = (network.trunc(), network.addr());
    match whole == network {
        true => Ok(network),
        false => Err(format!("the network \"{whole}\" or the address \"{address}\"")),
    }
}

/// The socket's default place is the state folder: two daemons with different states never meet there.
pub(super) fn control(
    at: &Place<'_, '_>,
    file: &file::Control,
    state_dir: &Path,
    listeners: &[ListenerConfig],
) -> Result<ControlConfig, ConfigError> {
    let key = "control.socket";
    let socket = match &file.socket {
        Some(text) => at.path(key, text)?,
        None => state_dir.join("control.sock"),
    };
    if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let shown = socket.display();
        let expected = format!("a path of at most {SOCKET_PATH_BYTES_MAX} bytes, not {shown}");
        return Err(at.source.problem(key, expected));
    }
    let key = "control.metrics";
    let metrics = match file.metrics.as_deref() {
        Some(text) => Some(socket_address(at.source, key, Some(text))?),
        None => None,
    };
    let is_taken = |address: &SocketAddr| {
        address.port() != 0 && listeners.iter().any(|listener| listener.address == *address)
    };
    if metrics.as_ref().is_some_and(is_taken) {
        return Err(at.source.problem(key, "an address that no [[listener]] has"));
    }
    Ok(ControlConfig { socket, metrics })
}

pub(super) fn socket_address(
    source: &Source<'_>,
    key: &str,
    text: Option<&str>,
) -> Result<SocketAddr, ConfigError> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        source.problem(key, "an IP address with port, such as \"0.0.0.0:25\" or \"[::]:25\"")
    })
}
