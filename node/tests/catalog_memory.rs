//! What a book costs in memory, counted by the allocator.
#![allow(unsafe_code)] // A global allocator cannot be written without; it only counts and passes on.
#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use pygmy_node::store::Store;
use pygmy_proto::message::{Command, NewBook};
use pygmy_proto::types::{Bounded, Title, Topic};
use pygmy_proto::{BookId, codec};
use pygmy_ring::StateMachine;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
/// What an allocator that rounds up to 16 bytes and keeps 8 of its own takes for a request.
fn taken(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_book_costs_less_than_400_bytes_beyond_its_strings() {
    // Just above a doubling of the hash table: the worst moment there is.
    const BOOKS: usize = 240_000;
    let mut store = Store::new();
    let mut strings = 0;
    let mut answer = BytesMut::new();
    let before = LIVE.load(Ordering::Relaxed);
    for first in (0..BOOKS).step_by(200) {
        let books: Vec<NewBook> = (first..first + 200)
            .map(|n| NewBook {
                id: BookId::new(&format!("book-{n:07}")).expect("a valid id"),
                title: Title::truncated(&format!("The title of book number {n}")),
                topic: Topic::truncated(&format!("topic-{}", n % 1_000)),
                cost_cents: 1_000,
                stock: 10,
            })
            .collect();
        strings += books.iter().map(|book| book.id.len() + book.title.len() + book.topic.len()).sum::<usize>();
        let command = codec::encode(&Command::Put { books: Bounded::truncated(books) });
        answer.clear();
        store.apply(first as u64 + 1, 1, &command, &mut answer);
    }
    assert_eq!(store.catalog().len(), BOOKS);
    let each = (LIVE.load(Ordering::Relaxed) - before - strings) / BOOKS;
    println!("{each} bytes a book beyond its strings");
    assert!(each < 400, "{each} bytes a book beyond its strings");
    // And the measurement measures: a book is not free.
    assert!(each > 50, "{each} bytes a book: the counter does not count");
}
