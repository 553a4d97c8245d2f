//! The thread that takes a snapshot. It lives only that long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};

use crate::disk::fs::{Fs, FsFile};
use crate::disk::writer::Wake;
use crate::snapshot::{self, BuildError, SnapshotOrder, Snapshots, Taken};

/// Takes snapshots, one at a time.
pub(super) struct Builder<F: Fs> {
    snapshots: Snapshots<F>,
    wake: Wake,
    stop: Arc<AtomicBool>,
    running: Option<Running>,
}

struct Running {
    answer: Receiver<Result<Taken, BuildError>>,
    thread: JoinHandle<()>,
}

impl<F> Builder<F>
where
    F: Fs + Send + 'static,
    F::File: FsFile + Send + 'static,
{
    pub(super) fn new(snapshots: Snapshots<F>, wake: Wake) -> Self {
        Self { snapshots, wake, stop: Arc::default(), running: None }
    }

    /// Begins to take the snapshot that was ordered.
    ///
    /// # Errors
    /// The system gave no thread.
    pub(super) fn start(&mut self, order: Box<SnapshotOrder>) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        let (wake, stop) = (Arc::clone(&self.wake), Arc::clone(&self.stop));
        let (told, answer) = bounded(1);
        let thread = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            give_way();
            let done = snapshot::build::build(&snapshots, &order, &stop);
            // If the loop is gone, nobody needs to know.
            let _ = told.send(done);
            wake();
        })?;
        self.running = Some(Running { answer, thread });
        Ok(())
    }

    /// What became of it. Never blocks.
    pub(super) fn poll(&mut self) -> Option<Result<Taken, BuildError>> {
        let running = self.running.take_if(|running| running.thread.is_finished() || !running.answer.is_empty())?;
        let answer = running.answer.try_recv();
        let ended = running.thread.join();
        let panicked = |_| Err(BuildError::Fatal("the thread that takes snapshots panicked".to_owned()));
        Some(ended.map_or_else(panicked, |()| answer.unwrap_or_else(|_| Err(no_answer()))))
    }
}

/// Nobody waits for a snapshot; whoever has a core to share with it goes first. On Linux this is of the thread alone.
fn give_way() {
    if let Err(error) = rustix::process::nice(10) {
        log::warn!("a snapshot is taken as urgently as everything else: {error}");
    }
}

fn no_answer() -> BuildError {
    BuildError::Later("the thread that takes snapshots ended without an answer".to_owned())
}

impl<F: Fs> Drop for Builder<F> {
    /// What it had written is removed at the next start.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take()
            && running.thread.join().is_err()
        {
            log::error!("the thread that takes snapshots panicked");
        }
    }
}
