//! What clients ask for: few hot books, so that stock runs out and carts collide.

use pygmy_proto::BookId;
use pygmy_proto::message::{Books, Command, Line, Lookup, NewBook, Order, Orders, Search, Topics};
use pygmy_proto::types::{Bounded, Title, Topic};

use crate::chance::Chance;
use crate::reads::Read;

/// Draws requests over so many books.
#[derive(Debug, Clone)]
pub struct Workload {
    books: Vec<BookId>,
}

const TOPICS: [&str; 3] = ["distributed systems", "college life", "spring"];

impl Workload {
    /// Over `count` books.
    pub fn new(count: u64) -> Self {
        Self { books: (0..count).filter_map(|number| BookId::new(&format!("book-{number}")).ok()).collect() }
    }

    fn book(&self, chance: &mut Chance) -> BookId {
        let hot = if chance.permille(500) { 2 } else { self.books.len() as u64 };
        self.books[chance.below(hot.min(self.books.len() as u64)) as usize]
    }

    fn new_book(&self, id: BookId, chance: &mut Chance) -> NewBook {
        let version = chance.below(3);
        NewBook {
            id,
            title: Title::truncated(&format!("{id}, edition {version}")),
            topic: topic(chance),
            cost_cents: chance.between(1, 5) * 100,
            stock: chance.below(12) as u32,
        }
    }

    /// All books, for the first write of a run.
    pub fn initial(&self, chance: &mut Chance) -> Command {
        let books = self.books.iter().map(|id| self.new_book(*id, chance));
        Command::Put { books: Bounded::truncated(books.collect()) }
    }

    /// A write; of a thousand, so many change what there is.
    pub fn write(&self, churn_permille: u64, chance: &mut Chance) -> Command {
        let book = self.book(chance);
        if churn_permille > 0 && chance.permille(churn_permille) {
            return match chance.below(4) {
                0 => Command::Retire { book },
                1 => Command::Add { book: self.new_book(book, chance) },
                2 => Command::Reprice { book, cost_cents: chance.between(1, 9) * 50 },
                _ => Command::Put { books: Bounded::truncated(vec![self.new_book(book, chance)]) },
            };
        }
        match chance.below(100) {
            0..65 => Command::Buy { lines: self.cart(chance) },
            65..80 => Command::Restock { book, copies: chance.between(1, 6) as u32 },
            80..87 => Command::Reprice { book, cost_cents: chance.between(1, 9) * 50 },
            87..92 => Command::Add { book: self.new_book(book, chance) },
            92..96 => Command::Retire { book },
            _ => Command::Put { books: Bounded::truncated(vec![self.new_book(book, chance)]) },
        }
    }

    fn cart(&self, chance: &mut Chance) -> Bounded<Line, { pygmy_proto::limits::CART_LINES_MAX }> {
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..chance.between(1, 3) {
            let book = self.book(chance);
            if lines.iter().all(|line| line.book != book) {
                lines.push(Line { book, copies: chance.between(1, 4) as u32 });
            }
        }
        Bounded::truncated(lines)
    }

    /// A read of what many read.
    pub fn hot(&self, chance: &mut Chance) -> Read {
        let book = self.books[chance.below(2) as usize];
        Read::Lookup(Lookup { floor: 0, book })
    }

    /// A read; `seen` is a place of the log around which orders are asked for.
    pub fn read(&self, seen: u64, chance: &mut Chance) -> Read {
        let limit = chance.between(1, 4) as u32;
        let book = self.book(chance);
        let floor = 0;
        match chance.below(10) {
            0..4 => Read::Lookup(Lookup { floor, book }),
            4 | 5 => {
                let after = chance.permille(300).then_some(book);
                Read::Search(Search { floor, topic: topic(chance), limit, after })
            }
            6 => {
                let after = chance.permille(300).then(|| topic(chance));
                Read::Topics(Topics { floor, limit, after })
            }
            7 => Read::Books(Books { floor, limit, after: None }),
            8 => Read::Order(Order { floor, number: chance.below(seen + 3) }),
            _ => {
                let book = chance.permille(500).then_some(book);
                let before = chance.permille(300).then(|| chance.below(seen + 1));
                Read::Orders(Orders { floor, book, limit, before })
            }
        }
    }
}

fn topic(chance: &mut Chance) -> Topic {
    Topic::truncated(TOPICS[chance.below(TOPICS.len() as u64) as usize])
}
