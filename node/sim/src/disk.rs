//! A node's disk: what survives its process. Everything that is written waits for a group; of what no group has made
//! durable a crash leaves a part.
//!
//! Whoever uses it knows only what is here: that writes are submitted in order, groups begin and finish, and a crash
//! comes in between.

use std::collections::VecDeque;

use pygmy_node::store::Store;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::{Epoch, LogEnd};
use pygmy_ring::config::LogUuid;
use pygmy_ring::{Recovered, Vote};

/// Bytes of the log that one answer to a read holds at most, about.
const READ_BYTES_SOFT: usize = 1024 * 1024;

/// Something to be made durable.
#[derive(Debug, Clone)]
pub enum Write {
    /// A batch, in place of whatever was written at and above its position.
    Append {
        /// The epoch in which it is appended.
        epoch: Epoch,
        /// The batch.
        batch: Batch,
    },
    /// The vote.
    Vote(Vote),
}

/// What is durable now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The log, up to here.
    Durable {
        /// The epoch that was given with the last batch.
        epoch: Epoch,
        /// Its last position.
        seq: u64,
        /// Hash of the entry there.
        hash: u128,
    },
    /// The vote.
    Vote(Vote),
}

/// A disk with the files of one log.
#[derive(Debug)]
pub struct Disk {
    uuid: LogUuid,
    vote: Vote,
    /// What is on the platter.
    log: Vec<Batch>,
    /// The log as it will be when all that was submitted is on the platter.
    view: Vec<Batch>,
    waiting: VecDeque<Write>,
    /// How many of those that wait make up the group under way; 0: none is.
    under_way: usize,
}

/// A later batch is worth more than what lies at and above its position, whatever its epoch.
fn put(log: &mut Vec<Batch>, batch: &Batch) {
    let first = batch.header().first_seq;
    while log.last().is_some_and(|last| last.last_seq() >= first) {
        log.pop();
    }
    log.push(batch.clone());
}

impl Disk {
    /// An empty disk, whose log bears this name.
    pub fn format(uuid: LogUuid) -> Self {
        Self { uuid, vote: Vote::default(), log: Vec::new(), view: Vec::new(), waiting: VecDeque::new(), under_way: 0 }
    }

    /// The name of its log.
    pub fn uuid(&self) -> LogUuid {
        self.uuid
    }

    /// Takes what is to be made durable, behind all that was taken before.
    pub fn submit(&mut self, write: Write) {
        if let Write::Append { batch, .. } = &write {
            put(&mut self.view, batch);
        }
        self.waiting.push_back(write);
    }

    /// Begins a group of all that waits, when none is under way; whether it did.
    pub fn begin(&mut self) -> bool {
        if self.under_way > 0 || self.waiting.is_empty() {
            return false;
        }
        self.under_way = self.waiting.len();
        true
    }

    /// What there will be to tell when the group under way is on the platter.
    pub fn notices_under_way(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for write in self.waiting.iter().take(self.under_way) {
            match write {
                Write::Vote(vote) => notices.push(Notice::Vote(*vote)),
                Write::Append { epoch, batch } => {
                    // Of several in a row the last one says it for all.
                    if matches!(notices.last(), Some(Notice::Durable { epoch: before, .. }) if before == epoch) {
                        notices.pop();
                    }
                    let (seq, hash) = (batch.last_seq(), batch.header().hash_last);
                    notices.push(Notice::Durable { epoch: *epoch, seq, hash });
                }
            }
        }
        notices
    }

    /// The group under way is on the platter: what there is to tell.
    pub fn finish(&mut self) -> Vec<Notice> {
        let notices = self.notices_under_way();
        self.reach_platter(self.under_way);
        self.under_way = 0;
        notices
    }

    fn reach_platter(&mut self, count: usize) {
        for write in self.waiting.drain(..count) {
            match write {
                Write::Vote(vote) => self.vote = vote,
                Write::Append { batch, .. } => put(&mut self.log, &batch),
            }
        }
    }

    /// Writes that are not on the platter.
    pub fn unsynced(&self) -> usize {
        self.waiting.len()
    }

    /// The process is gone. The first `reached` of the writes that no group has made durable are on the platter all the
    /// same.
    pub fn crash(&mut self, reached: usize) {
        self.reach_platter(reached.min(self.waiting.len()));
        self.waiting.clear();
        self.under_way = 0;
        self.view.clone_from(&self.log);
    }

    /// The vote file is gone; for a mistake only.
    pub fn lose_vote(&mut self) {
        self.vote = Vote::default();
    }

    /// What a new process finds.
    pub fn open(&self) -> Recovered<Store> {
        Recovered { vote: self.vote, batches: self.log.clone(), ..Recovered::empty(Store::new()) }
    }

