//! One connection: its socket, what is known of the socket's readiness, and its output.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};

use mio::net::TcpStream;
use pygmy_proto::frame::Deframer;
use pygmy_proto::limits::{CLIENT_BODY_MAX, HELLO_BODY_MAX, PEER_BODY_MAX};

use super::queue::{OutQueue, Spares, Written};
use crate::machine::{ConnClass, ConnId};

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its own attempt to connect is under way; the machine does not know it yet.
    Connecting,
    /// Frames go both ways.
    Open,
    /// The machine has been told that it is closed; the rest of its output is being written.
    Closing,
    /// Its write side is shut; what still comes is read and dropped, so that the last answer is not lost to a reset.
    Lingering,
}

/// Edge-triggered readiness, kept until the socket says that it is exhausted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The other side will send no more. Kept for ever: a short read then does not mean that nothing is left.
    pub(super) read_closed: bool,
}

/// In which of the loop's work lists a connection stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listed {
    pub(super) read: bool,
    pub(super) flush: bool,
    pub(super) stall: bool,
}

/// What a call of `read` brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    /// That many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The other side's end.
    End,
    /// An error.
    Broken(ErrorKind),
}

/// What a call of `write` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// That many bytes were taken.
    Bytes(usize),
    /// An error.
    Broken(ErrorKind),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) socket: TcpStream,
    pub(super) address: SocketAddr,
    /// The node it was opened to, if it was opened by us.
    pub(super) link: Option<u16>,
    pub(super) class: ConnClass,
    pub(super) phase: Phase,
    pub(super) ready: Ready,
    pub(super) listed: Listed,
    /// Its output is above the high mark: nothing is read until it has fallen again.
    pub(super) paused: bool,
    pub(super) deframer: Deframer,
    pub(super) queue: OutQueue,
    /// When output last moved, or began to wait.
    pub(super) progress_ns: u64,
    /// Bytes read and dropped since it began to close.
    pub(super) dropped: usize,
}

impl Conn {
    pub(super) fn new(id: ConnId, socket: TcpStream, address: SocketAddr, link: Option<u16>) -> Self {
        Self {
            id,
            socket,
            address,
            link,
            class: ConnClass::New,
            phase: if link.is_some() { Phase::Connecting } else { Phase::Open },
            ready: Ready::default(),
            listed: Listed::default(),
            paused: false,
            deframer: Deframer::new(body_max(ConnClass::New)),
            queue: OutQueue::default(),
            progress_ns: 0,
            dropped: 0,
        }
    }

    /// Whether reading is wanted and the socket may have something.
    pub(super) fn can_read(&self) -> bool {
        let wanted = match self.phase {
            Phase::Connecting => false,
            Phase::Open => !self.paused,
            Phase::Closing | Phase::Lingering => true,
        };
        wanted && self.ready.readable
    }

    /// Whether the flush point has something to do here.
    pub(super) fn can_flush(&self) -> bool {
        match self.phase {
            Phase::Connecting | Phase::Lingering => false,
            Phase::Open => self.ready.writable && !self.queue.is_empty(),
            Phase::Closing => self.queue.is_empty() || self.ready.writable,
        }
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Got {
        loop {
            return match self.socket.read(buffer) {
                Ok(0) => {
                    self.ready.readable = false;
                    self.ready.read_closed = true;
                    Got::End
                }
                Ok(count) => {
                    // A short read empties a socket; the next byte raises a new edge. An end that came along does not.
                    self.ready.readable = count == buffer.len() || self.ready.read_closed;
                    Got::Bytes(count)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.readable = false;
                    Got::Nothing
                }
                Err(error) => Got::Broken(error.kind()),
            };
        }
    }

    /// Writes once.
    pub(super) fn write(&mut self, spares: &mut Spares) -> Put {
        loop {
            return match self.queue.write_to(&mut self.socket, spares) {
                Ok(Written { taken: 0, offered: 1.. }) => Put::Broken(ErrorKind::WriteZero),
                Ok(Written { taken, offered }) => {
                    // A short write fills a socket; the kernel raises an edge when there is room again.
                    self.ready.writable = taken == offered;
                    Put::Bytes(taken)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.writable = false;
                    Put::Bytes(0)
                }
                Err(error) => Put::Broken(error.kind()),
            };
        }
    }

    /// Ends the write side: the other side reads everything written, then the end.
    pub(super) fn shut_write(&mut self) {
        // Fails only when the connection is gone already, which reading finds out.
        let _ = self.socket.shutdown(Shutdown::Write);
        self.phase = Phase::Lingering;
    }
}

/// Longest body that a connection of `class` may send.
pub(super) fn body_max(class: ConnClass) -> usize {
    match class {
        ConnClass::New => HELLO_BODY_MAX,
        ConnClass::Client => CLIENT_BODY_MAX,
        ConnClass::Peer => PEER_BODY_MAX,
    }
}
