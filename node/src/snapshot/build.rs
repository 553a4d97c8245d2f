//! Makes a snapshot from the newest one and the log behind it, beside the running loop.

use std::sync::atomic::{AtomicBool, Ordering};

use pygmy_ring::State;

use super::dir::Temporary;
use super::{FileRange, SnapshotError, SnapshotInfo, SnapshotOrder, Snapshots};
use crate::disk::chain;
use crate::disk::fs::Fs;
use crate::disk::reader::LogReader;
use crate::disk::record::Mark;
use crate::store::Store;

/// Bytes of the log that are in memory at once.
const READ_BYTES: usize = 2 * 1024 * 1024;

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub info: SnapshotInfo,
    /// What the log has below this is no longer needed. `None`: all of it is.
    pub cut_below: Option<u64>,
}

/// Why none was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// It may be tried again.
    #[error("no snapshot was taken: {0}")]
    Later(String),
    /// The process must end.
    #[error("{0}")]
    Fatal(String),
}

/// The state at a place of the log, and which files hold the orders.
struct Copy {
    state: State<Store>,
    at: Mark,
    files: Vec<FileRange>,
    /// How many orders are in them.
    orders: usize,
}

/// Takes the snapshot that was ordered. `log` must have what is behind the newest snapshot. When `stop` becomes true it
/// ends soon and without one.
///
/// # Errors
/// See [`BuildError`].
pub fn build<F: Fs>(
    snapshots: &Snapshots<F>,
    log: &LogReader<F::File>,
    order: &SnapshotOrder,
    stop: &AtomicBool,
) -> Result<Taken, BuildError> {
    let copy = copy_at(snapshots, log, order, stop)?;
    let (store, sessions) = copy.state.into_parts();
    let committed = snapshots.stage(order, (&store, &sessions), (copy.files, copy.orders)).and_then(|staged| {
        let info = staged.info.clone();
        snapshots.commit(staged).map(|()| info)
    });
    match committed {
        Ok(info) => Ok(Taken { info, cut_below: snapshots.cut_below() }),
        Err(error) => {
            let removed = snapshots.remove_temporary(Temporary::Building);
            match (error, removed) {
                (error @ SnapshotError::Superseded(_), Ok(())) => Err(BuildError::Later(error.to_string())),
                (error, Ok(())) if error.is_full() => Err(BuildError::Later(error.to_string())),
                // Whatever a disk that fails still holds is unknown: as with the log, nothing is tried twice.
                (error, _) => Err(BuildError::Fatal(format!("a snapshot could not be written: {error}"))),
            }
        }
    }
}

/// The state as of the entry that was ordered.
fn copy_at<F: Fs>(
    snapshots: &Snapshots<F>,
    log: &LogReader<F::File>,
    order: &SnapshotOrder,
    stop: &AtomicBool,
) -> Result<Copy, BuildError> {
    let goal = super::head::mark_of(&order.at);
    let mut copy = begin(snapshots)?;
    if copy.at.seq >= goal.seq {
        // One came from another replica since this one was ordered.
        return Err(BuildError::Later(SnapshotError::Superseded(copy.at.seq).to_string()));
    }
    while copy.at.seq < goal.seq {
        if stop.load(Ordering::Relaxed) {
            return Err(BuildError::Later("the process ends".to_owned()));
        }
        replay(&mut copy, log, goal.seq)?;
    }
    let hash = copy.state.state_hash();
    if copy.at != goal {
        let why = format!("the log on disk has {:?} where the replica applied {goal:?}", copy.at);
        return Err(BuildError::Fatal(why));
    }
    if hash != order.state_hash {
        let why = format!(
            "at seq {} the state here hashes to {:016x}, and what its files give to {hash:016x}",
            goal.seq, order.state_hash
        );
        return Err(BuildError::Fatal(why));
    }
    Ok(copy)
}

/// The newest snapshot, or the state before the first entry.
fn begin<F: Fs>(snapshots: &Snapshots<F>) -> Result<Copy, BuildError> {
    let loaded = snapshots.load_newest().map_err(|error| BuildError::Later(error.to_string()))?;
    let Some(loaded) = loaded else {
        let state = State::fresh(Store::new());
        return Ok(Copy { state, at: Mark::default(), files: Vec::new(), orders: 0 });
    };
    let orders = loaded.store.ledger().len();
    let files = loaded.info.files.into_iter().skip(1).collect();
    Ok(Copy { state: State::new(loaded.store, loaded.sessions), at: loaded.info.mark, files, orders })
}

/// Applies what comes next in the log, a bounded part of it.
fn replay<File: crate::disk::fs::FsFile>(copy: &mut Copy, log: &LogReader<File>, upto: u64) -> Result<(), BuildError> {
    let from = copy.at.seq + 1;
    let batches = log.read(from, upto, READ_BYTES).map_err(|error| BuildError::Later(error.to_string()))?;
    if batches.is_empty() {
        return Err(BuildError::Later(format!("the log does not have seq {from}")));
    }
    for batch in batches {
        let header = batch.header();
        if header.first_seq != copy.at.seq + 1 || header.hash_before != copy.at.hash || batch.last_seq() > upto {
            let why =
                format!("entries {} to {} of the log do not follow {:?}", header.first_seq, batch.last_seq(), copy.at);
            return Err(BuildError::Later(why));
        }
        for entry in batch.entries() {
            // Whoever asked for it has its answer from the replica.
            drop(copy.state.apply(header.time_us, entry));
        }
        copy.at = chain::end_of(&batch);
    }
    Ok(())
}
