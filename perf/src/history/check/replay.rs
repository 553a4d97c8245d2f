//! Does all writes again, one after the other in the order of their positions, and compares what each answer says of its
//! books with what the ones before it left.

use std::collections::BTreeMap;
use std::sync::Arc;

use pygmy_proto::BookId;
use pygmy_proto::message::OrderRecord;

use super::facts::{Fate, Write};
use super::violation::Violation;
use crate::history::{Action, Answer, BookState, History};

/// Above this many ways in which writes of unknown outcome can have happened, a book is not judged by them.
const WAYS_MAX: usize = 4_096;

/// What happened to one book at one position, by what was told.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// So many copies more, or less; what was left; the price it was done at, where that was told.
    Moved { change: i64, left: u32, cost_cents: Option<u64> },
    /// Another price; the one before, and the copies then.
    Repriced { cost_cents: u64, old_cost_cents: u64, stock: u32 },
    /// It was looked at.
    Seen(BookState),
    /// Its price in the end.
    Priced { cost_cents: u64 },
}

/// One book's events and what may have happened to it beside them.
#[derive(Debug, Default)]
struct Book {
    initial: Option<BookState>,
    /// By position; what was seen there comes behind what was done there.
    events: Vec<(u64, bool, Event)>,
    /// Changes of stock that may have happened once each, anywhere.
    maybe_moved: Vec<i64>,
    /// Prices that it may have got.
    maybe_repriced: Vec<u64>,
}

