//! One log replica: the state, its inputs and outputs, and the turn.
//!
//! Seams: [`order`] has the token and the numbering, [`append`] the log and its gaps, [`commit`] the acknowledgements,
//! the commit and the application.

mod append;
mod commit;
mod order;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::message::{Ack, Commit, Data, Epoch, Fetch, FetchRefused, ReplicaHello, Token, Want};

use crate::StateMachine;
use crate::config::{Config, ConfigError, LogUuid, Mistake};
use crate::log::Log;
use crate::sessions::{SessionError, SessionLimits, Sessions};
use crate::timer::{Timer, TimerTable};

/// The time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back.
    pub mono_ns: u64,
    /// Microseconds since 1970-01-01 UTC; stamped into batches, may jump.
    pub wall_us: u64,
}

/// A write to be ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The proposer's number for it, given back in its [`Completion`].
    pub ticket: u64,
    /// Kind of the entry.
    pub kind: EntryKind,
    /// Body of the entry.
    pub body: Bytes,
    /// When to drop it if it has not been numbered by then, in nanoseconds of the monotonic clock.
    pub deadline_ns: u64,
}

/// A frame of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// A batch.
    Data(Data),
    /// The right to order.
    Token(Token),
    /// "I want it."
    Want(Want),
    /// "Durable here."
    Ack(Ack),
    /// "Committed."
    Commit(Commit),
    /// "Send me the log from here on."
    Fetch(Fetch),
    /// "I do not hold that."
    FetchRefused(FetchRefused),
}

/// What happens to a replica.
#[derive(Debug)]
pub enum Input {
    /// A link to another replica stands; its handshake said this.
    PeerUp {
        /// Its node number.
        node: u16,
        /// What it said.
        hello: ReplicaHello,
    },
    /// The link is gone, and all frames queued for it.
    PeerDown {
        /// Its node number.
        node: u16,
    },
    /// A frame came over a link.
    Message {
        /// From which node.
        node: u16,
        /// The frame.
        message: PeerMessage,
    },
    /// A write to be ordered here. Answered by exactly one of [`Output::Done`] and [`Output::Refused`].
    Propose(Proposal),
    /// The log is durable up to here.
    Durable {
        /// Epoch of the log that was synced.
        epoch: Epoch,
        /// Its last position.
        seq: u64,
        /// Hash of the entry there.
        hash: u128,
    },
    /// Take no more writes and give the token away once nothing is in flight.
    Leave,
}

/// Whom a frame goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One node.
    Node(u16),
    /// Every replica with a link.
    All,
}

/// Why a write was handed back without having been numbered: it has had no effect and never will by this proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// This replica never holds the token.
    NotACatalog,
    /// The queue is full.
    QueueFull,
    /// Nothing could be numbered in time: the token did not come, its holder cannot be reached, or what was numbered
    /// before does not get committed.
    Unserved,
    /// Its deadline passed.
    Deadline,
    /// This replica is leaving.
    Leaving,
    /// It is longer than an entry may be.
    TooLong,
}

/// Outcome of a write: the state machine's answer, or why it was not executed.
pub type WriteResult = Result<Bytes, SessionError>;

/// A write that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The proposer's number.
    pub ticket: u64,
    /// Its position in the log.
    pub seq: u64,
    /// What it was.
    pub kind: EntryKind,
    /// What came of it. For a registration the bytes are empty: the session's id is `seq`.
    pub result: WriteResult,
    /// Nanoseconds it waited to be numbered.
    pub token_ns: u64,
    /// Nanoseconds from numbering to commit.
    pub replicate_ns: u64,
    /// Nanoseconds from numbering to durable here; 0 when that is not the case yet.
    pub sync_ns: u64,
    /// Nanoseconds from commit to application.
    pub apply_ns: u64,
}

/// What a replica wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a frame, behind all sent before to the same node.
    Send {
        /// To whom.
        to: Target,
        /// The frame.
        message: PeerMessage,
    },
    /// Make a batch durable, behind all given before. Answered by [`Input::Durable`].
    Append(Batch),
    /// A write was applied.
    Done(Completion),
    /// A write was handed back.
    Refused {
        /// The proposer's number.
        ticket: u64,
        /// Why.
        why: NotTaken,
    },
    /// Going on would break a promise: the process must end.
    Fatal(String),
}

