//! Who counts: configurations in the log, and how they change (RING §4).
//!
//! A configuration is in force from the moment at which it is appended and is undone when it is truncated. It changes by
//! one voter at a time, one change in flight, and only once an entry of the current epoch is committed; so majorities
//! of neighbouring configurations always meet.

use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::codec;
use pygmy_proto::limits::{ADDRESS_LEN_MAX, REMOVED_MAX, REPLICAS_MAX};
use pygmy_proto::message::{Acked, LogEnd, MemberStatus, Membership, Swap, Voter};
use pygmy_proto::types::{Bounded, Text};

use super::{Change, NotTaken, Now, Output, Peer, Replica, Withheld};
use crate::StateMachine;
use crate::config::{LogUuid, Mistake};

/// How far behind the end of what is committed a learner may be to become a voter, in entries: what is under way
/// within a round trip.
const NEAR_THE_END: u64 = 8_192;

impl<S: StateMachine> Replica<S> {
    /// The configuration in force: the latest in this log.
    pub fn membership(&self) -> &Membership {
        // There is always one: the birth configuration is never removed.
        self.memberships.back().map_or(&self.config.membership, |(_, membership)| membership)
    }

    /// Whether the latest configuration in this log names the log `uuid` as a voter.
    pub fn votes(&self, uuid: LogUuid) -> bool {
        self.membership().voters.iter().any(|voter| voter.log_uuid == uuid)
    }

    /// Whether the log `uuid` was removed for ever, by a configuration that is committed.
    pub fn is_removed(&self, uuid: LogUuid) -> bool {
        let committed = self.memberships.iter().rev().find(|(seq, _)| *seq <= self.committed);
        committed.is_some_and(|(_, membership)| membership.removed.contains(&uuid))
    }

    /// The latest configuration that is known to be committed.
    pub fn settled_membership(&self) -> &Membership {
        let settled = self.memberships.iter().rev().find(|(seq, _)| *seq <= self.committed);
        settled.map_or(&self.config.membership, |(_, membership)| membership)
    }

    /// Takes account of a log replica that was not known when this one started: one that is to take another's place.
    pub(super) fn meet(&mut self, node: u16) {
        if self.peers.contains_key(&node) || node == self.config.me {
            return;
        }
        if self.peers.len() >= REPLICAS_MAX {
            // Somebody who came, never voted and is gone makes room.
            let idle = |node: &u16, peer: &Peer| !peer.up && !self.votes(peer.log_uuid) && !self.is_planned(*node);
            let Some(gone) = self.peers.iter().find(|(node, peer)| idle(node, peer)).map(|(node, _)| *node) else {
                return log::warn!("node {node} is one log replica too many: it is not heard");
            };
            self.peers.remove(&gone);
            self.detector.forget(gone);
        }
        self.peers.insert(node, Peer::default());
        self.detector.meet(node);
    }

    /// Whether this replica was started with `node` for a peer.
    fn is_planned(&self, node: u16) -> bool {
        self.config.peers.contains(&node)
    }

    /// Forgets the peers whose logs were removed for ever and that are gone.
    pub(super) fn forget_removed(&mut self) {
        let gone = |peer: &Peer| !peer.up && self.is_removed(peer.log_uuid);
        let nodes: Vec<u16> = self.peers.iter().filter(|(_, peer)| gone(peer)).map(|(node, _)| *node).collect();
        for node in nodes {
            self.peers.remove(&node);
            self.detector.forget(node);
        }
    }

    /// Takes from the configuration in force who may hold the token: those this replica was started with, and those
    /// that have come since. Who was replaced is never heard again, which keeps the token from it.
    pub(super) fn renew_catalogs(&mut self) {
        let mut catalogs = self.config.catalogs.clone();
        let voters = self.membership().voters.iter().filter(|voter| voter.holds_token);
        catalogs.extend(voters.map(|voter| voter.node).filter(|node| !self.config.catalogs.contains(node)));
        self.catalogs = catalogs;
    }

    /// The voters, and after them the peers that only follow, as seen from here.
    pub(super) fn members(&self) -> Vec<MemberStatus> {
        let voters = self.membership().voters.iter();
        let mut members: Vec<MemberStatus> = voters.map(|voter| self.voter_status(voter)).collect();
        if !self.votes(self.config.log_uuid) {
            members.push(self.own_status(false, Text::default()));
        }
        let followers = self.peers.iter().filter(|(_, peer)| peer.log_uuid != [0; 16] && !self.votes(peer.log_uuid));
        members.extend(followers.map(|(node, peer)| self.peer_status(*node, peer)));
        members
    }

    fn voter_status(&self, voter: &Voter) -> MemberStatus {
        if voter.log_uuid == self.config.log_uuid {
            return self.own_status(true, voter.address.clone());
        }
        let known = self.peers.iter().find(|(_, peer)| peer.log_uuid == voter.log_uuid);
        let mut status = known.map_or_else(
            || MemberStatus { log_uuid: voter.log_uuid, ..MemberStatus::default() },
            |(node, peer)| self.peer_status(*node, peer),
        );
        (status.node, status.voter, status.address) = (voter.node, true, voter.address.clone());
        status
    }

