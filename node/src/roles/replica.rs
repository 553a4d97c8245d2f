//! What order and catalog servers have in common: the log replica over the store.

use bytes::{Bytes, BytesMut};
use pygmy_proto::frame::{self, Frame};
use pygmy_proto::limits::{ADDRESS_LEN_MAX, REPLICAS_MAX};
use pygmy_proto::message::{Membership, ReplicaBeat, ReplicaHello, ReplicaStatus, Role, Voter};
use pygmy_proto::types::{Bounded, Text};
use pygmy_proto::{Kind, Message, codec};
use pygmy_ring::replica::Completion;
use pygmy_ring::{Config, ConfigError, Input, Limits, NotTaken, Notice, PeerMessage, Recovered, Replica, Target};

use super::Ctx;
use super::snapshots::SnapshotPlan;
use super::transfer::receiver::Action;
use super::transfer::{Receiver, Sender, View};
use crate::machine::{Now, Output};
use crate::settings::{Settings, SnapshotPolicy, TokenMode};
use crate::snapshot::Loaded;
use crate::snapshot::transfer::{Done, Failure, Job};
use crate::store::{Store, Touched};

/// What became of a proposal.
#[derive(Debug)]
pub enum Settled {
    /// It was applied.
    Done(Completion),
    /// It was handed back.
    Refused {
        /// The proposer's number.
        ticket: u64,
        /// Why.
        why: NotTaken,
    },
    /// It was numbered, and whether it takes effect is not known here.
    Unknown {
        /// The proposer's number.
        ticket: u64,
    },
}

/// A ring replica over the store, its frames and its log.
#[derive(Debug)]
pub struct StoreReplica {
    ring: Replica<Store>,
    settled: Vec<Settled>,
    beat: Option<ReplicaBeat>,
    notices: Vec<Notice>,
    /// The latest barrier that was answered: its ticket, and the position.
    fresh: Option<(u64, u64)>,
    /// Whether changes of the store are noted for a feed.
    feeds: bool,
    /// `None`: this replica has nowhere to keep snapshots.
    snapshots: Option<SnapshotPlan>,
    receiver: Receiver,
    sender: Sender,
    /// Where this process listens.
    address: Text<ADDRESS_LEN_MAX>,
}

fn ring_config(settings: &Settings) -> Config {
    let replicas = || settings.cluster.replicas();
    let is_catalog = settings.own().role == Role::Catalog;
    let mut catalogs: Vec<u16> = replicas().filter(|node| node.role == Role::Catalog).map(|node| node.number).collect();
    if is_catalog && !catalogs.contains(&settings.me) {
        catalogs.push(settings.me);
    }
    // The configuration at birth: who has come since stands in the log.
    let voters = replicas().map(|node| Voter {
        node: node.slot(),
        log_uuid: node.log_uuid,
        holds_token: node.role == Role::Catalog,
        address: Text::default(),
    });
    Config {
        me: settings.me,
        log_uuid: settings.log_uuid,
        boot_nonce: settings.boot_nonce,
        catalogs,
        peers: replicas().map(|node| node.number).filter(|number| *number != settings.me).collect(),
        membership: Membership { id: 1, voters: Bounded::truncated(voters.collect()), ..Membership::default() },
        rotate: settings.cluster.token == TokenMode::Rotate,
        limits: Limits::default(),
        mistake: None,
    }
}

fn ring_now(now: Now) -> pygmy_ring::Now {
    pygmy_ring::Now { mono_ns: now.mono_ns, wall_us: now.wall_us }
}

impl StoreReplica {
    /// A replica over what its files hold, or an empty one.
    ///
    /// # Errors
    /// When the cluster's settings make no ring.
    pub fn open(settings: &Settings, now: Now, recovered: Recovered<Store>) -> Result<Self, ConfigError> {
        Self::from_config(settings, ring_config(settings), now, recovered)
    }

    /// One that makes a known mistake, to prove that the checkers find it.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[cfg(feature = "mistakes")]
    pub fn with_mistake(
        settings: &Settings,
        now: Now,
        recovered: Recovered<Store>,
        mistake: pygmy_ring::Mistake,
    ) -> Result<Self, ConfigError> {
        let config = Config { mistake: Some(mistake), ..ring_config(settings) };
        Self::from_config(settings, config, now, recovered)
    }

    fn from_config(
        settings: &Settings,
        config: Config,
        now: Now,
        recovered: Recovered<Store>,
    ) -> Result<Self, ConfigError> {
        let ring = Replica::open(config, ring_now(now), recovered)?;
        Ok(Self {
            ring,
            settled: Vec::new(),
            beat: None,
            notices: Vec::new(),
            fresh: None,
            feeds: false,
            snapshots: None,
            receiver: Receiver::default(),
            sender: Sender::default(),
            address: Text::truncated(&settings.address),
        })
    }

