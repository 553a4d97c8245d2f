//! A cache and the feeds of two catalogs against the log itself: whatever it answers is what the log says at the position
//! that the answer names, and that reaches the floor.

use std::collections::VecDeque;

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use pygmy_proto::frame::{Deframer, Flow};
use pygmy_proto::limits::PEER_BODY_MAX;
use pygmy_proto::message::{Command, FeedOk, FeedOpen, FeedRead, Line, Lookup, NewBook, Search, Topics};
use pygmy_proto::types::{self, Bounded};
use pygmy_ring::StateMachine;

use super::*;
use crate::machine::{ConnId, Now, Outbox, Output};
use crate::roles::feed::FeedSource;
use crate::roles::{Ctx, Links};
use crate::store::Store as Books;

const CATALOGS: usize = 2;
const IDS: [&str; 4] = ["a", "b", "c", "d"];
const TOPICS: [&str; 2] = ["x", "y"];

fn id(book: usize) -> BookId {
    BookId::new(IDS[book % IDS.len()]).expect("a valid id")
}

fn topic(topic: usize) -> Topic {
    types::topic(TOPICS[topic % TOPICS.len()]).expect("a valid topic")
}

fn book(number: usize, of: usize, stock: u32) -> NewBook {
    let title = types::title("a title").expect("a valid title");
    NewBook { id: id(number), title, topic: topic(of), cost_cents: 100, stock }
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A write is committed.
    Write(Command),
    /// A catalog applies some of what is committed, and ends a turn.
    Turn(usize, usize),
    /// Some frames of the feed come.
    Hear(usize),
    /// A catalog answers a read; the answer is on its way.
    Ask(usize, Read),
    /// A catalog answers a read at once.
    Fetch(usize, Read),
    /// An answer comes, in whatever order.
    Arrive(usize),
    /// The feed goes on at another catalog.
    Move(usize),
    /// The feed is given up, and begun anew.
    GiveUp(usize),
    /// A client asks.
    Read(Read, u64),
}

fn command() -> impl Strategy<Value = Command> {
    let line = (0..4_usize, 1..3_u32).prop_map(|(book, copies)| Line { book: id(book), copies });
    prop_oneof![
        3 => line.clone().prop_map(|line| Command::Buy { lines: Bounded::truncated(vec![line]) }),
        2 => line.prop_map(|line| Command::Restock { book: line.book, copies: line.copies }),
        2 => (0..4_usize, 0..500_u64).prop_map(|(book, cost_cents)| Command::Reprice { book: id(book), cost_cents }),
        3 => (0..4_usize, 0..2_usize, 0..5_u32).prop_map(|(n, of, stock)| Command::Add { book: book(n, of, stock) }),
        2 => (0..4_usize).prop_map(|book| Command::Retire { book: id(book) }),
        2 => (0..4_usize, 0..2_usize, 0..5_u32)
            .prop_map(|(n, of, stock)| Command::Put { books: Bounded::truncated(vec![book(n, of, stock)]) }),
    ]
}

fn read() -> impl Strategy<Value = Read> {
    let page = (1..4_u32, proptest::option::weighted(0.2, 0..4_usize));
    prop_oneof![
        4 => (0..4_usize).prop_map(|book| Read::Lookup(Lookup { floor: 0, book: id(book) })),
        3 => (0..2_usize, page).prop_map(|(of, (limit, after))| {
            Read::Search(Search { floor: 0, topic: topic(of), limit, after: after.map(id) })
        }),
        2 => (1..3_u32, proptest::option::weighted(0.2, 0..2_usize))
            .prop_map(|(limit, after)| Read::Topics(Topics { floor: 0, limit, after: after.map(topic) })),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => command().prop_map(Step::Write),
        5 => (0..CATALOGS, 1..5_usize).prop_map(|(catalog, count)| Step::Turn(catalog, count)),
        6 => (1..6_usize).prop_map(Step::Hear),
        4 => (0..CATALOGS, read()).prop_map(|(catalog, read)| Step::Ask(catalog, read)),
        6 => (0..CATALOGS, read()).prop_map(|(catalog, read)| Step::Fetch(catalog, read)),
        4 => any::<usize>().prop_map(Step::Arrive),
        1 => (0..CATALOGS).prop_map(Step::Move),
        1 => (0..CATALOGS).prop_map(Step::GiveUp),
        12 => (read(), 0..4_u64).prop_map(|(read, ahead)| Step::Read(read, ahead)),
    ]
}

