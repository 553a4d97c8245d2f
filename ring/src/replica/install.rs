//! The side of an epoch change that everybody takes part in (RING §3, 2, 4 and 5): promising, and moving to the epoch
//! that has begun.

use pygmy_proto::message::{Boundary, Epoch, Install, Prepare, Promise, Reject};
use pygmy_proto::types::Bounded;

use super::{Now, Output, PeerMessage, Replica, Target, Vote};
use crate::StateMachine;
use crate::config::Mistake;

/// An epoch that has begun elsewhere and is not installed here yet.
#[derive(Debug)]
pub(super) struct Adoption {
    /// What this log and the epoch's have in common.
    keep: u64,
    /// The vote that must be written down first has not been.
    waiting: bool,
}

impl<S: StateMachine> Replica<S> {
    /// Stops ordering, appending and acknowledging in all older epochs.
    pub(super) fn promise(&mut self, now: Now, epoch: Epoch) {
        self.end_campaign(now);
        self.repeat_barriers();
        self.promised = epoch;
        self.counters.promises += 1;
        self.watch.new_epoch(now.mono_ns);
        self.watch.highest_epoch = self.watch.highest_epoch.max(epoch);
        self.token = None;
        self.passed = None;
        self.token_hop_received = 0;
        self.holder = (0, 0);
        self.wanting = false;
        self.durable = 0;
        self.known_end = self.log.last_seq();
        self.early.clear();
        self.early_bytes = 0;
        self.fetching_from = None;
        self.adoption = None;
        self.owed = None;
        self.timers.stop(super::Timer::Gap);
        for peer in self.peers.values_mut() {
            peer.durable = 0;
            peer.unverified = None;
            peer.refused_fetch = None;
        }
    }

    /// Writes the promise down.
    pub(super) fn write_vote(&mut self) {
        self.put_vote(Vote { promised: self.promised, cut: self.vote_asked.cut });
    }

    /// Writes down, together with the promise, that a part of this log may go.
    pub(super) fn write_cut(&mut self) {
        self.put_vote(Vote { promised: self.promised, cut: self.promised });
    }

    fn put_vote(&mut self, vote: Vote) {
        self.vote_asked = vote;
        self.outputs.push(Output::Vote(vote));
    }

    pub(super) fn on_vote_durable(&mut self, now: Now, vote: Vote) {
        self.vote = vote;
        if vote.promised != self.promised {
            return;
        }
        self.own_promise_is_durable(now);
        self.pay_promise();
        if vote != self.vote_asked {
            return;
        }
        self.cut_for_chosen(now);
        if let Some(adoption) = self.adoption.as_mut().filter(|adoption| adoption.waiting) {
            adoption.waiting = false;
            let keep = adoption.keep;
            self.truncate(keep);
            self.follow(now);
        }
    }

    pub(super) fn on_prepare(&mut self, now: Now, node: u16, prepare: &Prepare) {
        if prepare.epoch < self.promised {
            self.send(Target::Node(node), PeerMessage::Reject(Reject { epoch: self.promised }));
            return;
        }
        let meant = prepare.voters.contains(&self.config.log_uuid) || self.votes(self.config.log_uuid);
        if self.withheld.is_some() || !meant || prepare.epoch.node != node {
            return;
        }
        if prepare.epoch == self.promised {
            if !self.installed() && self.adoption.is_none() {
                self.owed = Some((node, prepare.boot_nonce));
                self.pay_promise();
            }
            return;
        }
        self.promise(now, prepare.epoch);
        self.owed = Some((node, prepare.boot_nonce));
        self.write_vote();
        if self.config.makes(Mistake::PromiseNotDurable) {
            self.send_promise();
        }
    }

    /// Answers for the promise, if one is owed and it is on the disk.
    fn pay_promise(&mut self) {
        if self.vote.promised == self.promised {
            self.send_promise();
        }
    }

    fn send_promise(&mut self) {
        let Some((node, boot_nonce)) = self.owed.take() else { return };
        let mut last = self.log.end();
        if self.config.makes(Mistake::AckOldSync) && self.on_disk < last.seq {
            last.seq = self.on_disk;
        }
        let promise = Promise {
            epoch: self.promised,
            boot_nonce,
            last,
            last_hash: self.log.hash_at(last.seq).unwrap_or_default(),
            committed: self.committed,
            boundaries: self.log.boundaries(),
            membership: self.membership().clone(),
        };
        self.send(Target::Node(node), PeerMessage::Promise(promise));
    }

    /// What tells others that the epoch installed here has begun.
    pub(super) fn install_message(&self) -> Option<Install> {
        let boundary = self.log.last_boundary().filter(|boundary| boundary.epoch == self.promised)?;
        self.install_message_at(boundary.first_seq)
    }

