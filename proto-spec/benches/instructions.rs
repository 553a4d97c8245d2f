//! Instructions of what every request passes through: frames, their headers, and the bodies of lookups and buys.

mod rounds;

use std::hint::black_box;
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::header::HeaderView;
use pygmy_proto::limits::CLIENT_BODY_MAX;
use pygmy_proto::message::{
    Book, Command, Line, Lookup, LookupOk, Message, OrderLine, OrderRecord, Outcome, Write, WriteOk,
};
use pygmy_proto::types::{self, BookId, Bounded};

/// Frames of one read.
const FRAMES: usize = 64;

fn main() -> ExitCode {
    rounds::main(&[
        ("header", header),
        ("lookup_encode", |rounds| encode(rounds, &lookup())),
        ("lookup_decode", |rounds| decode(rounds, &lookup())),
        ("lookup_answer_encode", |rounds| encode(rounds, &lookup_answer())),
        ("lookup_answer_decode", |rounds| decode(rounds, &lookup_answer())),
        ("buy_encode", |rounds| encode(rounds, &buy())),
        ("buy_decode", |rounds| decode(rounds, &buy())),
        ("buy_answer_encode", |rounds| encode(rounds, &buy_answer())),
        ("buy_answer_decode", |rounds| decode(rounds, &buy_answer())),
        ("deframe_64_lookups", |rounds| deframe(rounds, usize::MAX)),
        ("deframe_64_lookups_cut_anywhere", |rounds| deframe(rounds, 1_000)),
    ])
}

fn id() -> BookId {
    BookId::new("rpcdummies").expect("a valid id")
}

fn lookup() -> Lookup {
    Lookup { floor: 1_234_567, book: id() }
}

fn lookup_answer() -> LookupOk {
    let title = types::title("RPCs for Dummies").expect("a valid title");
    let topic = types::topic("distributed-systems").expect("a valid topic");
    let book = Book { id: id(), title, topic, cost_cents: 3_500, stock: 1_000, changed_seq: 1_234_000 };
    LookupOk { seq: 1_234_567, book }
}

fn buy() -> Write {
    let lines = Bounded::truncated(vec![Line { book: id(), copies: 1 }]);
    Write { session: 77, counter: 1_000, first_incomplete: 990, command: Command::Buy { lines } }
}

fn buy_answer() -> WriteOk {
    let line = OrderLine { book: id(), copies: 1, cost_cents: 3_500, left: 999 };
    let lines = Bounded::truncated(vec![line]);
    let order = OrderRecord { number: 1_234_568, time_us: 1_795_435_200_000_000, total_cents: 3_500, lines };
    WriteOk { seq: 1_234_568, outcome: Outcome::Bought { order } }
}

fn header(rounds: u64) {
    let frame = frame::to_bytes(7, 0, 0, &lookup());
    for _ in 0..rounds {
        black_box(HeaderView::new(black_box(&frame)).map(HeaderView::header));
    }
}

fn encode<M: Message>(rounds: u64, message: &M) {
    let mut out = BytesMut::new();
    for round in 0..rounds {
        out.clear();
        frame::write(&mut out, round, 0, 0, black_box(message));
        black_box(&out[..]);
    }
}

fn decode<M: Message>(rounds: u64, message: &M) {
    let bytes = frame::to_bytes(7, 0, 0, message);
    let mut deframer = Deframer::new(CLIENT_BODY_MAX);
    for _ in 0..rounds {
        let fed = deframer.feed(black_box(&bytes), |_, frame| {
            black_box(frame.decode::<M>()).expect("it was encoded before");
            Flow::Continue
        });
        fed.expect("whole frames");
    }
}

/// The frames of one read, in pieces of so many bytes.
fn deframe(rounds: u64, piece: usize) {
    let one = frame::to_bytes(7, 0, 0, &lookup());
    let all: Bytes = one.repeat(FRAMES).into();
    let mut deframer = Deframer::new(CLIENT_BODY_MAX);
    let mut count = 0;
    for _ in 0..rounds {
        for piece in all.chunks(piece.min(all.len())) {
            let fed = deframer.feed(black_box(piece), |_, frame| {
                black_box(frame.body);
                count += 1;
                Flow::Continue
            });
            fed.expect("whole frames");
        }
    }
    assert_eq!(count, rounds * FRAMES as u64);
}
