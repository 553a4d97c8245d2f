//! What was asked of the store during an audit and what it answered.

use std::io::{self, Write};

use pygmy_proto::BookId;
use pygmy_proto::message::{Command, Line, Lines, OrderRecord};
use serde::Serialize;

/// A write, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// A cart.
    Buy {
        /// Its lines.
        lines: Vec<Line>,
    },
    /// More copies of a book.
    Restock {
        /// The book.
        book: BookId,
        /// Copies added.
        copies: u32,
    },
}

impl Action {
    /// As the protocol's command.
    pub fn command(&self) -> Command {
        match self {
            Action::Buy { lines } => Command::Buy { lines: Lines::truncated(lines.clone()) },
            Action::Restock { book, copies } => Command::Restock { book: *book, copies: *copies },
        }
    }
}

/// The final answer to a write, or that there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Answer {
    /// The order as done.
    Bought {
        /// The order.
        order: OrderRecord,
    },
    /// The stock after a restock.
    Restocked {
        /// Position in the log.
        seq: u64,
        /// Copies of the book right after it.
        stock: u32,
    },
    /// Refused for good: it has not been done and never will be.
    Refused {
        /// Number of the error's code.
        code: u16,
        /// What was said.
        detail: String,
    },
    /// It may have been done.
    Unknown {
        /// What was heard last.
        why: String,
    },
}

/// One write from its first sending to its final answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The client, from 0.
    pub client: usize,
    /// Its session.
    pub session: u64,
    /// The write's number in the session.
    pub counter: u64,
    /// When it was first sent, in nanoseconds of the audit's clock.
    pub start_ns: u64,
    /// When its final answer came.
    pub end_ns: u64,
    /// How often it was sent: more than once after a lost connection or a "not now".
    pub sends: u32,
    /// What was asked.
    #[serde(flatten)]
    pub action: Action,
    /// What was answered.
    #[serde(flatten)]
    pub answer: Answer,
}

impl Operation {
    /// Its place in the log, where it is known to have one.
    pub fn seq(&self) -> Option<u64> {
        match &self.answer {
            Answer::Bought { order } => Some(order.number),
            Answer::Restocked { seq, .. } => Some(*seq),
            Answer::Refused { .. } | Answer::Unknown { .. } => None,
        }
    }
}

/// Writes one operation a line.
///
/// # Errors
/// Those of `out`.
pub fn write(history: &[Operation], out: &mut impl Write) -> io::Result<()> {
    for operation in history {
        serde_json::to_writer(&mut *out, operation)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
