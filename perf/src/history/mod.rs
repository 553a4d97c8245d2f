//! What was asked of a store, when, and what it answered: the records that every checker here judges by.
//!
//! A [`History`] is evidence and nothing else: it knows no cluster and can come from anywhere. [`mod@file`] keeps it,
//! [`check`] judges it by the log positions that the answers name, [`linear`] without believing any of them.

pub mod check;
pub mod file;
pub mod judge;
pub mod linear;
#[cfg(test)]
mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use pygmy_proto::message::{Book, Command, Line, Lines, OrderRecord};
use pygmy_proto::{BookId, ErrorBody, ErrorCode};
use serde::{Deserialize, Serialize};

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Action {
    /// To buy a cart.
    Buy {
        /// Its lines.
        lines: Vec<Line>,
    },
    /// To add copies of a book.
    Restock {
        /// The book.
        book: BookId,
        /// Copies added.
        copies: u32,
    },
    /// To change a book's price.
    Reprice {
        /// The book.
        book: BookId,
        /// The price of a copy, in cents.
        cost_cents: u64,
    },
    /// To see a book.
    Lookup {
        /// The book.
        book: BookId,
        /// Whether the answer must reflect everything answered before, to anyone.
        fresh: bool,
    },
}

impl Action {
    /// As the protocol's command; none for a read.
    pub fn command(&self) -> Option<Command> {
        match self {
            Action::Buy { lines } => Some(Command::Buy { lines: Lines::truncated(lines.clone()) }),
            Action::Restock { book, copies } => Some(Command::Restock { book: *book, copies: *copies }),
            Action::Reprice { book, cost_cents } => Some(Command::Reprice { book: *book, cost_cents: *cost_cents }),
            Action::Lookup { .. } => None,
        }
    }

    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Action::Lookup { .. })
    }

    /// Whether it is a read that must reflect everything answered before.
    pub fn is_fresh(&self) -> bool {
        matches!(self, Action::Lookup { fresh: true, .. })
    }
}

/// How one asking ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The price was changed.
    Repriced {
        /// Position in the log.
        seq: u64,
        /// Copies of the book at that moment.
        stock: u32,
        /// The price before.
        old_cost_cents: u64,
    },
    /// A book as it is at a position of the log.
    Found {
        /// The position.
        seq: u64,
        /// The book.
        book: BookState,
    },
    /// Refused for good, after the store had looked: it has not been done and never will be under this identity.
    Refused {
        /// Number of the error's code.
        code: u16,
        /// What was said.
        detail: String,
        /// Where too few copies were the reason: of which book, and how many there were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        short: Option<Short>,
    },
    /// This asking did nothing and never will; the client library says so of what it could not deliver.
    NotDone {
        /// What was heard last.
        why: String,
    },
    /// A write that may have been done, or a read that was not answered.
    Unknown {
        /// What was heard last.
        why: String,
    },
}

/// Why a cart was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Short {
    /// The book that was short.
    pub book: BookId,
    /// Copies there were.
    pub stock: u32,
}

impl Short {
    /// Out of a refusal, where that is its reason.
    pub fn of(error: &ErrorBody) -> Option<Self> {
        let book = BookId::new(&error.subject).ok().filter(|_| error.code == ErrorCode::NotEnoughStock as u16)?;
        Some(Self { book, stock: u32::try_from(error.limit).ok()? })
    }
}

/// What of a book can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BookState {
    /// Copies that can be bought.
    pub stock: u32,
    /// The price of a copy.
    pub cost_cents: u64,
    /// Position of its last change.
    pub changed_seq: u64,
}

impl From<&Book> for BookState {
    fn from(book: &Book) -> Self {
        Self { stock: book.stock, cost_cents: book.cost_cents, changed_seq: book.changed_seq }
    }
}

/// Books and how they are.
pub type Shelf = BTreeMap<BookId, BookState>;

/// One asking, from its first sending to the end of its call. A write that was asked again after its call had ended
/// is there once more, under the same session and counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client, from 0: one user of the client library, who asks one thing after the other or several at once, and
    /// whose reads never go back.
    pub client: usize,
    /// The session of a write.
    #[serde(default)]
    pub session: u64,
    /// The write's number in the session.
    #[serde(default)]
    pub counter: u64,
    /// When it was asked, in nanoseconds of the one clock of the history.
    pub start_ns: u64,
    /// When the call ended.
    pub end_ns: u64,
    /// How often it was sent: more than once after a lost connection or a "not now".
    #[serde(default)]
    pub sends: u32,
    /// Number of the front end it went to; 0: not known.
    #[serde(default)]
    pub front: u16,
    /// Number of the server that made the answer; 0: not known.
    #[serde(default)]
    pub served_by: u16,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub answer: Answer,
}

impl Operation {
    /// The position in the log that the answer names: of a write its own, of a read the one it reflects.
    pub fn seq(&self) -> Option<u64> {
        match &self.answer {
            Answer::Bought { order } => Some(order.number),
            Answer::Restocked { seq, .. } | Answer::Repriced { seq, .. } | Answer::Found { seq, .. } => Some(*seq),
            Answer::Refused { .. } | Answer::NotDone { .. } | Answer::Unknown { .. } => None,
        }
    }
}

/// What one replica holds in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaView {
    /// Its name.
    pub name: String,
    /// Applied up to.
    pub applied: u64,
    /// Hash of its state there.
    pub state_hash: u64,
    /// Every book.
    pub books: Shelf,
    /// Orders done since the beginning, in ascending order of number.
    pub ledger: Vec<Arc<OrderRecord>>,
    /// On order servers: each acknowledged order, asked for by its number. `None`: it was not found.
    pub by_number: Option<HashMap<u64, Option<Arc<OrderRecord>>>>,
}

/// Everything a checker judges by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Every book before the first operation.
    pub initial: Shelf,
    /// Everything that was asked, in no particular order.
    pub operations: Vec<Operation>,
    /// Every log replica afterwards; none where nobody looked.
    pub replicas: Vec<ReplicaView>,
}
