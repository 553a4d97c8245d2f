//! A disk that exists in memory and misbehaves on command, always in the same way for the same seed.
//!
//! Written bytes are seen by every reader at once, as through a page cache, and are on the platter only after a sync.
//! When the power fails ([`SimFs::crash`]), each sector of 512 bytes that was not synced is kept or lost by itself;
//! the names made since the last `sync_dir` are lost from a random point on, as a journal loses them. When only the
//! process ends ([`SimFs::kill`]), the page cache stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fs::{Fs, FsFile};

/// What the disk writes or loses as a whole.
pub const SECTOR: usize = 512;

/// The disk of one node. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
    boot: u64,
}

#[derive(Debug, Default)]
struct Disk {
    /// Handles of another boot are dead, as their process is.
    boot: u64,
    names: Names,
    /// The names on the platter.
    safe_names: Names,
    /// What turns the one into the other, in order.
    renamings: Vec<Renaming>,
    faults: Faults,
    writes: u64,
    syncs: u64,
}

type Names = BTreeMap<String, Shared>;
type Shared = Arc<Mutex<Inode>>;

#[derive(Debug, Clone)]
enum Renaming {
    Set(String, Shared),
    Move(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct Faults {
    /// Operations left until the power is off.
    power: Option<u64>,
    /// Writes left until one fails.
    write: Option<u64>,
    /// Syncs left until one fails.
    sync: Option<u64>,
    /// Sectors that cannot be read.
    unreadable: BTreeSet<(String, u64)>,
    /// Bytes that all files together may have.
    budget: Option<u64>,
}

#[derive(Debug, Default)]
struct Inode {
    live: Vec<u8>,
    safe: Vec<u8>,
    /// Sectors in which they may differ.
    dirty: BTreeSet<usize>,
}

impl Inode {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    /// Brings one sector to the platter.
    fn settle(&mut self, sector: usize) {
        let from = sector * SECTOR;
        let to = (from + SECTOR).min(self.live.len());
        if from >= to {
            return;
        }
        if self.safe.len() < to {
            self.safe.resize(to, 0);
        }
        self.safe[from..to].copy_from_slice(&self.live[from..to]);
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.settle(sector);
        }
        self.safe.resize(self.live.len(), 0);
    }

    /// A sync that failed: some of it reached the platter, and nobody will be told which.
    fn sync_badly(&mut self, random: &mut Random) {
        for sector in std::mem::take(&mut self.dirty) {
            if random.coin() {
                self.settle(sector);
            }
        }
    }

    fn crash(&mut self, random: &mut Random) {
        let shorter = self.live.len() < self.safe.len();
        self.sync_badly(random);
        if shorter && random.coin() {
            self.safe.truncate(self.live.len());
        }
        self.live.clone_from(&self.safe);
    }
}

/// A small generator of even quality, so that the disk needs no dependency. (SplitMix64.)
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

/// Counts an injected fault down; whether it strikes now. It strikes once.
fn strikes(fault: &mut Option<u64>) -> bool {
    match fault {
        Some(0) => {
            *fault = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

fn power_off() -> Error {
    Error::other("the power is off")
}

impl Disk {
    /// Called at the start of every operation that changes something. `true`: it is the one in which the power goes.
    fn step(&mut self) -> io::Result<bool> {
        match &mut self.faults.power {
            None => Ok(false),
            Some(0) => Err(power_off()),
            Some(left) => {
                *left -= 1;
                Ok(*left == 0)
            }
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| lock(inode).live.len() as u64).sum()
    }

    /// Whether a file may grow by so many bytes.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        match self.faults.budget {
            Some(budget) if bytes > 0 && self.used() + bytes > budget => {
                Err(Error::new(ErrorKind::StorageFull, "the simulated disk is full"))
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, renaming: Renaming) {
        apply(&mut self.names, &renaming);
        self.renamings.push(renaming);
    }

    fn existing(&self, name: &str) -> io::Result<Shared> {
        self.names.get(name).cloned().ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no file {name:?}")))
    }
}

fn apply(names: &mut Names, renaming: &Renaming) {
    match renaming {
        Renaming::Set(name, inode) => {
            names.insert(name.clone(), inode.clone());
        }
        Renaming::Move(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Renaming::Remove(name) => {
            names.remove(name);
        }
    }
}

/// A test that panicked elsewhere must not hide behind a second panic here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimFs {
    /// An empty disk.
    pub fn new() -> Self {
        Self { disk: Arc::default(), boot: 0 }
    }

    /// The power fails and comes back: what is not synced is kept or lost at random, injected faults are gone, and
    /// all handles are dead but the one returned.
    pub fn crash(&self, seed: u64) -> Self {
        let mut disk = lock(&self.disk);
        let mut random = Random(seed);
        let kept = random.next() as usize % (disk.renamings.len() + 1);
        let renamings = std::mem::take(&mut disk.renamings);
        for renaming in &renamings[..kept] {
            apply(&mut disk.safe_names, renaming);
        }
        disk.names = disk.safe_names.clone();
        for inode in disk.names.values() {
            lock(inode).crash(&mut random);
        }
        self.reboot(&mut disk)
    }

    /// The process ends and the system goes on: nothing is lost, nothing is synced, and all handles are dead but the
    /// one returned.
    pub fn kill(&self) -> Self {
        self.reboot(&mut lock(&self.disk))
    }

    fn reboot(&self, disk: &mut Disk) -> Self {
        disk.boot += 1;
        disk.faults = Faults { budget: disk.faults.budget, ..Faults::default() };
        Self { disk: self.disk.clone(), boot: disk.boot }
    }

    /// The power goes during the `count`th change from now on, which may happen in part; later ones do not.
    pub fn power_off_after(&self, count: u64) {
        lock(&self.disk).faults.power = Some(count);
    }

    /// The write after `count` more fails, once.
    pub fn fail_write_after(&self, count: u64) {
        lock(&self.disk).faults.write = Some(count);
    }

    /// The sync after `count` more fails, once. What it should have made durable is durable in part, and counts as
    /// clean: a second sync says nothing about it.
    pub fn fail_sync_after(&self, count: u64) {
        lock(&self.disk).faults.sync = Some(count);
    }

    /// All files together may have this many bytes; `None`: as many as they like.
    pub fn set_budget(&self, bytes: Option<u64>) {
        lock(&self.disk).faults.budget = bytes;
    }

    /// The sector at `offset` of a file cannot be read until the next boot.
    pub fn fail_read(&self, name: &str, offset: u64) {
        lock(&self.disk).faults.unreadable.insert((name.to_owned(), offset / SECTOR as u64));
    }

    /// Flips bits on the platter and in the cache. Nothing happens beyond the end of the file.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) {
        if let Some(inode) = lock(&self.disk).names.get(name) {
            let mut inode = lock(inode);
            let inode = &mut *inode;
            for bytes in [&mut inode.live, &mut inode.safe] {
                if let Some(byte) = bytes.get_mut(offset as usize) {
                    *byte ^= mask;
                }
            }
        }
    }

    /// Faults that were injected and have not struck yet never will. A full disk stays full.
    pub fn mend(&self) {
        let mut disk = lock(&self.disk);
        disk.faults = Faults { budget: disk.faults.budget, ..Faults::default() };
    }

    /// Bytes that all files together have.
    pub fn used(&self) -> u64 {
        lock(&self.disk).used()
    }

    /// The bytes of a file that are surely on the platter: `None` where no file has this name.
    pub fn platter(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.disk).names.get(name).map(|inode| lock(inode).safe.clone())
    }

    /// The bytes of a file as its readers see them.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.disk).names.get(name).map(|inode| lock(inode).live.clone())
    }

    /// Puts a file on the platter, name and all.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let inode = Inode { live: bytes.to_vec(), safe: bytes.to_vec(), dirty: BTreeSet::new() };
        let inode = Arc::new(Mutex::new(inode));
        let mut disk = lock(&self.disk);
        disk.names.insert(name.to_owned(), inode.clone());
        disk.safe_names.insert(name.to_owned(), inode);
    }

