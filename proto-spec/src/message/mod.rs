//! One struct for each body; field by field as in `SPEC.md`.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::error::ErrorBody;
use crate::header::Kind;
use crate::limits::TRACE_SPANS_MAX;
use crate::types::Bounded;

mod client;
mod epoch;
mod feed;
mod handshake;
mod peer;
mod snapshot;

pub use client::*;
pub use epoch::*;
pub use feed::*;
pub use handshake::*;
pub use peer::*;
pub use snapshot::*;

/// A body that is a frame kind of its own.
pub trait Message: Encode + Decode<()> {
    /// Its kind.
    const KIND: Kind;
}

macro_rules! messages {
    ($($name:ident),* $(,)?) => { $(impl Message for $name { const KIND: Kind = Kind::$name; })* };
}

messages! {
    Hello, HelloOk, Ping, Pong,
    OpenSession, Lookup, Search, Topics, Books, Order, Orders, Write, Status, Replace,
    SessionOpened, LookupOk, SearchOk, TopicsOk, BooksOk, OrderOk, OrdersOk, WriteOk, StatusOk, ReplaceOk,
    Submit, Results, Members, Floor, FloorOk, FeedOpen, FeedOk, Feed, FeedRead, Data, Token, Want, Ack, Commit, Fetch, FetchRefused,
    PreVote, PreVoteAnswer, Prepare, Promise, Install, Reject, Barrier, BarrierAnswer,
    SnapshotFetch, SnapshotPart, SnapshotRefused,
}
impl Message for ErrorBody {
    const KIND: Kind = Kind::Error;
}

/// Where time went, in the order in which the tiers are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// In the front: from the request's arrival to the answer's departure.
    Front,
    /// In the order server: from the write's arrival to the answer's departure, or a ledger read's whole time.
    Order,
    /// In the catalog: from arrival to departure.
    Catalog,
    /// In the catalog, before the write was numbered: waiting for the token.
    Token,
    /// In the catalog: from numbering to commit, the replicas' acknowledgements.
    Replicate,
    /// In the catalog: from numbering to this server's own log being durable; overlaps `Replicate`.
    Sync,
    /// In the catalog or order server: from commit to applied, or waiting until the state is as fresh as asked.
    Apply,
}

/// One measured stretch of time; always a difference of two readings of one server's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Span {
    /// What was done.
    pub stage: Stage,
    /// Number of the node, from 1 in the order of `cluster.toml`.
    pub node: u16,
    /// Nanoseconds.
    pub ns: u64,
}

/// Stands before the message in the body of an answer whose [`crate::header::FLAG_TRACE`] is set.
pub type Trace = Bounded<Span, TRACE_SPANS_MAX>;
