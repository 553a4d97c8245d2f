//! Heartbeats, and what a replica concludes from them (RING §3). Suspicion is an opinion: it changes nothing but makes
//! this replica ask, or answer yes when it is asked, whether the epoch should be changed.

use pygmy_proto::message::{Epoch, LogEnd, ReplicaBeat};
use pygmy_proto::types::Bounded;

use super::{Now, Output, Peer, PeerMessage, Replica, Target, Timer};
use crate::StateMachine;
use crate::config::{LogUuid, Mistake};
use crate::detector::{BEAT_NS, GRACE_NS, Heard, LATE_NS};

/// A holder that has not heard a majority for this long orders nothing more.
pub(super) const DEAF_NS: u64 = 500_000_000;
/// The token is missing when nobody has claimed its latest hop for this long.
const UNCLAIMED_NS: u64 = 250_000_000;
/// A want is overdue after this.
const WANT_OVERDUE_NS: u64 = 500_000_000;
/// A commit is overdue after this.
const COMMIT_OVERDUE_NS: u64 = 1_000_000_000;
/// How long the coordinator of a promised epoch is left alone.
const PROMISE_PATIENCE_NS: u64 = 500_000_000;
/// How long a replica that was just started waits to hear of a token.
const BOOT_PATIENCE_NS: u64 = 300_000_000;
/// How long a holder waits for what is missing in its log before the token.
const GAP_PATIENCE_NS: u64 = 200_000_000;
/// How long a catalog that was unwell must be well before it gets the token again; doubles up to the maximum.
const PENALTY_MIN_NS: u64 = 1_000_000_000;
const PENALTY_MAX_NS: u64 = 60_000_000_000;
/// The epoch is explained to the same peer no more often.
const EXPLAIN_NS: u64 = 200_000_000;

/// Why a replica thinks that the epoch should be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Nobody is known to hold a token in this epoch, and its coordinator is gone or late.
    NoToken,
    /// The holder is gone.
    HolderGone,
    /// Nobody claims the token.
    Unclaimed,
    /// The own want is not served.
    Unserved,
    /// Entries are outstanding and the commit stands still.
    NoProgress,
    /// This replica holds the token and cannot fill the gap before it.
    CannotOrder,
    /// This replica holds the token and a voter or a learner has promised a higher epoch.
    Refused,
}

/// What is watched.
#[derive(Debug)]
pub(super) struct Watch {
    /// The highest epoch heard of.
    pub(super) highest_epoch: Epoch,
    /// When this process, or the epoch that it has promised, began.
    pub(super) since_ns: u64,
    /// Whether an epoch was promised since this process began.
    pub(super) promised: bool,
    /// When the holder's claim was heard last.
    pub(super) claimed_ns: u64,
    /// When the want that stands was said.
    pub(super) want_ns: u64,
    /// When the commit moved last, or the first outstanding entry came.
    pub(super) commit_ns: u64,
    /// Since when the token is here and the log does not reach it.
    pub(super) gap_since_ns: Option<u64>,
    /// A voter or a learner has refused this holder's epoch.
    pub(super) refused: bool,
    /// Nobody is accused before.
    grace_until_ns: u64,
    /// This holder did not run for a while, and orders nothing until a majority was heard after this.
    pub(super) confirm_from_ns: Option<u64>,
    late_ns: u64,
}

impl Watch {
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            highest_epoch: Epoch::default(),
            since_ns: now_ns,
            promised: false,
            claimed_ns: now_ns,
            want_ns: now_ns,
            commit_ns: now_ns,
            gap_since_ns: None,
            refused: false,
            grace_until_ns: 0,
            confirm_from_ns: None,
            late_ns: 0,
        }
    }

    /// All waiting begins anew with an epoch.
    pub(super) fn new_epoch(&mut self, now_ns: u64) {
        self.since_ns = now_ns;
        self.promised = true;
        self.claimed_ns = now_ns;
        self.want_ns = now_ns;
        self.commit_ns = now_ns;
        self.gap_since_ns = None;
        self.refused = false;
        self.confirm_from_ns = None;
    }
}

impl<S: StateMachine> Replica<S> {
    pub(super) fn on_beat_timer(&mut self, now: Now) {
        self.timers.set(Timer::Beat, now.mono_ns + BEAT_NS);
        let late = std::mem::take(&mut self.watch.late_ns);
        self.judge_health(now);
        let beat = self.beat(late);
        self.outputs.push(Output::Beat(beat));
    }