/// Checks every book.
pub(super) fn check(history: &History, writes: &[Write<'_>], found: &mut Vec<Violation>) {
    let mut books: BTreeMap<BookId, Book> = BTreeMap::new();
    for (id, state) in &history.initial {
        books.entry(*id).or_default().initial = Some(*state);
    }
    // The first ledger stands for all: that they are the same is another check.
    let ledger = history.replicas.first().map(|replica| &replica.ledger[..]);
    for write in writes {
        note_write(&mut books, write, ledger.is_some());
    }
    for order in ledger.unwrap_or_default() {
        note_order(&mut books, order);
    }
    for operation in &history.operations {
        if let (Action::Lookup { book, .. }, Answer::Found { seq, book: state }) =
            (&operation.action, &operation.answer)
        {
            books.entry(*book).or_default().events.push((*seq, true, Event::Seen(*state)));
        }
    }
    // The stock in the end is held against every replica's own ledger elsewhere.
    if let Some(replica) = history.replicas.first() {
        for (id, state) in &replica.books {
            let event = Event::Priced { cost_cents: state.cost_cents };
            books.entry(*id).or_default().events.push((replica.applied, true, event));
        }
    }
    for (id, mut book) in books {
        book.events.sort_by_key(|(seq, is_read, _)| (*seq, *is_read));
        Replay::new(id, &book).run(&book.events, found);
    }
}

fn note_order(books: &mut BTreeMap<BookId, Book>, order: &Arc<OrderRecord>) {
    for line in order.lines.iter() {
        let change = -i64::from(line.copies);
        let event = Event::Moved { change, left: line.left, cost_cents: Some(line.cost_cents) };
        books.entry(line.book).or_default().events.push((order.number, false, event));
    }
}

fn note_write(books: &mut BTreeMap<BookId, Book>, write: &Write<'_>, has_ledger: bool) {
    let mut event = |book: BookId, seq: u64, event: Event| {
        books.entry(book).or_default().events.push((seq, false, event));
    };
    match (write.action, write.fate) {
        (Action::Restock { book, copies }, Fate::Done(Answer::Restocked { seq, stock })) => {
            event(*book, *seq, Event::Moved { change: i64::from(*copies), left: *stock, cost_cents: None });
        }
        (Action::Reprice { book, cost_cents }, Fate::Done(Answer::Repriced { seq, stock, old_cost_cents })) => {
            let (cost_cents, old_cost_cents, stock) = (*cost_cents, *old_cost_cents, *stock);
            event(*book, *seq, Event::Repriced { cost_cents, old_cost_cents, stock });
        }
        (Action::Restock { book, copies }, Fate::Unknown) => {
            books.entry(*book).or_default().maybe_moved.push(i64::from(*copies));
        }
        (Action::Reprice { book, cost_cents }, Fate::Unknown) => {
            books.entry(*book).or_default().maybe_repriced.push(*cost_cents);
        }
        // With a ledger, every order that was done is in it.
        (_, _) if has_ledger => {}
        (Action::Buy { .. }, Fate::Done(Answer::Bought { order })) => note_order(books, &Arc::new(order.clone())),
        (Action::Buy { lines }, Fate::Unknown) => {
            for line in lines {
                books.entry(line.book).or_default().maybe_moved.push(-i64::from(line.copies));
            }
        }
        _ => {}
    }
}

/// One book, played again.
struct Replay {
    id: BookId,
    /// Copies, if nothing of unknown outcome has happened. It may be below 0: that is what is looked for.
    stock: i64,
    cost_cents: u64,
    changed_seq: u64,
    /// Distinct changes that may have happened, and how many there are of each.
    maybe: Vec<(i64, usize)>,
    /// The ways in which they can have happened so far: how many of each. Never empty.
    ways: Vec<Vec<usize>>,
    maybe_repriced: Vec<u64>,
    /// False: too many ways to tell right from wrong.
    is_decided: bool,
}

impl Replay {
    fn new(id: BookId, book: &Book) -> Self {
        let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
        for change in &book.maybe_moved {
            *counts.entry(*change).or_default() += 1;
        }
        let ways_max = counts.values().try_fold(1_usize, |ways, count| ways.checked_mul(count + 1));
        let initial = book.initial.unwrap_or(BookState { stock: 0, cost_cents: 0, changed_seq: 0 });
        Self {
            id,
            stock: initial.stock.into(),
            cost_cents: initial.cost_cents,
            changed_seq: initial.changed_seq,
            ways: vec![vec![0; counts.len()]],
            maybe: counts.into_iter().collect(),
            maybe_repriced: book.maybe_repriced.clone(),
            is_decided: ways_max.is_some_and(|ways| ways <= WAYS_MAX),
        }
    }

    fn run(mut self, events: &[(u64, bool, Event)], found: &mut Vec<Violation>) {
        let book = self.id;
        for (seq, _, event) in events.iter().copied() {
            match event {
                Event::Moved { change, left, cost_cents } => {
                    self.stock += change;
                    if let Err(expected) = self.observe_stock(left.into()) {
                        found.push(Violation::LeftWrong { seq, book, expected, found: left });
                    }
                    if let Some(found_cents) = cost_cents {
                        self.observe_price(seq, found_cents, found);
                    }
                    self.changed_seq = seq;
                }
                Event::Repriced { cost_cents, old_cost_cents, stock } => {
                    if let Err(expected) = self.observe_stock(stock.into()) {
                        found.push(Violation::LeftWrong { seq, book, expected, found: stock });
                    }
                    self.observe_price(seq, old_cost_cents, found);
                    (self.cost_cents, self.changed_seq) = (cost_cents, seq);
                }
                Event::Seen(state) => self.see(seq, state, found),
                Event::Priced { cost_cents } => self.observe_price(seq, cost_cents, found),
            }
        }
    }

    fn see(&mut self, seq: u64, state: BookState, found: &mut Vec<Violation>) {
        let book = self.id;
        let mut wrong = |field, expected, found_value| {
            found.push(Violation::ReadWrong { seq, book, field, expected, found: found_value });
        };
        if let Err(expected) = self.observe_stock(state.stock.into()) {
            wrong("stock", expected, state.stock.into());
        }
        if !self.is_price(state.cost_cents) {
            wrong("cost_cents", self.cost_cents as i64, state.cost_cents as i64);
        }
        let is_open = !self.maybe.is_empty() || !self.maybe_repriced.is_empty();
        if !is_open && state.changed_seq != self.changed_seq {
            wrong("changed_seq", self.changed_seq as i64, state.changed_seq as i64);
        }
    }

    fn observe_price(&mut self, seq: u64, cents: u64, found: &mut Vec<Violation>) {
        if !self.is_price(cents) {
            found.push(Violation::PriceWrong { seq, book: self.id, expected: self.cost_cents, found: cents });
        }
        // One wrong price must not make all those behind it wrong.
        self.cost_cents = cents;
    }

    fn is_price(&self, cents: u64) -> bool {
        cents == self.cost_cents || self.maybe_repriced.contains(&cents)
    }

    /// The book has so many copies: keeps the ways in which that can be. Else what there should have been.
    fn observe_stock(&mut self, stock: i64) -> Result<(), i64> {
        if !self.is_decided {
            return Ok(());
        }
        let difference = stock - self.stock;
        let mut ways: Vec<Vec<usize>> = Vec::new();
        for way in &self.ways {
            self.extend(way, 0, difference - self.moved(way), &mut way.clone(), &mut ways);
        }
        ways.sort_unstable();
        ways.dedup();
        if ways.is_empty() {
            let expected = self.ways.first().map_or(self.stock, |way| self.stock + self.moved(way));
            // One wrong number must not make all those behind it wrong.
            self.stock += stock - expected;
            return Err(expected);
        }
        self.ways = ways;
        Ok(())
    }

    fn moved(&self, way: &[usize]) -> i64 {
        way.iter().zip(&self.maybe).map(|(count, (change, _))| *count as i64 * change).sum()
    }

    /// Every way that goes on from `way` and moves `left` copies more by the changes from `place` on.
    fn extend(&self, way: &[usize], place: usize, left: i64, own: &mut Vec<usize>, ways: &mut Vec<Vec<usize>>) {
        let Some((change, most)) = self.maybe.get(place).copied() else {
            if left == 0 {
                ways.push(own.clone());
            }
            return;
        };
        for count in way[place]..=most {
            own[place] = count;
            let more = (count - way[place]) as i64 * change;
            self.extend(way, place + 1, left - more, own, ways);
        }
        own[place] = way[place];
    }
}
