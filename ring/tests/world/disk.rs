//! What survives a crash: the log and the vote of one log identity, and what was written and not synced.

use std::collections::VecDeque;

use pygmy_proto::batch::Batch;
use pygmy_proto::message::{Epoch, LogEnd};
use pygmy_ring::config::LogUuid;
use pygmy_ring::sessions::Sessions;
use pygmy_ring::{Base, Checkpoint, Recovered, Vote};

use super::machine::Journal;

/// A write to the disk.
#[derive(Debug, Clone)]
pub enum Item {
    Append {
        epoch: Epoch,
        batch: Batch,
    },
    Vote(Vote),
    /// The log begins anew behind a snapshot.
    Restart {
        epoch: Epoch,
        base: Base,
    },
}

/// What the disk tells once a group is synced.
#[derive(Debug, Clone, Copy)]
pub enum Notice {
    Durable { epoch: Epoch, seq: u64, hash: u128 },
    Vote(Vote),
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub machine: Journal,
    pub sessions: Sessions,
    pub at: Checkpoint,
}

#[derive(Debug)]
pub struct Disk {
    pub uuid: LogUuid,
    pub vote: Vote,
    /// What is on the platter, behind the snapshot.
    pub log: Vec<Batch>,
    pub snapshot: Option<Snapshot>,
    pub queue: VecDeque<Item>,
    pub syncing: bool,
    /// It once held all up to here, and lost some of it.
    pub lost: Option<Lost>,
}

/// What a disk has lost.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub upto: LogEnd,
    /// Whether that shows when it is read.
    pub shows: bool,
}

impl Disk {
    pub fn new(uuid: LogUuid) -> Self {
        Self {
            uuid,
            vote: Vote::default(),
            log: Vec::new(),
            snapshot: None,
            queue: VecDeque::new(),
            syncing: false,
            lost: None,
        }
    }

    pub fn base(&self) -> Base {
        self.snapshot.as_ref().map(|snapshot| snapshot.at.base).unwrap_or_default()
    }

    pub fn end(&self) -> LogEnd {
        self.log.last().map_or(self.base().end, |b| LogEnd { epoch: b.header().epoch, seq: b.last_seq() })
    }

    /// The first `count` writes reach the platter.
    pub fn sync(&mut self, count: usize) -> Vec<Notice> {
        let mut notices = Vec::new();
        for _ in 0..count {
            match self.queue.pop_front() {
                Some(Item::Vote(vote)) => {
                    self.vote = vote;
                    notices.push(Notice::Vote(vote));
                }
                Some(Item::Append { epoch, batch }) => {
                    let (seq, hash) = (batch.last_seq(), batch.header().hash_last);
                    self.supersede(batch);
                    notices.retain(|notice| !matches!(notice, Notice::Durable { epoch: e, .. } if *e == epoch));
                    notices.push(Notice::Durable { epoch, seq, hash });
                }
                Some(Item::Restart { epoch, base }) => {
                    notices.push(Notice::Durable { epoch, seq: base.end.seq, hash: base.hash });
                }
                None => break,
            }
        }
        notices
    }

    /// A later record is worth more than what lies at and above its position, whatever its epoch.
    fn supersede(&mut self, batch: Batch) {
        let first = batch.header().first_seq;
        while self.log.last().is_some_and(|last| last.last_seq() >= first) {
            self.log.pop();
        }
        self.log.push(batch);
    }

    /// Takes a snapshot; the log up to it may go.
    pub fn take(&mut self, snapshot: Snapshot) {
        let upto = snapshot.at.base.end.seq;
        self.log.retain(|batch| batch.header().first_seq > upto);
        self.snapshot = Some(snapshot);
    }

    /// The process is gone: of what was not synced a part may have reached the platter all the same.
    pub fn crash(&mut self, reached: usize) {
        self.sync(reached);
        self.queue.clear();
        self.syncing = false;
    }

    pub fn recovered(&self) -> Recovered<Journal> {
        let mut recovered = Recovered::empty(Journal::default());
        recovered.vote = self.vote;
        if let Some(snapshot) = &self.snapshot {
            recovered.machine = snapshot.machine.clone();
            recovered.sessions = snapshot.sessions.clone();
            recovered.base = snapshot.at.base;
            recovered.boundaries = snapshot.at.boundaries.clone();
            recovered.membership = Some(snapshot.at.membership.clone());
        }
        recovered.batches = self.log.clone();
        recovered.damaged = self.ails().filter(|lost| lost.shows).map(|lost| lost.upto);
        recovered
    }

    /// Whether it still lacks what it once held.
    pub fn ails(&self) -> Option<Lost> {
        self.lost.filter(|lost| self.end() < lost.upto)
    }

    /// The last `count` batches are gone, if there are so many.
    pub fn lose(&mut self, count: usize, shows: bool) {
        let upto = self.end();
        self.log.truncate(self.log.len().saturating_sub(count));
        self.lost = Some(Lost { upto, shows });
    }

    /// The batch at `seq` of the log as its replica has it: what was written last counts, synced or not.
    pub fn batch_at(&self, seq: u64) -> Option<&Batch> {
        let queued = self.queue.iter().rev().filter_map(|item| match item {
            Item::Append { batch, .. } => Some(batch),
            Item::Vote(_) | Item::Restart { .. } => None,
        });
        queued.chain(self.log.iter().rev()).find(|batch| (batch.header().first_seq..=batch.last_seq()).contains(&seq))
    }

    pub fn holds(&self, seq: u64, hash: u128) -> bool {
        // What a snapshot contains was on the platter before.
        seq <= self.base().end.seq || self.log.iter().any(|b| (b.last_seq(), b.header().hash_last) == (seq, hash))
    }
}
