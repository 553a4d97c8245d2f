//! Writes the log: groups, segments, and what opening must put right.
//!
//! A **group** is what is written and made durable together, by [`FsFile::write_durably`]. It begins and ends at a block of 4 KiB, so
//! that no block with acknowledged bytes is ever written again. It bears the *stable position*, up to where all was
//! known to be synced; by it a later opening tells what was acknowledged from what was not. The last group has nobody
//! to say that of it, which is why [`LogFiles::close_group`] adds a closing one when nothing else comes.
//!
//! **Truncation appends.** A batch may begin at any seq up to the end of the log, if the entry before it is the one that
//! its header names; it supersedes everything at and above its first seq, here and when the log is opened again.
//!
//! **Opening** finds the log (see [`super::scan`] and [`super::chain`]). After a power failure or a crash of the process
//! what was found may have been read from a cache that the disk never saw, so everything behind the stable position is
//! written once more into a new segment, and synced, before opening returns. Only when the log ends with a closing
//! group, and nothing was begun behind it, writing goes on in the same segment, behind that group written once more.
//!
//! **The first error of a write or sync is final**: what is on disk is unknown, so every later call fails. A full disk is
//! no such error. A segment is taken only when another spare stays behind, and otherwise nothing is written and
//! [`LogError::Full`] says so; [`LogFiles::is_full`] tells it one segment earlier.

use std::io;
use std::sync::{Arc, Mutex};

use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;

use super::chain::{self, Chain, Piece};
use super::direct::Aligned;
use super::fs::{Fs, FsFile};
use super::reader::{self, Entry, Index, LogReader};
use super::record::{self, BLOCK, HEADER_LEN, Header, Kind, Mark, Position};
use super::scan::{self, ScanError, Scanned, Source};
use super::segments::{FILL_STEP, SegmentError, Segments};

/// What a segment is filled up to when nobody says otherwise.
pub const SEGMENT_BYTES: u32 = 64 * 1024 * 1024;
/// The smallest segment: a few blocks.
pub const SEGMENT_BYTES_MIN: u32 = 4 * BLOCK as u32;
/// The largest. Offsets have 32 bits.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// How a log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a new segment, rounded up to a block. A group must fit in one.
    pub segment_bytes: u32,
    /// The entry at which the newest snapshot was taken. The log need not have anything at or before it.
    pub anchor: Mark,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, anchor: Mark::default() }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error("the log cannot be opened: {0}")]
    Scan(#[from] ScanError),
    /// There is no room for the segment that an opening needs.
    #[error("the disk is full, and opening a log needs a segment of {0} bytes: make room, then start again")]
    Full(u32),
    /// The system refused.
    #[error("the log cannot be opened: {0}")]
    Io(#[from] io::Error),
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No room. Nothing was changed, and it passes when space is made.
    #[error("the disk is full")]
    Full,
    /// The group does not fit in a segment, or a batch in a record. Nothing was changed.
    #[error("a group of {0} bytes does not fit in a segment")]
    TooLarge(usize),
    /// The log has no such entry for a batch to go on from. Nothing was changed.
    #[error("a batch that begins at {first_seq} does not go on from the log, which ends at {end}")]
    Gap {
        /// The batch's first seq.
        first_seq: u64,
        /// The last seq before it.
        end: u64,
    },
    /// The system refused, and what is on disk is unknown.
    #[error("the log could not be made durable: {0}")]
    Io(#[from] io::Error),
    /// An earlier call failed so.
    #[error("the log failed before: {0}")]
    Failed(String),
}

/// Acknowledged data that is lost here and has to be fetched from others. Until then this log has no vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The end (epoch of the entry, seq) that the log had, and that may have been acknowledged. The damage is repaired
    /// when the log has an end that is not before it.
    pub end: (Epoch, u64),
    /// Where records are damaged. Empty when a file is missing.
    pub places: Vec<Position>,
}

/// What an opening found.
#[derive(Debug)]
pub struct Recovered {
    /// The log as far as it is whole: batches of consecutive seqs, each hash-chained to the one before. They share the
    /// memory of the segments that they were read from, which is free only when the last of a segment's batches is.
    pub batches: Vec<Batch>,
    /// The entry before the first batch.
    pub base: Mark,
    /// The last entry; the base if there is no batch.
    pub end: Mark,
    /// The highest epoch in which anything that was found was submitted: a promise is at least this.
    pub tag: Epoch,
    /// Whether acknowledged data is missing.
    pub damaged: Option<Damage>,
    /// Bytes of torn records that were cut, as far as they could be recognized.
    pub cut_bytes: u64,
    /// Batches that were written again, to be sure of them.
    pub copied: usize,
    /// Whether the log had been ended in order.
    pub clean: bool,
}

/// The end of what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// Epoch in which the last group was submitted.
    pub tag: Epoch,
    /// The last entry.
    pub end: Mark,
}

