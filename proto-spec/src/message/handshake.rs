//! The first frames of a connection.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::limits::{ADDRESS_LEN_MAX, CREDENTIALS_LEN_MAX};
use crate::types::{Blob, Name, Text};

use super::epoch::LogEnd;

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Anything outside the cluster.
    Client,
    /// Takes clients' requests and passes them on.
    Front,
    /// Validates and dispatches writes, answers from the ledger; a log replica.
    Order,
    /// Orders and replicates writes, answers lookups; a log replica.
    Catalog,
}

impl Role {
    /// The name as in `cluster.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Client => "client",
            Role::Front => "front",
            Role::Order => "order",
            Role::Catalog => "catalog",
        }
    }
}

/// Epoch of the ring: a fencing number, ordered by counter, then by the coordinator's node number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize)]
pub struct Epoch {
    /// Rises with every epoch.
    pub counter: u64,
    /// Node number of the coordinator that started it; 0 for the first.
    pub node: u16,
}

/// First frame of whoever opened the connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Lowest protocol version the sender speaks.
    pub version_min: u8,
    /// Highest.
    pub version_max: u8,
    /// What the sender is.
    pub role: Role,
    /// Id of the cluster it wants to talk to; all zero: "any", for clients only.
    pub cluster: [u8; 16],
    /// Hash of the cluster's settings; 0 for clients.
    pub settings: u64,
    /// The cluster's key, for servers and for clients that change the voters; empty for others.
    pub credentials: Blob<CREDENTIALS_LEN_MAX>,
    /// Name of the node, or of the client's program, for logs.
    pub name: Name,
    /// For log replicas.
    pub replica: Option<ReplicaHello>,
}

/// What log replicas tell each other when they connect.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaHello {
    /// Its node number: the place of its name in `cluster.toml`, from 1, and 256 times the incarnation of
    /// its process.
    pub node: u16,
    /// `host:port` on which it listens.
    pub address: Text<ADDRESS_LEN_MAX>,
    /// Identity of the replica's log; what majorities count.
    pub log_uuid: [u8; 16],
    /// Drawn at process start; tells a reconnect from a restart.
    pub boot_nonce: u64,
    /// Id of the configuration it works under.
    pub config_id: u64,
    /// What it has promised.
    pub promised: Epoch,
    /// End of its log; its epoch is the one that it has installed.
    pub last: LogEnd,
    /// What it knows to be committed.
    pub committed: u64,
    /// Hop of the last token of `promised` that this process received; 0 for none.
    pub token_hop: u64,
    /// Number of its latest want; 0 for none.
    pub want: u64,
    /// The highest end that this process ever saw acknowledged by the log at the other end of the connection, and
    /// which log that was: should it have lost that, it must know.
    pub acked: Acked,
}

/// What a process remembers of another one's acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Acked {
    /// The log that acknowledged.
    pub log_uuid: [u8; 16],
    /// The highest end that it acknowledged, by the epoch in which it did.
    pub end: LogEnd,
}

/// The answer to a `Hello` that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HelloOk {
    /// The version chosen: every later frame bears it.
    pub version: u8,
    /// What the answering server is.
    pub role: Role,
    /// Its number, as in [`ReplicaHello::node`].
    pub node: u16,
    /// Its name.
    pub name: Name,
    /// Its cluster.
    pub cluster: [u8; 16],
    /// Longest body it takes on this connection, in bytes.
    pub body_max: u32,
    /// Requests it takes in flight on this connection.
    pub in_flight_max: u32,
    /// For log replicas.
    pub replica: Option<ReplicaHello>,
}

/// "Are you there?"
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ping {}

/// The answer to [`Ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Pong {}
