//! The connections of an engine: making them, their buffers, losing them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{Buf, Bytes, BytesMut};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use pygmy_proto::frame::{self, Deframer, Frame};
use pygmy_proto::limits::{CLIENT_BODY_MAX, HANDSHAKE_MS_MAX};
use pygmy_proto::{ErrorBody, Kind};
use socket2::{Domain, Protocol, Socket, Type};

use super::traffic::Counts;
use crate::ask::hello;

/// Connections whose handshake may be under way at the same time: more would overrun the servers' accept queues, and
/// a SYN that is dropped there costs a second.
const OPENING_MAX: usize = 128;
/// Wait before a lost connection is made again.
const RECONNECT_NS: u64 = 50_000_000;
/// System calls that making a connection takes, and being told of its readiness.
const CONNECT_CALLS: u64 = 5;
/// Connections to a loopback address from one source address: the ports of one are fewer than 32,768.
const PER_SOURCE_MAX: usize = 20_000;
/// An output buffer above this is given back when it is empty.
const OUT_KEEP_MAX: usize = 256 * 1024;

/// Which connections an engine makes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whom to; connection `n` goes to the `n`-th, round-robin, and to the next when it is made again.
    pub addresses: Vec<SocketAddr>,
    /// How many.
    pub count: usize,
    /// Number of the first: several engines that share a plan count through.
    pub first: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// To be made when its turn comes.
    Down,
    /// Connecting, or its `Hello` is not answered.
    Opening { since_ns: u64 },
    /// Its handshake is done.
    Open,
}

#[derive(Debug)]
struct Link {
    stream: Option<TcpStream>,
    phase: Phase,
    deframer: Deframer,
    out: BytesMut,
    dirty: bool,
    attempts: usize,
}

/// The connections of an engine.
#[derive(Debug)]
pub struct Links {
    registry: Registry,
    plan: Plan,
    hello: Bytes,
    links: Vec<Link>,
    /// Connections with bytes that wait to be written.
    dirty: Vec<usize>,
    /// Connections to be made, and when. In ascending order of time, as the wait is the same for all.
    down: VecDeque<(u64, usize)>,
    /// Connections whose handshake is under way, oldest first; some may be done since.
    opening: VecDeque<(u64, usize)>,
    opening_count: usize,
    open_count: usize,
    lost: VecDeque<(usize, String)>,
    /// Moment of the current turn.
    now_ns: u64,
    /// What was asked of the system.
    pub(super) counts: Counts,
}

impl Links {
    pub(super) fn new(registry: Registry, plan: Plan) -> Self {
        let link = |_| Link {
            stream: None,
            phase: Phase::Down,
            deframer: Deframer::new(CLIENT_BODY_MAX),
            out: BytesMut::new(),
            dirty: false,
            attempts: 0,
        };
        Self {
            registry,
            hello: frame::to_bytes(1, 0, 0, &hello()),
            links: (0..plan.count).map(link).collect(),
            dirty: Vec::new(),
            down: (0..plan.count).map(|link| (0, link)).collect(),
            opening: VecDeque::new(),
            opening_count: 0,
            open_count: 0,
            lost: VecDeque::new(),
            now_ns: 0,
            counts: Counts::default(),
            plan,
        }
    }

    /// Connections, standing or not.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Connections whose handshake is done.
    pub fn open_count(&self) -> usize {
        self.open_count
    }

    /// Whether this connection's handshake is done.
    pub fn is_open(&self, link: usize) -> bool {
        self.links[link].phase == Phase::Open
    }

    /// The server that a connection goes to, or last went to.
    pub fn address(&self, link: usize) -> SocketAddr {
        let attempt = self.links[link].attempts.saturating_sub(1);
        self.plan.addresses[(self.plan.first + link + attempt) % self.plan.addresses.len()]
    }

    /// Where to append frames for a connection; they are written at the end of the turn.
    pub fn out(&mut self, link: usize) -> &mut BytesMut {
        self.mark_dirty(link);
        &mut self.links[link].out
    }

    /// Gives a connection up; it is made again. The task is told as if it had been lost.
    pub fn lose(&mut self, link: usize, why: &str) {
        let own = &mut self.links[link];
        match own.phase {
            Phase::Down => return,
            Phase::Opening { .. } => self.opening_count -= 1,
            Phase::Open => self.open_count -= 1,
        }
        if let Some(mut stream) = own.stream.take() {
            // The descriptor is closed next, which takes it out of the poll in any case.
            let _ = self.registry.deregister(&mut stream);
        }
        own.phase = Phase::Down;
        own.deframer = Deframer::new(CLIENT_BODY_MAX);
        own.out.clear();
        let why = format!("{}: {why}", self.address(link));
        self.lost.push_back((link, why));
        self.down.push_back((self.now_ns + RECONNECT_NS, link));
    }