/// The segment being written.
#[derive(Debug)]
struct Current<File> {
    generation: u32,
    file: File,
    size: usize,
    /// Where the next group goes.
    offset: usize,
    /// Where the stream went on from.
    follows: Position,
}

impl<File> Current<File> {
    fn position(&self) -> Position {
        Position::new(self.generation, self.offset as u32)
    }
}

/// The files of a log, being written.
#[derive(Debug)]
pub struct LogFiles<F: Fs> {
    segments: Segments<F>,
    current: Current<F::File>,
    index: Arc<Mutex<Index<F::File>>>,
    uuid: [u8; 16],
    /// All before this is synced. Invariant: never beyond where the next group goes.
    stable: Position,
    end: Mark,
    tag: Epoch,
    owed: Option<(Epoch, u64)>,
    /// Whether something was written since the last sync.
    unsynced: bool,
    /// Whether something was written since the last closing group.
    unclosed: bool,
    /// Bytes written since the last step towards a spare.
    since_fill: usize,
    failed: Option<String>,
    buffer: Aligned,
}

impl<F: Fs> LogFiles<F> {
    /// Opens the log of `uuid`, or makes one where there is none. When this returns, what it found is durable.
    ///
    /// # Errors
    /// The log is another's, cannot be read, or could not be brought to safety.
    pub fn open(fs: F, uuid: [u8; 16], options: Options) -> Result<(Self, Recovered), OpenError> {
        let size = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).next_multiple_of(BLOCK as u32);
        let mut segments = Segments::open(fs, size)?;
        let sources: Vec<_> =
            segments.used().iter().map(|(&generation, file)| Source { generation, file: file.clone() }).collect();
        let mut scanned = scan::scan(&sources, uuid, Chain::new(options.anchor))?;
        let behind = scanned.chain.finish();
        let resumes = scanned.clean && !behind;
        let current = if resumes {
            resume(&segments, &scanned)?
        } else {
            begin(&mut segments, 0, scanned.stable).map_err(|error| opening(error, size))?
        };
        let recovered = recovered(&scanned);
        let mut log = Self::new(segments, current, uuid, &scanned);
        let opened = if resumes { log.go_on(recovered) } else { log.bring_to_safety(&scanned, recovered) };
        match opened {
            Ok(recovered) => Ok((log, recovered)),
            Err(LogError::Io(error)) => Err(error.into()),
            Err(LogError::Full) => Err(OpenError::Full(size)),
            Err(other) => Err(io::Error::other(other.to_string()).into()),
        }
    }

    fn new(segments: Segments<F>, current: Current<F::File>, uuid: [u8; 16], scanned: &Scanned) -> Self {
        let chain = &scanned.chain;
        let index = Index {
            entries: chain.pieces().iter().map(Entry::of).collect(),
            files: segments.used().clone(),
            base: chain.base(),
        };
        Self {
            segments,
            current,
            index: Arc::new(Mutex::new(index)),
            uuid,
            stable: scanned.stable,
            end: chain.end(),
            tag: chain.tag(),
            owed: chain.owed(),
            unsynced: false,
            unclosed: false,
            since_fill: 0,
            failed: None,
            buffer: Aligned::default(),
        }
    }

    /// Goes on in the segment in which the log was ended. Segments behind it were begun and never written.
    ///
    /// The closing group itself may be in a cache only, and one whose sync had failed would never get to the disk: behind
    /// the hole in its place, what is written from now on would look torn. So it is written once more, to its own place:
    /// nothing is lost with it.
    fn go_on(&mut self, recovered: Recovered) -> Result<Recovered, LogError> {
        let done = write_again(&self.current.file, self.current.offset - BLOCK);
        self.keep_failure(done)?;
        self.stable = self.current.position();
        self.free(|generation, current| generation > current)?;
        // Which end is owed must not be forgotten with the records that showed it.
        self.unclosed = self.owed.is_some();
        self.close_group()?;
        Ok(recovered)
    }

    /// Writes what may be in a cache only into the new segment, and ends it with what the log is now.
    ///
    /// The stable position stays where it is until all of it is synced: if the power fails before that, the next opening
    /// must find and copy the same batches, from their first place or from here.
    fn bring_to_safety(&mut self, scanned: &Scanned, mut recovered: Recovered) -> Result<Recovered, LogError> {
        let first = self.current.generation;
        let mut before = scanned.chain.base();
        for piece in scanned.chain.pieces() {
            if piece.position >= scanned.stable {
                self.copy(piece, before)?;
                recovered.copied += 1;
            }
            before = chain::end_of(&piece.batch);
        }
        self.put_closing()?;
        self.write_group()?;
        self.sync()?;
        // Everything behind the old stable position is dead or has been copied.
        self.free(|generation, _| generation > scanned.stable.generation() && generation < first)?;
        self.unclosed = true;
        self.close_group()?;
        Ok(recovered)
    }

    /// Writes a batch that was found once more, as a group of its own.
    fn copy(&mut self, piece: &Piece, before: Mark) -> Result<(), LogError> {
        let batch = &piece.batch;
        self.make_room(group_len([batch]), 0)?;
        self.begin_group();
        let position = self.push(Kind::Copy, piece.tag, before, batch.header().count, batch.bytes());
        self.pad(piece.tag, chain::end_of(batch));
        self.write_group()?;
        reader::lock(&self.index).move_entry(Entry::new(batch, position));
        Ok(())
    }

    /// Writes a group: each batch with the epoch of the log that it was submitted to. It is not durable before
    /// [`LogFiles::sync`] returns.
    ///
    /// # Errors
    /// Nothing was written, see [`LogError`]; or it failed for good.
    pub fn write(&mut self, group: &[(Epoch, Batch)]) -> Result<(), LogError> {
        self.check()?;
        self.put(group, Self::write_group)
    }

    /// Writes a group and makes it durable, together with what was written before. The new end; `None` if there is
    /// nothing to be made durable.
    ///
    /// # Errors
    /// Nothing was written, see [`LogError`]; or it failed for good.
    pub fn append(&mut self, group: &[(Epoch, Batch)]) -> Result<Option<Durable>, LogError> {
        if group.is_empty() {
            return self.sync();
        }
        self.check()?;
        self.put(group, Self::write_group_durably)?;
        Ok(Some(Durable { tag: self.tag, end: self.end }))
    }

    fn put(
        &mut self,
        group: &[(Epoch, Batch)],
        write: impl FnOnce(&mut Self) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let Some((tag, last)) = group.last() else { return Ok(()) };
        if let Some((_, batch)) = group.iter().find(|(_, batch)| batch.bytes().len() > record::BODY_MAX) {
            return Err(LogError::TooLarge(batch.bytes().len()));
        }
        let befores = self.befores(group)?;
        let len = group_len(group.iter().map(|(_, batch)| batch));
        self.make_room(len, 1)?;
        self.begin_group();
        let mut positions = Vec::with_capacity(group.len());
        for ((tag, batch), &before) in group.iter().zip(&befores) {
            positions.push(self.push(Kind::Batch, *tag, before, batch.header().count, batch.bytes()));
        }
        self.pad(*tag, chain::end_of(last));
        write(self)?;
        let mut index = reader::lock(&self.index);
        for (((tag, batch), before), position) in group.iter().zip(befores).zip(positions) {
            index.rewind(before);
            index.entries.push_back(Entry::new(batch, position));
            self.tag = self.tag.max(*tag);
        }
        drop(index);
        self.move_end(chain::end_of(last));
        Ok(())
    }

    /// Makes what was written durable. The new end; `None` if nothing was written since.
    ///
    /// # Errors
    /// It failed for good.
    pub fn sync(&mut self) -> Result<Option<Durable>, LogError> {
        self.check()?;
        if !self.unsynced {
            return Ok(None);
        }
        let done = self.current.file.sync();
        self.keep_failure(done)?;
        self.unsynced = false;
        self.stable = self.current.position();
        Ok(Some(Durable { tag: self.tag, end: self.end }))
    }

    /// Adds a closing group and makes it durable, so that the last group with data is not the last. Whether there was a
    /// need.
    ///
    /// # Errors
    /// It failed for good.
    pub fn close_group(&mut self) -> Result<bool, LogError> {
        self.check()?;
        if !self.unclosed {
            return Ok(false);
        }
        self.sync()?;
        self.put_closing()?;
        self.write_group_durably()?;
        self.unclosed = false;
        Ok(true)
    }

    /// The log begins anew behind `mark`, at which a snapshot was installed. Durable when this returns.
    ///
    /// # Errors
    /// As [`LogFiles::write`].
    pub fn restart_at(&mut self, tag: Epoch, mark: Mark) -> Result<(), LogError> {
        self.check()?;
        self.sync()?;
        self.make_room(BLOCK, 1)?;
        let mut index = reader::lock(&self.index);
        index.entries.clear();
        index.base = mark;
        drop(index);
        self.tag = self.tag.max(tag);
        self.move_end(mark);
        self.unclosed = true;
        self.close_group().map(|_| ())
    }

    /// Puts segments out of use that hold nothing at or above `seq`. A snapshot must have what is below, durably.
    ///
    /// # Errors
    /// It failed for good.
    pub fn cut_below(&mut self, seq: u64) -> Result<(), LogError> {
        self.check()?;
        let kept = {
            let index = reader::lock(&self.index);
            let needed = index.entries.iter().filter(|entry| entry.last >= seq);
            needed.map(|entry| entry.position.generation()).min().unwrap_or(self.current.generation)
        };
        let kept = kept.min(self.current.generation);
        if self.segments.used().first_key_value().is_none_or(|(&oldest, _)| oldest >= kept) {
            return Ok(());
        }
        // What shows how the log ends now, or which end is owed, must not be only in what goes.
        self.unclosed = true;
        self.close_group()?;
        reader::lock(&self.index).forget(kept);
        self.free(|generation, _| generation < kept)
    }

    /// A step towards a further spare, if one is wanted and enough was written since the last step or `idle` says that
    /// there is nothing else to do.
    ///
    /// # Errors
    /// It failed for good. That the disk is full is told by [`LogFiles::is_full`].
    pub fn prepare(&mut self, idle: bool) -> Result<(), LogError> {
        self.check()?;
        let due = idle || self.since_fill >= self.segments.size().min(FILL_STEP) / 4;
        if !due || !self.segments.wants_spare() {
            return Ok(());
        }
        self.since_fill = 0;
        match self.segments.fill() {
            Ok(()) | Err(SegmentError::Full) => Ok(()),
            Err(SegmentError::Io(error)) => self.keep_failure(Err(error)),
        }
    }

    /// Whether the disk was full when a spare was to be made. Writing goes on as long as there is room in the current
    /// segment, but nobody should ask for more.
    pub fn is_full(&self) -> bool {
        self.segments.is_full()
    }

    /// Bytes that the records of a group may have together: padding and a closing group must fit beside them.
    pub fn group_bytes_max(&self) -> usize {
        self.segments.size() - 2 * BLOCK - HEADER_LEN
    }

    /// Segments in use.
    pub fn segments(&self) -> usize {
        self.segments.used().len()
    }

    /// Whether there is something to be done by [`LogFiles::prepare`].
    pub fn wants_spare(&self) -> bool {
        self.segments.wants_spare()
    }

    /// The last entry that was written.
    pub fn end(&self) -> Mark {
        self.end
    }

    /// The end that was lost to damage and has not been reached again.
    pub fn owed(&self) -> Option<(Epoch, u64)> {
        self.owed
    }

    /// Whether a closing group is wanted.
    pub fn is_unclosed(&self) -> bool {
        self.unclosed
    }

    /// Reads batches, from any thread.
    pub fn reader(&self) -> LogReader<F::File> {
        LogReader { index: self.index.clone(), uuid: self.uuid }
    }

    /// The entry before each batch, if they all go on from the log and from each other.
    fn befores(&self, group: &[(Epoch, Batch)]) -> Result<Vec<Mark>, LogError> {
        let index = reader::lock(&self.index);
        let mut earlier: Vec<Mark> = Vec::with_capacity(group.len());
        for (at, (_, batch)) in group.iter().enumerate() {
            let header = batch.header();
            let seq = header.first_seq.saturating_sub(1);
            let in_group = at.checked_sub(1).map(|before| chain::end_of(&group[before].1));
            let before = match in_group {
                Some(end) if end.seq == seq && end.hash == header.hash_before => Some(end),
                // Within a group only the first may go back.
                Some(_) => None,
                None => index.mark(seq, header.hash_before),
            };
            let end = in_group.map_or(self.end.seq, |end| end.seq);
            let before = before.filter(|_| header.first_seq > 0);
            earlier.push(before.ok_or(LogError::Gap { first_seq: header.first_seq, end })?);
        }
        Ok(earlier)
    }

    /// Takes the next segment if `len` bytes and a closing group have no room in this one.
    fn make_room(&mut self, len: usize, keep: usize) -> Result<(), LogError> {
        let needed = len + BLOCK;
        if self.current.offset + needed <= self.current.size {
            return Ok(());
        }
        if needed > self.segments.size() {
            return Err(LogError::TooLarge(len));
        }
        // A record in the next segment may say that all of this one is stable. While opening it does not say so.
        if keep > 0 {
            self.sync()?;
        } else {
            let done = self.current.file.sync();
            self.keep_failure(done)?;
        }
        let follows = self.current.position();
        let next = begin(&mut self.segments, keep, follows);
        self.current = match next {
            Ok(current) => current,
            Err(SegmentError::Full) => return Err(LogError::Full),
            Err(SegmentError::Io(error)) => return self.keep_failure(Err(error)),
        };
        // Readers get a handle of their own, which does not keep open what only the writer of this segment needs.
        let generation = self.current.generation;
        if let Some(file) = self.segments.used().get(&generation) {
            reader::lock(&self.index).files.insert(generation, file.clone());
        }
        Ok(())
    }

    fn begin_group(&mut self) {
        self.buffer.clear();
    }

    /// Adds a record to the group. Its position.
    fn push(&mut self, kind: Kind, tag: Epoch, before: Mark, count: u32, body: &[u8]) -> Position {
        let position = self.current.position().plus(self.buffer.len());
        let header = Header {
            kind,
            len: body.len() as u32,
            count,
            position,
            stable: self.stable,
            follows: self.current.follows,
            tag,
            before,
            uuid: self.uuid,
            body_crc: crc32c::crc32c(body),
        };
        self.buffer.extend(&header.encode());
        self.buffer.extend(body);
        position
    }

    /// Fills the group's last block.
    fn pad(&mut self, tag: Epoch, end: Mark) {
        if self.buffer.len().is_multiple_of(BLOCK) {
            return;
        }
        let len = record::block_end(self.buffer.len() + HEADER_LEN) - self.buffer.len() - HEADER_LEN;
        self.push(Kind::Padding, tag, end, 0, &vec![0; len]);
    }

    fn write_group(&mut self) -> Result<(), LogError> {
        let done = self.current.file.write_at(self.buffer.as_slice(), self.current.offset as u64);
        self.keep_failure(done)?;
        self.wrote_group();
        self.unsynced = true;
        Ok(())
    }

    fn write_group_durably(&mut self) -> Result<(), LogError> {
        if self.unsynced {
            // Only a sync takes with it what was written before.
            self.write_group()?;
            return self.sync().map(|_| ());
        }
        let done = self.current.file.write_durably(self.buffer.as_slice(), self.current.offset as u64);
        self.keep_failure(done)?;
        self.wrote_group();
        self.stable = self.current.position();
        Ok(())
    }

    fn wrote_group(&mut self) {
        self.current.offset += self.buffer.len();
        self.since_fill += self.buffer.len();
        self.unclosed = true;
    }

    /// There is always room for it, but not for two.
    fn put_closing(&mut self) -> Result<(), LogError> {
        if self.current.offset + BLOCK > self.current.size {
            self.make_room(0, 0)?;
        }
        self.begin_group();
        let body = record::closing_body(self.owed, BLOCK - HEADER_LEN);
        self.push(Kind::Closing, self.tag, self.end, 0, &body);
        Ok(())
    }

    fn move_end(&mut self, end: Mark) {
        self.end = end;
        self.owed = self.owed.filter(|&owed| (end.epoch, end.seq) < owed);
    }

    fn free(&mut self, which: impl Fn(u32, u32) -> bool) -> Result<(), LogError> {
        let current = self.current.generation;
        let gone: Vec<u32> = self.segments.used().keys().copied().filter(|&g| which(g, current)).collect();
        for generation in gone {
            reader::lock(&self.index).files.remove(&generation);
            let done = self.segments.free(generation);
            self.keep_failure(done)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), LogError> {
        self.failed.clone().map_or(Ok(()), |failed| Err(LogError::Failed(failed)))
    }

    /// The first failure stays.
    fn keep_failure<T>(&mut self, done: io::Result<T>) -> Result<T, LogError> {
        done.map_err(|error| {
            self.failed = Some(error.to_string());
            LogError::Io(error)
        })
    }
}

