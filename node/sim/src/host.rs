//! A simulated process: a real [`Node`], and around it what the driver is in production, without sockets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use pygmy_node::disk::queue::Event as DiskEvent;
use pygmy_node::machine::{CloseReason, ConnClass, ConnId, Input, Machine, Now, Outbox, Output};
use pygmy_node::node::Node;
use pygmy_node::snapshot::transfer::{Done, Job};
use pygmy_node::snapshot::{BuildError, SnapshotOrder, Taken};
use pygmy_proto::Kind;
use pygmy_proto::batch::Batch;
use pygmy_proto::frame::{self, Deframer, Flow, Frame};
use pygmy_proto::header::{HEADER_LEN, HeaderView};
use pygmy_proto::limits::{CLIENT_BODY_MAX, HELLO_BODY_MAX, PEER_BODY_MAX};
use pygmy_ring::detector::{GRACE_NS, LATE_NS};

use crate::check::promises::counts;
use crate::disk::Write;
use crate::mistake::Mistake;
use crate::plan::{MS, US};
use crate::reads::Read;
use crate::threads::Thread;

/// What waits for a node's next turn.
#[derive(Debug)]
pub enum Item {
    /// Somebody connected.
    Accepted(ConnId),
    /// This node's own attempt succeeded.
    Opened(ConnId, u16),
    /// Bytes came.
    Bytes(ConnId, Bytes),
    /// A connection is gone.
    Gone(ConnId, CloseReason),
    /// A datagram came.
    Datagram(Bytes),
    /// The disk has something to tell.
    Disk(DiskEvent),
    /// A part of the log was read, for this node.
    Read(u16, Vec<Batch>),
    /// What became of the snapshot that it ordered.
    Snapshot(Result<Taken, BuildError>),
    /// What became of work with snapshots that come or go.
    Transferred(Done),
    /// It shall leave.
    Leave,
}

/// The clocks of a process. They run at their own rate, and the wall clock jumps.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// The simulation's time at which they were set.
    pub set_at: u64,
    /// What the monotonic clock said then.
    pub mono_ns: u64,
    /// What the wall clock said then, in microseconds.
    pub wall_us: u64,
    /// Nanoseconds that they count in a millisecond.
    pub rate: u64,
}

impl Clocks {
    /// What they say at a time of the simulation.
    pub fn at(&self, at: u64) -> Now {
        let passed = (at - self.set_at) * self.rate / MS;
        Now { mono_ns: self.mono_ns + passed, wall_us: self.wall_us + passed / US }
    }

    /// The first time of the simulation at which the monotonic clock says `mono_ns`.
    pub fn when(&self, mono_ns: u64) -> u64 {
        self.set_at + (mono_ns.saturating_sub(self.mono_ns) * MS).div_ceil(self.rate)
    }
}

/// A connection as its process knows it.
#[derive(Debug)]
struct Link {
    deframer: Deframer,
    out: BytesMut,
    closing: Option<CloseReason>,
    dialed: Option<u16>,
}

/// What a front and a client say to one another: one frame, or some in a row.
#[derive(Debug)]
pub struct Talk {
    /// Where.
    pub conn: ConnId,
    /// Whether the front says it.
    pub said: bool,
    /// It.
    pub bytes: Bytes,
}

/// What a turn leaves for the world to do.
#[derive(Debug, Default)]
pub struct Effects {
    /// Whether the process is a front, of whom it counts what it says to clients.
    pub is_front: bool,
    /// Reads that came, answers to reads and acknowledgements, in the order in which the front has dealt with them.
    pub talk: Vec<Talk>,
    /// Bytes for connections, in order.
    pub writes: Vec<(ConnId, Bytes)>,
    /// Connections to be closed behind them.
    pub closes: Vec<(ConnId, CloseReason)>,
    /// Datagrams for nodes.
    pub datagrams: Vec<(u16, Bytes)>,
    /// What is to be made durable, in order.
    pub disk: Vec<Write>,
    /// Parts of the log to be read: for which node, from where, up to where.
    pub reads: Vec<(u16, u64, u64)>,
    /// A snapshot to be taken.
    pub snapshot: Option<Box<SnapshotOrder>>,
    /// Work with snapshots that come or go, in order.
    pub jobs: Vec<Job>,
    /// Nodes to which the handshake is done: back-off starts anew.
    pub greeted: Vec<u16>,
    /// Nodes to which a connection that this one had opened is gone.
    pub lost: Vec<u16>,
    /// Nodes to which a connection is to be opened.
    pub met: Vec<u16>,
    /// Nodes to which none is to be opened any more.
    pub forgotten: Vec<u16>,
    /// It was told that its log was removed.
    pub removed: bool,
    /// The process may end.
    pub left: bool,
    /// It must end.
    pub fatal: Option<String>,
    /// Inputs taken.
    pub inputs: usize,
}

