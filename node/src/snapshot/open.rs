//! Opens the files of a log replica: its vote, the newest snapshot that is whole, and the log behind it.

use pygmy_proto::message::{Epoch, LogEnd};
use pygmy_ring::Recovered;

use super::{Loaded, SnapshotError, SnapshotOptions, Snapshots};
use crate::disk::fs::Fs;
use crate::disk::log::{self, LogFiles};
use crate::disk::record::Mark;
use crate::disk::recover;
use crate::disk::vote::VoteFile;
use crate::store::Store;

/// How a replica's files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Bytes of a new segment of the log.
    pub segment_bytes: u32,
    /// How snapshots are kept.
    pub snapshots: SnapshotOptions,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { segment_bytes: log::SEGMENT_BYTES, snapshots: SnapshotOptions::default() }
    }
}

/// Why they could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The snapshots.
    #[error("the snapshots cannot be opened: {0}")]
    Snapshot(#[from] SnapshotError),
    /// The log or the vote.
    #[error(transparent)]
    Log(#[from] recover::OpenError),
}

/// The files of a log replica, and what they hold.
pub struct Opened<F: Fs> {
    /// The log.
    pub log: LogFiles<F>,
    /// The vote.
    pub votes: VoteFile<F>,
    /// The snapshots.
    pub snapshots: Snapshots<F>,
    /// What a replica begins with.
    pub recovered: Recovered<Store>,
    /// What was out of order in the log, and mended.
    pub notes: Notes,
}

/// What an opening of a log had to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notes {
    /// Bytes of torn records that were cut.
    pub cut_bytes: u64,
    /// Batches that were written again, to be sure of them.
    pub copied: usize,
    /// Whether the log had been ended in order.
    pub clean: bool,
}

/// Opens the files of the replica whose log is `uuid`.
///
/// # Errors
/// They are another's or of another version, cannot be read, or could not be brought to safety.
pub fn open<F: Fs>(fs: F, uuid: [u8; 16], options: OpenOptions) -> Result<Opened<F>, OpenError> {
    let snapshots = Snapshots::open(fs.clone(), options.snapshots)?;
    let loaded = snapshots.load_newest()?;
    let anchor = loaded.as_ref().map_or_else(Mark::default, |loaded| loaded.info.mark);
    let log_options = log::Options { segment_bytes: options.segment_bytes, anchor };
    let recover::Opened { log, votes, found, vote } = recover::open(fs, uuid, log_options)?;
    let end = found.end;
    let notes = Notes { cut_bytes: found.cut_bytes, copied: found.copied, clean: found.clean };
    let mut recovered = recover::recovered(found, vote);
    // By position: what a snapshot had was committed, so no log that reaches further lacks it. Its epoch is a guess.
    let lost = lost(&snapshots, end, recovered.vote.promised);
    recovered.damaged = recovered.damaged.into_iter().chain(lost).max_by_key(|end| (end.seq, end.epoch));
    if let Some(loaded) = loaded {
        ::log::info!("the log goes on from a snapshot of seq {}", anchor.seq);
        recovered = go_on_from(loaded, recovered);
    }
    Ok(Opened { log, votes, snapshots, recovered, notes })
}

/// How far the log went by the name of a snapshot that cannot be read, if what was found ends before that.
fn lost<F: Fs>(snapshots: &Snapshots<F>, end: Mark, promised: Epoch) -> Option<LogEnd> {
    let seq = snapshots.damaged().into_iter().filter(|seq| *seq > end.seq).max()?;
    ::log::error!(
        "entries up to seq {seq} were in a snapshot that cannot be read, and are lost here: this node has no vote until \
         it has them back from the others"
    );
    // None of its entries can have been of an epoch beyond what was promised. Where nothing tells that, all was lost.
    Some(if promised.counter == 0 { recover::NEVER } else { LogEnd { epoch: promised, seq } })
}

/// What the log below the snapshot has is in the snapshot; it reaches back to the one before.
fn go_on_from(loaded: Loaded, recovered: Recovered<Store>) -> Recovered<Store> {
    let Loaded { checkpoint, store, sessions, .. } = loaded;
    let at = checkpoint.base.end.seq;
    Recovered {
        machine: store,
        sessions,
        base: checkpoint.base,
        boundaries: checkpoint.boundaries,
        membership: Some(checkpoint.membership),
        batches: recovered.batches.into_iter().filter(|batch| batch.last_seq() > at).collect(),
        ..recovered
    }
}
