//! The dumb twin of the store: replays the committed log, keeps every version of everything, and says for any read at
//! any position what the answer must be. Slow and simple on purpose; it shares no code with the store but the types.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pygmy_proto::batch::EntryKind;
use pygmy_proto::message::{
    Book, Books, BooksCursor, BooksOk, Command, Lookup, NewBook, Order, OrderLine, OrderRecord, Orders, OrdersOk,
    Outcome, Search, SearchOk, TopicCount, Topics, TopicsOk, WriteOk,
};
use pygmy_proto::types::Bounded;
use pygmy_proto::{ErrorCode, codec};

/// A write's identity.
pub type Id = (u64, u64);

/// What a write did when it was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Where in the log.
    pub seq: u64,
    /// What it was.
    pub payload: Bytes,
    /// What came of it.
    pub result: Result<WriteOk, ErrorCode>,
}

#[derive(Debug, Default)]
struct Session {
    first_incomplete: u64,
    /// Payloads of the counters that are remembered.
    remembered: BTreeMap<u64, Bytes>,
}

/// Copies of one book that came in, went out with a retired or overwritten book, and were sold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Came in: first stock, restocks, stock of a put.
    pub entered: u64,
    /// Taken out of the store unsold.
    pub withdrawn: u64,
}

/// The twin.
#[derive(Debug, Default)]
pub struct Model {
    books: BTreeMap<String, Vec<(u64, Option<Book>)>>,
    orders: BTreeMap<u64, OrderRecord>,
    sessions: BTreeMap<u64, Session>,
    executed: BTreeMap<Id, Executed>,
    refused: BTreeMap<Id, BTreeSet<u16>>,
    flows: BTreeMap<String, Flow>,
    resent: u64,
}

impl Model {
    /// Applies one entry.
    pub fn apply(&mut self, seq: u64, time_us: u64, kind: EntryKind, body: &[u8]) {
        match kind {
            EntryKind::Register => {
                self.sessions.insert(seq, Session { first_incomplete: 1, ..Session::default() });
            }
            EntryKind::Command => {
                if let Some((head, payload)) = body.split_first_chunk::<24>() {
                    let word = |at: usize| head[at..at + 8].iter().rev().fold(0_u64, |all, b| all << 8 | u64::from(*b));
                    self.command(seq, time_us, (word(0), word(8)), word(16), payload);
                }
            }
            // The ring's own affairs.
            EntryKind::NewEpoch | EntryKind::Config => {}
        }
    }

    fn command(&mut self, seq: u64, time_us: u64, id: Id, declared: u64, payload: &[u8]) {
        if let Err(code) = self.admit(id, declared, payload) {
            if let Some(code) = code {
                self.refused.entry(id).or_default().insert(code as u16);
            } else {
                self.resent += 1;
            }
            return;
        }
        let result = match codec::decode::<Command>(payload) {
            Ok(command) => self.execute(seq, time_us, command).map(|outcome| WriteOk { seq, outcome }),
            Err(_) => Err(ErrorCode::Malformed),
        };
        self.executed.insert(id, Executed { seq, payload: Bytes::copy_from_slice(payload), result });
    }

    /// Whether a write is executed; if not, its refusal, or `None` when it is answered as the first time.
    fn admit(&mut self, (session, counter): Id, declared: u64, payload: &[u8]) -> Result<(), Option<ErrorCode>> {
        let session = self.sessions.get_mut(&session).ok_or(Some(ErrorCode::SessionExpired))?;
        let declared = declared.min(counter);
        session.first_incomplete = session.first_incomplete.max(declared);
        let first = session.first_incomplete;
        session.remembered.retain(|counter, _| *counter >= first);
        if counter < first {
            return Err(Some(ErrorCode::SessionExpired));
        }
        match session.remembered.get(&counter) {
            Some(same) if **same == *payload => Err(None),
            Some(_) => Err(Some(ErrorCode::IdReused)),
            None if counter - first >= 1_024 => Err(Some(ErrorCode::WindowFull)),
            None => {
                session.remembered.insert(counter, Bytes::copy_from_slice(payload));
                Ok(())
            }
        }
    }

    fn now(&self, id: &str) -> Result<Book, ErrorCode> {
        let last = self.books.get(id).and_then(|versions| versions.last());
        last.and_then(|(_, book)| book.clone()).ok_or(ErrorCode::UnknownBook)
    }

