//! Which log a stream of records means.
//!
//! Records are taken in the order of the stream. Each says which entry stands before it. If the log so far has that
//! entry, by seq *and* hash, then the log up to there is exactly what it was when the record was written: whatever was
//! lost in between has been superseded, and the log goes on from there. If not, something is missing, and the record
//! shows an end that the log once had and may have acknowledged. That end stays *owed* until the log reaches it again.
//!
//! "Reaches" compares (epoch of the last entry, its seq), as logs are compared when one is chosen: a log whose last
//! entry is of a later epoch holds everything that was committed in the earlier ones, and one of the same epoch and at
//! least that long holds what was lost. The epoch in which something was *submitted* would not do: half of a repair
//! may have been submitted in a later epoch without having brought back anything acknowledged.
//!
//! The log below the *anchor*, the entry at which the newest snapshot was taken, need not be there.

use std::collections::VecDeque;

use pygmy_proto::batch::{Batch, BatchBuilder, entry_hash};
use pygmy_proto::message::Epoch;

use super::record::{Header, Kind, Mark, Position};

/// A batch of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The batch, or what is left of it.
    pub batch: Batch,
    /// Where its record is.
    pub position: Position,
    /// Bytes of the record's body, which has the whole batch.
    pub len: u32,
    /// Epoch in which it was submitted.
    pub tag: Epoch,
}

/// The log that the records so far mean.
#[derive(Debug)]
pub struct Chain {
    anchor: Mark,
    /// The entry before the first piece; `None` before the first record that could be taken.
    base: Option<Mark>,
    pieces: VecDeque<Piece>,
    owed: Option<(Epoch, u64)>,
    tag: Epoch,
}

/// The last entry of `batch`.
pub fn end_of(batch: &Batch) -> Mark {
    let header = batch.header();
    Mark { epoch: header.epoch, seq: header.last_seq(), hash: header.hash_last }
}

/// The hash of the entry at `seq` of `batch`, which has one there.
pub fn hash_at(batch: &Batch, seq: u64) -> u128 {
    if seq == batch.last_seq() {
        return batch.header().hash_last;
    }
    let stamp = batch.header().stamp();
    let through = batch.entries().take_while(|entry| entry.seq <= seq);
    through.fold(batch.header().hash_before, |hash, entry| entry_hash(hash, stamp, entry.seq, entry.kind, entry.body))
}

/// `batch` without what comes after `last`; `None` when nothing is left.
pub fn prefix_of(batch: &Batch, last: u64) -> Option<Batch> {
    let header = batch.header();
    if last >= batch.last_seq() {
        return Some(batch.clone());
    }
    let mut builder =
        BatchBuilder::new(header.epoch, header.origin, header.first_seq, header.time_us, header.hash_before);
    for entry in batch.entries().take_while(|entry| entry.seq <= last) {
        builder.push(entry.kind, entry.body);
    }
    builder.finish()
}

impl Chain {
    /// An empty log that need not have anything up to `anchor`.
    pub fn new(anchor: Mark) -> Self {
        Self { anchor, base: None, pieces: VecDeque::new(), owed: None, tag: Epoch::default() }
    }

    /// The batches, each going on where the one before ends.
    pub fn pieces(&self) -> &VecDeque<Piece> {
        &self.pieces
    }

    /// The same, to keep.
    pub fn into_pieces(self) -> VecDeque<Piece> {
        self.pieces
    }

    /// The last entry.
    pub fn end(&self) -> Mark {
        self.pieces.back().map(|piece| end_of(&piece.batch)).or(self.base).unwrap_or(self.anchor)
    }

    /// The entry before the first that is kept.
    pub fn base(&self) -> Mark {
        self.base.unwrap_or(self.anchor)
    }

    /// An end that was lost and has not been reached again.
    pub fn owed(&self) -> Option<(Epoch, u64)> {
        self.owed
    }

    /// The highest epoch in which anything that was found was submitted.
    pub fn tag(&self) -> Epoch {
        self.tag
    }

