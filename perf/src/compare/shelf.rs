//! The books that every system is filled with before it is asked.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Bytes of what a lookup answers: the value of a key or column, or the book as Pygmy encodes it.
pub(super) const VALUE_BYTES: usize = 64;
/// Copies of each book: enough for a load that sells a million a second for half an hour.
pub(super) const STOCK: u32 = 2_000_000_000;

/// Books with numbers from 0, alike in all systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shelf {
    /// How many there are.
    pub(super) count: u32,
}

impl Shelf {
    /// The numbers of all books.
    pub(super) fn numbers(self) -> std::ops::Range<u32> {
        0..self.count
    }

    /// One to be asked for: any, or always the same one.
    pub(super) fn pick(self, rng: &mut ChaCha8Rng, is_one_book: bool) -> u32 {
        if is_one_book { 0 } else { rng.random_range(self.numbers()) }
    }
}

/// A book's id, in the form in which `redis-benchmark` writes the numbers it draws.
pub(super) fn id(number: u32) -> String {
    format!("{number:012}")
}

/// What a lookup of a book answers: [`VALUE_BYTES`] bytes of text that differ from book to book.
pub(super) fn value(number: u32) -> String {
    format!("{number:0VALUE_BYTES$}")
}
