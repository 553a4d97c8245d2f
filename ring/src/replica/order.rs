//! The token: wanting it, ordering under it, passing it on (RING §2, 1, 2, 7 and 8).

use pygmy_proto::batch::{Batch, BatchBuilder, EntryKind};
use pygmy_proto::limits::CLIENT_BODY_MAX;
use pygmy_proto::message::{Data, Epoch, ReplicaHello, Token, TokenDurable, TokenMember, Want};
use pygmy_proto::types::{Blob, Bounded};

use super::{
    NotTaken, Now, Output, OwnBatch, Passed, PeerMessage, Pending, Proposal, ROTATE_NS, Replica, Target, Ticket, Timer,
    UNSERVED_NS,
};
use crate::StateMachine;
use crate::config::Mistake;

/// How long un-numbered writes wait when there is no link to the holder: it may be gone, and another one on its way.
const UNLINKED_NS: u64 = 50_000_000;

impl<S: StateMachine> Replica<S> {
    /// The catalogs' parts of a new token.
    pub(super) fn fresh_members(&self) -> Vec<TokenMember> {
        let member = |node: &u16| TokenMember { node: *node, boot_nonce: 0, want: 0, served: 0 };
        self.catalogs.iter().map(member).collect()
    }

    pub(super) fn on_propose(&mut self, now: Now, proposal: Proposal) {
        let refusal = if !self.config.is_catalog() {
            Some(NotTaken::NotACatalog)
        } else if self.leaving {
            Some(NotTaken::Leaving)
        } else if self.disk_full {
            Some(NotTaken::OutOfSpace)
        } else if proposal.body.len() > CLIENT_BODY_MAX {
            Some(NotTaken::TooLong)
        } else if self.pending.len() >= self.config.limits.pending_max
            || self.pending_bytes + proposal.body.len() > self.config.limits.pending_bytes_max
        {
            Some(NotTaken::QueueFull)
        } else {
            None
        };
        match refusal {
            Some(why) => self.refuse(proposal.ticket, why),
            None => {
                self.pending_bytes += proposal.body.len();
                self.pending.push_back(Pending { proposal, since_ns: now.mono_ns });
            }
        }
    }

    pub(super) fn refuse(&mut self, ticket: u64, why: NotTaken) {
        self.counters.handed_back += 1;
        self.outputs.push(Output::Refused { ticket, why });
    }

    /// Hands back every write that has no number yet. The want stays: the token will pass by and go on.
    pub(super) fn hand_back_all(&mut self, why: NotTaken) {
        while let Some(pending) = self.pending.pop_front() {
            self.refuse(pending.proposal.ticket, why);
        }
        if self.config.makes(Mistake::HandBackNumbered) {
            while let Some(ticket) = self.tickets.pop_front() {
                self.refuse(ticket.ticket, why);
            }
        }
        self.pending_bytes = 0;
        self.hand_back_changes(why);
    }

    /// Orders what may be ordered and passes the token on, or asks for it.
    pub(super) fn drive_token(&mut self, now: Now) {
        let mut ordered = false;
        self.watch_gap_before_token();
        if self.token.is_some() {
            self.confirm(now);
            self.drive_changes(now);
            ordered = self.use_token(now);
        } else {
            self.ask_for_token(now);
        }
        if self.pending.is_empty() && self.changes.is_empty() {
            self.timers.stop(Timer::Unserved);
        } else if ordered {
            self.timers.set(Timer::Unserved, now.mono_ns + UNSERVED_NS);
        } else {
            let unlinked = self.holder.1 != 0 && self.holder.1 != self.config.me && !self.is_up(self.holder.1);
            self.timers.start(Timer::Unserved, now.mono_ns + if unlinked { UNLINKED_NS } else { UNSERVED_NS });
        }
    }

    fn watch_gap_before_token(&mut self) {
        let waits = self.token.is_some() && !self.continues_token();
        if !waits {
            self.watch.gap_since_ns = None;
        } else if self.watch.gap_since_ns.is_none() {
            self.watch.gap_since_ns = Some(self.now_ns);
        }
    }

    /// A holder that no longer hears a majority cannot commit anything: what it has numbered may take effect in
    /// another epoch or not, what it has not is handed back.
    fn confirm(&mut self, now: Now) {
        if self.is_confirmed() {
            self.watch.confirm_from_ns = None;
        } else if self.is_deaf() && now.mono_ns.saturating_sub(self.watch.since_ns) > super::watch::DEAF_NS {
            self.hand_back_all(NotTaken::Unserved);
            self.give_up_tickets(self.committed);
        }
    }

