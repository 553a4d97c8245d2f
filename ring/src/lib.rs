//! The replication protocol of Pygmy, without I/O.
//!
//! A [`Replica`] takes (now, input) and leaves outputs; it reads no clock, no socket, no file and draws no random number,
//! so the driver and the simulator run the very same code. It replicates opaque commands over any [`StateMachine`]
//! and knows nothing of book stores. `README.md` beside this crate explains the protocol and its words.
//!
//! * [`detector`]: who is heard, and who is taken for gone; used for all nodes, replicas or not.
//! * [`replica`]: ordering under the token, replication, commit, application.
//! * [`sessions`]: exactly-once execution, part of the replicated state.
//! * [`state`]: what is replicated, and how an entry changes it.
//! * [`log`]: the part of the log that is kept in memory.

pub mod config;
pub mod detector;
pub mod log;
mod recency;
pub mod replica;
pub mod sessions;
pub mod state;
mod timer;

pub use config::{Config, ConfigError, Limits, LogUuid, Mistake};
pub use detector::{Detector, Heard, Notice};
pub use log::Base;
pub use replica::{
    Change, Checkpoint, Completion, Input, NotTaken, Now, Output, PeerMessage, Proposal, Queues, Recovered, Replica,
    Status, Target, Vote,
};
pub use sessions::{SessionError, Sessions};
pub use state::State;

use bytes::BytesMut;

/// What is replicated: a deterministic machine that is fed commands in one order on every replica.
///
/// `apply` must depend on nothing but its arguments and the state: no clock, no randomness, no iteration order of a
/// hash table, no property of the node.
pub trait StateMachine {
    /// Applies `command`, ordered at `seq` with the batch's time, and appends the answer for its client to `answer`.
    fn apply(&mut self, seq: u64, time_us: u64, command: &[u8], answer: &mut BytesMut);
    /// A hash of the whole state, equal on replicas that have applied the same entries.
    fn state_hash(&self) -> u64;
}
