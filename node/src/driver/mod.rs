//! The driver: one event loop that gives a [`Machine`] its inputs and carries out its outputs.
//!
//! A turn: wait for events; note readiness, accept, connect; read every ready connection within its budget and hand
//! each whole frame to the machine; fire what is due; end the machine's turn; give the log writer the turn's batches as
//! one group; flush every connection that has output with one vectored write. Nothing in it blocks, and a loop without
//! events and timers sleeps.
//!
//! What a machine may rely on:
//! * Every connection it was told of ([`Input::Accepted`], [`Input::Opened`]) is ended by exactly one
//!   [`Input::Closed`], also when the machine closed it itself; outputs for it are dropped from then on. An attempt to
//!   connect that fails is not the machine's concern: it is counted, and made again after a back-off.
//! * Outputs are carried out in order and before the next input, so that [`Output::Class`] governs the very next frame.
//! * No byte leaves before the turn's batches have been given to the log writer, and none of a turn that ended in
//!   [`Output::Fatal`].
//! * After [`Input::BadFrame`] the connection is closed, whether the machine asks for it or not.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token, Waker};
use pygmy_proto::frame::{Deframer, Flow, Frame};
use pygmy_proto::limits::DATAGRAM_LEN_MAX;
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

mod clock;
mod conn;
mod conns;
mod counters;
mod datagrams;
mod disklog;
mod limits;
mod links;
mod log;
mod queue;
mod resolve;
mod snapshots;
mod timers;
mod transfer;

pub use self::clock::now;
pub use self::counters::Counters;
pub use self::disklog::DiskLog;
pub use self::limits::Limits;
pub use self::links::LinkConfig;
pub use self::log::{LogError, LogEvent, LogWriter, MemoryLog};

use self::conn::Got;
use self::conns::{Conns, SLOTS_MAX};
use self::datagrams::Datagrams;
use self::limits::{
    ACCEPT_BUDGET, ACCEPT_PAUSE_MS, CLIENT_READ_BUDGET, DATAGRAM_BUDGET, DURABLE_ROUNDS_MAX, GRACE_MS, NEW_READ_BUDGET,
    PEER_READ_BUDGET, PEER_RESERVE, READ_BUFFER,
};
use self::links::Links;
use self::resolve::{Purpose, Resolved, Resolver};
use self::timers::{Timer, TimerTable};
use crate::machine::{CloseReason, ConnClass, ConnId, Input, Machine, Now, Outbox, Output, ms};
use crate::snapshot::Taken;

// Connections have tokens far below these.
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
const DATAGRAMS: Token = Token(usize::MAX - 3);
const EVENTS_PER_TURN: usize = 1024;

/// What a loop is made of.
#[derive(Debug)]
pub struct DriverConfig {
    /// Number of the node, for the errors that the driver itself sends.
    pub node: u16,
    /// Where others connect.
    pub listener: TcpListener,
    /// Where heartbeats come and go.
    pub datagrams: UdpSocket,
    /// Whom this node connects to.
    pub links: Vec<LinkConfig>,
    /// Whom it sends heartbeats to.
    pub neighbours: Vec<LinkConfig>,
    /// Its bounds.
    pub limits: Limits,
    /// Whether SIGTERM and SIGINT make it leave (and SIGHUP does nothing). They belong to the whole process.
    pub signals: bool,
}

/// How a loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It left in order: everything in flight was answered.
    Left,
    /// It was told to leave and did not finish; why not.
    Forced(String),
    /// Its log was replaced: it need not be started again; what it was told.
    Removed(String),
    /// The machine or the log found that going on would break a promise.
    Fatal(String),
}

/// Reaches a running loop from another thread.
#[derive(Debug, Clone)]
pub struct Handle {
    waker: Arc<Waker>,
    leave: Arc<AtomicBool>,
}

impl Handle {
    /// Asks the loop to leave, as SIGTERM does.
    ///
    /// # Errors
    /// The loop could not be woken.
    pub fn leave(&self) -> io::Result<()> {
        self.leave.store(true, Ordering::Release);
        self.waker.wake()
    }
}

