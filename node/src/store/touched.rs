//! What of the catalog has changed since somebody last looked: kept for the feed of the fronts' caches, and no part of
//! the replicated state.

use std::sync::Arc;

use hashbrown::HashMap;

/// Books that are remembered one by one; of more it is only known that there were many.
const BOOKS_MAX: usize = 65_536;

/// What of a book has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Only its stock.
    Stock,
    /// Only its price.
    Cost,
    /// It came, it went, or more of it changed.
    Whole,
}

/// A book that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The book.
    pub id: Arc<str>,
    /// What of it.
    pub part: Part,
    /// Position of the last change.
    pub seq: u64,
}

/// Changes in the order in which books and topics were first touched: the same on every replica.
#[derive(Debug, Default)]
pub struct Touched {
    books: Vec<Touch>,
    book_at: HashMap<Arc<str>, usize>,
    topics: Vec<(Arc<str>, u64)>,
    topic_at: HashMap<Arc<str>, usize>,
    /// There were changes that are not listed here.
    gap: bool,
}

impl Touched {
    /// Of a catalog of which nothing was known before.
    pub(super) fn with_gap() -> Self {
        Self { gap: true, ..Self::default() }
    }

    /// Whether there were changes that are not listed here.
    pub fn has_gap(&self) -> bool {
        self.gap
    }
    /// Books, each once.
    pub fn books(&self) -> &[Touch] {
        &self.books
    }
    /// Topics whose lists of books changed, each once, and the position at which they last did.
    pub fn topics(&self) -> &[(Arc<str>, u64)] {
        &self.topics
    }

    pub(super) fn book(&mut self, id: &Arc<str>, part: Part, seq: u64) {
        if self.gap {
            return;
        }
        if let Some(touch) = self.book_at.get(id).and_then(|at| self.books.get_mut(*at)) {
            touch.part = if touch.part == part { part } else { Part::Whole };
            touch.seq = seq;
        } else if self.books.len() < BOOKS_MAX {
            self.book_at.insert(id.clone(), self.books.len());
            self.books.push(Touch { id: id.clone(), part, seq });
        } else {
            *self = Self::with_gap();
        }
    }

    pub(super) fn topic(&mut self, topic: &Arc<str>, seq: u64) {
        if self.gap {
            return;
        }
        if let Some((_, last)) = self.topic_at.get(topic).and_then(|at| self.topics.get_mut(*at)) {
            *last = seq;
        } else {
            self.topic_at.insert(topic.clone(), self.topics.len());
            self.topics.push((topic.clone(), seq));
        }
    }
}
