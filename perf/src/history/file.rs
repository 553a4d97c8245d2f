//! A history as a file: JSON lines, written as things happen and read back line by line.
//!
//! The first line says what the file is and its version. Then, in any order, `initial` (a book before the first
//! operation), `op`, `order` (a ledger's order, numbered by its place among the lines of its kind, from 0) and
//! `replica`, which names orders by these places, so that ledgers that agree are written once.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use hashbrown::HashMap;
use pygmy_proto::BookId;
use pygmy_proto::message::OrderRecord;
use serde::{Deserialize, Serialize};

use super::{BookState, History, Operation, ReplicaView, Shelf};

/// What the first line names.
const FORMAT: &str = "pygmy-history";
/// The version that is written, and the only one read.
const VERSION: u32 = 1;

/// Why a file is no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line}: {why}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "line")]
enum LineRef<'a> {
    Initial { book: BookId, state: BookState },
    Op { op: &'a Operation },
    Order { order: &'a OrderRecord },
    Replica(ReplicaLine),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "line")]
enum Line {
    Initial { book: BookId, state: BookState },
    Op { op: Operation },
    Order { order: OrderRecord },
    Replica(ReplicaLine),
}

#[derive(Serialize, Deserialize)]
struct ReplicaLine {
    name: String,
    applied: u64,
    /// In hexadecimal: many readers of JSON round numbers above 2^53.
    state_hash: String,
    books: Shelf,
    ledger: Vec<usize>,
    by_number: Option<Vec<(u64, Option<usize>)>>,
}

/// Writes a history as it comes about.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Orders written, by their address: replicas that agree share them.
    orders: HashMap<usize, usize>,
    /// Keeps those addresses from being used again.
    kept: Vec<Arc<OrderRecord>>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, orders: HashMap::new(), kept: Vec::new() };
        writer.line(&Header { format: FORMAT.into(), version: VERSION })?;
        Ok(writer)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    /// How the books were before the first operation.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn initial(&mut self, shelf: &Shelf) -> io::Result<()> {
        shelf.iter().try_for_each(|(book, state)| self.line(&LineRef::Initial { book: *book, state: *state }))
    }

    /// One operation.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn operation(&mut self, op: &Operation) -> io::Result<()> {
        self.line(&LineRef::Op { op })
    }

    fn place(&mut self, order: &Arc<OrderRecord>) -> io::Result<usize> {
        let address = Arc::as_ptr(order).addr();
        if let Some(place) = self.orders.get(&address) {
            return Ok(*place);
        }
        self.line(&LineRef::Order { order })?;
        let place = self.kept.len();
        self.orders.insert(address, place);
        self.kept.push(order.clone());
        Ok(place)
    }

    /// What a replica holds in the end.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn replica(&mut self, view: &ReplicaView) -> io::Result<()> {
        let ledger = view.ledger.iter().map(|order| self.place(order)).collect::<io::Result<_>>()?;
        let by_number = match &view.by_number {
            None => None,
            Some(found) => {
                let mut numbers: Vec<u64> = found.keys().copied().collect();
                numbers.sort_unstable();
                let place = |number: u64| match found.get(&number).and_then(Option::as_ref) {
                    Some(order) => Ok((number, Some(self.place(order)?))),
                    None => Ok((number, None)),
                };
                Some(numbers.into_iter().map(place).collect::<io::Result<_>>()?)
            }
        };
        self.line(&LineRef::Replica(ReplicaLine {
            name: view.name.clone(),
            applied: view.applied,
            state_hash: format!("{:016x}", view.state_hash),
            books: view.books.clone(),
            ledger,
            by_number,
        }))
    }

    /// Everything that was written is in `out`'s own hands, which are given back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes a whole history.
///
/// # Errors
/// Those of `out`.
pub fn write<W: Write>(history: &History, out: W) -> io::Result<W> {
    let mut writer = Writer::new(out)?;
    writer.initial(&history.initial)?;
    history.operations.iter().try_for_each(|operation| writer.operation(operation))?;
    history.replicas.iter().try_for_each(|view| writer.replica(view))?;
    writer.finish()
}

