//! What the kernel knows of a connection.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wait::wait_for;

const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns when the other process has taken all that was sent over this connection, which is to 127.0.0.1, out of its socket:
/// only then does a reset not overtake it.
pub fn wait_until_read(stream: &TcpStream) {
    let (near, far) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    wait_for("daemon that reads", READ_TIMEOUT, || {
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        // A line each for both ends.
        let [sent, received] = [queues(&table, near, far), queues(&table, far, near)];
        sent.is_some_and(|(unsent, _)| unsent == 0)
            && received.is_some_and(|(_, unread)| unread == 0)
    });
}

/// The octets in the queues to send and to receive of the socket with these addresses.
fn queues(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<(u64, u64)> {
    let is_it = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&hexadecimal(local)) && words.next() == Some(&hexadecimal(remote))
    };
    let line = table.lines().find(is_it)?;
    let (unsent, unread) = line.split_whitespace().nth(4)?.split_once(':')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some((number(unsent)?, number(unread)?))
}

/// As in proc_pid_net(5): the address in the order of the machine's octets, the port in the network's.
fn hexadecimal(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    let octets = u32::from_ne_bytes(address.ip().octets());
    format!("{octets:08X}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn octets_that_nobody_has_read_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"12345").unwrap();
        let (near, far) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let unread = || queues(&fs::read_to_string("/proc/net/tcp").unwrap(), far, near);
        wait_for("octets", READ_TIMEOUT, || unread().is_some_and(|(_, unread)| unread == 5));
        server.read_exact(&mut [0; 5]).unwrap();
        wait_until_read(&client);
    }
}
