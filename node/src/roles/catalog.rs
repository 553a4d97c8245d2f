//! The catalog server: proposes the writes that order servers pass on to it, and tells them what became of each.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use pygmy_proto::batch::EntryKind;
use pygmy_proto::codec::{self, BodyError};
use pygmy_proto::header::FLAG_TRACE;
use pygmy_proto::limits::{
    CLIENT_BODY_MAX, JOBS_MAX, SESSION_RESULT_BYTES_MAX, SESSION_WINDOW, SUBMIT_BYTES_SOFT, SUBMIT_JOBS_MAX,
};
use pygmy_proto::message::{
    JobResult, LentBody, Message, Replace, ReplaceOk, Results, Role, SessionOpened, Span, Stage, Submit, Voter,
};
use pygmy_proto::{ErrorBody, ErrorCode};
use pygmy_ring::replica::Completion;
use pygmy_ring::{Change, Input, NotTaken, Proposal, SessionError};

use super::jobs::Jobs;
use super::replica::{Settled, StoreReplica};
use super::{Ctx, deadline_in, leaving, queue_full, span, trace_of};
use crate::machine::ConnId;
use crate::settings::{ClusterSettings, slot_of};
use crate::store::split_answer;

/// A write that was proposed.
#[derive(Debug)]
struct Job {
    conn: ConnId,
    asked: Asked,
    trace: bool,
    arrived_ns: u64,
}

/// By what number whoever asked knows a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// An order server's number for a write.
    Job(u64),
    /// The request id of a client that changes the voters.
    Request(u64),
}

/// The body of a [`Results`] that is being put together: results stand in it as they will be sent.
#[derive(Debug, Default)]
struct Gathering {
    count: usize,
    body: BytesMut,
}

/// What a catalog server knows beside its replica.
#[derive(Debug, Default)]
pub struct Catalog {
    jobs: Jobs<Job>,
    /// Changes of the voters that wait: who asked, and under which request id.
    changes: BTreeSet<(ConnId, u64)>,
    /// What became of writes in this turn, by the connection they came from.
    results: BTreeMap<ConnId, Gathering>,
    answered: u64,
}

impl Catalog {
    /// Writes in work.
    pub fn in_flight(&self) -> usize {
        self.jobs.len()
    }
    /// Writes answered so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Writes from an order server, in the body of a [`Submit`].
    ///
    /// # Errors
    /// It is none.
    pub fn on_submit(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        body: &[u8],
        replica: &mut StoreReplica,
    ) -> Result<(), BodyError> {
        // One block for all of them: they wait for the token together.
        let body = Bytes::copy_from_slice(body);
        let submit: Submit<LentBody<'_>> = codec::decode_lent(&body)?;
        for job in &submit.jobs {
            let kind = EntryKind::from_u8(job.kind);
            let asked = Asked::Job(job.job);
            let entry = Job { conn, asked, trace: job.trace, arrived_ns: ctx.now.mono_ns };
            let Some(kind) = kind.filter(|_| self.jobs.has_room()) else {
                let error = match kind {
                    None => ErrorBody::new(ErrorCode::Malformed).detail(&format!("no entry has kind {}", job.kind)),
                    Some(_) => queue_full("writes in work", JOBS_MAX, self.jobs.len()),
                };
                self.put_error(ctx, &entry, &error);
                continue;
            };
            // No deadline here: the ring answers each proposal exactly once.
            let ticket = self.jobs.insert(None, entry);
            let deadline_ns = deadline_in(ctx.now, job.deadline_ms);
            let proposal = Proposal { ticket, kind, body: body.slice_ref(job.body.bytes()), deadline_ns };
            replica.handle(ctx.now, Input::Propose(proposal));
        }
        Ok(())
    }

