//! A checker that finds nothing in a broken store is itself broken: every violation is planted once.

use std::sync::Arc;

use pygmy_proto::BookId;
use pygmy_proto::message::{Line, OrderLine, OrderRecord};
use pygmy_proto::types::Bounded;

use super::check::{Evidence, ReplicaView, Violation, check};
use super::history::{Action, Answer, Operation};

const STOCK: u32 = 100;

fn book(name: &str) -> BookId {
    BookId::new(name).unwrap()
}

/// A small store that does everything right: writes are applied one after the other, `a` and `b` have 100 copies.
struct Model {
    seq: u64,
    left: std::collections::BTreeMap<BookId, u32>,
    history: Vec<Operation>,
    ledger: Vec<Arc<OrderRecord>>,
}

impl Model {
    fn new() -> Self {
        let left = [(book("a"), STOCK), (book("b"), STOCK)].into();
        Self { seq: 10, left, history: Vec::new(), ledger: Vec::new() }
    }

    fn note(&mut self, action: Action, answer: Answer) {
        let at = self.seq * 1_000;
        let operation = Operation {
            client: 0,
            session: 1,
            counter: self.seq,
            start_ns: at,
            end_ns: at + 10,
            sends: 1,
            action,
            answer,
        };
        self.history.push(operation);
    }

    fn order(&mut self, lines: &[Line]) -> OrderRecord {
        self.seq += 1;
        let lines: Vec<OrderLine> = lines
            .iter()
            .map(|line| {
                let left = self.left.get_mut(&line.book).unwrap();
                *left -= line.copies;
                OrderLine { book: line.book, copies: line.copies, cost_cents: 250, left: *left }
            })
            .collect();
        let total_cents = lines.iter().map(|line| 250 * u64::from(line.copies)).sum();
        let order = OrderRecord { number: self.seq, time_us: self.seq, total_cents, lines: Bounded::truncated(lines) };
        self.ledger.push(Arc::new(order.clone()));
        order
    }

    fn buy(&mut self, lines: &[(&str, u32)]) {
        let lines: Vec<Line> = lines.iter().map(|(name, copies)| Line { book: book(name), copies: *copies }).collect();
        let order = self.order(&lines);
        self.note(Action::Buy { lines }, Answer::Bought { order });
    }

    fn restock(&mut self, name: &str, copies: u32) {
        self.seq += 1;
        let left = self.left.get_mut(&book(name)).unwrap();
        *left += copies;
        let answer = Answer::Restocked { seq: self.seq, stock: *left };
        self.note(Action::Restock { book: book(name), copies }, answer);
    }

    fn evidence(&self) -> Evidence {
        let replica = |name: &str, is_order: bool| ReplicaView {
            name: name.into(),
            applied: self.seq,
            state_hash: 7,
            stock: self.left.clone(),
            ledger: self.ledger.clone(),
            by_number: is_order.then(|| self.ledger.iter().map(|order| (order.number, Some(order.clone()))).collect()),
        };
        Evidence {
            initial: [(book("a"), STOCK), (book("b"), STOCK)].into(),
            history: self.history.clone(),
            replicas: vec![replica("order-1", true), replica("catalog-1", false), replica("catalog-2", false)],
        }
    }
}

fn sound() -> Model {
    let mut model = Model::new();
    model.buy(&[("a", 2), ("b", 1)]);
    model.restock("a", 50);
    model.buy(&[("b", 3)]);
    model.buy(&[("a", 1)]);
    let action = Action::Buy { lines: vec![Line { book: book("a"), copies: 900 }] };
    model.note(action, Answer::Refused { code: 23, detail: "there are 147 copies".into() });
    model
}

/// The names of what is found.
fn names(evidence: &Evidence) -> Vec<&'static str> {
    let mut names: Vec<_> = check(evidence).iter().map(Violation::name).collect();
    names.dedup();
    names
}

#[test]
fn a_sound_store_shows_nothing() {
    assert_eq!(check(&sound().evidence()), []);
}

#[test]
fn a_lost_order_is_found() {
    let mut evidence = sound().evidence();
    let lost = evidence.replicas[1].ledger.remove(1);
    // The replica's stock fits its own ledger: the order is gone without a trace, and still missed.
    *evidence.replicas[1].stock.get_mut(&book("b")).unwrap() += 3;
    let found = check(&evidence);
    let expected = Violation::OrderLost { replica: "catalog-1".into(), way: "list of orders", number: lost.number };
    assert_eq!(found, [expected]);
}

#[test]
fn an_order_lost_only_to_those_who_ask_by_number_is_found() {
    let mut evidence = sound().evidence();
    let number = evidence.replicas[0].ledger[0].number;
    evidence.replicas[0].by_number.as_mut().unwrap().insert(number, None);
    assert_eq!(names(&evidence), ["order_lost"]);
}

#[test]
fn an_order_done_twice_is_found() {
    let mut model = sound();
    // The same cart again, correctly sold, and nobody was told: what a retry without deduplication does.
    model.order(&[Line { book: book("b"), copies: 3 }]);
    let evidence = model.evidence();
    assert_eq!(names(&evidence), ["order_unexplained"]);
}

