//! The order server: validates writes, passes what came in one turn as one batch to a catalog, round-robin, and
//! answers from the ledger.

use pygmy_proto::batch::EntryKind;
use pygmy_proto::frame::Frame;
use pygmy_proto::header::FLAG_TRACE;
use pygmy_proto::limits::{JOBS_MAX, SUBMIT_BYTES_SOFT, SUBMIT_JOBS_MAX};
use pygmy_proto::message::{JobResult, LentBody, LinkStatus, Results, Role, Stage, Submit, SubmitJob, Write};
use pygmy_proto::types::Bounded;
use pygmy_proto::{ErrorBody, ErrorCode, Kind, Message, codec};

use super::dispatch::Dispatcher;
use super::jobs::{JobKey, Jobs};
use super::{Ctx, deadline_of, extend_trace, late, leaving, malformed, queue_full, remaining_ms, span, was_not_taken};
use crate::machine::ConnId;
use crate::mistake::{Mistake, Planted};
use crate::settings::ClusterSettings;

/// A write that was passed on or is about to be.
#[derive(Debug)]
struct Job {
    conn: ConnId,
    request_id: u64,
    kind: EntryKind,
    trace: bool,
    deadline_ns: u64,
    arrived_ns: u64,
    body: Box<[u8]>,
    /// The catalog that has it; 0: none yet.
    server: u16,
    refusals: usize,
    /// It was with a catalog that went away, or was suspected, without an answer: it may have taken effect.
    orphaned: bool,
}

/// What an order server knows beside its replica.
#[derive(Debug)]
pub struct Order {
    catalogs: Dispatcher,
    jobs: Jobs<Job>,
    /// Jobs to be passed on at the end of the turn.
    outgoing: Vec<JobKey>,
    answered: u64,
    leaving: bool,
    planted: Planted,
}

impl Order {
    /// The order server of a cluster.
    pub fn new(cluster: &ClusterSettings) -> Self {
        let catalogs = cluster.nodes.iter().filter(|node| node.role == Role::Catalog).map(|node| node.number);
        Self {
            catalogs: Dispatcher::new(catalogs),
            jobs: Jobs::default(),
            outgoing: Vec::new(),
            answered: 0,
            leaving: false,
            planted: Planted::default(),
        }
    }

    /// Makes a known mistake from now on.
    #[cfg(feature = "mistakes")]
    pub fn plant(&mut self, mistake: Mistake) {
        self.planted = Planted(Some(mistake));
    }

    /// Whether `node` is given requests.
    pub fn is_served_by(&self, node: u16) -> bool {
        self.catalogs.serves(node)
    }

    /// Writes in work.
    pub fn in_flight(&self) -> usize {
        self.jobs.len()
    }
    /// Writes answered so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }
    /// From now on new writes are sent elsewhere.
    pub fn leave(&mut self) {
        self.leaving = true;
    }
    /// Writes at a catalog, and what it is given of them. None of another server.
    pub fn link_status(&self, node: u16, up: bool, now_ns: u64) -> Option<LinkStatus> {
        self.catalogs.link_status(node, up, now_ns)
    }

    /// A write from a front.
    pub fn on_write(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, kind: Kind, frame: &Frame<'_>) {
        let request_id = frame.header.request_id;
        match self.admit(kind, frame, ctx.name) {
            Err(error) => ctx.out.send_error(conn, request_id, ctx.me, &error),
            Ok(kind) => {
                let deadline_ns = deadline_of(ctx.now, &frame.header);
                let job = Job {
                    conn,
                    request_id,
                    kind,
                    trace: frame.header.flags & FLAG_TRACE != 0,
                    deadline_ns,
                    arrived_ns: ctx.now.mono_ns,
                    body: frame.body.into(),
                    server: 0,
                    refusals: 0,
                    orphaned: false,
                };
                let key = self.jobs.insert(Some(deadline_ns), job);
                self.outgoing.push(key);
            }
        }
    }

    /// Checks everything that can be checked without ordering it.
    fn admit(&self, kind: Kind, frame: &Frame<'_>, name: &str) -> Result<EntryKind, ErrorBody> {
        if self.leaving {
            return Err(leaving(name));
        }
        if !self.jobs.has_room() {
            return Err(queue_full("writes in work", JOBS_MAX, self.jobs.len()));
        }
        if kind == Kind::OpenSession {
            return match frame.body {
                [] => Ok(EntryKind::Register),
                _ => Err(malformed(kind as u16, "its body must be empty")),
            };
        }
        let write: Write = frame.decode().map_err(|error| malformed(kind as u16, &error.to_string()))?;
        for (field, value) in [("session", write.session), ("counter", write.counter)] {
            if value == 0 {
                let detail = "a write names a session as given by OpenSession, and a counter from 1";
                return Err(ErrorBody::new(ErrorCode::InvalidArgument).subject(field).limit(1, 0).detail(detail));
            }
        }
        write.command.check()?;
        Ok(EntryKind::Command)
    }

