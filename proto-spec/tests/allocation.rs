//! Nothing is allocated before its limit is checked: a few bytes that claim to be many cost nothing.
//!
//! The allocator below counts what the running thread holds. Implementing one is `unsafe` by its nature, so this file
//! alone is exempt from the workspace's rule; it adds nothing to what the system's allocator does.
#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::kinds::with_message;
use common::samples::{self, samples};
use pygmy_proto::batch::Batch;
use pygmy_proto::frame::{Deframer, Flow, FrameError};
use pygmy_proto::header::{HEADER_LEN, Kind};
use pygmy_proto::limits::{CLIENT_BODY_MAX, HELLO_BODY_MAX, PEER_BODY_MAX, VERSION};
use pygmy_proto::message::Trace;
use pygmy_proto::{codec, datagram, header};

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn add(bytes: isize) {
    // While a thread ends its counters may be gone; then nobody measures.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only this thread's own cells,
// which need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may both exist while the contents move.
        add(size as isize);
        add(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `work` held at once beyond what was held before.
fn peak(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    work();
    usize::try_from(PEAK.get() - before).expect("the peak is not below its start")
}

#[test]
fn the_allocator_counts() {
    assert!(peak(|| drop(std::hint::black_box(vec![0_u8; 100_000]))) >= 100_000);
    assert_eq!(peak(|| ()), 0);
}

/// Room that a body may cost: what it holds, the items reserved ahead of their bytes (64 of the largest, in two lists
/// within each other), and an error's text.
fn allowed(body: &[u8]) -> usize {
    40 * 1024 + 16 * body.len()
}

/// Every eight bytes of every vector are replaced by the length of a list too long for the body that holds it.
#[test]
fn claimed_lengths_cost_nothing() {
    const CLAIMS: [u64; 6] = [41, 257, 8_192, 262_144, u32::MAX as u64, u64::MAX];
    for sample in samples() {
        let kind = Kind::from_u16(u16::from_le_bytes([sample.frame[10], sample.frame[11]])).expect("a known kind");
        let body = &sample.frame[HEADER_LEN..];
        for at in 0..body.len().saturating_sub(7) {
            for claim in CLAIMS {
                let mut body = body.to_vec();
                body[at..at + 8].copy_from_slice(&claim.to_le_bytes());
                let used = peak(|| with_message!(kind, M => drop(codec::decode::<M>(&body))));
                let name = &sample.name;
                assert!(used <= allowed(&body), "{name} with {claim} at {at}: {used} bytes for {}", body.len());
            }
        }
    }
}

#[test]
fn a_body_of_one_length_costs_nothing() {
    for claim in [32_u64, 8_192, 1 << 20, u64::MAX] {
        let body = claim.to_le_bytes();
        for kind in Kind::ALL {
            let used = peak(|| with_message!(*kind, M => drop(codec::decode::<M>(&body))));
            assert!(used <= allowed(&body), "{kind:?} claiming {claim}: {used} bytes");
        }
        let used = peak(|| drop(codec::decode_prefix::<Trace>(&body)));
        assert!(used <= allowed(&body), "a trace claiming {claim}: {used} bytes");
    }
}

/// A header that is valid but for the length that it claims.
fn claiming(len: u32) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[8] = VERSION;
    let crc = header::checksum(&bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn frames_too_long_are_refused_at_their_header() {
    for max in [HELLO_BODY_MAX, CLIENT_BODY_MAX, PEER_BODY_MAX] {
        for len in [max as u32 + 1, 1 << 30, u32::MAX] {
            let bytes = claiming(len);
            let mut deframer = Deframer::new(max);
            let used = peak(|| {
                let fed = deframer.feed(&bytes, |_, _| Flow::Continue);
                assert_eq!(fed, Err(FrameError::TooLong { len, max: max as u32 }));
            });
            assert!(used <= HEADER_LEN, "{used} bytes for a frame that claims {len}");
        }
    }
}

/// A frame within the limit costs what has come of it, not what it claims.
#[test]
fn frames_cost_what_has_come_of_them() {
    let bytes = claiming(PEER_BODY_MAX as u32);
    let mut deframer = Deframer::new(PEER_BODY_MAX);
    let used = peak(|| {
        for byte in bytes.chunks(1) {
            assert_eq!(deframer.feed(byte, |_, _| Flow::Continue), Ok(()));
        }
    });
    assert_eq!(deframer.buffered(), HEADER_LEN);
    assert!(used <= 128, "{used} bytes held for a header");

    let used = peak(|| assert_eq!(deframer.feed(&[0; 10_000], |_, _| Flow::Continue), Ok(())));
    assert!(used <= 2 * 11_000, "{used} bytes held for 10,000");
}

/// Of a large frame that came in pieces nothing is kept: ten thousand idle connections must not hold their largest.
#[test]
fn an_idle_deframer_holds_little() {
    let mut bytes = bytes::BytesMut::new();
    pygmy_proto::frame::write_raw(&mut bytes, Kind::Write as u16, 1, 0, 0, &vec![0; CLIENT_BODY_MAX]);
    let before = HELD.get();
    let mut deframer = Deframer::new(CLIENT_BODY_MAX);
    let mut count = 0;
    for piece in bytes.chunks(5_000) {
        let fed = deframer.feed(piece, |_, _| {
            count += 1;
            Flow::Continue
        });
        assert_eq!(fed, Ok(()));
    }
    assert_eq!(count, 1);
    let held = HELD.get() - before;
    assert!(held <= 4 * 1024, "{held} bytes are held between two frames");
}

/// A stranger's datagram costs nothing, and a member's no more than it holds.
#[test]
fn datagrams_cost_nothing_before_they_are_verified() {
    let key = samples::datagram_key();
    for (name, good) in samples::datagrams() {
        for at in 0..good.len() {
            let mut bytes = good.to_vec();
            bytes[at] ^= 0x55;
            let used = peak(|| assert!(datagram::read(&bytes, &key).is_err()));
            assert_eq!(used, 0, "{name} with another byte {at}");
        }
        let used = peak(|| assert!(datagram::read(&good, &key).is_ok()));
        assert!(used <= allowed(&good), "{name}: {used} bytes");
    }
    assert_eq!(peak(|| assert!(datagram::read(&[0; 65_536], &key).is_err())), 0);
}

#[test]
fn batches_are_parsed_in_place() {
    let good = samples::batch().bytes().clone();
    for at in 0..good.len().saturating_sub(3) {
        let mut bytes = good.to_vec();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let bytes = bytes::Bytes::from(bytes);
        // Taking the bytes shares them, which costs a counter.
        let used = peak(|| drop(Batch::parse(bytes)));
        assert!(used <= 64, "{used} bytes for a batch of {}", good.len());
    }
}
