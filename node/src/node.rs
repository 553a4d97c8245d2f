//! One node: its connections and their handshakes, and the role that does the rest.

mod beats;
mod handshake;
mod members;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use hashbrown::HashMap;
use pygmy_proto::frame::{Frame, FrameError};
use pygmy_proto::message::{
    FrontStatus, IoStatus, LinkStatus, Members, Ping, Pong, Replace, ReplicaHello, Role, Share, Stage, Status, StatusOk,
};
use pygmy_proto::types::{Bounded, Name};
use pygmy_proto::{ErrorBody, ErrorCode, Header, Kind, codec};
use pygmy_ring::{ConfigError, Limits, Recovered};

use self::beats::Beats;
use self::members::Directory;
use crate::machine::{CloseReason, ConnClass, ConnId, Input, Machine, Now, Outbox, Output};
use crate::roles::catalog::Catalog;
use crate::roles::feed::FeedSource;
use crate::roles::front::Front;
use crate::roles::order::Order;
use crate::roles::reads::{Read, Reads};
use crate::roles::replica::StoreReplica;
use crate::roles::{Ctx, Links, check_in_flight, kind_name, lagging, malformed, unsupported};
use crate::settings::{Settings, SnapshotPolicy};
use crate::snapshot::BuildError;
use crate::snapshot::transfer::Done;
use crate::store::Store;

/// What a connection is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conn {
    /// Somebody connected; its `Hello` is awaited.
    Greeted,
    /// This node connected to another one and said `Hello`; the answer is awaited.
    Greeting { node: u16 },
    /// A client, and whether it has shown the cluster's key.
    Client { trusted: bool },
    /// The link with another server.
    Peer { node: u16 },
    /// To be closed; what still comes is not looked at.
    Closing,
}

/// What a node does beside its connections.
#[derive(Debug)]
enum Duty {
    Front(Box<Front>),
    Order(Order, Box<StoreReplica>, Reads),
    Catalog(Catalog, Box<StoreReplica>, Reads, FeedSource),
}

impl Duty {
    fn replica(&self) -> Option<&StoreReplica> {
        match self {
            Duty::Front(_) => None,
            Duty::Order(_, replica, _) | Duty::Catalog(_, replica, ..) => Some(replica),
        }
    }
    fn replica_mut(&mut self) -> Option<&mut StoreReplica> {
        match self {
            Duty::Front(_) => None,
            Duty::Order(_, replica, _) | Duty::Catalog(_, replica, ..) => Some(replica),
        }
    }
    fn front(&self) -> Option<&Front> {
        match self {
            Duty::Front(front) => Some(front),
            Duty::Order(..) | Duty::Catalog(..) => None,
        }
    }
    /// Whether a client's request with this id is not answered yet.
    fn is_in_flight(&self, conn: ConnId, request_id: u64) -> bool {
        match self {
            Duty::Front(front) => front.is_in_flight(conn, request_id),
            Duty::Order(_, _, reads) => reads.is_in_flight(conn, request_id),
            Duty::Catalog(catalog, _, reads, _) => {
                reads.is_in_flight(conn, request_id) || catalog.is_in_flight(conn, request_id)
            }
        }
    }
}

/// A whole node, without its I/O.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    settings_hash: u64,
    started_ns: u64,
    /// What was asked of the system for it, as of this turn.
    io: IoStatus,
    conns: HashMap<ConnId, Conn>,
    clients: u32,
    links: Links,
    directory: Directory,
    duty: Duty,
    beats: Beats,
    leaving: bool,
    left: bool,
}

impl Node {
    /// A node whose log is new.
    ///
    /// # Errors
    /// When the cluster's settings make no ring.
    pub fn new(settings: Settings, now: Now) -> Result<Self, ConfigError> {
        Self::open(settings, now, Recovered::empty(Store::new()))
    }

