//! The front: takes clients' requests, passes reads to catalogs (and ledger reads to orders) and writes to orders,
//! round-robin, and knows every one until it is answered. A server that goes has its requests moved to the next one
//! in the same turn; a write can be moved because its session makes it take effect once.

mod reads;
#[cfg(test)]
mod tests;
mod work;

use bytes::Bytes;
use hashbrown::HashMap;
use pygmy_proto::frame::Frame;
use pygmy_proto::header::FLAG_TRACE;
use pygmy_proto::message::{LinkStatus, Role, Stage};
use pygmy_proto::{ErrorBody, ErrorCode, Kind};

use self::reads::{ReadPath, Reading};
use self::work::{Client, Stand, WINDOW, role_of};
use super::dispatch::Dispatcher;
use super::jobs::{JobKey, Jobs};
use super::lane::Lane;
use super::{Ctx, check_in_flight, extend_trace, leaving, span, was_not_taken};
use crate::machine::{ConnId, ms};
use crate::mistake::{Mistake, Planted};
use crate::settings::ClusterSettings;

/// A server that hands a request back is spared for so long: it lags, is full or has nobody to pass it on to, and would hand
/// back the next one, too. Not least the same one, should its turn come again.
const SPARED_NS: u64 = ms(50);

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
struct Ask {
    kind: Kind,
    flags: u8,
    reading: Option<Reading>,
}

/// A request that was passed on, or waits.
#[derive(Debug)]
struct Job {
    conn: ConnId,
    request_id: u64,
    kind: Kind,
    flags: u8,
    deadline_ns: u64,
    arrived_ns: u64,
    body: Bytes,
    /// Whether it has its place among those in work.
    stand: Stand,
    /// Where it is.
    server: u16,
    /// Servers that refused it without effect.
    refusals: usize,
    /// It was with a server that went away, or was suspected, without an answer: it may have taken effect.
    orphaned: bool,
    /// For reads.
    reading: Option<Reading>,
}

impl Job {
    fn is_write(&self) -> bool {
        self.kind == Kind::Write
    }
}

/// The front's state.
#[derive(Debug)]
pub struct Front {
    catalogs: Dispatcher,
    orders: Dispatcher,
    jobs: Jobs<Job>,
    /// Bytes of their bodies.
    bytes: usize,
    /// What each client has in flight.
    clients: HashMap<ConnId, Client>,
    /// Turns between clients: reads of catalogs, and what orders do.
    to_catalogs: Lane<JobKey>,
    to_orders: Lane<JobKey>,
    /// Highest position this front has acknowledged to anyone: no read that it passes on may be answered from before.
    acknowledged: u64,
    reads: ReadPath,
    answered: u64,
    leaving: bool,
    planted: Planted,
}

impl Front {
    /// The front of a cluster. `seed` makes its hashes its own.
    pub fn new(cluster: &ClusterSettings, seed: u64) -> Self {
        let of = |role| cluster.nodes.iter().filter(move |node| node.role == role).map(|node| node.number);
        Self {
            catalogs: Dispatcher::new(of(Role::Catalog)),
            orders: Dispatcher::new(of(Role::Order)),
            jobs: Jobs::default(),
            bytes: 0,
            clients: HashMap::new(),
            to_catalogs: Lane::new(WINDOW),
            to_orders: Lane::new(WINDOW),
            acknowledged: 0,
            reads: ReadPath::new(cluster.cache_bytes, seed, of(Role::Catalog)),
            answered: 0,
            leaving: false,
            planted: Planted::default(),
        }
    }

    /// Its cache takes this many bytes at most; 0: it has none. What was kept is forgotten.
    pub fn keep_cache(&mut self, cluster: &ClusterSettings, bytes_max: u64, seed: u64) {
        let catalogs = cluster.nodes.iter().filter(|node| node.role == Role::Catalog);
        self.reads = ReadPath::new(bytes_max, seed, catalogs.map(|node| node.number));
    }

    /// Makes a known mistake from now on.
    #[cfg(feature = "mistakes")]
    pub fn plant(&mut self, mistake: Mistake) {
        self.planted = Planted(Some(mistake));
        self.reads.plant(mistake);
    }

    /// Whether `node` is given requests.
    pub fn is_served_by(&self, node: u16) -> bool {
        self.catalogs.serves(node) || self.orders.serves(node)
    }