#[test]
fn an_unanswered_cart_explains_one_order_and_no_more() {
    let mut model = sound();
    let lines = vec![Line { book: book("b"), copies: 3 }];
    model.order(&lines);
    model.note(Action::Buy { lines: lines.clone() }, Answer::Unknown { why: "lost".into() });
    assert_eq!(check(&model.evidence()), []);
    model.order(&lines);
    assert_eq!(names(&model.evidence()), ["order_unexplained"]);
    // That it was not done is as good.
    let mut model = sound();
    model.note(Action::Buy { lines }, Answer::Unknown { why: "lost".into() });
    assert_eq!(check(&model.evidence()), []);
}

#[test]
fn an_unanswered_restock_allows_both_and_nothing_between_servers() {
    let mut model = sound();
    let action = Action::Restock { book: book("a"), copies: 20 };
    model.note(action, Answer::Unknown { why: "lost".into() });
    assert_eq!(check(&model.evidence()), []);
    *model.left.get_mut(&book("a")).unwrap() += 20;
    assert_eq!(check(&model.evidence()), []);
    *model.left.get_mut(&book("a")).unwrap() += 1;
    assert_eq!(names(&model.evidence()), ["stock_wrong"]);
}

#[test]
fn wrong_stock_is_found() {
    let mut evidence = sound().evidence();
    *evidence.replicas[2].stock.get_mut(&book("a")).unwrap() -= 1;
    let found = check(&evidence);
    let right = u64::from(STOCK) + 50 - 3;
    let expected = Violation::StockWrong {
        replica: "catalog-2".into(),
        book: book("a"),
        expected: (right, right),
        found: Some(right as u32 - 1),
    };
    assert_eq!(found, [expected]);
    evidence.replicas[2].stock.remove(&book("a"));
    assert_eq!(names(&evidence), ["stock_wrong"]);
}

#[test]
fn a_differing_hash_is_found() {
    let mut evidence = sound().evidence();
    evidence.replicas[2].state_hash = 8;
    assert_eq!(names(&evidence), ["state_hash_differs"]);
    evidence.replicas[2].applied += 1;
    assert_eq!(names(&evidence), ["not_converged"]);
}

#[test]
fn a_number_given_twice_is_found() {
    let mut evidence = sound().evidence();
    let Answer::Bought { order } = evidence.history[0].answer.clone() else { panic!("not a buy") };
    let mut twice = evidence.history[0].clone();
    twice.counter = 99;
    twice.answer = Answer::Bought { order };
    evidence.history.push(twice);
    assert_eq!(names(&evidence), ["number_used_twice"]);
}

#[test]
fn an_order_with_other_contents_is_found() {
    let mut evidence = sound().evidence();
    let mut other = (*evidence.replicas[1].ledger[0]).clone();
    other.time_us += 1;
    evidence.replicas[1].ledger[0] = Arc::new(other);
    assert_eq!(names(&evidence), ["order_differs"]);
}

#[test]
fn an_order_that_was_not_asked_for_is_found() {
    let mut evidence = sound().evidence();
    evidence.history[0].action = Action::Buy { lines: vec![Line { book: book("a"), copies: 2 }] };
    assert_eq!(names(&evidence), ["order_not_as_asked"]);
    let mut evidence = sound().evidence();
    let Answer::Bought { order } = &mut evidence.history[0].answer else { panic!("not a buy") };
    order.total_cents += 1;
    assert!(names(&evidence).contains(&"order_not_as_asked"));
}

#[test]
fn overselling_is_found_although_all_sums_agree() {
    let mut model = sound();
    model.buy(&[("b", 50)]);
    let mut evidence = model.evidence();
    // There were only 40 to begin with: 96 sold of 40, and every replica says "42 left" as if there had been more.
    evidence.initial.insert(book("b"), 40);
    assert!(names(&evidence).contains(&"left_wrong"), "{:?}", names(&evidence));
    let expects_less_than_none =
        |violation: &Violation| matches!(violation, Violation::LeftWrong { expected, .. } if *expected < 40);
    assert!(check(&evidence).iter().any(expects_less_than_none));
}

#[test]
fn an_answer_with_a_wrong_count_is_found() {
    let mut evidence = sound().evidence();
    let Answer::Restocked { stock, .. } = &mut evidence.history[1].answer else { panic!("not a restock") };
    *stock += 1;
    assert_eq!(names(&evidence), ["left_wrong"]);
}

#[test]
fn an_answer_from_the_past_is_found() {
    let mut evidence = sound().evidence();
    let (first_seq, third_seq) = (evidence.history[0].seq().unwrap(), evidence.history[2].seq().unwrap());
    // The first write was only sent after the third had been answered.
    evidence.history[0].start_ns = evidence.history[2].end_ns + 1;
    evidence.history[0].end_ns = evidence.history[0].start_ns + 1;
    let expected = Violation::RealTimeOrderBroken { seq: first_seq, answered_before: third_seq };
    assert_eq!(check(&evidence), [expected]);
}

#[test]
fn a_ledger_out_of_order_is_found() {
    let mut evidence = sound().evidence();
    evidence.replicas[1].ledger.swap(0, 1);
    assert_eq!(names(&evidence), ["ledger_out_of_order"]);
}