    /// A node over what its files hold; a front has none.
    ///
    /// # Errors
    /// When the cluster's settings make no ring.
    pub fn open(settings: Settings, now: Now, recovered: Recovered<Store>) -> Result<Self, ConfigError> {
        let duty = match settings.own().role {
            Role::Order => {
                let replica = Box::new(StoreReplica::open(&settings, now, recovered)?);
                Duty::Order(Order::new(&settings.cluster), replica, Reads::new(Stage::Order))
            }
            Role::Catalog => {
                let mut replica = Box::new(StoreReplica::open(&settings, now, recovered)?);
                replica.feed();
                Duty::Catalog(Catalog::default(), replica, Reads::new(Stage::Catalog), FeedSource::default())
            }
            Role::Front | Role::Client => Duty::Front(Box::new(Front::new(&settings.cluster, settings.boot_nonce))),
        };
        let mut node = Self {
            settings_hash: settings.cluster.hash(),
            started_ns: now.mono_ns,
            io: IoStatus::default(),
            conns: HashMap::new(),
            clients: 0,
            links: Links::default(),
            directory: Directory::new(&settings),
            duty,
            beats: Beats::new(&settings, now),
            leaving: false,
            left: false,
            settings,
        };
        node.watch_all();
        Ok(node)
    }

    /// Its replica, if it has one, takes snapshots from now on: there is a place for them.
    pub fn keep_snapshots(&mut self, policy: SnapshotPolicy) {
        if let Some(replica) = self.duty.replica_mut() {
            replica.keep_snapshots(policy);
        }
    }

    /// Its ring, if it has one, has other bounds than the usual ones: to reach in a moment what else takes a million entries.
    /// To be called before its first turn.
    pub fn limit_ring(&mut self, limits: Limits) {
        if let Some(replica) = self.duty.replica_mut() {
            replica.limit(limits);
        }
    }

    /// A front's cache takes this many bytes at most; 0: it has none. For before the first input.
    pub fn keep_cache(&mut self, bytes_max: u64) {
        let seed = self.settings.boot_nonce;
        if let Duty::Front(front) = &mut self.duty {
            front.keep_cache(&self.settings.cluster, bytes_max, seed);
        }
    }

    /// A front lets this much be in work at once, and has the rest wait for its turn: few requests reach in a moment what
    /// else takes thousands. For before the first input.
    pub fn limit_window(&mut self, window: u64) {
        if let Duty::Front(front) = &mut self.duty {
            front.limit_window(window);
        }
    }

    /// Makes a known mistake from now on, to prove that the checkers find it.
    #[cfg(feature = "mistakes")]
    pub fn plant(&mut self, mistake: crate::mistake::Mistake) {
        match &mut self.duty {
            Duty::Front(front) => front.plant(mistake),
            Duty::Catalog(.., feed) => feed.plant(mistake),
            Duty::Order(order, ..) => order.plant(mistake),
        }
    }

    /// A node whose ring makes a known mistake, to prove that the checkers find it.
    ///
    /// # Errors
    /// As [`Self::new`].
    #[cfg(feature = "mistakes")]
    pub fn with_mistake(
        settings: Settings,
        now: Now,
        recovered: Recovered<Store>,
        mistake: pygmy_ring::Mistake,
    ) -> Result<Self, ConfigError> {
        let planted = StoreReplica::with_mistake(&settings, now, recovered, mistake)?;
        let mut node = Self::new(settings, now)?;
        if let Some(replica) = node.duty.replica_mut() {
            *replica = planted;
        }
        Ok(node)
    }

    /// Its log replica, if it has one; to look at.
    pub fn replica(&self) -> Option<&StoreReplica> {
        self.duty.replica()
    }

