//! The log: appending in order, batches that come early, gaps that are fetched (RING §2, 3).

use bytes::Bytes;
use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::limits::BATCH_BYTES_MAX;
use pygmy_proto::message::{Data, Epoch, Fetch, FetchRefused};
use pygmy_proto::types::Blob;

use super::{FETCH_AGAIN_NS, GAP_NS, Now, Output, Peer, PeerMessage, REFUSED_AGAIN_NS, Replica, Target, Timer};
use crate::StateMachine;
use crate::config::Mistake;

/// Whether a batch can be a part of the log of `epoch`: it was ordered in it or before, and what begins an epoch or
/// changes the voters stands alone.
fn is_of_this(batch: &Batch, epoch: Epoch) -> bool {
    let special = batch.entries().any(|entry| matches!(entry.kind, EntryKind::NewEpoch | EntryKind::Config));
    batch.header().epoch <= epoch && (!special || batch.header().count == 1)
}

impl<S: StateMachine> Replica<S> {
    pub(super) fn on_data(&mut self, now: Now, node: u16, data: Data) {
        let (end, bytes) = (self.log.last_seq(), data.batch.len());
        match Batch::parse(data.batch.into_bytes()) {
            Ok(batch) if is_of_this(&batch, data.epoch) => {
                self.note_peer_end(node, batch.last_seq());
                self.take_batch(now, node, batch);
            }
            Ok(batch) => log::warn!("node {node} sent a batch that cannot be: {:?}", batch.header()),
            Err(error) => log::warn!("node {node} sent a batch that is none: {error}"),
        }
        if data.hop > 0 {
            self.note_hop(data.hop, node);
        }
        self.learn_commit(now, node, data.committed);
        // What did not extend the log answers an earlier fetch: counting it would keep two answers on the way for ever.
        if data.hop == 0 && self.log.last_seq() > end {
            self.fetch_on(now, node, bytes);
        }
    }

    fn take_batch(&mut self, now: Now, node: u16, batch: Batch) {
        let first = batch.header().first_seq;
        if !self.may_append_from(node) {
            // The epoch has begun, and is not installed here: this will belong to it.
            self.keep_early(batch);
            return;
        }
        self.note_end(now, batch.last_seq());
        if self.log.continues(&batch) || self.config.makes(Mistake::AppendWithGaps) {
            self.append(now, batch);
            self.append_early(now);
        } else if first > self.log.last_seq() + 1 {
            self.keep_early(batch);
        } else {
            self.compare_with_log(&batch);
        }
    }

    /// A batch from the past must be the one that is there: two different ones would mean two tokens.
    fn compare_with_log(&mut self, batch: &Batch) {
        let (first, last) = (batch.header().first_seq, batch.last_seq());
        // Batches are the same everywhere, so one that goes beyond the end of this log and does not continue it is
        // of another history; so is one with another hash where this log still knows its own.
        let other =
            last > self.log.last_seq() || self.log.hash_at(last).is_some_and(|hash| hash != batch.header().hash_last);
        if other {
            self.fatal(format!("two histories: batch {first}..{last} is not the one that was appended here"));
        }
    }

    fn keep_early(&mut self, batch: Batch) {
        let len = batch.bytes().len();
        if self.early_bytes + len > self.config.limits.early_bytes_max {
            // It will be fetched once the gap in front of it has closed.
            return;
        }
        self.counters.batches_early += 1;
        self.early_bytes += len;
        if let Some(same) = self.early.insert(batch.header().first_seq, batch) {
            self.early_bytes -= same.bytes().len();
        }
    }

    pub(super) fn append_early(&mut self, now: Now) {
        if !self.may_append() {
            return;
        }
        while let Some(entry) = self.early.first_entry() {
            if *entry.key() > self.log.last_seq() + 1 {
                return;
            }
            let batch = entry.remove();
            self.early_bytes -= batch.bytes().len();
            if self.log.continues(&batch) {
                self.append(now, batch);
            } else {
                self.compare_with_log(&batch);
            }
        }
    }

