//! A small machine, a loop around it in a thread, and a client that can misbehave.
// A helper of tests: it may fail by panicking, and is public to its test only.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use pygmy_node::driver::{Counters, Driver, DriverConfig, Exit, Handle, Limits, LinkConfig, MemoryLog};
use pygmy_node::machine::{CloseReason, ConnClass, ConnId, Input, Machine, Now, Outbox, Output};
use pygmy_proto::batch::{BatchBuilder, EntryKind};
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::header::{Header, Kind};
use pygmy_proto::message::{Epoch, IoStatus, Pong};
use pygmy_proto::{ErrorBody, ErrorCode};

use crate::patience::{PATIENCE, wait};

/// First frame of a client; the machine answers with a `Pong`.
pub const HELLO: u16 = Kind::Hello as u16;
/// Echoed as `Pong`, byte for byte.
pub const ECHO: u16 = Kind::Ping as u16;
/// Body: count and length (`u32` each). Answered with so many `Pong`s of such length, every second one shared.
pub const FLOOD: u16 = Kind::Search as u16;
/// Appended to the log, answered when it is durable.
pub const APPEND: u16 = Kind::Write as u16;
/// Answered, and then the machine fails.
pub const FAIL: u16 = Kind::Status as u16;

/// Number of the node to which datagrams are sent back.
pub const NEIGHBOUR: u16 = 3;
/// The only epoch there is.
const EPOCH: Epoch = Epoch { counter: 1, node: 0 };

/// What the machine was told.
#[derive(Debug, Default)]
pub struct Seen {
    pub accepted: Vec<ConnId>,
    pub opened: Vec<(ConnId, u16)>,
    pub closed: Vec<(ConnId, CloseReason)>,
    pub frames: usize,
    pub turns: usize,
    pub durable: Vec<u64>,
    pub datagrams: Vec<Vec<u8>>,
    pub io: IoStatus,
}

/// How the machine behaves when it is asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLeave {
    Left,
    Ignore,
}

pub struct Echo {
    seen: Arc<Mutex<Seen>>,
    on_leave: OnLeave,
    next_seq: u64,
    hash: u128,
    appending: Vec<(ConnId, u64, Vec<u8>)>,
    waiting: Vec<(ConnId, u64, u64)>,
}

impl Echo {
    fn on_frame(&mut self, conn: ConnId, frame: frame::Frame<'_>, out: &mut Outbox) {
        self.seen.lock().unwrap().frames += 1;
        let id = frame.header.request_id;
        match frame.header.kind {
            HELLO => {
                out.push(Output::Class { conn, class: ConnClass::Client });
                out.send(conn, id, 0, 0, &Pong {});
            }
            FLOOD => {
                let number = |at: usize| u32::from_le_bytes(frame.body[at..at + 4].try_into().unwrap());
                for index in 0..number(0) {
                    flood(conn, id, index, number(4) as usize, out);
                }
            }
            APPEND => self.appending.push((conn, id, frame.body.to_vec())),
            FAIL => {
                out.send(conn, id, 0, 0, &Pong {});
                out.push(Output::Fatal { why: "asked to".into() });
            }
            _ => out.send_with(conn, Kind::Pong, id, 0, 0, |body| body.extend_from_slice(frame.body)),
        }
    }
}

fn flood(conn: ConnId, id: u64, index: u32, len: usize, out: &mut Outbox) {
    let fill = |body: &mut BytesMut| body.resize(body.len() + len, index as u8);
    if index.is_multiple_of(2) {
        return out.send_with(conn, Kind::Pong, id, index, 0, fill);
    }
    let mut bytes = BytesMut::new();
    frame::write_with(&mut bytes, Kind::Pong as u16, id, index, 0, fill);
    out.push(Output::Shared { conn, bytes: bytes.freeze() });
}

impl Machine for Echo {
    fn note_io(&mut self, io: IoStatus) {
        self.seen.lock().unwrap().io = io;
    }

    fn handle(&mut self, _now: Now, input: Input<'_>, out: &mut Outbox) {
        match input {
            Input::Accepted { conn } => self.seen.lock().unwrap().accepted.push(conn),
            Input::Opened { conn, node } => {
                self.seen.lock().unwrap().opened.push((conn, node));
                out.send_with(conn, Kind::Hello, 1, 0, 0, |_| {});
            }
            Input::Frame { conn, frame } => self.on_frame(conn, frame, out),
            Input::BadFrame { conn, error } => {
                out.send_error(conn, 0, 7, &error.to_error());
                out.push(Output::Close { conn, reason: CloseReason::BadFrame });
            }
            Input::Closed { conn, reason } => self.seen.lock().unwrap().closed.push((conn, reason)),
            Input::Durable { seq, .. } => {
                self.seen.lock().unwrap().durable.push(seq);
                for (conn, id, _) in self.waiting.extract_if(.., |(_, _, at)| *at <= seq) {
                    out.send(conn, id, 0, 0, &Pong {});
                }
            }
            Input::Datagram { bytes } => {
                self.seen.lock().unwrap().datagrams.push(bytes.to_vec());
                out.send_datagram([NEIGHBOUR].into_iter(), |out| out.extend_from_slice(bytes));
            }
            Input::Leave if self.on_leave == OnLeave::Left => out.push(Output::Left),
            // It asks for nothing of the kind.
            Input::VoteDurable(_)
            | Input::DiskFull(_)
            | Input::LogRead { .. }
            | Input::SnapshotTaken { .. }
            | Input::SnapshotFailed(_)
            | Input::Transferred(_)
            | Input::Leave => {}
        }
    }