/// How far leaving has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The machine was asked to finish.
    Asked,
    /// The machine has finished; connections take their last bytes.
    Left,
    /// They have also had a moment to close from their side.
    GraceOver,
}

/// One event loop.
pub struct Driver<M, L> {
    machine: M,
    log: L,
    poll: Poll,
    events: Events,
    listener: Option<mio::net::TcpListener>,
    signals: Option<Signals>,
    handle: Handle,
    resolver: Resolver,
    conns: Conns,
    links: Links,
    timers: TimerTable,
    limits: Limits,
    outbox: Outbox,
    datagrams: Datagrams,
    /// The one buffer that all connections are read into.
    buffer: Vec<u8>,
    reading: Vec<ConnId>,
    now: Now,
    accept_ready: bool,
    /// Whether it was already logged that accepting is paused.
    accept_paused: bool,
    /// The log writer had more to say than this turn had rounds.
    more_durable: bool,
    leaving: Leaving,
    exit: Option<Exit>,
}

impl<M: Machine, L: LogWriter> Driver<M, L> {
    /// A loop around the machine that `make` builds, given the time of its birth. It runs with [`Self::run`].
    ///
    /// # Errors
    /// The system refused a descriptor.
    pub fn new(config: DriverConfig, mut log: L, make: impl FnOnce(Now) -> M) -> io::Result<Self> {
        let poll = Poll::new()?;
        config.listener.set_nonblocking(true)?;
        let mut listener = mio::net::TcpListener::from_std(config.listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut datagrams = Datagrams::new(config.datagrams, config.neighbours)?;
        datagrams.register(poll.registry(), DATAGRAMS)?;
        let signals = config.signals.then(|| Signals::new([SIGTERM, SIGINT, SIGHUP])).transpose()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let limits = config.limits;
        log.attach(Arc::clone(&waker));
        let now = clock::now();
        let mut driver = Self {
            machine: make(now),
            log,
            events: Events::with_capacity(EVENTS_PER_TURN),
            listener: Some(listener),
            signals,
            resolver: Resolver::new(Arc::clone(&waker)),
            handle: Handle { waker, leave: Arc::new(AtomicBool::new(false)) },
            conns: Conns::new(poll.registry().try_clone()?, config.node, limits),
            links: Links::new(config.links, limits.reconnect_ms_min, limits.reconnect_ms_max),
            poll,
            timers: TimerTable::default(),
            limits,
            outbox: Outbox::new(),
            datagrams,
            buffer: vec![0; READ_BUFFER],
            reading: Vec::new(),
            now,
            accept_ready: false,
            accept_paused: false,
            more_durable: false,
            leaving: Leaving::No,
            exit: None,
        };
        if let Some(signals) = &mut driver.signals {
            driver.poll.registry().register(signals, SIGNALS, Interest::READABLE)?;
        }
        driver.timers.set(Timer::Reconnect, driver.links.next_due());
        driver.timers.set(Timer::Machine, driver.machine.next_timeout());
        Ok(driver)
    }

    /// Reaches the loop from other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Counters {
        &self.conns.counters
    }

    /// Turns until it has left or must end.
    ///
    /// # Errors
    /// The system's event queue failed.
    pub fn run(&mut self) -> io::Result<Exit> {
        loop {
            self.turn()?;
            if let Some(exit) = self.exit.take() {
                ::log::info!("{exit:?}: {}", self.conns.counters);
                return Ok(exit);
            }
        }
    }

