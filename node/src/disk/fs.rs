//! The few operations on files that the disk layer is written in.
//!
//! A promise is only as good as the order of its syncs, so the trait has no buffering, no seek position and no
//! convenience: a name is not safe before [`Fs::sync_dir`], bytes and lengths are not before [`FsFile::sync`].

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::calls::CallCounter;
use super::direct::{Direct, DirectFile, LogWrites};
use crate::local::pidfile::{self, Held, HoldError};

/// File that is locked by the process that uses a directory.
pub const LOCK_NAME: &str = "lock";

/// One directory.
pub trait Fs: Clone {
    /// Its files.
    type File: FsFile;

    /// Makes an empty file, or empties the one there is.
    ///
    /// # Errors
    /// The system refused.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// There is none ([`ErrorKind::NotFound`]), or the system refused.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file that exists and is to be written by [`FsFile::write_durably`].
    ///
    /// # Errors
    /// As [`Fs::open`].
    fn open_durable(&self, name: &str) -> io::Result<Self::File> {
        self.open(name)
    }

    /// Gives a file another name, in place of the file that has it.
    ///
    /// # Errors
    /// The system refused.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// The system refused.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in no order.
    ///
    /// # Errors
    /// The system refused.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes durable which names there are and which files they stand for.
    ///
    /// # Errors
    /// The system refused.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One open file. Clones are the same file.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait FsFile: Clone + std::fmt::Debug {
    /// Fills `buf` with the bytes at `at`.
    ///
    /// # Errors
    /// The file ends before ([`ErrorKind::UnexpectedEof`]), or the system refused.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `at`. They are not safe before [`FsFile::sync`].
    ///
    /// # Errors
    /// The system refused; any part may have been written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable.
    ///
    /// # Errors
    /// The system refused. What is on disk is unknown from then on, and a second try may lie.
    fn sync(&self) -> io::Result<()>;

    /// Writes all of `bytes` at `at`, within the file, and makes them durable. What [`FsFile::write_at`] wrote before may
    /// become so or not.
    ///
    /// # Errors
    /// The system refused. What is on disk is unknown from then on, and a second try may lie.
    fn write_durably(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_at(bytes, at)?;
        self.sync()
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// The system refused.
    fn len(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it by zeros.
    ///
    /// # Errors
    /// The system refused.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Whether `error` says that there is no space: nothing is broken, and it passes when space is made.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Why a directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another process uses it.
    #[error("{}: process {pid} uses this directory; stop it first, or name another directory", path.display())]
    Taken {
        /// The directory.
        path: PathBuf,
        /// The process.
        pid: i32,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A directory of the system, held by this process until the last clone is gone.
#[derive(Debug, Clone)]
pub struct RealFs {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    directory: File,
    direct: Arc<Direct>,
    calls: Arc<CallCounter>,
    _lock: Held,
}

impl RealFs {
    /// Takes the directory at `path`, which is made if it does not exist.
    ///
    /// # Errors
    /// Another process uses it, or the system refused.
    pub fn open(path: &Path, writes: LogWrites) -> Result<Self, DirError> {
        let broken = |source| DirError::Io { path: path.to_owned(), source };
        make_dir(path).map_err(broken)?;
        let directory = File::open(path).map_err(broken)?;
        let lock = pidfile::hold(&path.join(LOCK_NAME)).map_err(|error| match error {
            HoldError::Taken(pid) => DirError::Taken { path: path.to_owned(), pid },
            HoldError::Io(source) => DirError::Io { path: path.to_owned(), source },
        })?;
        Ok(Self {
            root: Arc::new(Root {
                path: path.to_owned(),
                directory,
                direct: Direct::new(writes),
                calls: Arc::default(),
                _lock: lock,
            }),
        })
    }

    /// Where the calls are counted that are made for its files.
    pub fn calls(&self) -> &Arc<CallCounter> {
        &self.root.calls
    }

    fn file(&self, file: File) -> RealFile {
        // One to open it, one to close it again some day.
        self.root.calls.add(2);
        RealFile { file: Arc::new(file), direct: None, calls: Arc::clone(&self.root.calls) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path.join(name)
    }
}

/// A new directory's own name must be safe before the files in it can be.
fn make_dir(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

impl Fs for RealFs {
    type File = RealFile;

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path(name))?;
        Ok(self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
        Ok(self.file(file))
    }

    fn open_durable(&self, name: &str) -> io::Result<RealFile> {
        let direct = self.root.direct.open(&self.path(name))?.map(Arc::new);
        self.root.calls.add(2);
        Ok(RealFile { direct, ..self.open(name)? })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.root.calls.add(1);
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.root.calls.add(1);
        std::fs::remove_file(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.root.path)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.root.calls.add_sync();
        self.root.directory.sync_all()
    }
}

/// A directory that is only read, whoever else uses it.
#[derive(Debug, Clone)]
pub struct ReadOnlyFs(PathBuf);

impl ReadOnlyFs {
    /// The directory at `path`.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Fs for ReadOnlyFs {
    type File = RealFile;

    fn create(&self, _name: &str) -> io::Result<RealFile> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        RealFile::read_only(&self.0.join(name))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.0)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }
}

fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        // A name that is not text was not made here.
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// A file of the system.
#[derive(Debug, Clone)]
pub struct RealFile {
    file: Arc<File>,
    direct: Option<Arc<DirectFile>>,
    calls: Arc<CallCounter>,
}

impl RealFile {
    fn of(file: File) -> Self {
        Self { file: Arc::new(file), direct: None, calls: Arc::default() }
    }

    /// Opens a file to be read only, whoever else uses it.
    ///
    /// # Errors
    /// The system refused.
    pub fn read_only(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self::of)
    }
}

impl FsFile for RealFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.calls.add(1);
        self.file.read_exact_at(buf, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.calls.add_write(bytes.len());
        self.file.write_all_at(bytes, at)
    }

    /// Times of change are not promised to anybody, so that a prewritten file costs no journal of the file system.
    fn sync(&self) -> io::Result<()> {
        self.calls.add_sync();
        self.file.sync_data()
    }

    fn write_durably(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if let Some(direct) = &self.direct
            && direct.write(bytes, at)?
        {
            self.calls.add_durable_write(bytes.len());
            return Ok(());
        }
        self.write_at(bytes, at)?;
        self.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.calls.add(1);
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.calls.add(1);
        self.file.set_len(len)
    }
}
