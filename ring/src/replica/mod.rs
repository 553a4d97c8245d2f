//! One log replica: the state, its inputs and outputs, and the turn.
//!
//! Seams: [`order`] has the token and the numbering, [`append`] the log and its gaps, [`commit`] the acknowledgements,
//! the commit and the application; [`watch`] has heartbeats and suspicion, [`campaign`] the asker's side of an epoch
//! change, [`install`] everybody else's; [`members`] has who counts, [`barrier`] what makes reads fresh, [`snapshot`] what
//! a copy of the state is a copy of, and how one takes the place of the own state.

mod api;
mod append;
mod barrier;
mod campaign;
mod commit;
mod install;
mod lag;
mod members;
mod order;
mod snapshot;
mod watch;

use std::collections::{BTreeMap, VecDeque};

use pygmy_proto::batch::Batch;
use pygmy_proto::limits::ADDRESS_LEN_MAX;
use pygmy_proto::message::{Acked, Epoch, LogEnd, Membership, Reject, ReplicaHello, Token, Want};
use pygmy_proto::types::Text;

pub use self::api::*;
use self::barrier::Barriers;
use self::campaign::Campaign;
use self::install::Adoption;
use self::lag::Lag;
use self::watch::Watch;
use crate::StateMachine;
use crate::config::{Config, ConfigError, LogUuid, Mistake};
use crate::detector::{Detector, Notice};
use crate::log::Log;
use crate::sessions::Sessions;
use crate::state::State;
use crate::timer::{Timer, TimerTable};

/// What a replica knows of another one.
#[derive(Debug, Default)]
struct Peer {
    up: bool,
    log_uuid: LogUuid,
    boot_nonce: u64,
    /// Where it listens, by its own word.
    address: Text<ADDRESS_LEN_MAX>,
    /// End of its log as last heard; where to fetch from.
    last: LogEnd,
    /// What it has promised, as last heard.
    promised: Epoch,
    /// Durable there in the epoch promised here, compared with this replica's own log.
    durable: u64,
    /// Acknowledged, but beyond what can be compared yet.
    unverified: Option<(u64, u128)>,
    want: u64,
    /// Highest commit it was told of on this link.
    told: u64,
    /// First position that it could not give, when it was asked last.
    refused_fetch: Option<u64>,
    /// Id of the latest configuration in its log, as last heard.
    config_id: u64,
    /// Its own word that its vote does not count.
    withheld: bool,
    /// When a frame or a heartbeat of it came last.
    heard_ns: u64,
    /// Whether it hears a majority of the voters.
    hears_majority: bool,
    /// Since when it has been well, if it is, and how long it must be before it gets the token again.
    well_since_ns: Option<u64>,
    penalty_ns: u64,
    /// Bytes that it has fetched, by its own word.
    fetched: u64,
    /// Whether it has so much to apply that it should not have the token.
    lags: bool,
    /// When the epoch was explained to it last.
    explained_ns: u64,
}

/// A vote that does not count for the time being.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Withheld {
    /// Until this log reaches all that it once acknowledged. None of these is behind another in both epoch and position:
    /// an end is told with the epoch of its entry by the disk, and with the epoch in which it was acknowledged by a peer.
    until: Vec<LogEnd>,
    /// or has installed an epoch above this one, which then began without its promise.
    promised: Epoch,
}

/// The copy that the passer of the token keeps until it sees it taken.
#[derive(Debug)]
struct Passed {
    to: u16,
    boot_nonce: u64,
    token: Token,
    at_ns: u64,
}

/// A write waiting to be numbered.
#[derive(Debug)]
struct Pending {
    proposal: Proposal,
    since_ns: u64,
}

/// A write of this origin that is numbered and not applied.
#[derive(Debug)]
struct Ticket {
    seq: u64,
    ticket: u64,
    waited_ns: u64,
}

/// A batch of this origin that is not applied.
#[derive(Debug)]
struct OwnBatch {
    last_seq: u64,
    bytes: usize,
    numbered_ns: u64,
    durable_ns: Option<u64>,
    committed_ns: Option<u64>,
}

