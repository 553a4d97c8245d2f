//! What is explored: bounds, planted mistakes, and the arithmetic of majorities.

use super::checks::{self, Harm};
use super::log::{Kind, Log, SLOTS, Slot};

/// A planted mistake. Each is one rule left out or bent; everything else stays as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    /// The promise is answered before the vote file is synced.
    PromiseBeforeSync,
    /// A sync that ends after a newer promise still acknowledges in its own, older epoch.
    StaleSyncAcknowledges,
    /// A promise tells the synced log, not the appends under way.
    PromiseTellsSyncedOnly,
    /// An entry of an older epoch is committed by counting, before the `NewEpoch` is covered.
    CommitBeforeNewEpoch,
    /// What is synced of an install that is not complete is acknowledged in the new epoch.
    AcknowledgeHalfInstall,
    /// The majority of whoever is heard, which may be one.
    MajorityOfTheLiving,
    /// The passer of a token that seems lost takes it back.
    TokenRemade,
    /// A token is sent again to a process that was started since.
    TokenToAnotherBoot,
    /// A voter is swapped by one entry.
    DirectSwap,
    /// The second change is ordered before the first is committed.
    TwoChangesInFlight,
    /// Promises are counted by the configuration in the asker's own log.
    AskersConfiguration,
    /// Data is appended where its seq fits, whatever stands below.
    AppendBySeq,
    /// A committed seq is believed before the install.
    CommittedBeforeInstall,
    /// The vote file does not say that the log's last epoch may fall.
    InstallWithoutCut,
    /// A disk that was lost goes on voting under its old name.
    EmptyDiskVotes,
}

/// Which voter goes first in a swap: slot c goes, slot d comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Swap {
    /// The old one is dead: it is removed, then the new one added.
    RemoveFirst,
    /// The old one is alive: the new one is added, then the old one removed.
    AddFirst,
}

/// How far the model goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    /// Attempts at an epoch change: for each, the replicas that may make it, as bits.
    pub(crate) asks: &'static [u8],
    /// Replicas that the token may be passed to, as bits.
    pub(crate) catalogs: u8,
    pub(crate) writes: u8,
    pub(crate) crashes: u8,
    /// Disks that are lost.
    pub(crate) wipes: u8,
    pub(crate) passes: u8,
    pub(crate) resends: u8,
    pub(crate) swap: Option<Swap>,
    /// An install is appended entry by entry, and a crash may leave any part of it.
    pub(crate) installs_in_parts: bool,
    /// Steps that nobody else can see are not steps of their own: a promise and the sync of the vote file are one, and
    /// what can be counted or learned as committed is so at once. Nothing is lost by it. Between promise and sync a
    /// replica is as silent as one that was not asked yet, and a crash makes it one. Knowledge of commits forbids no
    /// step, and every check is made with all of it.
    pub(crate) merged: bool,
    /// A catalog that is refused may ask above the promise it was refused with, not only above its own.
    pub(crate) asks_above_refusals: bool,
}

/// The protocol within bounds, with the mistakes planted in it.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    mistakes: u16,
    /// The bits of the [`Harm`] that a hunt is after; 0 checks everything.
    pub(crate) hunted: u16,
}

/// The slot that a swap takes away, and the one that it brings.
const LEAVING: Slot = 2;
const COMING: Slot = 3;
const INITIAL_VOTERS: u8 = 0b0111;

impl Protocol {
    pub(crate) fn new(bounds: Bounds, mistakes: &[Mistake]) -> Self {
        let mistakes = mistakes.iter().fold(0, |bits, &mistake| bits | 1 << mistake as u16);
        Self { bounds, mistakes, hunted: 0 }
    }

    /// The same, to be searched for one of these kinds of harm only.
    pub(crate) fn hunting(self, harms: &[Harm]) -> Self {
        Self { hunted: checks::bits(harms), ..self }
    }

    pub(crate) fn has(&self, mistake: Mistake) -> bool {
        self.mistakes & 1 << mistake as u16 != 0
    }

    /// Slots in use: the newcomer is there only when there is a swap.
    pub(crate) fn slots(&self) -> usize {
        if self.bounds.swap.is_some() { SLOTS } else { SLOTS - 1 }
    }

    pub(crate) fn is_catalog(&self, slot: Slot) -> bool {
        self.bounds.catalogs & 1 << slot != 0
    }

    /// The voters of the latest configuration in `log`, as bits.
    pub(crate) fn voters(&self, log: Log) -> u8 {
        let remove_first = self.bounds.swap == Some(Swap::RemoveFirst);
        let mut voters = INITIAL_VOTERS;
        for entry in log.entries() {
            let (removes, adds) = match entry.kind() {
                Kind::SwapFirst => (remove_first, !remove_first),
                Kind::SwapSecond => (!remove_first, remove_first),
                Kind::SwapDirect => (true, true),
                Kind::NewEpoch | Kind::Write(_) => continue,
            };
            if removes {
                voters &= !(1 << LEAVING);
            }
            if adds {
                voters |= 1 << COMING;
            }
        }
        voters
    }

    /// How many of `voters` decide.
    pub(crate) fn majority(&self, voters: u8) -> u32 {
        if self.has(Mistake::MajorityOfTheLiving) { 1 } else { true_majority(voters) }
    }
}

/// What a majority is, whatever mistake is planted.
pub(crate) fn true_majority(voters: u8) -> u32 {
    voters.count_ones() / 2 + 1
}
