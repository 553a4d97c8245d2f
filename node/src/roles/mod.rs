//! The three roles: what a node does with requests once its connections and handshakes are taken care of.
//!
//! * [`front`]: takes clients' requests and passes them on, round-robin, knowing each until it is answered.
//! * [`order`]: validates writes, batches them, passes them on to catalogs; answers from the ledger.
//! * [`cache`], [`feed`]: what a front keeps of answers, and how a catalog keeps that true.
//! * [`catalog`]: proposes writes to the ring and answers lookups.
//! * [`replica`]: what order and catalog servers have in common, the log replica and reads that wait for a position.
//! * [`transfer`]: snapshots on their way between replicas.
//! * [`dispatch`], [`jobs`], [`lane`]: round-robin over servers, the table of what was passed on, and turns between clients.

pub mod cache;
pub mod catalog;
pub mod dispatch;
pub mod feed;
pub mod front;
pub mod jobs;
pub mod lane;
pub mod order;
pub mod reads;
pub mod replica;
mod snapshots;
pub mod transfer;

use bytes::BytesMut;
use pygmy_proto::header::FLAG_TRACE;
use pygmy_proto::limits::{DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, REQUESTS_IN_FLIGHT_MAX};
use pygmy_proto::message::{Span, Stage, Trace};
use pygmy_proto::types::Bounded;
use pygmy_proto::{ErrorBody, ErrorCode, Header, Kind, Retry, codec};

use crate::machine::{ConnId, Now, Outbox, ms};

/// What a role is lent while it handles something.
pub struct Ctx<'a> {
    /// The time.
    pub now: Now,
    /// This node's number.
    pub me: u16,
    /// This node's name.
    pub name: &'a str,
    /// Connections to the other servers, by node number.
    pub links: &'a Links,
    /// Where it leaves what is to be done.
    pub out: &'a mut Outbox,
}

/// The connection to each other server whose link is up.
#[derive(Debug, Default)]
pub struct Links(std::collections::BTreeMap<u16, Link>);

#[derive(Debug, Clone, Copy)]
struct Link {
    conn: ConnId,
    is_replica: bool,
}

impl Links {
    /// The connection to `node`, if its link is up.
    pub fn get(&self, node: u16) -> Option<ConnId> {
        self.0.get(&node).map(|link| link.conn)
    }
    /// Notes that the link to `node` is up over `conn`; the connection it replaces.
    pub fn insert(&mut self, node: u16, conn: ConnId, is_replica: bool) -> Option<ConnId> {
        self.0.insert(node, Link { conn, is_replica }).map(|old| old.conn)
    }
    /// Notes that the link to `node` is gone.
    pub fn remove(&mut self, node: u16) {
        self.0.remove(&node);
    }
    /// Numbers of the log replicas whose links are up.
    pub fn replica_nodes(&self) -> impl Iterator<Item = u16> {
        self.0.iter().filter(|(_, link)| link.is_replica).map(|(node, _)| *node)
    }
    /// Connections to all servers, by node number.
    pub fn all(&self) -> impl Iterator<Item = ConnId> {
        self.0.values().map(|link| link.conn)
    }
    /// Connections to log replicas, by node number.
    pub fn replicas(&self) -> impl Iterator<Item = ConnId> {
        self.0.values().filter(|link| link.is_replica).map(|link| link.conn)
    }
}

/// When a request with this header must have been answered.
pub(crate) fn deadline_of(now: Now, header: &Header) -> u64 {
    deadline_in(now, header.aux)
}

/// When a request that came now and asks for `milliseconds` must have been answered.
pub(crate) fn deadline_in(now: Now, milliseconds: u32) -> u64 {
    let asked = match milliseconds {
        0 => DEADLINE_MS_DEFAULT,
        some => some.min(DEADLINE_MS_MAX),
    };
    now.mono_ns + ms(asked.into())
}

/// What is left until a deadline, in whole milliseconds, at least 1 (0 would ask for the default).
pub(crate) fn remaining_ms(now: Now, deadline_ns: u64) -> u32 {
    let left = deadline_ns.saturating_sub(now.mono_ns).div_ceil(ms(1));
    u32::try_from(left).unwrap_or(DEADLINE_MS_MAX).clamp(1, DEADLINE_MS_MAX)
}