    pub(super) fn take_lost(&mut self) -> Option<(usize, String)> {
        self.lost.pop_front()
    }

    pub(super) fn mark_dirty(&mut self, link: usize) {
        let own = &mut self.links[link];
        if !own.dirty {
            own.dirty = true;
            self.dirty.push(link);
        }
    }

    /// When [`Self::connect_due`] has something to do next.
    pub(super) fn next_due(&self) -> Option<u64> {
        let down = self.down.front().filter(|_| self.opening_count < OPENING_MAX).map(|(at_ns, _)| *at_ns);
        let late = self.opening.front().map(|(since_ns, _)| since_ns + handshake_ns_max());
        down.into_iter().chain(late).min()
    }

    /// Begins the connections whose time has come, and gives up those whose handshake takes too long.
    pub(super) fn connect_due(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        while let Some((since_ns, link)) = self.opening.front().copied() {
            let is_under_way = self.links[link].phase == Phase::Opening { since_ns };
            if is_under_way && since_ns + handshake_ns_max() > now_ns {
                break;
            }
            self.opening.pop_front();
            if is_under_way {
                self.lose(link, "its Hello was not answered in time");
            }
        }
        while self.opening_count < OPENING_MAX
            && let Some((_, link)) = self.down.front().copied().filter(|(at_ns, _)| *at_ns <= now_ns)
        {
            self.down.pop_front();
            self.connect(link);
        }
    }

    fn connect(&mut self, link: usize) {
        let since_ns = self.now_ns;
        self.links[link].attempts += 1;
        self.counts.calls += CONNECT_CALLS;
        self.links[link].phase = Phase::Opening { since_ns };
        self.opening_count += 1;
        self.opening.push_back((since_ns, link));
        let made = begin(self.address(link), source(self.plan.first + link)).and_then(|mut stream| {
            self.registry.register(&mut stream, Token(link), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match made {
            Ok(stream) => {
                self.links[link].stream = Some(stream);
                self.links[link].out.extend_from_slice(&self.hello);
            }
            Err(error) => self.lose(link, &error.to_string()),
        }
    }

    /// The first frame on a connection: whether the server takes us.
    pub(super) fn greeted(&mut self, link: usize, frame: &Frame<'_>) -> Result<(), String> {
        match frame.kind() {
            Some(Kind::HelloOk) => {
                self.links[link].phase = Phase::Open;
                self.opening_count -= 1;
                self.open_count += 1;
                Ok(())
            }
            Some(Kind::Error) => Err(frame.decode::<ErrorBody>().map_or_else(|e| e.to_string(), |e| e.to_string())),
            _ => Err(format!("it answers Hello with kind {:#06x}", frame.header.kind)),
        }
    }

    /// Reads once; `None`: nothing there now.
    pub(super) fn read(&mut self, link: usize, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(stream) = &mut self.links[link].stream else { return Ok(None) };
        loop {
            self.counts.calls += 1;
            return match stream.read(scratch) {
                Ok(len) => {
                    self.counts.received += len as u64;
                    Ok(Some(len))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    pub(super) fn take_deframer(&mut self, link: usize) -> Deframer {
        std::mem::replace(&mut self.links[link].deframer, Deframer::new(CLIENT_BODY_MAX))
    }

    /// Gives a deframer back, unless the connection it belongs to is gone.
    pub(super) fn give_deframer(&mut self, link: usize, deframer: Deframer) {
        if self.links[link].stream.is_some() {
            self.links[link].deframer = deframer;
        }
    }

    /// Writes what waits, once for each connection. What a socket does not take waits for its next edge.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for link in dirty.drain(..) {
            self.links[link].dirty = false;
            if let Err(error) = self.links[link].write(&mut self.counts) {
                self.lose(link, &error.to_string());
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }
}

impl Link {
    fn write(&mut self, counts: &mut Counts) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while !self.out.is_empty() {
            counts.calls += 1;
            match stream.write(&self.out) {
                Ok(len) => {
                    counts.sent += len as u64;
                    self.out.advance(len);
                }
                // Not connected yet: its first edge will say so.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.out.capacity() > OUT_KEEP_MAX {
            self.out = BytesMut::new();
        }
        Ok(())
    }
}

fn handshake_ns_max() -> u64 {
    u64::from(HANDSHAKE_MS_MAX) * 1_000_000
}

/// Begins to connect without waiting.
fn begin(address: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source.filter(|_| address.ip().is_loopback() && address.is_ipv4()) {
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        other => other?,
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// The address from which connection `number` goes out when its server is on loopback; `None` leaves it to the kernel.
fn source(number: usize) -> Option<Ipv4Addr> {
    let group = u8::try_from(number / PER_SOURCE_MAX).unwrap_or(u8::MAX);
    (group > 0).then(|| Ipv4Addr::new(127, 0, 1, group))
}
