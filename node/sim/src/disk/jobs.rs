//! What threads do beside the log's in production: snapshots are taken, parts of them read for peers, and those of peers
//! received. Here each piece of work is done at one moment, or in part when the process ends before.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

use pygmy_node::snapshot::build::build;
use pygmy_node::snapshot::transfer::{Done, Job, Receiving};
use pygmy_node::snapshot::{BuildError, SnapshotOrder, Snapshots, Taken};

use super::watched::WatchedFs;
use super::{Disk, Harm};
use crate::mistake::Mistake;

/// A thread of transfers: it takes its jobs one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Reads parts for peers.
    Reading,
    /// Receives a snapshot.
    Receiving,
}

impl Lane {
    fn of(job: &Job) -> Self {
        if matches!(job, Job::Read { .. }) { Self::Reading } else { Self::Receiving }
    }
}

/// The work that a process has for its disk beside the log.
#[derive(Debug)]
pub(super) struct Jobs {
    snapshots: Snapshots<WatchedFs>,
    receiving: Receiving<WatchedFs>,
    building: Option<Box<SnapshotOrder>>,
    lanes: [VecDeque<Job>; 2],
}

impl Jobs {
    pub(super) fn new(snapshots: Snapshots<WatchedFs>) -> Self {
        let receiving = Receiving::new(snapshots.clone());
        Self { snapshots, receiving, building: None, lanes: Default::default() }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.building.is_some() || self.lanes.iter().any(|lane| !lane.is_empty())
    }

    fn build(&mut self) -> Option<Result<Taken, BuildError>> {
        let order = self.building.take()?;
        Some(build(&self.snapshots, &order, &AtomicBool::new(false)))
    }

    /// Does all that there is, for nobody.
    pub(super) fn finish_all(&mut self) {
        drop(self.build());
        for job in self.lanes.iter_mut().flat_map(std::mem::take) {
            drop(self.receiving.run(job));
        }
    }
}

impl Disk {
    /// Bytes of the newest snapshot, without the ledger; 0: there is none.
    pub fn newest_bytes(&self) -> u64 {
        let newest = self.files.as_ref().and_then(|files| files.jobs.snapshots.newest());
        newest.map_or(0, |info| info.bytes())
    }

    /// Whether there is work beside the log.
    pub fn is_busy(&self) -> bool {
        self.files.as_ref().is_some_and(|files| files.jobs.is_busy())
    }

    /// Whether a snapshot is being taken.
    pub fn is_building(&self) -> bool {
        self.files.as_ref().is_some_and(|files| files.jobs.building.is_some())
    }

    /// Begins to take a snapshot.
    pub fn begin_snapshot(&mut self, order: Box<SnapshotOrder>) {
        if let Some(files) = &mut self.files {
            files.jobs.building = Some(order);
        }
    }

    /// Takes the snapshot that was begun.
    pub fn take_snapshot(&mut self) -> Option<Result<Taken, BuildError>> {
        let files = self.files.as_mut()?;
        let mut done = files.jobs.build()?;
        if let Ok(taken) = &mut done {
            self.shadow.snapshot = taken.info.mark;
            self.sound = if self.harm == Harm::None && !self.newest_harmed { self.sound + 1 } else { 0 };
            if self.watch.mistake == Some(Mistake::CutBehindNewest) {
                taken.cut_below = Some(taken.info.seq() + 1);
            }
        }
        Some(done)
    }

    /// Takes a job; its lane, if that had nothing to do.
    pub fn begin_job(&mut self, job: Job) -> Option<Lane> {
        let lane = Lane::of(&job);
        let jobs = &mut self.files.as_mut()?.jobs.lanes[lane as usize];
        jobs.push_back(job);
        (jobs.len() == 1).then_some(lane)
    }

    /// Does the next job of a lane: what there is to tell, and whether there is another one.
    pub fn do_job(&mut self, lane: Lane) -> (Option<Done>, bool) {
        let Some(files) = &mut self.files else { return (None, false) };
        let jobs = &mut files.jobs;
        let done = jobs.lanes[lane as usize].pop_front().and_then(|job| jobs.receiving.run(job));
        if let Some(Done::Loaded { loaded, .. }) = &done {
            self.shadow.snapshot = loaded.info.mark;
            // The log reaches back to no older one.
            self.sound = 0;
        }
        (done, !files.jobs.lanes[lane as usize].is_empty())
    }
}