/// A catalog: its store, and its side of the feed.
struct Catalog {
    store: Books,
    applied: usize,
    source: FeedSource,
    links: Links,
    out: Outbox,
}

/// An answer as it would be sent.
fn answer_of(store: &Books, read: &Read, seq: u64) -> (Kind, Vec<u8>) {
    let catalog = store.catalog();
    let encoded = match read {
        Read::Lookup(lookup) => catalog
            .get(&lookup.book)
            .map(|book| (Kind::LookupOk, codec::encode(&pygmy_proto::message::LookupOk { seq, book })))
            .ok_or_else(|| unknown_book(&lookup.book)),
        Read::Search(search) => catalog
            .search(seq, &search.topic, search.limit, search.after.as_ref())
            .map(|page| (Kind::SearchOk, codec::encode(&page))),
        Read::Topics(topics) => {
            let page = catalog.topics(seq, topics.limit, topics.after.as_ref());
            Ok((Kind::TopicsOk, codec::encode(&page)))
        }
        _ => unreachable!("no other is asked"),
    };
    let (kind, bytes) = encoded.unwrap_or_else(|error| (Kind::Error, codec::encode(&error.at(seq))));
    (kind, bytes.to_vec())
}

fn apply(store: &mut Books, seq: usize, command: &Command) {
    store.apply(seq as u64, 0, &codec::encode(command), &mut BytesMut::new());
}

struct World {
    log: Vec<Command>,
    catalogs: Vec<Catalog>,
    cache: Cache,
    /// Frames of the feed that are on their way: what kind, and the body.
    wire: VecDeque<(Kind, u64, Vec<u8>)>,
    feeder: usize,
    number: u64,
    opened: bool,
    read: u64,
    answers: Vec<(Read, u64, Kind, Vec<u8>)>,
    given: usize,
}

impl World {
    fn new(bytes_max: u64, planted: Planted) -> Self {
        let catalog = |_| {
            let mut store = Books::new();
            store.track_changes();
            let mut source = FeedSource::default();
            source.planted = planted;
            Catalog { store, applied: 0, source, links: Links::default(), out: Outbox::new() }
        };
        let mut cache = Cache::new(bytes_max, 7);
        cache.planted = planted;
        let mut world = Self {
            log: Vec::new(),
            catalogs: (0..CATALOGS).map(catalog).collect(),
            cache,
            wire: VecDeque::new(),
            feeder: 0,
            number: 0,
            opened: false,
            read: 0,
            answers: Vec::new(),
            given: 0,
        };
        world.open(0);
        for (number, of) in [(0, 0), (1, 0), (2, 1)] {
            world.log.push(Command::Add { book: book(number, of, 5) });
        }
        (0..CATALOGS).for_each(|catalog| world.turn(catalog, 3));
        (0..2).for_each(|_| world.hear());
        world
    }

    fn conn(&self) -> ConnId {
        ConnId(1)
    }

    fn open(&mut self, catalog: usize) {
        let old = self.feeder;
        let conn = self.conn();
        self.catalogs[old].source.on_closed(conn);
        self.wire.clear();
        (self.feeder, self.opened, self.read) = (catalog, false, 0);
        self.number += 1;
        self.catalogs[catalog].source.on_open(conn, self.number, FeedOpen { after: self.cache.place() });
        self.turn(catalog, 0);
    }

