//! Where entries are kept: a table of a bounded number of bytes, from which what is asked for least goes first.

use std::hash::{BuildHasher, Hash, Hasher};

use pygmy_proto::BookId;
use pygmy_proto::types::Topic;
use quick_cache::unsync::Cache;
use quick_cache::{Equivalent, Weighter};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::pages::Pages;

/// What an entry is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// One book.
    Book(BookId),
    /// The list of a topic's books.
    Topic(Topic),
    /// The list of the topics.
    Topics,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            // In one go, for every lookup does.
            Key::Book(id) => BookKey(id.as_bytes()).hash(state),
            Key::Topic(topic) => {
                state.write_u8(1);
                state.write(topic.as_bytes());
            }
            Key::Topics => state.write_u8(2),
        }
    }
}

/// [`Key::Book`] by the bytes of an id, which need not be one.
#[derive(Debug, Clone, Copy)]
struct BookKey<'a>(&'a [u8]);

impl Hash for BookKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

impl Equivalent<Key> for BookKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(key, Key::Book(id) if id.as_bytes() == self.0)
    }
}

/// What is kept of a key.
#[derive(Debug)]
pub(super) enum Value {
    /// A book as in an answer.
    Book(Box<[u8]>),
    /// There is no such book: the error, without the position at its beginning.
    Unknown(Box<[u8]>),
    /// Pages of a list.
    Pages(Pages),
}

/// A value, and the position at which it is known to be true; the pages of a list have theirs each.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) value: Value,
}

/// What an entry takes beside what lies on the heap: itself, and its share of the table and of the keys remembered of
/// entries that went.
const ENTRY_BYTES: usize = size_of::<(Key, Entry)>() + 48;
/// What an average entry takes, for the size of the table at its start.
const ENTRY_BYTES_USUAL: u64 = 512;

#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Weighter<Key, Entry> for Bytes {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        let heap = match &entry.value {
            Value::Book(bytes) | Value::Unknown(bytes) => bytes.len(),
            Value::Pages(pages) => pages.bytes(),
        };
        (ENTRY_BYTES + heap) as u64
    }
}

/// Hashes that are the same in every run with the same seed, and that nobody can foretell who does not know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;
    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

/// A hash under way.
#[derive(Debug)]
pub(super) struct SeededHasher(u64);

impl Hasher for SeededHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The entries.
#[derive(Debug)]
pub(super) struct Store {
    entries: Cache<Key, Entry, Bytes, Seeded>,
    bytes_max: u64,
    seeded: Seeded,
}

impl Store {
    pub(super) fn new(bytes_max: u64, seed: u64) -> Self {
        let usual = usize::try_from(bytes_max / ENTRY_BYTES_USUAL).unwrap_or(usize::MAX).min(1 << 20);
        let seeded = Seeded(seed);
        Self { entries: Cache::with(usual, bytes_max, Bytes, seeded, Default::default()), bytes_max, seeded }
    }

    pub(super) fn hash(&self, key: &Key) -> u64 {
        self.seeded.hash_one(key)
    }
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
    pub(super) fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// What is kept of a key that is asked for.
    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }
    /// What is kept of the book with this id that is asked for.
    pub(super) fn get_book(&self, id: &[u8]) -> Option<&Entry> {
        self.entries.get(&BookKey(id))
    }
    /// What is kept of a key, without taking it for asked for.
    pub(super) fn peek(&self, key: &Key) -> Option<&Entry> {
        self.entries.peek(key)
    }

    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.entries.insert(key, entry);
    }

    /// Changes a book in place; `None`, and nothing is done, when no book is kept or `change` finds that it is none.
    pub(super) fn patch(&mut self, key: &Key, seq: u64, change: impl FnOnce(&mut [u8]) -> Option<()>) -> Option<()> {
        let mut entry = self.entries.peek_mut(key)?;
        let Value::Book(book) = &mut entry.value else { return None };
        change(book)?;
        entry.seq = seq;
        Some(())
    }

    /// Changes the pages of a list, which is begun if there is none.
    pub(super) fn change_pages(&mut self, key: Key, change: impl FnOnce(&mut Pages)) {
        if let Some(mut entry) = self.entries.peek_mut(&key) {
            if let Value::Pages(pages) = &mut entry.value {
                change(pages);
            }
            return;
        }
        let mut pages = Pages::default();
        change(&mut pages);
        self.entries.insert(key, Entry { seq: 0, value: Value::Pages(pages) });
    }

    /// Drops the pages of a list from before `seq`; how many there were.
    pub(super) fn drop_pages(&mut self, key: &Key, seq: u64) -> u64 {
        let Some(mut entry) = self.entries.peek_mut(key) else { return 0 };
        let Value::Pages(pages) = &mut entry.value else { return 0 };
        let dropped = pages.drop_before(seq);
        let is_empty = pages.is_empty();
        drop(entry);
        if is_empty {
            self.entries.remove(key);
        }
        dropped
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_are_found_by_the_bytes_of_their_ids_and_nothing_else_is() {
        let id = |number: u64| BookId::new(&format!("book-{number}")).expect("an id");
        let mut store = Store::new(64 << 20, 7);
        // So many that some agree in what a table compares before it compares keys.
        for number in 0..4_096 {
            store.insert(Key::Book(id(number)), Entry { seq: number, value: Value::Book(Box::default()) });
            let topic = Topic::truncated(&format!("topic-{number}"));
            store.insert(Key::Topic(topic), Entry { seq: number, value: Value::Pages(Pages::default()) });
        }
        for number in 0..4_096 {
            let found = store.get_book(id(number).as_bytes()).map(|entry| entry.seq);
            assert_eq!(found, Some(number));
            assert_eq!(store.get(&Key::Book(id(number))).map(|entry| entry.seq), Some(number));
            assert!(store.get_book(id(number + 4_096).as_bytes()).is_none());
            assert!(store.get_book(format!("topic-{number}").as_bytes()).is_none());
        }
    }
}
