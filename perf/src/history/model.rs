//! A small store that does everything right, and what many clients would tell of it: random valid histories for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use pygmy_proto::message::{Line, OrderLine, OrderRecord};
use pygmy_proto::types::Bounded;
use pygmy_proto::{BookId, ErrorCode};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Action, Answer, BookState, History, Operation, ReplicaView, Shelf, Short};

const STOCK: u32 = 60;
const STEPS: usize = 400;
const CLIENTS: usize = 6;
const BOOKS: [&str; 3] = ["a", "b", "c"];

/// A book of the model.
pub(super) fn book(name: &str) -> BookId {
    BookId::new(name).unwrap()
}

/// A history of [`STEPS`] steps of [`CLIENTS`] clients.
pub(super) fn valid(seed: u64) -> History {
    of_size(seed, CLIENTS, STEPS)
}

/// A history of as many steps of as many clients.
pub(super) fn of_size(seed: u64, clients: usize, steps: usize) -> History {
    let mut model = Model::new(seed, clients);
    for _ in 0..steps {
        model.step();
    }
    model.finish()
}

struct Flight {
    counter: u64,
    action: Action,
    start_ns: u64,
    answer: Option<Answer>,
}

#[derive(Default)]
struct Client {
    counter: u64,
    /// The highest position seen.
    seen: u64,
    flight: Option<Flight>,
    /// A write to be asked again.
    unsettled: Option<(u64, Action)>,
}

struct Model {
    rng: ChaCha8Rng,
    now_ns: u64,
    /// Every state there was, by its position.
    states: BTreeMap<u64, Shelf>,
    results: HashMap<(u64, u64), Answer>,
    /// Writes that nobody waits for any more and that may still arrive.
    lost: Vec<(u64, u64, Action)>,
    ledger: Vec<Arc<OrderRecord>>,
    clients: Vec<Client>,
    history: History,
}

fn session(client: usize) -> u64 {
    client as u64 + 1
}

