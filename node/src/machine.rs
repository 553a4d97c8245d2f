//! The seam between state machines and whoever does their I/O.
//!
//! A node is one [`Machine`]: it takes the time and an [`Input`], and fills an [`Outbox`]. The driver
//! (`driver/`) turns sockets, timers and the log writer into inputs and the outbox into system calls; the simulator
//! does the same with a network, clocks and disks of its own making.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use pygmy_proto::batch::Batch;
use pygmy_proto::frame::{self, Frame, FrameError};
use pygmy_proto::message::{Epoch, IoStatus};
use pygmy_proto::{ErrorBody, Kind, Message};
use pygmy_ring::Vote;

use crate::disk::record::Mark;
use crate::snapshot::transfer::{Done, Job};
use crate::snapshot::{BuildError, SnapshotOrder};

/// The time of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back; its zero means nothing.
    pub mono_ns: u64,
    /// Microseconds since 1970-01-01 UTC; may jump. Only stamped into orders, never compared.
    pub wall_us: u64,
}

/// Milliseconds as nanoseconds.
pub const fn ms(milliseconds: u64) -> u64 {
    milliseconds * 1_000_000
}

/// One connection of this node, never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// What a connection is, and so which limits it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnClass {
    /// Its handshake is not done.
    New,
    /// A client.
    Client,
    /// Another server.
    Peer,
}

/// Why a connection ended. Logged and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The other side closed it.
    Ended,
    /// The socket reported an error.
    Broken,
    /// The connection attempt failed.
    NotReached,
    /// The stream of frames was lost.
    BadFrame,
    /// It was refused in the handshake.
    Refused,
    /// Its handshake took too long.
    HandshakeTimeout,
    /// It left its answers unread.
    SlowReader,
    /// It broke the protocol.
    Misbehaved,
    /// A newer connection with the same node took its place.
    Replaced,
    /// This node is leaving.
    Leaving,
}

