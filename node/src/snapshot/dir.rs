//! The snapshots in a directory.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pygmy_ring::{Checkpoint, Sessions, StateMachine};

use super::chunks::{ChunkReader, ChunkWriter, FileError};
use super::head::{Head, mark_of};
use super::ledger::{self, LEDGER_FILE_BYTES, ledger_number};
use super::{FileRange, Image, SnapshotInfo, SnapshotOrder, state};
use crate::disk::fs::{Fs, FsFile, is_full};
use crate::store::{Ledger, Orders, Store};

pub(super) const MAGIC: [u8; 4] = *b"PYSN";
pub(super) const VERSION: u8 = 1;
const SNAPSHOT: &str = "snapshot-";
/// How many are kept.
const KEPT: usize = 2;

/// Whose a temporary file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temporary {
    /// Of the snapshot that is being taken.
    Building,
    /// Of the one that comes from another replica.
    Incoming,
}

impl Temporary {
    const ALL: [Self; 2] = [Self::Building, Self::Incoming];

    fn prefix(self) -> &'static str {
        match self {
            Self::Building => "building-",
            Self::Incoming => "incoming-",
        }
    }

    /// The name that the file called `name` has until it is whole.
    pub(super) fn name(self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }
}

/// Whether a file of this name is one that no whole snapshot has anything of yet.
pub fn is_temporary(name: &str) -> bool {
    Temporary::ALL.iter().any(|kind| name.starts_with(kind.prefix()))
}

/// The name of the snapshot that goes up to `seq`.
pub fn snapshot_name(seq: u64) -> String {
    format!("{SNAPSHOT}{seq:016x}")
}

/// The position up to which the snapshot with this name goes.
pub fn snapshot_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SNAPSHOT)?;
    u64::from_str_radix(digits, 16).ok().filter(|&seq| snapshot_name(seq) == name)
}

/// How snapshots are kept. Equal on all replicas of a cluster, so that their files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Bytes at which a file of the ledger is not added to any more.
    pub ledger_file_bytes: u64,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { ledger_file_bytes: LEDGER_FILE_BYTES }
    }
}

/// Why there is no snapshot to be had, or to be kept.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is none of that seq.
    #[error("there is no snapshot of seq {0}")]
    Unknown(u64),
    /// A newer one came first.
    #[error("there is a newer snapshot, of seq {0}")]
    Superseded(u64),
    /// What another replica sent is not what it had announced.
    #[error("the snapshot that was received cannot be used: {0}")]
    Unusable(String),
}

impl SnapshotError {
    /// Whether there was no room: nothing is broken, and it passes when there is some.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io(error) | Self::File(FileError::Io { source: error, .. }) => is_full(error),
            _ => false,
        }
    }

    /// Whether the files are those of another version of this program.
    pub fn is_version(&self) -> bool {
        matches!(self, Self::File(FileError::Version { .. }))
    }
}

/// A snapshot in memory.
#[derive(Debug)]
pub struct Loaded {
    /// Its files.
    pub info: SnapshotInfo,
    /// The entry that it is of.
    pub checkpoint: Checkpoint,
    /// The store there.
    pub store: Store,
    /// The sessions there.
    pub sessions: Sessions,
}

/// What is in the directory.
#[derive(Debug, Default)]
struct Shared {
    /// Those that can be used, oldest first.
    kept: Vec<SnapshotInfo>,
    /// Those that cannot, by their seq.
    damaged: Vec<u64>,
}

/// The snapshots in a directory. Clones are the same; they may be used by several threads.
#[derive(Debug, Clone)]
pub struct Snapshots<F: Fs> {
    fs: F,
    options: SnapshotOptions,
    shared: Arc<Mutex<Shared>>,
}

/// A new snapshot under temporary names.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) info: SnapshotInfo,
    /// Temporary name and name of each file that is not there yet; the snapshot itself is the last.
    pub(super) renames: Vec<(String, String)>,
}

impl<F: Fs> Snapshots<F> {
    /// Finds the snapshots, and removes what was left over from one that was never whole.
    ///
    /// # Errors
    /// The system refused, or one is of another version.
    pub fn open(fs: F, options: SnapshotOptions) -> Result<Self, SnapshotError> {
        let found = Self { fs, options, shared: Arc::default() };
        for kind in Temporary::ALL {
            found.remove_temporary(kind)?;
        }
        let mut names = found.fs.list()?;
        names.sort_unstable();
        let mut shared = found.lock();
        for seq in names.iter().filter_map(|name| snapshot_seq(name)) {
            match found.head(seq).map_err(SnapshotError::from) {
                Ok(head) => {
                    let len = found.fs.open(&snapshot_name(seq))?.len()?;
                    shared.kept.push(info_of(&head, len));
                }
                Err(error) if error.is_version() => return Err(error),
                Err(error) => {
                    log::error!("a snapshot cannot be used: {error}");
                    shared.damaged.push(seq);
                }
            }
        }
        drop(shared);
        Ok(found)
    }

