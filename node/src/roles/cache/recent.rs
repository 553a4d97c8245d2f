//! The keys that were changed lately.
//!
//! An answer that left a catalog before a change and arrives after it was told here must not be kept: nothing would ever
//! correct it. So the latest changes are remembered, by the hash of their key and their position. Of what lies further back
//! it is not known what changed, and no answer from then is kept.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// Changes remembered: a second of the fastest cluster, for answers that take a millisecond.
pub const CHANGES_MAX: usize = 65_536;

/// For keys that are hashes already.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A ring of the last changes.
#[derive(Debug)]
pub struct Recent {
    /// In the order in which they were told.
    ring: VecDeque<(u64, u64)>,
    /// The highest position at which each key in `ring` was changed.
    last: HashMap<u64, u64, BuildHasherDefault<AsItIs>>,
    /// All changes behind this position that were told are in `ring`.
    complete_after: u64,
    max: usize,
}

impl Recent {
    /// Remembers `max` changes.
    pub fn new(max: usize) -> Self {
        Self { ring: VecDeque::new(), last: HashMap::default(), complete_after: 0, max }
    }

    /// The key with this hash was changed at `seq`.
    pub fn note(&mut self, key: u64, seq: u64) {
        if self.ring.len() == self.max
            && let Some((old, at)) = self.ring.pop_front()
        {
            self.complete_after = self.complete_after.max(at);
            if self.last.get(&old) == Some(&at) {
                self.last.remove(&old);
            }
        }
        let last = self.last.entry(key).or_insert(seq);
        *last = seq.max(*last);
        self.ring.push_back((key, seq));
    }

    /// Whether a key may have been changed behind `seq`. Two keys with one hash count as one.
    pub fn may_have_changed(&self, key: u64, seq: u64) -> bool {
        seq < self.complete_after || self.last.get(&key).is_some_and(|last| *last > seq)
    }

    /// Nothing is known of what was told up to `place`.
    pub fn clear(&mut self, place: u64) {
        self.ring.clear();
        self.last.clear();
        self.complete_after = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_remembered_until_the_ring_is_full_and_then_everything_may_have_changed() {
        let mut recent = Recent::new(3);
        recent.note(1, 10);
        recent.note(2, 11);
        assert!(recent.may_have_changed(1, 9));
        assert!(!recent.may_have_changed(1, 10), "an answer from the change on has it");
        assert!(!recent.may_have_changed(3, 5), "nothing was told before");
        recent.note(1, 12);
        recent.note(4, 13);
        assert!(recent.may_have_changed(1, 11), "its later change is in the ring");
        assert!(!recent.may_have_changed(3, 10));
        assert!(recent.may_have_changed(3, 9), "what was forgotten may have been of this key");
        recent.note(4, 13);
        assert!(recent.may_have_changed(2, 10));
        assert!(!recent.may_have_changed(2, 11), "its change is forgotten, but at 11 it is known to be in");
    }

    #[test]
    fn one_that_was_told_twice_is_not_forgotten_with_the_first() {
        let mut recent = Recent::new(2);
        recent.note(1, 10);
        recent.note(1, 10);
        recent.note(2, 11);
        // The entry of the first telling took the key with it, and everything up to there counts as changed instead.
        assert!(recent.may_have_changed(1, 9));
    }

    #[test]
    fn cleared_it_knows_nothing_of_what_was_before() {
        let mut recent = Recent::new(8);
        recent.note(1, 10);
        recent.clear(20);
        assert!(recent.may_have_changed(2, 19));
        assert!(!recent.may_have_changed(1, 20));
    }
}
