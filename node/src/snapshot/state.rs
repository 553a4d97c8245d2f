//! Books and sessions as a stream of bytes. Numbers are little-endian.
//!
//! First the books, by topic and id: length of the id, of the title, of the topic (2 bytes each), price (8), stock (4), seq
//! of the last change (8), then the three texts. Then the sessions, by id: id, lowest counter that is wanted, seq of the
//! last use (8 each), how many answers (4), and of each answer: counter, hash of what was asked (8 each), length (4), and
//! the bytes. How many there are of either is in the head. Equal states give equal bytes.

use bytes::BufMut;
use pygmy_ring::Sessions;
use pygmy_ring::sessions::{KeptOutcome, KeptSession, Session, SessionLimits, SessionsImage};

use super::chunks::{ChunkReader, ChunkWriter, FileError};
use super::head::Head;
use crate::disk::fs::FsFile;
use crate::store::{BookRef, Catalog, CatalogImage, Restore};

const BOOK_HEADER_LEN: usize = 26;
const SESSION_HEADER_LEN: usize = 28;
const OUTCOME_HEADER_LEN: usize = 20;

pub(super) fn write<File: FsFile>(
    out: &mut ChunkWriter<File>,
    catalog: &CatalogImage,
    sessions: &SessionsImage,
) -> std::io::Result<()> {
    let mut record = Vec::new();
    for book in catalog.sorted() {
        record.clear();
        put_book(&mut record, &book);
        out.write(&record)?;
    }
    for session in sessions.sorted() {
        record.clear();
        put_session(&mut record, session);
        out.write(&record)?;
    }
    Ok(())
}

fn put_book(out: &mut Vec<u8>, book: &BookRef<'_>) {
    let texts = [book.id, book.title, book.topic];
    for text in texts {
        out.put_u16_le(text.len() as u16);
    }
    out.put_u64_le(book.cost_cents);
    out.put_u32_le(book.stock);
    out.put_u64_le(book.changed_seq);
    for text in texts {
        out.put_slice(text.as_bytes());
    }
}

fn put_session(out: &mut Vec<u8>, session: &Session) {
    out.put_u64_le(session.id());
    out.put_u64_le(session.first_incomplete());
    out.put_u64_le(session.used_seq());
    out.put_u32_le(session.outcomes().len() as u32);
    for outcome in session.outcomes() {
        out.put_u64_le(outcome.counter());
        out.put_u64_le(outcome.payload_hash());
        out.put_u32_le(outcome.answer().len() as u32);
        out.put_slice(outcome.answer());
    }
}

pub(super) fn read<File: FsFile>(input: &mut ChunkReader<File>, head: &Head) -> Result<(Catalog, Sessions), FileError> {
    let mut catalog = Restore::new();
    for _ in 0..head.books {
        read_book(input, &mut catalog)?;
    }
    let mut sessions = Sessions::new(SessionLimits::default());
    for _ in 0..head.sessions {
        let session = read_session(input)?;
        sessions.restore(session).map_err(|error| input.damaged(error.to_string()))?;
    }
    Ok((catalog.finish(), sessions))
}

fn read_book<File: FsFile>(input: &mut ChunkReader<File>, catalog: &mut Restore) -> Result<(), FileError> {
    let mut fixed = Fields(input.take(BOOK_HEADER_LEN)?);
    let lens = [fixed.u16(), fixed.u16(), fixed.u16()].map(usize::from);
    let (cost_cents, stock, changed_seq) = (fixed.u64(), fixed.u32(), fixed.u64());
    let texts = input.take(lens.iter().sum())?;
    let pushed = std::str::from_utf8(texts).map_err(|_| "a text that is not UTF-8").and_then(|texts| {
        let (id, rest) = texts.split_at_checked(lens[0]).ok_or("a text cut within a character")?;
        let (title, topic) = rest.split_at_checked(lens[1]).ok_or("a text cut within a character")?;
        catalog.push(BookRef { id, title, topic, cost_cents, stock, changed_seq })
    });
    pushed.map_err(|why| input.damaged(why.to_owned()))
}

fn read_session<File: FsFile>(input: &mut ChunkReader<File>) -> Result<KeptSession, FileError> {
    let mut fixed = Fields(input.take(SESSION_HEADER_LEN)?);
    let (id, first_incomplete, used_seq, count) = (fixed.u64(), fixed.u64(), fixed.u64(), fixed.u32());
    let mut outcomes = Vec::new();
    for _ in 0..count {
        let mut fixed = Fields(input.take(OUTCOME_HEADER_LEN)?);
        let (counter, payload_hash, len) = (fixed.u64(), fixed.u64(), fixed.u32());
        let answer = input.take(len as usize)?.into();
        outcomes.push(KeptOutcome { counter, payload_hash, answer });
    }
    Ok(KeptSession { id, first_incomplete, used_seq, outcomes })
}

/// Numbers one after the other. The caller has taken as many bytes as it asks for.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((bytes, rest)) => {
                self.0 = rest;
                *bytes
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