/// A process.
#[derive(Debug)]
pub struct Process {
    /// Tells it from all other processes there ever were.
    pub boot: u64,
    /// The machine.
    pub node: Node,
    /// What waits for the next turn.
    pub inbox: VecDeque<Item>,
    /// When the next turn is planned.
    pub turn_at: Option<u64>,
    /// No turns from then on,
    pub paused_from: u64,
    /// before this.
    pub paused_until: u64,
    /// Its clocks.
    pub clocks: Clocks,
    /// Asked to leave.
    pub leaving: bool,
    /// Nodes that it no longer dials.
    pub forgotten: BTreeSet<u16>,
    /// Attempts since the last handshake, for each node that it dials.
    pub attempts: BTreeMap<u16, u32>,
    /// Sends its heartbeats when it should not.
    pub thread: Thread,
    links: BTreeMap<ConnId, Link>,
    outbox: Outbox,
}

impl Process {
    /// A process around `node`.
    pub fn new(boot: u64, node: Node, clocks: Clocks) -> Self {
        Self {
            boot,
            node,
            inbox: VecDeque::new(),
            turn_at: None,
            paused_from: 0,
            paused_until: 0,
            clocks,
            leaving: false,
            forgotten: BTreeSet::new(),
            attempts: BTreeMap::new(),
            thread: Thread::default(),
            links: BTreeMap::new(),
            outbox: Outbox::new(),
        }
    }

    /// Whether it did not run for a while, until so lately that it can have heard nobody yet.
    pub fn just_woke(&self, at: u64) -> bool {
        let was_stopped = self.paused_until.saturating_sub(self.paused_from) > 2 * LATE_NS;
        was_stopped && at < self.paused_until + GRACE_NS * 9 / 10
    }

    /// Its time at a time of the simulation.
    pub fn clock(&self, at: u64) -> Now {
        self.clocks.at(at)
    }

    /// When it wants to be woken, in the simulation's time.
    pub fn next_timeout(&self) -> Option<u64> {
        self.node.next_timeout().map(|mono_ns| self.clocks.when(mono_ns))
    }

    /// Whether a connection that it opened to `node` stands or is in its handshake.
    pub fn dialed(&self, node: u16) -> bool {
        self.links.values().any(|link| link.dialed == Some(node) && link.closing.is_none())
    }

    /// Bytes kept of incomplete frames.
    pub fn buffered(&self) -> usize {
        self.links.values().map(|link| link.deframer.buffered()).sum()
    }

    /// One turn: up to `budget` inputs, then what is due, then the end of the turn.
    pub fn turn(&mut self, at: u64, budget: usize, mistake: Option<Mistake>) -> Effects {
        let now = self.clock(at);
        let mut effects = Effects { is_front: self.node.replica().is_none(), ..Effects::default() };
        while effects.inputs < budget
            && let Some(item) = self.inbox.pop_front()
        {
            effects.inputs += 1;
            self.take(now, item, &mut effects);
        }
        let due = self.node.next_timeout().is_some_and(|due| due <= now.mono_ns);
        if due && mistake != Some(Mistake::SkipTimers) {
            self.step(&mut effects, |node, out| node.on_timeout(now, out));
        }
        self.step(&mut effects, |node, out| node.end_turn(now, out));
        if effects.fatal.is_none() {
            self.flush(&mut effects, mistake);
        }
        effects
    }

    fn step(&mut self, effects: &mut Effects, act: impl FnOnce(&mut Node, &mut Outbox)) {
        act(&mut self.node, &mut self.outbox);
        carry_out(&mut self.outbox, &mut self.links, effects);
    }

