//! The part of the log that is kept in memory: batches in order, the oldest dropped once nobody should need them, and
//! where in it epochs begin.

use std::collections::VecDeque;

use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::limits::BOUNDARIES_MAX;
use pygmy_proto::message::{Boundaries, Boundary, Epoch, LogEnd};
use pygmy_proto::types::Bounded;

/// The end of what lies before the first batch that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base {
    /// Epoch and position of the last entry before.
    pub end: LogEnd,
    /// Its hash.
    pub hash: u128,
    /// Time of its batch.
    pub time_us: u64,
}

/// A contiguous, hash-chained run of batches that ends at the end of the log.
#[derive(Debug, Default)]
pub struct Log {
    base: Base,
    batches: VecDeque<Batch>,
    bytes: usize,
    /// Where epochs begin, also below the base, latest last.
    boundaries: VecDeque<Boundary>,
}

impl Log {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// A log that goes on behind `base`, with the boundaries of the epochs before it.
    pub fn behind(base: Base, boundaries: &[Boundary]) -> Self {
        Self { base, boundaries: boundaries.iter().copied().collect(), ..Self::default() }
    }

    /// Epoch and position of the last entry; zeros when there is none.
    pub fn end(&self) -> LogEnd {
        self.batches.back().map_or(self.base.end, |b| LogEnd { epoch: b.header().epoch, seq: b.last_seq() })
    }
    /// Position of the last entry, 0 when there is none.
    pub fn last_seq(&self) -> u64 {
        self.end().seq
    }
    /// Hash of the last entry, 0 when there is none.
    pub fn last_hash(&self) -> u128 {
        self.batches.back().map_or(self.base.hash, |b| b.header().hash_last)
    }
    /// Time of the last batch.
    pub fn last_time_us(&self) -> u64 {
        self.batches.back().map_or(self.base.time_us, |b| b.header().time_us)
    }
    /// Bytes of the batches that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// First position that is kept; one beyond the end when nothing is.
    pub fn first_seq(&self) -> u64 {
        self.base.end.seq + 1
    }

    /// The end of what lies before the first batch that is kept.
    pub fn base(&self) -> Base {
        self.base
    }

    /// Where epochs begin in this log: as many of the latest as a frame may name.
    pub fn boundaries(&self) -> Boundaries {
        Bounded::truncated(self.boundaries.iter().copied().collect())
    }

    /// The last epoch of this log and where it begins.
    pub fn last_boundary(&self) -> Option<Boundary> {
        self.boundaries.back().copied()
    }

    /// Whether `batch` continues this log: the next seq, behind the same hash.
    pub fn continues(&self, batch: &Batch) -> bool {
        batch.header().first_seq == self.last_seq() + 1 && batch.header().hash_before == self.last_hash()
    }

    /// Appends `batch`. The caller has checked that it continues the log.
    pub fn push(&mut self, batch: Batch) {
        if batch.entries().next().is_some_and(|entry| entry.kind == EntryKind::NewEpoch) {
            if self.boundaries.len() == BOUNDARIES_MAX {
                self.boundaries.pop_front();
            }
            self.boundaries.push_back(Boundary { epoch: batch.header().epoch, first_seq: batch.header().first_seq });
        }
        self.bytes += batch.bytes().len();
        self.batches.push_back(batch);
    }

    /// Removes everything behind `keep`; whether that was possible: not inside a batch, nor before what is kept.
    #[must_use]
    pub fn truncate(&mut self, keep: u64) -> bool {
        while self.batches.back().is_some_and(|b| b.header().first_seq > keep) {
            let dropped = self.batches.pop_back().map_or(0, |b| b.bytes().len());
            self.bytes -= dropped;
        }
        while self.boundaries.back().is_some_and(|b| b.first_seq > keep) {
            self.boundaries.pop_back();
        }
        self.last_seq() == keep
    }

    /// The end of what this log and another one, of which `theirs` are the boundaries and `their_last` the last
    /// position, have in common, if they name an epoch in common.
    ///
    /// All logs of an epoch are prefixes of one history; so two logs agree up to the shorter one's end of the latest
    /// epoch that both have.
    pub fn common_prefix(&self, theirs: &[Boundary], their_last: u64) -> Option<u64> {
        let own: Vec<Boundary> = self.boundaries.iter().copied().collect();
        own.iter().enumerate().rev().find_map(|(index, boundary)| {
            let other = theirs.iter().position(|b| b == boundary)?;
            let end =
                |list: &[Boundary], at: usize, last: u64| list.get(at + 1).map_or(last, |next| next.first_seq - 1);
            Some(end(&own, index, self.last_seq()).min(end(theirs, other, their_last)))
        })
    }

    /// The batch that holds `seq`, if it is kept.
    pub fn batch_at(&self, seq: u64) -> Option<&Batch> {
        let index = self.batches.partition_point(|b| b.last_seq() < seq);
        self.batches.get(index).filter(|b| b.header().first_seq <= seq)
    }

    /// Epoch of the entry at `seq`, when it is known.
    pub fn epoch_at(&self, seq: u64) -> Epoch {
        if seq == self.base.end.seq {
            return self.base.end.epoch;
        }
        self.batch_at(seq).map_or(Epoch::default(), |batch| batch.header().epoch)
    }

    /// Hash of the entry at `seq`, when it is known: at the end of a kept batch, before the first, or at 0.
    pub fn hash_at(&self, seq: u64) -> Option<u128> {
        if seq == self.last_seq() {
            return Some(self.last_hash());
        }
        let after = seq.checked_add(1)?;
        match self.batch_at(after) {
            Some(next) if next.header().first_seq == after => Some(next.header().hash_before),
            _ => None,
        }
    }

    /// Kept batches from the one that begins at `seq` on.
    pub fn batches_from(&self, seq: u64) -> impl Iterator<Item = &Batch> {
        let index = self.batches.partition_point(|b| b.header().first_seq < seq);
        self.batches.range(index..)
    }

    /// Drops the oldest batches up to `keep_after` until at most `bytes_max` bytes are kept.
    pub fn trim(&mut self, keep_after: u64, bytes_max: usize) {
        while self.bytes > bytes_max && self.batches.front().is_some_and(|b| b.last_seq() <= keep_after) {
            let Some(batch) = self.batches.pop_front() else { return };
            self.bytes -= batch.bytes().len();
            let header = batch.header();
            self.base = Base {
                end: LogEnd { epoch: header.epoch, seq: batch.last_seq() },
                hash: header.hash_last,
                time_us: header.time_us,
            };
        }
    }
}