    /// Bounds of its ring other than the usual ones, before its first turn.
    pub fn limit(&mut self, limits: Limits) {
        self.ring.limit(limits);
    }

    /// Snapshots are kept from now on.
    pub fn keep_snapshots(&mut self, policy: SnapshotPolicy) {
        self.snapshots = Some(SnapshotPlan::new(policy));
    }

    /// Changes of the store are noted from now on.
    pub fn feed(&mut self) {
        self.feeds = true;
        self.ring.machine_mut().track_changes();
    }

    /// What has changed in the store since the last call, if that is noted.
    pub fn take_changes(&mut self) -> Option<Touched> {
        self.ring.machine_mut().take_changes()
    }

    /// The snapshot that was ordered was taken.
    pub fn on_snapshot_taken(&mut self, bytes: u64) {
        if let Some(plan) = &mut self.snapshots {
            plan.on_taken(bytes);
        }
    }

    /// The snapshot that was ordered was not taken.
    pub fn on_snapshot_failed(&mut self, now: Now) {
        if let Some(plan) = &mut self.snapshots {
            plan.on_failed(now);
        }
    }

    /// The replicated state.
    pub fn store(&self) -> &Store {
        self.ring.machine()
    }
    /// The replica itself, to look at.
    pub fn ring(&self) -> &Replica<Store> {
        &self.ring
    }
    /// Applied up to.
    pub fn applied(&self) -> u64 {
        self.ring.applied()
    }
    /// What it says of itself in a handshake with `node`.
    pub fn hello(&self, node: u16) -> ReplicaHello {
        ReplicaHello { address: self.address.clone(), ..self.ring.hello(node) }
    }
    /// The latest configuration that is known to be committed.
    pub fn settled_membership(&self) -> &Membership {
        self.ring.settled_membership()
    }
    /// Whether the log of the process with this number votes, or is about to.
    pub fn has_voter(&self, node: u16) -> bool {
        let membership = self.ring.membership();
        let comes = membership.swap.as_ref().is_some_and(|swap| swap.new.node == node);
        comes || membership.voters.iter().any(|voter| voter.node == node)
    }
    /// Whether the log with this identity was removed from the cluster for ever.
    pub fn is_removed(&self, log_uuid: [u8; 16]) -> bool {
        self.ring.is_removed(log_uuid)
    }
    /// The heartbeat that is due, if one is.
    pub fn take_beat(&mut self) -> Option<ReplicaBeat> {
        self.beat.take()
    }
    /// What a heartbeat says at this moment.
    pub fn beat_now(&self) -> ReplicaBeat {
        let beat = self.ring.beat_now();
        ReplicaBeat { fetched: beat.fetched + self.receiver.received(), ..beat }
    }
    /// What the ring's failure detector has said since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The highest ticket of the barriers that were answered since the last call, and the position that it asked for.
    pub fn take_fresh(&mut self) -> Option<(u64, u64)> {
        self.fresh.take()
    }

    /// A frame from another replica, of the ring or of a transfer. False when its kind is neither's.
    ///
    /// # Errors
    /// When the body is not what its kind says.
    pub fn on_frame(&mut self, ctx: &mut Ctx<'_>, node: u16, frame: &Frame<'_>) -> Result<bool, codec::BodyError> {
        let now_ns = ctx.now.mono_ns;
        match frame.kind() {
            Some(Kind::SnapshotFetch) => {
                if let Err(refused) = self.sender.on_fetch(node, frame.decode()?) {
                    send_to(ctx, node, &refused);
                }
            }
            Some(Kind::SnapshotPart) => self.receiver.on_part(now_ns, node, frame.decode()?),
            Some(Kind::SnapshotRefused) => self.receiver.on_refused(now_ns, node, frame.decode()?),
            _ => return self.on_ring_frame(ctx.now, node, frame),
        }
        Ok(true)
    }