    fn end_turn(&mut self, _now: Now, out: &mut Outbox) {
        self.seen.lock().unwrap().turns += 1;
        let mut builder = BatchBuilder::new(EPOCH, 1, self.next_seq, 1, self.hash);
        for (conn, id, body) in self.appending.drain(..) {
            self.waiting.push((conn, id, builder.push(EntryKind::Command, &body)));
        }
        if let Some(batch) = builder.finish() {
            self.next_seq = batch.last_seq() + 1;
            self.hash = batch.header().hash_last;
            out.push(Output::Append { epoch: EPOCH, batch });
        }
    }

    fn next_timeout(&self) -> Option<u64> {
        None
    }

    fn on_timeout(&mut self, _now: Now, _out: &mut Outbox) {}
}

/// A loop in a thread.
pub struct Running {
    pub address: SocketAddr,
    /// Where it takes datagrams.
    pub heartbeats: SocketAddr,
    pub handle: Handle,
    pub seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<(Exit, Counters)>,
}

pub fn start(limits: Limits) -> Running {
    start_with(limits, Vec::new(), OnLeave::Left)
}

pub fn start_with(limits: Limits, links: Vec<LinkConfig>, on_leave: OnLeave) -> Running {
    start_among(limits, links, Vec::new(), on_leave)
}

/// One that sends datagrams to `neighbours`.
pub fn start_among(limits: Limits, links: Vec<LinkConfig>, neighbours: Vec<LinkConfig>, on_leave: OnLeave) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let heartbeats = datagrams.local_addr().unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let machine =
        Echo { seen: seen.clone(), on_leave, next_seq: 1, hash: 0, appending: Vec::new(), waiting: Vec::new() };
    let config = DriverConfig { node: 7, listener, datagrams, links, neighbours, limits, signals: false };
    let mut driver = Driver::new(config, MemoryLog::default(), |_| machine).unwrap();
    let handle = driver.handle();
    let thread = std::thread::spawn(move || {
        let exit = driver.run().unwrap();
        (exit, driver.counters().clone())
    });
    Running { address, heartbeats, handle, seen, thread }
}

impl Running {
    /// Waits until `done`, or fails.
    pub fn wait(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        wait(what, || done(&self.seen.lock().unwrap()));
    }

    /// Waits until the loop ends by itself.
    pub fn join(self) -> (Exit, Counters) {
        self.thread.join().unwrap()
    }

    /// Asks it to leave and waits for that.
    pub fn leave(self) -> (Exit, Counters) {
        self.handle.leave().unwrap();
        self.join()
    }
}

/// A frame as bytes.
pub fn frame(kind: u16, request_id: u64, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::write_raw(&mut out, kind, request_id, 0, 0, body);
    out.to_vec()
}

/// The body of a [`FLOOD`].
pub fn flood_body(count: u32, len: u32) -> [u8; 8] {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&count.to_le_bytes());
    body[4..].copy_from_slice(&len.to_le_bytes());
    body
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub header: Header,
    pub body: Bytes,
}

impl Answer {
    /// The error it is.
    pub fn error(&self) -> ErrorBody {
        assert_eq!(Kind::from_u16(self.header.kind), Some(Kind::Error), "{self:?}");
        pygmy_proto::codec::decode(&self.body).unwrap()
    }

    /// The code of the error it is.
    pub fn code(&self) -> ErrorCode {
        self.error().known_code().unwrap()
    }
}

/// One connection of a client.
pub struct Client {
    pub socket: TcpStream,
    deframer: Deframer,
    ready: std::collections::VecDeque<Answer>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, deframer: Deframer::new(16 * 1024 * 1024), ready: Default::default() }
    }

    /// A connection whose handshake is done.
    pub fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.send(&frame(HELLO, 1, b""));
        assert_eq!(client.answer().header.request_id, 1);
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next answer.
    pub fn answer(&mut self) -> Answer {
        self.try_answer(64 * 1024).expect("the connection ended")
    }

    /// The next answer, read in steps of at most `step` bytes; none when the connection ended.
    pub fn try_answer(&mut self, step: usize) -> Option<Answer> {
        let mut buffer = vec![0; step];
        loop {
            if let Some(answer) = self.ready.pop_front() {
                return Some(answer);
            }
            let count = match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            };
            let ready = &mut self.ready;
            self.deframer
                .feed(&buffer[..count], |_, frame| {
                    ready.push_back(Answer { header: frame.header, body: Bytes::copy_from_slice(frame.body) });
                    Flow::Continue
                })
                .unwrap();
        }
    }

    /// Asserts that the other side ends the connection without another frame.
    pub fn assert_ended(&mut self) {
        assert_eq!(self.try_answer(1024), None);
    }
}