/// The error for a request that was passed on and not answered in time.
pub(crate) fn late(kind: Kind, waited_ms: u64) -> ErrorBody {
    let (code, advice) = match kind {
        Kind::Write => {
            (ErrorCode::OutcomeUnknown, "ask again with the same session and counter to learn what became of it")
        }
        Kind::OpenSession => {
            (ErrorCode::DeadlineExceeded, "ask again; a session that was registered unheard does no harm")
        }
        _ => (ErrorCode::DeadlineExceeded, "ask again, perhaps another server"),
    };
    let name = format!("{kind:?}");
    let detail = format!("{name} was not answered for {waited_ms} ms: {advice}");
    ErrorBody::new(code).subject(&name).limit(waited_ms, 0).detail(&detail)
}

/// Whether a server handed a request back without having done anything with it.
pub(crate) fn was_not_taken(error: &ErrorBody) -> bool {
    matches!(error.known_code(), Some(ErrorCode::Busy | ErrorCode::ShuttingDown | ErrorCode::Unavailable))
        && matches!(error.retry, Retry::Elsewhere | Retry::Later)
}

/// What errors call a kind.
pub(crate) fn kind_name(kind: u16) -> String {
    Kind::from_u16(kind).map_or_else(|| format!("kind {kind:#06x}"), |kind| format!("{kind:?}"))
}

/// The error for a frame that is not what its kind says.
pub(crate) fn malformed(kind: u16, why: &str) -> ErrorBody {
    let name = kind_name(kind);
    ErrorBody::new(ErrorCode::Malformed).subject(&name).detail(&format!("{name}: {why}"))
}

/// The error for what comes when the queue called `queue` is full.
pub(crate) fn queue_full(queue: &str, limit: usize, actual: usize) -> ErrorBody {
    let detail = format!("{actual} {queue} are as many as there may be: {limit}; nothing was done");
    ErrorBody::new(ErrorCode::Busy).subject(queue).limit(limit as u64, actual as u64).detail(&detail)
}

/// Refuses one more request of a client that has `in_flight` on its connection, if these are as many as it may have.
pub(crate) fn check_in_flight(in_flight: usize) -> Result<(), ErrorBody> {
    if in_flight < REQUESTS_IN_FLIGHT_MAX {
        return Ok(());
    }
    Err(queue_full("requests in flight", REQUESTS_IN_FLIGHT_MAX, in_flight))
}

/// The error for what comes to a server that is leaving.
pub(crate) fn leaving(name: &str) -> ErrorBody {
    let detail = format!("{name} is leaving: use another server");
    ErrorBody::new(ErrorCode::ShuttingDown).subject(name).detail(&detail)
}

/// The error for what a replica is asked that is still catching up.
pub(crate) fn lagging(name: &str) -> ErrorBody {
    let detail = format!("{name} is still catching up with the log: use another server");
    ErrorBody::new(ErrorCode::Busy).subject(name).detail(&detail)
}

/// The error for a kind that is not served on a connection.
pub(crate) fn unsupported(kind: u16, hint: &str) -> ErrorBody {
    let name = kind_name(kind);
    let detail = format!("{name} is not served here: {hint}");
    ErrorBody::new(ErrorCode::Unsupported).subject(&name).limit(0, kind.into()).detail(&detail)
}

/// Appends an answer's body to `out` with `spans` put before those it may have already.
///
/// An answer without the trace flag is passed on as it is.
pub(crate) fn extend_trace(out: &mut BytesMut, flags: u8, body: &[u8], spans: &[Span]) {
    if flags & FLAG_TRACE == 0 {
        out.extend_from_slice(body);
        return;
    }
    let (theirs, used) = codec::decode_prefix::<Trace>(body).unwrap_or_default();
    let all: Vec<Span> = spans.iter().chain(theirs.iter()).copied().collect();
    codec::encode_to(&Trace::truncated(all), out);
    out.extend_from_slice(&body[used..]);
}

/// A span of this node.
pub(crate) fn span(stage: Stage, node: u16, ns: u64) -> Span {
    Span { stage, node, ns }
}

/// `spans` as the list that stands before a traced message.
pub(crate) fn trace_of(spans: Vec<Span>) -> Trace {
    Bounded::truncated(spans)
}