    /// Spares the catalogs for which this is so: what they were given would wait until they have caught up.
    pub fn spare_catalogs(&mut self, lags: impl Fn(u16) -> bool) {
        self.catalogs.spare_each(|node| if lags(node) { u64::MAX } else { 0 });
    }

    /// Passes on what this turn brought: as one batch, to the next catalog.
    pub fn end_turn(&mut self, ctx: &mut Ctx<'_>) {
        // Once for all that was heard in this turn: who is suspected, who is heard again, whose link or place there is.
        self.move_stranded();
        while !self.outgoing.is_empty() {
            let Some(node) = self.catalogs.next(ctx.now.mono_ns) else { return self.fail_outgoing(ctx) };
            let Some(conn) = ctx.links.get(node) else { return self.fail_outgoing(ctx) };
            let taken = self.take_batch(node);
            self.send_batch(ctx, conn, &taken);
        }
    }

    /// Takes from the outgoing jobs as many as one `Submit` holds, and notes that `node` has them.
    fn take_batch(&mut self, node: u16) -> Vec<JobKey> {
        let (mut count, mut bytes) = (0, 0);
        for key in &self.outgoing {
            if count == SUBMIT_JOBS_MAX || bytes >= SUBMIT_BYTES_SOFT {
                break;
            }
            count += 1;
            let Some(job) = self.jobs.get_mut(*key) else { continue };
            job.server = node;
            bytes += job.body.len();
        }
        let mut taken: Vec<JobKey> = self.outgoing.drain(..count).collect();
        taken.retain(|key| self.jobs.get(*key).is_some());
        self.catalogs.add(node, taken.len() as u32);
        taken
    }

    fn send_batch(&self, ctx: &mut Ctx<'_>, conn: ConnId, taken: &[JobKey]) {
        if taken.is_empty() {
            return;
        }
        let lent = taken.iter().filter_map(|&key| {
            let job = self.jobs.get(key)?;
            let deadline_ms = remaining_ms(ctx.now, job.deadline_ns);
            // It came in a frame, so it is no longer than one may be.
            let body = LentBody::new(&job.body)?;
            Some(SubmitJob { job: key, deadline_ms, trace: job.trace, kind: job.kind as u8, body })
        });
        let submit = Submit { jobs: Bounded::truncated(lent.collect()) };
        ctx.out.send_with(conn, Kind::Submit, 0, 0, 0, |out| codec::encode_to(&submit, out));
    }

    fn fail_outgoing(&mut self, ctx: &mut Ctx<'_>) {
        for key in std::mem::take(&mut self.outgoing) {
            let Some(job) = self.jobs.get_mut(key) else { continue };
            let error = if job.orphaned && job.kind == EntryKind::Command {
                unknown_outcome()
            } else {
                let detail = "no catalog server is connected: `pygmy status` shows who is";
                ErrorBody::new(ErrorCode::Unavailable).subject("catalog").detail(detail)
            };
            self.fail(ctx, key, &error);
        }
    }

    /// What became of writes, from a catalog.
    pub fn on_results(&mut self, ctx: &mut Ctx<'_>, node: u16, results: &Results<LentBody<'_>>) {
        for result in &results.results {
            self.on_result(ctx, node, result);
        }
    }

    fn on_result(&mut self, ctx: &mut Ctx<'_>, node: u16, result: &JobResult<LentBody<'_>>) {
        // Results of jobs that were given up find nothing.
        let Some(job) = self.jobs.get_mut(result.job) else { return };
        let is_error = result.kind == ErrorBody::KIND as u16;
        if is_error && job.server != node {
            // The catalog that has it now may do better. Anything else is true whoever says it first: the write has the
            // same session and counter everywhere.
            return;
        }
        let error = is_error.then(|| codec::decode::<ErrorBody>(result.body.bytes()).ok()).flatten();
        let handed_back = error.as_ref().is_some_and(was_not_taken);
        if error.is_some_and(|error| error.known_code() == Some(ErrorCode::OutcomeUnknown)) {
            // Its epoch is over. Under the same id it takes effect once, whatever became of it there.
            job.orphaned = true;
            job.server = 0;
            self.catalogs.done(node);
            self.outgoing.push(result.job);
            return;
        }
        if handed_back && job.refusals + 1 < self.catalogs.len() {
            // The next catalog gets it at the end of this turn.
            job.refusals += 1;
            job.server = 0;
            self.catalogs.done(node);
            self.outgoing.push(result.job);
            return;
        }
        if handed_back && job.orphaned && job.kind == EntryKind::Command {
            // Nobody takes it now, but one that went away may have.
            return self.fail(ctx, result.job, &unknown_outcome());
        }
        if let Some(job) = self.take(result.job) {
            self.catalogs.warm(node);
            let spans = [span(Stage::Order, ctx.me, ctx.now.mono_ns.saturating_sub(job.arrived_ns))];
            ctx.out.send_kind(job.conn, result.kind, job.request_id, node.into(), result.flags, |out| {
                extend_trace(out, result.flags, result.body.bytes(), &spans);
            });
        }
    }