    fn on_ring_frame(&mut self, now: Now, node: u16, frame: &Frame<'_>) -> Result<bool, codec::BodyError> {
        let message = match frame.kind() {
            Some(Kind::Data) => PeerMessage::Data(frame.decode()?),
            Some(Kind::Token) => PeerMessage::Token(frame.decode()?),
            Some(Kind::Want) => PeerMessage::Want(frame.decode()?),
            Some(Kind::Ack) => PeerMessage::Ack(frame.decode()?),
            Some(Kind::Commit) => PeerMessage::Commit(frame.decode()?),
            Some(Kind::Fetch) => PeerMessage::Fetch(frame.decode()?),
            Some(Kind::FetchRefused) => PeerMessage::FetchRefused(frame.decode()?),
            Some(Kind::PreVote) => PeerMessage::PreVote(frame.decode()?),
            Some(Kind::PreVoteAnswer) => PeerMessage::PreVoteAnswer(frame.decode()?),
            Some(Kind::Prepare) => PeerMessage::Prepare(frame.decode()?),
            Some(Kind::Promise) => PeerMessage::Promise(frame.decode()?),
            Some(Kind::Install) => PeerMessage::Install(frame.decode()?),
            Some(Kind::Reject) => PeerMessage::Reject(frame.decode()?),
            Some(Kind::Barrier) => PeerMessage::Barrier(frame.decode()?),
            Some(Kind::BarrierAnswer) => PeerMessage::BarrierAnswer(frame.decode()?),
            _ => return Ok(false),
        };
        self.handle(now, Input::Message { node, message });
        Ok(true)
    }

    /// Any other input of the ring.
    pub fn handle(&mut self, now: Now, input: Input) {
        match &input {
            Input::PeerUp { node, .. } => self.receiver.on_link_up(*node),
            Input::PeerDown { node } => self.sender.on_link_down(*node),
            _ => {}
        }
        self.ring.handle(ring_now(now), input);
    }

    /// What became of work with the files of snapshots.
    pub fn on_transferred(&mut self, ctx: &mut Ctx<'_>, done: Done) {
        let now_ns = ctx.now.mono_ns;
        match done {
            Done::Read { node, answer } => {
                self.sender.on_read();
                match answer {
                    Ok(part) => send_to(ctx, node, &part),
                    Err(refused) => send_to(ctx, node, &refused),
                }
            }
            Done::Begun { number, wanted } => self.receiver.on_begun(number, &wanted),
            Done::Written { number } => self.receiver.on_written(number),
            Done::Failed { failure: Failure::Fatal(why), .. } => ctx.out.push(Output::Fatal { why }),
            Done::Failed { number, failure } => self.receiver.on_failed(now_ns, number, &failure),
            Done::Loaded { number, loaded } => {
                if self.receiver.on_loaded(number) {
                    self.install(ctx, *loaded);
                }
            }
        }
    }

    /// Takes a snapshot's state in place of the own one. It is this replica's newest on the disk already, so that from
    /// here on nothing can be forgotten: what was submitted to the log before is below it, and what comes now goes
    /// behind it.
    fn install(&mut self, ctx: &mut Ctx<'_>, loaded: Loaded) {
        self.pass_on(ctx);
        let Loaded { info, checkpoint, store, sessions } = loaded;
        let (seq, before) = (info.seq(), self.ring.log().last_seq());
        if !self.ring.install_snapshot(ring_now(ctx.now), store, sessions, checkpoint) {
            log::info!("the snapshot of seq {seq} is of no use any more: the log here goes up to {before}");
            return;
        }
        log::info!("a snapshot of seq {seq} was installed; the log went up to {before}");
        if self.feeds {
            self.ring.machine_mut().track_changes();
        }
        ctx.out.push(Output::RestartLog { epoch: self.ring.promised(), mark: info.mark });
        if let Some(plan) = &mut self.snapshots {
            plan.on_installed(info.bytes(), self.ring.counters().bytes_applied);
        }
    }

    /// Does what is due for snapshots on their way.
    fn drive_transfers(&mut self, ctx: &mut Ctx<'_>) {
        if let Some((node, fetch)) = self.sender.next_read() {
            ctx.out.push(Output::Transfer(Job::Read { node, fetch }));
        }
        if self.receiver.is_idle() {
            return;
        }
        let peers: Vec<u16> = ctx.links.replica_nodes().collect();
        let view = View {
            now_ns: ctx.now.mono_ns,
            last_seq: self.ring.log().last_seq(),
            promised: self.ring.promised(),
            holder: self.ring.holder(),
            peers: &peers,
        };
        self.receiver.drive(&view);
        for action in self.receiver.take_actions() {
            match action {
                Action::Ask { node, fetch } => send_to(ctx, node, &fetch),
                Action::Do(job) => ctx.out.push(Output::Transfer(job)),
            }
        }
    }

    /// Ends a turn of the ring and passes on what it wants done; what became of proposals is kept for
    /// [`Self::take_settled`].
    pub fn end_turn(&mut self, ctx: &mut Ctx<'_>) {
        self.ring.end_turn(ring_now(ctx.now));
        self.pass_on(ctx);
        self.drive_transfers(ctx);
        if let Some(order) = self.snapshots.as_mut().and_then(|plan| plan.poll(ctx.now, &self.ring)) {
            ctx.out.push(Output::TakeSnapshot(order));
        }
    }

