//! All connections of a loop, and the lists of those that have work.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use pygmy_proto::error::{ErrorBody, ErrorCode};
use pygmy_proto::frame;
use slab::Slab;
use socket2::{SockRef, TcpKeepalive};

use super::conn::{Conn, Got, Phase, Put, body_max};
use super::counters::Counters;
use super::limits::{LINGER_BYTES_MAX, Limits};
use super::queue::Spares;
use crate::machine::{CloseReason, ConnClass, ConnId, ms};

/// Bits of a [`ConnId`] that name the slot; the rest is a serial number, so that no id ever comes twice.
const SLOT_BITS: u32 = 20;
/// Slots that fit.
pub(super) const SLOTS_MAX: usize = 1 << SLOT_BITS;
// An id is also the token of its socket: a late event of a closed one can then not be taken for its successor's.
const _: () = assert!(size_of::<usize>() >= size_of::<u64>());

/// System calls of what is done to a connection once or twice in its life: to be told of its readiness;
const REGISTER_CALLS: u64 = 1;
/// to set its options, see [`configure`];
const CONFIGURE_CALLS: u64 = 4;
/// to see what became of connecting, see [`connected`];
const CONNECTED_CALLS: u64 = 3;
/// to close it and be told no more.
const CLOSE_CALLS: u64 = 2;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The connections.
#[derive(Debug)]
pub(super) struct Conns {
    slab: Slab<Conn>,
    registry: Registry,
    node: u16,
    limits: Limits,
    serial: u64,
    clients: usize,
    spares: Spares,
    /// Connections with something to read.
    to_read: Vec<ConnId>,
    /// Connections with something for the flush point.
    to_flush: Vec<ConnId>,
    /// Clients that left output unread at the last flush.
    stalled: Vec<ConnId>,
    /// Connections by the end of their time for the handshake; all have the same time, so the oldest is first.
    handshakes: VecDeque<(u64, ConnId)>,
    /// Closing connections by the end of their time.
    lingering: VecDeque<(u64, ConnId)>,
    /// What the machine must still be told.
    closed: VecDeque<(ConnId, CloseReason)>,
    /// Links that went down.
    down: Vec<u16>,
    pub(super) counters: Counters,
}