    /// Takes the time of an input. A process that did not run for a while has heard nothing meanwhile, which proves
    /// nothing about the others: it must read what has come before it accuses anyone or goes on as holder.
    pub(super) fn tick(&mut self, now: Now) {
        self.now_ns = now.mono_ns;
        self.detector.tick(now.mono_ns, self.beat_due_ns());
        let late = now.mono_ns.saturating_sub(self.beat_due_ns());
        self.watch.late_ns = self.watch.late_ns.max(late);
        if late <= LATE_NS || self.config.makes(Mistake::AccuseWhenLate) {
            return;
        }
        self.watch.grace_until_ns = now.mono_ns + GRACE_NS;
        self.watch.claimed_ns = now.mono_ns;
        self.watch.want_ns = now.mono_ns;
        self.watch.commit_ns = now.mono_ns;
        if self.token.is_some() && !self.config.makes(Mistake::BelieveOldHolder) {
            self.watch.confirm_from_ns = Some(now.mono_ns);
        }
    }

    /// When this replica's next heartbeat is due, and so its loop to run.
    pub fn beat_due_ns(&self) -> u64 {
        self.timers.at(Timer::Beat).unwrap_or(self.now_ns)
    }

    /// What a heartbeat says at this moment.
    pub fn beat_now(&self) -> ReplicaBeat {
        self.beat(self.watch.late_ns)
    }

    fn beat(&self, late_ns: u64) -> ReplicaBeat {
        let hears = self.peers.keys().copied().filter(|node| self.is_heard_here(*node)).collect();
        let durable = self.log.hash_at(self.durable).map_or((0, 0), |hash| (self.durable, hash));
        ReplicaBeat {
            log_uuid: self.config.log_uuid,
            boot_nonce: self.config.boot_nonce,
            promised: self.promised,
            config_id: self.membership().id,
            hop: self.holder.0,
            holder: self.holder.1,
            claims: self.claims_token(),
            want: if self.wanting { self.want } else { 0 },
            last: self.log.end(),
            durable: durable.0,
            durable_hash: durable.1,
            committed: self.committed,
            applied: self.applied,
            withheld: self.withheld.is_some(),
            fetched: self.fetched_total,
            hears: Bounded::truncated(hears),
            late_us: u32::try_from(late_ns / 1_000).unwrap_or(u32::MAX),
        }
    }

    /// Whether this replica holds the token, or passed it a moment ago over a link that still stands.
    fn claims_token(&self) -> bool {
        let lately = |at: u64| self.now_ns.saturating_sub(at) < UNCLAIMED_NS;
        self.token.is_some() || self.passed.as_ref().is_some_and(|passed| self.is_up(passed.to) && lately(passed.at_ns))
    }