    /// Passes on what the ring wants done so far. Must be called before and after a link comes or goes: what was meant
    /// for the process at the old link's end is not for the one at the new link's.
    pub fn pass_on(&mut self, ctx: &mut Ctx<'_>) {
        let last_seq = self.ring.log().last_seq();
        for output in self.ring.drain_outputs() {
            match output {
                pygmy_ring::Output::Send { to, message } => send(ctx, to, &message),
                pygmy_ring::Output::Append { epoch, batch } => ctx.out.push(Output::Append { epoch, batch }),
                pygmy_ring::Output::Vote(vote) => ctx.out.push(Output::Vote(vote)),
                pygmy_ring::Output::Beat(beat) => {
                    let fetched = beat.fetched + self.receiver.received();
                    self.beat = Some(ReplicaBeat { fetched, ..beat });
                }
                pygmy_ring::Output::Notice(notice) => self.notices.push(notice),
                pygmy_ring::Output::ReadLog { node, from_seq, upto } => {
                    ctx.out.push(Output::ReadLog { node, from_seq, upto });
                }
                pygmy_ring::Output::NeedSnapshot { node } => {
                    log::info!("what follows seq {last_seq} is no longer in any log here: a snapshot is needed");
                    self.receiver.need(ctx.now.mono_ns, node, last_seq);
                }
                // The latest speaks for those before, and all that is applied by the end of the turn is as fresh.
                pygmy_ring::Output::Fresh { ticket, seq } => self.fresh = Some((ticket, seq)),
                pygmy_ring::Output::Unknown { ticket } => self.settled.push(Settled::Unknown { ticket }),
                pygmy_ring::Output::Done(completion) => self.settled.push(Settled::Done(completion)),
                pygmy_ring::Output::Refused { ticket, why } => self.settled.push(Settled::Refused { ticket, why }),
                pygmy_ring::Output::Fatal(why) => ctx.out.push(Output::Fatal { why }),
            }
        }
    }

    /// What became of proposals since the last call.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// When [`Self::on_timeout`] must be called next.
    pub fn next_timeout(&self) -> Option<u64> {
        self.ring.next_timeout().into_iter().chain(self.receiver.next_timeout()).min()
    }

    /// Fires the ring's timers.
    pub fn on_timeout(&mut self, now: Now) {
        self.ring.on_timeout(ring_now(now));
    }

    /// How it is.
    pub fn status(&self) -> ReplicaStatus {
        let ring = self.ring.status();
        ReplicaStatus {
            voter: ring.voter && !ring.withheld,
            voters: ring.voters,
            config_id: ring.config_id,
            swap: ring.swap,
            epoch: ring.epoch,
            holder: ring.holder,
            hop: ring.hop,
            last_seq: ring.last_seq,
            durable: ring.durable,
            committed: ring.committed,
            applied: ring.applied,
            state_hash: ring.state_hash,
            books: self.store().catalog().len() as u64,
            orders: self.store().ledger().len() as u64,
            sessions: ring.sessions,
            members: Bounded::<_, REPLICAS_MAX>::truncated(ring.members),
        }
    }
}

/// Sends a frame to one replica, if its link is up.
fn send_to<M: Message>(ctx: &mut Ctx<'_>, node: u16, message: &M) {
    if let Some(conn) = ctx.links.get(node) {
        ctx.out.send(conn, 0, 0, 0, message);
    }
}

/// Sends a ring frame. A frame for all is encoded once and its bytes shared by all connections. Links to fronts are
/// left out: the ring has nothing to tell them.
fn send(ctx: &mut Ctx<'_>, to: Target, message: &PeerMessage) {
    let bytes = encode(message);
    match to {
        Target::Node(node) => {
            if let Some(conn) = ctx.links.get(node) {
                ctx.out.push(Output::Shared { conn, bytes });
            }
        }
        Target::All => {
            for conn in ctx.links.replicas() {
                ctx.out.push(Output::Shared { conn, bytes: bytes.clone() });
            }
        }
    }
}

fn encode(message: &PeerMessage) -> Bytes {
    let mut out = BytesMut::new();
    match message {
        PeerMessage::Data(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Token(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Want(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Ack(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Commit(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Fetch(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::FetchRefused(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::PreVote(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::PreVoteAnswer(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Prepare(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Promise(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Install(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Reject(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::Barrier(m) => frame::write(&mut out, 0, 0, 0, m),
        PeerMessage::BarrierAnswer(m) => frame::write(&mut out, 0, 0, 0, m),
    }
    out.freeze()
}