    /// One log shall take another's place. Answered when the first of the two changes is committed.
    ///
    /// # Errors
    /// It makes no sense, whoever votes at present.
    pub fn on_replace(
        &mut self,
        ctx: &mut Ctx<'_>,
        (conn, request_id): (ConnId, u64),
        replace: &Replace,
        cluster: &ClusterSettings,
        replica: &mut StoreReplica,
    ) -> Result<(), ErrorBody> {
        let Some(place) = cluster.node(replace.node).filter(|place| place.is_replica()) else {
            let detail = format!("node number {} lies in the slot of no log replica", replace.node);
            return Err(ErrorBody::new(ErrorCode::InvalidArgument).subject("node").detail(&detail));
        };
        if !self.jobs.has_room() {
            return Err(queue_full("writes in work", JOBS_MAX, self.jobs.len()));
        }
        let elsewhere = |voter: &&Voter| voter.log_uuid == replace.old && slot_of(voter.node) != place.slot();
        if let Some(voter) = replica.settled_membership().voters.iter().find(elsewhere) {
            let (old, new) = (cluster.name_of(voter.node), &place.name);
            let detail = format!("the log that is to go is that of {old}, the one that is to come would be {new}");
            return Err(ErrorBody::new(ErrorCode::ChangeRefused).detail(&detail));
        }
        let new = Voter {
            node: replace.node,
            log_uuid: replace.new,
            holds_token: place.role == Role::Catalog,
            address: replace.address.clone(),
        };
        let asked = Asked::Request(request_id);
        self.changes.insert((conn, request_id));
        let ticket = self.jobs.insert(None, Job { conn, asked, trace: false, arrived_ns: ctx.now.mono_ns });
        replica.handle(ctx.now, Input::Change { ticket, change: Change::Replace { old: replace.old, new } });
        Ok(())
    }

    /// Whether a client waits for the answer to a request with this id.
    pub fn is_in_flight(&self, conn: ConnId, request_id: u64) -> bool {
        self.changes.contains(&(conn, request_id))
    }

    /// Takes what became of proposals, and tells those they came from.
    pub fn settle(&mut self, ctx: &mut Ctx<'_>, settled: Vec<Settled>) {
        for settled in settled {
            match settled {
                Settled::Done(completion) => self.on_done(ctx, completion),
                Settled::Refused { ticket, why } => {
                    if let Some(job) = self.jobs.remove(ticket) {
                        self.put_error(ctx, &job, &not_taken(why, ctx.name));
                    }
                }
                Settled::Unknown { ticket } => {
                    if let Some(job) = self.jobs.remove(ticket) {
                        self.put_error(ctx, &job, &unknown());
                    }
                }
            }
        }
        self.flush(ctx);
    }

    fn on_done(&mut self, ctx: &mut Ctx<'_>, done: Completion) {
        let Some(job) = self.jobs.remove(done.ticket) else { return };
        let spans = if job.trace { spans_of(ctx, &job, &done) } else { Vec::new() };
        match done.result {
            Err(error) => self.put_error(ctx, &job, &session_error(error)),
            Ok(_) if done.kind == EntryKind::Config => self.answer_replace(ctx, &job, &ReplaceOk { seq: done.seq }),
            Ok(_) if done.kind == EntryKind::Register => {
                let body = codec::encode(&SessionOpened { session: done.seq });
                self.put(ctx, &job, SessionOpened::KIND as u16, spans, &body);
            }
            Ok(answer) => match split_answer(&answer) {
                Some((kind, body)) => self.put(ctx, &job, kind, spans, body),
                None => self.put_error(ctx, &job, &ErrorBody::new(ErrorCode::Malformed).detail("an empty answer")),
            },
        }
    }

    fn answer_replace<M: Message>(&mut self, ctx: &mut Ctx<'_>, job: &Job, answer: &M) {
        let Asked::Request(request_id) = job.asked else { return };
        self.answered += 1;
        self.changes.remove(&(job.conn, request_id));
        ctx.out.send(job.conn, request_id, ctx.me.into(), 0, answer);
    }

    fn put_error(&mut self, ctx: &mut Ctx<'_>, job: &Job, error: &ErrorBody) {
        match job.asked {
            Asked::Job(_) => self.put(ctx, job, ErrorBody::KIND as u16, Vec::new(), &codec::encode(error)),
            Asked::Request(_) => self.answer_replace(ctx, job, error),
        }
    }

    fn put(&mut self, ctx: &mut Ctx<'_>, job: &Job, kind: u16, spans: Vec<Span>, body: &[u8]) {
        let Asked::Job(number) = job.asked else { return };
        self.answered += 1;
        // An error has no trace: it is told why, not how long.
        if spans.is_empty() || kind == ErrorBody::KIND as u16 {
            return self.gather(ctx, job.conn, (number, kind, 0), body);
        }
        let mut traced = BytesMut::new();
        codec::encode_to(&trace_of(spans), &mut traced);
        traced.extend_from_slice(body);
        self.gather(ctx, job.conn, (number, kind, FLAG_TRACE), &traced);
    }

