//! The load as users put it on and see it: buys and lookups at fixed rates, whatever becomes of those before, through the
//! client library, which asks again and elsewhere until a request has its final answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pygmy_client::{Asks, Completion, Error as CallError, Options, Pipelined, Reply, Request, Written};
use pygmy_proto::BookId;
use pygmy_proto::message::{Command, Line, Lines, Lookup};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::cluster::LOOK_EVERY;
use super::stream::Orders;
use super::timeline::Samples;
use super::view::{Ended, Requests};
use super::{failed, poisoned};
use crate::error::Error;
use crate::history::{Action, Operation};
use crate::load::mix::Books;
use crate::span::Clock;
use crate::told;

/// Users of the client library, each with a connection and a session; half of them begin at each of two front ends.
const CLIENTS: usize = 8;
/// Calls that may wait in one of them: more than it is asked for while a call has time.
const QUEUE_MAX: usize = 16_384;
/// Time that a call has.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at what is due: what was due meanwhile is asked late by no more than this.
const TURN: Duration = Duration::from_micros(500);

/// What was asked, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Single copies bought.
    pub(super) buys: Requests,
    /// Single books looked up.
    pub(super) lookups: Requests,
    /// All of it, where a history is kept.
    pub(super) history: Option<Vec<Operation>>,
}

impl Seen {
    fn of(&mut self, kind: Kind) -> &mut Requests {
        match kind {
            Kind::Buy => &mut self.buys,
            Kind::Lookup => &mut self.lookups,
        }
    }

    /// Each that has ended, by kind.
    pub(super) fn samples(&self) -> [Samples; 2] {
        let samples = |name, requests: &Requests| Samples { name, all: requests.samples() };
        [samples("buys", &self.buys), samples("lookups", &self.lookups)]
    }

    /// Whether something that was due before this has not ended.
    pub(super) fn is_open_before(&self, until_ns: u64) -> bool {
        self.buys.is_open_before(until_ns) || self.lookups.is_open_before(until_ns)
    }
}

/// What the threads of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The one clock.
    pub(super) clock: Clock,
    /// What clients see.
    pub(super) seen: Mutex<Seen>,
    /// How the store goes on.
    pub(super) orders: Mutex<Orders>,
}