    /// Splits the node into what its role needs and the role.
    fn parts<'a>(&'a mut self, now: Now, out: &'a mut Outbox) -> (Ctx<'a>, &'a mut Duty) {
        let (me, name) = (self.settings.me, &*self.settings.own().name);
        (Ctx { now, me, name, links: &self.links, out }, &mut self.duty)
    }

    fn close(&mut self, out: &mut Outbox, conn: ConnId, reason: CloseReason) {
        self.conns.insert(conn, Conn::Closing);
        out.push(Output::Close { conn, reason });
    }

    fn on_frame(&mut self, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outbox) {
        match self.conns.get(&conn).copied() {
            None | Some(Conn::Closing) => {}
            Some(Conn::Greeted) => self.on_hello(now, conn, frame, out),
            Some(Conn::Greeting { node }) => self.on_hello_answer(now, conn, node, frame, out),
            Some(Conn::Client { trusted }) => self.on_client_frame(now, conn, trusted, frame, out),
            Some(Conn::Peer { node }) => self.on_peer_frame(now, conn, node, frame, out),
        }
    }

    fn on_client_frame(&mut self, now: Now, conn: ConnId, trusted: bool, frame: &Frame<'_>, out: &mut Outbox) {
        let (request_id, me) = (frame.header.request_id, self.settings.me);
        if let Err(error) = self.check_client_header(conn, &frame.header) {
            out.send_error(conn, 0, me, &error);
            return self.drop_client(now, conn, out, CloseReason::Misbehaved);
        }
        let done = match frame.kind() {
            Some(Kind::Ping) => frame.decode().map(|Ping {}| out.send(conn, request_id, me.into(), 0, &Pong {})),
            Some(Kind::Status) => {
                frame.decode().map(|Status {}| out.send(conn, request_id, me.into(), 0, &self.status(now)))
            }
            Some(Kind::Replace) => return self.on_replace(now, conn, trusted, frame, out),
            Some(kind) if kind.is_request() => return self.on_request(now, conn, kind, frame, out),
            _ => {
                return out.send_error(conn, request_id, me, &unsupported(frame.header.kind, "clients do not send it"));
            }
        };
        if let Err(error) = done {
            out.send_error(conn, request_id, me, &malformed(frame.header.kind, &error.to_string()));
        }
    }

    /// Refuses a frame after which a client's connection can only be closed: answers could no longer be told apart from
    /// each other or from errors about the connection.
    fn check_client_header(&self, conn: ConnId, header: &Header) -> Result<(), ErrorBody> {
        let Header { kind, request_id, .. } = *header;
        if kind == Kind::Hello as u16 {
            let error = ErrorBody::new(ErrorCode::HelloExpected).limit(0, kind.into());
            return Err(error.detail("one Hello opens a connection, not two"));
        }
        if request_id == 0 {
            return Err(malformed(kind, "its request id is 0; requests have ids from 1"));
        }
        if self.duty.is_in_flight(conn, request_id) {
            let name = kind_name(kind);
            let detail = format!("{name}: request id {request_id} is in flight on this connection: use each once");
            return Err(ErrorBody::new(ErrorCode::RequestIdInUse).subject(&request_id.to_string()).detail(&detail));
        }
        Ok(())
    }

    fn on_request(&mut self, now: Now, conn: ConnId, kind: Kind, frame: &Frame<'_>, out: &mut Outbox) {
        let (mut ctx, duty) = self.parts(now, out);
        let refusal = match duty {
            Duty::Front(front) => return front.on_request(&mut ctx, conn, kind, frame),
            Duty::Order(_, replica, reads) | Duty::Catalog(_, replica, reads, _) => match Read::parse(frame) {
                None => unsupported(frame.header.kind, "send writes to a front"),
                Some(read) => match check_in_flight(reads.waiting_of(conn)) {
                    Err(error) => error,
                    Ok(()) => return reads.on_read(&mut ctx, conn, frame, read, replica),
                },
            },
        };
        ctx.out.send_error(conn, frame.header.request_id, ctx.me, &refusal);
    }

    /// A change of the voters is asked for.
    fn on_replace(&mut self, now: Now, conn: ConnId, trusted: bool, frame: &Frame<'_>, out: &mut Outbox) {
        let request_id = frame.header.request_id;
        let (cluster, me) = (self.settings.cluster.clone(), self.settings.me);
        let (mut ctx, duty) = self.parts(now, out);
        let asked = match (duty, frame.decode::<Replace>()) {
            _ if !trusted => {
                let detail = "only who has shown the cluster's key in its Hello may change the voters";
                Err(ErrorBody::new(ErrorCode::BadCredentials).subject("Replace").detail(detail))
            }
            (_, Err(error)) => Err(malformed(frame.header.kind, &error.to_string())),
            (Duty::Catalog(catalog, replica, ..), Ok(replace)) => {
                catalog.on_replace(&mut ctx, (conn, request_id), &replace, &cluster, replica)
            }
            _ => Err(unsupported(frame.header.kind, "send it to a catalog")),
        };
        if let Err(error) = asked {
            ctx.out.send_error(conn, request_id, me, &error);
        }
    }

    /// Closes a client's connection from this side.
    fn drop_client(&mut self, now: Now, conn: ConnId, out: &mut Outbox, reason: CloseReason) {
        self.forget(now, conn, out);
        self.close(out, conn, reason);
    }

    fn on_peer_frame(&mut self, now: Now, conn: ConnId, node: u16, frame: &Frame<'_>, out: &mut Outbox) {
        self.beats.detector.hear_frame(now.mono_ns, node);
        let members = (frame.kind() == Some(Kind::Members)).then(|| frame.decode::<Members>());
        let (mut ctx, duty) = self.parts(now, out);
        let understood = match duty {
            _ if members.is_some() => members.transpose().map(|members| {
                members.iter().for_each(|members| self.on_members(members, out));
                true
            }),
            Duty::Front(front) => {
                front.on_answer(&mut ctx, node, frame);
                Ok(true)
            }
            Duty::Order(order, replica, reads) => match frame.kind() {
                Some(kind @ (Kind::Write | Kind::OpenSession)) => {
                    order.on_write(&mut ctx, conn, kind, frame);
                    Ok(true)
                }
                Some(Kind::Results) => codec::decode_lent(frame.body).map(|results| {
                    order.on_results(&mut ctx, node, &results);
                    true
                }),
                _ => on_read_or_ring_frame(&mut ctx, conn, node, frame, replica, reads),
            },
            Duty::Catalog(catalog, replica, reads, feed) => match frame.kind() {
                Some(Kind::FeedOpen) => frame.decode().map(|open| {
                    feed.on_open(conn, frame.header.request_id, open);
                    true
                }),
                Some(Kind::FeedRead) => frame.decode().map(|read| {
                    feed.on_read(conn, read);
                    true
                }),
                Some(Kind::Submit) => catalog.on_submit(&mut ctx, conn, frame.body, replica).map(|()| true),
                _ => on_read_or_ring_frame(&mut ctx, conn, node, frame, replica, reads),
            },
        };
        let complaint = match understood {
            Ok(true) => return,
            Ok(false) => unsupported(frame.header.kind, "servers of these roles do not send it to each other"),
            Err(error) => ErrorBody::new(ErrorCode::Malformed).detail(&format!("{:?}: {error}", frame.kind())),
        };
        log::error!("link with {}: {complaint}; it is closed", self.name_of(node));
        out.send_error(conn, 0, self.settings.me, &complaint);
        self.forget(now, conn, out);
        self.close(out, conn, CloseReason::Misbehaved);
    }

    fn name_of(&self, node: u16) -> Cow<'_, str> {
        self.settings.cluster.name_of(node)
    }

    /// The link with `node` is up over `conn`.
    fn link_up(&mut self, now: Now, conn: ConnId, node: u16, hello: Option<ReplicaHello>, out: &mut Outbox) {
        if let Some(old) = self.links.get(node) {
            // The other side gave the old connection up before this side noticed.
            self.forget(now, old, out);
            self.close(out, old, CloseReason::Replaced);
        }
        log::info!("link with {} is up", self.name_of(node));
        self.pass_on(now, out);
        self.conns.insert(conn, Conn::Peer { node });
        out.push(Output::Class { conn, class: ConnClass::Peer });
        self.links.insert(node, conn, hello.is_some());
        let address = hello.as_ref().map(|hello| hello.address.to_string()).unwrap_or_default();
        self.meet(node, &address, out);
        let (mut ctx, duty) = self.parts(now, out);
        match duty {
            Duty::Front(front) => front.on_server_up(&mut ctx, node),
            Duty::Order(order, ..) => order.on_server_up(node),
            Duty::Catalog(..) => {}
        }
        if let Some(hello) = &hello {
            self.beats.pin(node, hello.boot_nonce);
        }
        self.watch_link(now, node, hello.as_ref().map_or(0, |hello| hello.boot_nonce));
        if let (Some(replica), Some(hello)) = (self.duty.replica_mut(), hello) {
            replica.handle(now, pygmy_ring::Input::PeerUp { node, hello });
        }
        self.tell_members(conn, out);
        self.pass_on(now, out);
    }

    /// Passes on what the ring wants done over the links as they are now.
    fn pass_on(&mut self, now: Now, out: &mut Outbox) {
        let (mut ctx, duty) = self.parts(now, out);
        if let Some(replica) = duty.replica_mut() {
            replica.pass_on(&mut ctx);
        }
    }

    /// Forgets a connection that is gone or about to be closed.
    fn forget(&mut self, now: Now, conn: ConnId, out: &mut Outbox) {
        match self.conns.remove(&conn) {
            Some(Conn::Client { .. }) => {
                self.clients -= 1;
                let (mut ctx, duty) = self.parts(now, out);
                match duty {
                    Duty::Front(front) => front.on_client_gone(&mut ctx, conn),
                    Duty::Order(_, _, reads) => reads.on_closed(conn),
                    Duty::Catalog(catalog, _, reads, _) => {
                        catalog.on_conn_gone(conn);
                        reads.on_closed(conn);
                    }
                }
            }
            Some(Conn::Peer { node }) => self.link_down(now, conn, node, out),
            _ => {}
        }
    }

    fn link_down(&mut self, now: Now, conn: ConnId, node: u16, out: &mut Outbox) {
        log::warn!("link with {} is down", self.name_of(node));
        self.pass_on(now, out);
        self.links.remove(node);
        self.beats.detector.link_down(node);
        self.part(node, out);
        let (mut ctx, duty) = self.parts(now, out);
        match duty {
            Duty::Front(front) => front.on_server_down(&mut ctx, node),
            Duty::Order(order, replica, reads) => {
                reads.on_closed(conn);
                order.on_conn_gone(conn);
                order.on_server_down(node);
                replica.handle(now, pygmy_ring::Input::PeerDown { node });
            }
            Duty::Catalog(catalog, replica, reads, feed) => {
                reads.on_closed(conn);
                feed.on_closed(conn);
                catalog.on_conn_gone(conn);
                replica.handle(now, pygmy_ring::Input::PeerDown { node });
            }
        }
        self.pass_on(now, out);
    }

    fn on_bad_frame(&mut self, now: Now, conn: ConnId, error: FrameError, out: &mut Outbox) {
        log::warn!("a connection sent what is no frame: {error}");
        out.send_error(conn, 0, self.settings.me, &error.to_error());
        self.forget(now, conn, out);
        self.close(out, conn, CloseReason::BadFrame);
    }

    fn leave(&mut self, now: Now) {
        self.leaving = true;
        match &mut self.duty {
            Duty::Front(front) => front.leave(),
            Duty::Order(order, replica, _) => {
                order.leave();
                replica.handle(now, pygmy_ring::Input::Leave);
            }
            Duty::Catalog(_, replica, ..) => replica.handle(now, pygmy_ring::Input::Leave),
        }
    }

    /// Another log has taken this one's place for good: there is nothing left to do here.
    fn leave_if_removed(&mut self, now: Now) {
        let removed = self.duty.replica().is_some_and(|replica| replica.is_removed(self.settings.log_uuid));
        if removed && !self.leaving {
            log::warn!("this log was replaced and is no longer part of the cluster: the process leaves");
            self.leave(now);
        }
    }

    /// Gives the ring an input, if this node is a log replica.
    fn ring(&mut self, now: Now, input: pygmy_ring::Input) {
        if let Some(replica) = self.duty.replica_mut() {
            replica.handle(now, input);
        }
    }

    fn on_transferred(&mut self, now: Now, done: Done, out: &mut Outbox) {
        let (mut ctx, duty) = self.parts(now, out);
        if let Some(replica) = duty.replica_mut() {
            replica.on_transferred(&mut ctx, done);
        }
    }

    fn on_snapshot_taken(&mut self, seq: u64, bytes: u64, cut_below: Option<u64>, out: &mut Outbox) {
        log::info!("a snapshot of seq {seq} was taken, {bytes} bytes without the ledger");
        if let Some(replica) = self.duty.replica_mut() {
            replica.on_snapshot_taken(bytes);
        }
        if let Some(below) = cut_below {
            out.push(Output::CutLog { below });
        }
    }

    fn on_snapshot_failed(&mut self, now: Now, error: BuildError, out: &mut Outbox) {
        log::error!("{error}");
        if let Some(replica) = self.duty.replica_mut() {
            replica.on_snapshot_failed(now);
        }
        if let BuildError::Fatal(why) = error {
            out.push(Output::Fatal { why });
        }
    }

    fn has_left(&self) -> bool {
        match &self.duty {
            Duty::Front(front) => front.in_flight() == 0,
            Duty::Order(order, replica, reads) => {
                order.in_flight() == 0 && reads.waiting() == 0 && replica.ring().has_left()
            }
            Duty::Catalog(catalog, replica, reads, _) => {
                catalog.in_flight() == 0 && reads.waiting() == 0 && replica.ring().has_left()
            }
        }
    }

    /// How this node is.
    pub fn status(&self, now: Now) -> StatusOk {
        let links = self.directory.iter().map(|(node, up)| {
            let passed = match &self.duty {
                Duty::Front(front) => front.link_status(node, up, now.mono_ns),
                Duty::Order(order, ..) => order.link_status(node, up, now.mono_ns),
                Duty::Catalog(..) => None,
            };
            passed.unwrap_or(LinkStatus { node, up, in_flight: 0, share: Share::None, moved: 0 })
        });
        let (jobs, answered) = match &self.duty {
            Duty::Front(front) => (front.in_flight(), front.answered()),
            Duty::Order(order, _, reads) => (order.in_flight() + reads.waiting(), order.answered() + reads.answered()),
            Duty::Catalog(catalog, _, reads, _) => {
                (catalog.in_flight() + reads.waiting(), catalog.answered() + reads.answered())
            }
        };
        StatusOk {
            node: self.settings.me,
            name: Name::truncated(&self.settings.own().name),
            role: self.settings.own().role,
            uptime_ms: now.mono_ns.saturating_sub(self.started_ns) / 1_000_000,
            clients: self.clients,
            jobs: jobs as u32,
            answered,
            links: Bounded::truncated(links.collect()),
            peers: Bounded::truncated(self.peer_statuses(now)),
            replica: self.duty.replica().map(StoreReplica::status),
            front: self.front_status(now),
            io: self.io,
        }
    }

    /// What a front keeps, and how its reads were answered.
    pub fn front_status(&self, now: Now) -> Option<FrontStatus> {
        self.duty.front().map(|front| front.status(now.mono_ns))
    }
}

