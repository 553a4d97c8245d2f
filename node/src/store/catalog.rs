//! The books: by id for buys and lookups, by topic and id for listings.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use pygmy_proto::limits::{TITLE_LEN_MAX, TOPIC_LEN_MAX};
use pygmy_proto::message::{Book, BooksCursor, BooksOk, NewBook, SearchOk, TopicCount, TopicsOk};
use pygmy_proto::types::{Bounded, Title, Topic};
use pygmy_proto::{BookId, ErrorBody, ErrorCode};
use xxhash_rust::xxh3::Xxh3;

use super::books::{Books, Record};
use super::touched::{Part, Touched};
use super::{not_enough, unknown_book};

/// A book, lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookRef<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its title.
    pub title: &'a str,
    /// Its topic.
    pub topic: &'a str,
    /// Price of a copy, in cents.
    pub cost_cents: u64,
    /// Copies that can be bought.
    pub stock: u32,
    /// Position in the log of its last change.
    pub changed_seq: u64,
}

/// Makes a catalog of books that come in the order of [`Catalog::iter`].
#[derive(Debug, Default)]
pub struct Restore {
    catalog: Catalog,
    /// The topic whose books are coming, and their ids so far. A set is made of them at once, which is much cheaper
    /// than of one at a time.
    topic: Option<Arc<str>>,
    ids: Vec<Arc<str>>,
}

impl Restore {
    /// Of no books so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next book.
    ///
    /// # Errors
    /// It is none, or out of order.
    pub fn push(&mut self, book: BookRef<'_>) -> Result<(), &'static str> {
        // What answers rely on. Whatever else makes a valid book was seen to when it was added.
        let fits = book.title.len() <= TITLE_LEN_MAX && book.topic.len() <= TOPIC_LEN_MAX;
        if !fits || BookId::new(book.id).is_err() {
            return Err("a book with an id, a title or a topic that no book has");
        }
        let topic = match &self.topic {
            Some(topic) if **topic == *book.topic => topic.clone(),
            Some(topic) if **topic > *book.topic => return Err("topics out of order"),
            _ => self.begin(book.topic),
        };
        if self.ids.last().is_some_and(|last| **last >= *book.id) {
            return Err("books out of order");
        }
        let id: Arc<str> = Arc::from(book.id);
        let BookRef { cost_cents, stock, changed_seq, .. } = book;
        if self.catalog.books.get(&id).is_some() {
            return Err("a book that stands twice");
        }
        let record = Record::new((id.clone(), book.title.into(), topic), cost_cents, stock, changed_seq);
        self.catalog.hash = self.catalog.hash.wrapping_add(record.hash());
        self.ids.push(id);
        self.catalog.books.insert(record);
        Ok(())
    }

    /// The catalog.
    pub fn finish(mut self) -> Catalog {
        self.end();
        self.catalog
    }

    fn begin(&mut self, topic: &str) -> Arc<str> {
        self.end();
        let topic: Arc<str> = Arc::from(topic);
        self.topic = Some(topic.clone());
        topic
    }

    fn end(&mut self) {
        if let Some(topic) = self.topic.take() {
            self.catalog.topics.insert(topic, std::mem::take(&mut self.ids).into_iter().collect());
        }
    }
}

/// All books as they were at a moment.
#[derive(Debug, Clone)]
pub struct CatalogImage {
    books: Books,
}

impl CatalogImage {
    /// How many.
    pub fn len(&self) -> usize {
        self.books.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Hash of all books, of what they are and not of what was known of them.
    pub fn state_hash(&self) -> u64 {
        self.books.iter().fold(0, |hash: u64, book| hash.wrapping_add(book.hash()))
    }
    /// Books by topic and id: the same order on every replica.
    pub fn sorted(&self) -> Vec<BookRef<'_>> {
        let mut books: Vec<_> = self.books.iter().map(lend).collect();
        books.sort_unstable_by_key(|book| (book.topic, book.id));
        books
    }
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Added,
    Changed,
    Unchanged,
}

/// All books.
#[derive(Debug, Default)]
pub struct Catalog {
    books: Books,
    /// Invariant: the ids of `books`, each under its book's topic; no empty set.
    topics: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Sum over the hashes of all books: independent of order, changes in O(1).
    hash: u64,
    /// What has changed since [`Catalog::take_changes`], if somebody asks; no part of the state.
    touched: Option<Box<Touched>>,
}

impl Catalog {
    /// From now on changes are noted for [`Self::take_changes`].
    pub fn track_changes(&mut self) {
        self.touched = Some(Box::new(Touched::with_gap()));
    }

    /// What has changed since the last call; `None` when changes are not noted.
    pub fn take_changes(&mut self) -> Option<Touched> {
        self.touched.as_deref_mut().map(std::mem::take)
    }

    fn touch(&mut self, id: &Arc<str>, part: Part, seq: u64) {
        if let Some(touched) = &mut self.touched {
            touched.book(id, part, seq);
        }
    }

