//! What happens to a disk's bits, and which of it may: nothing that an opening could not notice.

use pygmy_node::disk::fs::Fs;
use pygmy_node::disk::log::LogError;
use pygmy_node::disk::queue::Error;
use pygmy_node::disk::record::{BLOCK, HEADER_LEN, Header, Position};
use pygmy_node::disk::segments::{segment_generation, segment_name};
use pygmy_node::disk::vote::{VOTE_NAME, VoteError};

use pygmy_node::snapshot::dir::{snapshot_name, snapshot_seq};
use pygmy_node::snapshot::ledger::ledger_number;

use super::{Disk, Harm};
use crate::chance::Chance;

/// A block of the log that holds a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    position: Position,
    /// Whether a later record says that it was synced: what is lost here is known to have been acknowledged.
    pub vouched: bool,
}

impl Place {
    fn name(&self) -> String {
        segment_name(self.position.generation())
    }
}

impl Disk {
    /// Whether all that it has acknowledged is undamaged.
    pub fn is_whole(&self) -> bool {
        self.harm == Harm::None
    }

    /// Whether the log itself knows of something that it had and has lost.
    pub fn owes(&self) -> bool {
        self.shadow.owes() || self.files.as_ref().is_some_and(|files| files.queue.log().owed().is_some())
    }

    /// Whether an opening has seen what harm there was.
    pub fn harm_is_seen(&self) -> bool {
        self.harm == Harm::Seen
    }

    /// It has got back whatever it had lost.
    pub fn heal(&mut self) {
        self.harm = Harm::None;
    }

    /// Some block of the log that holds a record on the platter, or, if `cached`, that a process would read.
    ///
    /// A last group that nothing came after, not even a closing one, may be lost without a trace when its bits are
    /// flipped; that is beyond what is promised, and such places are not vouched for.
    pub fn place(&self, cached: bool, chance: &mut Chance) -> Option<Place> {
        let mut generations: Vec<u32> =
            self.fs.list().ok()?.iter().filter_map(|name| segment_generation(name)).collect();
        generations.sort_unstable();
        let (mut places, mut stable) = (Vec::new(), Position::default());
        for generation in generations {
            let name = segment_name(generation);
            let bytes = if cached { self.fs.bytes(&name) } else { self.fs.platter(&name) }?;
            for (index, block) in bytes.chunks(BLOCK).enumerate() {
                let position = Position::new(generation, (index * BLOCK) as u32);
                if let Ok(header) = Header::decode(block)
                    && header.position == position
                {
                    stable = stable.max(header.stable);
                    places.push(position);
                }
            }
        }
        let position = chance.pick(&places)?;
        Some(Place { position, vouched: position < stable })
    }

    /// Flips a bit in a place of the log.
    pub fn flip(&mut self, place: Place, chance: &mut Chance) {
        // Headers are small beside what they stand for, and worth as much.
        let within = if chance.permille(300) { HEADER_LEN } else { BLOCK };
        let offset = u64::from(place.position.offset()) + chance.below(within as u64);
        self.fs.flip(&place.name(), offset, 1 << chance.below(8));
        (self.harm, self.sound) = (Harm::Fresh, 0);
    }

    /// Flips a bit in one copy of the vote, unless one is bad already.
    pub fn flip_vote(&mut self, chance: &mut Chance) -> bool {
        if self.vote_harmed || self.fs.bytes(VOTE_NAME).is_none() {
            return false;
        }
        self.fs.flip(VOTE_NAME, vote_copy(chance) + chance.below(64), 1 << chance.below(8));
        self.vote_harmed = true;
        true
    }

    /// Flips a bit in the newest snapshot, where an older one and the log behind it give the same state: whether that is
    /// so. Nothing may come of it.
    pub fn flip_newest(&mut self, chance: &mut Chance) -> bool {
        let bears_it = self.harm == Harm::None && !self.newest_harmed && self.sound >= 2;
        self.newest_harmed |= bears_it && self.flip_file(&snapshot_name(self.shadow.snapshot.seq), chance);
        bears_it && self.newest_harmed
    }

    /// Flips a bit in some file of the snapshots: what it holds is lost; whether there is one.
    pub fn flip_snapshot(&mut self, chance: &mut Chance) -> bool {
        let names = self.fs.list().unwrap_or_default();
        let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_of_a_snapshot(name)).collect();
        let flipped = chance.pick(&names).is_some_and(|name| self.flip_file(name, chance));
        if flipped {
            (self.harm, self.sound) = (Harm::Fresh, 0);
        }
        flipped
    }

    fn flip_file(&self, name: &str, chance: &mut Chance) -> bool {
        let len = self.fs.platter(name).map_or(0, |bytes| bytes.len() as u64);
        let offset = chance.below(len.max(1));
        let flips = offset < len;
        if flips {
            self.fs.flip(name, offset, 1 << chance.below(8));
        }
        flips
    }

    /// A place of the log cannot be read until the next process.
    pub fn hide(&mut self, place: Place) {
        self.fs.fail_read(&place.name(), place.position.offset().into());
        // What no record vouches for is behind the snapshots.
        if place.vouched {
            (self.harm, self.sound) = (Harm::Fresh, 0);
        }
    }

    /// A copy of the vote cannot be read, unless one is bad already.
    pub fn hide_vote(&mut self, chance: &mut Chance) -> bool {
        if self.vote_harmed || self.fs.bytes(VOTE_NAME).is_none() {
            return false;
        }
        self.fs.fail_read(VOTE_NAME, vote_copy(chance));
        self.vote_harmed = true;
        true
    }

    /// Whether an error was injected that has ended, or will end, the process.
    pub fn is_faulty(&self) -> bool {
        self.faulty
    }

    /// One of the next writes fails.
    pub fn fail_write(&mut self, chance: &mut Chance) {
        self.fs.fail_write_after(chance.below(3));
        self.faulty = true;
    }

    /// One of the next syncs fails.
    pub fn fail_sync(&mut self, chance: &mut Chance) {
        self.fs.fail_sync_after(chance.below(4));
        self.faulty = true;
    }

    /// Whether this error is one that was asked for.
    pub fn expects(&self, error: &Error) -> bool {
        let by_disk = matches!(error, Error::Log(LogError::Io(_)) | Error::Vote(VoteError::Io(_)));
        self.faulty && by_disk
    }

    /// The disk has room for so many bytes more.
    pub fn fill(&mut self, room: u64) {
        self.filled = true;
        self.fs.set_budget(Some(self.fs.used() + room));
    }

    /// The disk has room again.
    pub fn make_room(&mut self) {
        self.fs.set_budget(None);
        self.filled = false;
    }

    /// Whether it has no room to speak of.
    pub fn is_filled(&self) -> bool {
        self.filled
    }

    /// No fault is to come any more.
    pub fn mend(&mut self) {
        self.fs.mend();
        self.make_room();
    }
}

/// Where one of the four copies of a vote begins.
fn vote_copy(chance: &mut Chance) -> u64 {
    chance.below(4) * BLOCK as u64
}

fn is_of_a_snapshot(name: &str) -> bool {
    snapshot_seq(name).is_some() || ledger_number(name).is_some()
}
