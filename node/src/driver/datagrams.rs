//! The socket of the heartbeats.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use super::links::LinkConfig;

/// Heartbeats to and from the other nodes. What cannot be sent at once is lost, which is what heartbeats are for.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    neighbours: Vec<(u16, SocketAddr)>,
    readable: bool,
    calls: Calls,
}

/// What the socket was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Calls {
    /// System calls.
    pub(super) count: u64,
    /// Bytes that came.
    pub(super) received: u64,
    /// Bytes that went.
    pub(super) sent: u64,
}

impl Datagrams {
    /// Around a bound socket. Host names of neighbours are resolved here, once.
    pub(super) fn new(socket: std::net::UdpSocket, neighbours: Vec<LinkConfig>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let neighbours = neighbours.into_iter().filter_map(|LinkConfig { node, address }| {
            let resolved = address.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
            if resolved.is_none() {
                ::log::warn!("no heartbeats go to node {node}: {address} has no address");
            }
            Some((node, resolved?))
        });
        Ok(Self {
            neighbours: neighbours.collect(),
            socket: UdpSocket::from_std(socket),
            readable: false,
            calls: Calls::default(),
        })
    }

    /// Heartbeats for `node` go to `address` from now on.
    pub(super) fn add(&mut self, node: u16, address: SocketAddr) {
        self.remove(node);
        self.neighbours.push((node, address));
    }

    /// No heartbeats go to `node` any more.
    pub(super) fn remove(&mut self, node: u16) {
        self.neighbours.retain(|(number, _)| *number != node);
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// What was asked of the socket so far.
    pub(super) fn calls(&self) -> Calls {
        self.calls
    }

    /// Something can be read.
    pub(super) fn ready(&mut self) {
        self.readable = true;
    }

    /// Whether a turn has left something unread.
    pub(super) fn is_ready(&self) -> bool {
        self.readable
    }

    /// The next datagram; its length.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        while self.readable {
            self.calls.count += 1;
            match self.socket.recv_from(buffer) {
                Ok((len, _)) => {
                    self.calls.received += len as u64;
                    return Some(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                // A neighbour that is not there answers what was sent to it with an error of its own.
                Err(error) => ::log::debug!("a datagram could not be received: {error}"),
            }
        }
        None
    }

    /// Sends a datagram to `node`.
    pub(super) fn send(&mut self, node: u16, bytes: &[u8]) {
        let Some((_, address)) = self.neighbours.iter().find(|(number, _)| *number == node) else { return };
        self.calls.count += 1;
        match self.socket.send_to(bytes, *address) {
            Ok(len) => self.calls.sent += len as u64,
            Err(error) => ::log::debug!("a heartbeat to node {node} was not sent: {error}"),
        }
    }
}