    fn touch_topic(&mut self, topic: &Arc<str>, seq: u64) {
        if let Some(touched) = &mut self.touched {
            touched.topic(topic, seq);
        }
    }

    /// Books in the store.
    pub fn len(&self) -> usize {
        self.books.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.books.len() == 0
    }
    /// Hash of all books.
    pub fn state_hash(&self) -> u64 {
        self.hash
    }

    /// One book.
    pub fn get(&self, id: &BookId) -> Option<Book> {
        self.books.get(id.as_str()).map(to_book)
    }

    /// A page of a topic's books in ascending order of id.
    ///
    /// # Errors
    /// `UnknownTopic`.
    pub fn search(&self, seq: u64, topic: &Topic, limit: u32, after: Option<&BookId>) -> Result<SearchOk, ErrorBody> {
        let Some(ids) = self.topics.get(topic.as_str()) else {
            let detail = format!("no book has the topic {:?}: `topics` lists those there are", topic.as_str());
            return Err(ErrorBody::new(ErrorCode::UnknownTopic).subject(topic).detail(&detail));
        };
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str()));
        let mut rest = ids.range::<str, _>((from, Bound::Unbounded));
        let books: Vec<Book> = rest.by_ref().take(limit as usize).filter_map(|id| self.book(id)).collect();
        let next = if rest.next().is_some() { books.last().map(|book| book.id) } else { None };
        Ok(SearchOk { seq, total: ids.len() as u64, books: Bounded::truncated(books), next })
    }

    /// A page of the topics in ascending order.
    pub fn topics(&self, seq: u64, limit: u32, after: Option<&Topic>) -> TopicsOk {
        let from = after.map_or(Bound::Unbounded, |topic| Bound::Excluded(topic.as_str()));
        let mut rest = self.topics.range::<str, _>((from, Bound::Unbounded));
        let page = rest.by_ref().take(limit as usize);
        let topics: Vec<TopicCount> =
            page.map(|(topic, ids)| TopicCount { topic: Topic::truncated(topic), books: ids.len() as u64 }).collect();
        let next = if rest.next().is_some() { topics.last().map(|count| count.topic) } else { None };
        TopicsOk { seq, total: self.topics.len() as u64, topics: Bounded::truncated(topics), next }
    }

    /// A page of all books, by topic and id.
    pub fn page(&self, seq: u64, limit: u32, after: Option<&BooksCursor>) -> BooksOk {
        let first_topic = after.map_or(Bound::Unbounded, |cursor| Bound::Included(cursor.topic.as_str()));
        let mut rest = self.topics.range::<str, _>((first_topic, Bound::Unbounded)).flat_map(|(topic, ids)| {
            let from = match after {
                Some(cursor) if cursor.topic.as_str() == &**topic => Bound::Excluded(cursor.id.as_str()),
                _ => Bound::Unbounded,
            };
            ids.range::<str, _>((from, Bound::Unbounded))
        });
        let books: Vec<Book> = rest.by_ref().take(limit as usize).filter_map(|id| self.book(id)).collect();
        let more = rest.next().is_some();
        let next = books.last().filter(|_| more).map(|book| BooksCursor { topic: book.topic, id: book.id });
        BooksOk { seq, total: self.books.len() as u64, books: Bounded::truncated(books), next }
    }

    /// All books, by topic and id: the same order on every replica.
    pub fn iter(&self) -> impl Iterator<Item = BookRef<'_>> {
        self.topics.values().flatten().filter_map(|id| self.books.get(id).map(lend))
    }

    /// The books as they are now.
    pub fn image(&self) -> CatalogImage {
        CatalogImage { books: self.books.clone() }
    }

    fn book(&self, id: &str) -> Option<Book> {
        self.books.get(id).map(to_book)
    }

    /// Fails unless `copies` of the book are there.
    pub(super) fn check_stock(&self, id: &BookId, copies: u32) -> Result<(), ErrorBody> {
        match self.books.get(id.as_str()) {
            None => Err(unknown_book(id)),
            Some(record) if record.stock < copies => Err(not_enough(&to_book(record), copies)),
            Some(_) => Ok(()),
        }
    }

    /// Takes `copies` off the stock; the price of one and what is left.
    pub(super) fn take(&mut self, seq: u64, id: &BookId, copies: u32) -> Result<(u64, u32), ErrorBody> {
        self.edit(seq, id, Part::Stock, |book| {
            book.stock = book.stock.checked_sub(copies).ok_or_else(|| not_enough(&to_book(book), copies))?;
            Ok((book.cost_cents, book.stock))
        })
    }

    pub(super) fn restock(&mut self, seq: u64, id: &BookId, copies: u32) -> Result<Book, ErrorBody> {
        self.edit(seq, id, Part::Stock, |book| {
            book.stock = book.stock.checked_add(copies).ok_or_else(|| {
                let detail = format!("a stock of {id} with {copies} more would exceed the largest, {}", u32::MAX);
                let room = u64::from(u32::MAX - book.stock);
                ErrorBody::new(ErrorCode::StockOverflow).subject(id).limit(room, copies.into()).detail(&detail)
            })?;
            Ok(())
        })?;
        self.get(id).ok_or_else(|| unknown_book(id))
    }

    pub(super) fn reprice(&mut self, seq: u64, id: &BookId, cost_cents: u64) -> Result<(Book, u64), ErrorBody> {
        let old = self.edit(seq, id, Part::Cost, |book| Ok(std::mem::replace(&mut book.cost_cents, cost_cents)))?;
        self.get(id).map(|book| (book, old)).ok_or_else(|| unknown_book(id))
    }

    /// Changes a book in place; `change` fails before it changes anything, or not at all.
    fn edit<T>(
        &mut self,
        seq: u64,
        id: &BookId,
        part: Part,
        change: impl FnOnce(&mut Record) -> Result<T, ErrorBody>,
    ) -> Result<T, ErrorBody> {
        let record = self.books.get_mut(id.as_str()).ok_or_else(|| unknown_book(id))?;
        let before = record.hash();
        let value = change(record)?;
        record.changed_seq = seq;
        self.hash = self.hash.wrapping_sub(before).wrapping_add(record.hash());
        if let Some(touched) = &mut self.touched {
            touched.book(&record.id, part, seq);
        }
        Ok(value)
    }

    pub(super) fn retire(&mut self, seq: u64, id: &BookId) -> Result<Book, ErrorBody> {
        let record = self.books.remove(id.as_str()).ok_or_else(|| unknown_book(id))?;
        self.hash = self.hash.wrapping_sub(record.hash());
        self.unlist(&record.topic, &record.id);
        self.touch(&record.id, Part::Whole, seq);
        self.touch_topic(&record.topic, seq);
        Ok(to_book(&record))
    }

    /// Makes a book be as given.
    pub(super) fn put(&mut self, seq: u64, new: &NewBook) -> Put {
        let outcome = match self.books.get(new.id.as_str()) {
            None => Put::Added,
            Some(old) if same(old, new) => return Put::Unchanged,
            Some(_) => Put::Changed,
        };
        let (key, topic) = match self.books.remove(new.id.as_str()) {
            Some(old) => {
                let key = old.id.clone();
                self.hash = self.hash.wrapping_sub(old.hash());
                if *old.topic == *new.topic {
                    (key, old.topic)
                } else {
                    self.unlist(&old.topic, &key);
                    self.touch_topic(&old.topic, seq);
                    let topic = self.list(&new.topic, &key);
                    self.touch_topic(&topic, seq);
                    (key, topic)
                }
            }
            None => {
                let key: Arc<str> = Arc::from(new.id.as_str());
                let topic = self.list(&new.topic, &key);
                self.touch_topic(&topic, seq);
                (key, topic)
            }
        };
        self.touch(&key, Part::Whole, seq);
        let record = Record::new((key, (*new.title).into(), topic), new.cost_cents, new.stock, seq);
        self.hash = self.hash.wrapping_add(record.hash());
        self.books.insert(record);
        outcome
    }

    /// Lists `id` under `topic`; the shared name of the topic.
    fn list(&mut self, topic: &str, id: &Arc<str>) -> Arc<str> {
        if let Some((name, _)) = self.topics.get_key_value(topic) {
            let name = name.clone();
            self.topics.entry(name.clone()).or_default().insert(id.clone());
            return name;
        }
        let name: Arc<str> = Arc::from(topic);
        self.topics.entry(name.clone()).or_default().insert(id.clone());
        name
    }

    fn unlist(&mut self, topic: &str, id: &str) {
        if let Some(ids) = self.topics.get_mut(topic) {
            ids.remove(id);
            if ids.is_empty() {
                self.topics.remove(topic);
            }
        }
    }
}

fn same(old: &Record, new: &NewBook) -> bool {
    *old.title == *new.title && *old.topic == *new.topic && old.cost_cents == new.cost_cents && old.stock == new.stock
}

fn to_book(record: &Record) -> Book {
    // Every record was made of a valid id.
    let id = BookId::new(&record.id).unwrap_or_else(|error| unreachable!("stored id: {error}"));
    Book {
        id,
        title: Title::truncated(&record.title),
        topic: Topic::truncated(&record.topic),
        cost_cents: record.cost_cents,
        stock: record.stock,
        changed_seq: record.changed_seq,
    }
}

fn lend(record: &Record) -> BookRef<'_> {
    let Record { id, title, topic, cost_cents, stock, changed_seq, .. } = record;
    BookRef { id, title, topic, cost_cents: *cost_cents, stock: *stock, changed_seq: *changed_seq }
}

pub(super) fn hash_names(id: &str, title: &str, topic: &str) -> u64 {
    let mut hasher = Xxh3::new();
    for text in [id, title, topic] {
        // With its length, so that where one text ends and the next begins counts, too.
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.digest()
}
