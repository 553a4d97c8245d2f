//! Reads batches of the log while it is being written.
//!
//! The index of the log is shared between the writer and its readers and locked for moments only; files are read
//! outside of the lock. A segment that is put to another use meanwhile shows in the header of what is read, whose
//! position, identity and checksums must be right.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;

use super::chain::{self, Piece};
use super::fs::FsFile;
use super::record::{HEADER_LEN, Header, Mark, Position};
use super::scan::batch_of;

/// Where a batch is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) epoch: Epoch,
    /// Of the entry at `last`.
    pub(super) hash: u128,
    pub(super) position: Position,
    /// Of the record's body; the batch in it may have more entries than are still part of the log.
    pub(super) len: u32,
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Index<File> {
    /// Of consecutive seqs.
    pub(super) entries: VecDeque<Entry>,
    pub(super) files: BTreeMap<u32, File>,
    /// The entry before the first.
    pub(super) base: Mark,
}

impl Entry {
    pub(super) fn of(piece: &Piece) -> Self {
        Self { len: piece.len, ..Self::new(&piece.batch, piece.position) }
    }

    pub(super) fn new(batch: &Batch, position: Position) -> Self {
        let header = batch.header();
        let (first, last) = (header.first_seq, header.last_seq());
        Self { first, last, epoch: header.epoch, hash: header.hash_last, position, len: batch.bytes().len() as u32 }
    }
}

impl<File> Index<File> {
    /// The entry at `seq`, which batch headers say has `hash`; `None` if it has another or is not there. Within a batch
    /// the hash is not known and believed.
    pub(super) fn mark(&self, seq: u64, hash: u128) -> Option<Mark> {
        let known = match self.at(seq) {
            Some(entry) if entry.last == seq => Mark { epoch: entry.epoch, seq, hash: entry.hash },
            Some(entry) => Mark { epoch: entry.epoch, seq, hash },
            None => self.base,
        };
        (known.seq == seq && known.hash == hash).then_some(known)
    }

    /// Cuts what comes after `mark`.
    pub(super) fn rewind(&mut self, mark: Mark) {
        while self.entries.back().is_some_and(|entry| entry.first > mark.seq) {
            self.entries.pop_back();
        }
        if let Some(entry) = self.entries.back_mut() {
            (entry.last, entry.hash) = (mark.seq, mark.hash);
        }
    }

    /// The batch of `entry` has another place.
    pub(super) fn move_entry(&mut self, entry: Entry) {
        let at = self.entries.partition_point(|known| known.last < entry.last);
        if let Some(known) = self.entries.get_mut(at).filter(|known| known.first == entry.first) {
            *known = entry;
        }
    }

    /// Forgets the oldest batches, those in segments before `generation`.
    pub(super) fn forget(&mut self, generation: u32) {
        while let Some(entry) = self.entries.front().filter(|entry| entry.position.generation() < generation) {
            self.base = Mark { epoch: entry.epoch, seq: entry.last, hash: entry.hash };
            self.entries.pop_front();
        }
    }

    fn at(&self, seq: u64) -> Option<&Entry> {
        let at = self.entries.partition_point(|entry| entry.last < seq);
        self.entries.get(at).filter(|entry| entry.first <= seq)
    }
}

/// Locks the index. Nothing can panic while it is held, so it is never left half changed.
pub(super) fn lock<File>(index: &Mutex<Index<File>>) -> MutexGuard<'_, Index<File>> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads batches. Clones may be used by other threads.
#[derive(Debug)]
pub struct LogReader<File> {
    pub(super) index: Arc<Mutex<Index<File>>>,
    pub(super) uuid: [u8; 16],
}

impl<File> Clone for LogReader<File> {
    fn clone(&self) -> Self {
        Self { index: self.index.clone(), uuid: self.uuid }
    }
}

impl<File: FsFile> LogReader<File> {
    /// The batches that hold the entries from `from` to `upto`, as many as have `bytes_max` bytes together, but one at
    /// least. None if the log does not have `from`, or no longer.
    ///
    /// # Errors
    /// The file cannot be read, or what stands there is damaged.
    pub fn read(&self, from: u64, upto: u64, bytes_max: usize) -> io::Result<Vec<Batch>> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        for (entry, file) in self.places(from, upto, bytes_max) {
            match self.batch(&file, entry)? {
                Some(batch) => {
                    bytes += batch.bytes().len();
                    batches.push(batch);
                }
                None if self.is_still(entry) => return Err(damaged(entry)),
                // Truncated or cut since the index was asked; what came before it may be given still.
                None => break,
            }
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(batches)
    }

    fn places(&self, from: u64, upto: u64, bytes_max: usize) -> Vec<(Entry, File)> {
        let index = lock(&self.index);
        let start = index.entries.partition_point(|entry| entry.last < from);
        let Some(first) = index.entries.get(start).filter(|entry| entry.first <= from) else { return Vec::new() };
        let mut bytes = 0;
        let mut places = Vec::new();
        for &entry in index.entries.range(start..).take_while(|entry| entry.first <= upto.max(first.first)) {
            bytes += entry.len as usize;
            if bytes > bytes_max && !places.is_empty() {
                break;
            }
            let Some(file) = index.files.get(&entry.position.generation()) else { break };
            places.push((entry, file.clone()));
        }
        places
    }

    fn batch(&self, file: &File, entry: Entry) -> io::Result<Option<Batch>> {
        let mut bytes = vec![0; HEADER_LEN + entry.len as usize];
        file.read_at(&mut bytes, entry.position.offset().into())?;
        let Ok(header) = Header::decode(&bytes) else { return Ok(None) };
        let body = Bytes::from(bytes).slice(HEADER_LEN..);
        let expected = header.position == entry.position
            && header.uuid == self.uuid
            && header.len == entry.len
            && header.kind.has_batch()
            && crc32c::crc32c(&body) == header.body_crc;
        Ok(batch_of(&header, &body).filter(|_| expected).and_then(|batch| chain::prefix_of(&batch, entry.last)))
    }

    fn is_still(&self, entry: Entry) -> bool {
        lock(&self.index).at(entry.first).is_some_and(|now| now.position == entry.position)
    }
}

fn damaged(entry: Entry) -> io::Error {
    let Entry { first, last, position, .. } = entry;
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the entries {first} to {last} of the log, at {position}, are damaged"),
    )
}
