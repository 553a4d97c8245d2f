//! Acknowledgements, the commit and the application (RING §2, 4 to 6).

use std::collections::BTreeSet;

use bytes::Bytes;
use pygmy_proto::batch::{Batch, Entry};
use pygmy_proto::message::{Ack, Commit, Epoch, LogEnd, TokenDurable, Voter};

use super::{
    CHECK_EVERY, CHECKS_KEPT, COMMIT_NOTICE_NS, Completion, Now, Output, PeerMessage, Replica, Target, Timer,
    WriteResult,
};
use crate::StateMachine;
use crate::config::Mistake;

impl<S: StateMachine> Replica<S> {
    pub(super) fn on_durable(&mut self, now: Now, epoch: Epoch, seq: u64, hash: u128) {
        // What was removed meanwhile is on the disk too, and of no use.
        if seq > self.log.last_seq() || self.log.hash_at(seq).is_some_and(|own| own != hash) {
            if epoch == self.promised {
                let end = self.log.end();
                self.fatal(format!(
                    "the log writer reports seq {seq} durable, which is not what it was given up to {end:?}"
                ));
            }
            return;
        }
        // What was submitted before a snapshot took its place says nothing new.
        if seq < self.log.base().end.seq {
            return;
        }
        self.on_disk = self.on_disk.max(seq);
        self.restore_vote();
        // A sync of what was appended in an older epoch says nothing about this one: the log may have been another.
        let old = epoch != self.promised && !self.config.makes(Mistake::AckOldSync);
        if old || !self.may_acknowledge() || seq <= self.durable {
            return;
        }
        self.durable = seq;
        for batch in self.own.iter_mut().filter(|batch| batch.last_seq <= seq && batch.durable_ns.is_none()) {
            batch.durable_ns = Some(now.mono_ns);
        }
        self.restore_vote();
        self.acknowledge();
        self.count_votes(now);
    }

    /// Nothing is acknowledged in an epoch before its first entry is in the log.
    fn may_acknowledge(&self) -> bool {
        self.installed() || self.config.makes(Mistake::CommitOldEpoch) || self.config.makes(Mistake::AckOldSync)
    }

    /// One acknowledgement per sync, to the origins of what is not committed and to the token's holder.
    fn acknowledge(&mut self) {
        let mut to: BTreeSet<u16> = self.origins.iter().map(|(_, origin)| *origin).collect();
        to.insert(self.holder.1);
        to.remove(&self.config.me);
        // Until this epoch has committed something, those whose entries it has taken over do not count for others.
        if self.committed < self.epoch_seq() || to.iter().any(|node| !self.is_up(*node)) {
            // Whoever counts in its place is not known here.
            self.acknowledge_to_all();
            return;
        }
        for node in to {
            self.send_ack(node);
        }
    }

    /// Tells every replica with a link how far this one is: when the one that would have told them may be gone.
    pub(super) fn acknowledge_to_all(&mut self) {
        let up: Vec<u16> = self.peers.iter().filter(|(_, peer)| peer.up).map(|(node, _)| *node).collect();
        for node in up {
            self.send_ack(node);
        }
    }

    pub(super) fn send_ack(&mut self, node: u16) {
        if self.withheld.is_some() || !self.may_acknowledge() {
            return;
        }
        let durable = if self.config.makes(Mistake::AckBeforeSync) { self.log.last_seq() } else { self.durable };
        let Some(hash) = self.log.hash_at(durable) else { return };
        let (checked_seq, checked_hash) = self.checks.back().copied().unwrap_or_default();
        let ack = Ack { epoch: self.promised, durable, hash, committed: self.committed, checked_seq, checked_hash };
        self.send(Target::Node(node), PeerMessage::Ack(ack));
    }