    /// The newest that can be used.
    pub fn newest(&self) -> Option<SnapshotInfo> {
        self.lock().kept.last().cloned()
    }

    /// The one that goes up to `seq`, if it can be used.
    pub fn find(&self, seq: u64) -> Option<SnapshotInfo> {
        self.lock().kept.iter().find(|info| info.seq() == seq).cloned()
    }

    /// Those that can be used, oldest first.
    pub fn all(&self) -> Vec<SnapshotInfo> {
        self.lock().kept.clone()
    }

    /// Positions of those that were found and cannot be used.
    pub fn damaged(&self) -> Vec<u64> {
        self.lock().damaged.clone()
    }

    /// The first position that the log must still have: the one behind the older snapshot. `None`: all of it.
    pub fn cut_below(&self) -> Option<u64> {
        match self.lock().kept.as_slice() {
            [older, _, ..] => Some(older.seq() + 1),
            _ => None,
        }
    }

    /// The files are in this directory.
    pub(super) fn fs(&self) -> &F {
        &self.fs
    }

    /// Bytes of a snapshot's file, for another replica.
    ///
    /// # Errors
    /// There is no such file (any more), it ends before, or the system refused.
    pub fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        if snapshot_seq(name).is_none() && ledger_number(name).is_none() {
            return Err(io::Error::new(ErrorKind::NotFound, format!("{name:?} is no file of a snapshot")));
        }
        let file = self.fs.open(name)?;
        if offset.checked_add(len as u64).is_none_or(|end| file.len().is_ok_and(|len| end > len)) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// Reads and verifies one.
    ///
    /// # Errors
    /// There is none, it is damaged, or the system refused.
    pub fn load(&self, seq: u64) -> Result<Loaded, SnapshotError> {
        if !self.lock().kept.iter().any(|info| info.seq() == seq) {
            return Err(SnapshotError::Unknown(seq));
        }
        Ok(self.load_from(seq, str::to_owned)?)
    }

    /// Whether the snapshot of `seq` in `fs` and the files of the ledger that it names are whole and give the state that
    /// it says. Changes nothing.
    ///
    /// # Errors
    /// What is wrong.
    pub fn verify(fs: F, seq: u64) -> Result<(), SnapshotError> {
        let unopened = Self { fs, options: SnapshotOptions::default(), shared: Arc::default() };
        unopened.load_from(seq, str::to_owned)?;
        Ok(())
    }

    /// Reads the newest that is whole. Those that are damaged are told of and not used again.
    ///
    /// # Errors
    /// One is of another version.
    pub fn load_newest(&self) -> Result<Option<Loaded>, SnapshotError> {
        while let Some(info) = self.newest() {
            match self.load(info.seq()) {
                Ok(loaded) => return Ok(Some(loaded)),
                Err(error) if error.is_version() => return Err(error),
                Err(error) => self.give_up(info.seq(), &error),
            }
        }
        Ok(None)
    }

    fn give_up(&self, seq: u64, error: &SnapshotError) {
        log::error!("the snapshot of seq {seq} cannot be used, an older one and the log must do: {error}");
        let mut shared = self.lock();
        shared.kept.retain(|info| info.seq() != seq);
        shared.damaged.push(seq);
    }

    fn head(&self, seq: u64) -> Result<Head, FileError> {
        let name = snapshot_name(seq);
        self.open_chunks(&name, seq).map(|(_, head)| head)
    }

    fn open_chunks(&self, name: &str, seq: u64) -> Result<(ChunkReader<F::File>, Head), FileError> {
        let file = self.fs.open(name).map_err(FileError::io(name))?;
        let (reader, head) = ChunkReader::new(name, file, MAGIC, VERSION)?;
        let head = Head::decode(&head).map_err(|error| reader.damaged(error.to_string()))?;
        if head.mark().seq != seq {
            return Err(reader.damaged(format!("it is of seq {}", head.mark().seq)));
        }
        Ok((reader, head))
    }

