//! Reads the stream of records at opening.
//!
//! At the first place without a record there are three explanations, looked for in this order:
//!
//! 1. **The stream goes on elsewhere.** A later segment begins with a record that *follows* a position not beyond the
//!    bad one: an earlier segment was full, or an earlier opening gave up what lies between. Where that begins with
//!    copies and nobody says that there are all of them, the bad place must at least be readable: what was not copied any
//!    more is there.
//! 2. **Damage.** A later record says that it was written when the bad place was known to be synced: its *stable
//!    position* lies beyond it. Reading goes on with the next record, and the [`Chain`] finds out what is missing.
//! 3. **The end**: what was written there was never synced, and nobody was told that it was safe.
//!
//! A place that cannot be *read* is not bad but unknown. Where it would make the difference between the second and the
//! third case, opening fails rather than guesses.

use std::io::{self, ErrorKind};

use bytes::Bytes;
use pygmy_proto::batch::Batch;

use super::chain::Chain;
use super::fs::FsFile;
use super::record::{self, BLOCK, HEADER_LEN, Header, Kind, Position, RecordError};

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The records belong to another log.
    #[error("the record at {at} belongs to log {}, not to {}", hex(found), hex(expected))]
    Foreign {
        /// Where.
        at: Position,
        /// Whose it is.
        found: [u8; 16],
        /// Whose it should be.
        expected: [u8; 16],
    },
    /// The records are of another version.
    #[error(
        "the record at {at} is of version {found}, this program knows {}: use the program that wrote it",
        record::VERSION
    )]
    Version {
        /// Where.
        at: Position,
        /// The version.
        found: u8,
    },
    /// What stands there cannot be read, so that it is unknown whether it had been acknowledged.
    #[error("the log cannot be read at {at}, and whether anything stands there cannot be told otherwise: {source}")]
    Unreadable {
        /// Where.
        at: Position,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A segment to be read.
#[derive(Debug)]
pub struct Source<File> {
    /// Its generation.
    pub generation: u32,
    /// The file.
    pub file: File,
}

/// What was found.
#[derive(Debug)]
pub struct Scanned {
    /// The log.
    pub chain: Chain,
    /// Where the last record ends, rounded up to a block.
    pub end: Position,
    /// All before this is known to be synced.
    pub stable: Position,
    /// Whether what was found ends with a closing record behind which nothing was begun and before which all is synced.
    pub clean: bool,
    /// Places where acknowledged bytes are damaged, whether or not the log still needs them.
    pub damaged: Vec<Position>,
    /// Bytes in records behind the end that were written and never acknowledged. At least so many: what is torn may not
    /// be recognizable.
    pub cut_bytes: u64,
}

/// A segment in memory.
struct Loaded {
    bytes: Bytes,
    /// Whether little of it is in use: its batches get memory of their own, or each would hold the whole segment. A
    /// process that is killed again and again leaves many such segments.
    sparse: bool,
    /// The first block that could not be read, and why.
    unreadable: Option<(u32, io::Error)>,
}

/// A record, whole and intact.
struct Found {
    header: Header,
    body: Bytes,
    batch: Option<Batch>,
}

struct Scan<'a, File> {
    sources: &'a [Source<File>],
    loaded: Vec<Option<Loaded>>,
    uuid: [u8; 16],
}

/// What follows a place without a record.
enum Next {
    Elsewhere(Position),
    Damage(Position),
    End { cut_bytes: u64, begun: bool },
}

