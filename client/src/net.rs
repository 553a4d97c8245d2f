//! What both clients need of sockets.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::error::Cause;

/// A clock that starts with the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
    pub(crate) fn now_ns(self) -> u64 {
        nanos(self.0.elapsed())
    }
}

/// A duration in nanoseconds; the longest that fits stands for all longer ones.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The addresses that a `host:port` stands for now.
pub(crate) fn resolve(address: &str) -> Result<Vec<SocketAddr>, Cause> {
    match address.to_socket_addrs() {
        Ok(found) => {
            let found: Vec<SocketAddr> = found.collect();
            if found.is_empty() { Err(Cause::NotReached("the name has no address".to_owned())) } else { Ok(found) }
        }
        Err(error) => Err(Cause::NotReached(format!("cannot resolve the name: {error}"))),
    }
}

/// Connects to the first address of `host:port` that lets itself be connected to, within `patience` in all.
pub(crate) fn connect(address: &str, patience: Duration) -> Result<TcpStream, Cause> {
    let start = Instant::now();
    let mut last = Cause::NotTried;
    for address in resolve(address)? {
        let left = patience.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left).and_then(|socket| socket.set_nodelay(true).map(|()| socket)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = not_reached(&error),
        }
    }
    Err(last)
}

pub(crate) fn not_reached(error: &io::Error) -> Cause {
    Cause::NotReached(error.to_string())
}

pub(crate) fn lost(error: &io::Error) -> Cause {
    Cause::Lost(error.to_string())
}

/// The other side has closed the connection.
pub(crate) fn ended() -> Cause {
    Cause::Lost("the server closed it".to_owned())
}
