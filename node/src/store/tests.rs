use proptest::prelude::*;
use pygmy_proto::message::{Line, Topics};
use pygmy_proto::types::{Title, Topic};

use super::*;

fn id(text: &str) -> BookId {
    BookId::new(text).expect("a valid id")
}

fn book(name: &str, topic: &str, cost_cents: u64, stock: u32) -> NewBook {
    NewBook { id: id(name), title: Title::truncated(name), topic: Topic::truncated(topic), cost_cents, stock }
}

fn put(books: &[NewBook]) -> Command {
    Command::Put { books: Bounded::truncated(books.to_vec()) }
}

fn buy(lines: &[(&str, u32)]) -> Command {
    let lines = lines.iter().map(|(book, copies)| Line { book: id(book), copies: *copies });
    Command::Buy { lines: Bounded::truncated(lines.collect()) }
}

/// A store with commands applied at 1, 2, 3, …
struct Shop {
    store: Store,
    seq: u64,
}

impl Shop {
    fn new(books: &[NewBook]) -> Self {
        let mut shop = Self { store: Store::new(), seq: 0 };
        shop.apply(&put(books)).expect("the books are valid");
        shop
    }

    fn apply(&mut self, command: &Command) -> Result<Outcome, ErrorBody> {
        self.seq += 1;
        let mut answer = BytesMut::new();
        self.store.apply(self.seq, self.seq, &codec::encode(command), &mut answer);
        let (kind, body) = split_answer(&answer).expect("an answer has a kind");
        match Kind::from_u16(kind) {
            Some(Kind::WriteOk) => {
                let ok: WriteOk = codec::decode(body).expect("a whole answer");
                assert_eq!(ok.seq, self.seq);
                Ok(ok.outcome)
            }
            Some(Kind::Error) => Err(codec::decode(body).expect("a whole error")),
            other => panic!("answer of kind {other:?}"),
        }
    }

    fn refused(&mut self, command: &Command) -> ErrorBody {
        let before = self.store.state_hash();
        let error = self.apply(command).expect_err("it must be refused");
        assert_eq!(self.store.state_hash(), before, "a refused write changed something");
        error
    }

    fn stock(&self, book: &str) -> u32 {
        self.store.catalog().get(&id(book)).expect("the book is there").stock
    }
}

#[test]
fn a_cart_is_sold_whole_and_recorded() {
    let mut shop = Shop::new(&[book("a", "t", 250, 10), book("b", "t", 1_000, 5)]);
    let Ok(Outcome::Bought { order }) = shop.apply(&buy(&[("a", 4), ("b", 5)])) else { panic!("not sold") };
    assert_eq!((order.number, order.total_cents), (2, 4 * 250 + 5 * 1_000));
    assert_eq!(order.lines.iter().map(|line| line.left).collect::<Vec<_>>(), [6, 0]);
    assert_eq!((shop.stock("a"), shop.stock("b")), (6, 0));
    assert_eq!(shop.store.ledger().get(2), Some(order));
}

#[test]
fn a_cart_with_one_line_too_many_sells_nothing() {
    let mut shop = Shop::new(&[book("a", "t", 250, 10), book("b", "t", 1_000, 5)]);
    let error = shop.refused(&buy(&[("a", 4), ("b", 6)]));
    assert_eq!(error.known_code(), Some(ErrorCode::NotEnoughStock));
    assert_eq!((error.limit, error.actual, error.subject.as_str()), (5, 6, "b"));
    assert_eq!((shop.stock("a"), shop.stock("b")), (10, 5));
    assert!(shop.store.ledger().is_empty());
}