    /// Appends a batch that continues the log.
    pub(super) fn append(&mut self, now: Now, batch: Batch) {
        self.note_end(now, batch.last_seq());
        if self.log.last_seq() == self.committed {
            self.watch.commit_ns = now.mono_ns;
        }
        self.origins.push_back((batch.last_seq(), batch.header().origin));
        let was_installed = self.installed();
        self.take_into_log(batch.clone());
        self.outputs.push(Output::Append { epoch: self.promised, batch });
        if self.installed() && !was_installed {
            self.on_installed(now);
        }
        self.verify_acks(now);
        self.commit_known(now);
        self.watch_gap(now);
    }

    /// After every batch that was appended: the gap is closed, or what follows has its own time to come by itself.
    fn watch_gap(&mut self, now: Now) {
        let last = self.log.last_seq();
        let answered = |node: &u16| self.peers.get(node).is_none_or(|peer| peer.last.seq <= last);
        if last >= self.known_end || self.fetching_from.as_ref().is_some_and(answered) {
            self.fetching_from = None;
        }
        if last >= self.known_end {
            self.timers.stop(Timer::Gap);
        } else {
            let patience = if self.fetching_from.is_some() { FETCH_AGAIN_NS } else { GAP_NS };
            self.timers.set(Timer::Gap, now.mono_ns + patience);
        }
    }

    /// Learns that the log goes at least up to `seq` somewhere.
    pub(super) fn note_end(&mut self, now: Now, seq: u64) {
        self.known_end = self.known_end.max(seq);
        if self.known_end > self.log.last_seq() {
            self.timers.start(Timer::Gap, now.mono_ns + GAP_NS);
        }
    }

