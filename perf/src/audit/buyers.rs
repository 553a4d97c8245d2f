//! The clients of an audit: each with its own session and connection, several writes in flight, every one of them
//! repeated under its own identity until it has a final answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::{HashMap, HashSet};
use pygmy_proto::frame::{self, Flow, Frame};
use pygmy_proto::message::{Line, OpenSession, Outcome, SessionOpened, WriteOk};
use pygmy_proto::{BookId, ErrorBody, ErrorCode, Kind, Retry, codec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::history::{Action, Answer, Operation, Short};
use crate::net::{Links, Next, Task};
use crate::session::{Flights, Session};

/// Copies left at which a book is restocked, and how many are added then. Low enough that carts of several clients
/// in flight at once can still find it sold out now and then: refusals belong to the audit.
const RESTOCK_BELOW: u32 = 60;
const RESTOCK_COPIES: u32 = 2_000;
/// Deadline of one sending.
const DEADLINE_MS: u32 = 5_000;
/// Silence after which a connection is given up although it stands.
const SILENCE_NS: u64 = 10_000_000_000;
/// How often silence is looked for.
const LOOK_NS: u64 = 500_000_000;
/// Wait before a write is repeated whose refusal names no better time.
const REPEAT_MS: u32 = 20;

/// A write on its way.
#[derive(Debug)]
struct Pending {
    counter: u64,
    action: Action,
    start_ns: u64,
    sent_ns: u64,
    sends: u32,
    /// It was sent and not answered at least once: whatever comes next, it may have been done before.
    is_doubtful: bool,
}

#[derive(Debug)]
enum Flight {
    Opening { sent_ns: u64 },
    Write(Pending),
}

impl Flight {
    fn sent_ns(&self) -> u64 {
        match self {
            Flight::Opening { sent_ns } => *sent_ns,
            Flight::Write(pending) => pending.sent_ns,
        }
    }
}

/// One client.
#[derive(Debug)]
struct Buyer {
    rng: ChaCha8Rng,
    session: Option<Session>,
    flights: Flights<Flight>,
    /// Writes that wait to be sent again.
    waiting: Vec<(u64, Pending)>,
    bought: u64,
    /// Buys on their way.
    buying: u64,
}

/// What the clients are to do.
#[derive(Debug, Clone)]
pub(super) struct BuyersPlan {
    /// Clients.
    pub(super) clients: usize,
    /// Orders that each must get.
    pub(super) buys: u64,
    /// Writes in flight of each.
    pub(super) in_flight: usize,
    /// What carts are drawn from.
    pub(super) seed: u64,
    /// The moment at which those not done give up.
    pub(super) until_ns: u64,
}

/// All clients of an audit.
#[derive(Debug)]
pub(super) struct Buyers {
    plan: BuyersPlan,
    books: Vec<BookId>,
    buyers: Vec<Buyer>,
    /// Books whose restock is on its way.
    restocking: HashSet<BookId>,
    /// Books to be restocked by whoever sends next.
    to_restock: Vec<BookId>,
    wakes: BinaryHeap<Reverse<(u64, usize)>>,
    look_ns: u64,
    history: Vec<Operation>,
    /// Connections that were lost.
    losses: u64,
    last_trouble: String,
    refusals: HashMap<u16, u64>,
}

impl Buyers {
    /// The clients of `plan`, buying from `books`.
    pub(super) fn new(plan: BuyersPlan, books: Vec<BookId>) -> Self {
        let buyer = |client: usize| Buyer {
            rng: ChaCha8Rng::seed_from_u64(plan.seed ^ ((client as u64 + 1) << 32)),
            session: None,
            flights: Flights::default(),
            waiting: Vec::new(),
            bought: 0,
            buying: 0,
        };
        Self {
            buyers: (0..plan.clients).map(buyer).collect(),
            plan,
            books,
            restocking: HashSet::new(),
            to_restock: Vec::new(),
            wakes: BinaryHeap::new(),
            look_ns: 0,
            history: Vec::new(),
            losses: 0,
            last_trouble: String::new(),
            refusals: HashMap::new(),
        }
    }

    /// Connections that were lost and made again.
    pub(super) fn losses(&self) -> u64 {
        self.losses
    }

    /// How often each error code was answered, those included after which the write was repeated.
    pub(super) fn refusals(&self) -> &HashMap<u16, u64> {
        &self.refusals
    }

    /// What kept clients from finishing, if anything did.
    pub(super) fn unfinished(&self) -> Option<String> {
        let unfinished = self.buyers.iter().filter(|buyer| buyer.bought < self.plan.buys).count();
        let (all, buys) = (self.plan.clients, self.plan.buys);
        let trouble = &self.last_trouble;
        (unfinished > 0).then(|| format!("{unfinished} of {all} clients did not get their {buys} orders; {trouble}"))
    }

    /// Everything that was asked; what has no answer by now is of unknown outcome.
    pub(super) fn into_history(mut self, now_ns: u64) -> Vec<Operation> {
        for client in 0..self.buyers.len() {
            let flights = self.buyers[client].flights.drain().into_iter();
            let waiting = std::mem::take(&mut self.buyers[client].waiting).into_iter().map(|(_, pending)| pending);
            let in_flight = flights.filter_map(|flight| match flight {
                Flight::Write(pending) => Some(pending),
                Flight::Opening { .. } => None,
            });
            for pending in in_flight.chain(waiting).collect::<Vec<_>>() {
                let why = format!("the audit's time was over; {}", self.last_trouble);
                self.note(now_ns, client, pending, Answer::Unknown { why });
            }
        }
        self.history
    }

    fn note(&mut self, now_ns: u64, client: usize, pending: Pending, answer: Answer) {
        let session = self.buyers[client].session.as_ref().map_or(0, Session::id);
        let Pending { counter, action, start_ns, sends, .. } = pending;
        let (end_ns, front, served_by) = (now_ns, 0, 0);
        let operation =
            Operation { client, session, counter, start_ns, end_ns, sends, front, served_by, action, answer };
        self.history.push(operation);
    }

    /// Sends a write, for the first time or again.
    fn send(&mut self, now_ns: u64, client: usize, mut pending: Pending, links: &mut Links) {
        let buyer = &mut self.buyers[client];
        let Some(session) = &buyer.session else { return };
        pending.sent_ns = now_ns;
        pending.sends += 1;
        let identity = [session.id(), pending.counter, session.first_incomplete()];
        let Some(command) = pending.action.command() else { return };
        let id = buyer.flights.insert(Flight::Write(pending));
        frame::write_with(links.out(client), Kind::Write as u16, id, DEADLINE_MS, 0, |body| {
            codec::encode_to(&identity, body);
            codec::encode_to(&command, body);
        });
    }

    /// Sends again what has waited long enough, then new writes while there is room.
    fn fill(&mut self, now_ns: u64, client: usize, links: &mut Links) {
        if !links.is_open(client) || self.buyers[client].session.is_none() {
            return;
        }
        let (due, later) =
            std::mem::take(&mut self.buyers[client].waiting).into_iter().partition(|(at_ns, _)| *at_ns <= now_ns);
        self.buyers[client].waiting = later;
        let due: Vec<(u64, Pending)> = due;
        for (_, pending) in due {
            self.send(now_ns, client, pending, links);
        }
        loop {
            let buyer = &mut self.buyers[client];
            if buyer.flights.len() + buyer.waiting.len() >= self.plan.in_flight {
                return;
            }
            let action = match self.to_restock.pop() {
                Some(book) => Action::Restock { book, copies: RESTOCK_COPIES },
                None if buyer.bought + buyer.buying >= self.plan.buys => return,
                None => Action::Buy { lines: cart(&self.books, &mut buyer.rng) },
            };
            let Some(counter) = buyer.session.as_mut().and_then(Session::take_counter) else {
                if let Action::Restock { book, .. } = action {
                    self.to_restock.push(book);
                }
                return;
            };
            buyer.buying += u64::from(matches!(action, Action::Buy { .. }));
            let pending = Pending { counter, action, start_ns: now_ns, sent_ns: 0, sends: 0, is_doubtful: false };
            self.send(now_ns, client, pending, links);
        }
    }

    /// A write has its final answer.
    fn finish(&mut self, now_ns: u64, client: usize, pending: Pending, answer: Answer) {
        let buyer = &mut self.buyers[client];
        if let Some(session) = &mut buyer.session {
            session.finish(pending.counter);
        }
        match &pending.action {
            Action::Buy { .. } => buyer.buying -= 1,
            Action::Restock { book, .. } => {
                self.restocking.remove(book);
            }
            Action::Reprice { .. } | Action::Lookup { .. } => {}
        }
        if let Answer::Bought { order } = &answer {
            buyer.bought += 1;
            let low = order.lines.iter().filter(|line| line.left < RESTOCK_BELOW).map(|line| line.book);
            for book in low.collect::<Vec<_>>() {
                self.want_restock(book);
            }
        }
        self.note(now_ns, client, pending, answer);
    }

    fn want_restock(&mut self, book: BookId) {
        if self.restocking.insert(book) {
            self.to_restock.push(book);
        }
    }

    fn on_written(&mut self, now_ns: u64, client: usize, pending: Pending, done: WriteOk) -> Result<(), String> {
        let answer = match (done.outcome, &pending.action) {
            (Outcome::Bought { order }, Action::Buy { .. }) => Answer::Bought { order },
            (Outcome::Restocked { book }, Action::Restock { .. }) => {
                Answer::Restocked { seq: done.seq, stock: book.stock }
            }
            (other, asked) => return Err(format!("{asked:?} was answered with {other:?}")),
        };
        self.finish(now_ns, client, pending, answer);
        Ok(())
    }

    fn on_refused(&mut self, now_ns: u64, client: usize, mut pending: Pending, error: &ErrorBody) {
        *self.refusals.entry(error.code).or_default() += 1;
        match error.retry {
            Retry::Later | Retry::Elsewhere | Retry::Settle => {
                self.last_trouble = error.to_string();
                pending.is_doubtful |= error.retry == Retry::Settle;
                let pause_ms = if error.retry_after_ms > 0 { error.retry_after_ms } else { REPEAT_MS };
                self.wait(now_ns + u64::from(pause_ms) * 1_000_000, client, pending);
            }
            Retry::Never => {
                if error.code == ErrorCode::NotEnoughStock as u16
                    && let Ok(book) = BookId::new(&error.subject)
                {
                    self.want_restock(book);
                }
                // An expired session says nothing of what was done before it expired.
                let is_unknown = pending.is_doubtful && error.code == ErrorCode::SessionExpired as u16;
                let answer = if is_unknown {
                    Answer::Unknown { why: error.to_string() }
                } else {
                    Answer::Refused { code: error.code, detail: error.detail.to_string(), short: Short::of(error) }
                };
                self.finish(now_ns, client, pending, answer);
            }
        }
    }

    /// Sends a write again later, under the same identity.
    fn wait(&mut self, until_ns: u64, client: usize, pending: Pending) {
        self.buyers[client].waiting.push((until_ns, pending));
        self.wakes.push(Reverse((until_ns, client)));
    }

    fn open_session(&mut self, now_ns: u64, client: usize, links: &mut Links) {
        let id = self.buyers[client].flights.insert(Flight::Opening { sent_ns: now_ns });
        frame::write(links.out(client), id, DEADLINE_MS, 0, &OpenSession {});
    }

    fn on_answer(&mut self, now_ns: u64, client: usize, frame: &Frame<'_>) -> Result<(), String> {
        let id = frame.header.request_id;
        let flight = self.buyers[client].flights.take(id);
        let text = |error: codec::BodyError| error.to_string();
        match (frame.kind(), flight) {
            (Some(Kind::SessionOpened), Some(Flight::Opening { .. })) => {
                let opened: SessionOpened = frame.decode().map_err(text)?;
                self.buyers[client].session = Some(Session::new(opened.session));
                Ok(())
            }
            (Some(Kind::WriteOk), Some(Flight::Write(pending))) => {
                let done = frame.decode().map_err(text)?;
                self.on_written(now_ns, client, pending, done)
            }
            (Some(Kind::Error), Some(Flight::Write(pending))) => {
                self.on_refused(now_ns, client, pending, &frame.decode().map_err(text)?);
                Ok(())
            }
            (Some(Kind::Error), _) => Err(frame.decode::<ErrorBody>().map_err(text)?.to_string()),
            (_, _) => Err(format!("kind {:#06x} for request id {id} answers nothing", frame.header.kind)),
        }
    }

    /// Gives connections up that stand and say nothing.
    fn look_for_silence(&mut self, now_ns: u64, links: &mut Links) {
        if now_ns < self.look_ns {
            return;
        }
        self.look_ns = now_ns + LOOK_NS;
        for (client, buyer) in self.buyers.iter().enumerate() {
            if buyer.flights.iter().any(|flight| flight.sent_ns() + SILENCE_NS <= now_ns) {
                links.lose(client, "it did not answer in time");
            }
        }
    }

    fn is_done(&self) -> bool {
        let is_done = |buyer: &Buyer| buyer.bought >= self.plan.buys && buyer.flights.is_empty();
        self.buyers.iter().all(|buyer| is_done(buyer) && buyer.waiting.is_empty())
    }
}

/// One to five books, one to three copies of each.
fn cart(books: &[BookId], rng: &mut ChaCha8Rng) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..rng.random_range(1..=5) {
        let book = books[rng.random_range(0..books.len())];
        if lines.iter().all(|line| line.book != book) {
            lines.push(Line { book, copies: rng.random_range(1..=3) });
        }
    }
    lines
}