/// Reads a history back.
///
/// # Errors
/// What is wrong, and in which line.
pub fn read(input: impl BufRead) -> Result<History, ReadError> {
    let mut history = History::default();
    let (mut orders, mut replicas) = (Vec::new(), Vec::new());
    let mut lines = input.lines().enumerate().map(|(index, line)| (index + 1, line));
    let (_, first) = lines.next().ok_or_else(|| wrong(1, "the file is empty"))?;
    check_header(&first?)?;
    for (number, line) in lines {
        match serde_json::from_str(&line?).map_err(|error| wrong(number, error))? {
            Line::Initial { book, state } => {
                if history.initial.insert(book, state).is_some() {
                    return Err(wrong(number, format!("{book} is there twice")));
                }
            }
            Line::Op { op } if op.end_ns < op.start_ns => return Err(wrong(number, "it ends before it starts")),
            Line::Op { op } => history.operations.push(op),
            Line::Order { order } => orders.push(Arc::new(order)),
            Line::Replica(replica) => replicas.push((number, replica)),
        }
    }
    let view = |(number, replica): (usize, ReplicaLine)| replica.view(&orders).map_err(|why| wrong(number, why));
    history.replicas = replicas.into_iter().map(view).collect::<Result<_, _>>()?;
    Ok(history)
}

fn wrong(line: usize, why: impl ToString) -> ReadError {
    ReadError::Line { line, why: why.to_string() }
}

fn check_header(line: &str) -> Result<(), ReadError> {
    let header: Header =
        serde_json::from_str(line).map_err(|error| wrong(1, format!("this is no {FORMAT} file: {error}")))?;
    if header.format != FORMAT {
        return Err(wrong(1, format!("this is a {:?} file and no {FORMAT}", header.format)));
    }
    if header.version != VERSION {
        return Err(wrong(1, format!("version {} is unknown: this program reads {VERSION}", header.version)));
    }
    Ok(())
}

impl ReplicaLine {
    fn view(self, orders: &[Arc<OrderRecord>]) -> Result<ReplicaView, String> {
        let order = |place: usize| orders.get(place).cloned().ok_or_else(|| format!("there is no order at {place}"));
        let found = |(number, place): (u64, Option<usize>)| Ok((number, place.map(order).transpose()?));
        let by_number = self.by_number.map(|all| all.into_iter().map(found).collect::<Result<_, String>>());
        let hash = u64::from_str_radix(&self.state_hash, 16);
        Ok(ReplicaView {
            state_hash: hash.map_err(|error| format!("state_hash {:?}: {error}", self.state_hash))?,
            name: self.name,
            applied: self.applied,
            books: self.books,
            ledger: self.ledger.into_iter().map(order).collect::<Result<_, _>>()?,
            by_number: by_number.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::model;

    #[test]
    fn what_is_written_is_read_back() {
        for seed in 0..20 {
            let history = model::valid(seed);
            let bytes = write(&history, Vec::new()).unwrap();
            assert_eq!(read(&bytes[..]).unwrap(), history, "seed {seed}");
        }
    }

    #[test]
    fn ledgers_that_agree_are_written_once() {
        let history = model::valid(3);
        let text = String::from_utf8(write(&history, Vec::new()).unwrap()).unwrap();
        let orders = text.lines().filter(|line| line.starts_with(r#"{"line":"order""#)).count();
        assert_eq!(orders, history.replicas[0].ledger.len());
        assert!(history.replicas.len() > 1 && orders > 0);
    }

    #[test]
    fn what_is_no_history_is_refused_with_its_line() {
        let good = String::from_utf8(write(&model::valid(1), Vec::new()).unwrap()).unwrap();
        let told = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        assert!(told("").contains("line 1: the file is empty"));
        assert!(told("{}").contains("line 1: this is no pygmy-history file"));
        assert!(told(&good.replace("\"version\":1", "\"version\":2")).contains("version 2 is unknown"));
        assert!(told(&good.replacen("pygmy-history", "other", 1)).contains("other"));
        assert!(told(&format!("{good}{{\"line\":\"replica\"}}\n")).contains("missing field"));
        let cut = &good[..good.len() - 10];
        assert!(told(cut).starts_with(&format!("line {}:", good.lines().count())), "{}", told(cut));
        let backwards = good.replace("\"start_ns\":", "\"start_ns\":9999999");
        assert!(told(&backwards).contains("it ends before it starts"));
        let nowhere = good.replace("\"ledger\":[", "\"ledger\":[1000000,");
        assert!(told(&nowhere).contains("there is no order at 1000000"));
    }
}
