//! Snapshots: the whole replicated state as of one entry of the log, so that the log need not be kept for ever.
//!
//! | module | what it is |
//! |---|---|
//! | [`chunks`] | the container: chunks with checksums |
//! | `head` | what a snapshot is of |
//! | `state` | books and sessions as bytes |
//! | [`ledger`] | the orders, in files that only grow and that snapshots refer to |
//! | [`dir`] | the snapshots in a directory: which there are, reading, loading, committing a new one |
//! | [`build`] | writes a new one, beside the running loop |
//! | [`incoming`] | takes one from another replica |
//! | [`examine`] | shows what is in a file |
//! | [`transfer`] | what a thread does for those that give and take snapshots |
//! | [`open`] | opens a replica's files: snapshot, log and vote together |
//!
//! `snapshot-<seq>` contains everything but the orders; these are in the ledger's files, of which it names lengths and
//! hashes. So a snapshot does not grow with every order ever made. Its bytes depend on the state alone, not on who took
//! it or when.
//!
//! # Taking one
//! The loop says of which entry, and gives an image of the state there ([`SnapshotOrder`]); the entry is committed, applied
//! and durable here, so it is never truncated. The image shares with the state all that does not change meanwhile: blocks of
//! orders that are full, shards of the table of books, sessions; whatever of these is changed first is copied first. (To
//! load the newest snapshot and to apply the log behind it a second time gives the same state. Under load that took a
//! third of all CPU time, and the disk from the log.) A thread that lives only that long hashes what is in the image: were it
//! not what the state hashed to at that entry, something would have changed what was shared, and the process ends. Then it
//! writes, under temporary names: the ledger's new files, synced, renamed, directory synced; the snapshot, synced,
//! renamed, directory synced. Only then is there a snapshot, and only then the one before the last goes.
//!
//! # Keeping two
//! The log is cut only below the older of the two, so that when the newer is found to be damaged the older one and the
//! log behind it give the same state. With one snapshot nothing is cut.
//!
//! # Opening
//! The newest whole snapshot wins; one that is damaged is told of and passed over. Where none is whole and the log does
//! not reach back to the first entry, the replica begins empty and without a vote, and has everything from the others.

pub mod build;
pub mod chunks;
pub mod dir;
pub mod examine;
mod head;
pub mod incoming;
pub mod ledger;
pub mod open;
mod state;
pub mod transfer;

use pygmy_ring::sessions::SessionsImage;
use pygmy_ring::{Checkpoint, Sessions};

pub use self::build::{BuildError, Taken};
pub use self::dir::{Loaded, SnapshotError, SnapshotOptions, Snapshots};
pub use self::incoming::Incoming;
pub use self::open::{OpenError, Opened};
use crate::disk::record::Mark;
use crate::store::{CatalogImage, Orders, Store};

/// A file, or the first part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRange {
    /// Its name.
    pub name: String,
    /// Bytes from its start on.
    pub len: u64,
    /// For a file of the ledger: xxh3-128 of these bytes. A snapshot bears its own checksums; 0.
    pub hash: u128,
}

/// A snapshot and the files it consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The last entry that it contains.
    pub mark: Mark,
    /// The snapshot itself, then the files of the ledger, oldest first.
    pub files: Vec<FileRange>,
}

impl SnapshotInfo {
    /// The position up to which it goes.
    pub fn seq(&self) -> u64 {
        self.mark.seq
    }

    /// Bytes of the snapshot itself, without the ledger.
    pub fn bytes(&self) -> u64 {
        self.files.first().map_or(0, |file| file.len)
    }
}

/// What a snapshot is to be of. The entry is committed, applied and durable here.
#[derive(Debug, Clone)]
pub struct SnapshotOrder {
    /// The entry, and what must be known beside the state to go on behind it.
    pub at: Checkpoint,
    /// What the state hashed to there.
    pub state_hash: u64,
    /// The state there.
    pub image: Image,
}

/// A state as it was at a moment. It shares with the state that goes on changing whatever has not changed since, so that to
/// make one takes no time that a client would notice, however large the state is.
#[derive(Debug, Clone)]
pub struct Image {
    /// The books.
    pub catalog: CatalogImage,
    /// The orders.
    pub orders: Orders,
    /// The sessions.
    pub sessions: SessionsImage,
}

impl Image {
    /// That of the state as it is now.
    pub fn of(store: &Store, sessions: &Sessions) -> Self {
        let (catalog, orders) = (store.catalog().image(), store.ledger().orders().clone());
        Self { catalog, orders, sessions: sessions.image() }
    }

    /// Hash over what books and sessions are in it, and what was known of its orders.
    pub fn state_hash(&self) -> u64 {
        let parts = [self.catalog.state_hash(), self.orders.state_hash(), self.sessions.state_hash()];
        parts.into_iter().fold(0, u64::wrapping_add)
    }
}