/// What a replica knows of another one.
#[derive(Debug, Default)]
struct Peer {
    up: bool,
    log_uuid: LogUuid,
    boot_nonce: u64,
    /// End of its log or durable position, whichever was heard of last; where to fetch from.
    last_seq: u64,
    /// Durable there, compared with this replica's own log.
    durable: u64,
    /// Acknowledged, but beyond what can be compared yet.
    unverified: Option<(u64, u128)>,
    want: u64,
    /// Highest commit it was told of on this link.
    told: u64,
    /// First position that it could not give, when it was asked last.
    refused_fetch: Option<u64>,
}

/// The copy that the passer of the token keeps until it sees it taken.
#[derive(Debug)]
struct Passed {
    to: u16,
    boot_nonce: u64,
    token: Token,
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

/// How a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether it counts.
    pub voter: bool,
    /// Voters configured.
    pub voters: u32,
    /// Its epoch.
    pub epoch: Epoch,
    /// Who holds the token, as far as it knows; 0: unknown.
    pub holder: u16,
    /// Passings of the token, as far as it knows.
    pub hop: u64,
    /// End of its log.
    pub last_seq: u64,
    /// Durable up to.
    pub durable: u64,
    /// Committed up to.
    pub committed: u64,
    /// Applied up to.
    pub applied: u64,
    /// Hash of the state at `applied`.
    pub state_hash: u64,
    /// Sessions kept.
    pub sessions: u64,
    /// Durable position of each other replica as last heard.
    pub peers: Vec<(u16, u64)>,
}

/// How full the queues of a replica are; each has its bound in [`Limits`](crate::Limits).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queues {
    /// Writes waiting to be numbered.
    pub pending: usize,
    /// Bytes of them.
    pub pending_bytes: usize,
    /// Batches ordered here and not applied.
    pub uncommitted_batches: usize,
    /// Bytes of them.
    pub uncommitted_bytes: usize,
    /// Bytes of batches that came before those in front of them.
    pub early_bytes: usize,
    /// Bytes of the log that is kept.
    pub retained_bytes: usize,
}

/// Counts of what happened, for status and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches ordered here.
    pub batches_ordered: u64,
    /// Tokens received.
    pub tokens_received: u64,
    /// Tokens sent again after a link had broken.
    pub tokens_resent: u64,
    /// Tokens refused because they had been received before.
    pub tokens_refused: u64,
    /// Batches that waited for those in front of them.
    pub batches_early: u64,
    /// Fetches sent.
    pub fetches_sent: u64,
    /// Writes handed back.
    pub handed_back: u64,
    /// Resent writes answered from their stored result.
    pub duplicates_answered: u64,
}