impl Shared {
    /// Waits until every request that was due before this has ended; each does within its time.
    pub(super) fn wait_answers(&self, until_ns: u64) -> Result<(), Error> {
        let late = Instant::now() + 2 * CALL_TIMEOUT;
        while self.seen.lock().map_err(|_| poisoned())?.is_open_before(until_ns) {
            if Instant::now() > late {
                return Err(failed("a call through the client library does not end in its time".into()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Buy,
    Lookup,
}

/// A request under way.
struct Call {
    shared: Arc<Shared>,
    kind: Kind,
    client: usize,
    number: u64,
    book: BookId,
    due_ns: u64,
    start_ns: u64,
}

/// When requests of a kind are due.
#[derive(Debug, Clone, Copy)]
struct Pace {
    kind: Kind,
    interval_ns: f64,
    next_due_ns: f64,
    /// So many before: clients take turns, for each kind by itself.
    count: usize,
}

/// So many requests a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// Buys.
    pub(super) buys: f64,
    /// Lookups; none, where it is 0.
    pub(super) lookups: f64,
}

/// Asks at fixed rates until it is told to stop.
pub(super) struct Clients<'a> {
    all: Vec<Pipelined>,
    books: &'a Books,
    rng: ChaCha8Rng,
    shared: Arc<Shared>,
}

impl<'a> Clients<'a> {
    /// Clients of these front ends, who ask for `books`.
    ///
    /// # Errors
    /// When this machine gives no more threads.
    pub(super) fn start(fronts: &[String], books: &'a Books, seed: u64, shared: &Arc<Shared>) -> Result<Self, Error> {
        let client = |number: usize| {
            let mut fronts = fronts.to_vec();
            let turn = number % fronts.len();
            fronts.rotate_left(turn);
            Pipelined::start(Options::new(fronts), QUEUE_MAX).map_err(Error::io("a client"))
        };
        let all = (0..CLIENTS).map(client).collect::<Result<_, _>>()?;
        Ok(Self { all, books, rng: ChaCha8Rng::seed_from_u64(seed), shared: shared.clone() })
    }

    /// Asks until it is over; then waits for every answer.
    pub(super) fn run(mut self, rates: Rates, is_over: &AtomicBool) {
        let start_ns = self.shared.clock.now_ns() as f64;
        let pace = |(kind, rate): (Kind, f64)| Pace { kind, interval_ns: 1e9 / rate, next_due_ns: start_ns, count: 0 };
        let asked = [(Kind::Buy, rates.buys), (Kind::Lookup, rates.lookups)];
        let mut paces: Vec<Pace> = asked.into_iter().filter(|(_, rate)| *rate > 0.0).map(pace).collect();
        while !is_over.load(Ordering::Relaxed) {
            let now_ns = self.shared.clock.now_ns();
            for pace in &mut paces {
                while pace.next_due_ns as u64 <= now_ns {
                    self.ask(pace.kind, pace.count % self.all.len(), pace.next_due_ns as u64);
                    pace.count += 1;
                    pace.next_due_ns += pace.interval_ns;
                }
            }
            std::thread::sleep(TURN);
        }
        self.all.into_iter().for_each(|client| client.close(CALL_TIMEOUT));
    }

    fn ask(&mut self, kind: Kind, client: usize, due_ns: u64) {
        let book = self.books.pick_id(&mut self.rng);
        let request = match kind {
            Kind::Lookup => Request::Lookup(Lookup { floor: 0, book }),
            Kind::Buy => Request::Write(Command::Buy { lines: Lines::truncated(vec![Line { book, copies: 1 }]) }),
        };
        // Whoever panicked while holding it has ended the run.
        let Ok(number) = self.shared.seen.lock().map(|mut seen| seen.of(kind).ask(due_ns)) else { return };
        let start_ns = self.shared.clock.now_ns();
        let call = Call { shared: self.shared.clone(), kind, client, number, book, due_ns, start_ns };
        let ended = move |completion| call.end(completion);
        if self.all[client].try_submit(request, CALL_TIMEOUT, Asks::default(), ended).is_err()
            && let Ok(mut seen) = self.shared.seen.lock()
        {
            seen.of(kind).take_back(number);
        }
    }
}

impl Call {
    fn end(self, completion: Completion) {
        let end_ns = self.shared.clock.now_ns();
        if let (Ok(Reply::Written(done)), Ok(mut orders)) = (&completion.result, self.shared.orders.lock()) {
            orders.acknowledge(end_ns, done.seq);
        }
        let Ok(mut seen) = self.shared.seen.lock() else { return };
        let Self { client, due_ns, .. } = self;
        let (is_ok, is_repeated) = (completion.result.is_ok(), completion.sends > 1);
        seen.of(self.kind).end(self.number, Ended { client, due_ns, end_ns, is_ok, is_repeated });
        if let Some(history) = &mut seen.history {
            history.push(self.operation(end_ns, completion));
        }
    }

    /// As a history keeps it.
    fn operation(&self, end_ns: u64, completion: Completion) -> Operation {
        let Completion { result, node, front, sends, .. } = completion;
        let (session, counter) = identity(&result);
        let action = match self.kind {
            Kind::Lookup => Action::Lookup { book: self.book, fresh: false },
            Kind::Buy => Action::Buy { lines: vec![Line { book: self.book, copies: 1 }] },
        };
        let answer = told::of_reply(result, action.is_read());
        let Self { client, start_ns, .. } = *self;
        Operation { client, session, counter, start_ns, end_ns, sends, front, served_by: node, action, answer }
    }
}

/// Under which identity a write went out. What was refused for good has had no effect under any.
fn identity(result: &Result<Reply, CallError>) -> (u64, u64) {
    match result {
        Ok(Reply::Written(Written { session, counter, .. })) => (*session, *counter),
        Err(CallError::OutcomeUnknown { session, counter, .. }) => (*session, *counter),
        _ => (0, 0),
    }
}
