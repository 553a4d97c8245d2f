//! Epochs, configurations, heartbeats: what log replicas tell each other when something is amiss.

use bincode::{Decode, Encode};
use serde::Serialize;

use super::client::as_hex_digits;
use super::handshake::Epoch;
use crate::limits::{ADDRESS_LEN_MAX, BOUNDARIES_MAX, REMOVED_MAX, REPLICAS_MAX};
use crate::types::{Bounded, Text};

/// One voter of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Voter {
    /// Its node number.
    pub node: u16,
    /// Identity of its log; what is counted.
    #[serde(serialize_with = "as_hex_digits")]
    pub log_uuid: [u8; 16],
    /// Whether it may hold the token, that is, whether it is a catalog.
    pub holds_token: bool,
    /// `host:port`; empty: as in `cluster.toml`.
    pub address: Text<ADDRESS_LEN_MAX>,
}

/// A replacement that is half done: the configuration that bears it is the first of its two changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Swap {
    /// Identity of the log that goes.
    #[serde(serialize_with = "as_hex_digits")]
    pub old: [u8; 16],
    /// The voter that comes.
    pub new: Voter,
}

/// Who counts. Body of a configuration entry; in force from the moment at which it is appended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
pub struct Membership {
    /// Rises by one with every change.
    pub id: u64,
    /// The voters, in ring order.
    pub voters: Bounded<Voter, REPLICAS_MAX>,
    /// The replacement whose second change is still to come.
    pub swap: Option<Swap>,
    /// Logs that were voters once and never are again, latest last.
    pub removed: Bounded<[u8; 16], REMOVED_MAX>,
}

/// Where an epoch begins in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Boundary {
    /// The epoch.
    pub epoch: Epoch,
    /// Position of its `NewEpoch` entry.
    pub first_seq: u64,
}

/// The latest boundaries of a log, in order.
pub type Boundaries = Bounded<Boundary, BOUNDARIES_MAX>;

/// Body of a `NewEpoch` entry, the first of its epoch and alone in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct EpochStart {
    /// Configuration in force.
    pub config_id: u64,
}

/// End of a log, in the order in which logs are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize)]
pub struct LogEnd {
    /// Epoch of the last entry.
    pub epoch: Epoch,
    /// Its position.
    pub seq: u64,
}

/// "Would you promise me an epoch?" Changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PreVote {
    /// What the sender has promised.
    pub epoch: Epoch,
    /// Rises with every question of this boot.
    pub attempt: u64,
    /// End of the sender's log.
    pub last: LogEnd,
}

/// The answer to [`PreVote`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PreVoteAnswer {
    /// What the sender has promised.
    pub epoch: Epoch,
    /// The question.
    pub attempt: u64,
    /// Whether the sender, too, sees no progress.
    pub yes: bool,
}

/// "Promise me this epoch."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Prepare {
    /// The epoch.
    pub epoch: Epoch,
    /// The sender's boot nonce.
    pub boot_nonce: u64,
    /// The logs whose promises would count, as far as the sender knows. Whoever is none of them by its own
    /// configuration either need not promise.
    pub voters: Bounded<[u8; 16], REPLICAS_MAX>,
}

/// The answer to [`Prepare`]: nothing of an older epoch will be appended or acknowledged here any more.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Promise {
    /// The epoch promised; durable.
    pub epoch: Epoch,
    /// The asker's boot nonce.
    pub boot_nonce: u64,
    /// End of the sender's log, what is on its way to its disk included.
    pub last: LogEnd,
    /// Hash of the entry there.
    pub last_hash: u128,
    /// What the sender knows to be committed.
    pub committed: u64,
    /// Where epochs begin in its log.
    pub boundaries: Boundaries,
    /// The latest configuration in its log.
    pub membership: Membership,
}

/// "This epoch has begun, on this log." From whoever has installed it to those that have not.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Install {
    /// The epoch.
    pub epoch: Epoch,
    /// Position of its `NewEpoch` entry.
    pub first_seq: u64,
    /// Where the epochs before it begin in its log.
    pub boundaries: Boundaries,
}

/// "I have promised a higher epoch than the one of your frame."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Reject {
    /// What the sender has promised.
    pub epoch: Epoch,
}

/// "How far are you?" Asked for reads that must reflect whatever was answered before they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Barrier {
    /// What the sender has promised.
    pub epoch: Epoch,
    /// The sender's boot nonce.
    pub boot_nonce: u64,
    /// Rises with every round of this boot.
    pub round: u64,
}

/// The answer to [`Barrier`], from whoever's vote is not withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct BarrierAnswer {
    /// What the sender has promised; counts only for an asker that has promised the same.
    pub epoch: Epoch,
    /// The asker's boot nonce.
    pub boot_nonce: u64,
    /// The asker's round.
    pub round: u64,
    /// The latest configuration in the sender's log; counts only for an asker that knows it.
    pub config_id: u64,
    /// What the sender may have acknowledged in `epoch`: all up to here is on its disk; 0 before the epoch has begun there.
    pub durable: u64,
}

/// What a log replica says of itself in every heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaBeat {
    /// Identity of its log.
    pub log_uuid: [u8; 16],
    /// Its boot nonce.
    pub boot_nonce: u64,
    /// What it has promised.
    pub promised: Epoch,
    /// The latest configuration in its log.
    pub config_id: u64,
    /// Passings of the token in `promised`, as far as it knows.
    pub hop: u64,
    /// Where the token went with that passing; 0: unknown.
    pub holder: u16,
    /// Whether it holds the token, or has passed it and does not know yet that it arrived.
    pub claims: bool,
    /// Number of its latest want that was not served; 0 for none.
    pub want: u64,
    /// End of its log; its epoch is the one that it has installed.
    pub last: LogEnd,
    /// Durable there in the installed epoch; counts as an acknowledgement of that epoch.
    pub durable: u64,
    /// Hash of the entry at `durable`.
    pub durable_hash: u128,
    /// What it knows to be committed.
    pub committed: u64,
    /// Executed up to.
    pub applied: u64,
    /// Whether its vote is withheld; such a voter answers, and is not counted.
    pub withheld: bool,
    /// Bytes that a coordinator or a learner has fetched: rises as long as it makes progress.
    pub fetched: u64,
    /// Nodes that it has heard lately.
    pub hears: Bounded<u16, REPLICAS_MAX>,
    /// By how many microseconds its loop has been late at most since the last heartbeat.
    pub late_us: u32,
}