    fn set(&mut self, seq: u64, id: &str, book: Option<Book>) {
        self.books.entry(id.to_owned()).or_default().push((seq, book));
    }

    fn flow(&mut self, id: &str) -> &mut Flow {
        self.flows.entry(id.to_owned()).or_default()
    }

    fn execute(&mut self, seq: u64, time_us: u64, command: Command) -> Result<Outcome, ErrorCode> {
        match command {
            Command::Buy { lines } => {
                let mut after = Vec::new();
                for line in &lines {
                    let mut book = self.now(&line.book)?;
                    book.stock = book.stock.checked_sub(line.copies).ok_or(ErrorCode::NotEnoughStock)?;
                    book.changed_seq = seq;
                    after.push((book, line.copies));
                }
                let sold = after.iter().map(|(book, copies)| OrderLine {
                    book: book.id,
                    copies: *copies,
                    cost_cents: book.cost_cents,
                    left: book.stock,
                });
                let sold: Vec<OrderLine> = sold.collect();
                let total_cents = sold.iter().map(|line| line.cost_cents * u64::from(line.copies)).sum();
                let order = OrderRecord { number: seq, time_us, total_cents, lines: Bounded::truncated(sold) };
                self.orders.insert(seq, order.clone());
                for (book, _) in after {
                    self.set(seq, &book.id.clone(), Some(book));
                }
                Ok(Outcome::Bought { order })
            }
            Command::Restock { book, copies } => {
                let mut new = self.now(&book)?;
                new.stock = new.stock.checked_add(copies).ok_or(ErrorCode::StockOverflow)?;
                new.changed_seq = seq;
                self.flow(&book).entered += u64::from(copies);
                self.set(seq, &book, Some(new.clone()));
                Ok(Outcome::Restocked { book: new })
            }
            Command::Reprice { book, cost_cents } => {
                let mut new = self.now(&book)?;
                let old_cost_cents = std::mem::replace(&mut new.cost_cents, cost_cents);
                new.changed_seq = seq;
                self.set(seq, &book, Some(new.clone()));
                Ok(Outcome::Repriced { book: new, old_cost_cents })
            }
            Command::Add { book } => {
                if self.now(&book.id).is_ok() {
                    return Err(ErrorCode::BookExists);
                }
                Ok(Outcome::Added { book: self.bring_in(seq, &book) })
            }
            Command::Retire { book } => {
                let old = self.now(&book)?;
                self.flow(&book).withdrawn += u64::from(old.stock);
                self.set(seq, &book, None);
                Ok(Outcome::Retired { book: old })
            }
            Command::Put { books } => Ok(self.put(seq, &books)),
        }
    }

    fn bring_in(&mut self, seq: u64, new: &NewBook) -> Book {
        let NewBook { id, title, topic, cost_cents, stock } = new.clone();
        let book = Book { id, title, topic, cost_cents, stock, changed_seq: seq };
        self.flow(&id).entered += u64::from(stock);
        self.set(seq, &id, Some(book.clone()));
        book
    }

    fn put(&mut self, seq: u64, books: &[NewBook]) -> Outcome {
        let (mut added, mut changed, mut unchanged) = (0, 0, 0);
        for new in books {
            match self.now(&new.id) {
                Err(_) => added += 1,
                Ok(old) => {
                    let as_given = Book { changed_seq: old.changed_seq, ..to_book(new, 0) };
                    if as_given == old {
                        unchanged += 1;
                        continue;
                    }
                    self.flow(&new.id).withdrawn += u64::from(old.stock);
                    changed += 1;
                }
            }
            self.bring_in(seq, new);
        }
        Outcome::Put { added, changed, unchanged }
    }

    /// The write with this identity, once it was executed.
    pub fn executed(&self, id: Id) -> Option<&Executed> {
        self.executed.get(&id)
    }
    /// Every write that was executed.
    pub fn all_executed(&self) -> impl Iterator<Item = (&Id, &Executed)> {
        self.executed.iter()
    }
    /// Whether a write of this identity was refused with this code at some place of the log.
    pub fn was_refused(&self, id: Id, code: u16) -> bool {
        self.refused.get(&id).is_some_and(|codes| codes.contains(&code))
    }
    /// Whether a session was registered at this place.
    pub fn is_session(&self, seq: u64) -> bool {
        self.sessions.contains_key(&seq)
    }
    /// Entries that were resent writes, answered as the first time.
    pub fn resent(&self) -> u64 {
        self.resent
    }
    /// Orders ever done.
    pub fn orders(&self) -> &BTreeMap<u64, OrderRecord> {
        &self.orders
    }
    /// What came in and went out of each book.
    pub fn flows(&self) -> &BTreeMap<String, Flow> {
        &self.flows
    }