impl Task for Buyers {
    fn on_open(&mut self, now_ns: u64, client: usize, links: &mut Links) {
        if self.buyers[client].session.is_none() {
            self.open_session(now_ns, client, links);
        }
        self.fill(now_ns, client, links);
    }

    fn on_frame(&mut self, now_ns: u64, client: usize, frame: &Frame<'_>, links: &mut Links) -> Flow {
        match self.on_answer(now_ns, client, frame) {
            Ok(()) => self.fill(now_ns, client, links),
            Err(why) => links.lose(client, &why),
        }
        if links.is_open(client) { Flow::Continue } else { Flow::Stop }
    }

    fn on_lost(&mut self, now_ns: u64, client: usize, why: &str, _: &mut Links) {
        self.losses += 1;
        self.last_trouble = why.to_string();
        for flight in self.buyers[client].flights.drain() {
            if let Flight::Write(mut pending) = flight {
                pending.is_doubtful = true;
                self.buyers[client].waiting.push((now_ns, pending));
            }
        }
    }

    fn on_turn(&mut self, now_ns: u64, links: &mut Links) -> Next {
        while let Some(Reverse((at_ns, client))) = self.wakes.peek().copied()
            && at_ns <= now_ns
        {
            self.wakes.pop();
            self.fill(now_ns, client, links);
        }
        self.look_for_silence(now_ns, links);
        if self.is_done() || now_ns >= self.plan.until_ns {
            return Next::Done;
        }
        let wake_ns = self.wakes.peek().map_or(self.look_ns, |Reverse((at_ns, _))| *at_ns);
        Next::At(wake_ns.min(self.look_ns).min(self.plan.until_ns))
    }
}
