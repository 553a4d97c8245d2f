//! Slots in the order of their latest use, each step of which takes the same time however many there are.

/// No slot.
const NONE: usize = usize::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    older: usize,
    newer: usize,
}

/// A doubly linked list whose links are kept by slot. Slots are small numbers, as a slab gives them.
#[derive(Debug, Clone)]
pub(crate) struct Recency {
    links: Vec<Link>,
    oldest: usize,
    newest: usize,
}

impl Recency {
    pub(crate) fn new() -> Self {
        Self { links: Vec::new(), oldest: NONE, newest: NONE }
    }

    /// The slot that has not been used for the longest time.
    pub(crate) fn oldest(&self) -> Option<usize> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// A slot that is not in the list is used.
    pub(crate) fn add(&mut self, slot: usize) {
        if slot >= self.links.len() {
            self.links.resize(slot + 1, Link { older: NONE, newer: NONE });
        }
        self.links[slot] = Link { older: self.newest, newer: NONE };
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.links[newest].newer = slot,
        }
        self.newest = slot;
    }

    /// A slot that is in the list leaves it.
    pub(crate) fn remove(&mut self, slot: usize) {
        let Link { older, newer } = self.links[slot];
        match older {
            NONE => self.oldest = newer,
            older => self.links[older].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer].older = older,
        }
    }

    /// A slot that is in the list is used again.
    pub(crate) fn touch(&mut self, slot: usize) {
        if slot != self.newest {
            self.remove(slot);
            self.add(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(list: &Recency) -> Vec<usize> {
        let mut found = Vec::new();
        let mut at = list.oldest();
        while let Some(slot) = at {
            found.push(slot);
            at = Some(list.links[slot].newer).filter(|newer| *newer != NONE);
        }
        found
    }

    proptest! {
        #[test]
        fn it_is_a_list_that_slots_are_moved_to_the_end_of(steps in prop::collection::vec((0..8_usize, any::<bool>()), 0..200)) {
            let (mut list, mut model) = (Recency::new(), Vec::<usize>::new());
            for (slot, is_use) in steps {
                let is_in = model.contains(&slot);
                model.retain(|other| *other != slot);
                match (is_use, is_in) {
                    (true, true) => list.touch(slot),
                    (true, false) => list.add(slot),
                    (false, true) => list.remove(slot),
                    (false, false) => {}
                }
                if is_use {
                    model.push(slot);
                }
                prop_assert_eq!(all(&list), model.clone());
            }
        }
    }
}