    fn turn(&mut self, index: usize, count: usize) {
        let catalog = &mut self.catalogs[index];
        for seq in catalog.applied + 1..=(catalog.applied + count).min(self.log.len()) {
            apply(&mut catalog.store, seq, &self.log[seq - 1]);
            catalog.applied = seq;
        }
        let touched = catalog.store.take_changes();
        let now = Now { mono_ns: 0, wall_us: 0 };
        let mut ctx = Ctx { now, me: 5, name: "catalog-1", links: &catalog.links, out: &mut catalog.out };
        catalog.source.on_turn(&mut ctx, catalog.applied as u64, touched, &catalog.store);
        for output in catalog.out.take_outputs() {
            let bytes = match output {
                Output::Frame { range, .. } => catalog.out.bytes()[range].to_vec(),
                Output::Shared { bytes, .. } => bytes.to_vec(),
                other => panic!("{other:?}"),
            };
            let fed = Deframer::new(PEER_BODY_MAX).feed(&bytes, |_, frame| {
                let kind = frame.kind().expect("a known kind");
                self.wire.push_back((kind, frame.header.request_id, frame.body.to_vec()));
                Flow::Continue
            });
            fed.expect("whole frames");
        }
        catalog.out.recycle(Vec::new());
    }

    fn hear(&mut self) {
        let Some((kind, number, body)) = self.wire.pop_front() else { return };
        if kind == Kind::FeedOk {
            assert_eq!(number, self.number);
            self.cache.resume(codec::decode::<FeedOk>(&body).expect("a FeedOk").after);
            self.opened = true;
            return;
        }
        assert!(self.opened, "nothing is told before the answer");
        self.read += (body.len() + pygmy_proto::header::HEADER_LEN) as u64;
        let conn = self.conn();
        self.catalogs[self.feeder].source.on_read(conn, FeedRead { bytes: self.read });
        let feed = codec::decode(&body).expect("a Feed");
        assert_eq!(self.cache.apply(&feed), Ok(()), "a sound feed is never doubted");
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Write(command) => self.log.push(command),
            Step::Turn(catalog, count) => self.turn(catalog, count),
            Step::Hear(count) => (0..count).for_each(|_| self.hear()),
            Step::Ask(catalog, read) => {
                let Catalog { store, applied, .. } = &self.catalogs[catalog];
                let (kind, bytes) = answer_of(store, &read, *applied as u64);
                self.answers.push((read, *applied as u64, kind, bytes));
            }
            Step::Fetch(catalog, read) => {
                let Catalog { store, applied, .. } = &self.catalogs[catalog];
                let (kind, bytes) = answer_of(store, &read, *applied as u64);
                self.cache.fill(&read, kind, *applied as u64, &bytes[SEQ_LEN..]);
            }
            Step::Arrive(index) if !self.answers.is_empty() => {
                let (read, seq, kind, bytes) = self.answers.swap_remove(index % self.answers.len());
                self.cache.fill(&read, kind, seq, &bytes[SEQ_LEN..]);
            }
            Step::Arrive(_) => {}
            Step::Move(catalog) => self.open(catalog),
            Step::GiveUp(catalog) => {
                self.cache.empty(None);
                self.open(catalog);
            }
            Step::Read(read, ahead) => return self.check(&read, self.cache.processed().saturating_sub(3) + ahead),
        }
        Ok(())
    }

    /// Whatever the cache says must be what the log says.
    fn check(&mut self, read: &Read, floor: u64) -> Result<(), String> {
        let Found::Answer(answer) = self.cache.find(read, floor) else { return Ok(()) };
        let mut body = BytesMut::new();
        answer.write(&mut body);
        let (kind, seq) = (answer.kind, answer.seq);
        let committed = self.catalogs.iter().map(|catalog| catalog.applied as u64).max().unwrap_or(0);
        if seq < floor || seq > committed {
            return Err(format!("{read:?} is answered at {seq}: the floor is {floor}, committed {committed}"));
        }
        let mut twin = Books::new();
        for (index, command) in self.log.iter().take(seq as usize).enumerate() {
            apply(&mut twin, index + 1, command);
        }
        let wanted = answer_of(&twin, read, seq);
        if (kind, &body[..]) != (wanted.0, &wanted.1[..]) {
            return Err(format!("{read:?} is answered at {seq} by {kind:?} {body:?}, the log says {wanted:?}"));
        }
        self.given += 1;
        Ok(())
    }
}

