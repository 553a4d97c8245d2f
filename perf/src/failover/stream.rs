//! The load under which servers fail and come back: single copies bought at a fixed rate, whatever becomes of those before,
//! and the moments at which the store was seen to go on.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use pygmy_proto::frame::{self, Flow, Frame};
use pygmy_proto::message::{Command, Line, Lines, OpenSession, SessionOpened, WriteOk};
use pygmy_proto::{BookId, Kind, codec};

use super::timeline::Sample;
use crate::net::{Links, Next, Task};
use crate::session::{Flights, Session};

/// Deadline of a buy. One that is not answered by then is not asked again: it is the store's going on that is watched.
const DEADLINE_MS: u32 = 5_000;
/// Buys in flight on each connection while as much is bought as the store takes.
const FLOOD_DEPTH: usize = 64;
/// Between two looks at whether there is something to do, where nothing is due.
const LOOK_NS: u64 = 1_000_000;

/// A buy that was answered, or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bought {
    due_ns: u64,
    answered_ns: u64,
    is_ok: bool,
}

/// What was bought, and what is to be.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// When buys were acknowledged whose position was above all before.
    pub(super) commits_ns: Vec<u64>,
    /// The highest position acknowledged.
    pub(super) seq: u64,
    /// Buys sent.
    pub(super) sent: u64,
    /// Buys answered otherwise, or lost with their connection.
    pub(super) failed: u64,
    /// Buys that were due while no connection stood.
    pub(super) unsent: u64,
    /// Up to this position as much is bought as the store takes, instead of at the rate.
    pub(super) flood_until: u64,
    /// Buys at the rate, as they were answered.
    bought: Vec<Bought>,
    /// When those were due that are not.
    open: BTreeSet<u64>,
}

impl Orders {
    fn is_flood(&self) -> bool {
        self.seq < self.flood_until
    }

    /// A buy was acknowledged.
    pub(super) fn acknowledge(&mut self, now_ns: u64, seq: u64) {
        if seq > self.seq {
            self.seq = seq;
            // Clients have threads of their own: one that looked at the clock first may tell of it last.
            self.commits_ns.push(now_ns.max(self.commits_ns.last().copied().unwrap_or_default()));
        }
    }

    /// A buy is over. One of a flood was due at no time.
    fn end(&mut self, due_ns: Option<u64>, answered_ns: u64, is_ok: bool) {
        self.failed += u64::from(!is_ok);
        if let Some(due_ns) = due_ns {
            self.open.remove(&due_ns);
            self.bought.push(Bought { due_ns, answered_ns, is_ok });
        }
    }

    /// Whether a buy that was due before this is open.
    pub(super) fn is_open_before(&self, until_ns: u64) -> bool {
        self.open.first().is_some_and(|due_ns| *due_ns < until_ns)
    }

    /// Each buy at the rate that has ended.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let sample = |one: &Bought| Sample { due_ns: one.due_ns, end_ns: one.answered_ns, is_ok: one.is_ok };
        self.bought.iter().map(sample).collect()
    }

    /// Of the buys that were due between two moments: the time of the slowest that was answered, in nanoseconds, and
    /// how many failed.
    pub(super) fn between(&self, from_ns: u64, until_ns: u64) -> (u64, u64) {
        let within = |bought: &&Bought| (from_ns..until_ns).contains(&bought.due_ns);
        let all = || self.bought.iter().filter(within);
        let slowest = all().map(|bought| bought.answered_ns.saturating_sub(bought.due_ns)).max().unwrap_or(0);
        let open = self.open.range(from_ns..until_ns).count();
        (slowest, (all().filter(|bought| !bought.is_ok).count() + open) as u64)
    }
}

#[derive(Debug)]
enum Flight {
    Opening,
    Buy { counter: u64, due_ns: Option<u64> },
}

#[derive(Debug, Default)]
struct Lane {
    session: Option<Session>,
    flights: Flights<Flight>,
}

