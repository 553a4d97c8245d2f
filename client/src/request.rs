//! What can be asked, and what comes back.

use bytes::BytesMut;
use pygmy_proto::codec::{self, BodyError};
use pygmy_proto::header::{FLAG_FRESH, FLAG_NO_CACHE, FLAG_TRACE};
use pygmy_proto::message::{
    Books, BooksOk, Command, Lookup, LookupOk, Message, OpenSession, Order, OrderOk, Orders, OrdersOk, Outcome, Search,
    SearchOk, SessionOpened, Span, Status, StatusOk, Topics, TopicsOk, WriteOk,
};
use pygmy_proto::{Kind, frame};

use crate::error::Error;

/// What can be asked. The `floor` of a read is raised to what this client has seen; 0 will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// One book by its id.
    Lookup(Lookup),
    /// A page of the books of a topic.
    Search(Search),
    /// A page of the topics.
    Topics(Topics),
    /// A page of all books.
    Books(Books),
    /// One order by its number.
    Order(Order),
    /// A page of the latest orders.
    Orders(Orders),
    /// How the answering server is.
    Status,
    /// Registers a session, which later writes then use. Writes do it by themselves where there is none.
    OpenSession,
    /// A write under the next counter of the session.
    Write(Command),
    /// A write under an identity that it was given before.
    Settle {
        /// The session.
        session: u64,
        /// The counter.
        counter: u64,
        /// The same command as then.
        command: Command,
    },
}

/// What a call asks for beside its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asks {
    /// That the servers tell where the time goes.
    pub trace: bool,
    /// Of a read, that it reflects whatever was answered to anybody, by any server, before it was asked. It takes one
    /// round trip between servers longer, and a majority of the voters. Without it a read reflects what this client
    /// has seen and done.
    pub fresh: bool,
    /// Of a read, that a front end asks behind it, whatever it keeps itself.
    pub no_cache: bool,
}

impl Asks {
    /// The header's flags for `request`.
    pub(crate) fn flags(self, request: &Request) -> u8 {
        let trace = if self.trace { FLAG_TRACE } else { 0 };
        let fresh = if self.fresh && request.is_read() { FLAG_FRESH } else { 0 };
        let no_cache = if self.no_cache && request.is_read() { FLAG_NO_CACHE } else { 0 };
        trace | fresh | no_cache
    }
}

/// The answer to a [`Request`] of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A book.
    Lookup(LookupOk),
    /// Books of a topic.
    Search(SearchOk),
    /// Topics.
    Topics(TopicsOk),
    /// Books.
    Books(BooksOk),
    /// An order.
    Order(OrderOk),
    /// Orders.
    Orders(OrdersOk),
    /// A server's status.
    Status(Box<StatusOk>),
    /// The id of the session that was registered.
    Session(u64),
    /// What a write did, for [`Request::Write`] and [`Request::Settle`].
    Written(Written),
}

/// A write that was done, durable on a majority of the voters.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// What it did.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Its position in the log.
    pub seq: u64,
    /// The session under which it was done.
    pub session: u64,
    /// Its number in the session.
    pub counter: u64,
}

/// The end of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// What it came to.
    pub result: Result<Reply, Error>,
    /// Where the time went in the servers, when that was asked for.
    pub trace: Vec<Span>,
    /// Number of the node that made the answer; 0 when there is none.
    pub node: u16,
    /// Number of the front end through which it ended; 0 when it ended without a connection.
    pub front: u16,
    /// Nanoseconds from the call to its end.
    pub elapsed_ns: u64,
    /// How often it was sent.
    pub sends: u32,
}

/// Who a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteId {
    pub(crate) session: u64,
    pub(crate) counter: u64,
}

/// The header fields of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope {
    pub(crate) request_id: u64,
    pub(crate) deadline_ms: u32,
    pub(crate) flags: u8,
}

impl Request {
    /// Whether it asks for a part of the store.
    fn is_read(&self) -> bool {
        match self {
            Request::Lookup(_) | Request::Search(_) | Request::Topics(_) => true,
            Request::Books(_) | Request::Order(_) | Request::Orders(_) => true,
            Request::Status | Request::OpenSession | Request::Write(_) | Request::Settle { .. } => false,
        }
    }

