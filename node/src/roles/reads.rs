//! Reads of the replicated state, and those that wait: until a position is applied, or until a barrier of the ring has
//! shown that what is applied holds all that was answered to anybody before they came.

use bytes::BytesMut;
use hashbrown::HashMap;
use pygmy_proto::frame::Frame;
use pygmy_proto::header::{FLAG_FRESH, FLAG_TRACE};
use pygmy_proto::limits::{JOBS_MAX, ORDERS_PAGE_MAX, PAGE_MAX};
use pygmy_proto::message::{
    Books, Floor, FloorOk, Lookup, LookupOk, Message, Order, OrderOk, Orders, Search, Stage, Topics,
};
use pygmy_proto::{ErrorBody, ErrorCode, Kind, codec};
use pygmy_ring::Input;

use super::jobs::{JobKey, Jobs};
use super::replica::StoreReplica;
use super::{Ctx, deadline_of, malformed, queue_full, span, trace_of};
use crate::machine::ConnId;
use crate::store::{Store, unknown_book};

/// A read, decoded and checked.
#[derive(Debug, Clone)]
pub enum Read {
    /// One book.
    Lookup(Lookup),
    /// A page of a topic.
    Search(Search),
    /// A page of the topics.
    Topics(Topics),
    /// A page of all books.
    Books(Books),
    /// One order.
    Order(Order),
    /// A page of orders.
    Orders(Orders),
    /// Nothing but how far a fresh read would have to be.
    Floor(Floor),
}

fn check_limit(limit: u32, max: u32) -> Result<(), ErrorBody> {
    if (1..=max).contains(&limit) {
        return Ok(());
    }
    let detail = format!("a page has 1 to {max} records, not {limit}");
    Err(ErrorBody::new(ErrorCode::InvalidArgument).subject("limit").limit(max.into(), limit.into()).detail(&detail))
}

impl Read {
    /// Decodes and checks a frame; `None` when its kind is no read.
    pub fn parse(frame: &Frame<'_>) -> Option<Result<Self, ErrorBody>> {
        Self::decode(frame.kind()?, frame.body)
    }

    /// As [`Self::parse`], of a body by its kind.
    pub fn decode(kind: Kind, body: &[u8]) -> Option<Result<Self, ErrorBody>> {
        let read = match kind {
            Kind::Lookup => codec::decode(body).map(Read::Lookup),
            Kind::Search => codec::decode(body).map(Read::Search),
            Kind::Topics => codec::decode(body).map(Read::Topics),
            Kind::Books => codec::decode(body).map(Read::Books),
            Kind::Order => codec::decode(body).map(Read::Order),
            Kind::Orders => codec::decode(body).map(Read::Orders),
            Kind::Floor => codec::decode(body).map(Read::Floor),
            _ => return None,
        };
        Some(
            read.map_err(|error| malformed(kind as u16, &error.to_string()))
                .and_then(|read| read.check().map(|()| read)),
        )
    }

    fn check(&self) -> Result<(), ErrorBody> {
        match self {
            Read::Lookup(_) | Read::Order(_) | Read::Floor(_) => Ok(()),
            Read::Search(read) => check_limit(read.limit, PAGE_MAX),
            Read::Topics(read) => check_limit(read.limit, PAGE_MAX),
            Read::Books(read) => check_limit(read.limit, PAGE_MAX),
            Read::Orders(read) => check_limit(read.limit, ORDERS_PAGE_MAX),
        }
    }

    /// The position the answer must not lie before.
    pub fn floor(&self) -> u64 {
        match self {
            Read::Lookup(read) => read.floor,
            Read::Search(read) => read.floor,
            Read::Topics(read) => read.floor,
            Read::Books(read) => read.floor,
            Read::Order(read) => read.floor,
            Read::Orders(read) => read.floor,
            Read::Floor(Floor {}) => 0,
        }
    }