    /// Puts a result to those of its connection, and sends them when they are as many as one frame may hold.
    fn gather(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, (job, kind, flags): (u64, u16, u8), body: &[u8]) {
        let Some(body) = LentBody::new(body) else { return };
        let gathering = self.results.entry(conn).or_default();
        codec::encode_to(&JobResult { job, kind, flags, body }, &mut gathering.body);
        gathering.count += 1;
        if gathering.count == SUBMIT_JOBS_MAX || gathering.body.len() >= SUBMIT_BYTES_SOFT {
            send_results(ctx, conn, gathering);
        }
    }

    /// Sends what became of writes, one frame for each connection and turn unless it would be too long.
    pub fn flush(&mut self, ctx: &mut Ctx<'_>) {
        for (conn, gathering) in &mut self.results {
            send_results(ctx, *conn, gathering);
        }
    }

    /// An order server is gone: it sends its writes again to another catalog. What is numbered here takes effect all
    /// the same, once.
    pub fn on_conn_gone(&mut self, conn: ConnId) {
        self.results.remove(&conn);
        self.changes.retain(|(asker, _)| *asker != conn);
        for key in self.jobs.keys(|job| job.conn == conn) {
            self.jobs.remove(key);
        }
    }
}

/// Sends what was gathered, if there is something, and keeps the room that it took.
fn send_results(ctx: &mut Ctx<'_>, conn: ConnId, gathering: &mut Gathering) {
    if gathering.count > 0 {
        // In bytes a list is its length and its items.
        ctx.out.send_with(conn, Results::KIND, 0, 0, 0, |out| {
            codec::encode_to(&(gathering.count as u64), out);
            out.extend_from_slice(&gathering.body);
        });
    }
    gathering.count = 0;
    gathering.body.clear();
}

fn spans_of(ctx: &Ctx<'_>, job: &Job, done: &Completion) -> Vec<Span> {
    vec![
        span(Stage::Catalog, ctx.me, ctx.now.mono_ns.saturating_sub(job.arrived_ns)),
        span(Stage::Token, ctx.me, done.token_ns),
        span(Stage::Replicate, ctx.me, done.replicate_ns),
        span(Stage::Sync, ctx.me, done.sync_ns),
        span(Stage::Apply, ctx.me, done.apply_ns),
    ]
}

fn not_taken(why: NotTaken, name: &str) -> ErrorBody {
    let busy = |detail: &str| ErrorBody::new(ErrorCode::Busy).subject("ring").detail(detail);
    match why {
        NotTaken::QueueFull => busy("too many writes wait to be ordered; nothing was done"),
        NotTaken::Unserved => busy("the token did not come in time; nothing was done"),
        NotTaken::Deadline => busy("the deadline passed before the write was ordered; nothing was done"),
        NotTaken::TooLong => ErrorBody::new(ErrorCode::InvalidArgument)
            .limit(CLIENT_BODY_MAX as u64, 0)
            .detail("the write is longer than an entry of the log may be"),
        NotTaken::OutOfSpace => busy("the disk of this catalog's log is full; nothing was done"),
        NotTaken::ChangeRefused(why) => ErrorBody::new(ErrorCode::ChangeRefused).detail(why),
        NotTaken::NotACatalog => ErrorBody::new(ErrorCode::Unavailable).detail("this server orders no writes"),
        NotTaken::Leaving => leaving(name),
    }
}

/// The write was numbered in an epoch that is over. The order server sends it again under the same id.
fn unknown() -> ErrorBody {
    let detail = "the epoch in which the write was ordered is over; ask again with the same session and counter";
    ErrorBody::new(ErrorCode::OutcomeUnknown).subject("Write").detail(detail)
}

fn session_error(error: SessionError) -> ErrorBody {
    let detail = error.to_string();
    match error {
        SessionError::Expired => ErrorBody::new(ErrorCode::SessionExpired)
            .detail("the session, or this counter of it, is forgotten: this write is not executed; open a new session"),
        SessionError::IdReused => ErrorBody::new(ErrorCode::IdReused).detail(&detail),
        SessionError::WindowFull { ahead } => {
            ErrorBody::new(ErrorCode::WindowFull).limit(SESSION_WINDOW, ahead).detail(&detail)
        }
        SessionError::ResultsFull { held } => {
            let limit = SESSION_RESULT_BYTES_MAX as u64;
            ErrorBody::new(ErrorCode::WindowFull).limit(limit, held as u64).detail(&detail)
        }
        SessionError::NoIdentity => ErrorBody::new(ErrorCode::Malformed).subject("Write").detail(&detail),
    }
}
