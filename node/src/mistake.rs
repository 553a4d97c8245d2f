//! Known mistakes of the roles, to prove that the simulator's checkers find them; the ring has its own.

/// What is done wrong. Obeyed only in builds with the feature `mistakes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A front keeps what a catalog has answered without asking whether it has changed since.
    FillRacesInvalidation,
    /// A feed goes on at a catalog that is behind, and what that tells is believed.
    FeedResumedBackwards,
    /// A barrier counts from its answer instead of from when it was sent.
    FreshOnArrival,
    /// A front that moves a write to another server gives it a new number.
    MoveUnderNewId,
    /// Suspicion is not heeded: a server has its share as long as its link stands.
    KeepSendingToSuspects,
}

impl Mistake {
    /// Every mistake.
    pub const ALL: [Self; 5] = [
        Self::FillRacesInvalidation,
        Self::FeedResumedBackwards,
        Self::FreshOnArrival,
        Self::MoveUnderNewId,
        Self::KeepSendingToSuspects,
    ];
}

/// The mistake that a part of a node was told to make, if any.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Planted(pub(crate) Option<Mistake>);

impl Planted {
    /// Whether it is to be made.
    pub(crate) fn makes(self, mistake: Mistake) -> bool {
        cfg!(feature = "mistakes") && self.0 == Some(mistake)
    }
}