/// Bytes of a group, padding included.
fn group_len<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> usize {
    let len: usize = batches.into_iter().map(|batch| HEADER_LEN + batch.bytes().len()).sum();
    if len.is_multiple_of(BLOCK) { len } else { record::block_end(len + HEADER_LEN) }
}

/// Makes a block durable that may be in a cache only, the system's or the device's, and clean there.
fn write_again<File: FsFile>(file: &File, at: usize) -> io::Result<()> {
    let mut block = [0; BLOCK];
    file.read_at(&mut block, at as u64)?;
    let mut aligned = Aligned::default();
    aligned.extend(&block);
    file.write_durably(aligned.as_slice(), at as u64)
}

/// The segment in which a log was ended in order.
fn resume<F: Fs>(segments: &Segments<F>, scanned: &Scanned) -> Result<Current<F::File>, io::Error> {
    let generation = scanned.end.generation();
    let file = segments.writable(generation)?;
    let size = file.len()? as usize;
    Ok(Current { generation, file, size, offset: scanned.end.offset() as usize, follows: scanned.end })
}

fn begin<F: Fs>(segments: &mut Segments<F>, keep: usize, follows: Position) -> Result<Current<F::File>, SegmentError> {
    let generation = segments.begin(keep)?;
    let file = segments.writable(generation).map_err(SegmentError::Io)?;
    let size = segments.size();
    Ok(Current { generation, file, size, offset: 0, follows })
}

fn opening(error: SegmentError, size: u32) -> OpenError {
    match error {
        SegmentError::Full => OpenError::Full(size),
        SegmentError::Io(error) => OpenError::Io(error),
    }
}

fn recovered(scanned: &Scanned) -> Recovered {
    let chain = &scanned.chain;
    Recovered {
        batches: chain.pieces().iter().map(|piece| piece.batch.clone()).collect(),
        base: chain.base(),
        end: chain.end(),
        tag: chain.tag(),
        damaged: chain.owed().map(|end| Damage { end, places: scanned.damaged.clone() }),
        cut_bytes: scanned.cut_bytes,
        copied: 0,
        clean: scanned.clean,
    }
}