/// One log replica over a state machine.
pub struct Replica<S> {
    config: Config,
    machine: S,
    sessions: Sessions,
    epoch: Epoch,
    log: Log,
    // Invariant: applied ≤ committed ≤ log.last_seq(), durable ≤ log.last_seq().
    durable: u64,
    committed: u64,
    applied: u64,
    /// Committed somewhere; this log may not reach it yet.
    known_committed: u64,
    /// The token, while this replica holds it.
    token: Option<Token>,
    passed: Option<Passed>,
    /// Hop of the last token this process received.
    token_hop_received: u64,
    /// Highest hop seen claimed, and by whom.
    holder: (u64, u16),
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Number of this boot's latest want, and whether it is still to be served.
    want: u64,
    wanting: bool,
    tickets: VecDeque<Ticket>,
    own: VecDeque<OwnBatch>,
    own_bytes: usize,
    /// Last position and origin of appended batches that are not committed.
    origins: VecDeque<(u64, u16)>,
    peers: BTreeMap<u16, Peer>,
    /// Batches that came before those in front of them, by first seq.
    early: BTreeMap<u64, Batch>,
    early_bytes: usize,
    /// Highest position known to exist anywhere.
    known_end: u64,
    fetching_from: Option<u16>,
    /// Bytes by which the answer to the fetch under way has extended the log.
    fetched_bytes: usize,
    /// State hashes at multiples of [`CHECK_EVERY`], latest last.
    checks: VecDeque<(u64, u64)>,
    leaving: bool,
    /// A rotating token has rested here for its pause and may go on.
    rotation_rested: bool,
    timers: TimerTable,
    answer: BytesMut,
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
/// Peers that have not been told of a commit by any other frame are told after this.
const COMMIT_NOTICE_NS: u64 = 1_000_000;
/// Un-numbered writes are handed back when the token has not come after this.
const UNSERVED_NS: u64 = 200_000_000;
/// An idle rotating token is passed on after this.
const ROTATE_NS: u64 = 1_000_000;

impl<S: StateMachine> Replica<S> {
    /// A replica with an empty log. The token is born with the first catalog of the configuration, if that is a voter:
    /// a process that has lost its log is not, so it cannot make a second token.
    ///
    /// # Errors
    /// When the configuration cannot work.
    pub fn new(config: Config, machine: S) -> Result<Self, ConfigError> {
        config.validate()?;
        let peers = config.members.iter().filter(|m| m.node != config.me).map(|m| (m.node, Peer::default())).collect();
        let mut replica = Self {
            machine,
            sessions: Sessions::new(SessionLimits::default()),
            epoch: Epoch { counter: 1, node: 0 },
            log: Log::new(),
            durable: 0,
            committed: 0,
            applied: 0,
            known_committed: 0,
            token: None,
            passed: None,
            token_hop_received: 0,
            holder: (0, 0),
            pending: VecDeque::new(),
            pending_bytes: 0,
            want: 0,
            wanting: false,
            tickets: VecDeque::new(),
            own: VecDeque::new(),
            own_bytes: 0,
            origins: VecDeque::new(),
            peers,
            early: BTreeMap::new(),
            early_bytes: 0,
            known_end: 0,
            fetching_from: None,
            fetched_bytes: 0,
            checks: VecDeque::new(),
            leaving: false,
            rotation_rested: false,
            timers: TimerTable::default(),
            answer: BytesMut::new(),
            counters: Counters::default(),
            outputs: Vec::new(),
            config,
        };
        replica.birth_of_the_token();
        Ok(replica)
    }

    /// What this replica says of itself in a handshake.
    pub fn hello(&self) -> ReplicaHello {
        ReplicaHello {
            log_uuid: self.config.log_uuid,
            boot_nonce: self.config.boot_nonce,
            config_id: self.config.config_id,
            epoch: self.epoch,
            last_seq: self.log.last_seq(),
            committed: self.committed,
            token_hop: self.token_hop_received,
            want: if self.wanting && !self.config.makes(Mistake::ForgetWant) { self.want } else { 0 },
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::PeerUp { node, hello } => self.on_peer_up(now, node, &hello),
            Input::PeerDown { node } => self.on_peer_down(now, node),
            Input::Message { node, message } => self.on_message(now, node, message),
            Input::Propose(proposal) => self.on_propose(now, proposal),
            Input::Durable { epoch, seq, hash } => self.on_durable(now, epoch, seq, hash),
            Input::Leave => self.leaving = true,
        }
    }

    fn on_message(&mut self, now: Now, node: u16, message: PeerMessage) {
        let epoch = match &message {
            PeerMessage::Data(m) => m.epoch,
            PeerMessage::Token(m) => m.epoch,
            PeerMessage::Want(m) => m.epoch,
            PeerMessage::Ack(m) => m.epoch,
            PeerMessage::Commit(m) => m.epoch,
            PeerMessage::Fetch(m) => m.epoch,
            PeerMessage::FetchRefused(m) => m.epoch,
        };
        if epoch != self.epoch || !self.peers.get(&node).is_some_and(|peer| peer.up) {
            return;
        }
        match message {
            PeerMessage::Data(data) => self.on_data(now, node, data),
            PeerMessage::Token(token) => self.on_token(now, node, token),
            PeerMessage::Want(want) => self.on_want(node, want),
            PeerMessage::Ack(ack) => self.on_ack(now, node, ack),
            PeerMessage::Commit(commit) => self.learn_commit(now, node, commit.committed),
            PeerMessage::Fetch(fetch) => self.on_fetch(node, fetch),
            PeerMessage::FetchRefused(refused) => self.on_fetch_refused(now, node, refused),
        }
    }

