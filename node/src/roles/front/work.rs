//! The table of a front's requests, and their way into work: a request is admitted, waits for its turn if there is more
//! than the servers are let have at once, is passed on, and taken out.

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use pygmy_proto::frame::Frame;
use pygmy_proto::limits::{CONNECTIONS_MAX, JOB_BYTES_MAX, JOBS_MAX};
use pygmy_proto::message::Role;
use pygmy_proto::{ErrorBody, ErrorCode, Kind};

use super::{Ask, Front, Job, unknown_outcome};
use crate::machine::ConnId;
use crate::roles::jobs::JobKey;
use crate::roles::lane::Lane;
use crate::roles::{Ctx, deadline_of, late, queue_full, remaining_ms};

/// What a front lets be in work at the servers of a role, in the unit of [`cost`]: enough for full batches, and what a
/// client with a single request waits for when another one has a hundred thousand.
pub(super) const WINDOW: u64 = 1_024;
/// Bytes of a body that cost as much as the request itself.
const COST_BYTES: usize = 1_024;

/// What a request is worth in turns.
fn cost(body: &Bytes) -> u32 {
    1 + (body.len() / COST_BYTES) as u32
}

/// How a job stands to its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// It waits for something else, or for nothing yet.
    Aside,
    /// It waits for its turn.
    Queued,
    /// It has its place among those in work.
    InWork,
}

/// What a client has in flight.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Its jobs, by request id.
    pub(super) ids: HashMap<u64, JobKey>,
    /// Bytes of their bodies.
    bytes: usize,
}

impl Front {
    /// Lets this much be in work at the servers of a role: to have requests wait that otherwise hardly do. For before the
    /// first input.
    pub fn limit_window(&mut self, window: u64) {
        self.to_catalogs.resize(window);
        self.to_orders.resize(window);
    }

