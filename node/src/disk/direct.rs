//! Writes that go around the page cache and are durable when the system call returns.
//!
//! A file that is opened with `O_DIRECT` and `O_DSYNC` takes one system call for a group where a buffered one takes two,
//! and copies nothing; on a disk with write-through commands it needs no flush of the whole cache either. What it takes
//! is memory, offsets and lengths at multiples of the device's block: [`Aligned`] memory, and groups that are whole
//! blocks of [`BLOCK`] bytes.
//!
//! # Beside a cache
//! Readers of the log read through the page cache, by another descriptor. Linux keeps the two coherent where it can: a
//! direct write first writes back and drops the cached pages of its range, and drops them again when it is done, in case
//! a reader, or its readahead, brought them back meanwhile. It cannot where a page is dirty or mapped into memory. No
//! file of the log is ever mapped, and what is written into it through the cache is synced before a direct write comes.
//! A reader is told of a record only after its write has returned; whatever it reads bears checksums.
//!
//! # Where it is refused
//! Some file systems refuse the flag when the file is opened, some devices the first write, as their blocks are larger.
//! One refusal ends it for all files of a directory, with one line in the log of the process, and the group is written
//! through the cache and synced. A refusal says that the request had the wrong form, and nothing about the bytes on disk,
//! so writing them another way hides no failure. Any other error does, and is passed on.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::record::BLOCK;

/// How groups of the log and votes get to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogWrites {
    /// Around the page cache, if the file system can; otherwise through it
    #[default]
    Direct,
    /// Through the page cache, with a sync behind each
    Buffered,
}

/// Bytes that grow, of which the first always stands at a multiple of [`BLOCK`].
#[derive(Debug, Default)]
pub(super) struct Aligned {
    /// Never longer than what was reserved, so that the bytes stay where they are.
    bytes: Vec<u8>,
    /// How many at the start are left out.
    start: usize,
}

impl Aligned {
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn extend(&mut self, more: &[u8]) {
        if self.bytes.len() + more.len() > self.bytes.capacity() {
            self.move_to(2 * (self.len() + more.len()));
        }
        self.bytes.extend_from_slice(more);
    }

    /// Moves to memory with room for `room` bytes.
    fn move_to(&mut self, room: usize) {
        let mut moved: Vec<u8> = Vec::with_capacity(room + BLOCK);
        // If it cannot be known, the bytes are not aligned, and are written through the cache.
        let start = Some(moved.as_ptr().align_offset(BLOCK)).filter(|start| *start < BLOCK).unwrap_or_default();
        moved.resize(start, 0);
        moved.extend_from_slice(self.as_slice());
        *self = Self { bytes: moved, start };
    }
}

/// The system calls whose refusal is to be seen to.
#[derive(Clone, Copy)]
struct System {
    open: fn(&Path) -> io::Result<File>,
    write: fn(&File, &[u8], u64) -> io::Result<()>,
}

const SYSTEM: System = System { open, write: File::write_all_at };

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECT | OFlags::DSYNC;
    OpenOptions::new().write(true).custom_flags(flags.bits() as i32).open(path)
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

