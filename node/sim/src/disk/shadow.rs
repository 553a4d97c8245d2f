//! What a disk must hold: what was submitted to it, and what it has told of that.

use std::collections::VecDeque;

use pygmy_node::disk::chain;
use pygmy_node::disk::queue::Event;
use pygmy_node::disk::record::Mark;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::{Epoch, LogEnd};
use pygmy_ring::{Base, Recovered, Vote};

use super::Write;

/// A log as it is known: the entry before the first batch, and the batches.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    base: Mark,
    pub(super) batches: Vec<Batch>,
}

impl Tail {
    /// A later batch is worth more than what lies at and above its position, whatever its epoch.
    fn put(&mut self, batch: &Batch) {
        let first = batch.header().first_seq;
        while self.batches.last().is_some_and(|last| last.last_seq() >= first) {
            self.batches.pop();
        }
        self.batches.push(batch.clone());
    }

    /// The last entry.
    pub(super) fn end(&self) -> Mark {
        self.batches.last().map_or(self.base, chain::end_of)
    }

    /// The last entry before `first_seq`.
    pub(super) fn end_before(&self, first_seq: u64) -> Mark {
        let before = self.batches.iter().rev().find(|batch| batch.header().first_seq < first_seq);
        before.map_or(self.base, chain::end_of)
    }

    /// Whether a batch ends with this entry, or this one is the entry before the first.
    pub(super) fn has(&self, seq: u64, hash: u128) -> bool {
        let found = self.batches.partition_point(|batch| batch.last_seq() < seq);
        let ends_there = |batch: &Batch| (batch.last_seq(), batch.header().hash_last) == (seq, hash);
        (self.base.seq, self.base.hash) == (seq, hash) || self.batches.get(found).is_some_and(ends_there)
    }

    /// The end for who opens it beside this snapshot: one that the log does not have takes its place.
    fn end_beside(&self, snapshot: Mark) -> Mark {
        if self.has(snapshot.seq, snapshot.hash) { self.end() } else { snapshot }
    }

    /// What an opening has found takes its place. The entries below a snapshot are still known to have been there.
    fn go_on_from(&mut self, base: Mark, found: &[Batch]) {
        if self.has(base.seq, base.hash) {
            self.batches.retain(|batch| batch.last_seq() <= base.seq);
        } else {
            *self = Self { base, batches: Vec::new() };
        }
        self.batches.extend_from_slice(found);
    }
}

fn log_end(mark: Mark) -> LogEnd {
    LogEnd { epoch: mark.epoch, seq: mark.seq }
}

/// The entry before a log's first.
pub(super) fn mark_of(base: &Base) -> Mark {
    Mark { epoch: base.end.epoch, seq: base.end.seq, hash: base.hash }
}

/// A plain twin of the files of one log.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// What was told to be durable, or found at opening.
    pub(super) vote: Vote,
    pub(super) log: Tail,
    /// The log as it will be when all that was submitted is durable.
    pub(super) view: Tail,
    /// The newest snapshot that was told of, or found at opening.
    pub(super) snapshot: Mark,
    /// Submitted, and not told of yet.
    waiting: VecDeque<Write>,
    /// An end that was lost to damage and not reached again.
    owed: Option<LogEnd>,
}

/// What was flipped, and may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Harmed {
    /// Anything.
    pub(super) log: bool,
    /// The newest snapshot, of whose content nothing may be missing.
    pub(super) newest: bool,
}

/// Which of the writes that were not told of are there all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survived {
    pub(super) there: u64,
    pub(super) lost: u64,
}

impl Shadow {
    pub(super) fn submit(&mut self, write: Write) {
        match &write {
            Write::Append { batch, .. } => self.view.put(batch),
            Write::Restart { mark, .. } => self.view = Tail { base: *mark, batches: Vec::new() },
            Write::Vote(_) => {}
            // Changes nothing that an opening must find, and is not told of.
            Write::Cut(_) => return,
        }
        self.waiting.push_back(write);
    }

    /// The disk tells that something is durable, and so is all that was submitted before it. Whether it was submitted.
    pub(super) fn on_event(&mut self, event: &Event) -> bool {
        let is_it = |write: &Write| match (event, write) {
            (Event::Durable { seq, hash, .. }, Write::Append { batch, .. }) => {
                (batch.last_seq(), batch.header().hash_last) == (*seq, *hash)
            }
            (Event::Durable { seq, hash, .. }, Write::Restart { mark, .. }) => (mark.seq, mark.hash) == (*seq, *hash),
            (Event::Vote(vote), Write::Vote(given)) => vote == given,
            _ => false,
        };
        if !matches!(event, Event::Durable { .. } | Event::Vote(_)) {
            return true;
        }
        let Some(at) = self.waiting.iter().position(is_it) else { return false };
        for write in self.waiting.drain(..=at) {
            if let Write::Vote(vote) = write {
                self.vote = vote;
            } else {
                carry_out(&mut self.log, &write);
            }
        }
        if self.owed.is_some_and(|owed| log_end(self.log.end()) >= owed) {
            self.owed = None;
        }
        true
    }