    fn take(&mut self, now: Now, item: Item, effects: &mut Effects) {
        match item {
            Item::Accepted(conn) => {
                self.links.insert(conn, new_link(None));
                self.step(effects, |node, out| node.handle(now, Input::Accepted { conn }, out));
            }
            Item::Opened(conn, to) => {
                self.links.insert(conn, new_link(Some(to)));
                self.step(effects, |node, out| node.handle(now, Input::Opened { conn, node: to }, out));
            }
            Item::Bytes(conn, bytes) => self.take_bytes(now, conn, &bytes, effects),
            Item::Gone(conn, reason) => {
                if let Some(link) = self.links.remove(&conn) {
                    effects.lost.extend(link.dialed);
                    self.step(effects, |node, out| node.handle(now, Input::Closed { conn, reason }, out));
                }
            }
            Item::Datagram(bytes) => {
                self.step(effects, |node, out| node.handle(now, Input::Datagram { bytes: &bytes }, out));
            }
            Item::Disk(event) => self.take_disk_event(now, event, effects),
            Item::Read(to, batches) => {
                self.step(effects, |node, out| node.handle(now, Input::LogRead { node: to, batches }, out));
            }
            Item::Snapshot(done) => {
                let input = match done {
                    Ok(Taken { info, cut_below }) => {
                        Input::SnapshotTaken { seq: info.seq(), bytes: info.bytes(), cut_below }
                    }
                    Err(error) => Input::SnapshotFailed(error),
                };
                self.step(effects, |node, out| node.handle(now, input, out));
            }
            Item::Transferred(done) => {
                self.step(effects, |node, out| node.handle(now, Input::Transferred(done), out));
            }
            Item::Leave => self.step(effects, |node, out| node.handle(now, Input::Leave, out)),
        }
    }

    fn take_disk_event(&mut self, now: Now, event: DiskEvent, effects: &mut Effects) {
        let input = match event {
            DiskEvent::Durable { epoch, seq, hash } => Input::Durable { epoch, seq, hash },
            DiskEvent::Vote(vote) => Input::VoteDurable(vote),
            DiskEvent::Full(full) => Input::DiskFull(full),
            DiskEvent::Read { node, batches } => Input::LogRead { node, batches },
        };
        self.step(effects, |node, out| node.handle(now, input, out));
    }

    fn take_bytes(&mut self, now: Now, conn: ConnId, bytes: &[u8], effects: &mut Effects) {
        let Some(link) = self.links.get_mut(&conn).filter(|link| link.closing.is_none()) else { return };
        // Lent out while frames are handled, for these may change any connection.
        let mut deframer = std::mem::replace(&mut link.deframer, Deframer::new(HELLO_BODY_MAX));
        let Self { node, outbox, links, .. } = self;
        let result = deframer.feed(bytes, |deframer, frame| {
            if effects.is_front && Read::decode(&frame).is_some() {
                effects.talk.push(Talk { conn, said: false, bytes: whole(&frame) });
            }
            node.handle(now, Input::Frame { conn, frame }, outbox);
            if let Some(class) = carry_out_for(conn, outbox, links, effects) {
                deframer.set_body_max(body_max(class));
            }
            if links.get(&conn).is_some_and(|link| link.closing.is_none()) { Flow::Continue } else { Flow::Stop }
        });
        if let Some(link) = self.links.get_mut(&conn) {
            link.deframer = deframer;
        }
        if let Err(error) = result {
            self.step(effects, |node, out| node.handle(now, Input::BadFrame { conn, error }, out));
            if let Some(link) = self.links.get_mut(&conn) {
                link.closing.get_or_insert(CloseReason::BadFrame);
            }
        }
    }

    /// What is queued goes out, connection by connection; those that were closed are closed behind it.
    fn flush(&mut self, effects: &mut Effects, mistake: Option<Mistake>) {
        for (conn, link) in &mut self.links {
            if !link.out.is_empty() {
                let bytes = link.out.split().freeze();
                effects.writes.push((*conn, tamper(bytes, mistake)));
            }
            if let Some(reason) = link.closing {
                effects.closes.push((*conn, reason));
            }
        }
    }
}

fn new_link(dialed: Option<u16>) -> Link {
    Link { deframer: Deframer::new(HELLO_BODY_MAX), out: BytesMut::new(), closing: None, dialed }
}

fn body_max(class: ConnClass) -> usize {
    match class {
        ConnClass::New => HELLO_BODY_MAX,
        ConnClass::Client => CLIENT_BODY_MAX,
        ConnClass::Peer => PEER_BODY_MAX,
    }
}

fn carry_out(outbox: &mut Outbox, links: &mut BTreeMap<ConnId, Link>, effects: &mut Effects) {
    carry_out_for(ConnId(u64::MAX), outbox, links, effects);
}

