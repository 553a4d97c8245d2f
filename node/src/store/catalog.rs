//! The books: by id for buys and lookups, by topic and id for listings.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashMap;
use pygmy_proto::limits::{TITLE_LEN_MAX, TOPIC_LEN_MAX};
use pygmy_proto::message::{Book, BooksCursor, BooksOk, NewBook, SearchOk, TopicCount, TopicsOk};
use pygmy_proto::types::{Bounded, Title, Topic};
use pygmy_proto::{BookId, ErrorBody, ErrorCode};
use xxhash_rust::xxh3::Xxh3;

use super::touched::{Part, Touched};
use super::{not_enough, unknown_book};

/// A book without its id. The id and the topic are shared with the listings, so that a book costs one copy of each.
#[derive(Debug)]
struct Record {
    title: Box<str>,
    topic: Arc<str>,
    cost_cents: u64,
    changed_seq: u64,
    stock: u32,
}

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
#[derive(Debug)]
pub struct Restore {
    catalog: Catalog,
    /// The topic whose books are coming, and their ids so far. A set is made of them at once, which is much cheaper
    /// than of one at a time.
    topic: Option<Arc<str>>,
    ids: Vec<Arc<str>>,
}

impl Restore {
    /// For about so many books.
    pub fn new(books: usize) -> Self {
        let catalog = Catalog { books: HashMap::with_capacity(books), ..Catalog::default() };
        Self { catalog, topic: None, ids: Vec::new() }
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
        let record = Record { title: book.title.into(), topic, cost_cents, changed_seq, stock };
        self.catalog.hash = self.catalog.hash.wrapping_add(hash(&id, &record));
        self.ids.push(id.clone());
        match self.catalog.books.insert(id, record) {
            None => Ok(()),
            Some(_) => Err("a book that stands twice"),
        }
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
    /// Only ever asked by key: its order differs from process to process.
    books: HashMap<Arc<str>, Record>,
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
        self.books.is_empty()
    }
    /// Hash of all books.
    pub fn state_hash(&self) -> u64 {
        self.hash
    }

    /// One book.
    pub fn get(&self, id: &BookId) -> Option<Book> {
        self.books.get(id.as_str()).map(|record| to_book(id.as_str(), record))
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
        let ids = self.topics.iter().flat_map(|(topic, ids)| ids.iter().map(move |id| (topic, id)));
        ids.filter_map(|(topic, id)| {
            let record = self.books.get(id)?;
            Some(BookRef {
                id,
                title: &record.title,
                topic,
                cost_cents: record.cost_cents,
                stock: record.stock,
                changed_seq: record.changed_seq,
            })
        })
    }

    fn book(&self, id: &str) -> Option<Book> {
        self.books.get(id).map(|record| to_book(id, record))
    }

    /// Fails unless `copies` of the book are there.
    pub(super) fn check_stock(&self, id: &BookId, copies: u32) -> Result<(), ErrorBody> {
        match self.books.get(id.as_str()) {
            None => Err(unknown_book(id)),
            Some(record) if record.stock < copies => Err(not_enough(&to_book(id, record), copies)),
            Some(_) => Ok(()),
        }
    }

    /// Takes `copies` off the stock; the price of one and what is left.
    pub(super) fn take(&mut self, seq: u64, id: &BookId, copies: u32) -> Result<(u64, u32), ErrorBody> {
        self.edit(seq, id, Part::Stock, |book| {
            book.stock = book.stock.checked_sub(copies).ok_or_else(|| not_enough(&to_book(id, book), copies))?;
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
        let (key, record) = self.books.get_key_value_mut(id.as_str()).ok_or_else(|| unknown_book(id))?;
        let before = hash(id, record);
        let value = change(record)?;
        record.changed_seq = seq;
        self.hash = self.hash.wrapping_sub(before).wrapping_add(hash(id, record));
        if let Some(touched) = &mut self.touched {
            touched.book(key, part, seq);
        }
        Ok(value)
    }

    pub(super) fn retire(&mut self, seq: u64, id: &BookId) -> Result<Book, ErrorBody> {
        let (key, record) = self.books.remove_entry(id.as_str()).ok_or_else(|| unknown_book(id))?;
        self.hash = self.hash.wrapping_sub(hash(&key, &record));
        self.unlist(&record.topic, &key);
        self.touch(&key, Part::Whole, seq);
        self.touch_topic(&record.topic, seq);
        Ok(to_book(&key, &record))
    }

    /// Makes a book be as given.
    pub(super) fn put(&mut self, seq: u64, new: &NewBook) -> Put {
        let outcome = match self.books.get(new.id.as_str()) {
            None => Put::Added,
            Some(old) if same(old, new) => return Put::Unchanged,
            Some(_) => Put::Changed,
        };
        let (key, topic) = match self.books.remove_entry(new.id.as_str()) {
            Some((key, old)) => {
                self.hash = self.hash.wrapping_sub(hash(&key, &old));
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
        let record = Record {
            title: (*new.title).into(),
            topic,
            cost_cents: new.cost_cents,
            changed_seq: seq,
            stock: new.stock,
        };
        self.hash = self.hash.wrapping_add(hash(&key, &record));
        self.books.insert(key, record);
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

fn to_book(id: &str, record: &Record) -> Book {
    // Every key was made from a valid id.
    let id = BookId::new(id).unwrap_or_else(|error| unreachable!("stored id: {error}"));
    Book {
        id,
        title: Title::truncated(&record.title),
        topic: Topic::truncated(&record.topic),
        cost_cents: record.cost_cents,
        stock: record.stock,
        changed_seq: record.changed_seq,
    }
}

fn hash(id: &str, record: &Record) -> u64 {
    let mut fixed = [0_u8; 32];
    fixed[0..8].copy_from_slice(&record.cost_cents.to_le_bytes());
    fixed[8..16].copy_from_slice(&record.changed_seq.to_le_bytes());
    fixed[16..20].copy_from_slice(&record.stock.to_le_bytes());
    fixed[20..24].copy_from_slice(&(id.len() as u32).to_le_bytes());
    fixed[24..32].copy_from_slice(&(record.title.len() as u64).to_le_bytes());
    let mut hasher = Xxh3::new();
    hasher.update(&fixed);
    hasher.update(id.as_bytes());
    hasher.update(record.title.as_bytes());
    hasher.update(record.topic.as_bytes());
    hasher.digest()
}