/// One log replica over a state machine.
pub struct Replica<S> {
    config: Config,
    /// As of `applied`.
    state: State<S>,
    /// The time of the last input.
    now_ns: u64,
    /// The highest epoch answered for. What bears an older one is refused.
    promised: Epoch,
    /// What the vote file is known to hold, and what it was told to hold last.
    vote: Vote,
    vote_asked: Vote,
    log: Log,
    /// Configurations in the log by position, latest last. The first is in force at `committed`.
    memberships: VecDeque<(u64, Membership)>,
    /// The log replicas that may hold the token, in ring order, as of the latest of them.
    catalogs: Vec<u16>,
    withheld: Option<Withheld>,
    /// What of this log is on the disk, whatever epoch it was appended in.
    on_disk: u64,
    // Invariant: applied ≤ committed ≤ log.last_seq(), durable ≤ log.last_seq().
    /// What of this log is durable and may be acknowledged: appended in the installed epoch.
    durable: u64,
    committed: u64,
    applied: u64,
    /// Committed somewhere; this log may not reach it yet.
    known_committed: u64,
    /// The token, while this replica holds it.
    token: Option<Token>,
    passed: Option<Passed>,
    /// Hop of the last token of this epoch that this process received.
    token_hop_received: u64,
    /// Highest hop of this epoch seen claimed, and by whom; node 0: none.
    holder: (u64, u16),
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    changes: VecDeque<(u64, Change)>,
    /// Number of this boot's latest want, and whether it is still to be served.
    want: u64,
    wanting: bool,
    tickets: VecDeque<Ticket>,
    own: VecDeque<OwnBatch>,
    own_bytes: usize,
    /// Last position and origin of appended batches that are not committed.
    origins: VecDeque<(u64, u16)>,
    peers: BTreeMap<u16, Peer>,
    /// The highest end that each log was ever heard to acknowledge.
    acked: BTreeMap<LogUuid, LogEnd>,
    /// Batches that came before those in front of them, by first seq.
    early: BTreeMap<u64, Batch>,
    early_bytes: usize,
    /// Highest position known to exist anywhere.
    known_end: u64,
    fetching_from: Option<u16>,
    /// Bytes by which the answer to the fetch under way has extended the log.
    fetched_bytes: usize,
    /// Bytes fetched since the start.
    fetched_total: u64,
    /// State hashes at multiples of [`CHECK_EVERY`], latest last.
    checks: VecDeque<(u64, u64)>,
    lag: Lag,
    watch: Watch,
    /// Which of the other replicas live.
    detector: Detector,
    /// What it has said in this turn.
    notices: Vec<Notice>,
    campaign: Campaign,
    adoption: Option<Adoption>,
    /// Whom a promise is owed once it is durable, and its boot nonce.
    owed: Option<(u16, u64)>,
    barriers: Barriers,
    disk_full: bool,
    leaving: bool,
    /// A rotating token has rested here for its pause and may go on.
    rotation_rested: bool,
    timers: TimerTable,
    counters: Counters,
    outputs: Vec<Output>,
}

/// State hashes are compared at multiples of this position.
pub const CHECK_EVERY: u64 = 1_024;
/// How many of them are kept.
const CHECKS_KEPT: usize = 64;
/// A gap older than this is fetched.
const GAP_NS: u64 = 2_000_000;
/// An unanswered fetch is repeated, at another peer, after this.
const FETCH_AGAIN_NS: u64 = 50_000_000;
/// What all peers have refused is asked for again after this.
const REFUSED_AGAIN_NS: u64 = 500_000_000;
/// Peers that have not been told of a commit by any other frame are told after this.
const COMMIT_NOTICE_NS: u64 = 1_000_000;
/// Un-numbered writes are handed back when the token has not come after this.
const UNSERVED_NS: u64 = 200_000_000;
/// An idle rotating token is passed on after this.
const ROTATE_NS: u64 = 1_000_000;