    /// Requests in work.
    pub fn in_flight(&self) -> usize {
        self.jobs.len()
    }
    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.answered
    }
    /// From now on new requests are sent elsewhere.
    pub fn leave(&mut self) {
        self.leaving = true;
    }
    /// Requests at a server, and what it is given of them. None of another front.
    pub fn link_status(&self, node: u16, up: bool, now_ns: u64) -> Option<LinkStatus> {
        self.catalogs.link_status(node, up, now_ns).or_else(|| self.orders.link_status(node, up, now_ns))
    }

    /// A client's handshake is done.
    pub fn on_client(&mut self, conn: ConnId) {
        self.clients.insert(conn, Client::default());
    }

    /// Whether a client waits for the answer to a request with this id.
    pub fn is_in_flight(&self, conn: ConnId, request_id: u64) -> bool {
        self.clients.get(&conn).is_some_and(|client| client.ids.contains_key(&request_id))
    }

    /// A request of a client, under an id that is not in flight.
    pub fn on_request(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, kind: Kind, frame: &Frame<'_>) {
        let in_flight = self.clients.get(&conn).map_or(0, |client| client.ids.len());
        let refusal = if self.leaving { Err(leaving(ctx.name)) } else { check_in_flight(in_flight) };
        if let Err(error) = refusal {
            return ctx.out.send_error(conn, frame.header.request_id, ctx.me, &error);
        }
        if !matches!(kind, Kind::Write | Kind::OpenSession) {
            return self.on_read(ctx, conn, kind, frame);
        }
        let ask = Ask { kind, flags: frame.header.flags & FLAG_TRACE, reading: None };
        if let Some(key) = self.insert(ctx, conn, frame, ask) {
            self.pass_on(ctx, key);
        }
    }

    fn servers_for(&mut self, kind: Kind) -> &mut Dispatcher {
        match role_of(kind) {
            Role::Catalog => &mut self.catalogs,
            _ => &mut self.orders,
        }
    }

    fn forget(&mut self, kind: Kind, server: u16) {
        self.servers_for(kind).done(server);
    }

    /// An answer from a server.
    pub fn on_answer(&mut self, ctx: &mut Ctx<'_>, node: u16, frame: &Frame<'_>) {
        if self.on_cache_frame(ctx, node, frame) {
            return;
        }
        let key = frame.header.request_id;
        // Answers to jobs that were given up find nothing.
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (is_error, is_former) = (frame.kind() == Some(Kind::Error), job.server != node);
        if is_former && is_error {
            // The one that has it now may do better.
            return;
        }
        // Otherwise the first answer is as good as the second: a write has its session and counter wherever it went, and
        // what a read was promised is looked at when its answer leaves.
        if is_error
            && let Ok(error) = frame.decode::<ErrorBody>()
            && was_not_taken(&error)
        {
            job.refusals += 1;
            let (kind, refusals) = (job.kind, job.refusals);
            let servers = self.servers_for(kind);
            servers.spare(node, ctx.now.mono_ns + SPARED_NS);
            if refusals < servers.len() {
                servers.done(node);
                self.jobs.get_mut(key).iter_mut().for_each(|job| job.server = 0);

                return self.dispatch(ctx, key);
            }
            if let Some(job) = self.jobs.get_mut(key).filter(|job| job.orphaned && job.is_write()) {
                // Nobody takes it now, but one that went away may have.
                let error = unknown_outcome(job);
                return self.finish_with_error(ctx, key, &error);
            }
        }
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (kind, is_read) = (job.kind, job.reading.is_some());
        self.servers_for(kind).warm(node);
        if is_read {
            return self.on_read_answer(ctx, key, frame);
        }
        self.finish(ctx, key, frame);
    }

    /// Passes an answer on to the client.
    fn finish(&mut self, ctx: &mut Ctx<'_>, key: JobKey, frame: &Frame<'_>) {
        let Some(job) = self.take(key) else { return };
        let header = &frame.header;
        if frame.kind() == Some(Kind::WriteOk) {
            self.note_acknowledged(header.flags, frame.body);
        }
        let spans = [span(Stage::Front, ctx.me, ctx.now.mono_ns.saturating_sub(job.arrived_ns))];
        ctx.out.send_kind(job.conn, header.kind, job.request_id, header.aux, header.flags, |out| {
            extend_trace(out, header.flags, frame.body, &spans);
        });
        self.release(ctx, &job);
    }

    fn finish_with_error(&mut self, ctx: &mut Ctx<'_>, key: JobKey, error: &ErrorBody) {
        if let Some(job) = self.take(key) {
            ctx.out.send_error(job.conn, job.request_id, ctx.me, error);
            self.release(ctx, &job);
        }
    }

    /// A server's link is up.
    pub fn on_server_up(&mut self, ctx: &mut Ctx<'_>, node: u16) {
        self.catalogs.set_up(node, true);
        self.orders.set_up(node, true);
        self.on_source_up(ctx, node);
    }

    /// A server has taken a place; its link may be up already, and it may be suspected.
    pub fn add_server(&mut self, node: u16, role: Role, up: bool, suspected: bool) {
        match role {
            Role::Catalog => {
                self.catalogs.insert(node, up);
                self.add_source(node, up, suspected);
            }
            Role::Order => self.orders.insert(node, up),
            Role::Front | Role::Client => {}
        }
        if suspected && !self.planted.makes(Mistake::KeepSendingToSuspects) {
            self.catalogs.suspect(node);
            self.orders.suspect(node);
        }
    }

    /// A server was replaced: it finishes what it has and gets nothing new.
    pub fn remove_server(&mut self, node: u16) {
        self.catalogs.remove(node);
        self.orders.remove(node);
        self.remove_source(node);
    }

    /// A server's link is gone: its jobs move to the next in this very turn.
    pub fn on_server_down(&mut self, ctx: &mut Ctx<'_>, node: u16) {
        self.catalogs.set_up(node, false);
        self.orders.set_up(node, false);
        self.move_jobs(ctx, &[node]);
        self.on_source_down(ctx, node);
    }

    /// A server is taken for gone though its link stands: its jobs move to the next at the end of this turn, if there is one
    /// that is not suspected itself. Otherwise they stay until there is.
    pub fn on_suspect(&mut self, ctx: &mut Ctx<'_>, node: u16) {
        if self.planted.makes(Mistake::KeepSendingToSuspects) {
            return;
        }
        self.catalogs.suspect(node);
        self.orders.suspect(node);
        self.on_source_suspected(ctx, node);
    }

    /// It is heard again.
    pub fn on_trust(&mut self, ctx: &mut Ctx<'_>, node: u16) {
        self.catalogs.trust(node);
        self.orders.trust(node);
        self.on_source_trusted(ctx, node);
    }

    /// Moves what suspected servers have, where others can take it.
    fn move_stranded(&mut self, ctx: &mut Ctx<'_>) {
        let nodes: Vec<u16> = self.catalogs.stranded().chain(self.orders.stranded()).collect();
        if !nodes.is_empty() {
            self.move_jobs(ctx, &nodes);
        }
    }

    /// Moves all that these servers have to the next ones, under the same identity.
    fn move_jobs(&mut self, ctx: &mut Ctx<'_>, nodes: &[u16]) {
        for key in self.jobs.keys(|job| nodes.contains(&job.server)) {
            if let Some(job) = self.jobs.get_mut(key) {
                job.orphaned = true;
                if self.planted.makes(Mistake::MoveUnderNewId) && job.is_write() {
                    job.body = under_new_id(&job.body);
                }
                let (kind, server) = (job.kind, std::mem::take(&mut job.server));
                self.servers_for(kind).moved(server);
            }
            self.dispatch(ctx, key);
        }
    }

    /// When [`Self::on_timeout`] must be called next.
    pub fn next_timeout(&self) -> Option<u64> {
        self.jobs.next_timeout().into_iter().chain(self.next_read_timeout()).min()
    }

    /// Tells those whose deadline has passed.
    pub fn on_timeout(&mut self, ctx: &mut Ctx<'_>) {
        self.end_late(ctx);
        self.on_read_timeout(ctx);
    }

    /// Ends a turn: what its answers made room for goes into work.
    pub fn end_turn(&mut self, ctx: &mut Ctx<'_>) {
        // Once for all that was heard in this turn: who is suspected, who is heard again, whose link or place there is.
        self.move_stranded(ctx);
        self.end_read_turn(ctx);
        self.give_turns(ctx);
    }
}

fn unknown_outcome(job: &Job) -> ErrorBody {
    let detail = "the server that had this write is gone; ask again with the same session and counter";
    ErrorBody::new(ErrorCode::OutcomeUnknown).subject(&format!("{:?}", job.kind)).detail(detail)
}

/// The body of a write under another number of its session.
fn under_new_id(body: &[u8]) -> Bytes {
    let mut changed = body.to_vec();
    if let Some(counter) = changed.get_mut(8..16) {
        // Far from those that the client uses next, and within what a session may have open.
        counter[1] ^= 1;
    }
    changed.into()
}
