//! What can be wrong with a book list, and where.

use std::fmt;

use crate::types::{BookId, ValueError};

/// What is wrong with a book list. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct InventoryError {
    /// Line of the input.
    pub line: usize,
    /// Character within the line.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

impl InventoryError {
    /// Turns a byte offset into the line and column that a person can go to.
    pub(super) fn at(input: &[u8], fault: Fault) -> Self {
        let before = &input[..fault.offset.min(input.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Self {
            line: line_of(input, fault.offset),
            column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
            problem: fault.problem,
        }
    }
}

/// The line in which the byte at `offset` stands.
pub(super) fn line_of(input: &[u8], offset: usize) -> usize {
    input[..offset.min(input.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// A problem at a byte offset; the line is counted only once, when it is shown.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) problem: Problem,
}

/// A value of a book, or the count that stands before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Number of books, the first line of the original format.
    Count,
    /// Id.
    Id,
    /// Title.
    Title,
    /// Topic.
    Topic,
    /// Price of a copy.
    Cost,
    /// Copies that can be bought.
    Stock,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Field::Count => "count",
            Field::Id => "id",
            Field::Title => "title",
            Field::Topic => "topic",
            Field::Cost => "cost",
            Field::Stock => "stock",
        })
    }
}

/// What is wrong at a place of a book list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing but blanks.
    #[error("the list is empty")]
    Empty,
    /// A byte that is not part of UTF-8 text.
    #[error("the text is not UTF-8 from here on")]
    NotUtf8,
    /// The list ends before as many books as its first line promises.
    #[error("the first line promises {claimed} books, the list ends after {found}")]
    Count {
        /// As the first line says.
        claimed: u64,
        /// Whole books there are.
        found: u64,
    },
    /// No whole number.
    #[error("the {field} {found:?} is not a whole number in digits")]
    NotANumber {
        /// Which value.
        field: Field,
        /// As written.
        found: String,
    },
    /// No whole number of what the format counts costs in.
    #[error("the cost {found:?} is not a whole number in digits; here it is in {unit}")]
    NotACost {
        /// As written.
        found: String,
        /// The unit.
        unit: &'static str,
    },
    /// A number below zero.
    #[error("the {field} {found} is negative; the least is 0")]
    Negative {
        /// Which value.
        field: Field,
        /// As written.
        found: String,
    },
    /// A number above its limit.
    #[error("the {field} {found} is too large; the most is {max}")]
    TooLarge {
        /// Which value.
        field: Field,
        /// As written.
        found: String,
        /// The most that is allowed, in the unit of the format.
        max: u64,
    },
    /// A text that breaks its rules; the inner error names the limit.
    #[error("{0}")]
    Value(ValueError),
    /// The id of an earlier book.
    #[error("the id {id} was given to the book of line {first_line} already")]
    Duplicate {
        /// The id.
        id: BookId,
        /// Where it stands first.
        first_line: usize,
    },
    /// The header of a CSV lacks a column.
    #[error("the header has no column {name:?}; the columns are id,title,topic,cost,stock")]
    MissingColumn {
        /// The column.
        name: &'static str,
    },
    /// The header of a CSV has a column twice.
    #[error("the header has the column {name:?} twice")]
    RepeatedColumn {
        /// The column.
        name: &'static str,
    },
    /// A record of a CSV has more or fewer values than its header.
    #[error("the record has {found} values, the header has {expected}")]
    RecordLength {
        /// Columns of the header.
        expected: usize,
        /// Values of this record.
        found: usize,
    },
    /// A quote that is still open where the CSV ends.
    #[error("the quote that opens here is never closed")]
    UnclosedQuote,
    /// A line that is too long for what it could be.
    #[error("the line is longer than {max} bytes")]
    LineTooLong {
        /// The most that is read.
        max: usize,
    },
    /// An input that is too long, or does not end.
    #[error("the list is longer than {max} bytes; import it in parts")]
    ListTooLong {
        /// The most that is read.
        max: usize,
    },
    /// A JSON object lacks a field.
    #[error("the object has no field {name:?}")]
    MissingField {
        /// The field.
        name: &'static str,
    },
    /// The line is no JSON object, or a field has another type than it should.
    #[error("{0}")]
    Json(String),
}

/// Longest part of a wrong value that is repeated in a complaint.
const SHOWN_CHARS_MAX: usize = 40;

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Problem {
    pub(super) fn not_a_number(field: Field, found: &str) -> Self {
        Problem::NotANumber { field, found: shown(found) }
    }
    pub(super) fn negative(field: Field, found: &str) -> Self {
        Problem::Negative { field, found: shown(found) }
    }
    pub(super) fn too_large(field: Field, found: &str, max: u64) -> Self {
        Problem::TooLarge { field, found: shown(found), max }
    }
}