impl<S: StateMachine> Replica<S> {
    /// A replica over what its files hold, or over a new log. No token is born here: an epoch brings one.
    ///
    /// # Errors
    /// When the configuration cannot work.
    pub fn open(config: Config, now: Now, recovered: Recovered<S>) -> Result<Self, ConfigError> {
        config.validate()?;
        let Recovered { vote, machine, sessions, base, boundaries, membership, batches, damaged } = recovered;
        let others = config.peers.iter().filter(|node| **node != config.me);
        let peers = others.map(|node| (*node, Peer::default())).collect();
        let birth = membership.unwrap_or_else(|| config.membership.clone());
        let mut replica = Self {
            state: State::new(machine, sessions).with_mistake(config.mistake),
            now_ns: now.mono_ns,
            promised: vote.promised,
            vote,
            vote_asked: vote,
            log: Log::behind(base, &boundaries),
            memberships: VecDeque::from([(base.end.seq, birth)]),
            catalogs: Vec::new(),
            withheld: None,
            on_disk: 0,
            durable: 0,
            committed: base.end.seq,
            applied: base.end.seq,
            known_committed: base.end.seq,
            token: None,
            passed: None,
            token_hop_received: 0,
            holder: (0, 0),
            pending: VecDeque::new(),
            pending_bytes: 0,
            changes: VecDeque::new(),
            want: 0,
            wanting: false,
            tickets: VecDeque::new(),
            own: VecDeque::new(),
            own_bytes: 0,
            origins: VecDeque::new(),
            peers,
            acked: BTreeMap::new(),
            early: BTreeMap::new(),
            early_bytes: 0,
            known_end: 0,
            fetching_from: None,
            fetched_bytes: 0,
            fetched_total: 0,
            checks: VecDeque::new(),
            lag: Lag::default(),
            watch: Watch::new(now.mono_ns),
            detector: Detector::new().with_mistake(config.mistake),
            notices: Vec::new(),
            campaign: Campaign::new(config.boot_nonce),
            adoption: None,
            owed: None,
            barriers: Barriers::default(),
            disk_full: false,
            leaving: false,
            rotation_rested: false,
            timers: TimerTable::default(),
            counters: Counters::default(),
            outputs: Vec::new(),
            config,
        };
        for batch in batches {
            if !replica.log.continues(&batch) {
                return Err(ConfigError::BrokenLog(batch.header().first_seq));
            }
            replica.take_into_log(batch);
        }
        replica.peers.keys().for_each(|node| replica.detector.meet(*node));
        replica.renew_catalogs();
        replica.begin(now, damaged);
        Ok(replica)
    }

    /// What follows from the log that was found.
    fn begin(&mut self, now: Now, damaged: Option<LogEnd>) {
        let last = self.log.end();
        self.on_disk = last.seq;
        self.known_end = last.seq;
        // Both are durable, and an epoch that is in the log was answered for, whatever the vote file says.
        self.promised = self.promised.max(last.epoch);
        if self.installed() {
            self.durable = last.seq;
        }
        if self.config.makes(Mistake::ResumeEpoch) && self.promised.node == self.config.me && self.installed() {
            self.remake_token();
        }
        // Where it is not known what was promised, no epoch is known to be beyond it.
        let promised = |until: LogEnd| if until.epoch.counter == u64::MAX { until.epoch } else { self.promised };
        self.withheld = damaged.map(|until| Withheld { until: vec![until], promised: promised(until) });
        self.watch.highest_epoch = self.promised;
        self.timers.set(Timer::Beat, now.mono_ns);
    }