    /// Learns that `node` has the log up to `seq`.
    pub(super) fn note_peer_end(&mut self, node: u16, seq: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.last.seq = peer.last.seq.max(seq);
        }
    }

    pub(super) fn on_gap_timer(&mut self, now: Now) {
        if self.known_end <= self.log.last_seq() || self.config.makes(Mistake::NeverFetch) {
            return;
        }
        self.fetch(now);
    }

    /// Asks one peer for what follows the end of this log: one that is known to have it, else any, for a position may
    /// be known from another than who has it. When there is nobody to ask no timer runs: whatever changes that comes
    /// with a position, and so starts it ([`Self::note_end`]).
    fn fetch(&mut self, now: Now) {
        let from_seq = self.log.last_seq() + 1;
        let before = self.fetching_from.take();
        let mut candidates = self.fetch_candidates(|peer| peer.last.seq >= from_seq);
        if candidates.is_empty() {
            candidates = self.fetch_candidates(|_| true);
        }
        // The one after the peer that was asked last, round the table.
        let next = candidates.iter().copied().find(|node| Some(*node) > before).or(candidates.first().copied());
        match next {
            Some(node) => self.fetch_from(now, node),
            None => self.forget_refusals(now),
        }
    }

    /// Nobody holds what follows. Should no snapshot have come by then, all are asked again, and so is for a snapshot:
    /// whoever was to give it may be gone.
    fn forget_refusals(&mut self, now: Now) {
        let mut refused = false;
        for peer in self.peers.values_mut().filter(|peer| peer.up) {
            refused |= peer.refused_fetch.take().is_some();
        }
        if refused {
            self.timers.set(Timer::Gap, now.mono_ns + REFUSED_AGAIN_NS);
        }
    }

    /// Peers with a link that have not said that they no longer hold what follows the end of this log.
    fn fetch_candidates(&self, wanted: impl Fn(&Peer) -> bool) -> Vec<u16> {
        let from_seq = self.log.last_seq() + 1;
        // Only whoever is in this epoch holds its history; before it begins, the owner of the chosen log does.
        let holds = |node: u16, peer: &Peer| peer.last.epoch == self.promised || self.takes_chosen_from(node);
        let able = |peer: &Peer| peer.up && peer.refused_fetch != Some(from_seq) && wanted(peer);
        let candidates = self.peers.iter().filter(|(node, peer)| able(peer) && holds(**node, peer));
        candidates.map(|(node, _)| *node).collect()
    }

    pub(super) fn fetch_from(&mut self, now: Now, node: u16) {
        self.timers.set(Timer::Gap, now.mono_ns + FETCH_AGAIN_NS);
        self.fetching_from = Some(node);
        self.fetched_bytes = 0;
        self.counters.fetches_sent += 1;
        let fetch =
            Fetch { epoch: self.promised, from_seq: self.log.last_seq() + 1, hash_before: self.log.last_hash() };
        self.send(Target::Node(node), PeerMessage::Fetch(fetch));
    }

    /// A part that was fetched has come. Its sender stops after about [`BATCH_BYTES_MAX`], or at the end of its log:
    /// in the first case more is asked for at once, in the second the rest comes as it is ordered.
    fn fetch_on(&mut self, now: Now, node: u16, bytes: usize) {
        if self.fetching_from != Some(node) {
            return;
        }
        self.fetched_bytes += bytes;
        self.fetched_total += bytes as u64;
        self.fetched_chosen(now, node);
        if self.fetched_bytes >= BATCH_BYTES_MAX {
            self.fetch_from(now, node);
        }
    }

    pub(super) fn on_fetch(&mut self, node: u16, fetch: Fetch) {
        // Before an epoch has begun here its coordinator alone may look at this log.
        let may = self.installed() || fetch.epoch.node == node;
        let before = fetch.from_seq.wrapping_sub(1);
        let within = may && fetch.from_seq > 0 && fetch.from_seq <= self.log.last_seq();
        if within && fetch.from_seq < self.log.first_seq() {
            let upto = self.log.first_seq() - 1;
            self.outputs.push(Output::ReadLog { node, from_seq: fetch.from_seq, upto });
            return;
        }
        if !within || self.log.hash_at(before) != Some(fetch.hash_before) {
            self.refuse_fetch(node);
            return;
        }
        let mut room = BATCH_BYTES_MAX;
        let mut batches = Vec::new();
        for batch in self.log.batches_from(fetch.from_seq) {
            batches.push(batch.bytes().clone());
            room = room.saturating_sub(batch.bytes().len());
            if room == 0 {
                break;
            }
        }
        for bytes in batches {
            self.send_part(node, bytes);
        }
    }

    fn send_part(&mut self, node: u16, bytes: Bytes) {
        if let Some(batch) = Blob::new(bytes) {
            let data = Data { epoch: self.promised, hop: 0, committed: self.committed, batch };
            self.send(Target::Node(node), PeerMessage::Data(data));
        }
    }

    fn refuse_fetch(&mut self, node: u16) {
        let (first_seq, last_seq) = (self.log.first_seq(), self.log.last_seq());
        let refused = FetchRefused { epoch: self.promised, first_seq, last_seq };
        self.send(Target::Node(node), PeerMessage::FetchRefused(refused));
    }

    /// A part of the log that is no longer in memory was read for `node`. All of it is final, so it does not matter what
    /// has happened meanwhile.
    pub(super) fn on_log_read(&mut self, node: u16, batches: Vec<Batch>) {
        if batches.is_empty() {
            self.refuse_fetch(node);
        }
        for batch in batches {
            self.send_part(node, batch.bytes().clone());
        }
    }

    /// Sends the end of this log, unasked: a peer that lacks what is before it then fetches that.
    pub(super) fn send_last_batch(&mut self, node: u16) {
        let last = self.log.batch_at(self.log.last_seq()).and_then(|batch| Blob::new(batch.bytes().clone()));
        if let Some(batch) = last {
            let data = Data { epoch: self.promised, hop: 0, committed: self.committed, batch };
            self.send(Target::Node(node), PeerMessage::Data(data));
        }
    }

    pub(super) fn on_fetch_refused(&mut self, now: Now, node: u16, refused: FetchRefused) {
        let wanted = self.log.last_seq() + 1;
        let asked = self.fetching_from == Some(node);
        if let Some(peer) = self.peers.get_mut(&node) {
            // It says how far it goes; should it go on, it says so again.
            peer.last.seq = refused.last_seq;
            if asked && refused.last_seq >= wanted {
                peer.refused_fetch = Some(wanted);
            }
        }
        if asked && self.known_end >= wanted {
            log::warn!(
                "node {node} cannot give the log from seq {wanted}: it holds {}..{}",
                refused.first_seq,
                refused.last_seq
            );
            let others = !self.fetch_candidates(|peer| peer.last.seq >= wanted).is_empty();
            if !others && refused.first_seq > wanted {
                self.outputs.push(Output::NeedSnapshot { node });
            }
            let patience = if others { GAP_NS } else { FETCH_AGAIN_NS };
            self.timers.set(Timer::Gap, now.mono_ns + patience);
        }
    }
}