fn run(planted: Planted, cases: u32) -> Result<usize, String> {
    let given = std::cell::Cell::new(0);
    let steps = (proptest::collection::vec(step(), 20..120), prop_oneof![Just(1_u64 << 20), 600..4_000_u64]);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let ran = runner.run(&steps, |(steps, bytes_max)| {
        let mut world = World::new(bytes_max, planted);
        for step in steps {
            world.step(step).map_err(TestCaseError::fail)?;
        }
        given.set(given.get() + world.given);
        Ok(())
    });
    match ran {
        Ok(()) => Ok(given.get()),
        Err(TestError::Fail(why, _)) => Err(why.to_string()),
        Err(other) => Err(other.to_string()),
    }
}

#[test]
fn whatever_it_answers_is_what_the_log_says() {
    let given = run(Planted::default(), 1_000).unwrap_or_else(|why| panic!("{why}"));
    assert!(given > 3_000, "only {given} answers came from the cache");
}

#[cfg(feature = "mistakes")]
#[test]
fn planted_mistakes_are_found() {
    for mistake in [Mistake::FillRacesInvalidation, Mistake::FeedResumedBackwards] {
        let found = run(Planted(Some(mistake)), 3_000);
        assert!(found.is_err(), "{mistake:?} was not found");
    }
}

fn lookup(book: usize) -> Read {
    Read::Lookup(Lookup { floor: 0, book: id(book) })
}

fn filled(cache: &mut Cache, store: &Books, read: &Read, seq: u64) -> bool {
    let (kind, bytes) = answer_of(store, read, seq);
    cache.fill(read, kind, seq, &bytes[SEQ_LEN..])
}

fn seq_of(found: &Found<'_>) -> Option<u64> {
    match found {
        Found::Answer(answer) => Some(answer.seq),
        Found::Behind | Found::Nothing => None,
    }
}

fn stocked() -> Books {
    let mut store = Books::new();
    apply(&mut store, 1, &Command::Add { book: book(0, 0, 5) });
    apply(&mut store, 2, &Command::Add { book: book(1, 0, 5) });
    store
}

/// An answer that left before a change and comes behind it would never be corrected.
#[test]
fn an_answer_from_before_a_change_that_was_told_is_not_kept() {
    let (mut cache, store) = (Cache::new(1 << 20, 7), stocked());
    cache.resume(2);
    let stock = FeedChange::Stock { book: id(0), seq: 3, stock: 4 };
    cache.apply(&Feed { after: 2, upto: 3, changes: Bounded::truncated(vec![stock]) }).expect("a sound feed");
    assert!(!filled(&mut cache, &store, &lookup(0), 2));
    assert!(filled(&mut cache, &store, &lookup(1), 2), "nothing was told of the other book");
    assert_eq!(cache.counters().refused, 1);
    assert!(matches!(cache.find(&lookup(0), 0), Found::Nothing));
    assert_eq!(seq_of(&cache.find(&lookup(1), 3)), Some(3), "it is true up to what was processed");
}

/// A cache that has just begun does not know what changed before.
#[test]
fn an_answer_from_before_the_feed_began_is_not_kept() {
    let (mut cache, store) = (Cache::new(1 << 20, 7), stocked());
    cache.resume(10);
    assert!(!filled(&mut cache, &store, &lookup(0), 9));
    assert!(filled(&mut cache, &store, &lookup(0), 10));
}

#[test]
fn an_answer_ahead_of_the_feed_names_its_own_position_and_is_not_set_back() {
    let (mut cache, store) = (Cache::new(1 << 20, 7), stocked());
    cache.resume(2);
    assert!(filled(&mut cache, &store, &lookup(0), 9));
    assert_eq!(seq_of(&cache.find(&lookup(0), 9)), Some(9));
    assert!(matches!(cache.find(&lookup(0), 10), Found::Behind));
    let old = FeedChange::Stock { book: id(0), seq: 8, stock: 1 };
    cache.apply(&Feed { after: 2, upto: 8, changes: Bounded::truncated(vec![old]) }).expect("a sound feed");
    let Found::Answer(answer) = cache.find(&lookup(0), 9) else { panic!("it is kept") };
    let mut body = BytesMut::new();
    answer.write(&mut body);
    let book = codec::decode::<pygmy_proto::message::LookupOk>(&body).expect("a LookupOk").book;
    assert_eq!(book.stock, 5);
}