    /// A part of the log, whole batches from `from_seq` on, not beyond `upto`; empty when it does not begin there.
    pub fn read(&self, from_seq: u64, upto: u64) -> Vec<Batch> {
        let held = self.view.iter().filter(|b| b.header().first_seq >= from_seq && b.last_seq() <= upto);
        let mut room = READ_BYTES_SOFT;
        let mut batches = Vec::new();
        for batch in held {
            if room == 0 || (batches.is_empty() && batch.header().first_seq != from_seq) {
                break;
            }
            room = room.saturating_sub(batch.bytes().len());
            batches.push(batch.clone());
        }
        batches
    }

    /// End and last hash of the log before `first_seq`, as it will be when all that was submitted is on the platter.
    pub fn end_before(&self, first_seq: u64) -> (u64, u128) {
        let before = self.view.iter().rev().find(|batch| batch.header().first_seq < first_seq);
        before.map_or((0, 0), |batch| (batch.last_seq(), batch.header().hash_last))
    }

    /// Epoch and position of the end of the log as it will be when all that was submitted is on the platter.
    pub fn end(&self) -> LogEnd {
        self.view.last().map_or(LogEnd::default(), |b| LogEnd { epoch: b.header().epoch, seq: b.last_seq() })
    }

    /// The epoch for whose sake a part of the log may go, as the vote file on the platter has it.
    pub fn cut(&self) -> Epoch {
        self.vote.cut
    }

    /// The log on the platter.
    pub fn platter(&self) -> &[Batch] {
        &self.log
    }

    /// The highest epoch that a process over this platter answers for.
    pub fn promised(&self) -> Epoch {
        self.log.last().map_or(self.vote.promised, |batch| batch.header().epoch.max(self.vote.promised))
    }

    /// Whether the entry at `seq` with this hash is on the platter; position 0 always is.
    pub fn holds(&self, seq: u64, hash: u128) -> bool {
        let found = self.log.partition_point(|batch| batch.last_seq() < seq);
        let ends_there = |batch: &Batch| (batch.last_seq(), batch.header().hash_last) == (seq, hash);
        seq == 0 || self.log.get(found).is_some_and(ends_there)
    }
}

#[cfg(test)]
mod tests {
    use pygmy_proto::batch::{BatchBuilder, EntryKind};

    use super::*;

    const E1: Epoch = Epoch { counter: 1, node: 1 };
    const E2: Epoch = Epoch { counter: 2, node: 2 };

    fn batch(epoch: Epoch, first_seq: u64, before: u128) -> Batch {
        let mut builder = BatchBuilder::new(epoch, epoch.node, first_seq, first_seq, before);
        builder.push(EntryKind::Register, b"");
        builder.finish().expect("an entry")
    }

    fn disk_with_two() -> (Disk, Batch, Batch) {
        let mut disk = Disk::format([1; 16]);
        let first = batch(E1, 1, 0);
        let second = batch(E1, 2, first.header().hash_last);
        disk.submit(Write::Append { epoch: E1, batch: first.clone() });
        disk.submit(Write::Append { epoch: E1, batch: second.clone() });
        (disk, first, second)
    }

    #[test]
    fn what_no_group_has_made_durable_is_lost_but_for_what_reached_the_platter() {
        for reached in 0..3 {
            let (mut disk, ..) = disk_with_two();
            disk.crash(reached);
            assert_eq!((disk.open().batches.len(), disk.unsynced()), (reached, 0));
        }
        let (mut disk, first, second) = disk_with_two();
        assert!(disk.begin() && !disk.begin());
        let vote = Vote { promised: E2, cut: E2 };
        disk.submit(Write::Vote(vote));
        let hash = second.header().hash_last;
        assert_eq!(disk.finish(), [Notice::Durable { epoch: E1, seq: 2, hash }]);
        assert!(disk.holds(1, first.header().hash_last) && disk.holds(2, hash) && !disk.holds(2, 0));
        disk.crash(0);
        assert_eq!((disk.open().vote, disk.promised()), (Vote::default(), E1));
    }

    #[test]
    fn a_later_batch_takes_the_place_of_all_from_its_position_on() {
        let (mut disk, first, _) = disk_with_two();
        let other = batch(E2, 2, first.header().hash_last);
        disk.submit(Write::Append { epoch: E2, batch: other.clone() });
        assert_eq!(disk.end_before(2), (1, first.header().hash_last));
        assert_eq!(disk.read(2, 9).iter().map(|b| b.header().epoch).collect::<Vec<_>>(), [E2]);
        assert!(disk.begin());
        disk.finish();
        assert_eq!((disk.platter().len(), disk.promised()), (2, E2));
        assert!(disk.holds(2, other.header().hash_last) && disk.read(3, 9).is_empty());
    }
}
