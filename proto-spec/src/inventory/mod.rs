//! The text formats in which book lists are imported and exported.
//!
//! * [`Format::Original`]: a count, then five lines a book: title, topic, id, cost, stock. The cost is in whole units of
//!   the currency. What follows the last book is not read. Blanks at either end of a line are no part of its value.
//! * [`Format::Csv`]: a header with the columns `id,title,topic,cost,stock` in any order, then one record a book; the
//!   cost is in cents. Further columns are ignored.
//! * [`Format::JsonLines`]: one object a line with `id`, `title`, `topic`, `cost_cents` and `stock`. Further fields are
//!   ignored, so that an export, which tells more, can be imported again.
//!
//! [`parse`] checks the whole input before it returns the first book, and an [`InventoryError`] says where and what:
//! an import either starts with every book known to be good or does not start.

use crate::limits::COST_CENTS_MAX;
use crate::message::NewBook;
use crate::types::{self, BookId};

mod csv;
mod duplicate;
mod error;
mod json;
mod original;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use error::{Field, InventoryError, Problem};
pub use read::{LINE_BYTES_MAX, LIST_BYTES_MAX, ReadError, read};
pub use write::{Row, Writer};

use error::Fault;

/// How a book list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The format of the original store; read, but not written, for it has no cents.
    Original,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

impl Format {
    /// The format that a file's extension stands for.
    pub fn of_path(path: &std::path::Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "txt" => Some(Format::Original),
            "csv" => Some(Format::Csv),
            "jsonl" | "ndjson" | "json" => Some(Format::JsonLines),
            _ => None,
        }
    }

    /// The format that the first line looks like. An input that looks like none gets [`Format::Original`], whose first
    /// complaint then names the count that it misses.
    pub fn sniff(input: &[u8]) -> Self {
        let input = without_bom(input).trim_ascii_start();
        let first = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if first.starts_with(b"{") {
            Format::JsonLines
        } else if first.contains(&b',') {
            Format::Csv
        } else {
            Format::Original
        }
    }

    /// The name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Original => "original",
            Format::Csv => "csv",
            Format::JsonLines => "jsonl",
        }
    }
}

/// Reads all books of `input`. The result is in the order of the input; no id occurs twice.
///
/// # Errors
/// The first thing that is wrong, with its line and column; a duplicate id is looked for once all else is right.
pub fn parse(input: &[u8], format: Format) -> Result<Vec<NewBook>, InventoryError> {
    let input = without_bom(input);
    let text = std::str::from_utf8(input)
        .map_err(|error| InventoryError::at(input, Fault { offset: error.valid_up_to(), problem: Problem::NotUtf8 }))?;
    parse_text(text, format).map_err(|fault| InventoryError::at(input, fault))
}

fn parse_text(text: &str, format: Format) -> Result<Vec<NewBook>, Fault> {
    if text.trim().is_empty() {
        return Err(Fault { offset: 0, problem: Problem::Empty });
    }
    let list = match format {
        Format::Original => original::parse(text)?,
        Format::Csv => csv::parse(text)?,
        Format::JsonLines => json::parse(text)?,
    };
    duplicate::check(&list, text.as_bytes())?;
    Ok(list.books)
}

/// The seven books of the original store.
///
/// The list is part of the program, and a test reads it; were it ever damaged, the store would start empty.
pub fn builtin() -> Vec<NewBook> {
    parse(include_bytes!("../../inventories/original.txt"), Format::Original).unwrap_or_default()
}

/// Some editors begin a file with a byte-order mark; it is no part of the first value.
fn without_bom(input: &[u8]) -> &[u8] {
    input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input)
}

/// Books as they are read, each with the place of its id in the input, for complaints that concern two of them.
#[derive(Debug, Default)]
struct List {
    books: Vec<NewBook>,
    id_offsets: Vec<usize>,
}

impl List {
    fn push(&mut self, book: NewBook, id_offset: usize) {
        self.books.push(book);
        self.id_offsets.push(id_offset);
    }
}

/// The five values of one book as texts.
struct Texts<'a> {
    id: &'a str,
    title: &'a str,
    topic: &'a str,
    cost: &'a str,
    stock: &'a str,
}

impl Texts<'_> {
    /// The book, whose cost is given in units of `cents_per_unit`; or which field is wrong and how.
    fn book(&self, cents_per_unit: u64) -> Result<NewBook, (Field, Problem)> {
        let unit = if cents_per_unit == 1 { "cents" } else { "whole units of the currency" };
        let units = match number(Field::Cost, self.cost, COST_CENTS_MAX / cents_per_unit) {
            Err((field, Problem::NotANumber { found, .. })) => return Err((field, Problem::NotACost { found, unit })),
            other => other?,
        };
        let stock = number(Field::Stock, self.stock, u32::MAX.into())?;
        book(self.id, self.title, self.topic, units * cents_per_unit, stock)
    }
}

/// The book with these values, of which the numbers have been checked against their limits.
fn book(id: &str, title: &str, topic: &str, cost_cents: u64, stock: u64) -> Result<NewBook, (Field, Problem)> {
    Ok(NewBook {
        id: BookId::new(id).map_err(|e| (Field::Id, Problem::Value(e)))?,
        title: types::title(title).map_err(|e| (Field::Title, Problem::Value(e)))?,
        topic: types::topic(topic).map_err(|e| (Field::Topic, Problem::Value(e)))?,
        cost_cents,
        stock: u32::try_from(stock)
            .map_err(|_| (Field::Stock, Problem::too_large(Field::Stock, &stock.to_string(), u32::MAX.into())))?,
    })
}

/// A whole number from 0 to `max`, in digits alone.
fn number(field: Field, text: &str, max: u64) -> Result<u64, (Field, Problem)> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err((field, Problem::not_a_number(field, text)));
    }
    if digits.len() < text.len() {
        return Err((field, Problem::negative(field, text)));
    }
    match digits.parse() {
        Ok(value) if value <= max => Ok(value),
        _ => Err((field, Problem::too_large(field, text, max))),
    }
}
