//! A segment of the log, record by record.

use bytes::Bytes;
use pygmy_proto::batch::{Batch, Entry, EntryKind};
use pygmy_proto::codec;
use pygmy_proto::message::{Command, Epoch, Membership};
use pygmy_ring::sessions::RequestId;
use serde::Serialize;

use super::{Contents, Detail, Finding};
use crate::config::hex;
use crate::disk::record::{self, BLOCK, HEADER_LEN, Header, Kind, Position, RecordError};
use crate::disk::segments::segment_generation;

/// Bytes of a command that is not understood which are shown.
const SHOWN_BYTES: usize = 32;

/// What a segment holds.
#[derive(Debug, Default, Serialize)]
pub struct Segment {
    /// Its generation: how many segments this log had taken into use before, plus one.
    pub generation: Option<u32>,
    /// Identity of the log.
    pub log: Option<String>,
    /// Whole records, all kinds.
    pub records: u64,
    /// Those that hold batches, copies included.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// First position in them.
    pub first_seq: Option<u64>,
    /// The highest.
    pub last_seq: Option<u64>,
    /// Up to where the latest record knew the log to be synced.
    pub stable: Option<String>,
    /// Whether the last record closes what was written before.
    pub closed: bool,
    /// Bytes up to the end of the last record.
    pub used_bytes: u64,
    /// Bytes behind that, zero or of an earlier use of the file.
    pub free_bytes: u64,
    /// The records, when they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Record>,
}

/// One record.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Offset in the file.
    pub at: u32,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Bytes of its header and body.
    pub bytes: u64,
    /// Epoch in which it was submitted.
    pub submitted_in: Epoch,
    /// Position of the entry before its first.
    pub behind: u64,
    /// Up to where all was known to be synced.
    pub stable: String,
    /// An end that was lost to damage and has to be reached again: epoch and position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owed: Option<(Epoch, u64)>,
    /// Its batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchView>,
}

/// The batch in a record.
#[derive(Debug, Serialize)]
pub struct BatchView {
    /// Epoch in which it was ordered.
    pub epoch: Epoch,
    /// Number of the node that ordered it.
    pub origin: u16,
    /// First position.
    pub first_seq: u64,
    /// Last position.
    pub last_seq: u64,
    /// Microseconds since 1970-01-01 UTC.
    pub time_us: u64,
    /// Hash of the last entry.
    pub hash: String,
    /// Its entries, when they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntryView>,
}

/// One entry.
#[derive(Debug, Serialize)]
pub struct EntryView {
    /// Its position.
    pub seq: u64,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// For commands: session and counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<(u64, u64)>,
    /// What it says.
    pub says: String,
}

/// Reads a segment.
pub(super) fn look(name: &str, bytes: &[u8], detail: Detail) -> (Contents, Vec<Finding>) {
    let named = segment_generation(name);
    let first = Header::decode(bytes).ok().map(|header| header.position.generation());
    let mut walk = Walk {
        bytes,
        generation: named.or(first),
        detail,
        last_end: None,
        segment: Segment { generation: named.or(first), ..Segment::default() },
        findings: Vec::new(),
    };
    walk.run();
    (Contents::LogSegment(walk.segment), walk.findings)
}

struct Walk<'a> {
    bytes: &'a [u8],
    generation: Option<u32>,
    detail: Detail,
    /// End of the last batch that was read: seq and hash.
    last_end: Option<(u64, u128)>,
    segment: Segment,
    findings: Vec<Finding>,
}