    /// One tenure, or a part of it; whether a batch was ordered.
    fn use_token(&mut self, now: Now) -> bool {
        self.wanting = false;
        let mut ordered = false;
        while self.order_batch(now) {
            ordered = true;
            // While others want it, a tenure is one batch.
            if self.next_wanting().is_some() || self.config.rotate {
                break;
            }
        }
        // Another origin's batch is still on its way, or being fetched. Whoever gave its turn away for that would
        // lose it again and again when its link with that origin is the slower one.
        let waits = !self.pending.is_empty() && !self.continues_token();
        if !waits {
            self.serve_own_want();
            self.pass_token(now);
        }
        ordered
    }

    fn ask_for_token(&mut self, now: Now) {
        let idle = self.pending.is_empty() && self.changes.is_empty();
        if idle || self.wanting || !self.may_ask() || self.promised == Epoch::default() {
            return;
        }
        self.wanting = true;
        self.want += 1;
        self.watch.want_ns = now.mono_ns;
        let want = Want { epoch: self.promised, boot_nonce: self.config.boot_nonce, number: self.want };
        self.send(Target::All, PeerMessage::Want(want));
    }

    pub(super) fn on_want(&mut self, node: u16, want: Want) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.boot_nonce == want.boot_nonce
        {
            peer.want = peer.want.max(want.number);
        }
    }

    /// Whether the token is here and this log goes up to where it orders next.
    fn continues_token(&self) -> bool {
        self.token.as_ref().is_some_and(|token| {
            (token.next_seq == self.log.last_seq() + 1 && token.hash_before == self.log.last_hash())
                || self.config.makes(Mistake::OrderBehindGap)
        })
    }

    /// Whether the bounds of what is uncommitted leave room for a batch.
    fn has_room(&self) -> bool {
        self.own.len() < self.config.limits.uncommitted_batches_max
            && self.own_bytes < self.config.limits.uncommitted_bytes_max
    }

    /// Whether the token would be put to use here. A replica at its bounds that asked all the same would have it
    /// circle in vain among those like it.
    fn may_ask(&self) -> bool {
        let unsynced = self.own.iter().filter(|batch| batch.last_seq > self.durable).count();
        unsynced < self.config.limits.unsynced_batches_max && self.has_room() && !self.disk_full && !self.lags()
    }

    /// Whether an entry may be numbered now.
    pub(super) fn may_number(&self) -> bool {
        let believed = self.is_confirmed() || self.config.makes(Mistake::BelieveOldHolder);
        self.installed() && self.continues_token() && self.has_room() && believed && !self.disk_full
    }

    /// Whether a batch may be numbered now.
    fn may_order(&self) -> bool {
        !self.pending.is_empty() && self.may_number()
    }

    /// Numbers one batch of what is pending, logs it and sends it to all; whether there was one.
    fn order_batch(&mut self, now: Now) -> bool {
        if !self.may_order() {
            return false;
        }
        let mut builder = self.builder(now);
        while let Some(pending) = self.pending.front() {
            if !builder.has_room(pending.proposal.body.len()) {
                break;
            }
            let Some(pending) = self.pending.pop_front() else { break };
            self.pending_bytes -= pending.proposal.body.len();
            // The last moment at which it can be dropped: a numbered write takes effect.
            if pending.proposal.deadline_ns <= now.mono_ns {
                self.refuse(pending.proposal.ticket, NotTaken::Deadline);
                continue;
            }
            let Proposal { ticket, kind, body, .. } = pending.proposal;
            let seq = builder.push(kind, &body);
            let waited_ns = now.mono_ns.saturating_sub(pending.since_ns);
            self.tickets.push_back(Ticket { seq, ticket, waited_ns });
        }
        let Some(batch) = builder.finish() else { return false };
        self.publish(now, batch);
        true
    }

    fn builder(&self, now: Now) -> BatchBuilder {
        let time_us = now.wall_us.max(self.log.last_time_us().saturating_add(1));
        BatchBuilder::new(self.promised, self.config.me, self.log.last_seq() + 1, time_us, self.log.last_hash())
    }

    /// Numbers one entry in a batch of its own.
    pub(super) fn order_alone(&mut self, now: Now, kind: EntryKind, body: &[u8], ticket: Option<u64>) {
        let mut builder = self.builder(now);
        let seq = builder.push(kind, body);
        if let Some(ticket) = ticket {
            self.tickets.push_back(Ticket { seq, ticket, waited_ns: 0 });
        }
        if let Some(batch) = builder.finish() {
            self.publish(now, batch);
        }
    }

    /// Logs a batch that was numbered here and sends it to all.
    fn publish(&mut self, now: Now, batch: Batch) {
        self.counters.batches_ordered += 1;
        self.own_bytes += batch.bytes().len();
        self.own.push_back(OwnBatch {
            last_seq: batch.last_seq(),
            bytes: batch.bytes().len(),
            numbered_ns: now.mono_ns,
            durable_ns: None,
            committed_ns: None,
        });
        if let Some(token) = &mut self.token {
            token.next_seq = batch.last_seq() + 1;
            token.hash_before = batch.header().hash_last;
        }
        let hop = self.token.as_ref().map_or(0, |token| token.hop);
        if let Some(blob) = Blob::new(batch.bytes().clone()) {
            let data = Data { epoch: self.promised, hop, committed: self.committed, batch: blob };
            self.send(Target::All, PeerMessage::Data(data));
        }
        self.append(now, batch);
    }

    /// Notes in the token that this member was served, and that it wants more if it does.
    fn serve_own_want(&mut self) {
        let more = !self.pending.is_empty() && self.next_wanting().is_some() && self.may_ask();
        if more {
            self.want += 1;
            self.wanting = true;
        }
        let (me, boot_nonce, want) = (self.config.me, self.config.boot_nonce, self.want);
        self.edit_member(me, |member| {
            *member = TokenMember { node: me, boot_nonce, want, served: if more { want - 1 } else { want } };
        });
    }

    fn edit_member(&mut self, node: u16, edit: impl FnOnce(&mut TokenMember)) {
        let Some(token) = &mut self.token else { return };
        let mut members = std::mem::take(&mut token.members).into_vec();
        if !members.iter().any(|member| member.node == node) {
            // Those that were replaced give their places to those that came.
            members.retain(|member| self.catalogs.contains(&member.node));
            members.push(TokenMember { node, boot_nonce: 0, want: 0, served: 0 });
        }
        if let Some(member) = members.iter_mut().find(|member| member.node == node) {
            edit(member);
        }
        token.members = Bounded::truncated(members);
    }

    /// The catalogs after this one in ring order, each once, this one left out.
    fn ring_order(&self) -> impl Iterator<Item = u16> {
        let catalogs = &self.catalogs;
        let at = catalogs.iter().position(|node| *node == self.config.me).unwrap_or(0);
        let (before, after) = catalogs.split_at(at);
        let order: Vec<u16> = after.iter().skip(1).chain(before).copied().collect();
        order.into_iter()
    }

    pub(super) fn is_up(&self, node: u16) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.up)
    }

    /// The next catalog in ring order with a link and an unserved want.
    fn next_wanting(&self) -> Option<u16> {
        let token = self.token.as_ref()?;
        self.ring_order().find(|node| {
            let Some(peer) = self.peers.get(node).filter(|_| self.may_hold(*node)) else { return false };
            let Some(member) = token.members.iter().find(|member| member.node == *node) else { return false };
            if member.boot_nonce == peer.boot_nonce {
                member.want.max(peer.want) > member.served
            } else {
                peer.want > 0
            }
        })
    }

    /// Whether there is a catalog that the token could be given to.
    pub(super) fn has_heir(&self) -> bool {
        self.ring_order().any(|node| self.may_hold(node))
    }

    fn pass_token(&mut self, now: Now) {
        let to = if self.leaving && self.pending.is_empty() && self.tickets.is_empty() {
            self.ring_order().find(|node| self.may_hold(*node))
        } else if self.config.rotate {
            self.rotation_target(now)
        } else {
            self.next_wanting()
        };
        if let Some(to) = to {
            self.hand_token_to(to);
        }
    }

    /// With a rotating token: the next catalog, at once when there is work here or wanted there, else paced.
    fn rotation_target(&mut self, now: Now) -> Option<u16> {
        if let Some(wanting) = self.next_wanting() {
            return Some(wanting);
        }
        if self.timers.is_set(Timer::Rotate) {
            return None;
        }
        if std::mem::take(&mut self.rotation_rested) {
            return self.ring_order().find(|node| self.may_hold(*node));
        }
        self.rotation_rested = true;
        self.timers.set(Timer::Rotate, now.mono_ns + ROTATE_NS);
        None
    }

    fn hand_token_to(&mut self, to: u16) {
        let Some(mut token) = self.token.take() else { return };
        self.rotation_rested = false;
        self.timers.stop(Timer::Rotate);
        token.hop += 1;
        token.config_id = self.membership().id;
        token.committed = self.committed;
        token.durable = Bounded::truncated(self.durable_table());
        self.holder = (token.hop, to);
        self.watch.claimed_ns = self.now_ns;
        let boot_nonce = self.peers.get(&to).map_or(0, |peer| peer.boot_nonce);
        if !self.config.makes(Mistake::ForgetPassedToken) {
            self.passed = Some(Passed { to, boot_nonce, token: token.clone(), at_ns: self.now_ns });
        }
        self.send(Target::Node(to), PeerMessage::Token(token));
    }

    fn durable_table(&self) -> Vec<TokenDurable> {
        let own = (self.config.log_uuid, self.durable);
        let peers = self.peers.values().map(|peer| (peer.log_uuid, peer.durable));
        let known: Vec<_> = peers.chain([own]).collect();
        let durable = |uuid| known.iter().filter(|(u, _)| *u == uuid).map(|(_, d)| *d).max().unwrap_or(0);
        let members = self.membership().voters.iter();
        members.map(|m| TokenDurable { log_uuid: m.log_uuid, durable: durable(m.log_uuid) }).collect()
    }

    pub(super) fn on_token(&mut self, now: Now, node: u16, mut token: Token) {
        // Hops deduplicate: a token that was re-sent after all had arrived is the same one.
        let old = token.hop <= self.token_hop_received || token.hop < self.holder.0;
        let nonsense = !self.config.is_catalog() || token.next_seq == 0 || token.hop == u64::MAX;
        if nonsense || (old && !self.config.makes(Mistake::TakeOldToken)) {
            self.counters.tokens_refused += 1;
            log::debug!("token with hop {} from node {node} refused: {} was seen", token.hop, self.holder.0);
            return;
        }
        self.counters.tokens_received += 1;
        self.counters.tokens_lagging += u64::from(self.lags());
        self.token_hop_received = token.hop;
        self.note_hop(token.hop, self.config.me);
        self.passed = None;
        let mut members = std::mem::take(&mut token.members).into_vec();
        for member in &mut members {
            self.merge_want(member);
        }
        token.members = Bounded::truncated(members);
        self.note_peer_end(node, token.next_seq - 1);
        self.note_end(now, token.next_seq - 1);
        for voter in &token.durable {
            self.learn_durable(voter);
        }
        let committed = token.committed;
        self.token = Some(token);
        self.count_votes(now);
        self.learn_commit(now, node, committed);
    }

    /// Brings a member's part of the token up to what was heard on the link with it, and the other way round.
    fn merge_want(&mut self, member: &mut TokenMember) {
        let Some(peer) = self.peers.get_mut(&member.node).filter(|peer| peer.boot_nonce != 0) else { return };
        if member.boot_nonce == peer.boot_nonce {
            member.want = member.want.max(peer.want);
            peer.want = member.want;
        } else if peer.up {
            *member = TokenMember { node: member.node, boot_nonce: peer.boot_nonce, want: peer.want, served: 0 };
        }
    }

    /// Learns that `node` claims `hop`. A hop at or above the one passed on proves that it arrived.
    pub(super) fn note_hop(&mut self, hop: u64, node: u16) {
        if hop >= self.holder.0 {
            self.holder = (hop, node);
            self.watch.claimed_ns = self.now_ns;
        }
        if self.passed.as_ref().is_some_and(|passed| hop >= passed.token.hop) && node != self.config.me {
            self.passed = None;
        }
    }

    /// Learns whom another replica takes for the holder. That proves nothing of the hop itself, but of those before.
    pub(super) fn note_view(&mut self, hop: u64, holder: u16) {
        if hop > self.holder.0 {
            self.holder = (hop, holder);
        }
        if self.passed.as_ref().is_some_and(|passed| hop > passed.token.hop) {
            self.passed = None;
        }
    }

    /// On a reconnect to the same process: sends the token again unless it was received.
    pub(super) fn resend_token(&mut self, node: u16, hello: &ReplicaHello) {
        let Some(passed) = self.passed.as_ref().filter(|passed| passed.to == node) else { return };
        if passed.boot_nonce != hello.boot_nonce && !self.config.makes(Mistake::ResendToOtherBoot) {
            log::warn!("the token was passed to a process of node {node} that is gone: it is lost");
            // Nobody may go on believing that it is under way.
            self.passed = None;
        } else if hello.token_hop >= passed.token.hop {
            self.passed = None;
        } else {
            let token = passed.token.clone();
            if let Some(passed) = &mut self.passed {
                passed.at_ns = self.now_ns;
            }
            self.counters.tokens_resent += 1;
            self.send(Target::Node(node), PeerMessage::Token(token));
        }
    }
}
