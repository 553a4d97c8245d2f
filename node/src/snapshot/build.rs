//! Writes a snapshot of an image of the state, beside the running loop.

use std::sync::atomic::{AtomicBool, Ordering};

use super::dir::Temporary;
use super::{SnapshotError, SnapshotInfo, SnapshotOrder, Snapshots};
use crate::disk::fs::Fs;

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

/// Takes the snapshot that was ordered. When `stop` is true it is not begun.
///
/// # Errors
/// See [`BuildError`].
pub fn build<F: Fs>(snapshots: &Snapshots<F>, order: &SnapshotOrder, stop: &AtomicBool) -> Result<Taken, BuildError> {
    check(snapshots, order, stop)?;
    let committed = snapshots.stage(order).and_then(|staged| {
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

/// Whether there is still a reason to take it, and whether the image is of the state that it should be of.
fn check<F: Fs>(snapshots: &Snapshots<F>, order: &SnapshotOrder, stop: &AtomicBool) -> Result<(), BuildError> {
    if stop.load(Ordering::Relaxed) {
        return Err(BuildError::Later("the process ends".to_owned()));
    }
    let seq = order.at.base.end.seq;
    if let Some(newest) = snapshots.newest().filter(|newest| newest.seq() >= seq) {
        // One came from another replica since this one was ordered.
        return Err(BuildError::Later(SnapshotError::Superseded(newest.seq()).to_string()));
    }
    let hash = order.image.state_hash();
    if hash != order.state_hash {
        let ordered = order.state_hash;
        let why = format!("at seq {seq} the state hashed to {ordered:016x}, and the image of it does to {hash:016x}");
        return Err(BuildError::Fatal(why));
    }
    Ok(())
}