    /// A disk of its own with the same files, all of them on the platter.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        for (name, inode) in &lock(&self.disk).names {
            copy.put(name, &lock(inode).live);
        }
        copy
    }

    /// A disk of its own with the files that would be found if the power failed now. This one goes on.
    pub fn copy_after_crash(&self, seed: u64) -> Self {
        let copy = Self::new();
        let disk = lock(&self.disk);
        let mut random = Random(seed);
        let mut names = disk.safe_names.clone();
        let kept = random.next() as usize % (disk.renamings.len() + 1);
        disk.renamings[..kept].iter().for_each(|renaming| apply(&mut names, renaming));
        for (name, inode) in &names {
            let inode = lock(inode);
            let mut left = Inode { live: inode.live.clone(), safe: inode.safe.clone(), dirty: inode.dirty.clone() };
            left.crash(&mut random);
            copy.put(name, &left.live);
        }
        copy
    }

    /// How many writes and syncs there were.
    pub fn counts(&self) -> (u64, u64) {
        let disk = lock(&self.disk);
        (disk.writes, disk.syncs)
    }

    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = lock(&self.disk);
        if disk.boot == self.boot { Ok(disk) } else { Err(Error::other("this process has ended")) }
    }

    fn file(&self, name: &str, inode: Shared) -> SimFile {
        SimFile { fs: self.clone(), name: name.to_owned(), inode }
    }
}