/// Whether the files of a directory are written directly.
pub(super) struct Direct {
    system: System,
    allowed: AtomicBool,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Direct {
    pub(super) fn new(writes: LogWrites) -> Arc<Self> {
        Self::over(SYSTEM, writes)
    }

    fn over(system: System, writes: LogWrites) -> Arc<Self> {
        Arc::new(Self { system, allowed: AtomicBool::new(writes == LogWrites::Direct) })
    }

    /// Opens a file that exists for direct writes; `None` where there are none.
    pub(super) fn open(self: &Arc<Self>, path: &Path) -> io::Result<Option<DirectFile>> {
        if !self.is_allowed() {
            return Ok(None);
        }
        match (self.system.open)(path) {
            Ok(file) => Ok(Some(DirectFile { file, direct: Arc::clone(self) })),
            Err(error) if is_refusal(&error) => {
                self.refused(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn is_allowed(&self) -> bool {
        self.allowed.load(Ordering::Relaxed)
    }

    fn refused(&self, error: &io::Error) {
        if self.allowed.swap(false, Ordering::Relaxed) {
            log::warn!("this file system takes no direct writes, the log is written through the page cache: {error}");
        }
    }
}

/// A file that is written around the page cache.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: File,
    direct: Arc<Direct>,
}

impl DirectFile {
    /// Writes all of `bytes` at `at`, durably. `false`: that cannot be done so, and any part may have been written.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<bool> {
        let aligned = bytes.as_ptr().align_offset(BLOCK) == 0 && bytes.len().is_multiple_of(BLOCK);
        if !self.direct.is_allowed() || !aligned || !at.is_multiple_of(BLOCK as u64) {
            return Ok(false);
        }
        match (self.direct.system.write)(&self.file, bytes, at) {
            Ok(()) => Ok(true),
            Err(error) if is_refusal(&error) => {
                self.direct.refused(&error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the file and refuses what is written.
    const INVALID: System = System { open: open_plainly, write: |_, _, _| Err(Errno::INVAL.into()) };
    const BROKEN: System = System { open: open_plainly, write: |_, _, _| Err(Errno::IO.into()) };

    fn open_plainly(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).open(path)
    }

    fn block() -> Aligned {
        let mut block = Aligned::default();
        block.extend(&[7; BLOCK]);
        block
    }

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, [0; 2 * BLOCK]).expect("room");
        (dir, path)
    }

    #[test]
    fn bytes_stay_in_order_and_aligned_however_they_grow() {
        let (mut grown, mut plain) = (Aligned::default(), Vec::new());
        for round in 0..3 {
            for len in [1, 100, 5_000, 40_000, 0, 300_000] {
                let more = vec![len as u8 ^ round; len];
                grown.extend(&more);
                plain.extend(more);
                assert_eq!((grown.len(), grown.as_slice()), (plain.len(), plain.as_slice()));
                assert_eq!(grown.as_slice().as_ptr().align_offset(BLOCK), 0);
            }
            grown.clear();
            plain.clear();
        }
    }

    /// `comm` of a process is a file that cannot be opened so, on any system.
    #[test]
    fn a_file_system_that_refuses_the_flag_is_not_asked_again() {
        let direct = Direct::new(LogWrites::Direct);
        assert!(direct.open(Path::new("/proc/self/comm")).expect("refused, not failed").is_none());
        assert!(!direct.is_allowed());
        let (_dir, path) = file();
        assert!(direct.open(&path).expect("not opened").is_none());
    }

    #[test]
    fn a_write_that_is_refused_is_the_last_one_for_all_files() {
        let direct = Direct::over(INVALID, LogWrites::Direct);
        let (_dir, path) = file();
        let [first, second] = [0, 1].map(|_| direct.open(&path).expect("it is there").expect("it is allowed"));
        assert!(!first.write(block().as_slice(), 0).expect("refused, not failed"));
        assert!(!direct.is_allowed());
        assert!(!second.write(block().as_slice(), 0).expect("not asked"));
    }

    #[test]
    fn any_other_error_is_passed_on() {
        let direct = Direct::over(BROKEN, LogWrites::Direct);
        let (_dir, path) = file();
        let opened = direct.open(&path).expect("it is there").expect("it is allowed");
        assert!(opened.write(block().as_slice(), 0).is_err());
        assert!(direct.is_allowed(), "nothing was refused");
        assert!(direct.open(&path.with_extension("gone")).is_err());
    }

    #[test]
    fn what_is_not_aligned_is_left_to_others() {
        let direct = Direct::over(BROKEN, LogWrites::Direct);
        let (_dir, path) = file();
        let opened = direct.open(&path).expect("it is there").expect("it is allowed");
        let block = block();
        for (bytes, at) in [(&block.as_slice()[1..], 0), (&block.as_slice()[..512], 0), (block.as_slice(), 512)] {
            assert!(!opened.write(bytes, at).expect("never written"));
        }
    }
}
