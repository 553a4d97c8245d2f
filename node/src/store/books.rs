//! The table of the books, which can be kept as it was at a moment while it goes on changing.
//!
//! It is cut into shards that copies share. The first change of a shard behind a copy copies the shard, so that neither
//! the copy nor any one change takes long, however many books there are.

use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::catalog::hash_names;

/// Shards. With a million books a shard has 250 of them, which are copied in a few microseconds.
const SHARDS: usize = 4_096;

/// A book. What no buy changes is shared with the listings and with copies of the table.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: Arc<str>,
    pub(super) title: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) cost_cents: u64,
    pub(super) changed_seq: u64,
    pub(super) stock: u32,
    /// Hash of what no buy changes: id, title and topic.
    names_hash: u64,
}

impl Record {
    pub(super) fn new(
        (id, title, topic): (Arc<str>, Arc<str>, Arc<str>),
        cost_cents: u64,
        stock: u32,
        changed_seq: u64,
    ) -> Self {
        let names_hash = hash_names(&id, &title, &topic);
        Self { id, title, topic, cost_cents, changed_seq, stock, names_hash }
    }

    /// What the book adds to the catalog's hash.
    pub(super) fn hash(&self) -> u64 {
        let mut words = [0_u8; 20];
        words[0..8].copy_from_slice(&self.cost_cents.to_le_bytes());
        words[8..16].copy_from_slice(&self.changed_seq.to_le_bytes());
        words[16..20].copy_from_slice(&self.stock.to_le_bytes());
        xxh3_64_with_seed(&words, self.names_hash)
    }
}

/// See the module's head. A clone is cheap.
#[derive(Debug, Clone)]
pub(super) struct Books {
    shards: Vec<Arc<HashTable<Record>>>,
    len: usize,
}

impl Default for Books {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS], len: 0 }
    }
}

impl Books {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: &str) -> Option<&Record> {
        let hash = hash_id(id);
        self.shards[shard_of(hash)].find(hash, |book| *book.id == *id)
    }

    /// A book, to be changed. Its id must stay.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Record> {
        let hash = hash_id(id);
        Arc::make_mut(&mut self.shards[shard_of(hash)]).find_mut(hash, |book| *book.id == *id)
    }

    /// Adds a book whose id there is not.
    pub(super) fn insert(&mut self, book: Record) {
        let hash = hash_id(&book.id);
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        shard.insert_unique(hash, book, |book| hash_id(&book.id));
        self.len += 1;
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Record> {
        let hash = hash_id(id);
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        let (book, _) = shard.find_entry(hash, |book| *book.id == *id).ok()?.remove();
        self.len -= 1;
        Some(book)
    }

    /// All of them, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

fn hash_id(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// By bits of the hash that the tables, which use the lowest and the highest ones, do not look at.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}
