//! What goes into a replica and what comes out of it.

use bytes::Bytes;
use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::message::{
    Ack, Barrier, BarrierAnswer, Boundary, Commit, Data, Epoch, Fetch, FetchRefused, Install, LogEnd, MemberStatus,
    Membership, PreVote, PreVoteAnswer, Prepare, Promise, Reject, ReplicaBeat, ReplicaHello, Swap, Token, Voter, Want,
};

use crate::config::LogUuid;
use crate::detector::Notice;
use crate::log::Base;
use crate::sessions::{SessionError, SessionLimits, Sessions};

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
    /// "Would you promise me an epoch?"
    PreVote(PreVote),
    /// The answer to that.
    PreVoteAnswer(PreVoteAnswer),
    /// "Promise me this epoch."
    Prepare(Prepare),
    /// The promise.
    Promise(Promise),
    /// "This epoch has begun."
    Install(Install),
    /// "I have promised a higher epoch."
    Reject(Reject),
    /// "How far are you?"
    Barrier(Barrier),
    /// The answer to that.
    BarrierAnswer(BarrierAnswer),
}

impl PeerMessage {
    /// The epoch that the frame bears.
    pub fn epoch(&self) -> Epoch {
        match self {
            PeerMessage::Data(m) => m.epoch,
            PeerMessage::Token(m) => m.epoch,
            PeerMessage::Want(m) => m.epoch,
            PeerMessage::Ack(m) => m.epoch,
            PeerMessage::Commit(m) => m.epoch,
            PeerMessage::Fetch(m) => m.epoch,
            PeerMessage::FetchRefused(m) => m.epoch,
            PeerMessage::PreVote(m) => m.epoch,
            PeerMessage::PreVoteAnswer(m) => m.epoch,
            PeerMessage::Prepare(m) => m.epoch,
            PeerMessage::Promise(m) => m.epoch,
            PeerMessage::Install(m) => m.epoch,
            PeerMessage::Reject(m) => m.epoch,
            PeerMessage::Barrier(m) => m.epoch,
            PeerMessage::BarrierAnswer(m) => m.epoch,
        }
    }
}

/// What the vote file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vote {
    /// The highest epoch that this log has answered for.
    pub promised: Epoch,
    /// The latest epoch at whose installation a part of the log was removed: what was acknowledged before it may be gone
    /// without anything having been lost.
    pub cut: Epoch,
}

/// A change of the voters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// One log takes another one's place.
    Replace {
        /// The log that goes.
        old: LogUuid,
        /// The voter that comes.
        new: Voter,
    },
}

/// What a replica begins with: an empty log, or what its files hold.
#[derive(Debug)]
pub struct Recovered<S> {
    /// The vote file.
    pub vote: Vote,
    /// The state machine, as of `base`.
    pub machine: S,
    /// The sessions, as of `base`.
    pub sessions: Sessions,
    /// What the state above contains.
    pub base: Base,
    /// Where epochs begin up to `base`.
    pub boundaries: Vec<Boundary>,
    /// The configuration at `base`, if the log below it has one.
    pub membership: Option<Membership>,
    /// The log behind `base`.
    pub batches: Vec<Batch>,
    /// The log is damaged: up to here it may have been acknowledged, and is not all there. Its vote is withheld until it
    /// has caught up with that.
    pub damaged: Option<LogEnd>,
}

/// Where in the log a copy of the state belongs, and what must be known beside it to go on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The end of what it contains.
    pub base: Base,
    /// Where epochs begin up to there.
    pub boundaries: Vec<Boundary>,
    /// The configuration there.
    pub membership: Membership,
}