impl Model {
    fn new(seed: u64, clients: usize) -> Self {
        let state = BookState { stock: STOCK, cost_cents: 250, changed_seq: 7 };
        let initial: Shelf = BOOKS.iter().map(|name| (book(name), state)).collect();
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now_ns: 0,
            states: [(10, initial.clone())].into(),
            results: HashMap::new(),
            lost: Vec::new(),
            ledger: Vec::new(),
            clients: (0..clients).map(|_| Client { seen: 10, ..Client::default() }).collect(),
            history: History { initial, ..History::default() },
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// One thing happens: something is asked, takes effect, is answered or lost.
    fn step(&mut self) {
        self.now_ns += self.rng.random_range(1..20);
        if !self.lost.is_empty() && self.chance(5) {
            let (session, counter, action) = self.lost.swap_remove(0);
            self.apply(session, counter, &action);
            return;
        }
        let client = self.rng.random_range(0..self.clients.len());
        match self.clients[client].flight.take() {
            None => self.ask(client),
            Some(mut flight) if flight.answer.is_none() => {
                if self.chance(4) {
                    if !flight.action.is_read() {
                        self.lost.push((session(client), flight.counter, flight.action.clone()));
                    }
                    return self.give_up(client, flight);
                }
                flight.answer = Some(self.take_effect(client, &flight));
                self.clients[client].flight = Some(flight);
            }
            Some(flight) if self.chance(4) => self.give_up(client, flight),
            Some(Flight { answer: Some(answer), counter, action, start_ns }) => {
                self.note(client, counter, action, start_ns, answer);
            }
            Some(_) => unreachable!("a flight without an answer is handled above"),
        }
    }

    fn ask(&mut self, client: usize) {
        if let Some((counter, action)) = self.clients[client].unsettled.clone()
            && self.chance(70)
        {
            self.clients[client].unsettled = None;
            self.clients[client].flight = Some(Flight { counter, action, start_ns: self.now_ns, answer: None });
            return;
        }
        let action = self.draw();
        let own = &mut self.clients[client];
        let counter = if action.is_read() {
            0
        } else {
            own.counter += 1;
            own.counter
        };
        own.flight = Some(Flight { counter, action, start_ns: self.now_ns, answer: None });
    }

    fn draw(&mut self) -> Action {
        let any = book(BOOKS[self.rng.random_range(0..BOOKS.len())]);
        match self.rng.random_range(0..10) {
            0 => Action::Restock { book: any, copies: self.rng.random_range(1..20) },
            1 => Action::Reprice { book: any, cost_cents: self.rng.random_range(1..1_000) },
            2 | 3 => Action::Lookup { book: any, fresh: false },
            4 | 5 => Action::Lookup { book: any, fresh: true },
            _ => {
                let first = self.rng.random_range(0..BOOKS.len());
                let count = self.rng.random_range(1..=2);
                let line = |place| Line { book: book(BOOKS[(first + place) % BOOKS.len()]), copies: 3 };
                Action::Buy { lines: (0..count).map(line).collect() }
            }
        }
    }

    fn take_effect(&mut self, client: usize, flight: &Flight) -> Answer {
        let Action::Lookup { book, fresh } = &flight.action else {
            return self.apply(session(client), flight.counter, &flight.action);
        };
        let seen = self.clients[client].seen;
        let allowed: Vec<u64> = self.states.range(seen..).map(|(seq, _)| *seq).collect();
        let place = if *fresh { allowed.len() - 1 } else { self.rng.random_range(0..allowed.len()) };
        let seq = allowed[place];
        Answer::Found { seq, book: self.states[&seq][book] }
    }

    /// Does a write once, whoever asks for it and however often.
    fn apply(&mut self, session: u64, counter: u64, action: &Action) -> Answer {
        if let Some(known) = self.results.get(&(session, counter)) {
            return known.clone();
        }
        let (last, shelf) = self.states.last_key_value().unwrap();
        let (seq, mut shelf) = (last + 1, shelf.clone());
        let answer = self.write(seq, &mut shelf, action);
        self.states.insert(seq, shelf);
        self.results.insert((session, counter), answer.clone());
        answer
    }

    fn write(&mut self, seq: u64, shelf: &mut Shelf, action: &Action) -> Answer {
        match action {
            Action::Restock { book, copies } => {
                let own = shelf.get_mut(book).unwrap();
                *own = BookState { stock: own.stock + copies, changed_seq: seq, ..*own };
                Answer::Restocked { seq, stock: own.stock }
            }
            Action::Reprice { book, cost_cents } => {
                let own = shelf.get_mut(book).unwrap();
                let old_cost_cents = own.cost_cents;
                *own = BookState { cost_cents: *cost_cents, changed_seq: seq, ..*own };
                Answer::Repriced { seq, stock: own.stock, old_cost_cents }
            }
            Action::Buy { lines } => self.buy(seq, shelf, lines),
            Action::Lookup { .. } => unreachable!("a read is no write"),
        }
    }

    fn buy(&mut self, seq: u64, shelf: &mut Shelf, lines: &[Line]) -> Answer {
        if let Some(line) = lines.iter().find(|line| shelf[&line.book].stock < line.copies) {
            let short = Some(Short { book: line.book, stock: shelf[&line.book].stock });
            return Answer::Refused { code: ErrorCode::NotEnoughStock as u16, detail: "too few".into(), short };
        }
        let sell = |line: &Line| {
            let own = shelf.get_mut(&line.book).unwrap();
            *own = BookState { stock: own.stock - line.copies, changed_seq: seq, ..*own };
            OrderLine { book: line.book, copies: line.copies, cost_cents: own.cost_cents, left: own.stock }
        };
        let lines: Vec<OrderLine> = lines.iter().map(sell).collect();
        let total_cents = lines.iter().map(|line| line.cost_cents * u64::from(line.copies)).sum();
        let order = OrderRecord { number: seq, time_us: seq, total_cents, lines: Bounded::truncated(lines) };
        self.ledger.push(Arc::new(order.clone()));
        Answer::Bought { order }
    }

    fn give_up(&mut self, client: usize, flight: Flight) {
        let Flight { counter, action, start_ns, .. } = flight;
        if !action.is_read() {
            self.clients[client].unsettled = Some((counter, action.clone()));
        }
        self.note(client, counter, action, start_ns, Answer::Unknown { why: "lost".into() });
    }

    fn note(&mut self, client: usize, counter: u64, action: Action, start_ns: u64, answer: Answer) {
        let session = if action.is_read() { 0 } else { session(client) };
        let (end_ns, sends, served_by) = (self.now_ns, 1, 4);
        // Each over a front end of its own: one that two share owes the one what the other has done.
        let front = client as u16 + 1;
        let operation =
            Operation { client, session, counter, start_ns, end_ns, sends, front, served_by, action, answer };
        let own = &mut self.clients[client];
        own.seen = own.seen.max(operation.seq().unwrap_or_default());
        self.history.operations.push(operation);
    }

    fn finish(mut self) -> History {
        for client in 0..self.clients.len() {
            if let Some(flight) = self.clients[client].flight.take() {
                self.give_up(client, flight);
            }
        }
        let (applied, books) = self.states.last_key_value().unwrap();
        let by_number: HashMap<_, _> = self.ledger.iter().map(|order| (order.number, Some(order.clone()))).collect();
        let view = |name: &str| ReplicaView {
            name: name.into(),
            applied: *applied,
            state_hash: 7,
            books: books.clone(),
            ledger: self.ledger.clone(),
            by_number: name.starts_with("order").then(|| by_number.clone()),
        };
        self.history.replicas = vec![view("catalog-1"), view("catalog-2"), view("order-1")];
        self.history
    }
}