    /// What this replica says of itself in a handshake with `node`.
    pub fn hello(&self, node: u16) -> ReplicaHello {
        let other = self.peers.get(&node).map(|peer| peer.log_uuid).unwrap_or_default();
        ReplicaHello {
            node: self.config.me,
            // Only whoever has the socket knows.
            address: Text::default(),
            log_uuid: self.config.log_uuid,
            boot_nonce: self.config.boot_nonce,
            config_id: self.membership().id,
            promised: self.promised,
            last: self.log.end(),
            committed: self.committed,
            token_hop: self.token_hop_received,
            want: if self.wanting && !self.config.makes(Mistake::ForgetWant) { self.want } else { 0 },
            acked: Acked { log_uuid: other, end: self.acked.get(&other).copied().unwrap_or_default() },
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.tick(now);
        match input {
            Input::PeerUp { node, hello } => self.on_peer_up(now, node, &hello),
            Input::PeerDown { node } => self.on_peer_down(now, node),
            Input::Message { node, message } => self.on_message(now, node, message),
            Input::Beat { node, number, beat } => self.on_beat(now, node, number, &beat),
            Input::Barrier { ticket } => self.on_fresh(ticket),
            Input::Propose(proposal) => self.on_propose(now, proposal),
            Input::Change { ticket, change } => self.on_change(ticket, change),
            Input::VoteDurable(vote) => self.on_vote_durable(now, vote),
            Input::LogRead { node, batches } => self.on_log_read(node, batches),
            Input::DiskFull(full) => self.disk_full = full,
            Input::Durable { epoch, seq, hash } => self.on_durable(now, epoch, seq, hash),
            Input::Leave => self.leaving = true,
        }
    }

    fn on_message(&mut self, now: Now, node: u16, message: PeerMessage) {
        let epoch = message.epoch();
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.up) else { return };
        peer.heard_ns = now.mono_ns;
        peer.promised = peer.promised.max(epoch);
        self.detector.hear_frame(now.mono_ns, node);
        self.watch.highest_epoch = self.watch.highest_epoch.max(epoch);
        match message {
            PeerMessage::PreVote(ask) => self.on_pre_vote(now, node, ask),
            PeerMessage::PreVoteAnswer(answer) => self.on_pre_vote_answer(now, node, answer),
            PeerMessage::Prepare(prepare) => self.on_prepare(now, node, &prepare),
            PeerMessage::Promise(promise) => self.on_promise(now, node, promise),
            PeerMessage::Install(install) => self.on_install(now, node, &install),
            PeerMessage::Reject(reject) => self.on_reject(now, node, reject),
            PeerMessage::Barrier(ask) => self.on_barrier(node, ask),
            PeerMessage::BarrierAnswer(answer) => self.on_barrier_answer(now, node, answer),
            _ if epoch < self.promised && !self.believes_old(&message) => self.reject(node, &message),
            // Whoever is in a newer epoch explains it to those that are not.
            _ if epoch > self.promised => {}
            PeerMessage::Data(data) => self.on_data(now, node, data),
            PeerMessage::Token(token) => self.on_token(now, node, token),
            PeerMessage::Want(want) => self.on_want(node, want),
            PeerMessage::Ack(ack) => self.on_ack(now, node, ack),
            PeerMessage::Commit(commit) => self.learn_commit(now, node, commit.committed),
            PeerMessage::Fetch(fetch) => self.on_fetch(node, fetch),
            PeerMessage::FetchRefused(refused) => self.on_fetch_refused(now, node, refused),
        }
    }

    fn believes_old(&self, message: &PeerMessage) -> bool {
        self.config.makes(Mistake::BelieveOldHolder) && matches!(message, PeerMessage::Data(_))
    }

    /// Tells the sender of what bears an old epoch that there is a newer one; only where it would go on for nothing.
    fn reject(&mut self, node: u16, message: &PeerMessage) {
        if matches!(message, PeerMessage::Data(_) | PeerMessage::Token(_) | PeerMessage::Fetch(_)) {
            self.send(Target::Node(node), PeerMessage::Reject(Reject { epoch: self.promised }));
        }
    }

