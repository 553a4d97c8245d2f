//! Gives parts of this replica's snapshots to others.
//!
//! It keeps nothing of a transfer: every question names what it wants. Reading is a thread's work, one part at a time
//! for all peers together, so that no batch waits behind more than one part per peer and the disk is never crowded.

use std::collections::VecDeque;

use pygmy_proto::limits::SNAPSHOT_PART_BYTES_MAX;
use pygmy_proto::message::{SnapshotFetch, SnapshotRefusal, SnapshotRefused};

/// Parts that may be on their way to one peer; one more is refused. A receiver asks for no more.
pub const PARTS_PER_PEER: usize = 2;

/// What is asked of this replica, and not yet read.
#[derive(Debug, Default)]
pub struct Sender {
    waiting: VecDeque<(u16, SnapshotFetch)>,
    /// For whom a part is being read.
    reading: Option<u16>,
}

impl Sender {
    /// Takes a question of `node`.
    ///
    /// # Errors
    /// The refusal to be sent, when it is not taken.
    pub fn on_fetch(&mut self, node: u16, fetch: SnapshotFetch) -> Result<(), SnapshotRefused> {
        if fetch.len == 0 || fetch.len as usize > SNAPSHOT_PART_BYTES_MAX {
            return Err(refusal(&fetch, SnapshotRefusal::Unreadable));
        }
        let asked = self.waiting.iter().filter(|(asker, _)| *asker == node).count();
        if asked + usize::from(self.reading == Some(node)) >= PARTS_PER_PEER {
            return Err(refusal(&fetch, SnapshotRefusal::Busy));
        }
        self.waiting.push_back((node, fetch));
        Ok(())
    }

    /// The link to `node` is gone, and with it whoever asked.
    pub fn on_link_down(&mut self, node: u16) {
        self.waiting.retain(|(asker, _)| *asker != node);
    }

    /// What was being read has been, or could not be.
    pub fn on_read(&mut self) {
        self.reading = None;
    }

    /// What is to be read next, if nothing is being read. To be called at the end of a turn.
    pub fn next_read(&mut self) -> Option<(u16, SnapshotFetch)> {
        if self.reading.is_some() {
            return None;
        }
        let (node, fetch) = self.waiting.pop_front()?;
        self.reading = Some(node);
        Some((node, fetch))
    }
}

/// Says no to `fetch`, from a replica that looks at none of its snapshots for that.
fn refusal(fetch: &SnapshotFetch, why: SnapshotRefusal) -> SnapshotRefused {
    SnapshotRefused { seq: fetch.seq, file: fetch.file, offset: fetch.offset, why, newest: 0 }
}
