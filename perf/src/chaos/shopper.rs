//! A client during the chaos: shops through the client library, one call after the other, and tells all of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use pygmy_client::{Client, Error as CallError, Options, Written};
use pygmy_proto::BookId;
use pygmy_proto::message::Line;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::history::{Action, Answer, Operation};
use crate::span::{self, Clock};
use crate::told;

/// Time that a call gets before its outcome is unknown. Short, so that there are many.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Time that each try to settle a write gets in the end.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause between two calls.
const THINK_US_MAX: u64 = 12_000;
/// Copies left at which a book is restocked. Low, so that carts are refused now and then.
const RESTOCK_BELOW: u32 = 10;

/// What a shopper is given.
#[derive(Debug)]
pub(super) struct Errand<'a> {
    /// Its number.
    pub(super) client: usize,
    /// What it draws from.
    pub(super) seed: u64,
    /// Addresses of the fronts, the one to be tried first in front.
    pub(super) fronts: Vec<String>,
    /// What there is.
    pub(super) books: &'a [BookId],
    /// The history's clock.
    pub(super) clock: Clock,
    /// Set when it is time to go home.
    pub(super) is_over: &'a AtomicBool,
    /// By when everything must be settled, once it is.
    pub(super) settle_within: Duration,
    /// Where it tells everything.
    pub(super) told: Sender<Operation>,
}

/// A write whose outcome is not known.
#[derive(Debug, Clone)]
struct Unsettled {
    session: u64,
    counter: u64,
    action: Action,
}

/// A client.
#[derive(Debug)]
pub(super) struct Shopper<'a> {
    errand: Errand<'a>,
    rng: ChaCha8Rng,
    own: Client,
    /// Another client, over another front, that asks again for what the first one has done.
    twin: Client,
    unsettled: Vec<Unsettled>,
    to_restock: Option<BookId>,
}

impl<'a> Shopper<'a> {
    /// Sets out.
    pub(super) fn new(errand: Errand<'a>) -> Self {
        let client = |fronts: Vec<String>| {
            let mut client = Client::new(Options::new(fronts));
            client.set_timeout(CALL_TIMEOUT);
            client
        };
        let turned = errand.fronts.iter().rev().cloned().collect();
        Self {
            rng: ChaCha8Rng::seed_from_u64(errand.seed ^ ((errand.client as u64 + 1) << 32)),
            own: client(errand.fronts.clone()),
            twin: client(turned),
            unsettled: Vec::new(),
            to_restock: None,
            errand,
        }
    }

    /// Shops until it is over, then settles what is open; how many writes could not be settled.
    pub(super) fn run(mut self) -> usize {
        while !self.errand.is_over.load(Ordering::Relaxed) {
            match self.rng.random_range(0..100) {
                0..25 if !self.unsettled.is_empty() => self.settle_one(),
                _ => self.shop(),
            }
            std::thread::sleep(Duration::from_micros(self.rng.random_range(0..THINK_US_MAX)));
        }
        self.own.set_timeout(SETTLE_TIMEOUT);
        let end_ns = self.errand.clock.now_ns() + span::ns(self.errand.settle_within);
        while !self.unsettled.is_empty() && self.errand.clock.now_ns() < end_ns {
            self.settle_one();
        }
        self.unsettled.len()
    }

    fn shop(&mut self) {
        let action = self.draw();
        match action {
            Action::Lookup { book, fresh } => self.look_up(book, fresh),
            _ => self.write(action),
        }
    }

    fn draw(&mut self) -> Action {
        if let Some(book) = self.to_restock.take() {
            return Action::Restock { book, copies: self.rng.random_range(20..100) };
        }
        let book = self.errand.books[self.rng.random_range(0..self.errand.books.len())];
        match self.rng.random_range(0..100) {
            0..5 => Action::Reprice { book, cost_cents: self.rng.random_range(100..10_000) },
            5..20 => Action::Lookup { book, fresh: false },
            20..35 => Action::Lookup { book, fresh: true },
            _ => Action::Buy { lines: self.cart() },
        }
    }

