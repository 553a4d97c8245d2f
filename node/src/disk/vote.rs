//! The vote file: what this disk has promised.
//!
//! The file has two slots of two blocks of 4 KiB. Each block holds one copy of a vote, at its start and shorter than a
//! sector. A vote has a generation; generation `n` is written to slot `n % 2`, both copies by one write, and counts as
//! given when the sync has returned. The highest generation of all valid copies is the vote.
//!
//! # Why a promise never goes back
//! The danger is that the newest vote is unreadable and the one before is taken for the newest. When it is unreadable
//! matters:
//!
//! - **A write of generation n + 1 that was torn.** It overwrites the slot of n − 1; n, which is synced, stands in the
//!   other. A sector is written as a whole or not at all, so each of the slot's copies is n − 1 or n + 1 afterwards; a
//!   disk that spoils the very sector it is writing spoils one. Whatever is found, n or n + 1 is the highest, and n + 1
//!   was not given yet, so either will do.
//! - **Damage.** One bad copy of a slot leaves the other. Both bad cannot be the work of a torn write, by the above:
//!   *a slot without any valid copy is damage*, since it may have held the newest vote. Which of the two slots it is
//!   cannot be known, so even damage of the older one costs the vote; it takes two faults in one file.
//!
//! The second point needs that both slots are filled from the first day on. So the file is born at the first opening,
//! under another name, with an empty vote in both slots, synced, renamed, and the directory synced.
//!
//! A vote that is found, n, may be in a cache only, after a process that ended between write and sync; n − 1 was synced
//! before that write began. So opening gives the vote that it found once more, as n + 1, over n − 1, before the vote may be
//! used. If that is torn, n − 1 or n or n + 1 is the highest that is left, and neither n nor n + 1 was given yet. It is
//! written in place, so that a node starts on a full disk; and the directory is synced, since the process that made the
//! file may have ended before its name was safe. Only a file with a bad copy, which no torn write leaves, is replaced by a
//! new one, by another name again, and needs room for it.
//!
//! Damage is not forgotten by writing on: a file that replaces a damaged one says so, and never counts again.

use std::io::{self, ErrorKind};

pub use pygmy_ring::Vote;

use super::direct::Aligned;
use super::fs::{Fs, FsFile};
use super::record::{BLOCK, at, get_epoch, put_epoch};

/// Name of the file.
pub const VOTE_NAME: &str = "vote";
const NEW_NAME: &str = "vote.new";
/// First bytes of a copy.
pub const MAGIC: &[u8; 4] = b"PYVO";
const VERSION: u8 = 1;
const COPY_LEN: usize = 64;
const CRC_AT: usize = COPY_LEN - 4;
const SLOT: usize = 2 * BLOCK;
const FILE_LEN: usize = 2 * SLOT;

/// Why a vote could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VoteError {
    /// The file belongs to another log.
    #[error("the vote file belongs to another log")]
    Foreign,
    /// It is of another version.
    #[error("the vote file is of version {0}, this program knows {VERSION}: use the program that wrote it")]
    Version(u8),
    /// The new vote is below the old one.
    #[error("a vote cannot go back from {from:?} to {to:?}")]
    Backwards {
        /// What was promised.
        from: Vote,
        /// What should be.
        to: Vote,
    },
    /// The system refused, and what is on disk is unknown.
    #[error("the vote could not be made durable: {0}")]
    Io(#[from] io::Error),
    /// An earlier call failed so.
    #[error("the vote file failed before: {0}")]
    Failed(String),
}

/// What was found in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There was none: nothing was ever promised here.
    Nothing,
    /// The vote, which is durable.
    Vote(Vote),
    /// The newest vote may be lost; this one was given once, if any can be read. The disk has no vote in any majority.
    Damaged(Option<Vote>),
}

