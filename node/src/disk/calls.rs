//! What the files of a directory were asked for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the directory was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileCalls {
    /// System calls.
    pub count: u64,
    /// Those of them after which something was durable.
    pub syncs: u64,
    /// Bytes that were written.
    pub written: u64,
}

/// Where they are counted, by whichever thread makes a call: beside a call to a file system the addition is nothing.
#[derive(Debug, Default)]
pub struct CallCounter {
    count: AtomicU64,
    syncs: AtomicU64,
    written: AtomicU64,
}

impl CallCounter {
    /// Counts calls that wrote nothing.
    pub fn add(&self, calls: u64) {
        self.count.fetch_add(calls, Ordering::Relaxed);
    }

    /// Counts a write.
    pub(super) fn add_write(&self, bytes: usize) {
        self.add(1);
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a sync.
    pub(super) fn add_sync(&self) {
        self.add(1);
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a write that is durable when it returns.
    pub(super) fn add_durable_write(&self, bytes: usize) {
        self.add_write(bytes);
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far. Calls under way may be in some of them and not yet in others.
    pub fn get(&self) -> FileCalls {
        let [count, syncs, written] =
            [&self.count, &self.syncs, &self.written].map(|counter| counter.load(Ordering::Relaxed));
        FileCalls { count, syncs, written }
    }
}
