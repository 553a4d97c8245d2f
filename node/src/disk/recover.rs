//! Opens what a log replica keeps on disk, and says what it begins with.

use pygmy_proto::message::{Epoch, LogEnd};
use pygmy_ring::{Recovered, Vote};

use super::fs::Fs;
use super::log::{self, LogFiles, Options};
use super::vote::{Found, VoteError, VoteFile};
use crate::store::Store;

/// The end that a log without a vote would have to reach: none is beyond it.
pub const NEVER: LogEnd = LogEnd { epoch: Epoch { counter: u64::MAX, node: u16::MAX }, seq: u64::MAX };

/// Why the files could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The vote file.
    #[error(transparent)]
    Vote(#[from] VoteError),
    /// The log.
    #[error(transparent)]
    Log(#[from] log::OpenError),
}

/// The files, opened, and what was found in them.
#[derive(Debug)]
pub struct Opened<F: Fs> {
    /// The log, to be written.
    pub log: LogFiles<F>,
    /// The vote file, to be written.
    pub votes: VoteFile<F>,
    /// What the log held.
    pub found: log::Recovered,
    /// What the vote file held.
    pub vote: Found,
}

/// Opens the files of the log `uuid`. When this returns, what was found is durable.
///
/// # Errors
/// They are another log's, cannot be read, or could not be brought to safety.
pub fn open<F: Fs>(fs: F, uuid: [u8; 16], options: Options) -> Result<Opened<F>, OpenError> {
    let (votes, vote) = VoteFile::open(fs.clone(), uuid)?;
    let (log, found) = LogFiles::open(fs, uuid, options)?;
    Ok(Opened { log, votes, found, vote })
}

/// What a replica begins with over what was found.
pub fn recovered(found: log::Recovered, vote: Found) -> Recovered<Store> {
    ::log::info!(
        "the log ends at seq {}, {} bytes behind it were torn and are cut off",
        found.end.seq,
        found.cut_bytes
    );
    let mut damaged = found.damaged.map(|damage| LogEnd { epoch: damage.end.0, seq: damage.end.1 });
    if let Some(until) = damaged {
        ::log::error!(
            "the log is damaged: entries up to seq {} of epoch {} may have been acknowledged and are lost; this node \
             has no vote until it has them back from the others",
            until.seq,
            until.epoch.counter
        );
    }
    let vote = match vote {
        Found::Nothing => Vote::default(),
        Found::Vote(vote) => vote,
        Found::Damaged(known) => {
            ::log::error!("the vote file is damaged: what was promised may be forgotten, so this log votes no more");
            damaged = Some(NEVER);
            known.unwrap_or_default()
        }
    };
    Recovered {
        // Whatever was appended in an epoch was so after the promise.
        vote: Vote { promised: vote.promised.max(found.tag), cut: vote.cut },
        batches: found.batches,
        damaged,
        ..Recovered::empty(Store::new())
    }
}