/// Buys at a fixed rate until it is told to stop.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    interval_ns: f64,
    books: Vec<BookId>,
    lanes: Vec<Lane>,
    /// Buys so far.
    count: u64,
    /// When the next one is due; `None`: as soon as all sessions are open and no flood is on.
    next_due_ns: Option<f64>,
    orders: &'a Mutex<Orders>,
    is_over: &'a AtomicBool,
}

impl<'a> Stream<'a> {
    /// `rate` buys a second over so many connections.
    pub(super) fn new(
        rate: f64,
        lanes: usize,
        books: Vec<BookId>,
        orders: &'a Mutex<Orders>,
        is_over: &'a AtomicBool,
    ) -> Self {
        let lanes = (0..lanes).map(|_| Lane::default()).collect();
        Self { interval_ns: 1e9 / rate, books, lanes, count: 0, next_due_ns: None, orders, is_over }
    }

    fn note(&self, change: impl FnOnce(&mut Orders)) {
        // Whoever panicked while holding it has ended the run.
        if let Ok(mut orders) = self.orders.lock() {
            change(&mut orders);
        }
    }

    /// Sends the next buy on the next connection that can take it.
    fn buy_due(&mut self, links: &mut Links, due_ns: u64) {
        for turn in 0..self.lanes.len() {
            let link = (self.count as usize + turn) % self.lanes.len();
            if self.buy(links, link, Some(due_ns)) {
                return self.note(|orders| {
                    orders.open.insert(due_ns);
                });
            }
        }
        self.note(|orders| orders.unsent += 1);
    }

    /// Sends a buy on this connection, if it can take one.
    fn buy(&mut self, links: &mut Links, link: usize, due_ns: Option<u64>) -> bool {
        let lane = &mut self.lanes[link];
        let Some(session) = lane.session.as_mut().filter(|_| links.is_open(link)) else { return false };
        let Some(counter) = session.take_counter() else { return false };
        let identity = [session.id(), counter, session.first_incomplete()];
        let id = lane.flights.insert(Flight::Buy { counter, due_ns });
        let book = self.books[(self.count % self.books.len() as u64) as usize];
        self.count += 1;
        let command = Command::Buy { lines: Lines::truncated(vec![Line { book, copies: 1 }]) };
        frame::write_with(links.out(link), Kind::Write as u16, id, DEADLINE_MS, 0, |body| {
            codec::encode_to(&identity, body);
            codec::encode_to(&command, body);
        });
        self.note(|orders| orders.sent += 1);
        true
    }

    /// Keeps every connection as full as a flood has it.
    fn flood(&mut self, links: &mut Links) {
        for link in 0..self.lanes.len() {
            while self.lanes[link].flights.len() < FLOOD_DEPTH && self.buy(links, link, None) {}
        }
    }

    fn on_answer(&mut self, now_ns: u64, link: usize, frame: &Frame<'_>) -> Result<(), String> {
        let lane = &mut self.lanes[link];
        let flight = lane.flights.take(frame.header.request_id).ok_or("an answer to nothing")?;
        match (flight, frame.kind()) {
            (Flight::Opening, Some(Kind::SessionOpened)) => {
                let SessionOpened { session } = frame.decode().map_err(|error| error.to_string())?;
                lane.session = Some(Session::new(session));
            }
            (Flight::Opening, _) => return Err("no session was opened".into()),
            (Flight::Buy { counter, due_ns }, kind) => {
                if let Some(session) = &mut lane.session {
                    session.finish(counter);
                }
                let is_ok = kind == Some(Kind::WriteOk);
                let seq = if is_ok { frame.decode::<WriteOk>().map_err(|error| error.to_string())?.seq } else { 0 };
                self.note(|orders| {
                    orders.end(due_ns, now_ns, is_ok);
                    orders.acknowledge(now_ns, seq);
                });
            }
        }
        Ok(())
    }
}