impl Fs for SimFs {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut disk = self.disk()?;
        disk.step()?;
        let inode = Shared::default();
        disk.change(Renaming::Set(name.to_owned(), inode.clone()));
        Ok(self.file(name, inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = self.disk()?.existing(name)?;
        Ok(self.file(name, inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.step()?;
        disk.existing(from)?;
        disk.change(Renaming::Move(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.step()?;
        disk.existing(name)?;
        disk.change(Renaming::Remove(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk()?.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk()?;
        if disk.step()? {
            return Err(power_off());
        }
        disk.syncs += 1;
        if strikes(&mut disk.faults.sync) {
            return Err(Error::other("injected: the directory could not be synced"));
        }
        disk.renamings.clear();
        disk.safe_names = disk.names.clone();
        Ok(())
    }
}

/// A file of a simulated disk.
#[derive(Debug, Clone)]
pub struct SimFile {
    fs: SimFs,
    /// The name under which it was opened; read faults are injected by it.
    name: String,
    inode: Shared,
}

impl FsFile for SimFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let disk = self.fs.disk()?;
        let first = (self.name.clone(), at / SECTOR as u64);
        let end = (self.name.clone(), (at + buf.len() as u64).div_ceil(SECTOR as u64));
        if disk.faults.unreadable.range(first..end).next().is_some() {
            return Err(Error::other("injected: a sector could not be read"));
        }
        let inode = lock(&self.inode);
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = inode.live.get(from..from.saturating_add(buf.len())).ok_or(ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut disk = self.fs.disk()?;
        let last = disk.step()?;
        disk.writes += 1;
        let from = at as usize;
        let to = from + bytes.len();
        let now = lock(&self.inode).live.len();
        disk.reserve(to.saturating_sub(now) as u64)?;
        let fails = strikes(&mut disk.faults.write);
        let mut inode = lock(&self.inode);
        if now < to {
            inode.live.resize(to, 0);
            inode.touch(now, to);
        }
        inode.live[from..to].copy_from_slice(bytes);
        inode.touch(from, to);
        match (last, fails) {
            (true, _) => Err(power_off()),
            (_, true) => Err(Error::other("injected: a write failed")),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.fs.disk()?;
        if disk.step()? {
            return Err(power_off());
        }
        disk.syncs += 1;
        let mut inode = lock(&self.inode);
        if strikes(&mut disk.faults.sync) {
            inode.sync_badly(&mut Random(disk.syncs));
            return Err(Error::other("injected: a sync failed"));
        }
        inode.sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let _alive = self.fs.disk()?;
        Ok(lock(&self.inode).live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.fs.disk()?;
        disk.step()?;
        let now = lock(&self.inode).live.len();
        let len = len as usize;
        disk.reserve(len.saturating_sub(now) as u64)?;
        let mut inode = lock(&self.inode);
        inode.live.resize(len, 0);
        inode.touch(now.min(len), now.max(len));
        Ok(())
    }
}