    fn on_peer_up(&mut self, now: Now, node: u16, hello: &ReplicaHello) {
        self.meet(node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.boot_nonce != hello.boot_nonce || peer.log_uuid != hello.log_uuid {
            // Another process: nothing that was heard from the one before says anything about this one.
            *peer = Peer::default();
        }
        peer.up = true;
        peer.log_uuid = hello.log_uuid;
        peer.boot_nonce = hello.boot_nonce;
        peer.address = hello.address.clone();
        peer.last = hello.last;
        peer.config_id = hello.config_id;
        peer.promised = hello.promised;
        peer.want = peer.want.max(hello.want);
        peer.told = hello.committed;
        peer.refused_fetch = None;
        peer.heard_ns = now.mono_ns;
        peer.hears_majority = true;
        peer.well_since_ns = Some(now.mono_ns);
        self.detector.link_up(now.mono_ns, node, hello.boot_nonce);
        self.watch.highest_epoch = self.watch.highest_epoch.max(hello.promised);
        self.hear_committed(hello.committed);
        self.hear_applied(node, hello.committed, true);
        self.remember_own_acknowledgement(&hello.acked);
        self.explain_epoch(now, node);
        self.renew_campaign(node);
        if hello.promised == self.promised {
            self.meet_in_epoch(now, node, hello);
        } else if hello.promised > self.promised {
            self.note_refusal(node);
        }
    }

    /// Both ends of a new link are in the same epoch.
    fn meet_in_epoch(&mut self, now: Now, node: u16, hello: &ReplicaHello) {
        self.resend_token(node, hello);
        // A log that has not installed the epoch may have more than will be left of it.
        if hello.last.epoch == self.promised {
            self.note_end(now, hello.last.seq);
        }
        if hello.token_hop > 0 {
            self.note_hop(hello.token_hop, node);
        }
        self.learn_commit(now, node, hello.committed);
        self.greet(node, hello);
    }

    /// Tells a peer whose link has just come (back) what it may have missed: how far this log is durable, and where it
    /// ends. The handshake said so too, but what was ordered since went only to links that were up, and if nothing
    /// follows, nothing would ever show the gap.
    fn greet(&mut self, node: u16, hello: &ReplicaHello) {
        if self.installed() && self.log.last_seq() > hello.last.seq {
            self.send_last_batch(node);
        }
        if !self.config.makes(Mistake::NoAckOnReturn) {
            self.send_ack(node);
        }
        // The handshake's want may be older than this one, which went only to links that were up.
        if self.wanting && !self.config.makes(Mistake::ForgetWant) {
            let want = Want { epoch: self.promised, boot_nonce: self.config.boot_nonce, number: self.want };
            self.send(Target::Node(node), PeerMessage::Want(want));
        }
    }

    fn on_peer_down(&mut self, now: Now, node: u16) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.up = false;
        }
        self.detector.link_down(node);
        if self.fetching_from == Some(node) {
            self.fetching_from = None;
            self.timers.set(Timer::Gap, now.mono_ns);
        }
        self.lose_promise_of(now, node);
        // Should that process be gone, nobody else has counted what was acknowledged to it alone, nor will it tell
        // anyone of the commits it knew or send the batches it had begun to send.
        self.acknowledge_to_all();
        self.forget_removed();
    }

    /// Ends a turn: what was proposed is ordered, the token goes on, commits are applied.
    pub fn end_turn(&mut self, now: Now) {
        self.tick(now);
        self.judge_peers(now);
        let left = self.apply_committed(now, self.config.limits.applied_per_turn_max);
        self.judge_lag();
        self.drive_campaign(now);
        self.drive_token(now);
        // A lone replica commits what it has just ordered.
        self.apply_committed(now, left);
        self.drive_barriers(now);
        self.plan_notices(now);
        self.check_invariants();
    }

    /// When [`Self::on_timeout`] must be called next, in nanoseconds of the monotonic clock.
    pub fn next_timeout(&self) -> Option<u64> {
        self.timers.next().into_iter().chain(self.detector.next_timeout()).min()
    }

    /// Fires what is due. To be followed by [`Self::end_turn`].
    pub fn on_timeout(&mut self, now: Now) {
        self.tick(now);
        for timer in TimerTable::ALL {
            if !self.timers.take_due(timer, now.mono_ns) {
                continue;
            }
            match timer {
                Timer::Gap => self.on_gap_timer(now),
                Timer::CommitNotice => self.send_commit_notices(),
                Timer::Unserved => self.hand_back_all(NotTaken::Unserved),
                Timer::Beat => self.on_beat_timer(now),
                Timer::Barrier => self.ask_voters(now),
                // All done by the end of the turn that follows.
                Timer::Rotate | Timer::Apply | Timer::Campaign => {}
            }
        }
    }

    /// Takes what is to be done, in order.
    ///
    /// A frame is meant for the process that had the link when it was sent, so this is to be emptied before and after
    /// every [`Input::PeerUp`] and [`Input::PeerDown`], and after every turn.
    pub fn drain_outputs(&mut self) -> std::vec::Drain<'_, Output> {
        self.outputs.drain(..)
    }

    /// Whether a replica that was asked to leave may go: nothing of its own is in flight, the token is elsewhere.
    pub fn has_left(&self) -> bool {
        // A want that stands brings the token here even later: it would be sent to a process that is gone, and lost.
        let away = self.token.is_none() && !self.wanting;
        let done = self.pending.is_empty() && self.changes.is_empty() && self.tickets.is_empty();
        self.leaving && done && (away || !self.has_heir())
    }

    /// The state machine.
    pub fn machine(&self) -> &S {
        self.state.machine()
    }
    /// The state machine, for what it keeps beside the replicated state.
    pub fn machine_mut(&mut self) -> &mut S {
        self.state.machine_mut()
    }
    /// The session table.
    pub fn sessions(&self) -> &Sessions {
        self.state.sessions()
    }
    /// The log as kept in memory.
    pub fn log(&self) -> &Log {
        &self.log
    }
    /// Applied up to.
    pub fn applied(&self) -> u64 {
        self.applied
    }
    /// Up to where the log is on this replica's disk, whatever epoch it was appended in.
    pub fn on_disk(&self) -> u64 {
        self.on_disk
    }
    /// Committed up to, as far as this replica knows.
    pub fn committed(&self) -> u64 {
        self.committed
    }
    /// Writes proposed here and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.pending.len() + self.tickets.len()
    }
    /// The token, while this replica holds it.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }
    /// How full the queues are.
    pub fn queues(&self) -> Queues {
        Queues {
            pending: self.pending.len(),
            pending_bytes: self.pending_bytes,
            uncommitted_batches: self.own.len(),
            uncommitted_bytes: self.own_bytes,
            early_bytes: self.early_bytes,
            retained_bytes: self.log.bytes(),
        }
    }
    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters { duplicates_answered: self.state.duplicates(), ..self.counters }
    }
    /// Hash over the whole replicated state.
    pub fn state_hash(&self) -> u64 {
        self.state.state_hash()
    }

    /// How this replica is.
    pub fn status(&self) -> Status {
        let membership = self.membership();
        Status {
            voter: self.votes(self.config.log_uuid),
            voters: membership.voters.len() as u32,
            withheld: self.withheld.is_some(),
            epoch: self.promised,
            installed: self.installed(),
            config_id: membership.id,
            voters_heard: self.voters_heard(watch::DEAF_NS) as u32,
            holder: self.holder.1,
            hop: self.holder.0,
            last_seq: self.log.last_seq(),
            durable: self.on_disk,
            committed: self.committed,
            applied: self.applied,
            state_hash: self.state_hash(),
            sessions: self.sessions().len() as u64,
            swap: membership.swap.clone(),
            members: self.members(),
        }
    }

    /// Which of the other replicas live, as far as this one hears.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// Who holds the token, as far as this replica knows; 0: unknown.
    pub fn holder(&self) -> u16 {
        self.holder.1
    }

    /// The highest epoch answered for.
    pub fn promised(&self) -> Epoch {
        self.promised
    }

    /// Whether the epoch promised has begun in this log.
    pub fn installed(&self) -> bool {
        self.promised.counter > 0 && self.log.end().epoch == self.promised
    }

    fn send(&mut self, to: Target, message: PeerMessage) {
        let committed = match &message {
            PeerMessage::Data(m) => m.committed,
            PeerMessage::Token(m) => m.committed,
            PeerMessage::Ack(m) => m.committed,
            PeerMessage::Commit(m) => m.committed,
            _ => 0,
        };
        match to {
            Target::Node(node) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.told = peer.told.max(committed);
                }
            }
            Target::All => {
                for peer in self.peers.values_mut().filter(|peer| peer.up) {
                    peer.told = peer.told.max(committed);
                }
            }
        }
        self.outputs.push(Output::Send { to, message });
    }

    fn fatal(&mut self, why: String) {
        self.outputs.push(Output::Fatal(why));
    }

    /// What must hold after every turn, whatever came.
    fn check_invariants(&self) {
        let last = self.log.last_seq();
        assert!(self.applied <= self.committed, "applied {} > committed {}", self.applied, self.committed);
        assert!(
            self.committed <= last || self.config.makes(Mistake::CommitBeyondLog),
            "committed {} > end of log {last}",
            self.committed
        );
        assert!(self.durable <= last, "durable {} > end of log {last}", self.durable);
        assert!(self.on_disk <= last, "on disk {} > end of log {last}", self.on_disk);
        assert!(self.log.end().epoch <= self.promised, "the log is ahead of the promise {:?}", self.promised);
        assert!(self.pending.len() <= self.config.limits.pending_max, "{} writes pending", self.pending.len());
        assert!(
            self.token.is_none() || self.passed.is_none(),
            "the token is held and passed: hop {:?}",
            self.token.as_ref().map(|t| t.hop)
        );
    }
}
