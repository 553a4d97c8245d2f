//! What will happen, in order of time; at the same time, in order of planning.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use bytes::Bytes;
use pygmy_proto::batch::Batch;

use crate::disk::{End, Lane};

/// A fault that the scheduler injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A connection breaks.
    Reset,
    /// A node stops for a while.
    Pause,
    /// A wall clock jumps.
    Clock,
    /// A node dies.
    Crash,
    /// All nodes die.
    CrashAll,
    /// The disk of a dead node is lost.
    Wipe,
    /// A node is asked to leave.
    Leave,
    /// Some nodes are cut off.
    Cut,
    /// A disk has no room for a while.
    Full,
    /// A disk is slow for a while.
    Slow,
    /// A write or a sync of a disk fails.
    Error,
    /// A bit on a platter flips.
    Flip,
    /// A voter is replaced.
    Replace,
    /// What is between a front and the catalog that feeds it, or one of them.
    Feed,
    /// Datagrams from one node to another one are lost.
    Deaf,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Reset,
        Self::Pause,
        Self::Clock,
        Self::Crash,
        Self::CrashAll,
        Self::Wipe,
        Self::Leave,
        Self::Cut,
        Self::Full,
        Self::Slow,
        Self::Error,
        Self::Flip,
        Self::Replace,
        Self::Feed,
        Self::Deaf,
    ];
}

/// Something planned.
#[derive(Debug)]
pub enum Event {
    /// A node's loop turns.
    Turn {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
    },
    /// Bytes reach an end of a connection.
    Bytes {
        /// The connection.
        conn: usize,
        /// The end.
        to: usize,
        /// The bytes.
        bytes: Bytes,
    },
    /// The end of a stream reaches the other end.
    Ended {
        /// The connection.
        conn: usize,
        /// The end that learns of it.
        to: usize,
    },
    /// An end notices that its connection is broken.
    Noticed {
        /// The connection.
        conn: usize,
        /// The end.
        to: usize,
    },
    /// The log writer's group is on the platter.
    Synced {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
    },
    /// The log writer looks whether there is something to do while nothing waits.
    Rest {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
    },
    /// A snapshot that was begun is taken.
    Taken {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
    },
    /// Work with snapshots that come or go is done.
    Job {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
        /// Which of its threads.
        lane: Lane,
    },
    /// A node tries to connect to another one.
    Dial {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
        /// Number of the other node.
        node: u16,
    },
    /// An attempt of a node to connect reaches the other one.
    Arrive {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
        /// Number of the other node.
        node: u16,
    },
    /// An attempt of a client to connect reaches a front.
    ClientArrive {
        /// Which client.
        client: usize,
        /// Which front.
        front: usize,
    },
    /// A connection breaks.
    Break {
        /// Which.
        conn: usize,
    },
    /// A client's timer.
    Client {
        /// Which client.
        client: usize,
    },
    /// A datagram reaches a node.
    Datagram {
        /// Which node sent it.
        from: usize,
        /// Which node.
        host: usize,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A thread sends a heartbeat for a process that does not run, which is a mistake.
    Beat {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
    },
    /// A part of the log that a node had asked for was read.
    Read {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
        /// For which other node it is.
        node: u16,
        /// The part.
        batches: Vec<Batch>,
    },
    /// A node that was asked to leave has had time enough.
    Force {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
    },
    /// A node that has asked for promises dies.
    Doom {
        /// Which node.
        host: usize,
        /// Which of its processes.
        boot: u64,
        /// How.
        end: End,
    },
    /// A disk has room again.
    Room {
        /// Which node.
        host: usize,
    },
    /// Nodes that were cut off are reached again.
    Heal {
        /// Number of the cut.
        cut: u64,
    },
    /// A fault, by its place in the schedule.
    Fault(usize),
    /// The operator looks at the cluster.
    Operator,
    /// A dead node starts again.
    Start {
        /// Which node.
        host: usize,
    },
}

#[derive(Debug)]
struct Planned {
    at: u64,
    serial: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    /// The heap gives its greatest first: the earliest must be that.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// The plan.
#[derive(Debug, Default)]
pub struct Agenda {
    heap: BinaryHeap<Planned>,
    serial: u64,
}

impl Agenda {
    /// Plans `event`.
    pub fn plan(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.heap.push(Planned { at, serial: self.serial, event });
    }

    /// When the next one is.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|planned| planned.at)
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|planned| (planned.at, planned.event))
    }
}