impl Walk<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while at < self.bytes.len() {
            match self.record(at) {
                Ok((header, body)) => {
                    self.take(&header, body);
                    at += HEADER_LEN + header.len as usize;
                    self.segment.used_bytes = at as u64;
                }
                Err(why) => match self.next_record(at) {
                    Some(next) => {
                        let what = format!("bytes {at} to {next} hold no whole record ({why}), and later ones follow");
                        self.findings.push(Finding::damage(what));
                        at = next;
                    }
                    None => {
                        self.end(at, why);
                        break;
                    }
                },
            }
        }
        self.segment.free_bytes = self.bytes.len() as u64 - self.segment.used_bytes;
    }

    /// The whole record of this use of the file at `at`.
    fn record(&self, at: usize) -> Result<(Header, Bytes), RecordError> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let header = Header::decode(rest)?;
        // What an earlier use of the file left bears another generation, and counts for nothing.
        let here = Position::new(self.generation.unwrap_or_default(), at as u32);
        if header.position != here {
            return Err(RecordError::Magic);
        }
        let body = rest.get(HEADER_LEN..HEADER_LEN + header.len as usize).ok_or(RecordError::Short)?;
        if crc32c::crc32c(body) != header.body_crc {
            return Err(RecordError::Checksum);
        }
        Ok((header, Bytes::copy_from_slice(body)))
    }

    /// Where the next record of this use begins behind a bad place: groups begin at blocks.
    fn next_record(&self, at: usize) -> Option<usize> {
        let first = record::block_end(at + 1);
        (first..self.bytes.len()).step_by(BLOCK).find(|&place| {
            let header = self.bytes.get(place..).and_then(|rest| Header::decode(rest).ok());
            header.is_some_and(|h| h.position == Position::new(self.generation.unwrap_or_default(), place as u32))
        })
    }

    /// Nothing of this use follows.
    fn end(&mut self, at: usize, why: RecordError) {
        match why {
            RecordError::Magic if at > 0 && self.is_free(at) => {}
            RecordError::Magic if at == 0 => {
                self.findings.push(Finding::note("no record was ever written to it in this use"))
            }
            RecordError::Version(version) => {
                self.findings.push(Finding::damage(format!("the record at {at} is of version {version}")));
            }
            _ => {
                let what = format!(
                    "the record at {at} is not whole ({why}) and no other follows here: it was torn by a crash, or \
                     damaged; looking at the whole directory tells which"
                );
                self.findings.push(Finding::note(what));
            }
        }
    }

    /// Whether zeros stand there, or what an earlier use of the file left.
    fn is_free(&self, at: usize) -> bool {
        let rest = &self.bytes[at..self.bytes.len().min(at + HEADER_LEN)];
        rest.iter().all(|byte| *byte == 0) || Header::decode(rest).is_ok()
    }

    fn take(&mut self, header: &Header, body: Bytes) {
        let segment = &mut self.segment;
        segment.records += 1;
        segment.log.get_or_insert_with(|| hex(&header.uuid));
        segment.stable = Some(header.stable.to_string());
        segment.closed = header.kind == Kind::Closing;
        let owed = if header.kind == Kind::Closing { record::owed(&body) } else { None };
        let batch = if header.kind.has_batch() { self.take_batch(header, body) } else { None };
        if self.detail >= Detail::Records {
            self.segment.items.push(Record {
                at: header.position.offset(),
                kind: kind_name(header.kind),
                bytes: HEADER_LEN as u64 + u64::from(header.len),
                submitted_in: header.tag,
                behind: header.before.seq,
                stable: header.stable.to_string(),
                owed,
                batch,
            });
        }
    }

    fn take_batch(&mut self, header: &Header, body: Bytes) -> Option<BatchView> {
        let at = header.position.offset();
        let batch = match Batch::parse(body) {
            Ok(batch) => batch,
            Err(error) => {
                self.findings.push(Finding::damage(format!("the record at {at} holds no batch: {error}")));
                return None;
            }
        };
        let found = batch.header();
        let agrees = found.first_seq == header.first_seq() && found.hash_before == header.before.hash;
        if !agrees {
            self.findings.push(Finding::damage(format!("the record at {at} announces another batch than it holds")));
        }
        let breaks = self.last_end.is_some_and(|(seq, hash)| found.first_seq == seq + 1 && found.hash_before != hash);
        if breaks && header.kind == Kind::Batch {
            let what = format!("seq {} at {at} does not go on from the entry before it", found.first_seq);
            self.findings.push(Finding::note(what));
        }
        self.last_end = Some((found.last_seq(), found.hash_last));
        let segment = &mut self.segment;
        segment.batches += 1;
        segment.entries += u64::from(found.count);
        segment.first_seq = Some(segment.first_seq.map_or(found.first_seq, |first| first.min(found.first_seq)));
        segment.last_seq = segment.last_seq.max(Some(found.last_seq()));
        Some(view(&batch, self.detail))
    }
}

fn view(batch: &Batch, detail: Detail) -> BatchView {
    let header = batch.header();
    let entries = if detail >= Detail::Entries { batch.entries().map(entry_view).collect() } else { Vec::new() };
    BatchView {
        epoch: header.epoch,
        origin: header.origin,
        first_seq: header.first_seq,
        last_seq: header.last_seq(),
        time_us: header.time_us,
        hash: format!("{:032x}", header.hash_last),
        entries,
    }
}

fn entry_view(entry: Entry<'_>) -> EntryView {
    let (kind, request, says) = match entry.kind {
        EntryKind::Register => ("register", None, "a new session".to_owned()),
        EntryKind::NewEpoch => ("new_epoch", None, "an epoch begins".to_owned()),
        EntryKind::Config => ("config", None, config_text(entry.body)),
        EntryKind::Command => match RequestId::split(entry.body) {
            Some((id, payload)) => ("command", Some((id.session, id.counter)), command_text(payload)),
            None => ("command", None, format!("no identity: {}", bytes_text(entry.body))),
        },
    };
    EntryView { seq: entry.seq, kind, request, says }
}

fn config_text(body: &[u8]) -> String {
    match codec::decode::<Membership>(body) {
        Ok(membership) => {
            let voters: Vec<String> = membership.voters.iter().map(|voter| voter.node.to_string()).collect();
            format!("configuration {}: voters {}", membership.id, voters.join(", "))
        }
        Err(error) => format!("no configuration ({error}): {}", bytes_text(body)),
    }
}

fn command_text(payload: &[u8]) -> String {
    let lines = |lines: &[pygmy_proto::message::Line]| {
        let each: Vec<String> = lines.iter().map(|line| format!("{}:{}", line.book, line.copies)).collect();
        each.join(" ")
    };
    match codec::decode::<Command>(payload) {
        Ok(Command::Buy { lines: cart }) => format!("buy {}", lines(&cart)),
        Ok(Command::Restock { book, copies }) => format!("restock {book}:{copies}"),
        Ok(Command::Reprice { book, cost_cents }) => format!("reprice {book} to {cost_cents}c"),
        Ok(Command::Add { book }) => format!("add {}, {}c, {} copies", book.id, book.cost_cents, book.stock),
        Ok(Command::Retire { book }) => format!("retire {book}"),
        Ok(Command::Put { books }) => format!("put {} books", books.len()),
        Err(error) => format!("not understood ({error}): {}", bytes_text(payload)),
    }
}

fn bytes_text(bytes: &[u8]) -> String {
    let more = if bytes.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{}{more}", hex(&bytes[..bytes.len().min(SHOWN_BYTES)]))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Batch => "batch",
        Kind::Copy => "copy",
        Kind::Padding => "padding",
        Kind::Closing => "closing",
    }
}