    fn fail(&mut self, ctx: &mut Ctx<'_>, key: JobKey, error: &ErrorBody) {
        if let Some(job) = self.take(key) {
            ctx.out.send_error(job.conn, job.request_id, ctx.me, error);
        }
    }

    fn take(&mut self, key: JobKey) -> Option<Job> {
        let job = self.jobs.remove(key)?;
        self.answered += 1;
        self.catalogs.done(job.server);
        Some(job)
    }

    /// A catalog's link is up.
    pub fn on_server_up(&mut self, node: u16) {
        self.catalogs.set_up(node, true);
    }

    /// A server has taken a place; its link may be up already, and it may be suspected.
    pub fn add_server(&mut self, node: u16, role: Role, up: bool, suspected: bool) {
        if role == Role::Catalog {
            self.catalogs.insert(node, up);
            if suspected && !self.planted.makes(Mistake::KeepSendingToSuspects) {
                self.catalogs.suspect(node);
            }
        }
    }

    /// A server was replaced: it finishes what it has and gets nothing new.
    pub fn remove_server(&mut self, node: u16) {
        self.catalogs.remove(node);
    }

    /// A catalog's link is gone: its writes go to the next one at the end of this turn, under the same ids.
    pub fn on_server_down(&mut self, node: u16) {
        self.catalogs.set_up(node, false);
        self.move_jobs(&[node]);
    }

    /// A catalog is taken for gone though its link stands: its writes go to the next one at the end of this turn, if there is
    /// one that is not suspected itself. Otherwise they stay until there is.
    pub fn on_suspect(&mut self, node: u16) {
        if !self.planted.makes(Mistake::KeepSendingToSuspects) {
            self.catalogs.suspect(node);
        }
    }

    /// It is heard again.
    pub fn on_trust(&mut self, node: u16) {
        self.catalogs.trust(node);
    }

    /// Moves what suspected catalogs have, where others can take it.
    fn move_stranded(&mut self) {
        let nodes: Vec<u16> = self.catalogs.stranded().collect();
        if !nodes.is_empty() {
            self.move_jobs(&nodes);
        }
    }

    fn move_jobs(&mut self, nodes: &[u16]) {
        for key in self.jobs.keys(|job| nodes.contains(&job.server)) {
            if let Some(job) = self.jobs.get_mut(key) {
                job.orphaned = true;
                self.catalogs.moved(std::mem::take(&mut job.server));
                self.outgoing.push(key);
            }
        }
    }

    /// A front is gone: its writes still take effect, but nobody waits for the answers.
    pub fn on_conn_gone(&mut self, conn: ConnId) {
        for key in self.jobs.keys(|job| job.conn == conn) {
            if let Some(job) = self.jobs.remove(key) {
                self.catalogs.done(job.server);
            }
        }
    }

    /// When [`Self::on_timeout`] must be called next.
    pub fn next_timeout(&self) -> Option<u64> {
        self.jobs.next_timeout()
    }

    /// Tells those whose deadline has passed.
    pub fn on_timeout(&mut self, ctx: &mut Ctx<'_>) {
        for (_, job) in self.jobs.take_late(ctx.now.mono_ns) {
            self.answered += 1;
            self.catalogs.done(job.server);
            let waited_ms = ctx.now.mono_ns.saturating_sub(job.arrived_ns) / 1_000_000;
            let error = late(if job.kind == EntryKind::Command { Kind::Write } else { Kind::OpenSession }, waited_ms);
            ctx.out.send_error(job.conn, job.request_id, ctx.me, &error);
        }
    }
}

fn unknown_outcome() -> ErrorBody {
    let detail = "the catalog that had this write is gone; ask again with the same session and counter";
    ErrorBody::new(ErrorCode::OutcomeUnknown).subject("Write").detail(detail)
}
