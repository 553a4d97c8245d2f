//! What was sold: every order, by number and by book.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use hashbrown::HashMap;
use pygmy_proto::limits::CART_LINES_MAX;
use pygmy_proto::message::{OrderLine, OrderRecord, OrdersOk};
use pygmy_proto::types::Bounded;
use pygmy_proto::{BookId, codec};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::appended::Appended;

#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u64,
    time_us: u64,
    total_cents: u64,
    /// Place of its first line in [`Orders::lines`]; its last is before the first of the next order.
    first_line: u64,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    /// Place of the book in [`Orders::books`].
    book: u32,
    copies: u32,
    left: u32,
    cost_cents: u64,
}

/// Orders in ascending order of number. A clone is cheap, and stays as it is.
#[derive(Debug, Default, Clone)]
pub struct Orders {
    orders: Appended<Entry>,
    /// The lines of all orders, one order behind the other.
    lines: Appended<Line>,
    /// Ids in the order in which books were sold first. One that is retired stays: its orders name it.
    books: Appended<Arc<str>>,
    /// Chained over all orders.
    hash: u64,
}

impl Orders {
    /// How many.
    pub fn len(&self) -> usize {
        self.orders.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Hash of all orders.
    pub fn state_hash(&self) -> u64 {
        self.hash
    }

    /// Orders in ascending order of number, from the `from`th on.
    pub fn iter_from(&self, from: usize) -> impl Iterator<Item = OrderRecord> {
        (from..self.len()).map(|at| self.record(at))
    }

    /// Appends the `at`th order to `out`, as the [`OrderRecord`] that it is, which is not put together for it.
    ///
    /// # Panics
    /// There are not as many.
    pub fn encode(&self, at: usize, out: &mut BytesMut) {
        let Entry { number, time_us, total_cents, .. } = self.orders[at];
        let lines = self.lines_of(at);
        codec::encode_to(&(number, time_us, total_cents, lines.len() as u64), out);
        for at in lines {
            let Line { book, copies, left, cost_cents } = self.lines[at];
            codec::encode_to(&(&*self.books[book as usize], copies, cost_cents, left), out);
        }
    }

    /// Places of the lines of the `at`th order.
    fn lines_of(&self, at: usize) -> Range<usize> {
        let end = self.orders.get(at + 1).map_or(self.lines.len(), |next| next.first_line as usize);
        self.orders[at].first_line as usize..end
    }

    /// The order at a place in `orders`.
    fn record(&self, at: usize) -> OrderRecord {
        let Entry { number, time_us, total_cents, .. } = self.orders[at];
        let lines = self.lines_of(at).filter_map(|at| {
            let line = self.lines[at];
            let book = BookId::new(&self.books[line.book as usize]).ok()?;
            Some(OrderLine { book, copies: line.copies, cost_cents: line.cost_cents, left: line.left })
        });
        let lines: Bounded<OrderLine, CART_LINES_MAX> = Bounded::truncated(lines.collect());
        OrderRecord { number, time_us, total_cents, lines }
    }
}

/// All orders, found by number and by book.
#[derive(Debug, Default)]
pub struct Ledger {
    all: Orders,
    /// Places of the orders that name a book, by the book's place.
    by_book: Vec<Vec<u32>>,
    /// Places of the books.
    by_id: HashMap<Arc<str>, u32>,
}

impl Ledger {
    /// The orders as they are now.
    pub fn orders(&self) -> &Orders {
        &self.all
    }
    /// Orders ever done.
    pub fn len(&self) -> usize {
        self.all.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
    /// Hash of all orders.
    pub fn state_hash(&self) -> u64 {
        self.all.hash
    }

    /// Orders in ascending order of number, from the `from`th on.
    pub fn iter_from(&self, from: usize) -> impl Iterator<Item = OrderRecord> {
        self.all.iter_from(from)
    }

    /// Number of the last order; 0 when there is none.
    pub fn last_number(&self) -> u64 {
        self.all.orders.last().map_or(0, |order| order.number)
    }

    /// Adds an order; its number is above all before it, as positions in the log are.
    pub fn push(&mut self, order: &OrderRecord) {
        let OrderRecord { number, time_us, total_cents, .. } = *order;
        let (index, first_line) = (self.all.len() as u32, self.all.lines.len() as u64);
        let mut hash = xxh3_64_with_seed(&number.to_le_bytes(), self.all.hash);
        for line in &order.lines {
            hash = xxh3_64_with_seed(&line_words(line), hash ^ xxh3_64(line.book.as_bytes()));
            let book = self.place_of(line.book.as_str());
            self.by_book[book as usize].push(index);
            let OrderLine { copies, left, cost_cents, .. } = *line;
            self.all.lines.push(Line { book, copies, left, cost_cents });
        }
        self.all.hash = hash;
        self.all.orders.push(Entry { number, time_us, total_cents, first_line });
    }

    /// Place of a book, which it takes when it is sold first.
    fn place_of(&mut self, id: &str) -> u32 {
        if let Some(place) = self.by_id.get(id) {
            return *place;
        }
        let place = self.by_book.len() as u32;
        let id: Arc<str> = Arc::from(id);
        self.all.books.push(id.clone());
        self.by_book.push(Vec::new());
        self.by_id.insert(id, place);
        place
    }

    /// One order.
    pub fn get(&self, number: u64) -> Option<OrderRecord> {
        let at = self.all.orders.partition_point(|order| order.number < number);
        (self.all.orders.get(at)?.number == number).then(|| self.all.record(at))
    }

    /// A page of orders, newest first, of one book or of all.
    pub fn page(&self, seq: u64, book: Option<&BookId>, limit: u32, before: Option<u64>) -> OrdersOk {
        let before = before.unwrap_or(u64::MAX);
        match book {
            None => {
                let end = self.all.orders.partition_point(|order| order.number < before);
                self.page_of(seq, self.len(), limit, end, |at| at)
            }
            Some(book) => {
                let places = self.by_id.get(book.as_str()).map_or(&[][..], |place| &self.by_book[*place as usize]);
                let end = places.partition_point(|at| self.all.orders[*at as usize].number < before);
                self.page_of(seq, places.len(), limit, end, |at| places[at] as usize)
            }
        }
    }

    /// The page of the at most `limit` orders below `end` in a list whose item `i` is the order at `place(i)`.
    fn page_of(&self, seq: u64, total: usize, limit: u32, end: usize, place: impl Fn(usize) -> usize) -> OrdersOk {
        let start = end.saturating_sub(limit as usize);
        let orders: Vec<OrderRecord> = (start..end).rev().map(|at| self.all.record(place(at))).collect();
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
