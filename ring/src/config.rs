//! Who the replicas are, and how much they keep.

use pygmy_proto::limits::{BATCH_BYTES_MAX, REPLICAS_MAX};
use pygmy_proto::message::Membership;

/// Identity of a replica's log.
pub type LogUuid = [u8; 16];

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
    /// Bytes of applied batches kept in memory for replicas that come back. What is older is read from the disk.
    pub retained_bytes_max: usize,
    /// Entries applied in one turn; the rest waits for the next, so that heartbeats, writes on their way to others and readers
    /// get their share: a few milliseconds of work.
    pub applied_per_turn_max: u64,
    /// Committed entries that a replica may have left to apply before it lags, and others do its work. Between two
    /// heartbeats of a busy cluster a few thousand are committed.
    pub lag_max: u64,
    /// One that lags does so until no more than this are left: what is applied in less time than the others would notice.
    pub lag_over: u64,
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
            retained_bytes_max: 64 * 1024 * 1024,
            applied_per_turn_max: 2_048,
            lag_max: 65_536,
            lag_over: 16_384,
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
    /// A catalog that takes the token for lost makes another one in the same epoch.
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
    /// A promise is answered before it is durable.
    PromiseNotDurable,
    /// A sync of what was submitted in an older epoch is acknowledged in the newer one, and promises tell only what is
    /// durable of the log.
    AckOldSync,
    /// What an older epoch left is committed as soon as a majority has it, before the epoch's own first entry, and
    /// acknowledged before that entry is in the log.
    CommitOldEpoch,
    /// The log is chosen by its length, whatever the epoch of its last entry.
    ChooseByLength,
    /// Promises are counted by the configuration that the coordinator's own log names.
    CountPromisesByOwnConfig,
    /// A swap of voters is one change.
    DirectSwap,
    /// A configuration is changed while the change before it, or the epoch's first entry, is not committed.
    ChangeTooEarly,
    /// Others' word for what is committed is taken before the epoch is installed.
    CommitBeforeInstall,
    /// Nothing is removed when an epoch is installed whose log differs: what follows goes behind it by its seq.
    KeepOldSuffix,
    /// A holder that was paused goes on ordering, and is believed by those who have promised another epoch.
    BelieveOldHolder,
    /// An empty disk votes for the log whose name it bears.
    EmptyDiskVotes,
    /// A coordinator that was started again goes on with its epoch.
    ResumeEpoch,
    /// A fresh read is answered from what is applied, without a barrier.
    ReadWithoutBarrier,
    /// A barrier is content with one answer less than a majority.
    BarrierOfFew,
    /// A barrier asks for what was acknowledged in its epoch alone, and forgets what that epoch began with.
    BarrierOfEpochAlone,
    /// The round of a barrier that is under way serves reads that come later, too.
    BarrierServesLater,
    /// A barrier counts the answers of those that are in another epoch.
    BarrierOfAnyEpoch,
    /// A replica whose own loop was late takes the others for silent.
    AccuseWhenLate,
    /// How long a peer may be silent does not depend on how long it has been.
    LimitNeverGrows,
}

impl Mistake {
    /// All that whole clusters under faults bring to light: `LimitNeverGrows` harms nobody but by its number of false alarms,
    /// which the tests of the detector count.
    pub const ALL: [Self; 37] = [
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
        Self::PromiseNotDurable,
        Self::AckOldSync,
        Self::CommitOldEpoch,
        Self::ChooseByLength,
        Self::CountPromisesByOwnConfig,
        Self::DirectSwap,
        Self::ChangeTooEarly,
        Self::CommitBeforeInstall,
        Self::KeepOldSuffix,
        Self::BelieveOldHolder,
        Self::EmptyDiskVotes,
        Self::ResumeEpoch,
        Self::ReadWithoutBarrier,
        Self::BarrierOfFew,
        Self::BarrierOfEpochAlone,
        Self::BarrierServesLater,
        Self::BarrierOfAnyEpoch,
        Self::AccuseWhenLate,
    ];
}

/// What a replica is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// This replica's node number.
    pub me: u16,
    /// Identity of this replica's log. It votes only if the configuration in its log names it.
    pub log_uuid: LogUuid,
    /// Drawn at process start.
    pub boot_nonce: u64,
    /// The log replicas that may hold the token, voters or not, in ring order.
    pub catalogs: Vec<u16>,
    /// The other log replicas' node numbers.
    pub peers: Vec<u16>,
    /// The configuration that the cluster was created with.
    pub membership: Membership,
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
    /// What was found of the log is not one chain.
    #[error("the log that was found does not go on at seq {0}: the entry before it is missing or another one")]
    BrokenLog(u64),
    /// Nothing could ever be committed.
    #[error("the configuration has no voters")]
    NoVoters,
}

impl Config {
    /// Checks what must hold before a replica may start.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let replicas = self.peers.len() + 1;
        if replicas > REPLICAS_MAX || self.membership.voters.len() > REPLICAS_MAX {
            return Err(ConfigError::TooMany(replicas));
        }
        if self.catalogs.is_empty() {
            return Err(ConfigError::NoHolder);
        }
        if self.membership.voters.is_empty() {
            return Err(ConfigError::NoVoters);
        }
        if let Some(twice) = (1..self.peers.len()).find(|at| self.peers[..*at].contains(&self.peers[*at])) {
            return Err(ConfigError::Twice(self.peers[twice]));
        }
        for (index, voter) in self.membership.voters.iter().enumerate() {
            let before = &self.membership.voters[..index];
            if before.iter().any(|m| m.node == voter.node || m.log_uuid == voter.log_uuid) {
                return Err(ConfigError::Twice(voter.node));
            }
        }
        Ok(())
    }

    /// Whether this replica may hold the token.
    pub fn is_catalog(&self) -> bool {
        self.catalogs.contains(&self.me)
    }

    pub(crate) fn makes(&self, mistake: Mistake) -> bool {
        cfg!(feature = "mistakes") && self.mistake == Some(mistake)
    }
}