    /// Takes a record. `batch` is its body if its kind has one.
    pub fn take(&mut self, header: &Header, batch: Option<Batch>) {
        self.tag = self.tag.max(header.tag);
        if header.kind == Kind::Padding {
            return;
        }
        if header.kind == Kind::Copy && batch.as_ref().is_some_and(|batch| self.already_has(header, batch)) {
            return;
        }
        if self.agrees_with_anchor(batch.as_ref()) && (self.rewind(header.before) || self.start(header.before)) {
            self.pieces.extend(batch.map(|batch| Piece {
                batch,
                position: header.position,
                len: header.len,
                tag: header.tag,
            }));
        } else {
            self.rewind_below(header.first_seq());
            self.owe((header.before.epoch, header.before.seq));
            if let Some(batch) = batch {
                self.owe((batch.header().epoch, batch.last_seq()));
            }
        }
        self.settle();
    }

    /// Notes an end that the log had.
    pub fn owe(&mut self, end: (Epoch, u64)) {
        self.owed = self.owed.max(Some(end)).filter(|owed| owed.1 > 0);
    }

    /// To be called behind the last record. A log that ends before the anchor is of no use: what it lacks the snapshot
    /// has. Whether the log was given up for that.
    pub fn finish(&mut self) -> bool {
        let behind = self.end().seq < self.anchor.seq;
        if behind || self.base.is_none() {
            self.base = Some(self.anchor);
            self.pieces.clear();
        }
        self.settle();
        behind
    }

    /// A debt is settled by any log that reaches so far.
    fn settle(&mut self) {
        let reach = [self.end(), self.anchor].map(|mark| (mark.epoch, mark.seq));
        if self.owed.is_some_and(|owed| reach.into_iter().any(|reach| reach >= owed)) {
            self.owed = None;
        }
    }

    /// Whether a copy says nothing new. Its record is the later home of the batch then.
    fn already_has(&mut self, header: &Header, batch: &Batch) -> bool {
        let last = batch.last_seq();
        let Some(at) = self.index_of(last).filter(|&at| hash_at(&self.pieces[at].batch, last) == end_of(batch).hash)
        else {
            return false;
        };
        let piece = &mut self.pieces[at];
        if piece.batch.header().first_seq == header.first_seq() && piece.batch.last_seq() == last {
            (piece.position, piece.len) = (header.position, header.len);
        }
        true
    }

    /// A batch over the anchor must have the entry of which the snapshot was taken.
    fn agrees_with_anchor(&self, batch: Option<&Batch>) -> bool {
        batch.is_none_or(|batch| {
            let range = batch.header().first_seq..=batch.last_seq();
            !range.contains(&self.anchor.seq) || hash_at(batch, self.anchor.seq) == self.anchor.hash
        })
    }

    /// Cuts what comes after `mark`, if the log has that entry.
    fn rewind(&mut self, mark: Mark) -> bool {
        if self.base.is_some_and(|base| base.seq == mark.seq && base.hash == mark.hash) {
            self.pieces.clear();
            return true;
        }
        let has = self.index_of(mark.seq).is_some_and(|at| hash_at(&self.pieces[at].batch, mark.seq) == mark.hash);
        if has {
            self.rewind_below(mark.seq + 1);
        }
        has
    }

    /// Begins afresh behind `mark`, if nothing at or before it is needed.
    fn start(&mut self, mark: Mark) -> bool {
        let below = mark.seq < self.anchor.seq;
        let there = mark.seq == self.anchor.seq && mark.hash == self.anchor.hash;
        if below || there {
            self.pieces.clear();
            self.base = Some(mark);
        }
        below || there
    }

    /// Cuts what is at and above `seq`.
    fn rewind_below(&mut self, seq: u64) {
        while self.pieces.back().is_some_and(|piece| piece.batch.header().first_seq >= seq) {
            self.pieces.pop_back();
        }
        if let Some(piece) = self.pieces.back_mut().filter(|piece| piece.batch.last_seq() >= seq)
            && let Some(prefix) = prefix_of(&piece.batch, seq.saturating_sub(1))
        {
            piece.batch = prefix;
        }
    }

    fn index_of(&self, seq: u64) -> Option<usize> {
        let at = self.pieces.partition_point(|piece| piece.batch.last_seq() < seq);
        self.pieces.get(at).is_some_and(|piece| piece.batch.header().first_seq <= seq).then_some(at)
    }
}
