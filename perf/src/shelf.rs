//! The books of the store, as read at one position of its log.

use std::collections::BTreeSet;

use hashbrown::HashSet;
use pygmy_proto::limits::{COPIES_MAX, PAGE_MAX, PUT_BOOKS_MAX, SESSION_WINDOW};
use pygmy_proto::message::{Book, Books, BooksOk, Command, NewBook, OpenSession, SessionOpened, Write, WriteOk};
use pygmy_proto::types::Bounded;
use pygmy_proto::{BookId, ErrorBody, Title, Topic};

use crate::ask::Asker;
use crate::error::Error;

/// Price of a book that is brought in.
const COST_CENTS: u64 = 1_000;
/// And its topic.
const TOPIC_BROUGHT_IN: &str = "measured";

/// All books, as of one position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    /// The highest position that one of the pages reflects.
    pub seq: u64,
    /// Whether all pages reflect the same position: then the list is one state of the store.
    pub is_consistent: bool,
    /// By topic, then by id.
    pub books: Vec<Book>,
}

/// Reads all books, none of it older than `floor`.
///
/// # Errors
/// When the server stops answering.
pub fn read(asker: &mut Asker, floor: u64) -> Result<Shelf, Error> {
    let mut shelf = Shelf { seq: 0, is_consistent: true, books: Vec::new() };
    let mut after = None;
    loop {
        let page: BooksOk = asker.ask(&Books { floor, limit: PAGE_MAX, after })?;
        shelf.is_consistent &= shelf.books.is_empty() || page.seq == shelf.seq;
        shelf.seq = shelf.seq.max(page.seq);
        shelf.books.extend(page.books.into_vec());
        after = page.next;
        if after.is_none() {
            return Ok(shelf);
        }
    }
}

/// Restocks every book that has fewer than `least` copies, so that a load that buys is not one of refusals.
///
/// # Errors
/// When a restock is refused or not answered.
pub fn restock(asker: &mut Asker, books: &[Book], least: u32) -> Result<(), Error> {
    let short: Vec<&Book> = books.iter().filter(|book| book.stock < least).collect();
    let restock = |book: &&Book| Command::Restock { book: book.id, copies: (least - book.stock).min(COPIES_MAX) };
    write(asker, &short.iter().map(restock).collect::<Vec<_>>())
}

/// Puts books into the store that it does not have.
///
/// # Errors
/// When it is refused or not answered.
pub fn put(asker: &mut Asker, books: &[NewBook]) -> Result<(), Error> {
    let batch = |books: &[NewBook]| Command::Put { books: Bounded::truncated(books.to_vec()) };
    write(asker, &books.chunks(PUT_BOOKS_MAX).map(batch).collect::<Vec<_>>())
}

/// All books of the store; of `named`, those that it does not have are brought in before, with so many copies each.
///
/// # Errors
/// When it is refused or not answered.
pub fn with(asker: &mut Asker, named: BTreeSet<BookId>, stock: u32) -> Result<Vec<Book>, Error> {
    let books = read(asker, 0)?.books;
    let known: HashSet<BookId> = books.iter().map(|book| book.id).collect();
    let book = |id: BookId| NewBook {
        id,
        title: Title::truncated(&id),
        topic: Topic::truncated(TOPIC_BROUGHT_IN),
        cost_cents: COST_CENTS,
        stock,
    };
    let missing: Vec<NewBook> = named.into_iter().filter(|id| !known.contains(id)).map(book).collect();
    if missing.is_empty() {
        return Ok(books);
    }
    put(asker, &missing)?;
    Ok(read(asker, 0)?.books)
}

/// Makes every book have so many copies, in few writes: where more is bought than restocks could bring.
///
/// # Errors
/// When it is refused or not answered.
pub fn fill(asker: &mut Asker, books: &[Book], stock: u32) -> Result<(), Error> {
    let full = |book: &Book| {
        let Book { id, title, topic, cost_cents, .. } = book.clone();
        NewBook { id, title, topic, cost_cents, stock }
    };
    put(asker, &books.iter().map(full).collect::<Vec<_>>())
}

/// Does every command, many in flight.
fn write(asker: &mut Asker, commands: &[Command]) -> Result<(), Error> {
    if commands.is_empty() {
        return Ok(());
    }
    let SessionOpened { session } = asker.ask(&OpenSession {})?;
    let mut counter = 0;
    // One window at a time: every counter before it has its answer.
    for window in commands.chunks(SESSION_WINDOW as usize) {
        let first_incomplete = counter + 1;
        let writes: Vec<Write> = window
            .iter()
            .map(|command| {
                counter += 1;
                Write { session, counter, first_incomplete, command: command.clone() }
            })
            .collect();
        let answers: Vec<Result<WriteOk, ErrorBody>> = asker.ask_each(writes.into_iter())?;
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            return Err(asker.refused(error));
        }
    }
    Ok(())
}