/// One of the file's four copies of a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Rises with every vote.
    pub generation: u64,
    /// The vote.
    pub vote: Vote,
    /// Whether an earlier one was lost, so that this one does not count.
    pub damaged: bool,
    /// The log.
    pub uuid: [u8; 16],
}

impl Copy {
    /// The same vote, given once more.
    fn again(self) -> Self {
        Self { generation: self.generation + 1, ..self }
    }
}

/// Why there is no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The file ends before it does, or it cannot be read.
    #[error("it cannot be read")]
    Missing,
    /// Something else stands there.
    #[error("no vote begins here")]
    Magic,
    /// It is not as it was written.
    #[error("wrong checksum")]
    Checksum,
    /// Written by another version.
    #[error("version {0} is not known")]
    Version(u8),
}

/// The copies in `file`, the whole of a vote file: two of each slot.
pub fn copies(file: &[u8]) -> [Result<Copy, CopyError>; 4] {
    std::array::from_fn(|index| decode(file.get(index * BLOCK..index * BLOCK + COPY_LEN)))
}

/// The file, being written.
#[derive(Debug)]
pub struct VoteFile<F: Fs> {
    fs: F,
    /// `None` until opening has made it.
    file: Option<F::File>,
    last: Copy,
    failed: Option<String>,
}

impl<F: Fs> VoteFile<F> {
    /// Opens the vote of the log `uuid`.
    ///
    /// # Errors
    /// The file is another log's, or the system refused.
    pub fn open(fs: F, uuid: [u8; 16]) -> Result<(Self, Found), VoteError> {
        let last = Copy { generation: 0, vote: Vote::default(), damaged: false, uuid };
        let mut opened = Self { fs, file: None, last, failed: None };
        let Some(blocks) = opened.blocks()? else {
            // The file is made now: a first vote must not fail for want of room.
            opened.replace()?;
            return Ok((opened, Found::Nothing));
        };
        let mut copies = [None; 4];
        for (copy, block) in copies.iter_mut().zip(&blocks) {
            *copy = match decode(block.as_deref()) {
                Ok(found) if found.uuid != uuid => return Err(VoteError::Foreign),
                Err(CopyError::Version(version)) => return Err(VoteError::Version(version)),
                found => found.ok(),
            };
        }
        let newest = copies.iter().flatten().max_by_key(|copy| copy.generation);
        let bad_slot = copies.chunks(2).any(|slot| slot.iter().all(Option::is_none));
        if let Some(newest) = newest {
            opened.last = *newest;
        }
        opened.last.damaged |= bad_slot;
        if copies.iter().all(Option::is_some) {
            opened.renew()?
        } else {
            opened.replace()?
        }
        let vote = newest.map(|copy| copy.vote);
        match vote.filter(|_| !opened.last.damaged) {
            Some(vote) => Ok((opened, Found::Vote(vote))),
            None => Ok((opened, Found::Damaged(vote))),
        }
    }

    /// Gives a vote: when this returns, it is durable.
    ///
    /// # Errors
    /// It is below the last one, or it failed for good.
    pub fn write(&mut self, vote: Vote) -> Result<(), VoteError> {
        self.check()?;
        let from = self.last.vote;
        if vote.promised < from.promised || vote.cut < from.cut {
            return Err(VoteError::Backwards { from, to: vote });
        }
        self.last = Copy { generation: self.last.generation + 1, vote, ..self.last };
        let done = match &self.file {
            Some(file) => write_slot(file, &self.last),
            None => return self.replace(),
        };
        self.keep_failure(done)
    }

    /// The last vote given.
    pub fn vote(&self) -> Vote {
        self.last.vote
    }

    /// The file's four blocks; `None` where it ends before or cannot be read.
    fn blocks(&self) -> Result<Option<[Option<Vec<u8>>; 4]>, VoteError> {
        let file = match self.fs.open(VOTE_NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(std::array::from_fn(|index| {
            let mut bytes = vec![0; COPY_LEN];
            file.read_at(&mut bytes, (index * BLOCK) as u64).is_ok().then_some(bytes)
        })))
    }

