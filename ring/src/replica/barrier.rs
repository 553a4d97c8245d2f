//! Barriers: up to where a read must be applied to be fresh (RING §5).
//!
//! A read is fresh when it reflects every write that was answered to anybody before the read came. The replica that is
//! to answer it asks the voters how far they are, takes the maximum over a majority, and answers once it has applied that.
//! All reads that wait share a *round*: one question to each voter and one answer. A read that comes while a round is
//! under way belongs to the next one, whose questions are sent after it came. Nothing is synced, no voter counts on
//! anybody's clock, and no lease is held: a replica that was paused, cut off or removed finds no majority that agrees
//! with it. The timer only asks those again whose answer is missing or does not count yet.
//!
//! # Why it is safe
//!
//! Let `A` ask for a read that came at time *t*, let `e` be the epoch that `A` has promised and installed when it counts, and
//! `C` the latest configuration in its log then. An answer counts when its sender is a voter of `C`, had promised `e`,
//! and knew no later configuration than `C`; `Q` is a majority of `C` with such answers, all of them given after *t*. Let
//! `s` be a write that was answered before *t*, committed in epoch `e'`. The result of the round is at least `s`:
//!
//! * *e' below e.* Whatever was or will be committed below `e` is in the log that `e` began with, before its first entry,
//!   and the result is never below that entry. This is what makes the answers simple: a voter tells what it has
//!   acknowledged *in this epoch*, and that begins at nothing whenever an epoch begins; the maximum alone would then be
//!   zero while all that older epochs committed is there, and not applied here yet.
//! * *e' equal to e.* `s` was acknowledged in `e` by a majority `M` of the configuration that its counter knew. The voters
//!   change by one at a time, each change after the one before is committed. So if the counter's configuration was `C` or a
//!   neighbour of it, `M` and `Q` share a voter. If it was an older one, `s` lies before the configuration that precedes
//!   `C`, which is committed, so that a voter of `Q` has acknowledged more than `s`, or it is below `e`. If it was a later one,
//!   the configuration that follows `C` was committed before *t*, a voter of `Q` had it on disk, and its answer would not
//!   have counted.
//! * *e' above e.* The first epoch above `e` began before *t* with the promises of a majority of the configuration in its chosen
//!   log. That log has all that was committed below, so its configuration is `C`, a neighbour of `C` or a later one: a
//!   configuration is ordered only behind a committed entry of its own epoch, so two logs never differ by more than one
//!   that is not committed. By the same argument as above, some voter of `Q` had promised more than `e`, or knew a later
//!   configuration: its answer would not have counted.
//!
//! In an epoch a voter never takes back what it acknowledged, neither by a restart (what is on its disk is read again) nor by a
//! cut (which comes with a later promise). One whose disk did lose something does not answer: its vote is withheld.
//!
//! # Why it ends
//!
//! What a voter has acknowledged in `e` is part of the history of `e` and commits with it, or `e` is given up. Then the
//! result may lie beyond all that will ever be: whatever is not answered is asked anew in the next epoch.

use std::collections::{BTreeMap, VecDeque};

use pygmy_proto::message::{Barrier, BarrierAnswer, Voter};

use super::{Now, Output, PeerMessage, Replica, Target, Timer};
use crate::StateMachine;
use crate::config::{LogUuid, Mistake};

/// Voters whose answer is missing, or does not count yet, are asked again after this.
const ASK_AGAIN_NS: u64 = 50_000_000;
/// Results that may wait to be applied before no further round begins.
const RESULTS_MAX: usize = 64;

/// The reads that want to be fresh, as numbers: of tickets that only rise, the highest of each kind says it all.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    // Invariant: answered ≤ begun ≤ asked.
    /// Highest ticket that was asked for.
    asked: u64,
    /// Highest ticket that a round was begun for.
    begun: u64,
    /// Highest ticket that was answered.
    answered: u64,
    /// Number of this boot's latest round.
    number: u64,
    /// The round under way: what each log has answered.
    round: Option<BTreeMap<LogUuid, BarrierAnswer>>,
    /// Highest ticket and result of rounds that have ended, until the result is applied.
    results: VecDeque<(u64, u64)>,
}

impl<S: StateMachine> Replica<S> {
    /// A read that came wants to be fresh.
    pub(super) fn on_fresh(&mut self, ticket: u64) {
        if self.config.makes(Mistake::ReadWithoutBarrier) {
            self.outputs.push(Output::Fresh { ticket, seq: self.applied });
            return;
        }
        self.barriers.asked = self.barriers.asked.max(ticket);
        if self.config.makes(Mistake::BarrierServesLater) && self.barriers.round.is_some() {
            self.barriers.begun = self.barriers.asked;
        }
    }

    /// Another replica asks how far this one is.
    pub(super) fn on_barrier(&mut self, node: u16, ask: Barrier) {
        if self.withheld.is_some() {
            return;
        }
        let answer = BarrierAnswer {
            epoch: self.promised,
            boot_nonce: ask.boot_nonce,
            round: ask.round,
            config_id: self.membership().id,
            durable: self.durable,
        };
        self.send(Target::Node(node), PeerMessage::BarrierAnswer(answer));
    }

