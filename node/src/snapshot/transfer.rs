//! The file work of transfers, which no event loop may wait for: reading parts for peers, and writing, verifying and
//! loading what peers give. Each piece of work is a [`Job`] and is answered by a [`Done`]; who carries them out, threads
//! or a simulator, takes them one after the other.

use std::io;

use bytes::Bytes;
use pygmy_proto::message::{SnapshotFetch, SnapshotFile, SnapshotHead, SnapshotPart, SnapshotRefusal, SnapshotRefused};
use pygmy_proto::types::{Blob, Bounded, Text};

use super::{Incoming, Loaded, SnapshotError, SnapshotInfo, Snapshots};
use crate::disk::fs::Fs;

/// Work with the files of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Read a part for a peer. Answered by [`Done::Read`].
    Read {
        /// For which node.
        node: u16,
        /// What it asks for.
        fetch: SnapshotFetch,
    },
    /// Begin to receive this snapshot, in place of any other. Answered by [`Done::Begun`].
    Begin {
        /// Number of the transfer.
        number: u64,
        /// The snapshot.
        info: SnapshotInfo,
    },
    /// Write a part of it. Answered by [`Done::Written`].
    Write {
        /// Number of the transfer.
        number: u64,
        /// Which file.
        file: u32,
        /// Where in it.
        offset: u64,
        /// The part.
        bytes: Bytes,
    },
    /// All parts were given: make it durable, verify it, load it. Answered by [`Done::Loaded`].
    Finish {
        /// Number of the transfer.
        number: u64,
    },
    /// Nothing more comes of this transfer. Not answered.
    Drop {
        /// Its number.
        number: u64,
    },
}

/// Why a transfer cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The disk here is full.
    Full,
    /// What came is no snapshot, or it cannot be begun or read here.
    Unusable(String),
    /// A file could not be written or made durable, or got no name. What the disk holds is unknown then, so the process
    /// must end.
    Fatal(String),
}

/// What became of a [`Job`].
#[derive(Debug)]
pub enum Done {
    /// A part for a peer was read, or why not.
    Read {
        /// For which node.
        node: u16,
        /// What to tell it.
        answer: Result<SnapshotPart, SnapshotRefused>,
    },
    /// The transfer has begun.
    Begun {
        /// Its number.
        number: u64,
        /// Which files are to come, and from where on.
        wanted: Vec<(usize, u64)>,
    },
    /// The part given last is written.
    Written {
        /// Number of the transfer.
        number: u64,
    },
    /// The snapshot is this replica's newest, durably.
    Loaded {
        /// Number of the transfer.
        number: u64,
        /// What it contains.
        loaded: Box<Loaded>,
    },
    /// The transfer has failed, and nothing of it is left.
    Failed {
        /// Its number.
        number: u64,
        /// Why.
        failure: Failure,
    },
}

/// The answer of a node that keeps no files.
pub fn without_files(job: &Job) -> Option<Done> {
    match *job {
        Job::Read { node, fetch: SnapshotFetch { seq, file, offset, .. } } => {
            let refused = SnapshotRefused { seq, file, offset, why: SnapshotRefusal::Gone, newest: 0 };
            Some(Done::Read { node, answer: Err(refused) })
        }
        Job::Begin { number, .. } | Job::Write { number, .. } | Job::Finish { number } => {
            let failure = Failure::Unusable("this node keeps no files".to_owned());
            Some(Done::Failed { number, failure })
        }
        Job::Drop { .. } => None,
    }
}

/// Reads what `fetch` asks for.
pub fn read<F: Fs>(snapshots: &Snapshots<F>, node: u16, fetch: &SnapshotFetch) -> Done {
    let answer = read_part(snapshots, fetch).map_err(|why| {
        let newest = snapshots.newest().map_or(0, |info| info.seq());
        SnapshotRefused { seq: fetch.seq, file: fetch.file, offset: fetch.offset, why, newest }
    });
    Done::Read { node, answer }
}