    /// One to four books, one to three copies of each.
    fn cart(&mut self) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..self.rng.random_range(1..=4) {
            let book = self.errand.books[self.rng.random_range(0..self.errand.books.len())];
            if lines.iter().all(|line| line.book != book) {
                lines.push(Line { book, copies: self.rng.random_range(1..=3) });
            }
        }
        lines
    }

    fn look_up(&mut self, book: BookId, fresh: bool) {
        let start_ns = self.errand.clock.now_ns();
        self.own.set_fresh(fresh);
        let answer = told::of_lookup(self.own.lookup(book));
        self.tell(start_ns, 0, 0, Action::Lookup { book, fresh }, answer, false);
    }

    fn write(&mut self, action: Action) {
        let Some(command) = action.command() else { return };
        let start_ns = self.errand.clock.now_ns();
        let result = self.own.write(command);
        let (session, counter) = self.identity(&result);
        if matches!(result, Err(CallError::OutcomeUnknown { .. })) {
            self.unsettled.push(Unsettled { session, counter, action: action.clone() });
        }
        let answer = told::of_write(result);
        self.look_at_stock(&answer);
        let is_final = !matches!(answer, Answer::Unknown { .. } | Answer::NotDone { .. });
        self.tell(start_ns, session, counter, action.clone(), answer, false);
        // The first answer is kept at least until the next write says that it has come.
        if is_final && session > 0 && self.rng.random_range(0..100) < 5 {
            self.ask_again(session, counter, action);
        }
    }

    /// Under which identity a write went out.
    fn identity(&self, result: &Result<Written, CallError>) -> (u64, u64) {
        match result {
            Ok(done) => (done.session, done.counter),
            Err(CallError::OutcomeUnknown { session, counter, .. }) => (*session, *counter),
            // One call at a time: the latest counter is its.
            Err(CallError::Refused(_)) => {
                self.own.session().map_or((0, 0), |session| (session.id(), session.next_counter() - 1))
            }
            // What was never delivered has none.
            Err(_) => (0, 0),
        }
    }

    /// The same write once more, from elsewhere: it must be answered as it was.
    fn ask_again(&mut self, session: u64, counter: u64, action: Action) {
        let Some(command) = action.command() else { return };
        let start_ns = self.errand.clock.now_ns();
        let answer = told::of_write(self.twin.settle(session, counter, command));
        self.tell(start_ns, session, counter, action, answer, true);
    }

    fn settle_one(&mut self) {
        let place = self.rng.random_range(0..self.unsettled.len());
        let Unsettled { session, counter, action } = self.unsettled[place].clone();
        let Some(command) = action.command() else { return };
        let start_ns = self.errand.clock.now_ns();
        let answer = told::of_write(self.own.settle(session, counter, command));
        if !matches!(answer, Answer::Unknown { .. } | Answer::NotDone { .. }) {
            self.unsettled.swap_remove(place);
        }
        self.look_at_stock(&answer);
        self.tell(start_ns, session, counter, action, answer, false);
    }

    fn look_at_stock(&mut self, answer: &Answer) {
        match answer {
            Answer::Bought { order } => {
                let low = order.lines.iter().find(|line| line.left < RESTOCK_BELOW);
                self.to_restock = low.map(|line| line.book).or(self.to_restock);
            }
            Answer::Refused { short: Some(short), .. } => self.to_restock = Some(short.book),
            _ => {}
        }
    }

    fn tell(&self, start_ns: u64, session: u64, counter: u64, action: Action, answer: Answer, is_twin: bool) {
        let client = if is_twin { &self.twin } else { &self.own };
        let operation = Operation {
            // The twin has seen nothing of what its client has, and is promised nothing of it.
            client: self.errand.client * 2 + usize::from(is_twin),
            session,
            counter,
            start_ns,
            end_ns: self.errand.clock.now_ns(),
            sends: client.last().sends,
            front: client.server().map_or(0, |server| server.node),
            served_by: client.last().node,
            action,
            answer,
        };
        // Whoever does not listen any more has failed already.
        drop(self.errand.told.send(operation));
    }
}
