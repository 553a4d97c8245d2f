//! The log on disk behind the driver's seam.

use std::sync::Arc;

use mio::Waker;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;
use pygmy_ring::Vote;

use super::log::{LogError, LogEvent, LogWriter};
use super::snapshots::Builder;
use super::transfer::Transfers;
use crate::disk::calls::{CallCounter, FileCalls};
use crate::disk::fs::RealFs;
use crate::disk::log::LogFiles;
use crate::disk::record::Mark;
use crate::disk::vote::VoteFile;
use crate::disk::writer::{Error, Event, LogThread, Wake};
use crate::snapshot::transfer::{Done, Job};
use crate::snapshot::{BuildError, SnapshotOrder, Snapshots};

/// The log in a directory of its own, written by a thread of its own.
pub struct DiskLog {
    state: State,
    calls: Arc<CallCounter>,
}

enum State {
    /// Opened; there is nobody to wake yet.
    Opened(Box<Files>),
    Running(Box<Running>),
    /// The thread could not be started, or is gone.
    Failed(Option<Error>),
}

struct Files {
    log: LogFiles<RealFs>,
    vote: VoteFile<RealFs>,
    snapshots: Snapshots<RealFs>,
}

struct Running {
    // Dropped first: what it reads goes with the log.
    builder: Builder<RealFs>,
    transfers: Transfers<RealFs>,
    thread: LogThread,
    /// An order for which there was no thread.
    refused: Option<BuildError>,
}

impl std::fmt::Debug for DiskLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskLog").finish_non_exhaustive()
    }
}

impl DiskLog {
    /// Around the files of an opened log and the snapshots beside it, all of them in `fs`.
    pub fn new(log: LogFiles<RealFs>, vote: VoteFile<RealFs>, snapshots: Snapshots<RealFs>, fs: &RealFs) -> Self {
        let state = State::Opened(Box::new(Files { log, vote, snapshots }));
        Self { state, calls: Arc::clone(fs.calls()) }
    }

    fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            State::Opened(_) | State::Failed(_) => None,
        }
    }

    fn thread(&mut self) -> Option<&mut LogThread> {
        self.running().map(|running| &mut running.thread)
    }
}

fn start(files: Files, wake: Wake) -> Result<Running, Error> {
    let Files { log, vote, snapshots } = files;
    let transfers = Transfers::new(snapshots.clone(), Arc::clone(&wake));
    let builder = Builder::new(snapshots, Arc::clone(&wake));
    Ok(Running { builder, transfers, thread: LogThread::start(log, vote, wake)?, refused: None })
}

impl LogWriter for DiskLog {
    fn attach(&mut self, waker: Arc<Waker>) {
        let calls = Arc::clone(&self.calls);
        let wake = move || {
            calls.add(1);
            if let Err(error) = waker.wake() {
                ::log::error!("the event loop cannot be woken: {error}");
            }
        };
        let state = std::mem::replace(&mut self.state, State::Failed(None));
        self.state = match state {
            State::Opened(files) => match start(*files, Arc::new(wake)) {
                Ok(running) => State::Running(Box::new(running)),
                Err(error) => State::Failed(Some(error)),
            },
            other => other,
        };
    }

    fn submit(&mut self, epoch: Epoch, batch: Batch) {
        if let Some(thread) = self.thread() {
            thread.submit(epoch, batch);
        }
    }

    fn submit_vote(&mut self, vote: Vote) {
        if let Some(thread) = self.thread() {
            thread.submit_vote(vote);
        }
    }

    fn read(&mut self, node: u16, from_seq: u64, upto: u64) {
        if let Some(thread) = self.thread() {
            // One that was not taken is asked for again by the peer.
            thread.read(node, from_seq, upto);
        }
    }

    fn take_snapshot(&mut self, order: Box<SnapshotOrder>) {
        if let Some(running) = self.running()
            && let Err(error) = running.builder.start(order)
        {
            running.refused = Some(BuildError::Later(format!("the system gave no thread: {error}")));
        }
    }

    fn cut_below(&mut self, seq: u64) {
        if let Some(thread) = self.thread() {
            thread.submit_cut(seq);
        }
    }

    fn restart(&mut self, epoch: Epoch, mark: Mark) {
        if let Some(thread) = self.thread() {
            thread.submit_restart(epoch, mark);
        }
    }

    fn transfer(&mut self, job: Job) {
        if let Some(running) = self.running() {
            running.transfers.submit(job);
        }
    }

    fn poll_transfer(&mut self) -> Option<Done> {
        self.running()?.transfers.poll()
    }

    fn calls(&self) -> FileCalls {
        let files = self.calls.get();
        let threads = match &self.state {
            State::Running(running) => running.thread.calls(),
            State::Opened(_) | State::Failed(_) => 0,
        };
        FileCalls { count: files.count + threads, ..files }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        match &mut self.state {
            State::Running(running) => {
                running.thread.flush();
                Ok(())
            }
            State::Opened(_) => Ok(()),
            State::Failed(error) => Err(error.take().unwrap_or(Error::Ended).into()),
        }
    }

    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        let Some(running) = self.running() else { return Ok(None) };
        if let Some(answer) = running.refused.take().map(Err).or_else(|| running.builder.poll()) {
            return Ok(Some(LogEvent::Snapshot(answer)));
        }
        let Some(event) = running.thread.poll()? else { return Ok(None) };
        Ok(Some(match event {
            Event::Durable { epoch, seq, hash } => LogEvent::Durable { epoch, seq, hash },
            Event::Vote(vote) => LogEvent::Vote(vote),
            Event::Full(full) => {
                tell_full(full);
                LogEvent::Full(full)
            }
            Event::Read { node, batches } => LogEvent::Read { node, batches },
        }))
    }
}

/// Whoever looks after the machine must know before the clients do.
fn tell_full(full: bool) {
    if full {
        ::log::error!("the disk of the log is full: nothing is ordered here until there is room again");
    } else {
        ::log::info!("the disk of the log has room again");
    }
}