/// What happens to a machine.
#[derive(Debug)]
pub enum Input<'a> {
    /// Somebody connected to this node's listener.
    Accepted {
        /// The new connection, of class [`ConnClass::New`].
        conn: ConnId,
    },
    /// A connection that this node opened stands.
    Opened {
        /// The new connection, of class [`ConnClass::New`].
        conn: ConnId,
        /// Number of the node at the other end, as configured.
        node: u16,
    },
    /// A whole frame came, its checksum verified.
    Frame {
        /// Where from.
        conn: ConnId,
        /// The frame.
        frame: Frame<'a>,
    },
    /// The stream of a connection is no longer one of frames. The driver reads no more from it.
    BadFrame {
        /// Which connection.
        conn: ConnId,
        /// What was wrong.
        error: FrameError,
    },
    /// A connection is gone. No further input names it.
    Closed {
        /// Which connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// A datagram came. Who sent it is what its contents prove.
    Datagram {
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// The vote file holds this.
    VoteDurable(Vote),
    /// The log's disk is full, or has room again.
    DiskFull(bool),
    /// A part of the log that was asked for by [`Output::ReadLog`]; empty when it is not held.
    LogRead {
        /// For which node it was read.
        node: u16,
        /// The batches, contiguous.
        batches: Vec<Batch>,
    },
    /// The log writer made a prefix of what it was given durable.
    Durable {
        /// The epoch that was given with the last batch of the group.
        epoch: Epoch,
        /// Its last position.
        seq: u64,
        /// Hash of the entry there.
        hash: u128,
    },
    /// The snapshot that was ordered was taken, durably.
    SnapshotTaken {
        /// The position up to which it goes.
        seq: u64,
        /// Bytes of it, without the ledger.
        bytes: u64,
        /// What the log has below this is no longer needed, if anything.
        cut_below: Option<u64>,
    },
    /// The snapshot that was ordered was not taken.
    SnapshotFailed(BuildError),
    /// What became of an [`Output::Transfer`].
    Transferred(Done),
    /// This node is asked to leave: it finishes what is in flight, takes nothing new, then emits [`Output::Left`].
    Leave,
}

/// What a machine wants done, in order.
#[derive(Debug)]
pub enum Output {
    /// Queue the frame in this range of [`Outbox::bytes`] on a connection.
    Frame {
        /// Which connection.
        conn: ConnId,
        /// Where the frame is.
        range: Range<usize>,
    },
    /// Queue a frame whose bytes are shared with other connections.
    Shared {
        /// Which connection.
        conn: ConnId,
        /// The frame.
        bytes: Bytes,
    },
    /// A connection's handshake is done: from now on it has this class's limits.
    Class {
        /// Which connection.
        conn: ConnId,
        /// Its class.
        class: ConnClass,
    },
    /// Write what is queued on a connection as far as it takes it, then close it.
    Close {
        /// Which connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// Make a batch durable, behind all given before, in place of whatever was given at and above its position; answered
    /// by [`Input::Durable`] with the same epoch.
    Append {
        /// The epoch in which it is appended.
        epoch: Epoch,
        /// The batch.
        batch: Batch,
    },
    /// Make the vote durable, behind all given before; answered by [`Input::VoteDurable`].
    Vote(Vote),
    /// Read a part of the log; answered by [`Input::LogRead`].
    ReadLog {
        /// For which node.
        node: u16,
        /// First position wanted.
        from_seq: u64,
        /// Last position wanted.
        upto: u64,
    },
    /// Send the datagram in this range of [`Outbox::bytes`] to a node. It may get lost.
    Datagram {
        /// To which node.
        node: u16,
        /// Where the datagram is.
        range: Range<usize>,
    },
    /// Take a snapshot beside the running loop; answered by [`Input::SnapshotTaken`] or [`Input::SnapshotFailed`].
    TakeSnapshot(Box<SnapshotOrder>),
    /// What the log has below this position is no longer needed.
    CutLog {
        /// The position.
        below: u64,
    },
    /// Work with the files of snapshots that come or go; answered by [`Input::Transferred`], or by nothing where the job
    /// says so.
    Transfer(Job),
    /// The state is that of a snapshot, which is durable: the log begins anew behind it. Behind all given before.
    /// Answered by [`Input::Durable`] with the same epoch.
    RestartLog {
        /// The epoch in which it does.
        epoch: Epoch,
        /// The last entry that the snapshot contains.
        mark: Mark,
    },
    /// There is another server than was known at the start: heartbeats go to it, and with `dial` a connection to it is
    /// opened and kept open. Said again with another address, it has moved.
    Meet {
        /// Its number.
        node: u16,
        /// Its `host:port`.
        address: String,
        /// Whether this node opens the connection.
        dial: bool,
    },
    /// A server is no more: no heartbeats go to it, and no connection is opened.
    Forget {
        /// Its number.
        node: u16,
    },
    /// Nothing is in flight any more: the process may end.
    Left,
    /// This node's log was replaced: the process must end, and need not be started again.
    Removed {
        /// What it was told.
        why: String,
    },
    /// The process must end at once: a promise would be broken by going on.
    Fatal {
        /// What was found.
        why: String,
    },
}

/// Outputs of one turn. Small frames share one buffer, so that a turn allocates nothing once it is warm.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: BytesMut,
    outputs: Vec<Output>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends `message` on `conn`.
    pub fn send<M: Message>(&mut self, conn: ConnId, request_id: u64, aux: u32, flags: u8, message: &M) {
        let start = self.bytes.len();
        frame::write(&mut self.bytes, request_id, aux, flags, message);
        self.outputs.push(Output::Frame { conn, range: start..self.bytes.len() });
    }

    /// Sends a frame whose body `fill` appends.
    pub fn send_with(
        &mut self,
        conn: ConnId,
        kind: Kind,
        request_id: u64,
        aux: u32,
        flags: u8,
        fill: impl FnOnce(&mut BytesMut),
    ) {
        self.send_kind(conn, kind as u16, request_id, aux, flags, fill);
    }

    /// As [`Self::send_with`], for a kind by its number.
    pub fn send_kind(
        &mut self,
        conn: ConnId,
        kind: u16,
        request_id: u64,
        aux: u32,
        flags: u8,
        fill: impl FnOnce(&mut BytesMut),
    ) {
        let start = self.bytes.len();
        frame::write_with(&mut self.bytes, kind, request_id, aux, flags, fill);
        self.outputs.push(Output::Frame { conn, range: start..self.bytes.len() });
    }

    /// Sends an error on `conn`.
    pub fn send_error(&mut self, conn: ConnId, request_id: u64, node: u16, error: &ErrorBody) {
        self.send(conn, request_id, node.into(), 0, error);
    }

    /// Sends the same datagram, which `fill` appends, to each of `nodes`.
    pub fn send_datagram(&mut self, nodes: impl Iterator<Item = u16>, fill: impl FnOnce(&mut BytesMut)) {
        let start = self.bytes.len();
        fill(&mut self.bytes);
        let range = start..self.bytes.len();
        self.outputs.extend(nodes.map(|node| Output::Datagram { node, range: range.clone() }));
    }

    /// Adds any other output.
    pub fn push(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// The buffer that [`Output::Frame`] refers to.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the outputs; the buffer stays until [`Self::recycle`].
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Gives the emptied list back and forgets the buffer's contents, keeping both allocations up to a bound.
    pub fn recycle(&mut self, mut outputs: Vec<Output>) {
        const KEEP_BYTES: usize = 1024 * 1024;
        outputs.clear();
        self.outputs = outputs;
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes = BytesMut::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }
}

/// A node's logic: no I/O, no clock, no randomness, no threads.
pub trait Machine {
    /// Takes one input.
    fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Outbox);
    /// Ends a turn: all inputs that were ready have been handled. Batches are formed here.
    fn end_turn(&mut self, now: Now, out: &mut Outbox);
    /// The `mono_ns` at which [`Self::on_timeout`] must be called next, if at all.
    fn next_timeout(&self) -> Option<u64>;
    /// Fires every timer that is due. Followed by [`Self::end_turn`].
    fn on_timeout(&mut self, now: Now, out: &mut Outbox);
    /// What was asked of the system for it so far, told in every turn to whoever asks how it is.
    fn note_io(&mut self, _io: IoStatus) {}
}