    fn peer_status(&self, node: u16, peer: &Peer) -> MemberStatus {
        MemberStatus {
            node,
            log_uuid: peer.log_uuid,
            address: peer.address.clone(),
            voter: false,
            withheld: peer.withheld,
            heard: self.is_heard(node),
            last_seq: peer.last.seq,
            durable: peer.durable,
        }
    }

    fn own_status(&self, voter: bool, address: Text<ADDRESS_LEN_MAX>) -> MemberStatus {
        MemberStatus {
            node: self.config.me,
            log_uuid: self.config.log_uuid,
            address,
            voter,
            withheld: self.withheld.is_some(),
            heard: true,
            last_seq: self.log.last_seq(),
            durable: self.durable,
        }
    }

    /// Voters that must have an entry before it is committed.
    pub(super) fn majority(&self) -> usize {
        self.membership().voters.len() / 2 + 1
    }

    /// Notes what a batch that is being appended says of epochs and voters, and takes it into the log.
    pub(super) fn take_into_log(&mut self, batch: Batch) {
        let first = batch.entries().next().filter(|entry| entry.kind == EntryKind::Config);
        if let Some(entry) = first {
            match codec::decode::<Membership>(entry.body) {
                Ok(membership) => {
                    self.memberships.push_back((entry.seq, membership));
                    self.renew_catalogs();
                }
                Err(error) => self.fatal(format!("the configuration at seq {} cannot be read: {error}", entry.seq)),
            }
        }
        self.log.push(batch);
    }

    /// Undoes the configurations behind `keep`.
    pub(super) fn truncate_memberships(&mut self, keep: u64) {
        while self.memberships.len() > 1 && self.memberships.back().is_some_and(|(seq, _)| *seq > keep) {
            self.memberships.pop_back();
        }
        self.renew_catalogs();
    }

    /// Forgets configurations that a committed one has replaced.
    pub(super) fn settle_memberships(&mut self) {
        while self.memberships.get(1).is_some_and(|(seq, _)| *seq <= self.committed) {
            self.memberships.pop_front();
            self.counters.configurations += 1;
            self.forget_removed();
        }
        if self.is_removed(self.config.log_uuid) && !self.leaving {
            log::warn!("this log is no longer part of the cluster");
            self.leaving = true;
        }
    }

    /// A peer remembers what this log acknowledged. Should the log have lost that, its vote must not count until it is
    /// back (RING §4, amnesia).
    pub(super) fn remember_own_acknowledgement(&mut self, acked: &Acked) {
        // By position alone: what was acknowledged in an epoch may end before that epoch's first entry, and since the
        // last cut this log has only grown.
        // A log that has reached a later epoch on its disk, repaired or not, has what was committed before: nobody would
        // give it its vote back, for nothing is missing.
        let lost = acked.log_uuid == self.config.log_uuid
            && acked.end.epoch >= self.vote.cut
            && acked.end.seq > self.log.last_seq()
            && acked.end.epoch >= self.log.epoch_at(self.on_disk);
        if !lost || self.config.makes(Mistake::EmptyDiskVotes) {
            return;
        }
        log::error!(
            "this log once acknowledged {:?} and now ends at {:?}: its vote is withheld",
            acked.end,
            self.log.end()
        );
        let promised = self.promised;
        let withheld = self.withheld.get_or_insert(Withheld { until: Vec::new(), promised });
        withheld.promised = withheld.promised.max(promised);
        let covers = |one: &LogEnd, other: &LogEnd| one.epoch >= other.epoch && one.seq >= other.seq;
        if !withheld.until.iter().any(|end| covers(end, &acked.end)) {
            withheld.until.retain(|end| !covers(&acked.end, end));
            withheld.until.push(acked.end);
        }
    }

    /// Gives the vote back once the log has reached what it had lost, durably, or is in an epoch that it did not help to
    /// start. It does not wait for the rest: that vote may be the one that is missing.
    pub(super) fn restore_vote(&mut self) {
        let Some(Withheld { until, promised }) = &self.withheld else { return };
        // Nothing of an older epoch was appended since.
        let epoch = self.log.epoch_at(self.on_disk);
        let reached = until.iter().all(|end| self.on_disk >= end.seq || epoch > end.epoch);
        let beyond = self.installed() && self.promised > *promised && self.durable >= self.epoch_seq();
        if reached || beyond {
            log::info!("this log has caught up with what it had lost: it votes again");
            self.withheld = None;
        }
    }

    pub(super) fn on_change(&mut self, ticket: u64, change: Change) {
        let refusal = if !self.config.is_catalog() {
            Some(NotTaken::NotACatalog)
        } else if self.leaving {
            Some(NotTaken::Leaving)
        } else if self.changes.is_empty() {
            None
        } else {
            Some(NotTaken::ChangeRefused("another change of the voters waits to be ordered"))
        };
        match refusal {
            Some(why) => self.refuse(ticket, why),
            None => self.changes.push_back((ticket, change)),
        }
    }

