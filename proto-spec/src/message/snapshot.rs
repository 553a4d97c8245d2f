//! How a log replica that is too far behind for the others' logs gets a copy of the whole state from one of them.

use bincode::{Decode, Encode};

use super::handshake::Epoch;
use crate::limits::{SNAPSHOT_FILE_NAME_LEN_MAX, SNAPSHOT_FILES_MAX, SNAPSHOT_PART_BYTES_MAX};
use crate::types::{Blob, Bounded, Text};

/// Asks for a part of a snapshot. Answered by [`SnapshotPart`] or [`SnapshotRefused`] with the same four values, but for
/// a `seq` of 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotFetch {
    /// Position of the snapshot; 0: the newest that the asked has.
    pub seq: u64,
    /// Which of its files, by their order in [`SnapshotHead::files`].
    pub file: u32,
    /// First byte wanted.
    pub offset: u64,
    /// How many bytes at most.
    pub len: u32,
}

/// A file that belongs to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotFile {
    /// Its name.
    pub name: Text<SNAPSHOT_FILE_NAME_LEN_MAX>,
    /// How many of its bytes belong to the snapshot. A file that only grows may have more.
    pub len: u64,
    /// XXH3-128 with seed 0 of these bytes; 0 for the first file, which bears checksums of its own.
    pub hash: u128,
}

/// What a snapshot is made of, and where in the log it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotHead {
    /// Epoch of the last entry that it contains.
    pub epoch: Epoch,
    /// Hash of that entry.
    pub entry_hash: u128,
    /// Its files.
    pub files: Bounded<SnapshotFile, SNAPSHOT_FILES_MAX>,
}

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotPart {
    /// Position of the snapshot.
    pub seq: u64,
    /// What it is made of, in the part that answers a `seq` of 0 alone.
    pub head: Option<SnapshotHead>,
    /// Which file this is a part of.
    pub file: u32,
    /// Where in it the part begins.
    pub offset: u64,
    /// The part: as many bytes as were asked for, or fewer where the file ends.
    pub bytes: Blob<SNAPSHOT_PART_BYTES_MAX>,
}

/// Why a part of a snapshot is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum SnapshotRefusal {
    /// The asked has no snapshot, or no longer this one: begin with its newest, if it has any.
    Gone,
    /// As many parts as may be are being read for the asker: ask again when one has come.
    Busy,
    /// The part could not be read, or does not exist: ask another replica.
    Unreadable,
}

/// The answer to [`SnapshotFetch`] when the part is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotRefused {
    /// Position of the snapshot that was asked for.
    pub seq: u64,
    /// The file that was asked for.
    pub file: u32,
    /// The first byte that was asked for.
    pub offset: u64,
    /// Why it is not given.
    pub why: SnapshotRefusal,
    /// Position of the newest snapshot that the sender has; 0: none.
    pub newest: u64,
}