    /// The highest epoch that a process over this disk answers for.
    pub(super) fn promised(&self) -> Epoch {
        self.log.end().epoch.max(self.vote.promised)
    }

    /// What a process that finds this must find: all that was told, and of the rest a beginning, in order.
    pub(super) fn must_find(
        &self,
        found: &Recovered<impl Sized>,
        harmed: Harmed,
    ) -> Result<Survived, (&'static str, String)> {
        let base = mark_of(&found.base);
        let end = found.batches.last().map_or(base, chain::end_of);
        let told = log_end(self.log.end_beside(self.snapshot));
        // The end of a log is as good as a vote for its epoch.
        if found.vote.promised.max(end.epoch) < self.promised() || found.vote.cut < self.vote.cut {
            let detail = format!("{:?} was given and the log ends at {told:?}; found is {:?}", self.vote, found.vote);
            return Err(("I6", detail));
        }
        if base.seq < self.snapshot.seq && !harmed.log && !harmed.newest {
            let detail =
                format!("a snapshot of {:?} was taken; the newest that is found is of {base:?}", self.snapshot);
            return Err(("I7", detail));
        }
        let total = self.waiting.len() as u64;
        // A snapshot that was lost is owed by its position and in an epoch that is a guess.
        let reaches = |end: LogEnd, owed: LogEnd| end >= owed || end.seq >= owed.seq;
        let covers = |until: LogEnd| until >= told && self.owed.is_none_or(|owed| reaches(until, owed));
        let says_so = found.damaged.is_some_and(covers);
        let owes = self.owed.is_some_and(|owed| !reaches(log_end(end), owed));
        let may_owe = self.owed.is_some_and(|owed| log_end(end) < owed) || harmed.log;
        match self.how_many_more(base, end) {
            Some(there) if if says_so { may_owe } else { !owes } => Ok(Survived { there, lost: total - there }),
            None if says_so && harmed.log => Ok(Survived { there: 0, lost: total }),
            _ => {
                let damaged = found.damaged;
                let detail = format!(
                    "durable up to {told:?}, lost before {:?}, {total} writes under way, a snapshot of {:?}; found is a \
                     log up to {end:?} behind {base:?}, damaged: {damaged:?}",
                    self.owed, self.snapshot
                );
                Err(("I7", detail))
            }
        }
    }

    /// How many of the writes that were not told of make the log what was found beside the snapshot of `base`, on top of
    /// what was told.
    fn how_many_more(&self, base: Mark, end: Mark) -> Option<u64> {
        let mut log = self.log.clone();
        let is_it = |log: &Tail| log.end_beside(base) == end;
        let mut there = is_it(&log).then_some(0);
        for (write, count) in self.waiting.iter().zip(1..) {
            carry_out(&mut log, write);
            there = if !matches!(write, Write::Vote(_)) && is_it(&log) { Some(count) } else { there };
        }
        there
    }

    /// A process goes on with what it found.
    pub(super) fn restart(&mut self, found: &Recovered<impl Sized>) {
        self.vote = found.vote;
        self.snapshot = mark_of(&found.base);
        self.log.go_on_from(self.snapshot, &found.batches);
        self.view.clone_from(&self.log);
        self.waiting.clear();
        self.owed = found.damaged.filter(|until| self.end() < *until);
    }

    /// Epoch and position of the end of what is durable.
    pub(super) fn end(&self) -> LogEnd {
        log_end(self.log.end())
    }

    /// The same when all that was submitted is.
    pub(super) fn view_end(&self) -> LogEnd {
        log_end(self.view.end())
    }

    /// Whether something is lost that this log had.
    pub(super) fn owes(&self) -> bool {
        self.owed.is_some()
    }
}

fn carry_out(log: &mut Tail, write: &Write) {
    match write {
        Write::Append { batch, .. } => log.put(batch),
        Write::Restart { mark, .. } => *log = Tail { base: *mark, batches: Vec::new() },
        Write::Vote(_) | Write::Cut(_) => {}
    }
}