    pub(super) fn install_message_at(&self, first_seq: u64) -> Option<Install> {
        let before = self.log.boundaries();
        let before: Vec<Boundary> = before.iter().filter(|boundary| boundary.first_seq < first_seq).copied().collect();
        Some(Install { epoch: self.promised, first_seq, boundaries: Bounded::truncated(before) })
    }

    /// Position of the first entry of the epoch installed here; 0 when none is.
    pub(super) fn epoch_seq(&self) -> u64 {
        let boundary = self.log.last_boundary().filter(|boundary| boundary.epoch == self.promised);
        boundary.map_or(0, |boundary| boundary.first_seq)
    }

    pub(super) fn on_install(&mut self, now: Now, node: u16, install: &Install) {
        if install.epoch < self.promised {
            self.send(Target::Node(node), PeerMessage::Reject(Reject { epoch: self.promised }));
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.promised = install.epoch;
            peer.last.epoch = install.epoch;
            peer.last.seq = peer.last.seq.max(install.first_seq);
        }
        let known = install.epoch == self.promised && (self.installed() || self.adoption.is_some());
        if known || install.first_seq == 0 {
            return;
        }
        let met_only_now = install.epoch > self.promised;
        if met_only_now {
            self.promise(now, install.epoch);
        }
        self.end_campaign(now);
        self.watch.new_epoch(now.mono_ns);
        self.owed = None;
        let common = self.log.common_prefix(&install.boundaries, install.first_seq - 1);
        // Logs that name no epoch in common still agree on what is committed.
        let keep = common.unwrap_or(self.committed);
        let cutting = keep < self.log.last_seq() && !self.config.makes(Mistake::KeepOldSuffix);
        let waiting = cutting || self.vote.promised != self.promised;
        self.adoption = Some(Adoption { keep, waiting });
        // What this log has beyond that will be gone.
        self.known_end = keep.min(self.log.last_seq());
        self.note_end(now, install.first_seq);
        if cutting {
            self.write_cut();
        } else if met_only_now {
            self.write_vote();
        }
        if !waiting {
            self.follow(now);
        }
    }

    /// This log now begins behind a snapshot, which is part of every log that can be chosen.
    pub(super) fn adoption_after_snapshot(&mut self, seq: u64) {
        if let Some(adoption) = &mut self.adoption {
            adoption.keep = seq;
        }
    }

    /// What is left of this log is part of the epoch's: the rest may follow.
    fn follow(&mut self, now: Now) {
        self.append_early(now);
        self.note_end(now, self.known_end);
        if !self.installed() && self.fetching_from.is_none() && self.log.last_seq() + 1 < self.known_end {
            self.on_gap_timer(now);
        }
    }

    /// Whether batches from `node` may be appended: the epoch is installed, or what is appended leads up to it.
    pub(super) fn may_append_from(&self, node: u16) -> bool {
        self.may_append() || self.takes_chosen_from(node)
    }

    /// The same for what is held already.
    pub(super) fn may_append(&self) -> bool {
        self.installed() || self.adoption.as_ref().is_some_and(|adoption| !adoption.waiting)
    }

    /// The epoch's first entry is in this log.
    pub(super) fn on_installed(&mut self, now: Now) {
        self.counters.epochs_installed += 1;
        self.adoption = None;
        self.owed = None;
        self.watch.new_epoch(now.mono_ns);
        self.campaign.installed();
        if self.holder.1 == 0 {
            self.note_view(1, self.promised.node);
        }
        self.verify_acks(now);
    }

    /// Removes everything behind `keep` and whatever was known of it.
    pub(super) fn truncate(&mut self, keep: u64) {
        if keep >= self.log.last_seq() {
            return;
        }
        if keep < self.committed {
            let committed = self.committed;
            self.fatal(format!("an epoch would remove what is committed: keep {keep}, committed {committed}"));
            return;
        }
        if !self.log.truncate(keep) {
            self.fatal(format!("an epoch would cut a batch in two at seq {keep}"));
            return;
        }
        self.counters.truncations += 1;
        self.on_disk = self.on_disk.min(keep);
        self.durable = self.durable.min(keep);
        self.truncate_memberships(keep);
        while self.origins.back().is_some_and(|(last, _)| *last > keep) {
            self.origins.pop_back();
        }
        while self.own.back().is_some_and(|batch| batch.last_seq > keep) {
            self.own_bytes -= self.own.pop_back().map_or(0, |batch| batch.bytes);
        }
        self.give_up_tickets(keep);
    }

    /// Numbered writes behind `keep` may take effect or not: who sent them must ask again.
    pub(super) fn give_up_tickets(&mut self, keep: u64) {
        while self.tickets.back().is_some_and(|ticket| ticket.seq > keep) {
            if let Some(ticket) = self.tickets.pop_back() {
                self.counters.unknown += 1;
                self.outputs.push(Output::Unknown { ticket: ticket.ticket });
            }
        }
    }
}