#[test]
fn what_cannot_be_done_is_refused_with_its_limit() {
    let mut shop = Shop::new(&[book("a", "t", 250, u32::MAX - 1)]);
    let cases = [
        (buy(&[("zz", 1)]), ErrorCode::UnknownBook),
        (buy(&[]), ErrorCode::InvalidArgument),
        (buy(&[("a", 0)]), ErrorCode::InvalidArgument),
        (buy(&[("a", 1_000_001)]), ErrorCode::InvalidArgument),
        (buy(&[("a", 1), ("a", 1)]), ErrorCode::InvalidArgument),
        (Command::Restock { book: id("a"), copies: 2 }, ErrorCode::StockOverflow),
        (Command::Restock { book: id("a"), copies: 0 }, ErrorCode::InvalidArgument),
        (Command::Restock { book: id("zz"), copies: 1 }, ErrorCode::UnknownBook),
        (Command::Reprice { book: id("a"), cost_cents: u64::MAX }, ErrorCode::InvalidArgument),
        (Command::Reprice { book: id("zz"), cost_cents: 1 }, ErrorCode::UnknownBook),
        (Command::Add { book: book("a", "t", 1, 1) }, ErrorCode::BookExists),
        (Command::Add { book: book("b", "", 1, 1) }, ErrorCode::InvalidArgument),
        (Command::Retire { book: id("zz") }, ErrorCode::UnknownBook),
        (put(&[book("c", "t", 1, 1), book("c", "t", 1, 2)]), ErrorCode::InvalidArgument),
    ];
    for (command, code) in cases {
        assert_eq!(shop.refused(&command).known_code(), Some(code), "{command:?}");
    }
}

#[test]
fn bytes_that_are_no_command_change_nothing() {
    let mut store = Store::new();
    let mut answer = BytesMut::new();
    store.apply(1, 1, &[0xff; 40], &mut answer);
    let (kind, body) = split_answer(&answer).expect("an answer has a kind");
    assert_eq!(kind, Kind::Error as u16);
    let error: ErrorBody = codec::decode(body).expect("a whole error");
    assert_eq!(error.known_code(), Some(ErrorCode::Malformed));
    assert_eq!(store.state_hash(), Store::new().state_hash());
}

#[test]
fn a_put_that_is_repeated_changes_nothing() {
    let books = [book("a", "t", 1, 1), book("b", "u", 2, 2)];
    let mut shop = Shop::new(&books);
    let hash = shop.store.state_hash();
    assert_eq!(shop.apply(&put(&books)), Ok(Outcome::Put { added: 0, changed: 0, unchanged: 2 }));
    assert_eq!(shop.store.state_hash(), hash);
    let moved = [book("a", "u", 1, 1), book("c", "u", 3, 3)];
    assert_eq!(shop.apply(&put(&moved)), Ok(Outcome::Put { added: 1, changed: 1, unchanged: 0 }));
    let topics = shop.store.catalog().topics(0, 10, None);
    assert_eq!(topics.topics.iter().map(|t| (t.topic.as_str(), t.books)).collect::<Vec<_>>(), [("u", 3)]);
}

#[test]
fn a_retired_book_leaves_the_listings_but_not_its_orders() {
    let mut shop = Shop::new(&[book("a", "t", 250, 10)]);
    shop.apply(&buy(&[("a", 1)])).expect("there are ten");
    shop.apply(&Command::Retire { book: id("a") }).expect("it is there");
    assert!(shop.store.catalog().is_empty());
    let gone = shop.store.catalog().search(3, &Topic::truncated("t"), 10, None);
    assert_eq!(gone.map_err(|e| e.known_code()), Err(Some(ErrorCode::UnknownTopic)));
    assert_eq!(shop.store.ledger().page(3, Some(&id("a")), 10, None).orders.len(), 1);
}

