//! States go to disk and come back as they were, whatever they are.

mod snapshot_support;

use proptest::prelude::*;
use pygmy_node::disk::sim::SimFs;
use pygmy_node::snapshot::open::{OpenOptions, Opened, open};
use pygmy_proto::batch::EntryKind;
use pygmy_proto::message::{Command, Line};
use pygmy_proto::types::Bounded;
use pygmy_ring::sessions::{KeptOutcome, KeptSession, SessionLimits, Sessions};
use snapshot_support::*;

/// What one client does.
#[derive(Debug, Clone)]
enum Act {
    Register,
    Put(u8, u64),
    Buy(Vec<(u8, u32)>),
    Retire(u8),
    Restock(u8, u32),
    Snapshot,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => Just(Act::Register),
        4 => (0..12_u8, 0..9_u64).prop_map(|(book, salt)| Act::Put(book, salt)),
        6 => proptest::collection::vec((0..12_u8, 1..5_u32), 1..4).prop_map(Act::Buy),
        1 => (0..12_u8).prop_map(Act::Retire),
        1 => (0..12_u8, 1..5_u32).prop_map(|(book, copies)| Act::Restock(book, copies)),
        1 => Just(Act::Snapshot),
    ]
}

fn id(book: u8) -> pygmy_proto::BookId {
    pygmy_proto::BookId::new(&format!("book-{book}")).expect("an id")
}

fn command(act: &Act) -> Option<Command> {
    Some(match act {
        Act::Register | Act::Snapshot => return None,
        Act::Put(at, salt) => Command::Put { books: Bounded::truncated(vec![book(&id(*at), *salt)]) },
        Act::Buy(wanted) => {
            let lines = wanted.iter().map(|(at, copies)| Line { book: id(*at), copies: *copies }).collect();
            Command::Buy { lines: Bounded::truncated(lines) }
        }
        Act::Retire(at) => Command::Retire { book: id(*at) },
        Act::Restock(at, copies) => Command::Restock { book: id(*at), copies: *copies },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_comes_back(acts in proptest::collection::vec(act(), 0..60)) {
        let fs = SimFs::new();
        let mut twin = Twin::new();
        let Opened { mut log, snapshots, .. } = opened(&fs);
        twin.log(&mut log, &[(EntryKind::Register, Vec::new())]);
        twin.begin_session(1);
        for act in &acts {
            match act {
                Act::Register => {
                    twin.log(&mut log, &[(EntryKind::Register, Vec::new())]);
                    twin.begin_session(twin.seq());
                }
                Act::Snapshot => {
                    if snapshots.newest().is_none_or(|newest| newest.seq() < twin.seq()) {
                        build(&snapshots, &twin.order()).expect("a snapshot");
                    }
                }
                other => {
                    let entry = twin.write(&command(other).expect("a command"));
                    twin.log(&mut log, &[entry]);
                }
            }
        }
        drop((log, snapshots));
        let found = Twin::of(opened(&fs.kill()).recovered);
        prop_assert_eq!((found.mark(), found.hash()), (twin.mark(), twin.hash()));
        let (own, other) = (found.state.machine(), twin.state.machine());
        prop_assert!(own.catalog().iter().eq(other.catalog().iter()));
        prop_assert!(own.ledger().iter_from(0).eq(other.ledger().iter_from(0)));
        prop_assert_eq!(own.catalog().topics(1, 100, None), other.catalog().topics(1, 100, None));
        for id in twin.state.sessions().ids() {
            prop_assert_eq!(found.state.sessions().get(id), twin.state.sessions().get(id));
        }
    }
}

#[test]
fn a_hundred_thousand_books_come_back() {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    let large = OpenOptions { segment_bytes: 4 << 20, ..OPTIONS };
    let opened = |fs: &SimFs| open(fs.clone(), UUID, large).unwrap_or_else(|error| panic!("{error}"));
    let Opened { mut log, snapshots, .. } = opened(&fs);
    twin.log(&mut log, &[(EntryKind::Register, Vec::new())]);
    twin.begin_session(1);
    for chunk in 0..200 {
        let entries: Vec<_> = (0..5)
            .map(|part| {
                let books = (0..100).map(|at| book(&format!("b{chunk}-{part}-{at}"), at)).collect();
                twin.write(&Command::Put { books: Bounded::truncated(books) })
            })
            .collect();
        twin.log(&mut log, &entries);
    }
    let taken = build(&snapshots, &twin.order()).expect("a snapshot");
    assert!(taken.info.bytes() > 20 * 256 * 1024, "many chunks");
    drop((log, snapshots));
    let found = opened(&fs.kill()).recovered;
    assert_eq!((found.machine.catalog().len(), found.batches.len()), (100_000, 0));
    let found = Twin::of(found);
    assert_eq!(found.hash(), twin.hash());
    assert!(found.state.machine().catalog().iter().eq(twin.state.machine().catalog().iter()));
}

#[test]
fn a_restored_table_of_sessions_goes_on_as_the_one_it_was_taken_from() {
    let limits = SessionLimits { count_max: 3, ..SessionLimits::default() };
    let mut table = Sessions::new(limits);
    for seq in 1..=3 {
        table.register(seq);
    }
    let id = pygmy_ring::sessions::RequestId { session: 1, counter: 5, first_incomplete: 2 };
    table.admit(4, id, b"payload");
    table.record(4, id, b"payload", b"answer");
    let mut copy = Sessions::new(limits);
    // In any order.
    for id in table.ids().into_iter().rev() {
        copy.restore(table.get(id).expect("a session")).expect("a session");
    }
    for table in [&mut table, &mut copy] {
        // The one that was not used for longest goes, here as there.
        table.register(9);
    }
    assert_eq!(table.ids(), [1, 3, 9]);
    assert_eq!((copy.ids(), copy.state_hash()), (table.ids(), table.state_hash()));
    assert_eq!(copy.admit(10, id, b"payload"), table.admit(10, id, b"payload"));
    assert_eq!(copy.admit(11, id, b"other"), table.admit(11, id, b"other"));
    assert_eq!(copy.state_hash(), table.state_hash());
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let outcome = |counter| KeptOutcome { counter, payload_hash: 1, answer: Box::default() };
    let good = KeptSession { id: 5, first_incomplete: 3, used_seq: 9, outcomes: vec![outcome(3), outcome(7)] };
    let mut table = Sessions::new(SessionLimits::default());
    table.restore(good.clone()).expect("a good one");
    let bad = [
        good.clone(),
        KeptSession { id: 6, ..good.clone() },
        KeptSession { id: 8, used_seq: 7, ..good.clone() },
        KeptSession { id: 6, used_seq: 10, first_incomplete: 0, outcomes: Vec::new() },
        KeptSession { id: 6, used_seq: 10, first_incomplete: 4, ..good.clone() },
        KeptSession { id: 6, used_seq: 10, outcomes: vec![outcome(7), outcome(7)], ..good },
    ];
    let hash = table.state_hash();
    for session in bad {
        assert!(table.restore(session.clone()).is_err(), "{session:?}");
        assert_eq!(table.state_hash(), hash);
    }
}