    /// Requests that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.to_catalogs.waiting() + self.to_orders.waiting()
    }

    fn lane_for(&mut self, kind: Kind) -> &mut Lane<JobKey> {
        match role_of(kind) {
            Role::Catalog => &mut self.to_catalogs,
            _ => &mut self.to_orders,
        }
    }

    // ---- in ----

    /// Notes a request that is not answered at once, or refuses it.
    pub(super) fn insert(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, frame: &Frame<'_>, ask: Ask) -> Option<JobKey> {
        let request_id = frame.header.request_id;
        if let Err(error) = self.admit(conn, frame.body.len()) {
            ctx.out.send_error(conn, request_id, ctx.me, &error);
            return None;
        }
        let job = Job {
            conn,
            request_id,
            kind: ask.kind,
            flags: ask.flags,
            deadline_ns: deadline_of(ctx.now, &frame.header),
            arrived_ns: ctx.now.mono_ns,
            body: Bytes::copy_from_slice(frame.body),
            stand: Stand::Aside,
            server: 0,
            refusals: 0,
            orphaned: false,
            reading: ask.reading,
        };
        let key = self.jobs.insert(Some(job.deadline_ns), job);
        let client = self.clients.entry(conn).or_default();
        client.ids.insert(request_id, key);
        client.bytes += frame.body.len();
        self.bytes += frame.body.len();
        Some(key)
    }

    /// Whether a request of a client can be taken now. One of each client, if it is no long one, always finds room in the
    /// table. Beside that a client may have as much as is left for others: of n that take all they may, each has an
    /// (n + 1)-th.
    fn admit(&self, conn: ConnId, bytes: usize) -> Result<(), ErrorBody> {
        let (has, has_bytes) = self.clients.get(&conn).map_or((0, 0), |client| (client.ids.len(), client.bytes));
        let left = JOBS_MAX - self.jobs.len();
        if left == 0 || has > 0 && has >= left.saturating_sub(CONNECTIONS_MAX) {
            return Err(queue_full("requests in work", JOBS_MAX, self.jobs.len()));
        }
        let is_long = has > 0 || bytes > COST_BYTES;
        if is_long && has_bytes + bytes > JOB_BYTES_MAX.saturating_sub(self.bytes) {
            return Err(queue_full("bytes of requests in work", JOB_BYTES_MAX, self.bytes));
        }
        Ok(())
    }

    // ---- turns ----

    /// Sends a job to a server, now or when it has its turn.
    pub(super) fn pass_on(&mut self, ctx: &mut Ctx<'_>, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (conn, kind, cost) = (job.conn, job.kind, cost(&job.body));
        if job.stand == Stand::InWork || self.lane_for(kind).enter(cost) {
            self.stand(key, Stand::InWork);
            return self.dispatch(ctx, key);
        }
        self.lane_for(kind).wait(conn, cost, key);
        self.stand(key, Stand::Queued);
    }

    fn stand(&mut self, key: JobKey, stand: Stand) {
        self.jobs.get_mut(key).into_iter().for_each(|job| job.stand = stand);
    }

    /// A job waits for something else than a server: another one may have its place.
    pub(super) fn step_aside(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (kind, cost) = (job.kind, cost(&job.body));
        if std::mem::replace(&mut job.stand, Stand::Aside) == Stand::InWork {
            self.lane_for(kind).leave(cost);
        }
    }

    /// Takes into work what there is room for.
    pub(super) fn give_turns(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(key) = self.to_orders.turn().or_else(|| self.to_catalogs.turn()) {
            self.stand(key, Stand::InWork);
            if self.jobs.get_mut(key).is_some_and(|job| job.reading.is_some()) {
                // Its floor is from when it came, and the cache may have its answer by now.
                self.proceed(ctx, key);
            } else {
                self.dispatch(ctx, key);
            }
        }
    }

    /// Sends a job to the next server, or answers that there is none.
    pub(super) fn dispatch(&mut self, ctx: &mut Ctx<'_>, key: JobKey) {
        let Some((kind, conn)) = self.jobs.get(key).map(|job| (job.kind, job.conn)) else { return };
        let server = self.servers_for(kind).next_for(conn.0, ctx.now.mono_ns);
        let server = server.and_then(|node| ctx.links.get(node).map(|conn| (node, conn)));
        if let Some((node, _)) = server {
            self.servers_for(kind).add(node, 1);
        }
        let Some(job) = self.jobs.get_mut(key) else { return };
        match server {
            Some((node, conn)) => {
                job.server = node;
                let left = remaining_ms(ctx.now, job.deadline_ns);
                let job = &*job;
                ctx.out.send_with(conn, kind, key, left, job.flags, |out: &mut BytesMut| Self::put_read(job, out));
            }
            None => {
                let error = no_server(job);
                self.finish_with_error(ctx, key, &error);
            }
        }
    }

    // ---- out ----

    /// Takes out a job that is answered with what comes next.
    pub(super) fn take(&mut self, key: JobKey) -> Option<Job> {
        let job = self.jobs.remove(key)?;
        self.note_answered(&job);
        Some(job)
    }

    fn note_answered(&mut self, job: &Job) {
        self.answered += 1;
        if let Some(client) = self.clients.get_mut(&job.conn) {
            client.ids.remove(&job.request_id);
            client.bytes -= job.body.len();
        }
        self.give_up(job);
    }

    /// Gives up what a job took that is no longer in the table. Where it waits for its turn it is dropped by the caller.
    fn give_up(&mut self, job: &Job) {
        self.bytes -= job.body.len();
        self.forget(job.kind, job.server);
        if job.stand == Stand::InWork {
            self.lane_for(job.kind).leave(cost(&job.body));
        }
    }

    /// A client is gone: nobody waits for its answers any more.
    pub fn on_client_gone(&mut self, ctx: &mut Ctx<'_>, conn: ConnId) {
        let client = self.clients.remove(&conn);
        let mut keys: Vec<JobKey> = client.into_iter().flat_map(|client| client.ids.into_values()).collect();
        // The order of a hash table is another one in every process; the numbers given to later jobs depend on it.
        keys.sort_unstable();
        self.to_catalogs.forget(conn);
        self.to_orders.forget(conn);
        // All at once: what waits for the answer to one of these may be another one of them, and must not go on by itself.
        let gone: Vec<Job> = keys.into_iter().filter_map(|key| self.jobs.remove(key)).collect();
        for job in gone {
            self.give_up(&job);
            self.release(ctx, &job);
        }
    }

    /// Tells those whose deadline has passed.
    pub(super) fn end_late(&mut self, ctx: &mut Ctx<'_>) {
        let ended = self.jobs.take_late(ctx.now.mono_ns);
        if ended.iter().any(|(_, job)| job.stand == Stand::Queued) {
            let jobs = &mut self.jobs;
            self.to_catalogs.retain(|key| jobs.get_mut(*key).is_some());
            self.to_orders.retain(|key| jobs.get_mut(*key).is_some());
        }
        for (_, job) in ended {
            self.note_answered(&job);
            let waited_ms = ctx.now.mono_ns.saturating_sub(job.arrived_ns) / 1_000_000;
            let error = if job.stand == Stand::Queued { too_many(waited_ms) } else { late(job.kind, waited_ms) };
            ctx.out.send_error(job.conn, job.request_id, ctx.me, &error);
            self.release(ctx, &job);
        }
    }
}

/// Who serves requests of this kind.
pub(super) fn role_of(kind: Kind) -> Role {
    match kind {
        Kind::Lookup | Kind::Search | Kind::Topics | Kind::Books => Role::Catalog,
        _ => Role::Order,
    }
}

fn no_server(job: &Job) -> ErrorBody {
    if job.orphaned && job.is_write() {
        return unknown_outcome(job);
    }
    let role = role_of(job.kind);
    let detail = format!("no {} server is connected: `pygmy status` shows who is", role.name());
    ErrorBody::new(ErrorCode::Unavailable).subject(role.name()).detail(&detail)
}

/// The deadline passed before the request was passed on: unlike one that was, it is known to have had no effect.
fn too_many(waited_ms: u64) -> ErrorBody {
    let detail = format!("its turn did not come for {waited_ms} ms; nothing was done");
    ErrorBody::new(ErrorCode::Busy).subject("requests that wait").limit(waited_ms, 0).detail(&detail)
}
