//! What a disk must hold: what was submitted to it, and what it has told of that.

use std::collections::VecDeque;

use pygmy_node::disk::queue::Event;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::{Epoch, LogEnd};
use pygmy_ring::{Recovered, Vote};

use super::Write;

/// A plain twin of the files of one log.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// What was told to be durable, or found at opening.
    pub(super) vote: Vote,
    pub(super) log: Vec<Batch>,
    /// The log as it will be when all that was submitted is durable.
    pub(super) view: Vec<Batch>,
    /// Submitted, and not told of yet.
    waiting: VecDeque<Write>,
    /// An end that was lost to damage and not reached again.
    owed: Option<LogEnd>,
}

/// A later batch is worth more than what lies at and above its position, whatever its epoch.
fn put(log: &mut Vec<Batch>, batch: &Batch) {
    let first = batch.header().first_seq;
    while log.last().is_some_and(|last| last.last_seq() >= first) {
        log.pop();
    }
    log.push(batch.clone());
}

/// Position and hash of the end of `log`.
pub(super) fn end_of(log: &[Batch]) -> (u64, u128) {
    log.last().map_or((0, 0), |batch| (batch.last_seq(), batch.header().hash_last))
}

/// Epoch and position of the end of `log`.
pub(super) fn log_end(log: &[Batch]) -> LogEnd {
    log.last().map_or(LogEnd::default(), |batch| LogEnd { epoch: batch.header().epoch, seq: batch.last_seq() })
}

/// Which of the writes that were not told of are there all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survived {
    pub(super) there: u64,
    pub(super) lost: u64,
}

impl Shadow {
    pub(super) fn submit(&mut self, write: Write) {
        if let Write::Append { batch, .. } = &write {
            put(&mut self.view, batch);
        }
        self.waiting.push_back(write);
    }

    /// The disk tells that something is durable, and so is all that was submitted before it. Whether it was submitted.
    pub(super) fn on_event(&mut self, event: &Event) -> bool {
        let is_it = |write: &Write| match (event, write) {
            (Event::Durable { seq, hash, .. }, Write::Append { batch, .. }) => {
                (batch.last_seq(), batch.header().hash_last) == (*seq, *hash)
            }
            (Event::Vote(vote), Write::Vote(given)) => vote == given,
            _ => false,
        };
        if !matches!(event, Event::Durable { .. } | Event::Vote(_)) {
            return true;
        }
        let Some(at) = self.waiting.iter().position(is_it) else { return false };
        for write in self.waiting.drain(..=at) {
            match write {
                Write::Vote(vote) => self.vote = vote,
                Write::Append { batch, .. } => put(&mut self.log, &batch),
            }
        }
        if self.owed.is_some_and(|owed| log_end(&self.log) >= owed) {
            self.owed = None;
        }
        true
    }

    /// The highest epoch that a process over this disk answers for.
    pub(super) fn promised(&self) -> Epoch {
        self.log.last().map_or(self.vote.promised, |batch| batch.header().epoch.max(self.vote.promised))
    }

    /// What a process that finds this must find: all that was told, and of the rest a beginning, in order. `harmed`: bits
    /// of it were flipped.
    pub(super) fn must_find(
        &self,
        found: &Recovered<impl Sized>,
        harmed: bool,
    ) -> Result<Survived, (&'static str, String)> {
        let (told, end) = (log_end(&self.log), log_end(&found.batches));
        if found.vote.promised < self.promised() || found.vote.cut < self.vote.cut {
            let detail = format!("{:?} was given and the log ends at {told:?}; found is {:?}", self.vote, found.vote);
            return Err(("I6", detail));
        }
        let total = self.waiting.len() as u64;
        let lacks = told.max(self.owed.unwrap_or_default());
        let says_so = found.damaged.is_some_and(|until| until >= lacks);
        let owes = self.owed.is_some_and(|owed| end < owed);
        match self.how_many_more(&found.batches) {
            Some(there) if owes == says_so || (harmed && !owes) => Ok(Survived { there, lost: total - there }),
            None if says_so && harmed => Ok(Survived { there: 0, lost: total }),
            _ => {
                let damaged = found.damaged;
                let detail = format!(
                    "durable up to {told:?}, lost before {:?}, {total} writes under way; found is a log up to {end:?}, \
                     damaged: {damaged:?}",
                    self.owed
                );
                Err(("I7", detail))
            }
        }
    }

    /// How many of the writes that were not told of make the log what was found, on top of what was told.
    fn how_many_more(&self, found: &[Batch]) -> Option<u64> {
        let end = end_of(found);
        let mut log = self.log.clone();
        let mut there = (end_of(&log) == end).then_some(0);
        for (write, count) in self.waiting.iter().zip(1..) {
            if let Write::Append { batch, .. } = write {
                put(&mut log, batch);
                there = if end_of(&log) == end { Some(count) } else { there };
            }
        }
        there
    }

    /// A process goes on with what it found.
    pub(super) fn restart(&mut self, found: &Recovered<impl Sized>) {
        self.vote = found.vote;
        self.log.clone_from(&found.batches);
        self.view.clone_from(&found.batches);
        self.waiting.clear();
        self.owed = found.damaged.filter(|until| log_end(&self.log) < *until);
    }

    /// Whether something is lost that this log had.
    pub(super) fn owes(&self) -> bool {
        self.owed.is_some()
    }
}