    fn on_peer_up(&mut self, now: Now, node: u16, hello: &ReplicaHello) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.boot_nonce != hello.boot_nonce || peer.log_uuid != hello.log_uuid {
            // Another process: nothing that was heard from the one before says anything about this one.
            *peer = Peer::default();
        }
        peer.up = true;
        peer.log_uuid = hello.log_uuid;
        peer.boot_nonce = hello.boot_nonce;
        peer.last_seq = hello.last_seq;
        peer.want = peer.want.max(hello.want);
        peer.told = hello.committed;
        peer.refused_fetch = None;
        if hello.epoch != self.epoch {
            return;
        }
        self.resend_token(node, hello);
        self.note_end(now, hello.last_seq);
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
        if self.log.last_seq() > hello.last_seq {
            self.send_last_batch(node);
        }
        if !self.config.makes(Mistake::NoAckOnReturn) {
            self.send_ack(node);
        }
        // The handshake's want may be older than this one, which went only to links that were up.
        if self.wanting && !self.config.makes(Mistake::ForgetWant) {
            let want = Want { epoch: self.epoch, boot_nonce: self.config.boot_nonce, number: self.want };
            self.send(Target::Node(node), PeerMessage::Want(want));
        }
    }

    fn on_peer_down(&mut self, now: Now, node: u16) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.up = false;
        }
        if self.fetching_from == Some(node) {
            self.fetching_from = None;
            self.timers.set(Timer::Gap, now.mono_ns);
        }
        // Should that process be gone, nobody else has counted what was acknowledged to it alone, nor will it tell
        // anyone of the commits it knew or send the batches it had begun to send.
        self.acknowledge_to_all();
    }

    /// Ends a turn: what was proposed is ordered, the token goes on, commits are applied.
    pub fn end_turn(&mut self, now: Now) {
        self.apply_committed(now);
        self.drive_token(now);
        // A lone replica commits what it has just ordered.
        self.apply_committed(now);
        self.plan_notices(now);
        self.check_invariants();
    }

    /// When [`Self::on_timeout`] must be called next, in nanoseconds of the monotonic clock.
    pub fn next_timeout(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Fires what is due. To be followed by [`Self::end_turn`].
    pub fn on_timeout(&mut self, now: Now) {
        for timer in TimerTable::ALL {
            if !self.timers.take_due(timer, now.mono_ns) {
                continue;
            }
            match timer {
                Timer::Gap => self.on_gap_timer(now),
                Timer::CommitNotice => self.send_commit_notices(),
                Timer::Unserved => self.hand_back_all(NotTaken::Unserved),
                // Both are done by the end of the turn that follows.
                Timer::Rotate | Timer::Apply => {}
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
        self.leaving && self.pending.is_empty() && self.tickets.is_empty() && (away || !self.has_heir())
    }

    /// The state machine.
    pub fn machine(&self) -> &S {
        &self.machine
    }
    /// The session table.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }
    /// The log as kept in memory.
    pub fn log(&self) -> &Log {
        &self.log
    }
    /// Applied up to.
    pub fn applied(&self) -> u64 {
        self.applied
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
        self.counters
    }
    /// Hash over the whole replicated state.
    pub fn state_hash(&self) -> u64 {
        self.machine.state_hash().wrapping_add(self.sessions.state_hash())
    }

    /// How this replica is.
    pub fn status(&self) -> Status {
        Status {
            voter: self.config.is_voter(),
            voters: self.config.members.len() as u32,
            epoch: self.epoch,
            holder: self.holder.1,
            hop: self.holder.0,
            last_seq: self.log.last_seq(),
            durable: self.durable,
            committed: self.committed,
            applied: self.applied,
            state_hash: self.state_hash(),
            sessions: self.sessions.len() as u64,
            peers: self.peers.iter().map(|(node, peer)| (*node, peer.durable)).collect(),
        }
    }

    fn send(&mut self, to: Target, message: PeerMessage) {
        let committed = match &message {
            PeerMessage::Data(m) => m.committed,
            PeerMessage::Token(m) => m.committed,
            PeerMessage::Ack(m) => m.committed,
            PeerMessage::Commit(m) => m.committed,
            PeerMessage::Want(_) | PeerMessage::Fetch(_) | PeerMessage::FetchRefused(_) => 0,
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
        assert!(self.pending.len() <= self.config.limits.pending_max, "{} writes pending", self.pending.len());
        assert!(
            self.token.is_none() || self.passed.is_none(),
            "the token is held and passed: hop {:?}",
            self.token.as_ref().map(|t| t.hop)
        );
    }
}
