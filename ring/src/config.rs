//! Who the replicas are, and how much they keep.

use pygmy_proto::limits::{BATCH_BYTES_MAX, REPLICAS_MAX};

/// Identity of a replica's log.
pub type LogUuid = [u8; 16];

/// One voter of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its node number.
    pub node: u16,
    /// The identity under which it counts.
    pub log_uuid: LogUuid,
    /// Whether it may hold the token.
    pub holds_token: bool,
}

/// Bounds of one replica's queues; see RING §2, "push back".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Batches ordered here and not yet committed.
    pub uncommitted_batches_max: usize,
    /// Bytes of them.
    pub uncommitted_bytes_max: usize,
    /// Batches ordered here and not yet durable here at which a replica lets its queue grow instead of asking for the token.
    pub unsynced_batches_max: usize,
    /// Writes waiting to be numbered.
    pub pending_max: usize,
    /// Bytes of them.
    pub pending_bytes_max: usize,
    /// Bytes of batches that came before those in front of them.
    pub early_bytes_max: usize,
    /// Bytes of applied batches kept for replicas that come back.
    pub retained_bytes_max: usize,
    /// Entries applied in one turn; the rest waits for the next, so that heartbeats and readers get their share.
    pub applied_per_turn_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uncommitted_batches_max: 8,
            uncommitted_bytes_max: 8 * BATCH_BYTES_MAX,
            unsynced_batches_max: 2,
            pending_max: 65_536,
            pending_bytes_max: 64 * 1024 * 1024,
            early_bytes_max: 32 * 1024 * 1024,
            retained_bytes_max: 256 * 1024 * 1024,
            applied_per_turn_max: 16_384,
        }
    }
}

/// A mistake that can be planted, to prove that the tests would find it. Each variant says what is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A token is taken whatever its hop: a re-sent one then orders a second time.
    TakeOldToken,
    /// Batches are appended in order of arrival, whether or not they continue the log.
    AppendWithGaps,
    /// A resent write is executed again: results are not looked up when it is applied.
    NoDeduplication,
    /// A write is answered and applied before a majority has it.
    ApplyUncommitted,
    /// The want is not repeated when a link comes back.
    ForgetWant,
    /// The passer of the token forgets it at once, so a link that breaks under it loses it.
    ForgetPassedToken,
    /// A gap is never fetched.
    NeverFetch,
    /// The first catalog makes a token whenever it starts, though it has lost its log and the first token lives on.
    RemakeToken,
    /// A token that was not received is sent again to whatever process now has the link.
    ResendToOtherBoot,
    /// The holder numbers behind its own log's end, though the token says that there is more.
    OrderBehindGap,
    /// What is appended is acknowledged before it is durable.
    AckBeforeSync,
    /// Those that cannot be reached are left out when the majority is counted.
    MajorityOfLiving,
    /// Acknowledgements count for the node that sends them, whatever log it has now.
    CountByNode,
    /// Another's word for what is committed is taken beyond the end of the own log.
    CommitBeyondLog,
    /// Writes that have a number are handed back with those that have none.
    HandBackNumbered,
    /// A result is dropped with the first incomplete counter, not below it.
    DropFirstIncomplete,
    /// An executed write's answer is not kept.
    ForgetResult,
    /// A link that comes back is not told how far this log is durable.
    NoAckOnReturn,
    /// Commits are told only by frames that go anyway.
    NeverNotify,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::TakeOldToken,
        Self::AppendWithGaps,
        Self::NoDeduplication,
        Self::ApplyUncommitted,
        Self::ForgetWant,
        Self::ForgetPassedToken,
        Self::NeverFetch,
        Self::RemakeToken,
        Self::ResendToOtherBoot,
        Self::OrderBehindGap,
        Self::AckBeforeSync,
        Self::MajorityOfLiving,
        Self::CountByNode,
        Self::CommitBeyondLog,
        Self::HandBackNumbered,
        Self::DropFirstIncomplete,
        Self::ForgetResult,
        Self::NoAckOnReturn,
        Self::NeverNotify,
    ];
}

/// What a replica is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// This replica's node number.
    pub me: u16,
    /// Identity of this replica's log. It votes only if `members` names it.
    pub log_uuid: LogUuid,
    /// Drawn at process start.
    pub boot_nonce: u64,
    /// Id of the configuration.
    pub config_id: u64,
    /// The voters, in ring order.
    pub members: Vec<Member>,
    /// Whether the token circles without being wanted.
    pub rotate: bool,
    /// Bounds.
    pub limits: Limits,
    /// A planted mistake; obeyed only in builds with the feature `mistakes`.
    pub mistake: Option<Mistake>,
}

/// Why a configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nobody could order anything.
    #[error("no member of the ring may hold the token: at least one catalog is needed")]
    NoHolder,
    /// More members than the token's table takes.
    #[error("{0} log replicas, the limit is {REPLICAS_MAX}")]
    TooMany(usize),
    /// Majorities would be miscounted.
    #[error("node {0} or its log identity stands twice among the log replicas")]
    Twice(u16),
    /// A log replica must be configured as one.
    #[error("node {0} is not a log replica of this cluster")]
    NotAReplica(u16),
}

impl Config {
    /// Checks what must hold before a replica may start.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.members.len() > REPLICAS_MAX {
            return Err(ConfigError::TooMany(self.members.len()));
        }
        if !self.members.iter().any(|m| m.holds_token) {
            return Err(ConfigError::NoHolder);
        }
        if !self.members.iter().any(|m| m.node == self.me) {
            return Err(ConfigError::NotAReplica(self.me));
        }
        for (index, member) in self.members.iter().enumerate() {
            let before = &self.members[..index];
            if before.iter().any(|m| m.node == member.node || m.log_uuid == member.log_uuid) {
                return Err(ConfigError::Twice(member.node));
            }
        }
        Ok(())
    }

    /// Voters that must have an entry before it is committed.
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Whether this replica's log counts.
    pub fn is_voter(&self) -> bool {
        self.voter(self.log_uuid).is_some()
    }

    /// The member whose log has this identity.
    pub fn voter(&self, log_uuid: LogUuid) -> Option<&Member> {
        self.members.iter().find(|m| m.log_uuid == log_uuid)
    }

    pub(crate) fn makes(&self, mistake: Mistake) -> bool {
        cfg!(feature = "mistakes") && self.mistake == Some(mistake)
    }
}
