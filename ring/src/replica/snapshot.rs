//! Snapshots: what a copy of the state is a copy of, and how one of another replica takes the place of the own state.

use std::collections::VecDeque;

use pygmy_proto::message::LogEnd;

use super::Replica;
use super::api::{Checkpoint, Now};
use crate::StateMachine;
use crate::log::{Base, Log};
use crate::sessions::Sessions;

impl<S: StateMachine> Replica<S> {
    /// What a copy of the present state would be the state of: the position up to which it was applied. `None` while that
    /// is in the middle of a batch.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let base = if self.log.base().end.seq == self.applied {
            self.log.base()
        } else {
            let batch = self.log.batch_at(self.applied).filter(|batch| batch.last_seq() == self.applied)?;
            let header = batch.header();
            let end = LogEnd { epoch: header.epoch, seq: self.applied };
            Base { end, hash: header.hash_last, time_us: header.time_us }
        };
        let known = self.log.boundaries();
        let membership = self.memberships.iter().rev().find(|(seq, _)| *seq <= self.applied);
        Some(Checkpoint {
            base,
            boundaries: known.iter().filter(|boundary| boundary.first_seq <= self.applied).copied().collect(),
            membership: membership.map_or_else(|| self.config.membership.clone(), |(_, m)| m.clone()),
        })
    }

    /// Takes another replica's state in place of the own one; the log goes on behind it. The state is on the disk already;
    /// that the log there goes on behind it is told by [`super::Input::Durable`], as for a batch that ends there.
    ///
    /// False, and nothing is done, when the own log already goes further: a voter's acknowledgements are in it.
    pub fn install_snapshot(&mut self, now: Now, machine: S, sessions: Sessions, at: Checkpoint) -> bool {
        self.tick(now);
        let seq = at.base.end.seq;
        // One of an epoch that was not promised here yet is explained first.
        if seq <= self.log.last_seq() || at.base.end.epoch > self.promised {
            return false;
        }
        let was_installed = self.installed();
        self.state.replace(machine, sessions);
        self.log = Log::behind(at.base, &at.boundaries);
        self.memberships = VecDeque::from([(seq, at.membership)]);
        self.renew_catalogs();
        (self.on_disk, self.committed, self.applied) = (seq, seq, seq);
        // The state is safe, the promise of this epoch may not be: nothing is acknowledged in it before the log that begins
        // anew is on the disk, behind the vote.
        self.durable = 0;
        self.known_committed = self.known_committed.max(seq);
        self.known_end = self.known_end.max(seq);
        self.origins.clear();
        self.own.clear();
        self.own_bytes = 0;
        self.checks.clear();
        self.give_up_tickets(0);
        self.adoption_after_snapshot(seq);
        self.restore_vote();
        if self.installed() && !was_installed {
            self.on_installed(now);
        }
        self.append_early(now);
        self.note_end(now, self.known_end);
        true
    }
}
