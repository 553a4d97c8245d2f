//! The asker's side of an epoch change (RING §3, 1 to 4): pre-vote, promises, the choice of a log, the start.

use std::collections::{BTreeMap, BTreeSet};

use pygmy_proto::batch::EntryKind;
use pygmy_proto::codec;
use pygmy_proto::limits::REPLICAS_MAX;
use pygmy_proto::message::{
    Boundary, Epoch, EpochStart, LogEnd, Membership, PreVote, PreVoteAnswer, Prepare, Promise, Reject, Token,
};
use pygmy_proto::types::Bounded;

use super::watch::Suspicion;
use super::watch::is_ahead;
use super::{Now, Peer, PeerMessage, Replica, Target, Timer};
use crate::StateMachine;
use crate::config::{LogUuid, Mistake};

/// Hop of a token that nobody has passed yet.
const FIRST_HOP: u64 = 1;
/// How much later a catalog asks for every other one that should rather ask.
const RANK_NS: u64 = 25_000_000;
/// How long answers to a pre-vote are waited for.
const PRE_VOTE_NS: u64 = 100_000_000;
/// How long promises, or the next part of a log that is fetched, are waited for.
const PROGRESS_NS: u64 = 300_000_000;
/// A question that was answered with no is answered again when the opinion changes within this.
const REMEMBERED_NS: u64 = 150_000_000;
/// Back-off after a campaign that came to nothing, doubling up to the maximum.
const BACK_OFF_MIN_NS: u64 = 20_000_000;
const BACK_OFF_MAX_NS: u64 = 1_000_000_000;

/// What a replica promised, and with what log.
#[derive(Debug, Clone)]
struct Pledge {
    node: u16,
    last: LogEnd,
    last_hash: u128,
    committed: u64,
    boundaries: Vec<Boundary>,
    membership: Membership,
}

/// Where a campaign is.
#[derive(Debug)]
enum Stage {
    /// There is none.
    Idle,
    /// Asking whether others, too, see no progress.
    PreVote { yes: BTreeSet<LogUuid> },
    /// The own promise is on its way to the disk.
    Promising,
    /// Gathering promises, by log.
    Gathering { pledges: BTreeMap<LogUuid, Pledge> },
    /// A part of this log must go before the chosen one can follow; that is being written down first.
    Cutting { pledges: BTreeMap<LogUuid, Pledge>, chosen: LogUuid },
    /// Fetching the chosen log from its owner.
    Fetching { pledges: BTreeMap<LogUuid, Pledge>, chosen: LogUuid },
}

/// An epoch change that this replica asks for.
#[derive(Debug)]
pub(super) struct Campaign {
    stage: Stage,
    /// Number of the latest question.
    attempt: u64,
    /// When the present stage has failed.
    until_ns: u64,
    /// Not before this.
    not_before_ns: u64,
    back_off_ns: u64,
    /// Since when there is a suspicion.
    suspected_ns: Option<u64>,
    /// Others' questions that were answered with no, and when.
    declined: BTreeMap<u16, (u64, u64)>,
    /// State of the generator behind back-offs, seeded with the boot nonce.
    chance: u64,
}

