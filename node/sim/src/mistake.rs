//! Known mistakes, to prove that the checkers find them: those of the ring and of the roles, and some at the seam around a
//! node.

use pygmy_node::mistake::Mistake as NodeMistake;
use pygmy_ring::Mistake as RingMistake;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The ring does something wrong.
    Ring(RingMistake),
    /// A role does something wrong.
    Node(NodeMistake),
    /// The log writer reports a group without having synced it.
    NoticeBeforeSync,
    /// A vote is reported without having been synced.
    VoteBeforeSync,
    /// Names are never synced.
    ForgetDirectory,
    /// A new file gets its name before its bytes are safe.
    RenameBeforeSync,
    /// A sync that failed is tried again, and believed then.
    RetrySync,
    /// Damage is taken for a torn tail.
    TornForDamage,
    /// There is one copy of each vote, and one that is damaged is taken for torn.
    TrustDamagedVote,
    /// Fronts pass reads on without a floor.
    ForgetFloor,
    /// A write whose outcome is unknown is sent again under a new counter.
    RetryUnderNewId,
    /// A replica that has lost its disk comes back under the identity of its lost log.
    VoteAfterAmnesia,
    /// The vote file does not survive a process.
    LoseVote,
    /// The log is cut behind the only whole snapshot.
    CutBehindNewest,
    /// A snapshot brings no sessions back.
    ForgetSessions,
    /// Heartbeats come from a thread of their own, and go on when nothing else does.
    BeatsFromAThread,
    /// The frames of one turn to one peer go out in another order.
    Reorder,
    /// No timer ever fires.
    SkipTimers,
}

const AT_THE_SEAM: [Mistake; 16] = [
    Mistake::NoticeBeforeSync,
    Mistake::VoteBeforeSync,
    Mistake::ForgetDirectory,
    Mistake::RenameBeforeSync,
    Mistake::RetrySync,
    Mistake::TornForDamage,
    Mistake::TrustDamagedVote,
    Mistake::ForgetFloor,
    Mistake::RetryUnderNewId,
    Mistake::VoteAfterAmnesia,
    Mistake::LoseVote,
    Mistake::CutBehindNewest,
    Mistake::ForgetSessions,
    Mistake::BeatsFromAThread,
    Mistake::Reorder,
    Mistake::SkipTimers,
];

impl Mistake {
    /// Every mistake.
    pub fn all() -> impl Iterator<Item = Self> {
        let roles = NodeMistake::ALL.into_iter().map(Self::Node);
        RingMistake::ALL.into_iter().map(Self::Ring).chain(roles).chain(AT_THE_SEAM)
    }

    /// Its name on the command line: that of the variant, in small letters with dashes.
    pub fn name(self) -> String {
        let variant = match self {
            Self::Ring(mistake) => format!("{mistake:?}"),
            Self::Node(mistake) => format!("{mistake:?}"),
            other => format!("{other:?}"),
        };
        let mut name = String::new();
        for (index, letter) in variant.chars().enumerate() {
            if letter.is_uppercase() && index > 0 {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// Whether the nodes make it, if they were built to.
    pub fn is_inside(self) -> bool {
        matches!(self, Self::Ring(_) | Self::Node(_))
    }

    /// The mistake with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|mistake| mistake.name() == name)
    }
}
