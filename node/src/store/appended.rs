//! A list that only grows, and that can be kept as it was at a moment while it goes on growing.

use std::ops::Index;
use std::sync::Arc;

/// Items of a block. A copy of the list copies at most so many; of the blocks before it shares.
const BLOCK: usize = 4_096;

/// See the module's head. A clone costs no more than a block and a pointer for each block before.
#[derive(Debug, Clone)]
pub(super) struct Appended<T> {
    /// Blocks of [`BLOCK`] items, never changed again.
    full: Vec<Arc<Vec<T>>>,
    open: Vec<T>,
}

impl<T> Default for Appended<T> {
    fn default() -> Self {
        Self { full: Vec::new(), open: Vec::new() }
    }
}

impl<T> Appended<T> {
    pub(super) fn len(&self) -> usize {
        self.full.len() * BLOCK + self.open.len()
    }

    pub(super) fn push(&mut self, item: T) {
        self.open.push(item);
        if self.open.len() == BLOCK {
            self.full.push(Arc::new(std::mem::take(&mut self.open)));
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.full.get(at / BLOCK).map_or(&self.open, |block| &**block).get(at % BLOCK)
    }

    pub(super) fn last(&self) -> Option<&T> {
        self.get(self.len().checked_sub(1)?)
    }

    /// How many items at the start fulfil a condition that none behind them does.
    pub(super) fn partition_point(&self, mut is_before: impl FnMut(&T) -> bool) -> usize {
        let blocks = self.full.partition_point(|block| block.last().is_some_and(&mut is_before));
        let block = self.full.get(blocks).map_or(&self.open, |block| &**block);
        blocks * BLOCK + block.partition_point(is_before)
    }
}

impl<T> Index<usize> for Appended<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        match self.full.get(at / BLOCK) {
            Some(block) => &block[at % BLOCK],
            None => &self.open[at - self.full.len() * BLOCK],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        let mut list = Appended::default();
        for item in 0..3 * BLOCK + 7 {
            assert_eq!((list.len(), list.get(item)), (item, None));
            list.push(item);
            assert_eq!(list.last(), Some(&item));
        }
        assert!((0..list.len()).all(|at| list[at] == at && list.get(at) == Some(&at)));
        for bound in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 6, list.len(), usize::MAX] {
            assert_eq!(list.partition_point(|item| *item < bound), bound.min(list.len()));
        }
    }

    #[test]
    fn a_copy_stays_as_it_was_and_shares_what_is_full() {
        let mut list = Appended::default();
        (0..BLOCK + 3).for_each(|item| list.push(item));
        let copy = list.clone();
        (0..BLOCK).for_each(|item| list.push(item));
        assert_eq!((copy.len(), copy.get(BLOCK + 3)), (BLOCK + 3, None));
        assert!(Arc::ptr_eq(&copy.full[0], &list.full[0]));
    }
}
