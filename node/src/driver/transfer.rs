//! The threads of transfers: one reads parts for peers, one receives, so that loading a snapshot, which takes a while,
//! keeps no peer waiting. Each begins with its first piece of work.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::disk::fs::{Fs, FsFile};
use crate::disk::writer::Wake;
use crate::snapshot::Snapshots;
use crate::snapshot::transfer::{self, Done, Failure, Job, Receiving};

/// A thread and its queue. The roles bound how much there can be in it.
struct Lane {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

/// See the module's head.
pub(super) struct Transfers<F: Fs> {
    snapshots: Snapshots<F>,
    wake: Wake,
    reading: Option<Lane>,
    receiving: Option<Lane>,
    told: Sender<Done>,
    done: Receiver<Done>,
}

impl<F> Transfers<F>
where
    F: Fs + Send + 'static,
    F::File: FsFile + Send + 'static,
{
    pub(super) fn new(snapshots: Snapshots<F>, wake: Wake) -> Self {
        let (told, done) = unbounded();
        Self { snapshots, wake, reading: None, receiving: None, told, done }
    }

    /// Takes a job. It is answered, if at all, by [`Self::poll`].
    pub(super) fn submit(&mut self, job: Job) {
        let number = number_of(&job);
        let lane = if number.is_none() { self.reading() } else { self.receiving() };
        let sent = lane
            .and_then(|lane| lane.jobs.send(job).map_err(|_| io::Error::other("the thread of transfers has ended")));
        match (sent, number) {
            (Ok(()), _) => {}
            (Err(error), Some(number)) => {
                let failure = Failure::Unusable(error.to_string());
                // The other end is held by this very struct.
                let _ = self.told.send(Done::Failed { number, failure });
            }
            // The peer asks another replica when it has waited long enough.
            (Err(error), None) => log::error!("no part can be read for another replica: {error}"),
        }
    }

    /// What was done. Never blocks.
    pub(super) fn poll(&mut self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    fn reading(&mut self) -> io::Result<&Lane> {
        let (snapshots, out) = (self.snapshots.clone(), self.out());
        begin(&mut self.reading, "snapshot-reader", move |job| {
            if let Job::Read { node, fetch } = job {
                out(transfer::read(&snapshots, node, &fetch));
            }
        })
    }

    fn receiving(&mut self) -> io::Result<&Lane> {
        let (mut receiving, out) = (Receiving::new(self.snapshots.clone()), self.out());
        begin(&mut self.receiving, "snapshot-receiver", move |job| {
            if let Some(done) = receiving.run(job) {
                out(done);
            }
        })
    }

    fn out(&self) -> impl Fn(Done) + Send + 'static {
        let (told, wake) = (self.told.clone(), Wake::clone(&self.wake));
        move |done| {
            // If the loop is gone, nobody needs to know.
            let _ = told.send(done);
            wake();
        }
    }
}

/// The lane, begun if it was not yet.
fn begin<'a>(lane: &'a mut Option<Lane>, name: &str, work: impl FnMut(Job) + Send + 'static) -> io::Result<&'a Lane> {
    let running = match lane.take() {
        Some(running) => running,
        None => {
            let (jobs, queue) = unbounded::<Job>();
            let thread =
                std::thread::Builder::new().name(name.to_owned()).spawn(move || queue.iter().for_each(work))?;
            Lane { jobs, thread }
        }
    };
    Ok(lane.insert(running))
}

/// Which transfer to this replica a job is of; `None` for a part that is read for a peer.
fn number_of(job: &Job) -> Option<u64> {
    match job {
        Job::Read { .. } => None,
        Job::Begin { number, .. } | Job::Write { number, .. } | Job::Finish { number } | Job::Drop { number } => {
            Some(*number)
        }
    }
}

impl<F: Fs> Drop for Transfers<F> {
    /// What has been received of a snapshot that is not whole is removed at the next start.
    fn drop(&mut self) {
        for lane in [self.reading.take(), self.receiving.take()].into_iter().flatten() {
            drop(lane.jobs);
            if lane.thread.join().is_err() {
                log::error!("a thread of transfers panicked");
            }
        }
    }
}
