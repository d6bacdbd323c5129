//! Addresses of listeners and of the control plane.

use std::net::SocketAddr;
use std::path::Path;

use super::super::error::ConfigError;
use super::super::file;
use super::super::source::Source;
use super::super::{ControlConfig, ListenerConfig, TlsMode};
use super::Place;

/// `sun_path` of `sockaddr_un` is 108 bytes with the NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

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
        listeners.push(ListenerConfig { address, tls: listener.tls.unwrap_or(TlsMode::StartTls) });
    }
    Ok(listeners)
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

fn socket_address(
    source: &Source<'_>,
    key: &str,
    text: Option<&str>,
) -> Result<SocketAddr, ConfigError> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        source.problem(key, "an IP address with port, such as \"0.0.0.0:25\" or \"[::]:25\"")
    })
}