/// Reads all segments, in the order of their generations, into `chain`.
///
/// # Errors
/// The log is another's, or cannot be read.
pub fn scan<File: FsFile>(sources: &[Source<File>], uuid: [u8; 16], chain: Chain) -> Result<Scanned, ScanError> {
    let loaded = sources.iter().map(|_| None).collect();
    let start = sources.first().map_or(Position::default(), |source| Position::new(source.generation, 0));
    let mut scan = Scan { sources, loaded, uuid };
    let mut found =
        Scanned { chain, end: start, stable: Position::default(), clean: false, damaged: Vec::new(), cut_bytes: 0 };
    let mut at = start;
    let mut closed = false;
    while !sources.is_empty() {
        match scan.record(at)? {
            Ok(Found { header, body, batch }) => {
                found.stable = found.stable.max(header.stable);
                closed = header.kind == Kind::Closing && header.stable == header.position;
                at = header.end();
                found.end = Position::new(at.generation(), record::block_end(at.offset() as usize) as u32);
                if let Some(end) =
                    Some(body).filter(|_| header.kind == Kind::Closing).and_then(|body| record::owed(&body))
                {
                    found.chain.owe(end);
                }
                found.chain.take(&header, batch);
            }
            Err(_) => match scan.next(at)? {
                Next::Elsewhere(next) => at = next,
                Next::Damage(next) => {
                    found.damaged.push(at);
                    at = next;
                }
                Next::End { cut_bytes, begun } => {
                    found.cut_bytes = cut_bytes;
                    found.clean = closed && !begun;
                    break;
                }
            },
        }
        scan.forget_before(at);
    }
    Ok(found)
}

