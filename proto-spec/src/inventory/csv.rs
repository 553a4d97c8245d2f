//! Comma-separated values.

use csv::{Reader, ReaderBuilder, StringRecord};

use super::error::{Fault, Field, Problem};
use super::{List, Texts};

const NAMES: [&str; 5] = ["id", "title", "topic", "cost", "stock"];

/// Where each of [`NAMES`] stands in a record.
#[derive(Debug, Clone, Copy)]
struct Columns([usize; 5]);

impl Columns {
    fn texts<'r>(&self, record: &'r StringRecord) -> Texts<'r> {
        let [id, title, topic, cost, stock] = self.0.map(|column| record.get(column).unwrap_or_default());
        Texts { id, title, topic, cost, stock }
    }

    fn of(&self, field: Field) -> usize {
        let [id, title, topic, cost, stock] = self.0;
        match field {
            Field::Id | Field::Count => id,
            Field::Title => title,
            Field::Topic => topic,
            Field::Cost => cost,
            Field::Stock => stock,
        }
    }
}

pub(super) fn parse(text: &str) -> Result<List, Fault> {
    // Records of another length than the header are complained about here, in our words.
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut record = StringRecord::new();
    read(&mut reader, &mut record)?;
    let columns = columns(text, &record)?;
    let expected = record.len();
    let mut list = List::default();
    while read(&mut reader, &mut record)? {
        let start = start(text, &record);
        // Only the last record can have an open quote: it holds all that follows.
        let is_last = reader.position().byte() >= text.len() as u64;
        if let Some(at) = is_last.then(|| open_quote(&text[start..])).flatten() {
            return Err(Fault { offset: start + at, problem: Problem::UnclosedQuote });
        }
        if record.len() != expected {
            let problem = Problem::RecordLength { expected, found: record.len() };
            return Err(Fault { offset: start, problem });
        }
        let place = |field| start + value_offset(&text[start..], columns.of(field));
        let book =
            columns.texts(&record).book(1).map_err(|(field, problem)| Fault { offset: place(field), problem })?;
        let id_offset = if columns.of(Field::Id) == 0 { start } else { place(Field::Id) };
        list.push(book, id_offset);
    }
    Ok(list)
}

/// Reads the next record; false at the end. What is in memory and known to be UTF-8 cannot fail to be read; were the
/// library to find something nonetheless, its own words are passed on.
fn read(reader: &mut Reader<&[u8]>, record: &mut StringRecord) -> Result<bool, Fault> {
    reader.read_record(record).map_err(|error| {
        let offset = error.position().map_or(0, |at| usize::try_from(at.byte()).unwrap_or(usize::MAX));
        Fault { offset, problem: Problem::Json(error.to_string()) }
    })
}

/// Finds the columns in the header.
fn columns(text: &str, header: &StringRecord) -> Result<Columns, Fault> {
    let start = start(text, header);
    let mut columns = [0; 5];
    for (slot, name) in columns.iter_mut().zip(NAMES) {
        let mut found = header.iter().enumerate().filter(|(_, value)| value.trim() == name).map(|(index, _)| index);
        *slot = found.next().ok_or(Fault { offset: start, problem: Problem::MissingColumn { name } })?;
        if let Some(again) = found.next() {
            let offset = start + value_offset(&text[start..], again);
            return Err(Fault { offset, problem: Problem::RepeatedColumn { name } });
        }
    }
    Ok(Columns(columns))
}

/// Where a record begins. The reader's own mark may stand before line breaks that it then skips.
fn start(text: &str, record: &StringRecord) -> usize {
    let mark = record.position().map_or(0, |at| usize::try_from(at.byte()).unwrap_or(usize::MAX));
    let rest = text.get(mark..).unwrap_or_default();
    mark.min(text.len()) + (rest.len() - rest.trim_start_matches(['\r', '\n']).len())
}

/// Where the quote stands that is still open at the end of `record`. One within a value that does not begin with a
/// quote is a character like any other.
fn open_quote(record: &str) -> Option<usize> {
    let mut opened = None;
    let mut is_value_start = true;
    let mut bytes = record.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match (opened, byte) {
            (None, b'"') if is_value_start => opened = Some(at),
            // Two in a row stand for one character.
            (Some(_), b'"') if bytes.next_if(|(_, next)| *next == b'"').is_none() => opened = None,
            _ => {}
        }
        is_value_start = opened.is_none() && byte == b',';
    }
    opened
}

/// Where value number `column` of the record at the start of `text` begins: commas within quotes do not count.
fn value_offset(text: &str, column: usize) -> usize {
    let mut quoted = false;
    let mut commas = 0;
    for (at, byte) in text.bytes().enumerate() {
        if commas == column {
            return at;
        }
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => commas += 1,
            _ => {}
        }
    }
    text.len()
}
