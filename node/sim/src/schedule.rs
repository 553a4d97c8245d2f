//! Which faults will come, drawn before a run begins, so that some of them can be left out while the others stay.

use std::collections::BTreeSet;

use crate::chance::Chance;
use crate::events::Fault;
use crate::plan::{Faults, Plan};

/// A fault that is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub at: u64,
    /// Which.
    pub fault: Fault,
    /// Decides whom it meets, and how.
    pub(crate) seed: u64,
}

/// All faults of a run that come at some moment.
#[derive(Debug, Default)]
pub struct Schedule {
    /// They, in no order.
    pub faults: Vec<Planned>,
    /// Decides what happens when the faults end.
    pub(crate) end_seed: u64,
}

impl Schedule {
    /// What a run has before it.
    pub fn draw(plan: &Plan, chance: &mut Chance) -> Self {
        let mut schedule = Self { faults: Vec::new(), end_seed: chance.word() };
        for fault in Fault::ALL {
            // Each kind has its own stream: more of one changes nothing about another.
            // The last ones take nothing from the source: seeds without them are what they were before there were such faults.
            let word = match fault {
                Fault::Replace => chance.clone().word(),
                Fault::Feed => chance.clone().word().rotate_left(1),
                Fault::Deaf => chance.clone().word().rotate_left(2),
                _ => chance.word(),
            };
            let mut own = Chance::new(word);
            let Some(every) = plan.faults.mean_time_between(fault) else { continue };
            let mut at = own.around(every);
            while at < plan.chaos {
                schedule.faults.push(Planned { at, fault, seed: own.word() });
                at += own.around(every).max(1);
            }
        }
        schedule
    }
}

/// A kind of fault that has no moment, or comes with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quiet {
    /// No attempt to connect fails.
    Connects,
    /// No write to a connection is held up.
    Hiccups,
    /// No sync takes long.
    Stalls,
    /// No datagram is lost.
    Losses,
    /// No datagram is late or double.
    Strays,
    /// All clocks run alike.
    Skew,
    /// Whoever dies is killed; no power fails.
    Power,
    /// No power fails while files are opened.
    PowerAtStart,
    /// All that is on a disk can be read.
    Unreadable,
    /// No disk is full because of a snapshot that comes.
    FullTransfers,
    /// Nothing breaks at the very end.
    LastResets,
    /// Nobody stays dead.
    Graves,
}

impl Quiet {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Connects,
        Self::Hiccups,
        Self::Stalls,
        Self::Losses,
        Self::Strays,
        Self::Skew,
        Self::Power,
        Self::PowerAtStart,
        Self::Unreadable,
        Self::FullTransfers,
        Self::LastResets,
        Self::Graves,
    ];

    /// What it is about: a part of the plan, which is 0 when this kind never comes.
    fn part(self, plan: &mut Plan) -> &mut u64 {
        let Plan { faults, skew_ppm, .. } = plan;
        let Faults { connect_fail_permille, hiccup_permille, stall_permille, loss_permille, stray_permille, .. } =
            faults;
        match self {
            Self::Connects => connect_fail_permille,
            Self::Hiccups => hiccup_permille,
            Self::Stalls => stall_permille,
            Self::Losses => loss_permille,
            Self::Strays => stray_permille,
            Self::Skew => skew_ppm,
            Self::Power => &mut faults.power_permille,
            Self::PowerAtStart => &mut faults.power_at_start_permille,
            Self::Unreadable => &mut faults.unreadable_permille,
            Self::FullTransfers => &mut faults.full_transfers_permille,
            Self::LastResets => &mut faults.last_resets_permille,
            Self::Graves => &mut faults.graves_permille,
        }
    }
}

/// What of a seed's run is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Faults, by their place in the [`Schedule`].
    pub faults: BTreeSet<usize>,
    /// Kinds of faults without a moment.
    pub kinds: BTreeSet<Quiet>,
    /// The faults end at this time at the latest.
    pub chaos: Option<u64>,
}

impl Reduction {
    /// What is left of a plan.
    pub(crate) fn apply(&self, plan: &mut Plan) {
        for kind in &self.kinds {
            *kind.part(plan) = 0;
        }
        plan.chaos = self.chaos.map_or(plan.chaos, |chaos| chaos.min(plan.chaos));
    }
}
