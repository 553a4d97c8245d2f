//! Rare states, counted as they are reached: what no run reaches, no run tests.

use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::codec;
use pygmy_proto::message::Membership;
use pygmy_ring::PeerMessage;

use super::World;

macro_rules! rare {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// How often each rare state was reached.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Rare {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Rare {
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// The states that were never reached.
            pub fn never(&self) -> Vec<&'static str> {
                let all = [$((stringify!($field), self.$field)),*];
                all.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
            }
        }
    };
}

rare! {
    /// A log that did not count became a voter's.
    learners_promoted,
    /// A replacement began with the removal of a dead voter, or with the addition of a new one.
    dead_removed_first,
    new_added_first,
    /// The second half of a replacement was ordered, and by whom: not by the one who ordered the first.
    swaps_finished,
    swaps_finished_by_another,
    /// The voter in a slot whose disk was lost votes again, under its new name.
    lost_disks_replaced,
    /// Disks that silently lost what they had acknowledged, and disks that know that they are damaged.
    amnesias,
    damages,
    /// Votes withheld, and given back.
    votes_withheld,
    votes_given_back,
    /// A replica that has not begun its epoch yet fetched from the coordinator, or was given a snapshot.
    fetches_before_install,
    snapshots_before_install,
    /// The coordinator fetched the log that it had chosen.
    fetches_of_chosen_log,
    /// Frames of an older epoch refused.
    rejects,
    /// A holder that hears no majority gave up what it had numbered.
    deaf_holders,
    /// The holder itself asked for another epoch: it lacks what comes before the token, or was refused.
    asked_lacking_entries,
    asked_when_refused,
    /// A replica was suspected though its connection stood.
    suspicions,
    /// A configuration was undone by a truncation.
    configurations_undone,
}

impl World {
    /// What a frame that is being sent says of its sender.
    pub(super) fn count_sent(&mut self, from: u16, message: &PeerMessage) {
        let Some(replica) = self.replica(from) else { return };
        let rare = match message {
            PeerMessage::Reject(_) => &mut self.summary.rare.rejects,
            PeerMessage::Fetch(fetch) if !replica.installed() => {
                if fetch.epoch.node == from {
                    &mut self.summary.rare.fetches_of_chosen_log
                } else {
                    &mut self.summary.rare.fetches_before_install
                }
            }
            PeerMessage::PreVote(_) => match replica.token() {
                Some(token) if token.next_seq > replica.log().last_seq() + 1 => {
                    &mut self.summary.rare.asked_lacking_entries
                }
                Some(_) => &mut self.summary.rare.asked_when_refused,
                None => return,
            },
            _ => return,
        };
        *rare += 1;
    }

    /// A batch that is new: does it hold a configuration?
    pub(super) fn count_configuration(&mut self, batch: &Batch) {
        let Some(next) = configuration_in(batch) else { return };
        let rare = &mut self.summary.rare;
        let origin = batch.header().origin;
        let Some((before, orderer)) = self.last_ordered_configuration.replace((next.clone(), origin)) else { return };
        match (&before.swap, &next.swap) {
            (None, Some(_)) if next.voters.len() < before.voters.len() => rare.dead_removed_first += 1,
            (None, Some(_)) => rare.new_added_first += 1,
            (Some(_), None) => {
                rare.swaps_finished += 1;
                rare.swaps_finished_by_another += u64::from(origin != orderer);
            }
            _ => {}
        }
    }
}

/// The configuration that a batch holds, if it holds one.
pub fn configuration_in(batch: &Batch) -> Option<Membership> {
    let entry = batch.entries().next().filter(|entry| entry.kind == EntryKind::Config)?;
    codec::decode(entry.body).ok()
}