    /// Whether a configuration may be ordered now: this epoch has committed an entry, and the change before is committed.
    fn may_reconfigure(&self) -> bool {
        if self.config.makes(Mistake::ChangeTooEarly) {
            return true;
        }
        let latest = self.memberships.back().map_or(0, |(seq, _)| *seq);
        self.installed() && self.committed >= self.epoch_seq() && self.committed >= latest
    }

    /// The holder's part in changes of the voters: orders what was proposed, and the second half of a swap.
    pub(super) fn drive_changes(&mut self, now: Now) {
        if self.token.is_none() || !self.may_reconfigure() || !self.may_number() {
            return;
        }
        if let Some(next) = self.second_change() {
            self.order_alone(now, EntryKind::Config, &codec::encode(&next), None);
            return;
        }
        let Some((ticket, change)) = self.changes.pop_front() else { return };
        match self.first_change(&change) {
            Ok(next) => self.order_alone(now, EntryKind::Config, &codec::encode(&next), Some(ticket)),
            Err(why) => self.refuse(ticket, NotTaken::ChangeRefused(why)),
        }
    }

    /// The configuration that begins a replacement: a dead voter goes first, beside a living one the new comes first.
    fn first_change(&self, change: &Change) -> Result<Membership, &'static str> {
        let Change::Replace { old, new } = change;
        let current = self.membership();
        if let Some(swap) = &current.swap {
            // What was to come may itself be gone for good: another log may take its place before it votes.
            let again = swap.old == *old && !self.votes(swap.new.log_uuid);
            if !again || self.votes(new.log_uuid) || current.removed.contains(&new.log_uuid) {
                return Err("another replacement is under way");
            }
            let swap = Swap { old: *old, new: new.clone() };
            return Ok(Membership { id: current.id + 1, swap: Some(swap), ..current.clone() });
        }
        if !self.votes(*old) {
            return Err("the log that is to go is none of the voters");
        }
        if self.votes(new.log_uuid) || current.removed.contains(&new.log_uuid) {
            return Err("the log that is to come votes already, or was removed for ever");
        }
        let swap = Swap { old: *old, new: new.clone() };
        if self.config.makes(Mistake::DirectSwap) {
            return Ok(add(&remove(current, *old), new));
        }
        let lives = self.log_is_heard(*old);
        if lives && current.voters.len() == REPLICAS_MAX {
            return Err("there are as many voters as there may be: stop the one that is to go first");
        }
        let next = if lives { add(current, new) } else { remove(current, *old) };
        let next = Membership { swap: Some(swap), ..next };
        let heard = next.voters.iter().filter(|voter| self.log_is_heard(voter.log_uuid)).count();
        if heard < next.voters.len() / 2 + 1 {
            return Err("no majority of the voters that there would be is heard");
        }
        if lives && !self.is_ready(new.log_uuid) {
            // A voter more that is not there yet would raise the majority and stand for nobody.
            return Err("the log that is to come is still learning");
        }
        Ok(next)
    }

    /// The configuration that ends the replacement under way, once the new voter is ready for it.
    fn second_change(&self) -> Option<Membership> {
        let current = self.membership();
        let Swap { old, new } = current.swap.as_ref()?;
        if self.votes(new.log_uuid) {
            return Some(remove(current, *old));
        }
        self.is_ready(new.log_uuid).then(|| add(current, new))
    }

    /// Whether the log `uuid` follows and is so near to the end that it may vote.
    fn is_ready(&self, uuid: LogUuid) -> bool {
        let near = |peer: &Peer| peer.durable + NEAR_THE_END >= self.committed;
        let ready = self.peers.values().any(|peer| peer.up && peer.log_uuid == uuid && near(peer));
        ready || self.config.log_uuid == uuid
    }

    fn log_is_heard(&self, uuid: LogUuid) -> bool {
        let own = uuid == self.config.log_uuid;
        own || self.peers.iter().any(|(node, peer)| peer.log_uuid == uuid && self.is_heard(*node))
    }

    /// Hands the changes back that were not ordered.
    pub(super) fn hand_back_changes(&mut self, why: NotTaken) {
        while let Some((ticket, _)) = self.changes.pop_front() {
            self.outputs.push(Output::Refused { ticket, why });
        }
    }
}

fn add(current: &Membership, new: &Voter) -> Membership {
    let mut voters = current.voters.to_vec();
    voters.push(new.clone());
    // Ring order is by node number: it does not depend on the order of replacements.
    voters.sort_by_key(|voter| voter.node);
    Membership { id: current.id + 1, voters: Bounded::truncated(voters), swap: None, removed: current.removed.clone() }
}

fn remove(current: &Membership, old: LogUuid) -> Membership {
    let voters = current.voters.iter().filter(|voter| voter.log_uuid != old).cloned().collect();
    let mut removed = current.removed.to_vec();
    if removed.len() == REMOVED_MAX {
        removed.remove(0);
    }
    removed.push(old);
    Membership {
        id: current.id + 1,
        voters: Bounded::truncated(voters),
        swap: None,
        removed: Bounded::truncated(removed),
    }
}
