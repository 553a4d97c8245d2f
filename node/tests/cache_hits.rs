//! A lookup that the cache answers allocates nothing, counted by the allocator.
#![allow(unsafe_code)] // A global allocator cannot be written without; it only counts and passes on.
#![allow(missing_docs)]

mod front_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use front_support::{CLIENT, Front, book, id};
use pygmy_proto::frame;
use pygmy_proto::message::*;
use pygmy_proto::types::{self, Bounded};
use pygmy_proto::{ErrorBody, ErrorCode, Kind};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // While a thread ends its counter may be gone; then nobody measures.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches only this thread's own cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn hits(front: &mut Front, question: &Bytes, kind: Kind) -> u64 {
    // The outbox grows to its usual size.
    for _ in 0..4 {
        front.take(CLIENT, question);
        assert_eq!(front.sent(), [(CLIENT, kind, 7)]);
    }
    let count = allocations(|| {
        for _ in 0..1_000 {
            front.take(CLIENT, question);
            let outputs = front.out.take_outputs();
            assert_eq!(outputs.len(), 1);
            front.out.recycle(outputs);
        }
    });
    front.sent();
    count
}

#[test]
fn what_the_cache_answers_is_answered_without_allocating() {
    let mut front = Front::new();
    front.connect();
    let lookup = Lookup { floor: 0, book: id("a") };
    front.warm(&lookup, &LookupOk { seq: 10, book: book("a") });
    let unknown = Lookup { floor: 0, book: id("b") };
    front.warm(&unknown, &ErrorBody::new(ErrorCode::UnknownBook).at(10).subject("b"));
    let search = Search { floor: 0, topic: types::topic("x").expect("valid"), limit: 10, after: None };
    let books = Bounded::truncated(vec![book("a"), book("c")]);
    front.warm(&search, &SearchOk { seq: 10, total: 2, books, next: None });
    for (question, kind) in [
        (frame::to_bytes(7, 0, 0, &lookup), Kind::LookupOk),
        (frame::to_bytes(7, 0, 0, &unknown), Kind::Error),
        (frame::to_bytes(7, 0, 0, &search), Kind::SearchOk),
    ] {
        assert_eq!(hits(&mut front, &question, kind), 0, "{kind:?}");
    }
    // And the measurement measures: what is passed on is remembered.
    let other = frame::to_bytes(8, 0, 0, &Lookup { floor: 0, book: id("d") });
    assert!(allocations(|| front.take(CLIENT, &other)) > 0);
}