    pub(super) fn on_beat(&mut self, now: Now, node: u16, number: u64, beat: &ReplicaBeat) {
        let me = self.config.me;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        // A datagram may come from a process that is gone, or from before the link.
        if !peer.up || peer.boot_nonce != beat.boot_nonce || peer.log_uuid != beat.log_uuid {
            return;
        }
        peer.heard_ns = now.mono_ns;
        let (hears_me, late_ns) = (beat.hears.contains(&me), u64::from(beat.late_us) * 1_000);
        let heard = Heard { boot_nonce: beat.boot_nonce, number, hears_me, late_ns };
        self.detector.hear_beat(now.mono_ns, node, &heard);
        peer.promised = beat.promised;
        peer.withheld = beat.withheld;
        if beat.last.epoch != peer.last.epoch || beat.last.seq > peer.last.seq {
            peer.last = beat.last;
        }
        peer.config_id = beat.config_id;
        peer.want = peer.want.max(beat.want);
        let advances = beat.fetched > peer.fetched;
        peer.fetched = beat.fetched;
        self.hear_committed(beat.committed);
        self.hear_applied(node, beat.applied, false);
        if advances && node == self.promised.node {
            // The coordinator is still fetching the chosen log.
            self.watch.since_ns = now.mono_ns;
        }
        let hears = |uuid| {
            let voter = self.membership().voters.iter().find(|voter| voter.log_uuid == uuid);
            voter.is_some_and(|voter| voter.node == node || beat.hears.contains(&voter.node))
        };
        let heard = self.membership().voters.iter().filter(|voter| hears(voter.log_uuid)).count();
        let hears_majority = heard >= self.majority();
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.hears_majority = hears_majority;
        }
        self.watch.highest_epoch = self.watch.highest_epoch.max(beat.promised);
        if beat.promised == self.promised {
            self.hear_in_epoch(now, node, beat);
        } else if beat.promised > self.promised {
            self.note_refusal(node);
        }
        self.explain_epoch(now, node);
    }

    /// A heartbeat of the epoch promised here says what frames may have failed to.
    fn hear_in_epoch(&mut self, now: Now, node: u16, beat: &ReplicaBeat) {
        if beat.claims && beat.holder == node {
            self.note_hop(beat.hop, node);
        } else {
            self.note_view(beat.hop, beat.holder);
        }
        if beat.claims && beat.hop >= self.holder.0 {
            self.watch.claimed_ns = now.mono_ns;
        }
        if beat.last.epoch != self.promised {
            return;
        }
        self.note_end(now, beat.last.seq);
        if beat.durable > 0 && !beat.withheld {
            self.hear_durable(now, node, beat.durable, beat.durable_hash);
        }
        self.learn_commit(now, node, beat.committed);
    }

    /// Tells `node` of this epoch, if it is behind and may not have been told.
    pub(super) fn explain_epoch(&mut self, now: Now, node: u16) {
        if !self.installed() {
            return;
        }
        let promised = self.promised;
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.up) else { return };
        let behind = peer.promised <= promised && peer.last.epoch < promised;
        let told = peer.explained_ns != 0 && now.mono_ns < peer.explained_ns + EXPLAIN_NS;
        if !behind || told {
            return;
        }
        peer.explained_ns = now.mono_ns;
        if let Some(install) = self.install_message() {
            self.send(Target::Node(node), PeerMessage::Install(install));
        }
    }

    /// A peer has promised a higher epoch than this one. If it votes, this holder's entries lack its voice; if it learns,
    /// it takes nothing of this epoch, and would never catch up when the coordinator that it gave its word to is gone.
    pub(super) fn note_refusal(&mut self, node: u16) {
        let uuid = self.peers.get(&node).map(|peer| peer.log_uuid).unwrap_or_default();
        if !self.is_removed(uuid) {
            self.watch.refused = true;
        }
    }

    /// Looks who has been silent for too long, and says so.
    pub(super) fn judge_peers(&mut self, now: Now) {
        self.detector.judge(now.mono_ns, &mut self.notices);
        self.outputs.extend(self.notices.drain(..).map(Output::Notice));
    }

    /// Keeps the account of who has been well for how long. Who says nothing over a connection that stands is paused, or
    /// cut off in one direction, and would hold the token up.
    fn judge_health(&mut self, now: Now) {
        let nodes: Vec<(u16, bool)> = self.peers.keys().map(|node| (*node, self.is_heard(*node))).collect();
        for (node, well) in nodes {
            let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.up) else { continue };
            match peer.well_since_ns {
                Some(_) if !well => {
                    peer.well_since_ns = None;
                    peer.penalty_ns = (peer.penalty_ns * 2).clamp(PENALTY_MIN_NS, PENALTY_MAX_NS);
                }
                None if well => peer.well_since_ns = Some(now.mono_ns),
                Some(since) if now.mono_ns.saturating_sub(since) > PENALTY_MAX_NS => peer.penalty_ns = 0,
                _ => {}
            }
        }
    }

    /// Whether the token may be given to `node`: it is heard, and has been well for long enough.
    pub(super) fn may_hold(&self, node: u16) -> bool {
        let rested =
            |peer: &Peer| peer.well_since_ns.is_some_and(|since| self.now_ns.saturating_sub(since) >= peer.penalty_ns);
        // Whoever has not heard of this epoch yet would drop its token.
        let knows = |peer: &Peer| peer.promised == self.promised && !self.is_removed(peer.log_uuid);
        self.is_heard(node) && self.peers.get(&node).is_some_and(|peer| rested(peer) && knows(peer) && !peer.lags)
    }

    /// Whether `node` was heard lately, by this replica's own ears alone.
    fn is_heard_here(&self, node: u16) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.up) && self.detector.hears(self.now_ns, node)
    }

    /// Whether the link with `node` works: both ends hear each other.
    pub(super) fn is_heard(&self, node: u16) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.up) && self.detector.trusts(self.now_ns, node)
    }

    /// Voters heard within `within_ns`, this replica included if it votes.
    pub(super) fn voters_heard(&self, within_ns: u64) -> usize {
        let heard = |peer: &Peer| peer.up && self.now_ns.saturating_sub(peer.heard_ns) <= within_ns;
        self.count_voters(heard)
    }

    pub(super) fn count_voters(&self, counts: impl Fn(&Peer) -> bool) -> usize {
        let voters = self.membership().voters.iter();
        voters
            .filter(|voter| {
                voter.log_uuid == self.config.log_uuid
                    || self.peers.values().any(|peer| peer.log_uuid == voter.log_uuid && counts(peer))
            })
            .count()
    }

    pub(super) fn hears_majority(&self) -> bool {
        let voters = self.membership().voters.iter();
        let heard = |uuid: LogUuid| {
            let own = uuid == self.config.log_uuid;
            own || self.peers.iter().any(|(node, peer)| peer.log_uuid == uuid && self.is_heard_here(*node))
        };
        voters.filter(|voter| heard(voter.log_uuid)).count() >= self.majority()
    }

    /// Whether no majority was heard for so long that nothing numbered here is likely to be committed. That links have
    /// just broken says nothing: they may be back in a moment.
    pub(super) fn is_deaf(&self) -> bool {
        let lately = |peer: &Peer| peer.heard_ns != 0 && self.now_ns.saturating_sub(peer.heard_ns) <= DEAF_NS;
        self.count_voters(lately) < self.majority()
    }

    /// Whether this holder may still number entries: a majority was heard lately and, after it did not run for a while,
    /// has confirmed this epoch since.
    pub(super) fn is_confirmed(&self) -> bool {
        let within = !self.is_deaf();
        let Some(from) = self.watch.confirm_from_ns else { return within };
        let same = |peer: &Peer| peer.heard_ns > from && peer.promised <= self.promised;
        within && self.count_voters(same) >= self.majority()
    }

    /// Whether and why the epoch should be changed, as seen from here.
    pub(super) fn suspicion(&self) -> Option<Suspicion> {
        let now = self.now_ns;
        if now < self.watch.grace_until_ns {
            return None;
        }
        if self.token.is_some() {
            return self.holder_suspicion();
        }
        let (_, holder) = self.holder;
        if holder == 0 {
            return self.lacks_token().then_some(Suspicion::NoToken);
        }
        if !self.is_heard(holder) && holder != self.config.me {
            return Some(Suspicion::HolderGone);
        }
        if now.saturating_sub(self.watch.claimed_ns) > UNCLAIMED_NS {
            return Some(Suspicion::Unclaimed);
        }
        if self.disks_are_slow() {
            return None;
        }
        let outstanding = self.log.last_seq() > self.committed;
        // A want that stands with nothing behind it any more hurts nobody: what waited was handed back.
        let waits = self.wanting && !(self.pending.is_empty() && self.changes.is_empty());
        if waits && now.saturating_sub(self.watch.want_ns) > WANT_OVERDUE_NS {
            Some(Suspicion::Unserved)
        } else if outstanding && now.saturating_sub(self.watch.commit_ns) > COMMIT_OVERDUE_NS {
            Some(Suspicion::NoProgress)
        } else {
            None
        }
    }

    fn holder_suspicion(&self) -> Option<Suspicion> {
        if self.watch.refused {
            return Some(Suspicion::Refused);
        }
        let since = self.watch.gap_since_ns?;
        let last = self.log.last_seq();
        let lacks = |peer: &Peer| !peer.up || peer.refused_fetch == Some(last + 1) || peer.last.seq <= last;
        let nobody = self.peers.values().all(lacks);
        (nobody || self.now_ns.saturating_sub(since) > GAP_PATIENCE_NS).then_some(Suspicion::CannotOrder)
    }

    /// Whether a token should have been heard of by now.
    fn lacks_token(&self) -> bool {
        let waited = self.now_ns.saturating_sub(self.watch.since_ns);
        if !self.watch.promised {
            // Nobody need be waited for when all are here and none knows of a token.
            let all = self.membership().voters.iter().all(|voter| {
                voter.log_uuid == self.config.log_uuid
                    || self.peers.values().any(|peer| peer.log_uuid == voter.log_uuid && peer.up)
            });
            let virgin = self.watch.highest_epoch == Epoch::default();
            return (all && virgin) || waited > BOOT_PATIENCE_NS;
        }
        let coordinator = self.promised.node;
        if coordinator == self.config.me {
            return !self.campaign.is_coordinating();
        }
        !self.is_heard(coordinator) || waited > PROMISE_PATIENCE_NS
    }

    /// Whether what is outstanding waits for disks: a majority has not even synced what it has. A holder that is well
    /// would only be replaced by another one that waits as long.
    fn disks_are_slow(&self) -> bool {
        let behind = |peer: &Peer| peer.last.epoch == self.promised && peer.durable < peer.last.seq;
        let own = self.durable < self.log.last_seq();
        let waiting = self.count_voters(behind) - usize::from(self.votes(self.config.log_uuid) && !own);
        waiting >= self.majority()
    }
}

/// Whether the log that ends at `log` is preferred to the one at `other`, by more than what heartbeats may be late.
pub(super) fn is_ahead(log: LogEnd, other: LogEnd) -> bool {
    const SLACK: u64 = 65_536;
    log.epoch > other.epoch || (log.epoch == other.epoch && log.seq > other.seq + SLACK)
}
