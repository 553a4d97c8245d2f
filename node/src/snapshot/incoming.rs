//! A snapshot that comes from another replica, part by part.
//!
//! Its parts are written under temporary names, so nothing that is there is touched before all of it has come, was read
//! and verified. Files of the ledger that this replica has already, it need not have sent to it.

use super::dir::{Staged, Temporary, snapshot_name};
use super::ledger::{has_range, ledger_number};
use super::{FileRange, Loaded, SnapshotError, SnapshotInfo, Snapshots};
use crate::disk::fs::{Fs, FsFile};

/// A file that is coming.
#[derive(Debug)]
struct Part<File> {
    range: FileRange,
    /// `None`: it was here already.
    file: Option<File>,
    /// All before this has come.
    reached: u64,
}

/// See the module's head.
#[derive(Debug)]
pub struct Incoming<F: Fs> {
    snapshots: Snapshots<F>,
    info: SnapshotInfo,
    parts: Vec<Part<F::File>>,
}

impl<F: Fs> Snapshots<F> {
    /// Begins to receive a snapshot that another replica has announced. What was left of one before is removed.
    ///
    /// # Errors
    /// What was announced cannot be a snapshot, or the system refused.
    pub fn begin_incoming(&self, info: &SnapshotInfo) -> Result<Incoming<F>, SnapshotError> {
        check(info)?;
        self.remove_temporary(Temporary::Incoming)?;
        let mut parts = Vec::with_capacity(info.files.len());
        for (index, range) in info.files.iter().cloned().enumerate() {
            let here = index > 0 && has_range(self.fs(), &range);
            let file = if here { None } else { Some(self.fs().create(&Temporary::Incoming.name(&range.name))?) };
            let reached = if here { range.len } else { 0 };
            parts.push(Part { range, file, reached });
        }
        Ok(Incoming { snapshots: self.clone(), info: info.clone(), parts })
    }
}

/// Whether the files are those of a snapshot: the names are used as file names here.
fn check(info: &SnapshotInfo) -> Result<(), SnapshotError> {
    let first = info.files.first().is_some_and(|file| file.name == snapshot_name(info.seq()));
    let numbers = info.files.iter().skip(1).map(|file| ledger_number(&file.name));
    if first && numbers.zip(1..).all(|(number, expected)| number == Some(expected)) {
        return Ok(());
    }
    Err(SnapshotError::Unusable(format!("the files announced are not those of seq {}", info.seq())))
}

impl<F: Fs> Incoming<F> {
    /// The snapshot that is coming.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// What is still to come: numbers of files, and from where on.
    pub fn wanted(&self) -> Vec<(usize, u64)> {
        let open = self.parts.iter().enumerate().filter(|(_, part)| part.reached < part.range.len);
        open.map(|(index, part)| (index, part.reached)).collect()
    }

    /// Takes a part of a file. One that has come already, or from farther on, is no error; only what goes on from where
    /// the file has got to is counted in [`Self::wanted`].
    ///
    /// # Errors
    /// It does not belong to the file, or the system refused.
    pub fn write(&mut self, index: usize, offset: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let unfit = || SnapshotError::Unusable(format!("file {index} has no such part"));
        let part = self.parts.get_mut(index).ok_or_else(unfit)?;
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= part.range.len).ok_or_else(unfit)?;
        let Some(file) = &part.file else { return Ok(()) };
        file.write_at(bytes, offset)?;
        if offset <= part.reached {
            part.reached = part.reached.max(end);
        }
        Ok(())
    }

    /// All has come: makes it durable, reads and verifies it, and only then makes it this replica's newest snapshot.
    ///
    /// # Errors
    /// It is not whole, or not newer than what is here, or the system refused. Nothing has changed then.
    pub fn finish(self) -> Result<Loaded, SnapshotError> {
        let finished = self.verify().and_then(|(loaded, staged)| self.snapshots.commit(staged).map(|()| loaded));
        if finished.is_err() {
            self.snapshots.remove_temporary(Temporary::Incoming)?;
        }
        finished
    }

    fn verify(&self) -> Result<(Loaded, Staged), SnapshotError> {
        if let Some((index, reached)) = self.wanted().first() {
            return Err(SnapshotError::Unusable(format!("file {index} has come up to byte {reached} only")));
        }
        for file in self.parts.iter().filter_map(|part| part.file.as_ref()) {
            file.sync()?;
        }
        let new = |name: &str| self.parts.iter().any(|part| part.file.is_some() && part.range.name == name);
        let temporary = |name: &str| if new(name) { Temporary::Incoming.name(name) } else { name.to_owned() };
        let loaded = self.snapshots.load_from(self.info.seq(), temporary)?;
        if loaded.info != self.info {
            return Err(SnapshotError::Unusable("it is another one than was announced".to_owned()));
        }
        let mut renames: Vec<(String, String)> = Vec::new();
        // The snapshot itself comes last.
        for part in self.parts.iter().rev().filter(|part| part.file.is_some()) {
            renames.push((Temporary::Incoming.name(&part.range.name), part.range.name.clone()));
        }
        Ok((loaded, Staged { info: self.info.clone(), renames }))
    }
}
