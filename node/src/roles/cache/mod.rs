//! What a front keeps of the catalogs' answers, and why it may answer from that (RING §6).
//!
//! * [`Cache`]: answers by key, each with the position at which it was true, changed by the feed.
//! * [`recent`]: the keys that the feed has changed lately, so that no answer that is out of date gets in.
//! * [`floors`]: how far an answer must reach: barriers, counted from when they were sent.
//! * [`link`]: which catalog feeds this front.
//! * [`coalesce`]: reads that wait for one another's answer.
//!
//! Two numbers carry the proof. *Processed*: of every change up to this position the cache has been told. *Own position*: an
//! entry was true there, and everything that the feed told with a higher one has been put into it. So each entry is true at
//! the higher of its own position and processed, and that is what an answer names. A feed that is told twice, late or by
//! another catalog changes nothing: what is not higher than an entry's own position is passed over.

pub mod coalesce;
pub mod floors;
pub mod link;
mod pages;
pub mod recent;
mod store;
#[cfg(test)]
mod tests;

use bytes::{BufMut, BytesMut};
use pygmy_proto::message::{Feed, FeedChange, SearchOk};
use pygmy_proto::types::Topic;
use pygmy_proto::{BookId, ErrorBody, ErrorCode, Kind, codec};

use self::pages::{Content, Page};
use self::recent::Recent;
use self::store::{Entry, Key, Store, Value};
use super::reads::Read;
use crate::mistake::{Mistake, Planted};
use crate::store::unknown_book;

/// Bytes of an answer before the part that is kept: its position.
pub const SEQ_LEN: usize = size_of::<u64>();

/// Why the feed cannot be believed: everything is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Something before it was not told.
    Gap,
    /// It ends before what was told already.
    Backwards,
    /// It changes a book that is not as a book can be.
    Contradiction,
}

/// What became of the cache so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries that the feed has changed or taken out.
    pub invalidations: u64,
    /// Answers that were not kept, for they might be out of date.
    pub refused: u64,
    /// Times that everything was forgotten.
    pub emptied: u64,
}

/// What the cache says to a read.
#[derive(Debug)]
pub enum Found<'a> {
    /// Its answer.
    Answer(Answer<'a>),
    /// It has one, but must hear more from the feed before it may give it.
    Behind,
    /// It has none.
    Nothing,
}

/// An answer that is lent from the cache.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The kind of its frame.
    pub kind: Kind,
    /// The position that it reflects.
    pub seq: u64,
    body: Body<'a>,
}

#[derive(Debug)]
enum Body<'a> {
    Encoded(&'a [u8]),
    Books { store: &'a Store, total: u64, ids: &'a [BookId], next: Option<BookId> },
}

impl Answer<'_> {
    /// Appends its body.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.seq);
        match &self.body {
            Body::Encoded(rest) => out.extend_from_slice(rest),
            Body::Books { store, total, ids, next } => {
                out.put_u64_le(*total);
                out.put_u64_le(ids.len() as u64);
                for id in *ids {
                    if let Some(Entry { value: Value::Book(book), .. }) = store.get(&Key::Book(*id)) {
                        out.extend_from_slice(book);
                    }
                }
                codec::encode_to(next, out);
            }
        }
    }
}

/// The cache of a front.
#[derive(Debug)]
pub struct Cache {
    store: Store,
    recent: Recent,
    /// All changes up to here have been told.
    processed: u64,
    /// Whether `processed` is the place at which a feed can go on; it is not when something was missed.
    placed: bool,
    counters: Counters,
    planted: Planted,
}

impl Cache {
    /// A cache of at most `bytes_max` bytes; with 0 it keeps nothing. `seed` makes its hashes its own.
    pub fn new(bytes_max: u64, seed: u64) -> Self {
        Self {
            store: Store::new(bytes_max, seed),
            recent: Recent::new(recent::CHANGES_MAX),
            processed: 0,
            placed: false,
            counters: Counters::default(),
            planted: Planted::default(),
        }
    }