impl<File: FsFile> Scan<'_, File> {
    /// The whole and intact record at `at`.
    fn record(&mut self, at: Position) -> Result<Result<Found, RecordError>, ScanError> {
        let header = match self.header(at)? {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let Some((bytes, sparse)) =
            self.segment(at.generation())?.map(|segment| (segment.bytes.clone(), segment.sparse))
        else {
            return Ok(Err(RecordError::Short));
        };
        let from = at.offset() as usize + HEADER_LEN;
        let to = from + header.len as usize;
        if to > bytes.len() {
            return Ok(Err(RecordError::Short));
        }
        let body = if sparse { Bytes::copy_from_slice(&bytes[from..to]) } else { bytes.slice(from..to) };
        if crc32c::crc32c(&body) != header.body_crc {
            return Ok(Err(RecordError::Checksum));
        }
        if !header.kind.has_batch() {
            return Ok(Ok(Found { header, body, batch: None }));
        }
        let batch = batch_of(&header, &body);
        Ok(batch.ok_or(RecordError::Impossible).map(|batch| Found { header, body, batch: Some(batch) }))
    }

    /// The header at `at`, if it was written there for this use of the segment.
    fn header(&mut self, at: Position) -> Result<Result<Header, RecordError>, ScanError> {
        let uuid = self.uuid;
        let Some(segment) = self.segment(at.generation())? else { return Ok(Err(RecordError::Short)) };
        let bytes = segment.bytes.get(at.offset() as usize..).unwrap_or_default();
        match Header::decode(bytes) {
            Ok(header) if header.position != at => Ok(Err(RecordError::Magic)),
            Ok(header) if header.uuid != uuid => Err(ScanError::Foreign { at, found: header.uuid, expected: uuid }),
            Err(RecordError::Version(found)) => Err(ScanError::Version { at, found }),
            other => Ok(other),
        }
    }

    /// What explains that there is no record at `at`.
    fn next(&mut self, at: Position) -> Result<Next, ScanError> {
        let later: Vec<u32> =
            self.sources.iter().map(|source| source.generation).filter(|&g| g > at.generation()).collect();
        for &generation in &later {
            let start = Position::new(generation, 0);
            let Some(header) = self.header(start)?.ok().filter(|header| header.follows <= at) else { continue };
            // An opening that was cut short has copied only the beginning of what it found here.
            if header.kind == Kind::Copy && !self.is_vouched_for(&later, at)? {
                self.must_be_readable(at)?;
            }
            return Ok(Next::Elsewhere(start));
        }
        let (mut first, mut cut_bytes, mut begun) = (None, 0, false);
        for generation in std::iter::once(at.generation()).chain(later) {
            let mut place = Position::new(generation, 0);
            if generation == at.generation() {
                // The record at the place itself may have a good header; that does not make it a later one.
                if let Ok(header) = self.header(at)? {
                    cut_bytes += u64::from(header.len) + HEADER_LEN as u64;
                    begun = true;
                }
                place = place.plus(record::block_end(at.offset() as usize + 1));
            }
            while let Some(header) = self.next_header(&mut place)? {
                let first = *first.get_or_insert(header.position);
                if header.stable > at {
                    return Ok(Next::Damage(first));
                }
                cut_bytes += u64::from(header.len) + HEADER_LEN as u64;
                begun = true;
            }
        }
        self.must_be_readable(at)?;
        Ok(Next::End { cut_bytes, begun })
    }

    /// Whether a record of the segments `later` was written when all up to and at `at` was known to be safe.
    fn is_vouched_for(&mut self, later: &[u32], at: Position) -> Result<bool, ScanError> {
        for &generation in later {
            let mut place = Position::new(generation, 0);
            while let Some(header) = self.next_header(&mut place)? {
                if header.stable > at {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The next header at the start of a block, at `place` or behind it in the same segment.
    fn next_header(&mut self, place: &mut Position) -> Result<Option<Header>, ScanError> {
        let generation = place.generation();
        let len = self.segment(generation)?.map_or(0, |segment| segment.bytes.len());
        while (place.offset() as usize) < len {
            let here = *place;
            *place = here.plus(BLOCK);
            if let Ok(header) = self.header(here)? {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Whether the log ends at `at` is known only if all that comes there and later could be read.
    fn must_be_readable(&mut self, at: Position) -> Result<(), ScanError> {
        for loaded in self.loaded.iter_mut().zip(self.sources) {
            let (Some(segment), source) = loaded else { continue };
            let behind = source.generation > at.generation();
            let affects = |&(offset, _): &(u32, _)| behind || offset as usize + BLOCK > at.offset() as usize;
            if source.generation >= at.generation()
                && let Some((offset, error)) = segment.unreadable.take_if(|unreadable| affects(unreadable))
            {
                return Err(ScanError::Unreadable { at: Position::new(source.generation, offset), source: error });
            }
        }
        Ok(())
    }

    fn segment(&mut self, generation: u32) -> Result<Option<&Loaded>, ScanError> {
        let Ok(index) = self.sources.binary_search_by_key(&generation, |source| source.generation) else {
            return Ok(None);
        };
        if self.loaded[index].is_none() {
            self.loaded[index] = Some(load(&self.sources[index])?);
        }
        Ok(self.loaded[index].as_ref())
    }

    /// Lets go of segments that were read; the batches found in them hold what they need.
    fn forget_before(&mut self, at: Position) {
        let done = self.sources.partition_point(|source| source.generation < at.generation());
        for loaded in &mut self.loaded[..done] {
            *loaded = None;
        }
    }
}

/// The batch in `body`, if it is the one that `header` announces.
pub(super) fn batch_of(header: &Header, body: &Bytes) -> Option<Batch> {
    let batch = Batch::parse(body.clone()).ok()?;
    let found = batch.header();
    let announced =
        found.first_seq == header.first_seq() && found.count == header.count && found.hash_before == header.before.hash;
    announced.then_some(batch)
}

fn load<File: FsFile>(source: &Source<File>) -> Result<Loaded, ScanError> {
    let file = &source.file;
    let len = file.len()?;
    // Offsets are kept in half a position; a longer file was not made here.
    let len = usize::try_from(len)
        .ok()
        .filter(|&len| len <= u32::MAX as usize)
        .ok_or_else(|| io::Error::from(ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; len];
    let mut unreadable = None;
    if file.read_at(&mut bytes, 0).is_err() {
        // Some of it cannot be read; what can be is kept, and the rest is as good as zero until it matters.
        for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
            if let Err(error) = file.read_at(block, (index * BLOCK) as u64) {
                block.fill(0);
                unreadable.get_or_insert(((index * BLOCK) as u32, error));
            }
        }
    }
    let sparse = used(source.generation, &bytes) < len / 4;
    Ok(Loaded { bytes: bytes.into(), sparse, unreadable })
}

/// Where the first stretch of records in a segment ends.
fn used(generation: u32, bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(header) = bytes.get(at..).and_then(|rest| Header::decode(rest).ok())
        && header.position == Position::new(generation, at as u32)
    {
        at += HEADER_LEN + header.len as usize;
    }
    at
}
