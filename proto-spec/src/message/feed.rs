//! What keeps the caches of fronts coherent: barriers on their behalf, and the feed of changes.

use bincode::{Decode, Encode};

use super::client::Book;
use crate::limits::FEED_CHANGES_MAX;
use crate::types::{BookId, Bounded, Topic};

/// Front to catalog: "up to where had been answered to anybody before this came?"
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Floor {}

/// The answer to [`Floor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FloorOk {
    /// No write beyond this position had been answered.
    pub seq: u64,
}

/// Front to catalog: asks for the changes of books. It takes the place of whatever the front had asked for before on
/// this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FeedOpen {
    /// The position up to which the front knows all changes; none: it knows nothing and wants what comes from now on.
    pub after: Option<u64>,
}

/// Catalog to front: the changes behind this position follow. When it is not the position that the front is at, what lies
/// between cannot be told any more, and the front must forget all it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FeedOk {
    /// The position.
    pub after: u64,
}

/// Catalog to front: what has changed between two positions. Only what is committed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Feed {
    /// The front must have been told of everything up to here before.
    pub after: u64,
    /// With this it has been told of everything up to here.
    pub upto: u64,
    /// The changes. Each value is the one at the end of the turn in which the catalog applied them.
    pub changes: Bounded<FeedChange, FEED_CHANGES_MAX>,
}

/// What has changed of one book, or of one topic's list of books.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FeedChange {
    /// Only the stock of a book.
    Stock {
        /// The book.
        book: BookId,
        /// Position of its last change.
        seq: u64,
        /// Copies that can be bought.
        stock: u32,
    },
    /// Only the price of a book.
    Cost {
        /// The book.
        book: BookId,
        /// Position of its last change.
        seq: u64,
        /// Price of a copy, in cents.
        cost_cents: u64,
    },
    /// A book is new, or more of it has changed.
    Book {
        /// The book as it is; its last change has the position in it.
        book: Book,
    },
    /// A book is no longer there.
    Gone {
        /// The book.
        book: BookId,
        /// Position at which it went.
        seq: u64,
    },
    /// Other books have a topic than before.
    Listing {
        /// The topic.
        topic: Topic,
        /// Position of the last such change.
        seq: u64,
    },
}

/// Front to catalog: how much of the feed it has read, so that a front that does not keep up costs its catalog nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FeedRead {
    /// Bytes of all `Feed` frames, their headers included, since the first [`FeedOk`].
    pub bytes: u64,
}