impl Campaign {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            stage: Stage::Idle,
            attempt: 0,
            until_ns: 0,
            not_before_ns: 0,
            back_off_ns: BACK_OFF_MIN_NS,
            suspected_ns: None,
            declined: BTreeMap::new(),
            chance: seed,
        }
    }

    /// Whether this replica is the coordinator of the epoch that it has promised, and at work.
    pub(super) fn is_coordinating(&self) -> bool {
        !matches!(self.stage, Stage::Idle | Stage::PreVote { .. })
    }

    /// The log whose owner is being fetched from, if it is `node`.
    fn fetches_from(&self, node: u16) -> bool {
        match &self.stage {
            Stage::Fetching { pledges, chosen } => pledges.get(chosen).is_some_and(|pledge| pledge.node == node),
            _ => false,
        }
    }

    /// An epoch has begun: whatever was suspected or asked before is over.
    pub(super) fn installed(&mut self) {
        self.stage = Stage::Idle;
        self.suspected_ns = None;
        self.back_off_ns = BACK_OFF_MIN_NS;
    }

    /// The next number below `bound` (SplitMix64, Steele et al. 2014).
    fn chance_below(&mut self, bound: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

impl<S: StateMachine> Replica<S> {
    /// Takes the next step of an epoch change, if one is due.
    pub(super) fn drive_campaign(&mut self, now: Now) {
        match self.suspicion() {
            Some(_) => {
                self.campaign.suspected_ns.get_or_insert(now.mono_ns);
                self.answer_declined(now);
            }
            None => self.campaign.suspected_ns = None,
        }
        match &self.campaign.stage {
            Stage::Idle => self.maybe_ask(now),
            Stage::PreVote { .. } if self.campaign.suspected_ns.is_none() => self.campaign.stage = Stage::Idle,
            Stage::Fetching { .. } if self.reached_chosen() => self.start_epoch(now),
            Stage::Promising | Stage::Cutting { .. } => {}
            _ if now.mono_ns >= self.campaign.until_ns => self.give_up(now),
            _ => {}
        }
        self.arm_campaign(now);
    }

    fn arm_campaign(&mut self, now: Now) {
        let at = match &self.campaign.stage {
            Stage::Promising | Stage::Cutting { .. } => None,
            Stage::Idle if self.campaign.suspected_ns.is_some() && self.may_campaign() => Some(self.turn_to_ask()),
            Stage::Idle => None,
            _ => Some(self.campaign.until_ns),
        };
        match at {
            // What is due and was not done waits for something else than time.
            Some(at) if at > now.mono_ns => self.timers.set(Timer::Campaign, at),
            _ => self.timers.stop(Timer::Campaign),
        }
    }

    fn may_campaign(&self) -> bool {
        let spoken_for = || self.peers.iter().any(|(node, peer)| self.is_heard(*node) && self.may_count_others(peer));
        let hears_enough = self.hears_majority() || spoken_for();
        self.config.is_catalog() && !self.leaving && self.withheld.is_none() && hears_enough
    }

    /// Whether the log of `peer` is better than this one and may name other voters. It or a better one would be chosen,
    /// so a majority of the voters that are known here says nothing: those may have been replaced since.
    fn may_count_others(&self, peer: &Peer) -> bool {
        let (theirs, own) = (peer.last, self.log.end());
        // Logs that end in the same epoch are parts of one history, in which an id stands for one configuration.
        theirs > own && (theirs.epoch != own.epoch || peer.config_id != self.membership().id)
    }

    /// When it is this catalog's turn to ask: at once, or later by its rank among those that are heard.
    fn turn_to_ask(&self) -> u64 {
        let better = |node: &u16| {
            let Some(peer) = self.peers.get(node) else { return false };
            let (theirs, own) = (peer.last, self.log.end());
            let ahead = is_ahead(theirs, own);
            let level = !ahead && !is_ahead(own, theirs);
            self.is_heard(*node) && peer.hears_majority && (ahead || (level && self.is_before_me(*node)))
        };
        let rank = match self.suspicion() {
            // Whoever was promised what this holder was refused for is at work: two that took that from each other
            // without a pause would never come to an end.
            Some(Suspicion::Refused) => 1,
            _ if self.token.is_some() => 0,
            _ => self.catalogs.iter().filter(|n| better(n)).count(),
        };
        let since = self.campaign.suspected_ns.unwrap_or_default();
        (since + rank as u64 * RANK_NS).max(self.campaign.not_before_ns)
    }

    /// Whether `node` comes before this catalog in the ring, counted from the holder that is suspected.
    fn is_before_me(&self, node: u16) -> bool {
        let ring = &self.catalogs;
        let place = |n: u16| ring.iter().position(|other| *other == n);
        let from = place(self.holder.1).map_or(0, |at| at + 1);
        let distance = |n: u16| place(n).map(|at| (at + ring.len() - from % ring.len()) % ring.len());
        distance(node) < distance(self.config.me)
    }

    fn maybe_ask(&mut self, now: Now) {
        let due = self.campaign.suspected_ns.is_some() && self.may_campaign() && now.mono_ns >= self.turn_to_ask();
        if !due {
            return;
        }
        if self.config.makes(Mistake::RemakeToken) && self.installed() && self.token.is_none() {
            self.remake_token();
            return;
        }
        self.counters.prevotes_asked += 1;
        self.campaign.attempt += 1;
        self.campaign.until_ns = now.mono_ns + PRE_VOTE_NS;
        self.campaign.stage = Stage::PreVote { yes: BTreeSet::from([self.config.log_uuid]) };
        let ask = PreVote { epoch: self.promised, attempt: self.campaign.attempt, last: self.log.end() };
        self.send(Target::All, PeerMessage::PreVote(ask));
        self.count_pre_votes(now);
    }

    pub(super) fn on_pre_vote(&mut self, now: Now, node: u16, ask: PreVote) {
        // The holder itself knows best that it cannot go on.
        let yes = self.holder.1 == node || self.suspicion().is_some();
        if !yes {
            self.campaign.declined.insert(node, (ask.attempt, now.mono_ns));
        }
        let answer = PreVoteAnswer { epoch: self.promised, attempt: ask.attempt, yes };
        self.send(Target::Node(node), PeerMessage::PreVoteAnswer(answer));
    }

    /// An opinion has changed: those who asked a moment ago need not ask again.
    fn answer_declined(&mut self, now: Now) {
        for (node, (attempt, at)) in std::mem::take(&mut self.campaign.declined) {
            if now.mono_ns <= at + REMEMBERED_NS && self.is_up(node) {
                let answer = PreVoteAnswer { epoch: self.promised, attempt, yes: true };
                self.send(Target::Node(node), PeerMessage::PreVoteAnswer(answer));
            }
        }
    }

    pub(super) fn on_pre_vote_answer(&mut self, now: Now, node: u16, answer: PreVoteAnswer) {
        let uuid = self.peers.get(&node).map(|peer| peer.log_uuid).unwrap_or_default();
        let current = answer.attempt == self.campaign.attempt;
        if let Stage::PreVote { yes } = &mut self.campaign.stage
            && current
            && answer.yes
        {
            yes.insert(uuid);
            self.count_pre_votes(now);
        }
    }

    fn count_pre_votes(&mut self, now: Now) {
        let Stage::PreVote { yes } = &self.campaign.stage else { return };
        let agreed = self.membership().voters.iter().filter(|voter| yes.contains(&voter.log_uuid)).count();
        // Who they are will be known with the promises, and then a majority of them must be among those.
        let spoken_for = || self.peers.values().any(|peer| yes.contains(&peer.log_uuid) && self.may_count_others(peer));
        if (agreed >= self.majority() || spoken_for()) && self.suspicion().is_some() {
            self.ask_for_promises(now);
        }
    }

    /// Begins an epoch above all that were heard of. The own promise comes first, and on the disk.
    fn ask_for_promises(&mut self, now: Now) {
        let counter = self.watch.highest_epoch.max(self.promised).counter + 1;
        let epoch = Epoch { counter, node: self.config.me };
        log::info!("asking for epoch {counter}: {:?}", self.suspicion());
        self.promise(now, epoch);
        self.campaign.stage = Stage::Promising;
        self.write_vote();
        if self.config.makes(Mistake::PromiseNotDurable) {
            self.own_promise_is_durable(now);
        }
    }

    /// The own promise is on the disk: now the others may be asked.
    pub(super) fn own_promise_is_durable(&mut self, now: Now) {
        if !matches!(self.campaign.stage, Stage::Promising) {
            return;
        }
        let own = Pledge {
            node: self.config.me,
            last: self.log.end(),
            last_hash: self.log.last_hash(),
            committed: self.committed,
            boundaries: self.log.boundaries().to_vec(),
            membership: self.membership().clone(),
        };
        self.campaign.until_ns = now.mono_ns + PROGRESS_NS;
        self.campaign.stage = Stage::Gathering { pledges: BTreeMap::from([(self.config.log_uuid, own)]) };
        let prepare = self.prepare();
        self.send(Target::All, PeerMessage::Prepare(prepare));
        self.choose(now);
    }

    fn prepare(&self) -> Prepare {
        let mut voters: Vec<LogUuid> = self.membership().voters.iter().map(|voter| voter.log_uuid).collect();
        // Another log may know of a later configuration, and then its voters count too.
        if let Stage::Gathering { pledges } = &self.campaign.stage {
            let named = pledges.values().flat_map(|pledge| pledge.membership.voters.iter());
            let more: BTreeSet<LogUuid> = named.map(|voter| voter.log_uuid).collect();
            voters.extend(more.into_iter().filter(|uuid| !self.votes(*uuid)));
            voters.truncate(REPLICAS_MAX);
        }
        Prepare { epoch: self.promised, boot_nonce: self.config.boot_nonce, voters: Bounded::truncated(voters) }
    }

    /// A link has come (back) while promises are gathered.
    pub(super) fn renew_campaign(&mut self, node: u16) {
        if matches!(self.campaign.stage, Stage::Gathering { .. }) {
            let prepare = self.prepare();
            self.send(Target::Node(node), PeerMessage::Prepare(prepare));
        }
    }

    pub(super) fn on_promise(&mut self, now: Now, node: u16, promise: Promise) {
        let uuid = self.peers.get(&node).map(|peer| peer.log_uuid).unwrap_or_default();
        if promise.epoch != self.promised || promise.boot_nonce != self.config.boot_nonce {
            return;
        }
        let Stage::Gathering { pledges } = &mut self.campaign.stage else { return };
        let news = !pledges.values().any(|pledge| pledge.membership.id >= promise.membership.id);
        let pledge = Pledge {
            node,
            last: promise.last,
            last_hash: promise.last_hash,
            committed: promise.committed,
            boundaries: promise.boundaries.to_vec(),
            membership: promise.membership,
        };
        pledges.insert(uuid, pledge);
        if news {
            // There is a later configuration than was known: its voters may not have felt meant.
            let prepare = self.prepare();
            self.send(Target::All, PeerMessage::Prepare(prepare));
        }
        self.choose(now);
    }

    /// Chooses the log with the highest last (epoch, seq), once a majority of the voters *of its latest configuration*
    /// has promised.
    fn choose(&mut self, now: Now) {
        let Stage::Gathering { pledges } = &self.campaign.stage else { return };
        let by_length = self.config.makes(Mistake::ChooseByLength);
        let own = self.config.log_uuid;
        let rank = |uuid: &LogUuid, pledge: &Pledge| {
            let epoch = if by_length { Epoch::default() } else { pledge.last.epoch };
            // Of equal logs the own one needs no fetching.
            (LogEnd { epoch, seq: pledge.last.seq }, *uuid == own)
        };
        let Some((chosen, best)) = pledges.iter().max_by_key(|(uuid, pledge)| rank(uuid, pledge)) else { return };
        let membership =
            if self.config.makes(Mistake::CountPromisesByOwnConfig) { self.membership() } else { &best.membership };
        let promised = membership.voters.iter().filter(|voter| pledges.contains_key(&voter.log_uuid)).count();
        if promised <= membership.voters.len() / 2 {
            return;
        }
        let (chosen, best) = (*chosen, best.clone());
        if chosen != own && !self.is_up(best.node) {
            // Its owner is gone already: the choice is made without it.
            self.drop_pledge(&chosen);
            return self.choose(now);
        }
        let Stage::Gathering { pledges } = std::mem::replace(&mut self.campaign.stage, Stage::Idle) else { return };
        self.campaign.until_ns = now.mono_ns + PROGRESS_NS;
        if chosen == own {
            self.campaign.stage = Stage::Fetching { pledges, chosen };
            self.start_epoch(now);
            return;
        }
        let keep = self.log.common_prefix(&best.boundaries, best.last.seq).unwrap_or(self.committed);
        if keep < self.log.last_seq() {
            self.campaign.stage = Stage::Cutting { pledges, chosen };
            self.write_cut();
        } else {
            self.campaign.stage = Stage::Fetching { pledges, chosen };
            self.fetch_chosen(now);
        }
    }

    fn drop_pledge(&mut self, uuid: &LogUuid) {
        if let Stage::Gathering { pledges } = &mut self.campaign.stage {
            pledges.remove(uuid);
        }
    }

    /// That a part of this log may go is written down: it goes.
    pub(super) fn cut_for_chosen(&mut self, now: Now) {
        if !matches!(self.campaign.stage, Stage::Cutting { .. }) {
            return;
        }
        let Stage::Cutting { pledges, chosen } = std::mem::replace(&mut self.campaign.stage, Stage::Idle) else {
            return;
        };
        if let Some(best) = pledges.get(&chosen) {
            let keep = self.log.common_prefix(&best.boundaries, best.last.seq).unwrap_or(self.committed);
            self.truncate(keep);
            self.known_end = self.log.last_seq();
        }
        self.campaign.stage = Stage::Fetching { pledges, chosen };
        self.campaign.until_ns = now.mono_ns + PROGRESS_NS;
        self.fetch_chosen(now);
    }

    fn fetch_chosen(&mut self, now: Now) {
        let Stage::Fetching { pledges, chosen } = &self.campaign.stage else { return };
        let Some((node, end)) = pledges.get(chosen).map(|pledge| (pledge.node, pledge.last)) else { return };
        if self.reached_chosen() {
            self.start_epoch(now);
        } else {
            self.note_peer_end(node, end.seq);
            self.known_end = self.known_end.max(end.seq);
            self.fetch_from(now, node);
        }
    }

    /// Whether a batch from `node` belongs to the log that is being fetched.
    pub(super) fn takes_chosen_from(&self, node: u16) -> bool {
        self.campaign.fetches_from(node)
    }

    /// A part of the chosen log has come: there is progress.
    pub(super) fn fetched_chosen(&mut self, now: Now, node: u16) {
        if self.campaign.fetches_from(node) {
            self.campaign.until_ns = now.mono_ns + PROGRESS_NS;
        }
    }

    fn reached_chosen(&self) -> bool {
        let Stage::Fetching { pledges, chosen } = &self.campaign.stage else { return false };
        pledges.get(chosen).is_some_and(|best| self.log.end() == best.last && self.log.last_hash() == best.last_hash)
    }

    /// The owner of the chosen log is gone before all of it has come: the choice is made again among the others. The same
    /// goes for promises that were only counted: they stand, but a new process may not know of them.
    pub(super) fn lose_promise_of(&mut self, now: Now, node: u16) {
        if !self.campaign.fetches_from(node) {
            return;
        }
        let Stage::Fetching { mut pledges, chosen } = std::mem::replace(&mut self.campaign.stage, Stage::Idle) else {
            return;
        };
        pledges.remove(&chosen);
        // The next choice may end before the log that is gone.
        self.known_end = self.log.last_seq();
        // What was fetched of it is part of this log now.
        if let Some(own) = pledges.get_mut(&self.config.log_uuid) {
            own.last = self.log.end();
            own.last_hash = self.log.last_hash();
            own.boundaries = self.log.boundaries().to_vec();
            own.membership = self.membership().clone();
        }
        self.campaign.stage = Stage::Gathering { pledges };
        self.choose(now);
    }

    /// This log is the chosen one: the epoch begins, and its token is here.
    fn start_epoch(&mut self, now: Now) {
        let Stage::Fetching { pledges, .. } = std::mem::replace(&mut self.campaign.stage, Stage::Idle) else { return };
        let committed = pledges.values().map(|pledge| pledge.committed).max().unwrap_or(0);
        self.counters.epochs_started += 1;
        self.campaign.back_off_ns = BACK_OFF_MIN_NS;
        self.campaign.suspected_ns = None;
        self.make_token(FIRST_HOP);
        let body = codec::encode(&EpochStart { config_id: self.membership().id });
        log::info!("epoch {} begins here behind seq {}", self.promised.counter, self.log.last_seq());
        if let Some(install) = self.install_message_at(self.log.last_seq() + 1) {
            self.send(Target::All, PeerMessage::Install(install));
        }
        self.order_alone(now, EntryKind::NewEpoch, &body, None);
        self.known_committed = self.known_committed.max(committed);
        self.commit_known(now);
    }

    /// A token that orders behind the end of this log.
    fn make_token(&mut self, hop: u64) {
        self.token_hop_received = hop;
        self.note_hop(hop, self.config.me);
        self.token = Some(Token {
            epoch: self.promised,
            config_id: self.membership().id,
            hop,
            next_seq: self.log.last_seq() + 1,
            hash_before: self.log.last_hash(),
            committed: self.committed,
            members: Bounded::truncated(self.fresh_members()),
            durable: Bounded::default(),
        });
    }

    /// A campaign came to nothing.
    fn give_up(&mut self, now: Now) {
        self.campaign.stage = Stage::Idle;
        self.back_off(now);
    }

    fn back_off(&mut self, now: Now) {
        let ceiling = self.campaign.back_off_ns * 4;
        let wait = self.campaign.back_off_ns + self.campaign.chance_below(ceiling - self.campaign.back_off_ns);
        self.campaign.not_before_ns = now.mono_ns + wait.min(BACK_OFF_MAX_NS);
        self.campaign.back_off_ns = (self.campaign.back_off_ns * 2).min(BACK_OFF_MAX_NS / 4);
    }

    /// Another epoch was promised: the own campaign, if there was one, is over.
    pub(super) fn end_campaign(&mut self, now: Now) {
        if self.campaign.is_coordinating() {
            self.back_off(now);
        }
        self.campaign.stage = Stage::Idle;
        self.campaign.suspected_ns = None;
    }

    pub(super) fn on_reject(&mut self, now: Now, node: u16, reject: Reject) {
        if reject.epoch <= self.promised {
            return;
        }
        if self.campaign.is_coordinating() && !self.installed() {
            self.give_up(now);
        }
        self.note_refusal(node);
    }

    /// The mistake of [`Mistake::RemakeToken`].
    pub(super) fn remake_token(&mut self) {
        let hop = self.holder.0 + 2;
        self.passed = None;
        self.make_token(hop);
    }
}