    /// Makes a known mistake from now on.
    #[cfg(feature = "mistakes")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Whether it keeps anything at all.
    pub fn is_on(&self) -> bool {
        self.store.bytes_max() > 0
    }
    /// All changes up to here have been told.
    pub fn processed(&self) -> u64 {
        self.processed
    }
    /// Where a feed can go on so that nothing need be forgotten.
    pub fn place(&self) -> Option<u64> {
        self.placed.then_some(self.processed)
    }
    /// What became of it so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
    /// Entries kept.
    pub fn entries(&self) -> u64 {
        self.store.len() as u64
    }
    /// What they take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.store.bytes()
    }
    /// The most that they may take.
    pub fn bytes_max(&self) -> u64 {
        self.store.bytes_max()
    }

    /// The answer to a read that must not reflect a position before `floor`.
    pub fn find(&self, read: &Read, floor: u64) -> Found<'_> {
        match read {
            Read::Lookup(lookup) => self.find_book(lookup.book.as_bytes(), floor),
            Read::Search(search) => {
                let after = search.after.as_ref().map(BookId::as_str);
                self.find_page(&Key::Topic(search.topic), search.limit, after, floor)
            }
            Read::Topics(topics) => {
                let after = topics.after.as_ref().map(|topic| topic.as_str());
                self.find_page(&Key::Topics, topics.limit, after, floor)
            }
            Read::Books(_) | Read::Order(_) | Read::Orders(_) | Read::Floor(_) => Found::Nothing,
        }
    }

    /// The answer to a lookup of the book with this id, as [`Self::find`] gives it.
    pub fn find_book(&self, id: &[u8], floor: u64) -> Found<'_> {
        match self.store.get_book(id) {
            Some(Entry { seq, value: Value::Book(book) }) => self.lend(Kind::LookupOk, *seq, book, floor),
            Some(Entry { seq, value: Value::Unknown(error) }) => self.lend(Kind::Error, *seq, error, floor),
            _ => Found::Nothing,
        }
    }

    fn lend<'a>(&self, kind: Kind, own: u64, rest: &'a [u8], floor: u64) -> Found<'a> {
        let seq = own.max(self.processed);
        if seq < floor {
            return Found::Behind;
        }
        Found::Answer(Answer { kind, seq, body: Body::Encoded(rest) })
    }

    fn find_page(&self, key: &Key, limit: u32, after: Option<&str>, floor: u64) -> Found<'_> {
        let Some(Entry { value: Value::Pages(pages), .. }) = self.store.get(key) else { return Found::Nothing };
        let Some(page) = pages.get(limit, after) else { return Found::Nothing };
        match &page.content {
            Content::Encoded { kind, rest } => self.lend(*kind, page.seq, rest, floor),
            Content::Books { total, ids, next } => self.put_together(page.seq, *total, ids, *next, floor),
        }
    }

    /// A page of a topic, of its list and its books. They are all true at one position once none of them is ahead of what has
    /// been processed.
    fn put_together<'a>(
        &'a self,
        own: u64,
        total: u64,
        ids: &'a [BookId],
        next: Option<BookId>,
        floor: u64,
    ) -> Found<'a> {
        let mut newest = own;
        for id in ids {
            match self.store.peek(&Key::Book(*id)) {
                Some(Entry { seq, value: Value::Book(_) }) => newest = newest.max(*seq),
                _ => return Found::Nothing,
            }
        }
        if self.processed < newest.max(floor) {
            return Found::Behind;
        }
        let body = Body::Books { store: &self.store, total, ids, next };
        Found::Answer(Answer { kind: Kind::SearchOk, seq: self.processed, body })
    }

    /// Keeps what a catalog has answered at position `seq`; `rest` is the body behind that. Whether it was believed.
    pub fn fill(&mut self, read: &Read, kind: Kind, seq: u64, rest: &[u8]) -> bool {
        if !self.is_on() {
            return false;
        }
        let kept = match (read, kind) {
            (Read::Lookup(lookup), Kind::LookupOk) => self.fill_book(lookup.book, seq, Value::Book(rest.into())),
            (Read::Lookup(lookup), Kind::Error) => self.fill_book(lookup.book, seq, Value::Unknown(rest.into())),
            (Read::Search(search), Kind::SearchOk) => {
                let Some(content) = self.fill_books(seq, rest) else { return false };
                let after = search.after.as_ref().map(BookId::as_str);
                self.fill_page(Key::Topic(search.topic), Page::new(search.limit, after, seq, content))
            }
            (Read::Search(search), Kind::Error) => {
                let after = search.after.as_ref().map(BookId::as_str);
                let content = Content::Encoded { kind, rest: rest.into() };
                self.fill_page(Key::Topic(search.topic), Page::new(search.limit, after, seq, content))
            }
            (Read::Topics(topics), Kind::TopicsOk) => {
                let after = topics.after.as_ref().map(|topic| topic.as_str());
                let content = Content::Encoded { kind, rest: rest.into() };
                self.fill_page(Key::Topics, Page::new(topics.limit, after, seq, content))
            }
            _ => return false,
        };
        if !kept {
            self.counters.refused += 1;
        }
        kept
    }

    /// Whether what was true of a key at `seq` may have changed by what has been processed.
    fn is_stale(&self, key: &Key, seq: u64) -> bool {
        // What has been processed ends before it: the feed has yet to tell what changes it.
        if seq >= self.processed || self.planted.makes(Mistake::FillRacesInvalidation) {
            return false;
        }
        self.recent.may_have_changed(self.store.hash(key), seq)
    }

    fn fill_book(&mut self, id: BookId, seq: u64, value: Value) -> bool {
        let key = Key::Book(id);
        if self.is_stale(&key, seq) {
            return false;
        }
        // Of two answers the later one stays. It may have been changed by the feed since.
        if self.store.peek(&key).is_none_or(|kept| kept.seq < seq) {
            self.store.insert(key, Entry { seq, value });
        }
        true
    }

    /// Keeps the books of a page each by itself; what else there is of the page.
    fn fill_books(&mut self, seq: u64, rest: &[u8]) -> Option<Content> {
        let mut whole = BytesMut::with_capacity(SEQ_LEN + rest.len());
        whole.put_u64_le(seq);
        whole.extend_from_slice(rest);
        let page: SearchOk = codec::decode(&whole).ok()?;
        for book in &page.books {
            self.fill_book(book.id, seq, Value::Book(codec::encode(book).as_ref().into()));
        }
        let ids = page.books.iter().map(|book| book.id).collect();
        Some(Content::Books { total: page.total, ids, next: page.next })
    }

    fn fill_page(&mut self, key: Key, page: Page) -> bool {
        if self.is_stale(&key, page.seq) {
            return false;
        }
        self.store.change_pages(key, |pages| pages.put(page));
        true
    }

    /// Forgets everything: a feed begins behind `place`, or what was missed is not known.
    pub fn empty(&mut self, place: Option<u64>) {
        self.counters.emptied += u64::from(self.store.len() > 0);
        self.store.clear();
        self.processed = place.unwrap_or(self.processed);
        self.placed = place.is_some();
        self.recent.clear(self.processed);
    }

    /// A feed goes on behind `after`. What is kept stays if that is where the last one ended.
    pub fn resume(&mut self, after: u64) {
        if self.place() != Some(after) {
            self.empty(Some(after));
        }
    }

    /// Takes in what a feed tells.
    ///
    /// # Errors
    /// It cannot be believed. What is kept must be forgotten.
    pub fn apply(&mut self, feed: &Feed) -> Result<(), Doubt> {
        let believes = self.planted.makes(Mistake::FeedResumedBackwards);
        if feed.after > self.processed && !believes {
            return Err(Doubt::Gap);
        }
        if feed.upto < self.processed && !believes {
            return Err(Doubt::Backwards);
        }
        for change in &feed.changes {
            self.change(change)?;
        }
        self.processed = feed.upto.max(self.processed);
        Ok(())
    }

    fn change(&mut self, change: &FeedChange) -> Result<(), Doubt> {
        match change {
            FeedChange::Listing { topic, seq } => {
                self.change_listing(topic, *seq);
                Ok(())
            }
            FeedChange::Stock { book, seq, .. }
            | FeedChange::Cost { book, seq, .. }
            | FeedChange::Gone { book, seq } => self.change_book(book, *seq, change),
            FeedChange::Book { book } => self.change_book(&book.id, book.changed_seq, change),
        }
    }

    fn change_book(&mut self, id: &BookId, seq: u64, change: &FeedChange) -> Result<(), Doubt> {
        let key = Key::Book(*id);
        self.recent.note(self.store.hash(&key), seq);
        let believes = self.planted.makes(Mistake::FeedResumedBackwards);
        match self.store.peek(&key) {
            Some(kept) if kept.seq < seq || believes => {}
            _ => return Ok(()),
        }
        self.counters.invalidations += 1;
        let value = match change {
            FeedChange::Book { book } => Value::Book(codec::encode(book).as_ref().into()),
            FeedChange::Gone { .. } => Value::Unknown(codec::encode(&unknown_book(id))[SEQ_LEN..].into()),
            FeedChange::Stock { stock, .. } => {
                return self.store.patch(&key, seq, |book| set_stock(book, *stock, seq)).ok_or(Doubt::Contradiction);
            }
            FeedChange::Cost { cost_cents, .. } => {
                return self
                    .store
                    .patch(&key, seq, |book| set_cost(book, *cost_cents, seq))
                    .ok_or(Doubt::Contradiction);
            }
            FeedChange::Listing { .. } => return Ok(()),
        };
        self.store.insert(key, Entry { seq, value });
        Ok(())
    }

    /// Other books have a topic: the pages of its list go, and those of the list of topics.
    fn change_listing(&mut self, topic: &Topic, seq: u64) {
        for key in [Key::Topic(*topic), Key::Topics] {
            self.recent.note(self.store.hash(&key), seq);
            self.counters.invalidations += self.store.drop_pages(&key, seq);
        }
    }
}