    /// Appends the answer's body to `out`; its kind. The store is applied up to `seq`, and fresh reads ask for `fresh`.
    fn answer(&self, store: &Store, seq: u64, fresh: u64, out: &mut BytesMut) -> Result<Kind, ErrorBody> {
        fn put<M: Message>(message: &M, out: &mut BytesMut) -> Kind {
            codec::encode_to(message, out);
            M::KIND
        }
        let (catalog, ledger) = (store.catalog(), store.ledger());
        Ok(match self {
            Read::Lookup(read) => {
                let book = catalog.get(&read.book).ok_or_else(|| unknown_book(&read.book))?;
                put(&LookupOk { seq, book }, out)
            }
            Read::Search(read) => put(&catalog.search(seq, &read.topic, read.limit, read.after.as_ref())?, out),
            Read::Topics(read) => put(&catalog.topics(seq, read.limit, read.after.as_ref()), out),
            Read::Books(read) => put(&catalog.page(seq, read.limit, read.after.as_ref()), out),
            Read::Order(read) => {
                let order = ledger.get(read.number).ok_or_else(|| unknown_order(read.number))?;
                put(&OrderOk { seq, order }, out)
            }
            Read::Orders(read) => put(&ledger.page(seq, read.book.as_ref(), read.limit, read.before), out),
            Read::Floor(Floor {}) => put(&FloorOk { seq: fresh }, out),
        })
    }
}

fn unknown_order(number: u64) -> ErrorBody {
    let detail = format!("there is no order {number}: `orders` lists the latest");
    ErrorBody::new(ErrorCode::UnknownOrder).subject(&number.to_string()).detail(&detail)
}

/// A read that waits for its position.
#[derive(Debug)]
struct Parked {
    conn: ConnId,
    request_id: u64,
    flags: u8,
    arrived_ns: u64,
    read: Read,
    /// The barrier that must be answered before it, if it is to be fresh; 0: none.
    barrier: u64,
}

/// Answers reads from a store, now or once it has been applied far enough.
#[derive(Debug)]
pub struct Reads {
    stage: Stage,
    parked: Jobs<Parked>,
    /// What each connection waits for: its request ids and the keys in `parked`. None is empty.
    by_conn: HashMap<ConnId, HashMap<u64, JobKey>>,
    /// Barriers asked for, and answered so far.
    barriers: u64,
    fresh: u64,
    /// The position that the latest answered barrier asked for.
    fresh_seq: u64,
    scratch: BytesMut,
    answered: u64,
}

impl Reads {
    /// For a role whose time is told as `stage`.
    pub fn new(stage: Stage) -> Self {
        Self {
            stage,
            parked: Jobs::default(),
            by_conn: HashMap::new(),
            barriers: 0,
            fresh: 0,
            fresh_seq: 0,
            scratch: BytesMut::new(),
            answered: 0,
        }
    }

    /// Reads that wait.
    pub fn waiting(&self) -> usize {
        self.parked.len()
    }
    /// Reads of one connection that wait.
    pub fn waiting_of(&self, conn: ConnId) -> usize {
        self.by_conn.get(&conn).map_or(0, HashMap::len)
    }
    /// Whether a read that a connection asked for under this id waits.
    pub fn is_in_flight(&self, conn: ConnId, request_id: u64) -> bool {
        self.by_conn.get(&conn).is_some_and(|ids| ids.contains_key(&request_id))
    }
    /// Reads answered so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Takes a read that was parsed from `frame`.
    pub fn on_read(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        frame: &Frame<'_>,
        read: Result<Read, ErrorBody>,
        replica: &mut StoreReplica,
    ) {
        let header = &frame.header;
        let read = match read {
            Ok(read) => read,
            Err(error) => return ctx.out.send_error(conn, header.request_id, ctx.me, &error),
        };
        let mut parked = Parked {
            conn,
            request_id: header.request_id,
            flags: header.flags,
            arrived_ns: ctx.now.mono_ns,
            read,
            barrier: 0,
        };
        let is_fresh = header.flags & FLAG_FRESH != 0 || matches!(parked.read, Read::Floor(_));
        if !is_fresh && self.is_ready(&parked, replica.applied()) {
            return self.answer(ctx, &parked, replica.store(), replica.applied());
        }
        if !self.parked.has_room() {
            let error = queue_full("waiting reads", JOBS_MAX, self.parked.len());
            return ctx.out.send_error(conn, header.request_id, ctx.me, &error);
        }
        if is_fresh {
            self.barriers += 1;
            parked.barrier = self.barriers;
            replica.handle(ctx.now, Input::Barrier { ticket: parked.barrier });
        }
        let key = self.parked.insert(Some(deadline_of(ctx.now, header)), parked);
        self.by_conn.entry(conn).or_default().insert(header.request_id, key);
    }