/// A bought book stays where it is, and so does the page on which it stands.
#[test]
fn a_buy_leaves_a_page_and_a_listing_ends_it() {
    let (mut cache, store) = (Cache::new(1 << 20, 7), stocked());
    let search = Read::Search(Search { floor: 0, topic: topic(0), limit: 10, after: None });
    let topics = Read::Topics(Topics { floor: 0, limit: 10, after: None });
    cache.resume(2);
    assert!(filled(&mut cache, &store, &search, 2) && filled(&mut cache, &store, &topics, 2));
    let buy = FeedChange::Stock { book: id(0), seq: 3, stock: 4 };
    cache.apply(&Feed { after: 2, upto: 3, changes: Bounded::truncated(vec![buy]) }).expect("a sound feed");
    let Found::Answer(answer) = cache.find(&search, 3) else { panic!("the page stays") };
    let mut body = BytesMut::new();
    answer.write(&mut body);
    let page: SearchOk = codec::decode(&body).expect("a SearchOk");
    assert_eq!((page.seq, page.books[0].stock, page.books[0].changed_seq, page.books.len()), (3, 4, 3, 2));
    assert_eq!(seq_of(&cache.find(&topics, 3)), Some(3));
    let retire = [FeedChange::Listing { topic: topic(0), seq: 4 }, FeedChange::Gone { book: id(1), seq: 4 }];
    cache.apply(&Feed { after: 3, upto: 4, changes: Bounded::truncated(retire.into()) }).expect("a sound feed");
    assert!(matches!(cache.find(&search, 0), Found::Nothing) && matches!(cache.find(&topics, 0), Found::Nothing));
    assert_eq!(seq_of(&cache.find(&lookup(1), 4)), Some(4), "that it is gone is an answer too");
    assert!(!filled(&mut cache, &store, &search, 3), "a list from before the change");
}

#[test]
fn what_cannot_be_told_is_doubted() {
    let (mut cache, store) = (Cache::new(1 << 20, 7), stocked());
    cache.resume(5);
    let none = || Bounded::default();
    assert_eq!(cache.apply(&Feed { after: 6, upto: 7, changes: none() }), Err(Doubt::Gap));
    assert_eq!(cache.apply(&Feed { after: 3, upto: 4, changes: none() }), Err(Doubt::Backwards));
    assert_eq!(cache.apply(&Feed { after: 4, upto: 6, changes: none() }), Ok(()), "told twice is no harm");
    assert!(filled(&mut cache, &store, &lookup(3), 6), "that there is no such book");
    let stock = FeedChange::Stock { book: id(3), seq: 7, stock: 1 };
    let contradicts = Feed { after: 6, upto: 7, changes: Bounded::truncated(vec![stock]) };
    assert_eq!(cache.apply(&contradicts), Err(Doubt::Contradiction));
    cache.empty(None);
    assert_eq!((cache.entries(), cache.place(), cache.counters().emptied), (0, None, 1));
}

#[test]
fn a_feed_that_goes_on_elsewhere_empties_the_cache_and_one_that_goes_on_here_does_not() {
    let (mut cache, store) = (Cache::new(1 << 20, 7), stocked());
    cache.resume(5);
    filled(&mut cache, &store, &lookup(0), 5);
    cache.resume(5);
    assert_eq!((cache.entries(), cache.processed()), (1, 5));
    cache.resume(4);
    assert_eq!((cache.entries(), cache.processed()), (0, 4));
}

#[test]
fn it_takes_no_more_than_it_may_and_nothing_when_it_is_off() {
    let store = stocked();
    let mut cache = Cache::new(20_000, 7);
    for number in 0..1_000 {
        let book = BookId::new(&format!("book-{number}")).expect("a valid id");
        filled(&mut cache, &store, &Read::Lookup(Lookup { floor: 0, book }), 1);
        assert!(cache.bytes() <= 20_000, "{} bytes", cache.bytes());
    }
    assert!(cache.entries() > 10);
    let mut off = Cache::new(0, 7);
    assert!(!off.is_on() && !filled(&mut off, &store, &lookup(0), 1));
    assert_eq!((off.entries(), off.counters().refused), (0, 0));
}
