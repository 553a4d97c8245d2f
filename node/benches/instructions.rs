//! Instructions of a server's steps: giving out a job, a lookup that the cache answers, a buy that is applied, and a batch
//! that goes to the log.
#![allow(clippy::unwrap_used, reason = "nothing here can fail but by a mistake in here")]

#[path = "../tests/disk_support/mod.rs"]
mod disk_support;
#[path = "../tests/front_support/mod.rs"]
mod front_support;
#[path = "../../proto-spec/benches/rounds/mod.rs"]
mod rounds;

use std::hint::black_box;
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};
use disk_support::{GENESIS, UUID, epoch};
use front_support::{CLIENT, Front, book, id};
use pygmy_node::disk::chain::end_of;
use pygmy_node::disk::log::{LogFiles, Options};
use pygmy_node::disk::sim::SimFs;
use pygmy_node::roles::dispatch::Dispatcher;
use pygmy_node::store::Store;
use pygmy_proto::batch::{BatchBuilder, EntryKind};
use pygmy_proto::message::{Book, Command, Line, Lookup, LookupOk, NewBook};
use pygmy_proto::types::Bounded;
use pygmy_proto::{BookId, codec, frame};
use pygmy_ring::sessions::{Admission, RequestId};
use pygmy_ring::{Sessions, StateMachine};

/// Servers to choose from.
const SERVERS: u16 = 7;
/// Books in the store.
const BOOKS: u64 = 1_000;
/// Sessions that buy.
const SESSIONS: u64 = 50;
/// Buys in a batch.
const BUYS: u64 = 64;

fn main() -> ExitCode {
    rounds::main(&[
        ("dispatch_7_servers", dispatch),
        ("cache_hit", cache_hit),
        ("apply_buy", apply_buy),
        ("log_64_buys", log_buys),
    ])
}

/// A job is given to a server, and its answer comes.
fn dispatch(rounds: u64) {
    let mut servers = Dispatcher::new(1..=SERVERS);
    (1..=SERVERS).for_each(|node| servers.set_up(node, true));
    for round in 0..rounds {
        let node = servers.pick(black_box(round)).unwrap();
        servers.warm(node);
        servers.done(node);
    }
}

/// From the bytes of a lookup to the bytes of its answer.
fn cache_hit(rounds: u64) {
    let mut front = Front::new();
    front.connect();
    let lookup = Lookup { floor: 0, book: id("rpcdummies") };
    front.warm(&lookup, &LookupOk { seq: 10, book: book("rpcdummies") });
    let question = frame::to_bytes(7, 0, 0, &lookup);
    for _ in 0..rounds {
        front.take(CLIENT, black_box(&question));
        let outputs = front.out.take_outputs();
        assert_eq!(outputs.len(), 1, "the cache answers");
        front.out.recycle(outputs);
    }
}

fn book_id(number: u64) -> BookId {
    BookId::new(&format!("book-{number}")).unwrap()
}

fn buy(number: u64) -> Bytes {
    let lines = Bounded::truncated(vec![Line { book: book_id(number), copies: 1 }]);
    codec::encode(&Command::Buy { lines })
}

/// A store with books, at the position that it has reached.
fn store() -> (Store, u64) {
    let mut store = Store::new();
    let mut answer = BytesMut::new();
    for seq in 1..=BOOKS {
        let Book { title, topic, cost_cents, .. } = book("any");
        let book = NewBook { id: book_id(seq - 1), title, topic, cost_cents, stock: 1_000_000 };
        answer.clear();
        store.apply(seq, seq, &codec::encode(&Command::Add { book }), &mut answer);
    }
    assert_eq!(store.catalog().len() as u64, BOOKS);
    (store, BOOKS)
}

/// A buy is done, and what became of it is remembered by its session.
fn apply_buy(rounds: u64) {
    let (mut store, mut seq) = store();
    let mut sessions = Sessions::new(Default::default());
    let first = seq + 1;
    for _ in 0..SESSIONS {
        seq += 1;
        sessions.register(seq);
    }
    let buys: Vec<Bytes> = (0..BOOKS).map(buy).collect();
    let mut answer = BytesMut::new();
    for round in 0..rounds {
        seq += 1;
        let counter = round / SESSIONS + 1;
        let request = RequestId { session: first + round % SESSIONS, counter, first_incomplete: counter };
        // Neighbours in the log are no neighbours in the store.
        let payload = black_box(&buys[(round * 617 % BOOKS) as usize][..]);
        assert_eq!(sessions.admit(seq, request, payload), Admission::Execute);
        answer.clear();
        store.apply(seq, seq, payload, &mut answer);
        sessions.record(seq, request, payload, &answer);
    }
    assert_eq!(store.ledger().len() as u64, rounds, "every buy was done");
}

/// A batch is made of buys, and goes to the log as a record of its own.
fn log_buys(rounds: u64) {
    let options = Options { segment_bytes: 1 << 20, anchor: GENESIS };
    let (mut log, _) = LogFiles::open(SimFs::new(), UUID, options).unwrap();
    let payload = buy(1);
    let mut body = BytesMut::new();
    let mut end = GENESIS;
    for round in 0..rounds {
        let mut builder = BatchBuilder::new(epoch(1), 1, end.seq + 1, round + 1, end.hash);
        for at in 0..BUYS {
            body.clear();
            for word in [at, round + 1, round + 1] {
                body.extend_from_slice(&u64::to_le_bytes(word));
            }
            body.extend_from_slice(black_box(&payload));
            builder.push(EntryKind::Command, &body);
        }
        let batch = builder.finish().unwrap();
        end = end_of(&batch);
        log.append(&[(epoch(1), batch)]).unwrap();
    }
    assert_eq!(log.end().seq, rounds * BUYS);
}
