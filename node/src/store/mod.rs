//! The replicated state of the book store: the catalog and the ledger.
//!
//! Every log replica applies the same commands in the same order, so nothing here may depend on a clock, on chance,
//! on the iteration order of a hash table or on which node runs it.

mod appended;
mod books;
mod catalog;
mod ledger;
#[cfg(test)]
mod tests;
mod touched;

use bytes::{BufMut, BytesMut};
use pygmy_proto::message::{Book, Command, Lines, Message, NewBook, OrderLine, OrderRecord, Outcome, WriteOk};
use pygmy_proto::types::Bounded;
use pygmy_proto::{BookId, ErrorBody, ErrorCode, Kind, codec};
use pygmy_ring::StateMachine;

pub use catalog::{BookRef, Catalog, CatalogImage, Restore};
pub use ledger::{Ledger, Orders};
pub use touched::{Part, Touch, Touched};

/// Bytes before the body in the answers that [`Store`] gives to the ring: the kind of the answer's frame.
pub const ANSWER_KIND_LEN: usize = 2;

/// Splits an answer of [`Store`] into the kind of its frame and the body.
pub fn split_answer(answer: &[u8]) -> Option<(u16, &[u8])> {
    let (kind, body) = answer.split_first_chunk::<ANSWER_KIND_LEN>()?;
    Some((u16::from_le_bytes(*kind), body))
}

/// The store.
#[derive(Debug, Default)]
pub struct Store {
    catalog: Catalog,
    ledger: Ledger,
    /// Room for the lines of the order that is being done, kept from one to the next.
    sold: Vec<OrderLine>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
    /// A store of these books and orders.
    pub fn from_parts(catalog: Catalog, ledger: Ledger) -> Self {
        Self { catalog, ledger, sold: Vec::new() }
    }
    /// The books.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }
    /// From now on changes of books are noted for [`Self::take_changes`].
    pub fn track_changes(&mut self) {
        self.catalog.track_changes();
    }
    /// What books have changed since the last call; `None` when changes are not noted.
    pub fn take_changes(&mut self) -> Option<Touched> {
        self.catalog.take_changes()
    }
    /// The orders.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn execute(&mut self, seq: u64, time_us: u64, command: Command) -> Result<Outcome, ErrorBody> {
        // Checked where it came in as well; here because what is applied must hold whoever passed it on.
        command.check()?;
        match command {
            Command::Buy { lines } => self.buy(seq, time_us, &lines),
            Command::Restock { book, copies } => {
                Ok(Outcome::Restocked { book: self.catalog.restock(seq, &book, copies)? })
            }
            Command::Reprice { book, cost_cents } => {
                let (book, old_cost_cents) = self.catalog.reprice(seq, &book, cost_cents)?;
                Ok(Outcome::Repriced { book, old_cost_cents })
            }
            Command::Add { book } => self.add(seq, &book),
            Command::Retire { book } => Ok(Outcome::Retired { book: self.catalog.retire(seq, &book)? }),
            Command::Put { books } => Ok(self.put(seq, &books)),
        }
    }

    /// All lines or none.
    fn buy(&mut self, seq: u64, time_us: u64, lines: &Lines) -> Result<Outcome, ErrorBody> {
        // A single line fails by itself without a trace.
        if lines.len() > 1 {
            for line in lines {
                self.catalog.check_stock(&line.book, line.copies)?;
            }
        }
        let mut sold = std::mem::take(&mut self.sold);
        sold.clear();
        let mut total_cents = 0;
        for line in lines {
            let (cost_cents, left) = self.catalog.take(seq, &line.book, line.copies)?;
            total_cents += cost_cents * u64::from(line.copies);
            sold.push(OrderLine { book: line.book, copies: line.copies, cost_cents, left });
        }
        let order = OrderRecord { number: seq, time_us, total_cents, lines: Bounded::truncated(sold) };
        self.ledger.push(&order);
        Ok(Outcome::Bought { order })
    }

    fn add(&mut self, seq: u64, book: &NewBook) -> Result<Outcome, ErrorBody> {
        if self.catalog.get(&book.id).is_some() {
            let detail =
                format!("{} is in the store already: `restock` adds copies, `reprice` changes its cost", book.id);
            return Err(ErrorBody::new(ErrorCode::BookExists).subject(&book.id).detail(&detail));
        }
        self.catalog.put(seq, book);
        let book = self.catalog.get(&book.id).ok_or_else(|| unknown_book(&book.id))?;
        Ok(Outcome::Added { book })
    }

    fn put(&mut self, seq: u64, books: &[NewBook]) -> Outcome {
        let (mut added, mut changed, mut unchanged) = (0, 0, 0);
        for book in books {
            match self.catalog.put(seq, book) {
                catalog::Put::Added => added += 1,
                catalog::Put::Changed => changed += 1,
                catalog::Put::Unchanged => unchanged += 1,
            }
        }
        Outcome::Put { added, changed, unchanged }
    }
}

impl StateMachine for Store {
    fn apply(&mut self, seq: u64, time_us: u64, command: &[u8], answer: &mut BytesMut) {
        let result = match codec::decode::<Command>(command) {
            Ok(command) => self.execute(seq, time_us, command),
            Err(error) => Err(ErrorBody::new(ErrorCode::Malformed).subject("Write").detail(&error.to_string())),
        };
        match result {
            Ok(outcome) => {
                answer.put_u16_le(Kind::WriteOk as u16);
                let told = WriteOk { seq, outcome };
                codec::encode_to(&told, answer);
                if let Outcome::Bought { order } = told.outcome {
                    self.sold = order.lines.into_vec();
                }
            }
            Err(error) => {
                answer.put_u16_le(ErrorBody::KIND as u16);
                codec::encode_to(&error.at(seq), answer);
            }
        }
    }

    fn state_hash(&self) -> u64 {
        self.catalog.state_hash().wrapping_add(self.ledger.state_hash())
    }
}

/// The error for a book that is not there.
pub fn unknown_book(id: &BookId) -> ErrorBody {
    let detail = format!("there is no book {id}: `topics` and `search` list what there is");
    ErrorBody::new(ErrorCode::UnknownBook).subject(id).detail(&detail)
}

fn not_enough(book: &Book, wanted: u32) -> ErrorBody {
    let detail = match book.stock {
        0 => format!("{} is sold out", book.id),
        stock => format!("there are {stock} copies of {}, not {wanted}", book.id),
    };
    ErrorBody::new(ErrorCode::NotEnoughStock).subject(&book.id).limit(book.stock.into(), wanted.into()).detail(&detail)
}
