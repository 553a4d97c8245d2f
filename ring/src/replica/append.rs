//! The log: appending in order, batches that come early, gaps that are fetched (RING §2, 3).

use pygmy_proto::batch::Batch;
use pygmy_proto::limits::BATCH_BYTES_MAX;
use pygmy_proto::message::{Data, Fetch, FetchRefused};
use pygmy_proto::types::Blob;

use super::{FETCH_AGAIN_NS, GAP_NS, Now, Output, PeerMessage, Replica, Target, Timer};
use crate::StateMachine;
use crate::config::Mistake;

impl<S: StateMachine> Replica<S> {
    pub(super) fn on_data(&mut self, now: Now, node: u16, data: Data) {
        let fetched = data.hop == 0 && self.fetching_from == Some(node);
        let bytes = data.batch.len();
        match Batch::parse(data.batch.into_bytes()) {
            Ok(batch) if batch.header().epoch == self.epoch => {
                self.note_peer_end(node, batch.last_seq());
                self.take_batch(now, batch);
            }
            Ok(batch) => log::warn!("node {node} sent a batch of epoch {:?}: dropped", batch.header().epoch),
            Err(error) => log::warn!("node {node} sent a batch that is none: {error}"),
        }
        if data.hop > 0 {
            self.note_hop(data.hop, node);
        }
        self.learn_commit(now, data.committed);
        if fetched {
            self.fetch_on(now, bytes);
        }
    }

    fn take_batch(&mut self, now: Now, batch: Batch) {
        let first = batch.header().first_seq;
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
        let last = batch.last_seq();
        let known = if last <= self.log.last_seq() { self.log.hash_at(last) } else { None };
        if known.is_some_and(|hash| hash != batch.header().hash_last)
            || batch.header().first_seq == self.log.last_seq() + 1
        {
            self.fatal(format!("two histories: another batch {}..{last} was appended here", batch.header().first_seq));
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

    fn append_early(&mut self, now: Now) {
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
        self.origins.push_back((batch.last_seq(), batch.header().origin));
        self.log.push(batch.clone());
        self.outputs.push(Output::Append(batch));
        self.verify_acks(now);
        self.commit_known(now);
        if self.log.last_seq() >= self.known_end && self.early.is_empty() {
            self.timers.stop(Timer::Gap);
            self.fetching_from = None;
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
            peer.last_seq = peer.last_seq.max(seq);
        }
    }

    pub(super) fn on_gap_timer(&mut self, now: Now) {
        if self.known_end <= self.log.last_seq() || self.config.makes(Mistake::NeverFetch) {
            return;
        }
        self.fetch(now);
    }

    /// Asks one peer that should have it for what follows the end of this log.
    fn fetch(&mut self, now: Now) {
        self.timers.set(Timer::Gap, now.mono_ns + FETCH_AGAIN_NS);
        let from_seq = self.log.last_seq() + 1;
        let before = self.fetching_from.take();
        let able = |node: &u16| {
            self.peers.get(node).is_some_and(|p| p.up && p.last_seq >= from_seq && p.refused_fetch != Some(from_seq))
        };
        let candidates: Vec<u16> = self.peers.keys().copied().filter(able).collect();
        // The one after the peer that did not answer in time, round the table.
        let next = candidates.iter().copied().find(|node| Some(*node) > before).or(candidates.first().copied());
        let Some(node) = next else { return };
        self.fetching_from = Some(node);
        self.fetched_bytes = 0;
        self.counters.fetches_sent += 1;
        let fetch = Fetch { epoch: self.epoch, from_seq, hash_before: self.log.last_hash() };
        self.send(Target::Node(node), PeerMessage::Fetch(fetch));
    }

    /// A part that was fetched has come. Its sender stops after about [`BATCH_BYTES_MAX`], or at the end of its log:
    /// in the first case more is asked for at once, in the second the rest comes as it is ordered.
    fn fetch_on(&mut self, now: Now, bytes: usize) {
        self.fetched_bytes += bytes;
        if self.fetched_bytes >= BATCH_BYTES_MAX && self.log.last_seq() < self.known_end {
            // The same peer again: it has answered.
            self.fetching_from = self.fetching_from.map(|node| node.saturating_sub(1));
            self.fetch(now);
        }
    }

    pub(super) fn on_fetch(&mut self, node: u16, fetch: Fetch) {
        let before = fetch.from_seq.wrapping_sub(1);
        let held = fetch.from_seq >= self.log.first_seq()
            && fetch.from_seq <= self.log.last_seq()
            && self.log.hash_at(before) == Some(fetch.hash_before);
        if !held {
            let (first_seq, last_seq) = (self.log.first_seq(), self.log.last_seq());
            let refused = FetchRefused { epoch: self.epoch, first_seq, last_seq };
            self.send(Target::Node(node), PeerMessage::FetchRefused(refused));
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
            if let Some(batch) = Blob::new(bytes) {
                let data = Data { epoch: self.epoch, hop: 0, committed: self.committed, batch };
                self.send(Target::Node(node), PeerMessage::Data(data));
            }
        }
    }

    pub(super) fn on_fetch_refused(&mut self, now: Now, node: u16, refused: FetchRefused) {
        let wanted = self.log.last_seq() + 1;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.refused_fetch = Some(wanted);
            peer.last_seq = peer.last_seq.min(refused.last_seq);
        }
        if self.fetching_from == Some(node) {
            log::warn!(
                "node {node} cannot give the log from seq {wanted}: it holds {}..{}",
                refused.first_seq,
                refused.last_seq
            );
            self.timers.set(Timer::Gap, now.mono_ns + GAP_NS);
        }
    }
}
