//! Reads a list from a stream that may be anything, and may not end.

use std::io::{self, Read};

use super::error::{Fault, InventoryError, Problem};
use super::{Format, NewBook, parse};

/// Longest line in bytes. A book takes a few thousand at most; further columns may hold more.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Longest list in bytes: some millions of books.
pub const LIST_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// After so many bytes it is looked whether they are a list at all.
const LOOK_AFTER_BYTES: usize = 256 * 1024;
const CHUNK_BYTES: usize = 64 * 1024;

/// Why no list was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no good list.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

/// Reads all books of `input`, as [`parse`] does; without a format, by what the first line looks like. An input that
/// does not end, or is something else altogether, is given up early.
///
/// # Errors
/// The stream fails, or what is wrong with the list, and where.
pub fn read(input: impl Read, format: Option<Format>) -> Result<Vec<NewBook>, ReadError> {
    read_at_most(input, format, LIST_BYTES_MAX)
}

pub(super) fn read_at_most(
    mut input: impl Read,
    format: Option<Format>,
    bytes_max: usize,
) -> Result<Vec<NewBook>, ReadError> {
    let mut bytes = Vec::new();
    let mut line_start = 0;
    let mut is_looked_at = false;
    loop {
        let before = bytes.len();
        if input.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut bytes)? == 0 {
            let format = format.unwrap_or_else(|| Format::sniff(&bytes));
            return Ok(parse(&bytes, format)?);
        }
        let refuse = |problem| InventoryError::at(&bytes, Fault { offset: line_start, problem });
        if bytes.len() > bytes_max {
            return Err(refuse(Problem::ListTooLong { max: bytes_max }).into());
        }
        let last_break = bytes[before..].iter().rposition(|byte| *byte == b'\n');
        let first_break = bytes[before..].iter().position(|byte| *byte == b'\n');
        let line_end = first_break.map_or(bytes.len(), |at| before + at);
        if line_end - line_start > LINE_BYTES_MAX {
            return Err(refuse(Problem::LineTooLong { max: LINE_BYTES_MAX }).into());
        }
        line_start = last_break.map_or(line_start, |at| before + at + 1);
        if !is_looked_at && line_start >= LOOK_AFTER_BYTES {
            is_looked_at = true;
            look(&bytes[..line_start], format)?;
        }
    }
}

/// Refuses the beginning of a list for what no continuation could mend.
fn look(lines: &[u8], format: Option<Format>) -> Result<(), InventoryError> {
    let format = format.unwrap_or_else(|| Format::sniff(lines));
    match parse(lines, format) {
        Err(error) if !matches!(error.problem, Problem::Count { .. } | Problem::UnclosedQuote | Problem::Empty) => {
            Err(error)
        }
        _ => Ok(()),
    }
}