#[test]
fn pages_meet_without_gap_or_overlap() {
    let books: Vec<_> = (0..25).map(|n| book(&format!("b{n:02}"), ["x", "y", "z"][n % 3], 1, 1000)).collect();
    let mut shop = Shop::new(&books);
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = shop.store.catalog().page(1, 4, after.as_ref());
        assert_eq!(page.total, 25);
        ids.extend(page.books.iter().map(|b| (b.topic, b.id)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(ids.len(), 25);
    assert!(ids.is_sorted());
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = shop.store.catalog().search(1, &Topic::truncated("x"), 3, after.as_ref()).expect("x has books");
        assert_eq!(page.total, 9);
        found.extend(page.books.iter().map(|b| b.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 9);
    for _ in 0..7 {
        shop.apply(&buy(&[("b03", 1)])).expect("there are enough");
    }
    let (mut numbers, mut before) = (Vec::new(), None);
    loop {
        let page = shop.store.ledger().page(1, Some(&id("b03")), 3, before);
        numbers.extend(page.orders.iter().map(|o| o.number));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(numbers, [8, 7, 6, 5, 4, 3, 2]);
    let (mut numbers, mut before) = (Vec::new(), None);
    loop {
        let page = shop.store.ledger().page(1, None, 2, before);
        numbers.extend(page.orders.iter().map(|o| o.number));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(numbers, [8, 7, 6, 5, 4, 3, 2]);
    let topics = Topics { floor: 0, limit: 2, after: None };
    let page = shop.store.catalog().topics(1, topics.limit, topics.after.as_ref());
    assert_eq!((page.total, page.next.as_deref()), (3, Some("y")));
}

/// What a store should do, written down as plainly as possible.
#[derive(Default)]
struct Twin(std::collections::BTreeMap<String, (u64, u32)>);

fn any_command() -> impl Strategy<Value = Command> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        4 => prop::collection::vec((name.clone(), 0_u32..4), 1..4).prop_map(|lines| buy(&lines)),
        1 => (name.clone(), 1_u32..5).prop_map(|(b, copies)| Command::Restock { book: id(b), copies }),
        1 => (name.clone(), 1_u64..9).prop_map(|(b, cost_cents)| Command::Reprice { book: id(b), cost_cents }),
        1 => name.clone().prop_map(|b| Command::Retire { book: id(b) }),
        1 => (name, 1_u64..9, 0_u32..9).prop_map(|(b, cost, stock)| put(&[book(b, "t", cost, stock)])),
    ]
}

impl Twin {
    fn apply(&mut self, command: &Command) -> bool {
        if command.check().is_err() {
            return false;
        }
        match command {
            Command::Buy { lines } => {
                let enough = lines.iter().all(|l| self.0.get(&*l.book).is_some_and(|(_, stock)| *stock >= l.copies));
                if enough {
                    for line in lines {
                        self.0.entry(line.book.to_string()).and_modify(|(_, stock)| *stock -= line.copies);
                    }
                }
                enough
            }
            Command::Restock { book, copies } => self.0.get_mut(&**book).map(|(_, s)| *s += copies).is_some(),
            Command::Reprice { book, cost_cents } => self.0.get_mut(&**book).map(|(c, _)| *c = *cost_cents).is_some(),
            Command::Retire { book } => self.0.remove(&**book).is_some(),
            Command::Put { books } => {
                for book in books {
                    self.0.insert(book.id.to_string(), (book.cost_cents, book.stock));
                }
                true
            }
            Command::Add { .. } => unreachable!("not generated"),
        }
    }
}

proptest! {
    #[test]
    fn the_store_does_what_its_plain_twin_does(commands in prop::collection::vec(any_command(), 1..60)) {
        let mut shop = Shop::new(&[book("a", "t", 1, 5), book("b", "t", 2, 5)]);
        let mut twin = Twin::default();
        twin.apply(&put(&[book("a", "t", 1, 5), book("b", "t", 2, 5)]));
        for command in &commands {
            prop_assert_eq!(shop.apply(command).is_ok(), twin.apply(command), "{:?}", command);
        }
        let books = shop.store.catalog().page(0, 256, None).books;
        let found: Vec<_> = books.iter().map(|b| (b.id.to_string(), (b.cost_cents, b.stock))).collect();
        prop_assert_eq!(found, twin.0.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn equal_catalogs_reached_by_different_ways_hash_equal(order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle()) {
        let books: Vec<_> = (0..5).map(|n| book(&format!("b{n}"), "t", n, 7)).collect();
        let mut here = Catalog::default();
        for book in &books {
            here.put(9, book);
        }
        let mut there = Catalog::default();
        there.put(1, &book("gone", "u", 1, 1));
        for index in order {
            there.put(3, &book(&format!("b{index}"), "v", 1, 1));
            there.put(9, &books[index]);
        }
        there.retire(9, &id("gone")).expect("it was put");
        prop_assert_eq!(here.state_hash(), there.state_hash());
        prop_assert_ne!(here.state_hash(), Catalog::default().state_hash());
    }

    #[test]
    fn an_order_that_is_not_put_together_has_the_bytes_of_one_that_is(
        commands in proptest::collection::vec(any_command(), 0..40),
    ) {
        let (mut store, mut answer) = (Store::new(), BytesMut::new());
        for (index, command) in commands.iter().enumerate() {
            store.apply(index as u64 + 1, 7, &codec::encode(command), &mut answer);
        }
        let orders = store.ledger().orders();
        for (at, record) in orders.iter_from(0).enumerate() {
            let mut bytes = BytesMut::new();
            orders.encode(at, &mut bytes);
            prop_assert_eq!(bytes.freeze(), codec::encode(&record));
        }
    }
}