    /// The command, for a write.
    pub fn command(&self) -> Option<&Command> {
        match self {
            Request::Write(command) | Request::Settle { command, .. } => Some(command),
            _ => None,
        }
    }

    /// Appends the request, which is no write, as a frame.
    pub(crate) fn write_read(&self, envelope: Envelope, floor: u64, out: &mut BytesMut) {
        let at_least = |own: u64| own.max(floor);
        match self {
            Request::Lookup(ask) => put(out, envelope, &Lookup { floor: at_least(ask.floor), ..*ask }),
            Request::Search(ask) => put(out, envelope, &Search { floor: at_least(ask.floor), ..*ask }),
            Request::Topics(ask) => put(out, envelope, &Topics { floor: at_least(ask.floor), ..*ask }),
            Request::Books(ask) => put(out, envelope, &Books { floor: at_least(ask.floor), ..*ask }),
            Request::Order(ask) => put(out, envelope, &Order { floor: at_least(ask.floor), ..*ask }),
            Request::Orders(ask) => put(out, envelope, &Orders { floor: at_least(ask.floor), ..*ask }),
            Request::Status => put(out, envelope, &Status {}),
            Request::OpenSession => put(out, envelope, &OpenSession {}),
            Request::Write(_) | Request::Settle { .. } => {}
        }
    }

    /// Reads the answer's body. `None`: the kind is not the answer to this request.
    pub(crate) fn read_reply(
        &self,
        kind: Option<Kind>,
        id: Option<WriteId>,
        body: &[u8],
    ) -> Option<Result<Reply, BodyError>> {
        Some(match (self, kind?) {
            (Request::Lookup(_), Kind::LookupOk) => codec::decode(body).map(Reply::Lookup),
            (Request::Search(_), Kind::SearchOk) => codec::decode(body).map(Reply::Search),
            (Request::Topics(_), Kind::TopicsOk) => codec::decode(body).map(Reply::Topics),
            (Request::Books(_), Kind::BooksOk) => codec::decode(body).map(Reply::Books),
            (Request::Order(_), Kind::OrderOk) => codec::decode(body).map(Reply::Order),
            (Request::Orders(_), Kind::OrdersOk) => codec::decode(body).map(Reply::Orders),
            (Request::Status, Kind::StatusOk) => codec::decode(body).map(|ok| Reply::Status(Box::new(ok))),
            (Request::OpenSession, Kind::SessionOpened) => {
                codec::decode(body).map(|SessionOpened { session }| Reply::Session(session))
            }
            (Request::Write(_) | Request::Settle { .. }, Kind::WriteOk) => {
                let WriteId { session, counter } = id?;
                codec::decode(body)
                    .map(|WriteOk { seq, outcome }| Reply::Written(Written { outcome, seq, session, counter }))
            }
            _ => return None,
        })
    }
}

impl Reply {
    /// The log position that the answer reflects; 0 for a status, which reflects none.
    pub fn seq(&self) -> u64 {
        match self {
            Reply::Lookup(ok) => ok.seq,
            Reply::Search(ok) => ok.seq,
            Reply::Topics(ok) => ok.seq,
            Reply::Books(ok) => ok.seq,
            Reply::Order(ok) => ok.seq,
            Reply::Orders(ok) => ok.seq,
            Reply::Session(session) => *session,
            Reply::Written(done) => done.seq,
            Reply::Status(_) => 0,
        }
    }
}

/// Appends a message as a frame.
pub(crate) fn put<M: Message>(out: &mut BytesMut, envelope: Envelope, message: &M) {
    frame::write(out, envelope.request_id, envelope.deadline_ms, envelope.flags, message);
}

/// Appends a write as a frame: the fields of the protocol's `Write` in their order, without a copy of the command.
pub(crate) fn put_write(out: &mut BytesMut, envelope: Envelope, id: WriteId, first_incomplete: u64, command: &Command) {
    let Envelope { request_id, deadline_ms, flags } = envelope;
    frame::write_with(out, Kind::Write as u16, request_id, deadline_ms, flags, |body| {
        codec::encode_to(&[id.session, id.counter, first_incomplete], body);
        codec::encode_to(command, body);
    });
}