    pub(super) fn on_barrier_answer(&mut self, now: Now, node: u16, answer: BarrierAnswer) {
        let own = (self.config.boot_nonce, self.barriers.number);
        let Some(peer) = self.peers.get(&node).filter(|_| (answer.boot_nonce, answer.round) == own) else { return };
        let Some(round) = &mut self.barriers.round else { return };
        round.insert(peer.log_uuid, answer);
        if answer.epoch == self.promised {
            // Should it be beyond the end of this log, that is a gap to be closed.
            self.note_peer_end(node, answer.durable);
            self.note_end(now, answer.durable);
        }
    }

    /// Ends the round that has its majority, begins the next one for what has come meanwhile, answers what is applied.
    pub(super) fn drive_barriers(&mut self, now: Now) {
        self.end_round();
        self.begin_round(now);
        // A lone voter is its own majority.
        self.end_round();
        self.answer_barriers();
    }

    fn begin_round(&mut self, now: Now) {
        let barriers = &mut self.barriers;
        let wanted = barriers.asked > barriers.begun && barriers.round.is_none();
        // Before the epoch has begun here no answer would count.
        if !wanted || barriers.results.len() >= RESULTS_MAX || !self.installed() {
            return;
        }
        let barriers = &mut self.barriers;
        barriers.begun = barriers.asked;
        barriers.number += 1;
        barriers.round = Some(BTreeMap::new());
        self.counters.barrier_rounds += 1;
        self.ask_voters(now);
    }

    /// Asks the voters whose answer to the round under way is missing, or does not count.
    pub(super) fn ask_voters(&mut self, now: Now) {
        if self.barriers.round.is_none() {
            return;
        }
        let voters = &self.membership().voters;
        let missing = voters.iter().filter(|voter| self.counted(voter).is_none());
        let missing: Vec<LogUuid> = missing.map(|voter| voter.log_uuid).collect();
        let asked = self.peers.iter().filter(|(_, peer)| peer.up && missing.contains(&peer.log_uuid));
        let asked: Vec<u16> = asked.map(|(node, _)| *node).collect();
        let (boot_nonce, round) = (self.config.boot_nonce, self.barriers.number);
        for node in asked {
            self.send(Target::Node(node), PeerMessage::Barrier(Barrier { epoch: self.promised, boot_nonce, round }));
        }
        self.timers.set(Timer::Barrier, now.mono_ns + ASK_AGAIN_NS);
    }

    fn end_round(&mut self) {
        let Some(seq) = self.result_of_round() else { return };
        self.barriers.round = None;
        self.barriers.results.push_back((self.barriers.begun, seq));
        self.timers.stop(Timer::Barrier);
    }

    /// The position from which on reads of the round under way are fresh, if a majority has said enough.
    fn result_of_round(&self) -> Option<u64> {
        if self.barriers.round.is_none() || !self.installed() {
            return None;
        }
        let counted: Vec<u64> = self.membership().voters.iter().filter_map(|voter| self.counted(voter)).collect();
        let few = usize::from(self.config.makes(Mistake::BarrierOfFew));
        if counted.len() + few < self.majority() {
            return None;
        }
        let begins = if self.config.makes(Mistake::BarrierOfEpochAlone) { 0 } else { self.epoch_seq() };
        counted.into_iter().max().map(|durable| durable.max(begins))
    }

    /// What a voter has said, if that counts: it is in this epoch, and knows of no configuration that this log does not
    /// have. Looked at anew each time: this log may have caught up since the answer came.
    fn counted(&self, voter: &Voter) -> Option<u64> {
        if voter.log_uuid == self.config.log_uuid {
            return self.withheld.is_none().then_some(self.durable);
        }
        let answer = self.barriers.round.as_ref()?.get(&voter.log_uuid)?;
        let same_epoch = answer.epoch == self.promised || self.config.makes(Mistake::BarrierOfAnyEpoch);
        let known = answer.config_id <= self.membership().id;
        (same_epoch && known).then_some(answer.durable)
    }

    fn answer_barriers(&mut self) {
        while let Some((ticket, seq)) = self.barriers.results.front().copied().filter(|(_, seq)| *seq <= self.applied) {
            self.barriers.results.pop_front();
            self.barriers.answered = ticket;
            self.counters.barriers_answered += 1;
            self.outputs.push(Output::Fresh { ticket, seq });
        }
    }

    /// The epoch is given up, and with it perhaps what it made durable: what was not answered is asked in the next one.
    pub(super) fn repeat_barriers(&mut self) {
        let barriers = &mut self.barriers;
        if barriers.begun > barriers.answered {
            self.counters.barriers_repeated += 1;
        }
        barriers.begun = barriers.answered;
        barriers.round = None;
        barriers.results.clear();
        self.timers.stop(Timer::Barrier);
    }
}
