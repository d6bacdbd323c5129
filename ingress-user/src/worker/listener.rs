//! Listening sockets: one per worker and address, all of an address in one SO_REUSEPORT group.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that wait for a worker; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "cannot listen on {address}: the port is in use; stop the other server or choose another address"
    )]
    InUse { address: SocketAddr },
    #[error(
        "cannot listen on {address}: not permitted; ports below 1024 take root or CAP_NET_BIND_SERVICE"
    )]
    NotPermitted { address: SocketAddr },
    #[error("cannot listen on {address}: the address is not on this host")]
    NotLocal { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

/// Opens the group for `address`: one socket for each of `workers`. Port 0 gives all the same free port.
pub fn open_group(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, ListenError> {
    let explained = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address },
        io::ErrorKind::PermissionDenied => ListenError::NotPermitted { address },
        io::ErrorKind::AddrNotAvailable => ListenError::NotLocal { address },
        _ => ListenError::Other { address, source },
    };
    let address = reserve(address).map_err(explained)?;
    (0..workers).map(|_| open(address)).collect::<Result<_, _>>().map_err(explained)
}

/// An inherited group with one socket for each of `workers`, if it has not as many yet.
pub fn extend_group(
    mut group: Vec<TcpListener>,
    workers: usize,
) -> Result<Vec<TcpListener>, ListenError> {
    let unspecified = SocketAddr::from(([0; 4], 0));
    let address = match group.first().map(TcpListener::local_addr) {
        Some(address) => {
            address.map_err(|source| ListenError::Other { address: unspecified, source })?
        }
        None => return Ok(group),
    };
    let other = |source| ListenError::Other { address, source };
    let more = (group.len()..workers).map(|_| open(address).map_err(other));
    group.extend(more.collect::<Result<Vec<_>, _>>()?);
    Ok(group)
}

/// Has the kernel pick the socket of the group whose CPU, by the same place in `cpus`, handles the packet (SO_INCOMING_CPU
/// on listeners, honoured since Linux 6.2). Takes no privilege.
pub fn steer_by_incoming_cpu(group: &[TcpListener], cpus: &[usize]) -> io::Result<()> {
    group
        .iter()
        .zip(cpus)
        .try_for_each(|(socket, &cpu)| SockRef::from(socket).set_cpu_affinity(cpu))
}

/// Finds out whether the address is free. SO_REUSEPORT alone would let two daemons of one user share it unnoticed.
fn reserve(address: SocketAddr) -> io::Result<SocketAddr> {
    let probe = stream_socket(address)?;
    probe.bind(&address.into())?;
    probe
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "not an IP socket"))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = stream_socket(address)?;
    // Before bind: a socket joins the group then or never.
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it: replies are small and each is awaited.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// IPv6 sockets take IPv6 only: `[::]:25` and `0.0.0.0:25` are two listeners.
fn stream_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Whether the last packet of `stream` was handled on `cpu` (SO_INCOMING_CPU, Linux 3.19).
pub fn is_local(stream: &mio::net::TcpStream, cpu: usize) -> bool {
    SockRef::from(stream).cpu_affinity().is_ok_and(|incoming| incoming == cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sockets_of_a_group_have_one_port() {
        let group = open_group("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<_> = group.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert_eq!(ports, [ports[0]; 3]);
    }

    #[test]
    fn a_second_daemon_on_the_port_is_refused() {
        let group = open_group("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = group[0].local_addr().unwrap();
        let error = open_group(address, 1).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = open_group("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
        assert!(matches!(error, ListenError::NotLocal { .. }));
    }
}