    /// Whether a read can be answered from what is applied.
    fn is_ready(&self, parked: &Parked, applied: u64) -> bool {
        parked.read.floor() <= applied && parked.barrier <= self.fresh
    }

    /// Answers those that waited for a position or a barrier, at the end of a turn of the replica.
    pub fn on_turn(&mut self, ctx: &mut Ctx<'_>, replica: &mut StoreReplica) {
        (self.fresh, self.fresh_seq) = replica.take_fresh().unwrap_or((self.fresh, self.fresh_seq));
        if self.parked.is_empty() {
            return;
        }
        let applied = replica.applied();
        for key in self.parked.keys(|parked| self.is_ready(parked, applied)) {
            if let Some(parked) = self.parked.remove(key) {
                self.free_id(&parked);
                self.answer(ctx, &parked, replica.store(), applied);
            }
        }
    }

    /// Notes that a read waits no more.
    fn free_id(&mut self, parked: &Parked) {
        if let Some(ids) = self.by_conn.get_mut(&parked.conn) {
            ids.remove(&parked.request_id);
            if ids.is_empty() {
                self.by_conn.remove(&parked.conn);
            }
        }
    }

    fn answer(&mut self, ctx: &mut Ctx<'_>, parked: &Parked, store: &Store, applied: u64) {
        self.answered += 1;
        self.scratch.clear();
        match parked.read.answer(store, applied, self.fresh_seq, &mut self.scratch) {
            Err(error) => ctx.out.send_error(parked.conn, parked.request_id, ctx.me, &error.at(applied)),
            Ok(kind) => {
                let flags = parked.flags & FLAG_TRACE;
                let waited_ns = ctx.now.mono_ns.saturating_sub(parked.arrived_ns);
                let spans = vec![span(self.stage, ctx.me, waited_ns), span(Stage::Apply, ctx.me, waited_ns)];
                let message = &self.scratch;
                ctx.out.send_with(parked.conn, kind, parked.request_id, ctx.me.into(), flags, |out| {
                    if flags & FLAG_TRACE != 0 {
                        codec::encode_to(&trace_of(spans), out);
                    }
                    out.extend_from_slice(message);
                });
            }
        }
    }

    /// Forgets what a connection asked for.
    pub fn on_closed(&mut self, conn: ConnId) {
        let mut keys: Vec<JobKey> = self.by_conn.remove(&conn).into_iter().flat_map(HashMap::into_values).collect();
        // The order of a hash table is another one in every process; the numbers given to later reads depend on it.
        keys.sort_unstable();
        for key in keys {
            self.parked.remove(key);
        }
    }

    /// When [`Self::on_timeout`] must be called next.
    pub fn next_timeout(&self) -> Option<u64> {
        self.parked.next_timeout()
    }

    /// Tells those whose deadline has passed.
    pub fn on_timeout(&mut self, ctx: &mut Ctx<'_>, applied: u64) {
        for (_, parked) in self.parked.take_late(ctx.now.mono_ns) {
            self.free_id(&parked);
            let waited_ms = ctx.now.mono_ns.saturating_sub(parked.arrived_ns) / 1_000_000;
            let error = too_late(&parked, parked.barrier > self.fresh, applied, waited_ms);
            ctx.out.send_error(parked.conn, parked.request_id, ctx.me, &error);
        }
    }
}

/// The error for a read that waited too long: for a barrier, or for its floor.
fn too_late(parked: &Parked, for_barrier: bool, applied: u64, waited_ms: u64) -> ErrorBody {
    let error = ErrorBody::new(ErrorCode::DeadlineExceeded);
    if for_barrier {
        let detail =
            format!("after {waited_ms} ms no majority of the voters has said how far it is: ask another server");
        return error.limit(waited_ms, 0).detail(&detail);
    }
    let floor = parked.read.floor();
    let detail = format!(
        "after {waited_ms} ms the state here is applied up to seq {applied}, the read asks for {floor}: ask another server"
    );
    error.limit(floor, applied).detail(&detail)
}