/// What both kinds of replicas take from other servers: reads of fronts, and the ring.
fn on_read_or_ring_frame(
    ctx: &mut Ctx<'_>,
    conn: ConnId,
    node: u16,
    frame: &Frame<'_>,
    replica: &mut StoreReplica,
    reads: &mut Reads,
) -> Result<bool, pygmy_proto::codec::BodyError> {
    if let Some(read) = Read::parse(frame) {
        if replica.ring().lags() {
            // A front has other replicas to ask. Whoever asks this one itself means this one.
            ctx.out.send_error(conn, frame.header.request_id, ctx.me, &lagging(ctx.name));
        } else {
            reads.on_read(ctx, conn, frame, read, replica);
        }
        return Ok(true);
    }
    replica.on_frame(ctx, node, frame)
}

impl Machine for Node {
    fn note_io(&mut self, io: IoStatus) {
        self.io = io;
    }

    fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Outbox) {
        self.tick(now);
        match input {
            Input::Accepted { conn } => {
                self.conns.insert(conn, Conn::Greeted);
            }
            Input::Opened { conn, node } => self.greet(conn, node, out),
            Input::Frame { conn, frame } => self.on_frame(now, conn, &frame, out),
            Input::BadFrame { conn, error } => self.on_bad_frame(now, conn, error, out),
            Input::Closed { conn, .. } => self.forget(now, conn, out),
            Input::Datagram { bytes } => self.on_datagram(now, bytes, out),
            Input::Durable { epoch, seq, hash } => self.ring(now, pygmy_ring::Input::Durable { epoch, seq, hash }),
            Input::VoteDurable(vote) => self.ring(now, pygmy_ring::Input::VoteDurable(vote)),
            Input::DiskFull(full) => self.ring(now, pygmy_ring::Input::DiskFull(full)),
            Input::LogRead { node, batches } => self.ring(now, pygmy_ring::Input::LogRead { node, batches }),
            Input::SnapshotTaken { seq, bytes, cut_below } => self.on_snapshot_taken(seq, bytes, cut_below, out),
            Input::Transferred(done) => self.on_transferred(now, done, out),
            Input::SnapshotFailed(error) => self.on_snapshot_failed(now, error, out),
            Input::Leave => self.leave(now),
        }
    }

    fn end_turn(&mut self, now: Now, out: &mut Outbox) {
        self.tick(now);
        let (mut ctx, duty) = self.parts(now, out);
        if let Some(replica) = duty.replica_mut() {
            replica.end_turn(&mut ctx);
        }
        // Who serves is known before requests are given out.
        self.follow_membership(out);
        self.judge_peers(now, out);
        let (mut ctx, duty) = self.parts(now, out);
        match duty {
            Duty::Front(front) => front.end_turn(&mut ctx),
            Duty::Order(order, replica, reads) => {
                reads.on_turn(&mut ctx, replica);
                order.spare_catalogs(|node| replica.ring().is_lagging(node));
                order.end_turn(&mut ctx);
            }
            Duty::Catalog(catalog, replica, reads, feed) => {
                // Before all else that is sent of this turn: a front that hears of a position has been told what changed.
                let touched = replica.take_changes();
                feed.on_turn(&mut ctx, replica.applied(), touched, replica.store());
                let settled = replica.take_settled();
                catalog.settle(&mut ctx, settled);
                reads.on_turn(&mut ctx, replica);
            }
        }
        self.send_beat(now, out);
        self.leave_if_removed(now);
        if self.leaving && !self.left && self.has_left() {
            self.left = true;
            out.push(Output::Left);
        }
    }

    fn next_timeout(&self) -> Option<u64> {
        let both = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let duty = match &self.duty {
            Duty::Front(front) => front.next_timeout(),
            Duty::Order(order, replica, reads) => {
                both(order.next_timeout(), both(replica.next_timeout(), reads.next_timeout()))
            }
            Duty::Catalog(_, replica, reads, _) => both(replica.next_timeout(), reads.next_timeout()),
        };
        both(duty, self.next_beat_timeout())
    }

    fn on_timeout(&mut self, now: Now, out: &mut Outbox) {
        self.tick(now);
        self.on_beat_timeout(now);
        let (mut ctx, duty) = self.parts(now, out);
        match duty {
            Duty::Front(front) => front.on_timeout(&mut ctx),
            Duty::Order(order, replica, reads) => {
                order.on_timeout(&mut ctx);
                replica.on_timeout(now);
                reads.on_timeout(&mut ctx, replica.applied());
            }
            Duty::Catalog(_, replica, reads, _) => {
                replica.on_timeout(now);
                reads.on_timeout(&mut ctx, replica.applied());
            }
        }
    }
}