    /// A book as of `seq`.
    pub fn book_at(&self, seq: u64, id: &str) -> Option<Book> {
        let versions = self.books.get(id)?;
        versions.iter().rev().find(|(at, _)| *at <= seq).and_then(|(_, book)| book.clone())
    }

    fn books_at(&self, seq: u64) -> Vec<Book> {
        self.books.keys().filter_map(|id| self.book_at(seq, id)).collect()
    }

    /// What a lookup is answered at `seq`; `None`: that the book is unknown.
    pub fn lookup(&self, seq: u64, read: &Lookup) -> Option<Book> {
        self.book_at(seq, &read.book)
    }

    /// What a search is answered at `seq`; `None`: that the topic is unknown.
    pub fn search(&self, seq: u64, read: &Search) -> Option<SearchOk> {
        let all: Vec<Book> = self.books_at(seq).into_iter().filter(|book| book.topic == read.topic).collect();
        if all.is_empty() {
            return None;
        }
        let total = all.len() as u64;
        let rest: Vec<Book> = all.into_iter().filter(|book| read.after.is_none_or(|after| book.id > after)).collect();
        let (page, more) = cut(rest, read.limit);
        let next = page.last().filter(|_| more).map(|book| book.id);
        Some(SearchOk { seq, total, books: Bounded::truncated(page), next })
    }

    /// What a list of topics is answered at `seq`.
    pub fn topics(&self, seq: u64, read: &Topics) -> TopicsOk {
        let mut counts = BTreeMap::new();
        for book in self.books_at(seq) {
            *counts.entry(book.topic).or_insert(0) += 1;
        }
        let total = counts.len() as u64;
        let rest = counts.into_iter().filter(|(topic, _)| read.after.is_none_or(|after| *topic > after));
        let (page, more) = cut(rest.map(|(topic, books)| TopicCount { topic, books }).collect(), read.limit);
        let next = page.last().filter(|_| more).map(|count| count.topic);
        TopicsOk { seq, total, topics: Bounded::truncated(page), next }
    }

    /// What a list of all books is answered at `seq`.
    pub fn books(&self, seq: u64, read: &Books) -> BooksOk {
        let mut all = self.books_at(seq);
        all.sort_by_key(|book| (book.topic, book.id));
        let total = all.len() as u64;
        all.retain(|book| read.after.is_none_or(|after| (book.topic, book.id) > (after.topic, after.id)));
        let (page, more) = cut(all, read.limit);
        let next = page.last().filter(|_| more).map(|book| BooksCursor { topic: book.topic, id: book.id });
        BooksOk { seq, total, books: Bounded::truncated(page), next }
    }

    /// What a question for an order is answered at `seq`; `None`: that it is unknown.
    pub fn order(&self, seq: u64, read: &Order) -> Option<OrderRecord> {
        self.orders.get(&read.number).filter(|order| order.number <= seq).cloned()
    }

    /// What a list of orders is answered at `seq`.
    pub fn orders_page(&self, seq: u64, read: &Orders) -> OrdersOk {
        let names = |order: &OrderRecord| read.book.is_none_or(|book| order.lines.iter().any(|line| line.book == book));
        let all: Vec<&OrderRecord> = self.orders.range(..=seq).rev().map(|(_, o)| o).filter(|o| names(o)).collect();
        let total = all.len() as u64;
        let rest = all.into_iter().filter(|order| read.before.is_none_or(|before| order.number < before));
        let (page, more) = cut(rest.cloned().collect(), read.limit);
        let next = page.last().filter(|_| more).map(|order| order.number);
        OrdersOk { seq, total, orders: Bounded::truncated(page), next }
    }
}

fn to_book(new: &NewBook, changed_seq: u64) -> Book {
    let NewBook { id, title, topic, cost_cents, stock } = new.clone();
    Book { id, title, topic, cost_cents, stock, changed_seq }
}

/// The first `limit` of `all`, and whether there are more.
fn cut<T>(mut all: Vec<T>, limit: u32) -> (Vec<T>, bool) {
    let more = all.len() > limit as usize;
    all.truncate(limit as usize);
    (all, more)
}
