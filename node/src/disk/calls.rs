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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::direct::LogWrites;
    use crate::disk::fs::{Fs, FsFile, RealFs};

    #[test]
    fn every_call_on_a_file_is_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let fs = RealFs::open(dir.path(), LogWrites::Buffered).expect("it is ours");
        let opened = fs.calls().get().count;
        let file = fs.create("a").expect("room");
        file.write_at(&[1; 10], 0).expect("room");
        file.sync().expect("a sound disk");
        file.write_durably(&[2; 7], 3).expect("a sound disk");
        file.read_at(&mut [0; 4], 0).expect("they are there");
        fs.sync_dir().expect("a sound disk");
        // Opening it counts its closing, and a durable write through the cache is two calls.
        let FileCalls { count, syncs, written } = fs.calls().get();
        assert_eq!((count - opened, syncs, written), (2 + 1 + 1 + 2 + 1 + 1, 3, 17));
    }
}