    pub(super) fn on_ack(&mut self, now: Now, node: u16, ack: Ack) {
        self.compare_state(node, ack.checked_seq, ack.checked_hash);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.last.epoch = self.promised;
        }
        self.hear_durable(now, node, ack.durable, ack.hash);
        self.learn_commit(now, node, ack.committed);
    }

    /// `node` says that it has the log of this epoch durably up to here.
    pub(super) fn hear_durable(&mut self, now: Now, node: u16, seq: u64, hash: u128) {
        self.note_peer_end(node, seq);
        self.note_end(now, seq);
        if let Some(peer) = self.peers.get_mut(&node) {
            let end = LogEnd { epoch: self.promised, seq };
            let highest = self.acked.entry(peer.log_uuid).or_default();
            *highest = (*highest).max(end);
            peer.unverified = Some((seq, hash));
        }
        self.verify_acks(now);
    }

    /// Counts what was acknowledged as far as it can be compared with this replica's own log.
    pub(super) fn verify_acks(&mut self, now: Now) {
        if !self.installed() {
            return;
        }
        for (node, peer) in &mut self.peers {
            let Some((seq, hash)) = peer.unverified else { continue };
            if seq > self.log.last_seq() {
                continue;
            }
            peer.unverified = None;
            // What is committed needs no comparison, and may no longer be held here.
            let same = seq <= self.committed || self.log.hash_at(seq) == Some(hash);
            if same {
                peer.durable = peer.durable.max(seq);
            } else {
                log::error!("node {node} acknowledges another entry at seq {seq} than this log holds: not counted");
            }
        }
        self.count_votes(now);
    }

    /// Commits up to the majority-th highest durable position of the configured voters, within this log.
    pub(super) fn count_votes(&mut self, now: Now) {
        let mut durable: Vec<u64> = self.membership().voters.iter().map(|voter| self.durable_of(voter)).collect();
        durable.sort_unstable_by(|a, b| b.cmp(a));
        let mut majority = self.majority();
        if self.config.makes(Mistake::MajorityOfLiving) {
            let living = self.peers.values().filter(|peer| peer.up).count() + 1;
            majority = (living / 2 + 1).min(durable.len());
        }
        let mut reached = durable[majority - 1];
        if self.config.makes(Mistake::ApplyUncommitted) {
            reached = self.durable;
        }
        // What older epochs left is committed by this one's first entry, never by itself (Raft §5.4.2).
        let covered = self.installed() && reached >= self.epoch_seq();
        if covered || self.config.makes(Mistake::CommitOldEpoch) {
            self.commit_to(now, reached.min(self.log.last_seq()));
        }
    }

    fn durable_of(&self, voter: &Voter) -> u64 {
        if voter.log_uuid == self.config.log_uuid {
            return if self.withheld.is_some() { 0 } else { self.durable };
        }
        if self.config.makes(Mistake::CountByNode) {
            return self.peers.get(&voter.node).map_or(self.durable, |peer| peer.durable);
        }
        let theirs = self.peers.values().filter(|peer| peer.log_uuid == voter.log_uuid);
        theirs.map(|peer| peer.durable).max().unwrap_or(0)
    }

    /// Takes what the token knows of one voter: whoever passed it has compared it with this same history.
    pub(super) fn learn_durable(&mut self, voter: &TokenDurable) {
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.log_uuid == voter.log_uuid) {
            peer.durable = peer.durable.max(voter.durable);
        }
    }

    /// Takes the word of `node` for what is committed, as far as this log goes.
    pub(super) fn learn_commit(&mut self, now: Now, node: u16, committed: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.told = peer.told.max(committed);
        }
        self.note_peer_end(node, committed);
        self.note_end(now, committed);
        self.known_committed = self.known_committed.max(committed);
        self.commit_known(now);
    }

    /// What is known to be committed commits here as soon as this log reaches it.
    pub(super) fn commit_known(&mut self, now: Now) {
        // Before the epoch is installed this log may be another than the one that was spoken of.
        if !self.installed() && !self.config.makes(Mistake::CommitBeforeInstall) {
            return;
        }
        let end = if self.config.makes(Mistake::CommitBeyondLog) { u64::MAX } else { self.log.last_seq() };
        self.commit_to(now, self.known_committed.min(end));
    }

    fn commit_to(&mut self, now: Now, seq: u64) {
        if seq <= self.committed {
            return;
        }
        self.committed = seq;
        self.watch.commit_ns = now.mono_ns;
        self.settle_memberships();
        while self.origins.front().is_some_and(|(last, _)| *last <= seq) {
            self.origins.pop_front();
        }
        for batch in self.own.iter_mut().filter(|batch| batch.last_seq <= seq) {
            batch.committed_ns.get_or_insert(now.mono_ns);
        }
    }

    /// Applies what is committed, at most so many entries; how many more there might be in this turn.
    pub(super) fn apply_committed(&mut self, now: Now, entries_max: u64) -> u64 {
        let before = self.applied;
        let upto = self.committed.min(before + entries_max);
        while self.applied < upto {
            let Some(batch) = self.log.batch_at(self.applied + 1).cloned() else { break };
            self.apply_batch(now, &batch, upto);
        }
        if self.applied < self.committed {
            self.timers.set(Timer::Apply, now.mono_ns);
        } else {
            self.timers.stop(Timer::Apply);
        }
        let keep_after = self.applied.min(self.on_disk);
        self.log.trim(keep_after, self.config.limits.retained_bytes_max);
        entries_max - (self.applied - before)
    }

    fn apply_batch(&mut self, now: Now, batch: &Batch, upto: u64) {
        let skip = self.applied + 1 - batch.header().first_seq;
        for entry in batch.entries().skip(skip as usize) {
            if entry.seq > upto {
                return;
            }
            let is_own = self.tickets.front().is_some_and(|ticket| ticket.seq == entry.seq);
            let result = self.state.apply(batch.header().time_us, entry);
            // Whoever proposed a write wants its answer, nobody else.
            let result = result.map(|answer| if is_own { Bytes::copy_from_slice(answer) } else { Bytes::new() });
            self.applied = entry.seq;
            if entry.seq.is_multiple_of(CHECK_EVERY) {
                self.keep_check();
            }
            self.complete(now, entry, result);
        }
        self.counters.bytes_applied += batch.bytes().len() as u64;
    }

    /// Answers the write at `entry` if it was proposed here.
    fn complete(&mut self, now: Now, entry: Entry<'_>, result: WriteResult) {
        if self.tickets.front().is_some_and(|ticket| ticket.seq == entry.seq)
            && let Some(ticket) = self.tickets.pop_front()
        {
            let batch = self.own.front();
            let since = |from: Option<u64>, to: Option<u64>| match (from, to) {
                (Some(from), Some(to)) => to.saturating_sub(from),
                _ => 0,
            };
            let numbered = batch.map(|b| b.numbered_ns);
            let committed = batch.and_then(|b| b.committed_ns);
            self.outputs.push(Output::Done(Completion {
                ticket: ticket.ticket,
                seq: entry.seq,
                kind: entry.kind,
                result,
                token_ns: ticket.waited_ns,
                replicate_ns: since(numbered, committed),
                sync_ns: since(numbered, batch.and_then(|b| b.durable_ns)),
                apply_ns: since(committed, Some(now.mono_ns)),
            }));
        }
        if self.own.front().is_some_and(|batch| batch.last_seq <= entry.seq)
            && let Some(batch) = self.own.pop_front()
        {
            self.own_bytes -= batch.bytes;
        }
    }

    fn keep_check(&mut self) {
        if self.checks.len() == CHECKS_KEPT {
            self.checks.pop_front();
        }
        self.checks.push_back((self.applied, self.state_hash()));
    }

    /// Replicas that have applied the same entries must be in the same state; one that is not must not go on.
    fn compare_state(&mut self, node: u16, seq: u64, hash: u64) {
        if let Ok(index) = self.checks.binary_search_by_key(&seq, |(at, _)| *at)
            && self.checks[index].1 != hash
        {
            let own = self.checks[index].1;
            self.fatal(format!("at seq {seq} the state here hashes to {own:016x} and at node {node} to {hash:016x}"));
        }
    }

    /// Sets the timer for telling peers of commits that this origin counted and no other frame has carried.
    pub(super) fn plan_notices(&mut self, now: Now) {
        if self.config.makes(Mistake::NeverNotify) {
            return;
        }
        let untold = self.peers.values().any(|peer| peer.up && peer.told < self.committed);
        if untold && self.installed() && self.tells_commits() {
            if self.leaving {
                self.send_commit_notices();
            } else {
                self.timers.start(Timer::CommitNotice, now.mono_ns + COMMIT_NOTICE_NS);
            }
        } else {
            self.timers.stop(Timer::CommitNotice);
        }
    }

    /// Whether it is this replica's affair that others learn of the latest commit: that of its origin, and everybody's
    /// when the origin cannot be reached, since it may have gone with what it knew.
    fn tells_commits(&self) -> bool {
        let Some(batch) = self.log.batch_at(self.committed) else { return false };
        let origin = batch.header().origin;
        origin == self.config.me || !self.is_up(origin)
    }

    pub(super) fn send_commit_notices(&mut self) {
        let untold: Vec<u16> =
            self.peers.iter().filter(|(_, p)| p.up && p.told < self.committed).map(|(node, _)| *node).collect();
        let commit = Commit { epoch: self.promised, committed: self.committed };
        for node in untold {
            self.send(Target::Node(node), PeerMessage::Commit(commit));
        }
    }
}

impl<S> std::fmt::Debug for Replica<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("me", &self.config.me)
            .field("last_seq", &self.log.last_seq())
            .field("durable", &self.durable)
            .field("committed", &self.committed)
            .field("applied", &self.applied)
            .field("token", &self.token.as_ref().map(|token| token.hop))
            .finish_non_exhaustive()
    }
}
