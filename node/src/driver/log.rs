//! The seam behind which batches become durable.

use std::collections::VecDeque;
use std::sync::Arc;

use mio::Waker;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;
use pygmy_ring::Vote;

use crate::disk::calls::FileCalls;
use crate::disk::record::Mark;
use crate::snapshot::transfer::{self, Done, Job};
use crate::snapshot::{BuildError, SnapshotOrder, Taken};

/// What the log writer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// The log is durable up to here.
    Durable {
        /// The epoch that was given with the last durable batch.
        epoch: Epoch,
        /// Its last position.
        seq: u64,
        /// Hash of the entry there.
        hash: u128,
    },
    /// The vote file holds this.
    Vote(Vote),
    /// The disk is full, or has room again.
    Full(bool),
    /// A part of the log was read; empty when it is not held.
    Read {
        /// For which node.
        node: u16,
        /// The batches, contiguous.
        batches: Vec<Batch>,
    },
    /// The snapshot that was asked for last, or why there is none.
    Snapshot(Result<Taken, BuildError>),
}

/// A write or sync that failed. What reached the disk is then unknown, so the process ends and nothing is retried.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LogError(#[from] pub crate::disk::writer::Error);

/// Whatever keeps the log.
///
/// The loop submits a turn's batches and closes them as one group; it never waits. A writer with a thread of its own
/// wakes the loop when a group is done, and the loop polls.
pub trait LogWriter {
    /// Takes what wakes the loop. Called once, before the first batch.
    fn attach(&mut self, waker: Arc<Waker>);

    /// Takes a batch, behind all taken before, in place of whatever was taken at and above its position.
    fn submit(&mut self, epoch: Epoch, batch: Batch);

    /// Takes a vote, behind all taken before.
    fn submit_vote(&mut self, vote: Vote);

    /// Asks for a part of the log, from `from_seq` on, not beyond `upto`; answered by [`LogEvent::Read`].
    fn read(&mut self, node: u16, from_seq: u64, upto: u64);

    /// Asks for a snapshot; answered by [`LogEvent::Snapshot`]. Not before the one before is answered.
    fn take_snapshot(&mut self, order: Box<SnapshotOrder>);

    /// What is below this position is no longer needed.
    fn cut_below(&mut self, seq: u64);

    /// The log begins anew behind this entry, behind all taken before; answered by [`LogEvent::Durable`].
    fn restart(&mut self, epoch: Epoch, mark: Mark);

    /// Asks for work with the files of snapshots.
    fn transfer(&mut self, job: Job);

    /// What became of such work. Never blocks.
    fn poll_transfer(&mut self) -> Option<Done>;

    /// Closes the group of this turn: what was submitted since the last call is to be made durable together.
    ///
    /// # Errors
    /// The log can no longer be written.
    fn flush(&mut self) -> Result<(), LogError>;

    /// What has happened since the last call, one thing at a time and in order. Never blocks.
    ///
    /// # Errors
    /// The log can no longer be written.
    fn poll(&mut self) -> Result<Option<LogEvent>, LogError>;

    /// What its files were asked for so far.
    fn calls(&self) -> FileCalls {
        FileCalls::default()
    }
}

/// A log without a disk, for fronts, which log nothing, and for tests: a group counts as durable as soon as it is closed,
/// and nothing survives the end of the process.
#[derive(Debug, Default)]
pub struct MemoryLog {
    group: Vec<LogEvent>,
    events: VecDeque<LogEvent>,
    transfers: VecDeque<Done>,
}

impl LogWriter for MemoryLog {
    /// It is done whenever it is asked, so there is never a reason to wake anybody.
    fn attach(&mut self, _waker: Arc<Waker>) {}

    fn submit(&mut self, epoch: Epoch, batch: Batch) {
        let (seq, hash) = (batch.last_seq(), batch.header().hash_last);
        // Of several in a row the last one says it for all.
        if matches!(self.group.last(), Some(LogEvent::Durable { epoch: before, .. }) if *before == epoch) {
            self.group.pop();
        }
        self.group.push(LogEvent::Durable { epoch, seq, hash });
    }

    fn submit_vote(&mut self, vote: Vote) {
        self.group.push(LogEvent::Vote(vote));
    }

    /// Whatever the replica itself no longer holds is held nowhere.
    fn read(&mut self, node: u16, _from_seq: u64, _upto: u64) {
        self.events.push_back(LogEvent::Read { node, batches: Vec::new() });
    }

    fn take_snapshot(&mut self, _order: Box<SnapshotOrder>) {
        let why = "this log is kept nowhere".to_owned();
        self.events.push_back(LogEvent::Snapshot(Err(BuildError::Later(why))));
    }

    fn cut_below(&mut self, _seq: u64) {}

    fn restart(&mut self, epoch: Epoch, mark: Mark) {
        self.group.push(LogEvent::Durable { epoch, seq: mark.seq, hash: mark.hash });
    }

    fn transfer(&mut self, job: Job) {
        self.transfers.extend(transfer::without_files(&job));
    }

    fn poll_transfer(&mut self) -> Option<Done> {
        self.transfers.pop_front()
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.events.extend(self.group.drain(..));
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        Ok(self.events.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use pygmy_proto::batch::{BatchBuilder, EntryKind};

    use super::*;

    fn batch(first_seq: u64) -> Batch {
        let mut builder = BatchBuilder::new(Epoch { counter: 1, node: 0 }, 5, first_seq, 1, 7);
        builder.push(EntryKind::Register, b"");
        builder.push(EntryKind::Register, b"");
        builder.finish().expect("two entries")
    }

    #[test]
    fn a_closed_group_is_durable_up_to_its_last_batch_and_is_told_once_and_in_order() {
        let epoch = Epoch { counter: 2, node: 5 };
        let vote = Vote { promised: epoch, cut: epoch };
        let mut log = MemoryLog::default();
        log.submit(epoch, batch(1));
        log.submit(epoch, batch(3));
        log.submit_vote(vote);
        assert_eq!(log.poll().unwrap(), None, "the group is still open");
        log.flush().unwrap();
        let hash = batch(3).header().hash_last;
        assert_eq!(log.poll().unwrap(), Some(LogEvent::Durable { epoch, seq: 4, hash }));
        assert_eq!(log.poll().unwrap(), Some(LogEvent::Vote(vote)));
        assert_eq!(log.poll().unwrap(), None);
        log.flush().unwrap();
        assert_eq!(log.poll().unwrap(), None, "an empty group makes no notice");
        log.read(7, 1, 4);
        assert_eq!(log.poll().unwrap(), Some(LogEvent::Read { node: 7, batches: Vec::new() }));
    }
}
