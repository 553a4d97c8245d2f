//! What was sold: every order, by number and by book.

use std::sync::Arc;

use hashbrown::HashMap;
use pygmy_proto::BookId;
use pygmy_proto::limits::CART_LINES_MAX;
use pygmy_proto::message::{OrderLine, OrderRecord, OrdersOk};
use pygmy_proto::types::Bounded;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

#[derive(Debug)]
struct Entry {
    number: u64,
    time_us: u64,
    total_cents: u64,
    lines: Box<[Line]>,
}

#[derive(Debug)]
struct Line {
    book: Arc<str>,
    copies: u32,
    left: u32,
    cost_cents: u64,
}

/// All orders, in ascending order of number.
#[derive(Debug, Default)]
pub struct Ledger {
    orders: Vec<Entry>,
    /// Places in `orders` of the orders that name a book.
    by_book: HashMap<Arc<str>, Vec<u32>>,
    /// Chained over all orders.
    hash: u64,
}

impl Ledger {
    /// Orders ever done.
    pub fn len(&self) -> usize {
        self.orders.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }
    /// Hash of all orders.
    pub fn state_hash(&self) -> u64 {
        self.hash
    }

    /// Orders in ascending order of number, from the `from`th on.
    pub fn iter_from(&self, from: usize) -> impl Iterator<Item = OrderRecord> {
        self.orders.get(from..).unwrap_or_default().iter().map(to_record)
    }

    /// Number of the last order; 0 when there is none.
    pub fn last_number(&self) -> u64 {
        self.orders.last().map_or(0, |order| order.number)
    }

    /// Makes room for so many orders more.
    pub fn reserve(&mut self, orders: usize) {
        self.orders.reserve(orders);
    }

    /// Adds an order; its number is above all before it, as positions in the log are.
    pub fn push(&mut self, order: &OrderRecord) {
        let index = self.orders.len() as u32;
        let mut hash = xxh3_64_with_seed(&order.number.to_le_bytes(), self.hash);
        let by_book = &mut self.by_book;
        let lines = order.lines.iter().map(|line| {
            hash = xxh3_64_with_seed(&line_words(line), hash ^ xxh3_64(line.book.as_bytes()));
            let book = Self::note_book(by_book, line.book.as_str(), index);
            Line { book, copies: line.copies, left: line.left, cost_cents: line.cost_cents }
        });
        let lines = lines.collect();
        self.hash = hash;
        let OrderRecord { number, time_us, total_cents, .. } = *order;
        self.orders.push(Entry { number, time_us, total_cents, lines });
    }

    /// Notes that the order at `index` names `book`; the shared name of the book.
    fn note_book(by_book: &mut HashMap<Arc<str>, Vec<u32>>, book: &str, index: u32) -> Arc<str> {
        if let Some((name, _)) = by_book.get_key_value(book) {
            let name = name.clone();
            by_book.entry(name.clone()).or_default().push(index);
            return name;
        }
        let name: Arc<str> = Arc::from(book);
        by_book.insert(name.clone(), vec![index]);
        name
    }

    /// One order.
    pub fn get(&self, number: u64) -> Option<OrderRecord> {
        let index = self.orders.binary_search_by_key(&number, |order| order.number).ok()?;
        Some(to_record(&self.orders[index]))
    }

    /// A page of orders, newest first, of one book or of all.
    pub fn page(&self, seq: u64, book: Option<&BookId>, limit: u32, before: Option<u64>) -> OrdersOk {
        let before = before.unwrap_or(u64::MAX);
        match book {
            None => {
                let end = self.orders.partition_point(|order| order.number < before);
                self.page_of(seq, self.orders.len(), limit, end, |at| at)
            }
            Some(book) => {
                let places = self.by_book.get(book.as_str()).map_or(&[][..], Vec::as_slice);
                let end = places.partition_point(|at| self.orders[*at as usize].number < before);
                self.page_of(seq, places.len(), limit, end, |at| places[at] as usize)
            }
        }
    }

    /// The page of the at most `limit` orders below `end` in a list whose item `i` is the order at `place(i)`.
    fn page_of(&self, seq: u64, total: usize, limit: u32, end: usize, place: impl Fn(usize) -> usize) -> OrdersOk {
        let start = end.saturating_sub(limit as usize);
        let orders: Vec<OrderRecord> = (start..end).rev().map(|at| to_record(&self.orders[place(at)])).collect();
        let next = if start > 0 { orders.last().map(|order| order.number) } else { None };
        OrdersOk { seq, total: total as u64, orders: Bounded::truncated(orders), next }
    }
}

fn line_words(line: &OrderLine) -> [u8; 16] {
    let mut words = [0; 16];
    words[0..4].copy_from_slice(&line.copies.to_le_bytes());
    words[4..8].copy_from_slice(&line.left.to_le_bytes());
    words[8..16].copy_from_slice(&line.cost_cents.to_le_bytes());
    words
}

fn to_record(entry: &Entry) -> OrderRecord {
    let lines = entry.lines.iter().filter_map(|line| {
        let book = BookId::new(&line.book).ok()?;
        Some(OrderLine { book, copies: line.copies, cost_cents: line.cost_cents, left: line.left })
    });
    let lines: Bounded<OrderLine, CART_LINES_MAX> = Bounded::truncated(lines.collect());
    OrderRecord { number: entry.number, time_us: entry.time_us, total_cents: entry.total_cents, lines }
}