/// Carries out what the machine wants. The new class of `current`, whose deframer is lent out, is given back.
fn carry_out_for(
    current: ConnId,
    outbox: &mut Outbox,
    links: &mut BTreeMap<ConnId, Link>,
    effects: &mut Effects,
) -> Option<ConnClass> {
    let mut class_of_current = None;
    let mut outputs = outbox.take_outputs();
    for output in outputs.drain(..) {
        match output {
            Output::Frame { conn, range } => {
                if effects.is_front && frames(&outbox.bytes()[range.clone()]).any(|frame| counts(frame.kind())) {
                    let bytes = Bytes::copy_from_slice(&outbox.bytes()[range.clone()]);
                    effects.talk.push(Talk { conn, said: true, bytes });
                }
                if let Some(link) = links.get_mut(&conn) {
                    link.out.extend_from_slice(&outbox.bytes()[range]);
                }
            }
            Output::Shared { conn, bytes } => {
                if let Some(link) = links.get_mut(&conn) {
                    link.out.extend_from_slice(&bytes);
                }
            }
            Output::Class { conn, class } => {
                let Some(link) = links.get_mut(&conn) else { continue };
                effects.greeted.extend(link.dialed);
                if conn == current {
                    class_of_current = Some(class);
                } else {
                    link.deframer.set_body_max(body_max(class));
                }
            }
            Output::Close { conn, reason } => {
                if let Some(link) = links.get_mut(&conn) {
                    link.closing.get_or_insert(reason);
                }
            }
            Output::Append { epoch, batch } => effects.disk.push(Write::Append { epoch, batch }),
            Output::Vote(vote) => effects.disk.push(Write::Vote(vote)),
            Output::ReadLog { node, from_seq, upto } => effects.reads.push((node, from_seq, upto)),
            Output::Datagram { node, range } => {
                effects.datagrams.push((node, Bytes::copy_from_slice(&outbox.bytes()[range])));
            }
            Output::CutLog { below } => effects.disk.push(Write::Cut(below)),
            Output::RestartLog { epoch, mark } => effects.disk.push(Write::Restart { epoch, mark }),
            Output::TakeSnapshot(order) => effects.snapshot = Some(order),
            Output::Transfer(job) => effects.jobs.push(job),
            Output::Meet { node, dial, .. } => effects.met.extend(dial.then_some(node)),
            Output::Forget { node } => effects.forgotten.push(node),
            Output::Left => effects.left = true,
            // An ordered end: there is nothing left to do for it.
            Output::Removed { .. } => (effects.left, effects.removed) = (true, true),
            Output::Fatal { why } => effects.fatal = Some(why),
        }
    }
    outbox.recycle(outputs);
    class_of_current
}

/// The kinds and bodies of whole frames in a row.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let view = HeaderView::new(bytes)?;
        let len = HEADER_LEN + view.body_len() as usize;
        let frame = Frame { header: view.header(), body: bytes.get(HEADER_LEN..len)? };
        bytes = &bytes[len..];
        Some(frame)
    })
}

fn whole(frame: &Frame<'_>) -> Bytes {
    let header = frame.header;
    let mut bytes = BytesMut::with_capacity(HEADER_LEN + frame.body.len());
    frame::write_raw(&mut bytes, header.kind, header.request_id, header.aux, header.flags, frame.body);
    bytes.freeze()
}

/// What a turn writes to one connection, spoilt as a mistake wants it.
fn tamper(bytes: Bytes, mistake: Option<Mistake>) -> Bytes {
    let spoilt: Vec<(Frame<'_>, Bytes)> = match mistake {
        Some(Mistake::ForgetFloor) => frames(&bytes).map(|frame| (frame, without_floor(&frame))).collect(),
        Some(Mistake::Reorder) => {
            let mut all: Vec<_> = frames(&bytes).map(|frame| (frame, Bytes::copy_from_slice(frame.body))).collect();
            all.reverse();
            all
        }
        _ => return bytes,
    };
    let mut out = BytesMut::with_capacity(bytes.len());
    for (frame, body) in spoilt {
        let header = frame.header;
        frame::write_raw(&mut out, header.kind, header.request_id, header.aux, header.flags, &body);
    }
    out.freeze()
}

fn without_floor(frame: &Frame<'_>) -> Bytes {
    let is_read = matches!(
        frame.kind(),
        Some(Kind::Lookup | Kind::Search | Kind::Topics | Kind::Books | Kind::Order | Kind::Orders)
    );
    let mut body = frame.body.to_vec();
    if is_read && body.len() >= 8 {
        body[..8].fill(0);
    }
    body.into()
}
