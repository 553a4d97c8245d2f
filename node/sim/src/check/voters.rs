//! Who counts, for the checkers: the configurations that are committed, and those in force at whoever counts.

use std::collections::{BTreeMap, BTreeSet};

use pygmy_node::settings::{ClusterSettings, NodeSettings};
use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::codec;
use pygmy_proto::message::{Membership, Role, Voter};
use pygmy_proto::types::{Bounded, Text};
use pygmy_ring::LogUuid;

/// The voters as far as it is settled who they are, and as the processes saw them last.
#[derive(Debug)]
pub struct Voters {
    /// The latest configuration that is committed.
    settled: Membership,
    /// By process, what was in force in its log when it was looked at last.
    in_force: BTreeMap<u64, Membership>,
    /// Processes that have removed the end of their log in this turn.
    cut: BTreeSet<u64>,
}

impl Voters {
    /// Those that a cluster is born with.
    pub fn new(cluster: &ClusterSettings) -> Self {
        let voter = |node: &NodeSettings| Voter {
            node: node.number,
            log_uuid: node.log_uuid,
            holds_token: node.role == Role::Catalog,
            address: Text::default(),
        };
        let voters = cluster.replicas().map(voter).collect();
        let settled = Membership { id: 1, voters: Bounded::truncated(voters), ..Membership::default() };
        Self { settled, in_force: BTreeMap::new(), cut: BTreeSet::new() }
    }

    /// The latest configuration that is committed.
    pub fn settled(&self) -> &Membership {
        &self.settled
    }

    /// A batch is committed: it may say who votes from now on.
    pub fn on_committed(&mut self, batch: &Batch) {
        if let Some(membership) = configuration_of(batch) {
            self.settled = membership;
        }
    }

    /// A process removes the end of its log: a configuration that was there is in force no more, even if what comes in its
    /// place names the same voters.
    pub fn on_cut(&mut self, boot: u64) {
        self.cut.insert(boot);
    }

    /// All configurations that a process may have counted by in a turn: those that were in force before it, after it and,
    /// for one turn can take several, between. Where the end of the log was removed, that is the settled one, too.
    pub fn counted_by<'a>(
        &self,
        boot: u64,
        now: &Membership,
        since: impl Iterator<Item = &'a Batch>,
    ) -> Vec<Membership> {
        let before = self.in_force.get(&boot);
        let oldest = before.map_or(0, |before| before.id);
        let between = since.filter_map(configuration_of).filter(|membership| membership.id >= oldest);
        let settled = self.cut.contains(&boot).then_some(&self.settled);
        before.into_iter().chain([now]).chain(settled).cloned().chain(between).collect()
    }

    /// What is in force in the log of a process at the end of a turn.
    pub fn on_turn(&mut self, boot: u64, now: &Membership) {
        self.cut.remove(&boot);
        if self.in_force.get(&boot) != Some(now) {
            self.in_force.insert(boot, now.clone());
        }
    }
}

/// Whether `wanted` is true of the logs of more than half of the voters.
pub fn is_majority(membership: &Membership, wanted: impl Fn(LogUuid) -> bool) -> bool {
    let count = membership.voters.iter().filter(|voter| wanted(voter.log_uuid)).count();
    count > membership.voters.len() / 2
}

/// A configuration is an entry that has its batch to itself.
fn configuration_of(batch: &Batch) -> Option<Membership> {
    let entry = batch.entries().next().filter(|entry| entry.kind == EntryKind::Config)?;
    codec::decode(entry.body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(id: u64) -> Membership {
        Membership { id, ..Membership::default() }
    }

    #[test]
    fn a_configuration_that_was_cut_off_and_came_again_does_not_hide_the_one_between() {
        let ids = |voters: &Voters| -> Vec<u64> {
            let counted_by = voters.counted_by(7, &configuration(5), std::iter::empty());
            counted_by.iter().map(|membership| membership.id).collect()
        };
        let mut voters = Voters { settled: configuration(4), in_force: BTreeMap::new(), cut: BTreeSet::new() };
        voters.on_turn(7, &configuration(5));
        assert_eq!(ids(&voters), [5, 5], "nothing else was in force in this turn");
        voters.on_cut(7);
        assert_eq!(ids(&voters), [5, 5, 4]);
        voters.on_turn(7, &configuration(5));
        assert_eq!(ids(&voters), [5, 5], "the next turn is another one");
    }
}