    /// Gives the last vote once more.
    fn renew(&mut self) -> Result<(), VoteError> {
        let done = self.write_again();
        self.file = self.keep_failure(done).map(Some)?;
        Ok(())
    }

    fn write_again(&mut self) -> io::Result<F::File> {
        let file = self.fs.open_durable(VOTE_NAME)?;
        self.fs.sync_dir()?;
        self.last = self.last.again();
        write_slot(&file, &self.last)?;
        Ok(file)
    }

    /// Writes the whole file with the last vote in both slots, without touching the one there is.
    fn replace(&mut self) -> Result<(), VoteError> {
        let done = self.write_new();
        self.file = self.keep_failure(done).map(Some)?;
        Ok(())
    }

    fn write_new(&mut self) -> io::Result<F::File> {
        let file = self.fs.create(NEW_NAME)?;
        file.set_len(FILE_LEN as u64)?;
        let next = self.last.again();
        for copy in [self.last, next] {
            file.write_at(slot_of(&copy).as_slice(), place_of(&copy))?;
        }
        self.last = next;
        file.sync()?;
        self.fs.rename(NEW_NAME, VOTE_NAME)?;
        self.fs.sync_dir()?;
        self.fs.open_durable(VOTE_NAME)
    }

    fn check(&self) -> Result<(), VoteError> {
        self.failed.clone().map_or(Ok(()), |failed| Err(VoteError::Failed(failed)))
    }

    fn keep_failure<T>(&mut self, done: io::Result<T>) -> Result<T, VoteError> {
        done.map_err(|error| {
            self.failed = Some(error.to_string());
            error.into()
        })
    }
}

fn write_slot<File: FsFile>(file: &File, copy: &Copy) -> io::Result<()> {
    file.write_durably(slot_of(copy).as_slice(), place_of(copy))
}

/// Where the slot of `copy` is.
fn place_of(copy: &Copy) -> u64 {
    (copy.generation % 2) * SLOT as u64
}

/// The two blocks of a slot.
fn slot_of(copy: &Copy) -> Aligned {
    let mut block = [0; BLOCK];
    block[..COPY_LEN].copy_from_slice(&encode(copy));
    let mut slot = Aligned::default();
    slot.extend(&block);
    slot.extend(&block);
    slot
}

fn encode(copy: &Copy) -> [u8; COPY_LEN] {
    let mut out = [0; COPY_LEN];
    out[0..4].copy_from_slice(MAGIC);
    out[4] = VERSION;
    out[5] = copy.damaged.into();
    out[8..16].copy_from_slice(&copy.generation.to_le_bytes());
    put_epoch(&mut out[16..26], copy.vote.promised);
    put_epoch(&mut out[26..36], copy.vote.cut);
    out[36..52].copy_from_slice(&copy.uuid);
    let crc = crc32c::crc32c(&out[..CRC_AT]);
    out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The copy at the start of `block`.
fn decode(block: Option<&[u8]>) -> Result<Copy, CopyError> {
    let bytes = block.filter(|block| block.len() >= COPY_LEN).ok_or(CopyError::Missing)?;
    if at(bytes, 0) != *MAGIC {
        return Err(CopyError::Magic);
    }
    if u32::from_le_bytes(at(bytes, CRC_AT)) != crc32c::crc32c(&bytes[..CRC_AT]) {
        return Err(CopyError::Checksum);
    }
    if bytes[4] != VERSION {
        return Err(CopyError::Version(bytes[4]));
    }
    Ok(Copy {
        generation: u64::from_le_bytes(at(bytes, 8)),
        vote: Vote { promised: get_epoch(bytes, 16), cut: get_epoch(bytes, 26) },
        damaged: bytes[5] != 0,
        uuid: at(bytes, 36),
    })
}
