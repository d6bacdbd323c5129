//! New connections: counted, bounded, greeted.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::Token;
use mio::net::TcpStream;

use super::clock::Now;
use super::connection::Connection;
use super::listener;
use super::run::{Entry, Worker, key_of};
use crate::smtp::Session;
use crate::smtp::reply::{Closing, Reply};
use crate::smtp::session::Tls;

/// After the kernel refused a connection for want of memory or file descriptors, accepting rests this long.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) fn accept_all(&mut self, now: Now) {
        for number in 0..self.listeners.len() {
            for _ in 0..self.accept_burst_max {
                let Some(listener) = self.listeners.get_mut(number).filter(|l| l.acceptable) else {
                    break;
                };
                match listener.socket.accept() {
                    Ok((socket, peer)) => self.admit(number, socket, peer, now),
                    Err(error) => self.accept_failed(number, &error, now),
                }
            }
        }
    }

    fn accept_failed(&mut self, number: usize, error: &io::Error, now: Now) {
        match error.kind() {
            ErrorKind::Interrupted | ErrorKind::ConnectionAborted => return,
            ErrorKind::WouldBlock => {}
            _ => {
                tracing::error!(%error, "cannot accept connections; resting for a second");
                self.timers.schedule(number as u64, now.monotonic + ACCEPT_PAUSE);
            }
        }
        if let Some(listener) = self.listeners.get_mut(number) {
            listener.acceptable = false;
        }
    }

    /// A new connection: counted, bounded, greeted.
    fn admit(&mut self, number: usize, mut socket: TcpStream, peer: SocketAddr, now: Now) {
        let metrics = &self.shared.metrics.workers[self.index];
        metrics.connections.increment();
        if listener::is_local(&socket, metrics.cpu) {
            metrics.steering_local.increment();
        } else {
            metrics.steering_remote.increment();
        }
        let Some(listener) = self.listeners.get(number) else { return };
        let peer = peer.ip().to_canonical();
        let settings = &listener.settings;
        // Whose connection it is, a balancer says in its PROXY header; it is counted then.
        let client = (!settings.networks.proxy_protocol.contains(peer)).then_some(peer);
        let admitted = match client {
            Some(client) if self.shared.bans.is_banned(client, now) => Err(Closing::Banned),
            client => self.shared.admission.enter_as(client),
        };
        if let Err(why) = admitted {
            metrics.connections_refused.increment();
            metrics.count_closing(why);
            if settings.tls != Tls::Implicit {
                turn_away(&mut socket, &settings.hostname, why);
            }
            return;
        }
        let session = Session::new(Arc::clone(settings), peer, now.monotonic);
        metrics.connections_open.add(1);
        let mut turn = self.shared.turn(now);
        let connection = Connection::new(
            socket,
            u16::try_from(number).unwrap_or(u16::MAX),
            client,
            session,
            &mut turn,
        );
        let generation = self.next_generation;
        self.next_generation = self.next_generation.checked_add(1).unwrap_or(1);
        let index = self.connections.insert(Entry { generation, connection, queued: false });
        let key = key_of(generation, index);
        let Some(entry) = self.connections.get_mut(index) else { return };
        let interest = entry.connection.interest;
        let socket = entry.connection.socket_mut();
        match self.poll.registry().register(socket, Token(key as usize), interest) {
            Ok(()) => self.drive(key, now),
            Err(error) => {
                tracing::error!(%error, "cannot watch a connection");
                self.remove(key);
            }
        }
    }
}

/// Says why, as far as the socket takes it at once, and closes.
fn turn_away(socket: &mut TcpStream, hostname: &str, why: Closing) {
    let mut reply = Vec::new();
    Reply::Closing { hostname, why }.write_to(&mut reply);
    let _ = socket.write(&reply);
}
