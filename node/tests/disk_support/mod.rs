//! What the tests of the disk layer share.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use pygmy_node::disk::chain::{end_of, hash_at};
use pygmy_node::disk::log::{LogFiles, Options, Recovered};
use pygmy_node::disk::record::Mark;
use pygmy_node::disk::sim::SimFs;
use pygmy_proto::batch::{Batch, BatchBuilder, EntryKind};
use pygmy_proto::message::Epoch;

pub const UUID: [u8; 16] = [7; 16];
pub const SMALL: Options = Options { segment_bytes: 64 * 1024, anchor: GENESIS };
pub const GENESIS: Mark = Mark { epoch: Epoch { counter: 0, node: 0 }, seq: 0, hash: 0 };

pub fn epoch(counter: u64) -> Epoch {
    Epoch { counter, node: 1 }
}

/// A batch of `count` entries of `len` bytes behind `before`. `salt` makes it unlike another.
pub fn batch(epoch: Epoch, before: Mark, count: u32, len: usize, salt: u64) -> Batch {
    let mut builder = BatchBuilder::new(epoch, epoch.node, before.seq + 1, salt + 1, before.hash);
    for _ in 0..count {
        builder.push(EntryKind::Command, &vec![salt as u8; len]);
    }
    builder.finish().expect("at least one entry")
}

pub fn open(fs: &SimFs) -> (LogFiles<SimFs>, Recovered) {
    LogFiles::open(fs.clone(), UUID, SMALL).expect("the log opens")
}

/// The generator of the disk itself, for the tests' own choices. (SplitMix64.)
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A log as a plain list of batches: the dumb twin.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub batches: Vec<Batch>,
}

impl Model {
    pub fn end(&self) -> Mark {
        self.mark(u64::MAX)
    }

    /// The entry at `seq`, or the last.
    pub fn mark(&self, seq: u64) -> Mark {
        let mut mark = GENESIS;
        for batch in self.batches.iter().filter(|batch| batch.header().first_seq <= seq) {
            let at = seq.min(batch.last_seq());
            mark = Mark { epoch: batch.header().epoch, seq: at, hash: hash_at(batch, at) };
        }
        mark
    }

    pub fn append(&mut self, batch: Batch) {
        let first = batch.header().first_seq;
        self.batches.retain(|known| known.header().first_seq < first);
        if let Some(last) = self.batches.pop() {
            self.batches.extend(pygmy_node::disk::chain::prefix_of(&last, first - 1));
        }
        self.batches.push(batch);
    }
}

/// What was recovered is one chain of batches from its base to its end.
pub fn check_chain(recovered: &Recovered) {
    let mut end = recovered.base;
    for batch in &recovered.batches {
        assert_eq!((batch.header().first_seq, batch.header().hash_before), (end.seq + 1, end.hash), "a gap");
        end = end_of(batch);
    }
    assert_eq!(end, recovered.end);
}