fn read_part<F: Fs>(snapshots: &Snapshots<F>, fetch: &SnapshotFetch) -> Result<SnapshotPart, SnapshotRefusal> {
    let found = if fetch.seq == 0 { snapshots.newest() } else { snapshots.find(fetch.seq) };
    let info = found.ok_or(SnapshotRefusal::Gone)?;
    let unreadable = SnapshotRefusal::Unreadable;
    let file = info.files.get(fetch.file as usize).ok_or(unreadable)?;
    let len = file.len.checked_sub(fetch.offset).ok_or(unreadable)?.min(fetch.len.into());
    let bytes = snapshots.read(&file.name, fetch.offset, len as usize).map_err(|error| refusal(&file.name, &error))?;
    let head = if fetch.seq == 0 { Some(head(&info).ok_or(unreadable)?) } else { None };
    let bytes = Blob::new(bytes).ok_or(unreadable)?;
    Ok(SnapshotPart { seq: info.seq(), head, file: fetch.file, offset: fetch.offset, bytes })
}

fn refusal(name: &str, error: &io::Error) -> SnapshotRefusal {
    // A newer snapshot may have taken its place between two looks.
    if error.kind() == io::ErrorKind::NotFound {
        return SnapshotRefusal::Gone;
    }
    log::error!("{name} cannot be read for another replica: {error}");
    SnapshotRefusal::Unreadable
}

/// What to tell of a snapshot; `None` when it has more files than can be told of.
fn head(info: &SnapshotInfo) -> Option<SnapshotHead> {
    let file =
        |file: &super::FileRange| Some(SnapshotFile { name: Text::new(&file.name)?, len: file.len, hash: file.hash });
    let files = Bounded::new(info.files.iter().map(file).collect::<Option<Vec<_>>>()?).ok()?;
    Some(SnapshotHead { epoch: info.mark.epoch, entry_hash: info.mark.hash, files })
}

/// Carries out the jobs of receiving.
#[derive(Debug)]
pub struct Receiving<F: Fs> {
    snapshots: Snapshots<F>,
    incoming: Option<(u64, Incoming<F>)>,
}

impl<F: Fs> Receiving<F> {
    /// Into these snapshots.
    pub fn new(snapshots: Snapshots<F>) -> Self {
        Self { snapshots, incoming: None }
    }

    /// Carries out one job; what became of it, if that is to be told.
    pub fn run(&mut self, job: Job) -> Option<Done> {
        match job {
            Job::Read { node, fetch } => Some(read(&self.snapshots, node, &fetch)),
            Job::Begin { number, info } => Some(self.begin(number, &info)),
            Job::Write { number, file, offset, bytes } => self.write(number, file, offset, &bytes),
            Job::Finish { number } => self.finish(number),
            Job::Drop { number } => {
                self.incoming.take_if(|(own, _)| *own == number);
                None
            }
        }
    }

    fn begin(&mut self, number: u64, info: &SnapshotInfo) -> Done {
        self.incoming = None;
        match self.snapshots.begin_incoming(info) {
            Ok(incoming) => {
                let wanted = incoming.wanted();
                self.incoming = Some((number, incoming));
                Done::Begun { number, wanted }
            }
            // Nothing was written yet.
            Err(error) if !error.is_full() => Done::Failed { number, failure: Failure::Unusable(error.to_string()) },
            Err(_) => Done::Failed { number, failure: Failure::Full },
        }
    }

    fn write(&mut self, number: u64, file: u32, offset: u64, bytes: &[u8]) -> Option<Done> {
        let (_, incoming) = self.incoming.as_mut().filter(|(own, _)| *own == number)?;
        let written = incoming.write(file as usize, offset, bytes);
        Some(match written {
            Ok(()) => Done::Written { number },
            Err(error) => {
                self.incoming = None;
                Done::Failed { number, failure: failure(&error) }
            }
        })
    }

    fn finish(&mut self, number: u64) -> Option<Done> {
        let (_, incoming) = self.incoming.take_if(|(own, _)| *own == number)?;
        Some(match incoming.finish() {
            Ok(loaded) => Done::Loaded { number, loaded: Box::new(loaded) },
            Err(error) => Done::Failed { number, failure: failure(&error) },
        })
    }
}

/// Why writing what came, or making it this replica's, has failed.
fn failure(error: &SnapshotError) -> Failure {
    match error {
        _ if error.is_full() => Failure::Full,
        SnapshotError::Io(error) => {
            Failure::Fatal(format!("a snapshot that was received could not be written: {error}"))
        }
        _ => Failure::Unusable(error.to_string()),
    }
}
