//! The seam behind which batches become durable.

use std::sync::Arc;

use mio::Waker;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;

/// The end of what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// Epoch of the last durable batch.
    pub epoch: Epoch,
    /// Its last position.
    pub seq: u64,
    /// Hash of the entry there.
    pub hash: u128,
}

impl Durable {
    /// The mark at the end of `batch`.
    fn end_of(batch: &Batch) -> Self {
        let header = batch.header();
        Self { epoch: header.epoch, seq: batch.last_seq(), hash: header.hash_last }
    }
}

/// A write or sync that failed. What reached the disk is then unknown, so the process ends and nothing is retried.
#[derive(Debug, thiserror::Error)]
#[error("the log could not be made durable: {0}")]
pub struct LogError(#[from] pub std::io::Error);

/// Whatever keeps the log.
///
/// The loop submits a turn's batches and closes them as one group; it never waits. A writer with a thread of its own
/// wakes the loop when a group is done, and the loop polls.
pub trait LogWriter {
    /// Takes what wakes the loop. Called once, before the first batch.
    fn attach(&mut self, waker: Arc<Waker>);

    /// Takes a batch, behind all taken before.
    fn submit(&mut self, batch: Batch);

    /// Closes the group of this turn: what was submitted since the last call is to be made durable together.
    ///
    /// # Errors
    /// The log can no longer be written.
    fn flush(&mut self) -> Result<(), LogError>;

    /// The new end of what is durable, when it moved since the last call. Never blocks.
    ///
    /// # Errors
    /// The log can no longer be written.
    fn poll_durable(&mut self) -> Result<Option<Durable>, LogError>;
}

/// A log without a disk: the state machine's own memory is the only copy.
///
/// A group counts as durable as soon as it is closed. That it survives the end of the process is *not* promised, which
/// is why a process that lost its memory comes back under another log identity (see `local::identity`) and has
/// no vote.
#[derive(Debug, Default)]
pub struct MemoryLog {
    group: Option<Durable>,
    durable: Option<Durable>,
}

impl LogWriter for MemoryLog {
    /// It is done whenever it is asked, so there is never a reason to wake anybody.
    fn attach(&mut self, _waker: Arc<Waker>) {}

    fn submit(&mut self, batch: Batch) {
        self.group = Some(Durable::end_of(&batch));
    }

    fn flush(&mut self) -> Result<(), LogError> {
        if let Some(end) = self.group.take() {
            self.durable = Some(end);
        }
        Ok(())
    }

    fn poll_durable(&mut self) -> Result<Option<Durable>, LogError> {
        Ok(self.durable.take())
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
    fn a_closed_group_is_durable_up_to_its_last_batch_and_is_told_once() {
        let mut log = MemoryLog::default();
        log.submit(batch(1));
        log.submit(batch(3));
        assert_eq!(log.poll_durable().unwrap(), None, "the group is still open");
        log.flush().unwrap();
        let last = batch(3);
        let expected = Durable { epoch: Epoch { counter: 1, node: 0 }, seq: 4, hash: last.header().hash_last };
        assert_eq!(log.poll_durable().unwrap(), Some(expected));
        assert_eq!(log.poll_durable().unwrap(), None);
        log.flush().unwrap();
        assert_eq!(log.poll_durable().unwrap(), None, "an empty group makes no notice");
    }
}
