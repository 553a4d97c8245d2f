//! The part of the log that is kept in memory: batches in order, the oldest dropped once nobody should need them.

use std::collections::VecDeque;

use pygmy_proto::batch::Batch;

/// A contiguous, hash-chained run of batches that ends at the end of the log.
#[derive(Debug, Default)]
pub struct Log {
    batches: VecDeque<Batch>,
    bytes: usize,
    last_seq: u64,
    last_hash: u128,
    last_time_us: u64,
}

impl Log {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Position of the last entry, 0 when there is none.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
    /// Hash of the last entry, 0 when there is none.
    pub fn last_hash(&self) -> u128 {
        self.last_hash
    }
    /// Time of the last batch.
    pub fn last_time_us(&self) -> u64 {
        self.last_time_us
    }
    /// Bytes of the batches that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// First position that is kept; one beyond the end when nothing is.
    pub fn first_seq(&self) -> u64 {
        self.batches.front().map_or(self.last_seq + 1, |b| b.header().first_seq)
    }

    /// Whether `batch` continues this log: the next seq, behind the same hash.
    pub fn continues(&self, batch: &Batch) -> bool {
        batch.header().first_seq == self.last_seq + 1 && batch.header().hash_before == self.last_hash
    }

    /// Appends `batch`. The caller has checked that it continues the log.
    pub fn push(&mut self, batch: Batch) {
        self.last_seq = batch.last_seq();
        self.last_hash = batch.header().hash_last;
        self.last_time_us = batch.header().time_us;
        self.bytes += batch.bytes().len();
        self.batches.push_back(batch);
    }

    /// The batch that holds `seq`, if it is kept.
    pub fn batch_at(&self, seq: u64) -> Option<&Batch> {
        let index = self.batches.partition_point(|b| b.last_seq() < seq);
        self.batches.get(index).filter(|b| b.header().first_seq <= seq)
    }

    /// Hash of the entry at `seq`, when it is known: at the end of a kept batch, before the first, or at 0.
    pub fn hash_at(&self, seq: u64) -> Option<u128> {
        if seq == self.last_seq {
            return Some(self.last_hash);
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
            let dropped = self.batches.pop_front().map_or(0, |b| b.bytes().len());
            self.bytes -= dropped;
        }
    }
}