    /// Closes the log in order. The machine's memory is left to the system, which takes it back with the process: to give
    /// back a million books one by one would take longer than whoever stops a server waits.
    pub fn end(self) {
        let Self { log, machine, .. } = self;
        drop(log);
        std::mem::forget(machine);
    }

    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        self.now = clock::now();
        self.conns.counters.turns += 1;
        self.machine.note_io(self.conns.counters.io(self.datagrams.calls(), self.log.calls()));
        self.on_events();
        self.accept();
        self.read_datagrams();
        self.read_connections();
        self.fire_timers();
        if let Err(error) = self.step_machine() {
            self.exit = Some(Exit::Fatal(error.to_string()));
        }
        if matches!(self.exit, Some(Exit::Fatal(_))) {
            return Ok(());
        }
        self.conns.flush(self.now.mono_ns);
        self.settle_links();
        self.set_sweeps();
        self.check_left();
        Ok(())
    }

    /// Sleeps until an event or the earliest timer, or not at all when work is left.
    fn wait(&mut self) -> io::Result<()> {
        let busy = self.conns.has_work()
            || self.datagrams.is_ready()
            || self.more_durable
            || (self.accept_ready && self.listener.is_some());
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            self.timers.next().map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(self.now.mono_ns)))
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn on_events(&mut self) {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                LISTENER => self.accept_ready = true,
                SIGNALS => self.on_signals(),
                DATAGRAMS => self.datagrams.ready(),
                WAKER => {
                    if self.handle.leave.swap(false, Ordering::AcqRel) {
                        self.on_leave("a request");
                    }
                }
                Token(id) => {
                    let id = ConnId(id as u64);
                    if self.conns.on_event(id, event) && self.conns.finish_connect(id) {
                        self.on_opened(id);
                    }
                }
            }
        }
        self.events = events;
        // A literal address is answered without a wake-up, so the answers are looked for in every turn.
        self.take_resolved();
    }

    /// Heartbeats, as many as one turn may take: they are read before anything else, so that a loop that is behind with
    /// its work does not take for silence what lies in its own socket.
    fn read_datagrams(&mut self) {
        if !self.datagrams.is_ready() {
            return;
        }
        let mut buffer = [0; DATAGRAM_LEN_MAX + 1];
        for _ in 0..DATAGRAM_BUDGET {
            let Some(len) = self.datagrams.receive(&mut buffer) else { return };
            self.give(Input::Datagram { bytes: &buffer[..len] });
        }
    }

    fn on_signals(&mut self) {
        let pending: Vec<i32> = self.signals.iter_mut().flat_map(Signals::pending).collect();
        for signal in pending {
            match signal {
                SIGHUP => ::log::info!("SIGHUP: a closed terminal does not end a server; SIGTERM does"),
                SIGINT => self.on_leave("SIGINT"),
                _ => self.on_leave("SIGTERM"),
            }
        }
    }

    fn on_leave(&mut self, cause: &str) {
        if self.leaving != Leaving::No {
            self.exit = Some(Exit::Forced(format!("{cause} came while it was leaving already")));
            return;
        }
        ::log::info!("leaving because of {cause}");
        self.leaving = Leaving::Asked;
        self.listener = None;
        self.timers.set(Timer::Leave, Some(self.now.mono_ns + ms(self.limits.leave_ms_max.into())));
        self.give(Input::Leave);
    }

    /// Gives the machine one input and carries out what it wants.
    fn give(&mut self, input: Input<'_>) {
        self.machine.handle(self.now, input, &mut self.outbox);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let mut outputs = self.outbox.take_outputs();
        for output in outputs.drain(..) {
            self.carry_out_one(output);
        }
        self.outbox.recycle(outputs);
    }

    fn carry_out_one(&mut self, output: Output) {
        let now_ns = self.now.mono_ns;
        match output {
            Output::Frame { conn, range } => {
                self.conns.queue(conn, self.outbox.bytes().get(range).unwrap_or_default(), now_ns);
            }
            Output::Shared { conn, bytes } => self.queue_shared(conn, bytes),
            Output::Class { conn, class } => {
                if let Some(node) = self.conns.set_class(conn, class, now_ns) {
                    self.links.on_handshake(node);
                }
            }
            Output::Close { conn, reason } => self.conns.close(conn, reason, now_ns),
            Output::Append { epoch, batch } => self.log.submit(epoch, batch),
            Output::Vote(vote) => self.log.submit_vote(vote),
            Output::ReadLog { node, from_seq, upto } => self.log.read(node, from_seq, upto),
            Output::Datagram { node, range } => {
                self.datagrams.send(node, self.outbox.bytes().get(range).unwrap_or_default());
            }
            Output::TakeSnapshot(order) => self.log.take_snapshot(order),
            Output::CutLog { below } => self.log.cut_below(below),
            Output::RestartLog { epoch, mark } => self.log.restart(epoch, mark),
            Output::Transfer(job) => self.log.transfer(job),
            Output::Meet { node, address, dial } => self.meet(node, address, dial),
            Output::Forget { node } => {
                self.links.remove(node);
                self.datagrams.remove(node);
            }
            Output::Left => self.on_left(),
            Output::Removed { why } => self.exit = Some(Exit::Removed(why)),
            Output::Fatal { why } => self.exit = Some(Exit::Fatal(why)),
        }
    }

    fn queue_shared(&mut self, conn: ConnId, bytes: Bytes) {
        self.conns.queue_shared(conn, bytes, self.now.mono_ns);
    }

    fn on_left(&mut self) {
        if matches!(self.leaving, Leaving::No | Leaving::Asked) {
            self.leaving = Leaving::Left;
            self.links.stop();
            self.conns.close_all(CloseReason::Leaving, self.now.mono_ns);
            self.timers.set(Timer::Grace, Some(self.now.mono_ns + ms(GRACE_MS)));
        }
    }

    /// Accepts what waits, as far as the turn's budget goes.
    fn accept(&mut self) {
        for _ in 0..ACCEPT_BUDGET {
            let Some(listener) = self.listener.as_ref().filter(|_| self.accept_ready) else { return };
            self.conns.counters.conn_calls += 1;
            match listener.accept() {
                Ok((socket, address)) => self.admit(socket, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.accept_ready = false,
                Err(error) if is_exhausted(&error) => self.pause_accept(&error),
                // The attempt died before it was accepted, or a signal came: the next one is behind it.
                Err(error) => ::log::debug!("a connection was lost before it was accepted: {error}"),
            }
        }
    }

    fn admit(&mut self, socket: mio::net::TcpStream, address: std::net::SocketAddr) {
        self.accept_paused = false;
        self.conns.counters.accepts += 1;
        let max = self.limits.connections_max.saturating_add(PEER_RESERVE).min(SLOTS_MAX - 1);
        if self.conns.len() >= max {
            // Not even room for a word of explanation: a crowd of unanswered connections has taken it.
            self.conns.counters.count_close(CloseReason::Refused);
            ::log::debug!("connection from {address} refused, there are {max}, connections_max and a reserve");
            return;
        }
        match self.conns.add(socket, address, None, self.now.mono_ns) {
            Ok(conn) => self.give(Input::Accepted { conn }),
            Err(error) => ::log::warn!("connection from {address} not taken in: {error}"),
        }
    }

    fn pause_accept(&mut self, error: &io::Error) {
        if !self.accept_paused {
            ::log::warn!("accepting pauses: {error}; raise the limit on open files or connect fewer clients");
        }
        self.accept_paused = true;
        self.accept_ready = false;
        self.timers.set(Timer::AcceptPause, Some(self.now.mono_ns + ms(ACCEPT_PAUSE_MS)));
    }

    fn take_resolved(&mut self) {
        while let Some(Resolved { node, purpose, addresses }) = self.resolver.poll() {
            match purpose {
                Purpose::Connection => self.on_resolved(node, addresses),
                Purpose::Heartbeats => match addresses.map(|addresses| addresses.first().copied()) {
                    Ok(Some(address)) => self.datagrams.add(node, address),
                    other => ::log::warn!("no heartbeats go to node {node}, its address is not known: {other:?}"),
                },
            }
        }
    }

    /// There is another server than was known at the start.
    fn meet(&mut self, node: u16, address: String, dial: bool) {
        self.resolver.ask(node, Purpose::Heartbeats, &address);
        if dial {
            self.links.add(LinkConfig { node, address });
        }
        self.take_resolved();
        self.timers.set(Timer::Reconnect, self.links.next_due());
    }

    fn on_resolved(&mut self, node: u16, addresses: io::Result<Vec<std::net::SocketAddr>>) {
        let attempt = addresses.and_then(|addresses| {
            let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            let address = self.links.choose(node, &addresses).ok_or_else(none)?;
            let socket = mio::net::TcpStream::connect(address)?;
            self.conns.add(socket, address, Some(node), self.now.mono_ns)
        });
        match attempt {
            Ok(_) => self.links.on_connecting(node),
            Err(error) => {
                ::log::debug!("node {node} not reached: {error}");
                self.conns.counters.count_close(CloseReason::NotReached);
                self.links.on_down(node, self.now.mono_ns);
            }
        }
        self.timers.set(Timer::Reconnect, self.links.next_due());
    }

    fn on_opened(&mut self, conn: ConnId) {
        if let Some(node) = self.conns.get(conn).and_then(|conn| conn.link) {
            self.give(Input::Opened { conn, node });
        }
    }

    fn read_connections(&mut self) {
        let mut list = std::mem::take(&mut self.reading);
        self.conns.take_to_read(&mut list);
        let mut buffer = std::mem::take(&mut self.buffer);
        for id in &list {
            self.read_connection(*id, &mut buffer);
            self.conns.arm(*id);
        }
        self.buffer = buffer;
        self.reading = list;
    }

    /// Reads until the socket is empty, the budget spent or the connection no longer read from.
    fn read_connection(&mut self, id: ConnId, buffer: &mut [u8]) {
        let Some(class) = self.conns.get(id).map(|conn| conn.class) else { return };
        let mut budget = match class {
            ConnClass::New => NEW_READ_BUDGET,
            ConnClass::Client => CLIENT_READ_BUDGET,
            ConnClass::Peer => PEER_READ_BUDGET,
        };
        while budget > 0 {
            let room = budget.min(buffer.len());
            match self.conns.read(id, &mut buffer[..room]) {
                Got::Bytes(count) => {
                    self.on_bytes(id, &buffer[..count]);
                    budget -= count;
                }
                Got::Nothing => return,
                Got::End => return self.conns.on_end(id, self.now.mono_ns),
                Got::Broken(kind) => return self.conns.cut(id, CloseReason::Broken, &kind.to_string()),
            }
        }
    }

    /// Hands the frames in `bytes` to the machine.
    fn on_bytes(&mut self, id: ConnId, bytes: &[u8]) {
        if !self.conns.is_open(id) {
            return self.conns.drop_input(id, bytes.len());
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        // The deframer is away while its frames are handled, so that handling may do anything to the connection.
        let mut deframer = std::mem::replace(&mut conn.deframer, Deframer::new(0));
        let fed = deframer.feed(bytes, |deframer, frame| self.on_frame(id, deframer, frame));
        if let Err(error) = fed {
            ::log::info!("connection with {} sent no frame: {error}", self.address(id));
            self.give(Input::BadFrame { conn: id, error });
            return self.conns.close(id, CloseReason::BadFrame, self.now.mono_ns);
        }
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.phase == conn::Phase::Open) {
            conn.deframer = deframer;
        }
    }

    fn on_frame(&mut self, id: ConnId, deframer: &mut Deframer, frame: Frame<'_>) -> Flow {
        self.conns.counters.frames_in += 1;
        self.give(Input::Frame { conn: id, frame });
        match self.conns.get(id) {
            Some(conn) if conn.phase == conn::Phase::Open && self.exit.is_none() => {
                deframer.set_body_max(conn::body_max(conn.class));
                Flow::Continue
            }
            _ => Flow::Stop,
        }
    }

    fn address(&self, id: ConnId) -> String {
        self.conns.get(id).map_or_else(|| "?".to_owned(), |conn| conn.address.to_string())
    }

    fn fire_timers(&mut self) {
        let now_ns = self.now.mono_ns;
        if self.timers.take_due(Timer::AcceptPause, now_ns) {
            self.accept_ready = true;
        }
        if self.timers.take_due(Timer::Handshake, now_ns) {
            self.conns.sweep_handshakes(now_ns);
        }
        if self.timers.take_due(Timer::Stall, now_ns) {
            self.conns.sweep_stalled(now_ns);
        }
        if self.timers.take_due(Timer::Linger, now_ns) {
            self.conns.sweep_lingering(now_ns);
        }
        if self.timers.take_due(Timer::Grace, now_ns) {
            self.leaving = Leaving::GraceOver;
        }
        if self.timers.take_due(Timer::Leave, now_ns) {
            let (unsent, open) = (self.conns.unsent(), self.conns.len());
            let waited = self.limits.leave_ms_max;
            let why = format!("not done {waited} ms after it was asked; {open} connections, {unsent} bytes unsent");
            self.exit = Some(Exit::Forced(why));
        }
        if self.timers.take_due(Timer::Reconnect, now_ns) {
            self.links.ask_due(now_ns, &self.resolver);
            // Literal addresses are answered already.
            self.take_resolved();
        }
    }

    /// Tells the machine what ended, fires its timers, ends its turn and gives the log writer its group; again while
    /// the log says that more is durable, within bounds.
    fn step_machine(&mut self) -> Result<(), LogError> {
        self.tell_closed();
        if self.machine.next_timeout().is_some_and(|due_ns| due_ns <= self.now.mono_ns) {
            self.machine.on_timeout(self.now, &mut self.outbox);
            self.carry_out();
        }
        self.more_durable = true;
        for round in 0..DURABLE_ROUNDS_MAX {
            let event = match self.log.poll()? {
                Some(event) => Some(input_of(event)),
                None => self.log.poll_transfer().map(Input::Transferred),
            };
            match event {
                Some(input) => self.give(input),
                None if round > 0 => {
                    self.more_durable = false;
                    break;
                }
                None => {}
            }
            self.tell_closed();
            self.machine.end_turn(self.now, &mut self.outbox);
            self.carry_out();
            self.log.flush()?;
        }
        self.timers.set(Timer::Machine, self.machine.next_timeout());
        Ok(())
    }

    fn tell_closed(&mut self) {
        while let Some((conn, reason)) = self.conns.next_closed() {
            self.give(Input::Closed { conn, reason });
        }
    }

    /// Links that went down wait for their next attempt.
    fn settle_links(&mut self) {
        while let Some(node) = self.conns.next_down() {
            self.links.on_down(node, self.now.mono_ns);
        }
        self.timers.set(Timer::Reconnect, self.links.next_due());
    }

    fn set_sweeps(&mut self) {
        self.timers.set(Timer::Handshake, self.conns.handshake_due());
        self.timers.set(Timer::Linger, self.conns.linger_due());
        if self.conns.has_stalled() {
            // A tenth of the limit is as exact as the limit needs to be.
            let step = ms(u64::from(self.limits.client_stall_ms_max).div_ceil(10));
            self.timers.set_if_idle(Timer::Stall, self.now.mono_ns + step);
        }
    }

    /// Ends the loop when leaving is complete.
    fn check_left(&mut self) {
        let complete = match self.leaving {
            Leaving::No | Leaving::Asked => false,
            Leaving::Left => self.conns.len() == 0,
            Leaving::GraceOver => self.conns.all_written(),
        };
        if complete && self.exit.is_none() {
            self.exit = Some(Exit::Left);
        }
    }
}

/// What the log writer tells, as the machine is told.
fn input_of(event: LogEvent) -> Input<'static> {
    match event {
        LogEvent::Durable { epoch, seq, hash } => Input::Durable { epoch, seq, hash },
        LogEvent::Vote(vote) => Input::VoteDurable(vote),
        LogEvent::Full(full) => Input::DiskFull(full),
        LogEvent::Read { node, batches } => Input::LogRead { node, batches },
        LogEvent::Snapshot(Ok(Taken { info, cut_below })) => {
            Input::SnapshotTaken { seq: info.seq(), bytes: info.bytes(), cut_below }
        }
        LogEvent::Snapshot(Err(error)) => Input::SnapshotFailed(error),
    }
}

/// Whether accepting failed for want of something that others must give back first.
fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Raises this process's limit on open files to what the system allows; the limit then.
pub fn raise_open_files_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}
