//! A simulated disk as a process sees it: some of what is asked of it is counted, and when a mistake is planted, some of
//! it is not done.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use pygmy_node::disk::fs::{Fs, FsFile};
use pygmy_node::disk::record::BLOCK;
use pygmy_node::disk::segments::segment_generation;
use pygmy_node::disk::sim::{SimFile, SimFs};
use pygmy_node::disk::vote::VOTE_NAME;

use crate::mistake::Mistake;

/// What is done wrong, and what was done.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) mistake: Option<Mistake>,
    /// Segments that were put out of use and kept for another one.
    pub(super) recycled: Cell<u64>,
}

/// A directory.
#[derive(Debug, Clone)]
pub(super) struct WatchedFs {
    pub(super) fs: SimFs,
    pub(super) watch: Rc<Watch>,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Segment,
    Vote,
    /// A vote file that has not got its name.
    NewVote,
    /// A segment that is not ready.
    Filling,
}

/// A file in it.
#[derive(Debug, Clone)]
pub(super) struct WatchedFile {
    file: SimFile,
    kind: Kind,
    watch: Rc<Watch>,
}

impl WatchedFs {
    fn file(&self, name: &str, file: SimFile) -> WatchedFile {
        let kind = if segment_generation(name).is_some() {
            Kind::Segment
        } else if name == VOTE_NAME {
            Kind::Vote
        } else if name.starts_with(VOTE_NAME) {
            Kind::NewVote
        } else {
            Kind::Filling
        };
        WatchedFile { file, kind, watch: self.watch.clone() }
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.watch.mistake == Some(mistake)
    }
}

impl Fs for WatchedFs {
    type File = WatchedFile;

    fn create(&self, name: &str) -> io::Result<WatchedFile> {
        Ok(self.file(name, self.fs.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<WatchedFile> {
        Ok(self.file(name, self.fs.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let kept = segment_generation(from).is_some() && segment_generation(to).is_none();
        self.watch.recycled.set(self.watch.recycled.get() + u64::from(kept));
        self.fs.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.fs.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.fs.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.makes(Mistake::ForgetDirectory) { Ok(()) } else { self.fs.sync_dir() }
    }
}

impl WatchedFile {
    fn makes(&self, mistake: Mistake) -> bool {
        self.watch.mistake == Some(mistake)
    }
}

impl FsFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let second = self.kind == Kind::Vote && (at / BLOCK as u64) % 2 == 1;
        if second && self.makes(Mistake::TrustDamagedVote) {
            return Err(io::Error::other("planted: there is no second copy"));
        }
        self.file.read_at(buf, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        let left_out = match self.watch.mistake {
            Some(Mistake::NoticeBeforeSync) => self.kind == Kind::Segment,
            Some(Mistake::VoteBeforeSync) => self.kind == Kind::Vote,
            Some(Mistake::RenameBeforeSync) => self.kind == Kind::NewVote,
            _ => false,
        };
        if left_out {
            return Ok(());
        }
        let done = self.file.sync();
        if done.is_err() && self.makes(Mistake::RetrySync) { self.file.sync() } else { done }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}