impl<S> Recovered<S> {
    /// A new log with a fresh machine.
    pub fn empty(machine: S) -> Self {
        Self {
            vote: Vote::default(),
            machine,
            sessions: Sessions::new(SessionLimits::default()),
            base: Base::default(),
            boundaries: Vec::new(),
            membership: None,
            batches: Vec::new(),
            damaged: None,
        }
    }
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
    /// A heartbeat of another replica came.
    Beat {
        /// From which node.
        node: u16,
        /// Its number among the heartbeats of its process.
        number: u64,
        /// What it says.
        beat: ReplicaBeat,
    },
    /// A read came that must reflect whatever was answered to anybody before. Answered by an [`Output::Fresh`] with this
    /// ticket or a higher one, once that is known and applied; never, if it cannot be known.
    Barrier {
        /// The asker's number for it; higher than any before.
        ticket: u64,
    },
    /// A change of the voters, to be proposed here. Answered like a write.
    Change {
        /// The proposer's number for it.
        ticket: u64,
        /// The change.
        change: Change,
    },
    /// The vote file holds this.
    VoteDurable(Vote),
    /// A part of the log that was asked for by [`Output::ReadLog`]; empty when it is not held.
    LogRead {
        /// For which node it was read.
        node: u16,
        /// The batches, contiguous.
        batches: Vec<Batch>,
    },
    /// The log's disk is full (or has room again): nothing new is ordered here meanwhile.
    DiskFull(bool),
    /// The log is durable up to here.
    Durable {
        /// The epoch that was given with what was synced.
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
    /// The log's disk is full.
    OutOfSpace,
    /// The change of the voters would not be safe, or makes no sense.
    ChangeRefused(&'static str),
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
    /// Make a batch durable, behind all given before; whatever was given at or above its position is gone. Answered by
    /// [`Input::Durable`] with the same epoch.
    Append {
        /// The epoch in which it is appended, which may be above the one in which it was ordered.
        epoch: Epoch,
        /// The batch.
        batch: Batch,
    },
    /// Make the vote durable, behind all given before. Answered by [`Input::VoteDurable`].
    Vote(Vote),
    /// Tell all replicas how this one is; a datagram each.
    Beat(ReplicaBeat),
    /// Another replica is suspected, trusted again, or to be asked for a heartbeat: [`super::Replica::beat_now`] is sent to it, and
    /// it answers with its own.
    Notice(Notice),
    /// Read a part of the log that is no longer in memory. Answered by [`Input::LogRead`].
    ReadLog {
        /// For which node.
        node: u16,
        /// First position wanted.
        from_seq: u64,
        /// Last position wanted; all up to it is final.
        upto: u64,
    },
    /// This log is so far behind that no peer holds what follows it: a snapshot is needed.
    NeedSnapshot {
        /// A peer that has one.
        node: u16,
    },
    /// What is applied here by now reflects whatever was answered to anybody before the barriers up to a ticket came.
    Fresh {
        /// The highest of these tickets.
        ticket: u64,
        /// What they had to wait for: applied.
        seq: u64,
    },
    /// A write was applied.
    Done(Completion),
    /// A write was handed back.
    Refused {
        /// The proposer's number.
        ticket: u64,
        /// Why.
        why: NotTaken,
    },
    /// A write was numbered, and what became of it cannot be known here: it may take effect or not. Sending it again
    /// with the same session and counter settles it.
    Unknown {
        /// The proposer's number.
        ticket: u64,
    },
    /// Going on would break a promise: the process must end.
    Fatal(String),
}

/// How a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether it counts.
    pub voter: bool,
    /// Voters configured.
    pub voters: u32,
    /// Whether its vote is withheld until it has caught up.
    pub withheld: bool,
    /// The epoch it has promised.
    pub epoch: Epoch,
    /// Whether that epoch has begun here.
    pub installed: bool,
    /// The configuration in force.
    pub config_id: u64,
    /// Voters that are heard at the moment, this one included if it votes.
    pub voters_heard: u32,
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
    /// The replacement that is half done in the configuration in force.
    pub swap: Option<Swap>,
    /// The voters, and after them the replicas that only follow, as seen from here.
    pub members: Vec<MemberStatus>,
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
    /// Epochs started here.
    pub epochs_started: u64,
    /// Epochs installed here.
    pub epochs_installed: u64,
    /// Questions whether an epoch should be changed.
    pub prevotes_asked: u64,
    /// Promises given.
    pub promises: u64,
    /// Times at which a part of the log was removed.
    pub truncations: u64,
    /// Numbered writes whose outcome was given up.
    pub unknown: u64,
    /// Configurations that took effect here.
    pub configurations: u64,
    /// Times at which this replica began to lag, its start left out.
    pub lagged: u64,
    /// Tokens received while it lagged.
    pub tokens_lagging: u64,
    /// Rounds of questions for reads that must be fresh.
    pub barrier_rounds: u64,
    /// Of these, rounds whose reads were told that they are.
    pub barriers_answered: u64,
    /// Times at which a change of the epoch made them be asked anew.
    pub barriers_repeated: u64,
    /// Bytes of batches that were applied.
    pub bytes_applied: u64,
}