/// Where the fields of fixed size lie in an encoded [`Book`](pygmy_proto::message::Book), counted from its end: price, stock, position of the last
/// change.
const COST_FROM_END: usize = 20;
const STOCK_FROM_END: usize = 12;
const CHANGED_FROM_END: usize = 8;

fn put_at_end<const N: usize>(book: &mut [u8], from_end: usize, bytes: [u8; N]) -> Option<()> {
    let start = book.len().checked_sub(from_end)?;
    book.get_mut(start..start + N)?.copy_from_slice(&bytes);
    Some(())
}

fn set_stock(book: &mut [u8], stock: u32, seq: u64) -> Option<()> {
    put_at_end(book, STOCK_FROM_END, stock.to_le_bytes())?;
    put_at_end(book, CHANGED_FROM_END, seq.to_le_bytes())
}

fn set_cost(book: &mut [u8], cost_cents: u64, seq: u64) -> Option<()> {
    put_at_end(book, COST_FROM_END, cost_cents.to_le_bytes())?;
    put_at_end(book, CHANGED_FROM_END, seq.to_le_bytes())
}

/// The position that an answer to a read reflects, if it is one: its first field. An error that says nothing of the store's
/// state has none.
pub fn position(kind: Kind, body: &[u8]) -> Option<u64> {
    let says = match kind {
        Kind::LookupOk | Kind::SearchOk | Kind::TopicsOk | Kind::BooksOk | Kind::OrderOk | Kind::OrdersOk => true,
        Kind::Error => codec::decode::<ErrorBody>(body).is_ok_and(|error| tells_state(&error)),
        _ => false,
    };
    let (seq, _) = body.split_first_chunk::<SEQ_LEN>().filter(|_| says)?;
    Some(u64::from_le_bytes(*seq))
}

fn tells_state(error: &ErrorBody) -> bool {
    let known = error.known_code();
    error.seq > 0 && matches!(known, Some(ErrorCode::UnknownBook | ErrorCode::UnknownTopic | ErrorCode::UnknownOrder))
}

const _: () = assert!(CHANGED_FROM_END == size_of::<u64>());
const _: () = assert!(STOCK_FROM_END == CHANGED_FROM_END + size_of::<u32>());
const _: () = assert!(COST_FROM_END == STOCK_FROM_END + size_of::<u64>());
