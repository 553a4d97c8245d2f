//! A checker that finds nothing in a broken store is itself broken: every violation is planted once.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use pygmy_proto::ErrorCode;
use pygmy_proto::message::{Line, OrderLine, OrderRecord};
use pygmy_proto::types::Bounded;

use super::{Violation, check};
use crate::history::model::{book, valid};
use crate::history::{Action, Answer, BookState, History, Operation, ReplicaView, Shelf};

const STOCK: u32 = 100;
const COST: u64 = 250;

/// A small store that does everything right: writes are applied one after the other, `a` and `b` have 100 copies.
struct Model {
    seq: u64,
    initial: Shelf,
    shelf: Shelf,
    history: Vec<Operation>,
    ledger: Vec<Arc<OrderRecord>>,
}

impl Model {
    fn new() -> Self {
        let state = BookState { stock: STOCK, cost_cents: COST, changed_seq: 10 };
        let initial: Shelf = [(book("a"), state), (book("b"), state)].into();
        Self { seq: 10, shelf: initial.clone(), initial, history: Vec::new(), ledger: Vec::new() }
    }

    fn note(&mut self, action: Action, answer: Answer) {
        let at = self.seq * 1_000 + self.history.len() as u64 * 20;
        let operation = Operation {
            client: 0,
            session: 1,
            counter: self.history.len() as u64 + 1,
            start_ns: at,
            end_ns: at + 10,
            sends: 1,
            front: 1,
            served_by: 3,
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
                let own = self.shelf.get_mut(&line.book).unwrap();
                own.stock -= line.copies;
                own.changed_seq = self.seq;
                OrderLine { book: line.book, copies: line.copies, cost_cents: own.cost_cents, left: own.stock }
            })
            .collect();
        let total_cents = lines.iter().map(|line| line.cost_cents * u64::from(line.copies)).sum();
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
        let own = self.shelf.get_mut(&book(name)).unwrap();
        own.stock += copies;
        own.changed_seq = self.seq;
        let answer = Answer::Restocked { seq: self.seq, stock: own.stock };
        self.note(Action::Restock { book: book(name), copies }, answer);
    }

    fn reprice(&mut self, name: &str, cost_cents: u64) {
        self.seq += 1;
        let own = self.shelf.get_mut(&book(name)).unwrap();
        let answer = Answer::Repriced { seq: self.seq, stock: own.stock, old_cost_cents: own.cost_cents };
        own.cost_cents = cost_cents;
        own.changed_seq = self.seq;
        self.note(Action::Reprice { book: book(name), cost_cents }, answer);
    }

    fn lookup(&mut self, name: &str, fresh: bool) {
        let answer = Answer::Found { seq: self.seq, book: self.shelf[&book(name)] };
        self.note(Action::Lookup { book: book(name), fresh }, answer);
    }

    fn history(&self) -> History {
        let replica = |name: &str, is_order: bool| ReplicaView {
            name: name.into(),
            applied: self.seq,
            state_hash: 7,
            books: self.shelf.clone(),
            ledger: self.ledger.clone(),
            by_number: is_order.then(|| self.ledger.iter().map(|order| (order.number, Some(order.clone()))).collect()),
        };
        History {
            initial: self.initial.clone(),
            operations: self.history.clone(),
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
    model.note(action, refused());
    model.reprice("b", 300);
    model.lookup("b", false);
    model.buy(&[("b", 1)]);
    model.lookup("b", true);
    model
}

fn refused() -> Answer {
    Answer::Refused { code: ErrorCode::NotEnoughStock as u16, detail: "there are 147 copies".into(), short: None }
}

/// The names of what is found.
fn names(history: &History) -> Vec<&'static str> {
    check(history).iter().map(Violation::name).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_sound_store_shows_nothing() {
    assert_eq!(check(&sound().history()), []);
}

#[test]
fn a_lost_order_is_found() {
    let mut history = sound().history();
    let lost = history.replicas[1].ledger.remove(1);
    // The replica's stock fits its own ledger: the order is gone without a trace, and still missed.
    history.replicas[1].books.get_mut(&book("b")).unwrap().stock += 3;
    let found = check(&history);
    let expected = Violation::OrderLost { replica: "catalog-1".into(), way: "list of orders", number: lost.number };
    assert_eq!(found, [expected]);
}

#[test]
fn an_order_lost_only_to_those_who_ask_by_number_is_found() {
    let mut history = sound().history();
    let number = history.replicas[0].ledger[0].number;
    history.replicas[0].by_number.as_mut().unwrap().insert(number, None);
    assert_eq!(names(&history), ["order_lost"]);
}

#[test]
fn an_order_done_twice_is_found() {
    let mut model = sound();
    // The same cart again, correctly sold, and nobody was told: what a retry without deduplication does.
    model.order(&[Line { book: book("b"), copies: 3 }]);
    let history = model.history();
    assert_eq!(names(&history), ["order_unexplained"]);
}

#[test]
fn an_unanswered_cart_explains_one_order_and_no_more() {
    let mut model = sound();
    let lines = vec![Line { book: book("b"), copies: 3 }];
    model.order(&lines);
    model.note(Action::Buy { lines: lines.clone() }, Answer::Unknown { why: "lost".into() });
    assert_eq!(check(&model.history()), []);
    model.order(&lines);
    assert_eq!(names(&model.history()), ["order_unexplained"]);
    // That it was not done is as good.
    let mut model = sound();
    model.note(Action::Buy { lines }, Answer::Unknown { why: "lost".into() });
    assert_eq!(check(&model.history()), []);
}

#[test]
fn an_unanswered_restock_allows_both_and_nothing_between_servers() {
    let mut model = sound();
    let action = Action::Restock { book: book("a"), copies: 20 };
    model.note(action, Answer::Unknown { why: "lost".into() });
    assert_eq!(check(&model.history()), []);
    model.shelf.get_mut(&book("a")).unwrap().stock += 20;
    assert_eq!(check(&model.history()), []);
    model.shelf.get_mut(&book("a")).unwrap().stock += 1;
    assert_eq!(names(&model.history()), ["stock_wrong"]);
}

#[test]
fn wrong_stock_is_found() {
    let mut history = sound().history();
    history.replicas[2].books.get_mut(&book("a")).unwrap().stock -= 1;
    let found = check(&history);
    let right = u64::from(STOCK) + 50 - 3;
    let expected = Violation::StockWrong {
        replica: "catalog-2".into(),
        book: book("a"),
        expected: (right, right),
        found: Some(right as u32 - 1),
    };
    assert_eq!(found, [expected]);
    history.replicas[2].books.remove(&book("a"));
    assert_eq!(names(&history), ["stock_wrong"]);
}

#[test]
fn a_differing_hash_is_found() {
    let mut history = sound().history();
    history.replicas[2].state_hash = 8;
    assert_eq!(names(&history), ["state_hash_differs"]);
    history.replicas[2].applied += 1;
    assert_eq!(names(&history), ["not_converged"]);
}

#[test]
fn a_number_given_twice_is_found() {
    let mut history = sound().history();
    let Answer::Bought { order } = history.operations[0].answer.clone() else { panic!("not a buy") };
    let mut twice = history.operations[0].clone();
    twice.counter = 99;
    twice.answer = Answer::Bought { order };
    history.operations.push(twice);
    assert_eq!(names(&history), ["number_used_twice"]);
}

#[test]
fn an_order_with_other_contents_is_found() {
    let mut history = sound().history();
    let mut other = (*history.replicas[1].ledger[0]).clone();
    other.time_us += 1;
    history.replicas[1].ledger[0] = Arc::new(other);
    assert_eq!(names(&history), ["order_differs"]);
}

#[test]
fn an_order_that_was_not_asked_for_is_found() {
    let mut history = sound().history();
    history.operations[0].action = Action::Buy { lines: vec![Line { book: book("a"), copies: 2 }] };
    assert_eq!(names(&history), ["order_not_as_asked"]);
    let mut history = sound().history();
    let Answer::Bought { order } = &mut history.operations[0].answer else { panic!("not a buy") };
    order.total_cents += 1;
    assert!(names(&history).contains(&"order_not_as_asked"));
}

#[test]
fn overselling_is_found_although_all_sums_agree() {
    let mut model = sound();
    model.buy(&[("b", 50)]);
    let mut history = model.history();
    // There were only 40 to begin with: 96 sold of 40, and every replica says "42 left" as if there had been more.
    history.initial.get_mut(&book("b")).unwrap().stock = 40;
    assert!(names(&history).contains(&"left_wrong"), "{:?}", names(&history));
    let expects_less_than_none =
        |violation: &Violation| matches!(violation, Violation::LeftWrong { expected, .. } if *expected < 40);
    assert!(check(&history).iter().any(expects_less_than_none));
}

#[test]
fn an_answer_with_a_wrong_count_is_found() {
    let mut history = sound().history();
    let Answer::Restocked { stock, .. } = &mut history.operations[1].answer else { panic!("not a restock") };
    *stock += 1;
    assert_eq!(names(&history), ["left_wrong"]);
}

#[test]
fn an_answer_from_the_past_is_found() {
    let mut history = sound().history();
    let (first_seq, third_seq) = (history.operations[0].seq().unwrap(), history.operations[2].seq().unwrap());
    // The first write was only sent after the third had been answered.
    history.operations[0].start_ns = history.operations[2].end_ns + 1;
    history.operations[0].end_ns = history.operations[0].start_ns + 1;
    let expected = Violation::RealTimeOrderBroken { seq: first_seq, answered_before: third_seq };
    assert_eq!(check(&history), [expected]);
}

#[test]
fn a_ledger_out_of_order_is_found() {
    let mut history = sound().history();
    history.replicas[1].ledger.swap(0, 1);
    assert_eq!(names(&history), ["ledger_out_of_order"]);
}

#[test]
fn the_same_write_answered_twice_is_one_write_and_must_be_answered_alike() {
    let mut again = sound().history();
    let mut asked = again.operations[0].clone();
    (asked.start_ns, asked.end_ns) = (asked.end_ns + 1, asked.end_ns + 2);
    again.operations.push(asked.clone());
    assert_eq!(check(&again), []);

    let Answer::Bought { order } = &mut asked.answer else { panic!("not a buy") };
    order.time_us += 1;
    *again.operations.last_mut().unwrap() = asked.clone();
    assert_eq!(names(&again), ["answers_differ"]);
    // In and out at once.
    asked.answer = refused();
    *again.operations.last_mut().unwrap() = asked.clone();
    assert_eq!(names(&again), ["answers_differ"]);
    // Having lost track of a session is no other answer.
    asked.answer = Answer::Refused { code: ErrorCode::SessionExpired as u16, detail: "it is gone".into(), short: None };
    *again.operations.last_mut().unwrap() = asked;
    assert_eq!(check(&again), []);
}

#[test]
fn a_write_that_was_settled_is_held_against_the_time_of_its_first_asking() {
    let mut settled = sound().history();
    let last = settled.operations.len() - 2;
    let mut first = settled.operations[last].clone();
    first.answer = Answer::Unknown { why: "lost".into() };
    (first.start_ns, first.end_ns) = (1, 2);
    settled.operations.push(first);
    assert_eq!(check(&settled), [], "it may have taken effect at any time from its first asking on");
    // Done before it was asked for at all, it is another matter.
    let early = settled.operations[0].clone();
    settled.operations[0].start_ns = settled.operations[last].end_ns + 5;
    settled.operations[0].end_ns = settled.operations[0].start_ns + 1;
    assert_eq!(names(&settled), ["real_time_order_broken"]);
    settled.operations[0] = early;
}

#[test]
fn a_refused_write_that_took_effect_is_found() {
    let mut model = sound();
    model.buy(&[("a", 5)]);
    model.history.last_mut().unwrap().answer = refused();
    assert_eq!(names(&model.history()), ["order_unexplained"]);
    let mut model = sound();
    model.restock("a", 5);
    model.history.last_mut().unwrap().answer = refused();
    assert_eq!(names(&model.history()), ["stock_wrong"]);
    let mut model = sound();
    model.buy(&[("a", 5)]);
    model.history.last_mut().unwrap().answer = Answer::NotDone { why: "nobody was reached".into() };
    assert_eq!(names(&model.history()), ["order_unexplained"]);
}

#[test]
fn one_identity_for_two_writes_proves_nothing() {
    let mut history = sound().history();
    history.operations[2].counter = history.operations[0].counter;
    let found = names(&history);
    assert!(found.contains(&"identity_confused"), "{found:?}");
}

#[test]
fn an_unanswered_restock_is_in_or_out_at_every_moment() {
    let unknown = |model: &mut Model, copies| {
        model.note(Action::Restock { book: book("a"), copies }, Answer::Unknown { why: "lost".into() });
    };
    let mut model = sound();
    unknown(&mut model, 20);
    unknown(&mut model, 7);
    // The first happens, and is seen; the second one never does.
    model.shelf.get_mut(&book("a")).unwrap().stock += 20;
    model.buy(&[("a", 1)]);
    model.lookup("a", true);
    assert_eq!(check(&model.history()), []);
    // Now it is gone again: it was in, and is out.
    let mut history = model.history();
    let mut gone = model.history.last().unwrap().clone();
    let Answer::Found { book: state, .. } = &mut gone.answer else { panic!("not a read") };
    state.stock -= 20;
    history.operations.push(gone);
    assert_eq!(names(&history), ["read_wrong"]);
    // And in the end something between the two is there.
    let mut history = model.history();
    history.replicas.iter_mut().for_each(|replica| replica.books.get_mut(&book("a")).unwrap().stock += 6);
    assert_eq!(names(&history), ["stock_wrong"]);
}

#[test]
fn wrong_prices_are_found() {
    let reprice = |history: &History| {
        history.operations.iter().position(|op| matches!(op.action, Action::Reprice { .. })).unwrap()
    };
    let mut history = sound().history();
    let place = reprice(&history);
    let Answer::Repriced { old_cost_cents, .. } = &mut history.operations[place].answer else { panic!("no reprice") };
    *old_cost_cents += 1;
    assert_eq!(names(&history), ["price_wrong"]);
    // A lost one: everything behind it still has the old price.
    let mut history = sound().history();
    history.replicas.iter_mut().for_each(|replica| replica.books.get_mut(&book("b")).unwrap().cost_cents = COST);
    assert_eq!(names(&history), ["price_wrong"]);
    // One that nobody was told of allows both.
    let mut history = sound().history();
    let place = reprice(&history);
    history.operations[place].answer = Answer::Unknown { why: "lost".into() };
    assert_eq!(check(&history), []);
}

#[test]
fn reads_that_show_something_else_are_found() {
    let spoil = |change: fn(&mut BookState)| {
        let mut history = sound().history();
        let Answer::Found { book, .. } = &mut history.operations.last_mut().unwrap().answer else {
            panic!("not a read")
        };
        change(book);
        check(&history)
    };
    for (field, found) in [
        ("stock", spoil(|book| book.stock += 1)),
        ("cost_cents", spoil(|book| book.cost_cents -= 1)),
        ("changed_seq", spoil(|book| book.changed_seq -= 1)),
    ] {
        assert!(matches!(&found[..], [Violation::ReadWrong { field: named, .. }] if *named == field), "{found:?}");
    }
}

#[test]
fn reads_from_the_past_are_found_by_what_they_promised() {
    // The last read, but as its book was two writes before.
    let mut history = sound().history();
    let earlier = history.operations.iter().find(|op| op.action.is_read()).unwrap().answer.clone();
    history.operations.last_mut().unwrap().answer = earlier;
    assert_eq!(names(&history), ["fresh_read_stale"]);
    let Action::Lookup { fresh, .. } = &mut history.operations.last_mut().unwrap().action else { panic!("no read") };
    *fresh = false;
    history.operations.last_mut().unwrap().front = 0;
    assert_eq!(names(&history), ["session_read_stale"]);
    // Another client, who has not seen the write, may be shown the past by another front end, unless it asks for better.
    let last = history.operations.last_mut().unwrap();
    (last.client, last.front) = (1, 1);
    assert_eq!(names(&history), ["front_read_stale"]);
    history.operations.last_mut().unwrap().front = 2;
    assert_eq!(check(&history), []);
    // Or unless that past is too long ago.
    let later = |history: &mut History, by_ns| {
        let last = history.operations.last_mut().unwrap();
        (last.start_ns, last.end_ns) = (last.start_ns + by_ns, last.end_ns + by_ns);
    };
    let written_ns = history.operations.iter().rev().find(|op| !op.action.is_read()).unwrap().end_ns;
    let since_ns = history.operations.last().unwrap().start_ns - written_ns;
    later(&mut history, 250_000_000 - since_ns);
    assert_eq!(check(&history), []);
    later(&mut history, 1);
    assert_eq!(names(&history), ["read_too_old"]);
    let Action::Lookup { fresh, .. } = &mut history.operations.last_mut().unwrap().action else { panic!("no read") };
    *fresh = true;
    assert_eq!(names(&history), ["fresh_read_stale"]);
}

/// A front end may know less than the others for a while, also of what a read elsewhere has shown, and no longer.
#[test]
fn a_read_is_held_against_what_others_have_read() {
    let mut history = sound().history();
    // Nobody was told of the last write: it is known by the read behind it alone.
    let write = history.operations.iter_mut().rfind(|op| !op.action.is_read()).unwrap();
    write.answer = Answer::Unknown { why: "lost".into() };
    let seen = history.operations.last().unwrap().clone();
    let stale = history.operations.iter().find(|op| op.action.is_read()).unwrap().clone();
    let at = |end_ns: u64| Operation { client: 9, front: 2, start_ns: end_ns - 10, end_ns, ..stale.clone() };
    history.operations.push(at(seen.end_ns + 250_000_000));
    assert_eq!(check(&history), []);
    history.operations.push(at(seen.end_ns + 250_000_011));
    let (found, seq) = (seen.seq().unwrap(), stale.seq().unwrap());
    assert_eq!(check(&history), [Violation::ReadTooOld { seq, answered_before: found }]);
}

#[test]
fn a_read_of_what_was_never_committed_is_found() {
    let mut history = sound().history();
    let Answer::Found { seq, .. } = &mut history.operations.last_mut().unwrap().answer else { panic!("no read") };
    *seq += 1;
    let applied = *seq - 1;
    assert_eq!(check(&history), [Violation::ReadUncommitted { seq: applied + 1, applied }]);
    // The same with the state of a write that is not in the log.
    let Answer::Found { seq, book } = &mut history.operations.last_mut().unwrap().answer else { panic!("no read") };
    *seq -= 1;
    book.stock -= 1;
    assert_eq!(names(&history), ["read_wrong"]);
}

#[test]
fn a_history_without_replicas_is_judged_by_what_was_answered() {
    let mut history = sound().history();
    history.replicas.clear();
    assert_eq!(check(&history), []);
    let Answer::Bought { order } = &mut history.operations[0].answer else { panic!("not a buy") };
    let mut lines = order.lines.clone().into_vec();
    lines[0].left -= 1;
    order.lines = Bounded::truncated(lines);
    assert_eq!(names(&history), ["left_wrong"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_valid_histories_show_nothing(seed: u64) {
        prop_assert_eq!(check(&valid(seed)), []);
    }

    /// Whatever acknowledged order is taken out of whichever ledger, that is what is found.
    #[test]
    fn any_lost_order_is_found(seed: u64, place: prop::sample::Index, replica in 0_usize..3) {
        let mut history = valid(seed);
        let acknowledged: BTreeSet<u64> = history.operations.iter().filter_map(|op| match &op.answer {
            Answer::Bought { order } => Some(order.number),
            _ => None,
        }).collect();
        let number = *place.get(&acknowledged.into_iter().collect::<Vec<_>>());
        history.replicas[replica].ledger.retain(|order| order.number != number);
        let found = names(&history);
        prop_assert!(found.contains(&"order_lost"), "{:?}", found);
    }

    /// Whichever write is moved behind the end of another one of a higher number, it is found.
    #[test]
    fn any_write_out_of_time_is_found(seed: u64, place: prop::sample::Index) {
        let mut history = valid(seed);
        history.operations.retain(|op| !matches!(op.answer, Answer::Unknown { .. }));
        let last = history.operations.iter().filter_map(|op| Some((op.seq()?, op.end_ns))).max().unwrap();
        let early: Vec<usize> = history.operations.iter().enumerate()
            .filter(|(_, op)| !op.action.is_read() && op.seq().is_some_and(|seq| seq < last.0))
            .map(|(place, _)| place).collect();
        let own = &mut history.operations[*place.get(&early)];
        (own.start_ns, own.end_ns) = (last.1 + 1, last.1 + 2);
        let found = names(&history);
        prop_assert!(found.contains(&"real_time_order_broken"), "{:?}", found);
    }
}