impl Conns {
    pub(super) fn new(registry: Registry, node: u16, limits: Limits) -> Self {
        Self {
            slab: Slab::new(),
            registry,
            node,
            limits,
            serial: 0,
            clients: 0,
            spares: Spares::default(),
            to_read: Vec::new(),
            to_flush: Vec::new(),
            stalled: Vec::new(),
            handshakes: VecDeque::new(),
            lingering: VecDeque::new(),
            closed: VecDeque::new(),
            down: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes a socket in: one that was accepted, or one that is connecting to a node.
    pub(super) fn add(
        &mut self,
        mut socket: TcpStream,
        address: SocketAddr,
        link: Option<u16>,
        now_ns: u64,
    ) -> io::Result<ConnId> {
        let entry = self.slab.vacant_entry();
        self.serial += 1;
        let id = ConnId(self.serial << SLOT_BITS | entry.key() as u64);
        self.registry.register(&mut socket, Token(id.0 as usize), Interest::READABLE | Interest::WRITABLE)?;
        self.counters.conn_calls += REGISTER_CALLS;
        let mut conn = Conn::new(id, socket, address, link);
        if link.is_none() {
            configure(&conn.socket);
            self.counters.conn_calls += CONFIGURE_CALLS;
            // An accepted socket has room; waiting for the event that says so would cost its first answer a turn.
            conn.ready.writable = true;
        }
        entry.insert(conn);
        self.handshakes.push_back((now_ns.saturating_add(ms(self.limits.handshake_ms_max.into())), id));
        Ok(id)
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.slab.get(slot(id)).filter(|conn| conn.id == id)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slab.get_mut(slot(id)).filter(|conn| conn.id == id)
    }

    /// How many there are, those that are connecting or closing included.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether `id` still takes and gives frames.
    pub(super) fn is_open(&self, id: ConnId) -> bool {
        self.get(id).is_some_and(|conn| conn.phase == Phase::Open)
    }

    /// Whether every connection has been given all its output.
    pub(super) fn all_written(&self) -> bool {
        self.slab.iter().all(|(_, conn)| conn.phase == Phase::Lingering)
    }

    /// Output that nobody has taken yet, in bytes.
    pub(super) fn unsent(&self) -> usize {
        self.slab.iter().map(|(_, conn)| conn.queue.len()).sum()
    }

    /// Adds an event to what is known of its socket. True when a connection attempt has come to something.
    pub(super) fn on_event(&mut self, id: ConnId, event: &Event) -> bool {
        let Some(conn) = self.get_mut(id) else { return false };
        let broken = event.is_error();
        conn.ready.readable |= event.is_readable() || event.is_read_closed() || broken;
        conn.ready.writable |= event.is_writable() || event.is_write_closed() || broken;
        conn.ready.read_closed |= event.is_read_closed() || broken;
        if conn.phase == Phase::Connecting {
            return conn.ready.writable;
        }
        self.arm(id);
        false
    }

    /// The one place where a connection gets into the work lists: whoever changes its readiness, phase or queue calls.
    pub(super) fn arm(&mut self, id: ConnId) {
        let Some(conn) = self.slab.get_mut(slot(id)).filter(|conn| conn.id == id) else { return };
        if conn.can_read() && !conn.listed.read {
            conn.listed.read = true;
            self.to_read.push(id);
        }
        if conn.can_flush() && !conn.listed.flush {
            conn.listed.flush = true;
            self.to_flush.push(id);
        }
    }

    /// Whether some connection has work that no event will announce again.
    pub(super) fn has_work(&self) -> bool {
        !self.to_read.is_empty() || !self.to_flush.is_empty() || !self.closed.is_empty() || !self.down.is_empty()
    }

    /// Swaps `list` for the connections to be read. Each must be armed again afterwards.
    pub(super) fn take_to_read(&mut self, list: &mut Vec<ConnId>) {
        list.clear();
        std::mem::swap(&mut self.to_read, list);
        for id in list.iter() {
            if let Some(conn) = self.slab.get_mut(slot(*id)).filter(|conn| conn.id == *id) {
                conn.listed.read = false;
            }
        }
    }

    /// Reads once from a connection.
    pub(super) fn read(&mut self, id: ConnId, buffer: &mut [u8]) -> Got {
        let Some(conn) = self.get_mut(id) else { return Got::Nothing };
        if !conn.can_read() {
            return Got::Nothing;
        }
        let got = conn.read(buffer);
        self.counters.reads += 1;
        if let Got::Bytes(count) = got {
            self.counters.bytes_in += count as u64;
        }
        got
    }

    /// Counts bytes that came on a closing connection. Too many, and it goes.
    pub(super) fn drop_input(&mut self, id: ConnId, count: usize) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.dropped += count;
        if conn.dropped > LINGER_BYTES_MAX {
            self.remove(id);
        }
    }

    /// The other side has ended its direction, and so the connection.
    pub(super) fn on_end(&mut self, id: ConnId, now_ns: u64) {
        match self.get(id).map(|conn| conn.phase) {
            Some(Phase::Open) => self.close(id, CloseReason::Ended, now_ns),
            Some(Phase::Lingering) => self.remove(id),
            Some(Phase::Connecting | Phase::Closing) | None => {}
        }
    }

    /// Looks at what became of an attempt to connect. True when it stands.
    pub(super) fn finish_connect(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.slab.get_mut(slot(id)).filter(|conn| conn.id == id) else { return false };
        let connected = connected(&conn.socket);
        self.counters.conn_calls += CONNECTED_CALLS;
        match connected {
            Ok(false) => return false,
            Ok(true) => self.counters.conn_calls += CONFIGURE_CALLS,
            Err(error) => {
                self.cut(id, CloseReason::NotReached, &error.to_string());
                return false;
            }
        }
        configure(&conn.socket);
        conn.phase = Phase::Open;
        self.counters.connects += 1;
        self.arm(id);
        true
    }

    /// Queues a frame, copied.
    pub(super) fn queue(&mut self, id: ConnId, bytes: &[u8], now_ns: u64) {
        self.queue_with(id, now_ns, |conn, spares| conn.queue.push_with(spares, |tail| tail.extend_from_slice(bytes)));
    }

    /// Queues a frame that is shared with other connections.
    pub(super) fn queue_shared(&mut self, id: ConnId, bytes: Bytes, now_ns: u64) {
        self.queue_with(id, now_ns, |conn, spares| conn.queue.push_shared(spares, bytes));
    }

    /// Queues an error about the connection itself.
    pub(super) fn queue_error(&mut self, id: ConnId, error: &ErrorBody, now_ns: u64) {
        let node = self.node.into();
        self.queue_with(id, now_ns, |conn, spares| {
            conn.queue.push_with(spares, |tail| frame::write(tail, 0, node, 0, error));
        });
    }

    /// The one way into an output queue, so that no path forgets the limits or the flush.
    fn queue_with(&mut self, id: ConnId, now_ns: u64, push: impl FnOnce(&mut Conn, &mut Spares)) {
        let Some(conn) = self.slab.get_mut(slot(id)).filter(|conn| conn.id == id && conn.phase == Phase::Open) else {
            return;
        };
        if conn.queue.is_empty() {
            conn.progress_ns = now_ns;
        }
        push(conn, &mut self.spares);
        self.counters.frames_out += 1;
        let (name, max) = match conn.class {
            ConnClass::New | ConnClass::Client => ("client_output_max", self.limits.client_output_max),
            ConnClass::Peer => ("peer_output_max", self.limits.peer_output_max),
        };
        let len = conn.queue.len();
        conn.paused = conn.class != ConnClass::Peer && (conn.paused || len >= self.limits.client_output_high);
        if len > max {
            return self.cut(id, CloseReason::SlowReader, &format!("{len} bytes unsent, {name} is {max}"));
        }
        self.arm(id);
    }

    /// Gives a connection the limits of `class`. The link it belongs to, if it is one of ours.
    pub(super) fn set_class(&mut self, id: ConnId, class: ConnClass, now_ns: u64) -> Option<u16> {
        let conn = self.slab.get_mut(slot(id)).filter(|conn| conn.id == id && conn.phase == Phase::Open)?;
        self.clients += usize::from(class == ConnClass::Client);
        self.clients -= usize::from(conn.class == ConnClass::Client);
        conn.class = class;
        conn.deframer.set_body_max(body_max(class));
        let link = conn.link;
        if class == ConnClass::Client && self.clients > self.limits.connections_max {
            let max = self.limits.connections_max;
            let error = ErrorBody::new(ErrorCode::Busy)
                .subject("clients")
                .limit(max as u64, self.clients as u64)
                .detail(&format!("this server has {max} clients, its most; use another one or come back later"));
            self.queue_error(id, &error, now_ns);
            self.close(id, CloseReason::Refused, now_ns);
        }
        link
    }

    /// Ends a connection for the machine at once, and for the other side when it has taken its output.
    pub(super) fn close(&mut self, id: ConnId, reason: CloseReason, now_ns: u64) {
        match self.get(id).map(|conn| conn.phase) {
            Some(Phase::Open) => {}
            Some(Phase::Connecting) => return self.cut(id, reason, "no longer wanted"),
            Some(Phase::Closing | Phase::Lingering) | None => return,
        }
        self.lingering.push_back((now_ns.saturating_add(ms(self.limits.linger_ms_max.into())), id));
        self.retire(id, reason, "");
        if let Some(conn) = self.get_mut(id) {
            conn.phase = Phase::Closing;
            // What was kept of an unfinished frame is of no use any more.
            conn.deframer = pygmy_proto::frame::Deframer::new(0);
        }
        self.arm(id);
    }

    /// Ends a connection at once, whatever it has not taken.
    pub(super) fn cut(&mut self, id: ConnId, reason: CloseReason, why: &str) {
        self.retire(id, reason, why);
        self.remove(id);
    }

    /// Logs and counts the end of a connection and notes whom to tell.
    fn retire(&mut self, id: ConnId, reason: CloseReason, why: &str) {
        let Some(conn) = self.slab.get_mut(slot(id)).filter(|conn| conn.id == id) else { return };
        if matches!(conn.phase, Phase::Closing | Phase::Lingering) {
            return;
        }
        log::log!(close_level(reason), "connection with {} closed as {reason:?}{}{why}", conn.address, separator(why));
        self.counters.count_close(reason);
        if conn.phase == Phase::Open {
            self.closed.push_back((id, reason));
        }
        self.clients -= usize::from(conn.class == ConnClass::Client);
        self.down.extend(conn.link.take());
    }

    /// Forgets a connection and closes its socket.
    fn remove(&mut self, id: ConnId) {
        if self.get(id).is_none() {
            return;
        }
        let mut conn = self.slab.remove(slot(id));
        self.counters.conn_calls += CLOSE_CALLS;
        // Closing the descriptor deregisters it too; an error here changes nothing.
        let _ = self.registry.deregister(&mut conn.socket);
    }

    /// The flush point: every connection with output is written to once.
    pub(super) fn flush(&mut self, now_ns: u64) {
        let mut list = std::mem::take(&mut self.to_flush);
        for id in list.drain(..) {
            self.flush_one(id, now_ns);
        }
        if self.to_flush.is_empty() {
            self.to_flush = list;
        }
    }

    fn flush_one(&mut self, id: ConnId, now_ns: u64) {
        let Some(conn) = self.slab.get_mut(slot(id)).filter(|conn| conn.id == id) else { return };
        conn.listed.flush = false;
        if !conn.can_flush() {
            return;
        }
        if !conn.queue.is_empty() {
            self.counters.writes += 1;
            match conn.write(&mut self.spares) {
                Put::Bytes(count) => {
                    self.counters.bytes_out += count as u64;
                    conn.progress_ns = if count > 0 { now_ns } else { conn.progress_ns };
                }
                Put::Broken(kind) => return self.cut(id, CloseReason::Broken, &kind.to_string()),
            }
        }
        conn.paused &= conn.queue.len() > self.limits.client_output_high / 2;
        let stalls = conn.phase == Phase::Open && conn.class != ConnClass::Peer;
        if stalls && !conn.queue.is_empty() && !conn.listed.stall {
            conn.listed.stall = true;
            self.stalled.push(id);
        }
        if conn.phase == Phase::Closing && conn.queue.is_empty() {
            let ended = conn.ready.read_closed && !conn.ready.readable;
            conn.shut_write();
            self.counters.conn_calls += 1;
            if ended {
                return self.remove(id);
            }
        }
        self.arm(id);
    }

    /// What the machine must be told next: a connection that is gone.
    pub(super) fn next_closed(&mut self) -> Option<(ConnId, CloseReason)> {
        self.closed.pop_front()
    }

    /// A link that went down.
    pub(super) fn next_down(&mut self) -> Option<u16> {
        self.down.pop()
    }

    /// Ends every connection, as [`Self::close`].
    pub(super) fn close_all(&mut self, reason: CloseReason, now_ns: u64) {
        let all: Vec<ConnId> = self.slab.iter().map(|(_, conn)| conn.id).collect();
        all.into_iter().for_each(|id| self.close(id, reason, now_ns));
    }

    /// When the next unfinished handshake runs out of time.
    pub(super) fn handshake_due(&mut self) -> Option<u64> {
        while let Some((due_ns, id)) = self.handshakes.front().copied() {
            if self.get(id).is_some_and(|conn| conn.class == ConnClass::New) {
                return Some(due_ns);
            }
            self.handshakes.pop_front();
        }
        None
    }

    /// Ends the connections whose handshakes took too long.
    pub(super) fn sweep_handshakes(&mut self, now_ns: u64) {
        while self.handshake_due().is_some_and(|due_ns| due_ns <= now_ns) {
            let Some((_, id)) = self.handshakes.pop_front() else { return };
            let max = self.limits.handshake_ms_max;
            if self.get(id).is_some_and(|conn| conn.phase == Phase::Connecting) {
                self.cut(id, CloseReason::NotReached, &format!("no answer within {max} ms"));
                continue;
            }
            let error = ErrorBody::new(ErrorCode::HandshakeTimeout)
                .limit(max.into(), 0)
                .detail(&format!("no Hello within {max} ms; connect again and send it first"));
            self.queue_error(id, &error, now_ns);
            self.close(id, CloseReason::HandshakeTimeout, now_ns);
        }
    }

    /// Whether the stall sweep has anybody to look at.
    pub(super) fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Cuts the clients that have taken nothing for too long; forgets those that have no more output.
    pub(super) fn sweep_stalled(&mut self, now_ns: u64) {
        let max = self.limits.client_stall_ms_max;
        let mut list = std::mem::take(&mut self.stalled);
        list.retain(|id| {
            let Some(conn) = self.get_mut(*id) else { return false };
            if conn.phase != Phase::Open || conn.queue.is_empty() {
                conn.listed.stall = false;
                return false;
            }
            let late = now_ns.saturating_sub(conn.progress_ns) >= ms(max.into());
            if late {
                let len = conn.queue.len();
                let why = format!("{len} bytes unsent and none taken for client_stall_ms_max, {max} ms");
                self.cut(*id, CloseReason::SlowReader, &why);
            }
            !late
        });
        self.stalled = list;
    }

    /// When the oldest closing connection has had its time.
    pub(super) fn linger_due(&mut self) -> Option<u64> {
        while let Some((due_ns, id)) = self.lingering.front().copied() {
            if self.get(id).is_some() {
                return Some(due_ns);
            }
            self.lingering.pop_front();
        }
        None
    }

    /// Removes the closing connections that have had their time.
    pub(super) fn sweep_lingering(&mut self, now_ns: u64) {
        while self.linger_due().is_some_and(|due_ns| due_ns <= now_ns) {
            let Some((_, id)) = self.lingering.pop_front() else { return };
            self.remove(id);
        }
    }
}

fn slot(id: ConnId) -> usize {
    (id.0 & (SLOTS_MAX as u64 - 1)) as usize
}

fn separator(why: &str) -> &'static str {
    if why.is_empty() { "" } else { ": " }
}

/// The everyday ends are not worth a line each.
fn close_level(reason: CloseReason) -> log::Level {
    match reason {
        CloseReason::Ended | CloseReason::Broken | CloseReason::NotReached | CloseReason::Leaving => log::Level::Debug,
        _ => log::Level::Info,
    }
}

/// Whether a connecting socket stands (true) or is still on its way (false).
fn connected(socket: &TcpStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    let other = match socket.peer_addr() {
        Ok(address) => address,
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
        Err(error) => return Err(error),
    };
    if socket.local_addr()? == other {
        // TCP lets a socket that tries a free port of its own host meet itself when it was given just that port.
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "connected to itself, nobody listens there"));
    }
    Ok(true)
}

/// Frames go out as they are flushed, and a peer that vanished without a word is noticed in the end.
fn configure(socket: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let done = socket.set_nodelay(true).and_then(|()| SockRef::from(socket).set_tcp_keepalive(&keepalive));
    if let Err(error) = done {
        log::debug!("socket options not set: {error}");
    }
}