impl Task for Stream<'_> {
    fn on_open(&mut self, _: u64, link: usize, links: &mut Links) {
        if self.lanes[link].session.is_none() {
            let id = self.lanes[link].flights.insert(Flight::Opening);
            frame::write(links.out(link), id, DEADLINE_MS, 0, &OpenSession {});
        }
    }

    fn on_frame(&mut self, now_ns: u64, link: usize, frame: &Frame<'_>, links: &mut Links) -> Flow {
        if let Err(why) = self.on_answer(now_ns, link, frame) {
            links.lose(link, &why);
            return Flow::Stop;
        }
        Flow::Continue
    }

    fn on_lost(&mut self, now_ns: u64, link: usize, _: &str, _: &mut Links) {
        let lane = &mut self.lanes[link];
        for flight in lane.flights.drain() {
            let Flight::Buy { counter, due_ns } = flight else { continue };
            if let Some(session) = &mut lane.session {
                session.finish(counter);
            }
            // Whoever panicked while holding it has ended the run.
            if let Ok(mut orders) = self.orders.lock() {
                orders.end(due_ns, now_ns, false);
            }
        }
    }

    fn on_turn(&mut self, now_ns: u64, links: &mut Links) -> Next {
        if self.is_over.load(Ordering::Relaxed) {
            return Next::Done;
        }
        if self.lanes.iter().any(|lane| lane.session.is_none()) {
            return Next::At(now_ns + LOOK_NS);
        }
        if self.orders.lock().is_ok_and(|orders| orders.is_flood()) {
            self.flood(links);
            // The rate begins anew behind it.
            self.next_due_ns = None;
            return Next::At(now_ns + LOOK_NS);
        }
        let mut due_ns = self.next_due_ns.unwrap_or(now_ns as f64);
        while due_ns as u64 <= now_ns {
            self.buy_due(links, due_ns as u64);
            due_ns += self.interval_ns;
        }
        self.next_due_ns = Some(due_ns);
        Next::At(due_ns as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_buy_is_one_that_was_due_in_the_time_asked_for() {
        let mut orders = Orders::default();
        for (due_ns, answered_ns, is_ok) in [(10, 90, true), (20, 25, true), (30, 42, false), (40, 99, true)] {
            orders.open.insert(due_ns);
            orders.end(Some(due_ns), answered_ns, is_ok);
        }
        assert_eq!(orders.between(20, 40), (12, 1));
        assert_eq!(orders.between(10, 41), (80, 1));
        assert_eq!((orders.between(50, 60), orders.failed), ((0, 0), 1));
    }

    #[test]
    fn a_buy_without_an_answer_counts_as_failed_and_is_waited_for() {
        let mut orders = Orders::default();
        orders.open.extend([10, 20]);
        assert!(orders.is_open_before(11) && !orders.is_open_before(10));
        orders.end(Some(10), 15, true);
        assert!(!orders.is_open_before(20) && orders.is_open_before(21));
        assert_eq!(orders.between(0, 30), (5, 1));
    }

    #[test]
    fn moments_of_commits_never_go_back() {
        let mut orders = Orders::default();
        for (now_ns, seq) in [(10, 5), (30, 7), (20, 9), (40, 8), (50, 10)] {
            orders.acknowledge(now_ns, seq);
        }
        assert_eq!((orders.commits_ns, orders.seq), (vec![10, 30, 30, 50], 10));
    }

    #[test]
    fn a_flood_ends_when_its_position_is_acknowledged() {
        let mut orders = Orders { flood_until: 100, ..Orders::default() };
        orders.end(None, 5, true);
        orders.acknowledge(5, 99);
        assert!(orders.is_flood());
        orders.acknowledge(6, 100);
        orders.acknowledge(7, 98);
        assert!(!orders.is_flood() && orders.bought.is_empty());
        assert_eq!(orders.commits_ns, [5, 6]);
    }
}