    /// Reads and verifies the snapshot of `seq`, whose files have the names that `named` gives them.
    pub(super) fn load_from(&self, seq: u64, named: impl Fn(&str) -> String) -> Result<Loaded, FileError> {
        let name = named(&snapshot_name(seq));
        let (mut reader, head) = self.open_chunks(&name, seq)?;
        let (catalog, sessions) = state::read(&mut reader, &head)?;
        let len = reader.len();
        let wrong = |why: String| FileError::damaged(&name, len, why);
        reader.finish()?;
        let mut ledger = Ledger::default();
        for file in &head.ledger {
            ledger::read_file(&self.fs, file, &named(&file.name), &mut ledger)?;
        }
        if ledger.len() as u64 != head.orders {
            return Err(wrong(format!("it names {} orders, the ledger's files have {}", head.orders, ledger.len())));
        }
        let store = Store::from_parts(catalog, ledger);
        let hash = store.state_hash().wrapping_add(sessions.state_hash());
        if hash != head.state_hash {
            return Err(wrong(format!("its state hashes to {hash:016x}, it should to {:016x}", head.state_hash)));
        }
        Ok(Loaded { info: info_of(&head, len), checkpoint: head.at, store, sessions })
    }

    /// The ledger's files that the newest snapshot names and how many orders are in them, as far as the next one can go
    /// on from there: otherwise none, and it writes them all anew.
    fn ledger_so_far(&self, orders: &Orders) -> (Vec<FileRange>, usize) {
        let head = self.newest().and_then(|newest| self.head(newest.seq()).ok());
        let Some(head) = head.filter(|head| head.orders <= orders.len() as u64) else { return Default::default() };
        // The last one is read when it is added to; the others are read when a process starts.
        let is_whole = head.ledger.iter().all(|file| ledger::has_len(&self.fs, file))
            && head.ledger.last().is_none_or(|last| ledger::has_range(&self.fs, last));
        if !is_whole {
            log::error!("the ledger's files are not what the newest snapshot says: they are written anew");
            return Default::default();
        }
        (head.ledger, head.orders as usize)
    }

    /// Writes a snapshot under temporary names, durably.
    pub(super) fn stage(&self, order: &SnapshotOrder) -> Result<Staged, SnapshotError> {
        let temporary = |name: &str| Temporary::Building.name(name);
        let Image { catalog, orders, sessions } = &order.image;
        let before = self.ledger_so_far(orders);
        let written = ledger::write(&self.fs, orders, before, self.options.ledger_file_bytes, temporary)?;
        let head = Head {
            at: order.at.clone(),
            state_hash: order.state_hash,
            books: catalog.len() as u64,
            sessions: sessions.len() as u64,
            orders: orders.len() as u64,
            ledger: written.files,
        };
        let name = snapshot_name(mark_of(&order.at).seq);
        let temp = temporary(&name);
        let file = self.fs.create(&temp)?;
        let mut out = ChunkWriter::new(file, MAGIC, VERSION, &head.encode())?;
        state::write(&mut out, catalog, sessions)?;
        let len = out.finish()?;
        let mut renames = written.renames;
        renames.push((temp, name));
        Ok(Staged { info: info_of(&head, len), renames })
    }

    /// Gives the files of a whole and durable snapshot their names, and removes the snapshots that it replaces.
    pub(super) fn commit(&self, staged: Staged) -> Result<(), SnapshotError> {
        // Held throughout: of two that come at once the older one must not take the ledger's files back.
        let mut shared = self.lock();
        let seq = staged.info.seq();
        if let Some(newest) = shared.kept.last().filter(|newest| newest.seq() >= seq) {
            return Err(SnapshotError::Superseded(newest.seq()));
        }
        if let Some(((temp, name), ledger)) = staged.renames.split_last() {
            for (temp, name) in ledger {
                self.fs.rename(temp, name)?;
            }
            // What the snapshot refers to must be there before it is.
            self.fs.sync_dir()?;
            self.fs.rename(temp, name)?;
            self.fs.sync_dir()?;
        }
        shared.kept.push(staged.info);
        let excess = shared.kept.len().saturating_sub(KEPT);
        let replaced: Vec<u64> = shared.kept.drain(..excess).map(|info| info.seq()).collect();
        let damaged = std::mem::take(&mut shared.damaged);
        for gone in replaced.into_iter().chain(damaged).filter(|gone| *gone != seq) {
            self.fs.remove(&snapshot_name(gone))?;
        }
        Ok(())
    }

    /// Removes what a snapshot that was never whole has left.
    pub(super) fn remove_temporary(&self, kind: Temporary) -> io::Result<()> {
        let names = self.fs.list()?;
        for name in names.iter().filter(|name| name.starts_with(kind.prefix())) {
            self.fs.remove(name)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // What is in it is changed by single steps, so a thread that panicked left nothing half done.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn info_of(head: &Head, len: u64) -> SnapshotInfo {
    let own = FileRange { name: snapshot_name(head.mark().seq), len, hash: 0 };
    SnapshotInfo { mark: head.mark(), files: std::iter::once(own).chain(head.ledger.iter().cloned()).collect() }
}
