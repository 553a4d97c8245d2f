//! The load under which servers fail: single copies bought at a fixed rate, whatever becomes of those before, and the
//! moments at which the store was seen to go on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use pygmy_proto::frame::{self, Flow, Frame};
use pygmy_proto::message::{Command, Line, Lines, OpenSession, SessionOpened, WriteOk};
use pygmy_proto::{BookId, Kind, codec};

use crate::net::{Links, Next, Task};
use crate::session::{Flights, Session};

/// Deadline of a buy. One that is not answered by then is not asked again: it is the store's going on that is watched.
const DEADLINE_MS: u32 = 5_000;

/// What the store was seen to do.
#[derive(Debug, Default)]
pub(super) struct Seen {
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
}

#[derive(Debug)]
enum Flight {
    Opening,
    Buy { counter: u64 },
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
    start_ns: Option<u64>,
    due: u64,
    seen: &'a Mutex<Seen>,
    is_over: &'a AtomicBool,
}

impl<'a> Stream<'a> {
    /// `rate` buys a second over so many connections.
    pub(super) fn new(
        rate: f64,
        lanes: usize,
        books: Vec<BookId>,
        seen: &'a Mutex<Seen>,
        is_over: &'a AtomicBool,
    ) -> Self {
        let lanes = (0..lanes).map(|_| Lane::default()).collect();
        Self { interval_ns: 1e9 / rate, books, lanes, start_ns: None, due: 0, seen, is_over }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        // Whoever panicked while holding it has ended the run.
        if let Ok(mut seen) = self.seen.lock() {
            change(&mut seen);
        }
    }

    /// Sends the next buy on the next connection that can take it.
    fn buy(&mut self, links: &mut Links) {
        let book = self.books[(self.due % self.books.len() as u64) as usize];
        for turn in 0..self.lanes.len() {
            let link = (self.due as usize + turn) % self.lanes.len();
            let lane = &mut self.lanes[link];
            if !links.is_open(link) {
                continue;
            }
            let Some(session) = &mut lane.session else { continue };
            let Some(counter) = session.take_counter() else { continue };
            let identity = [session.id(), counter, session.first_incomplete()];
            let id = lane.flights.insert(Flight::Buy { counter });
            let command = Command::Buy { lines: Lines::truncated(vec![Line { book, copies: 1 }]) };
            frame::write_with(links.out(link), Kind::Write as u16, id, DEADLINE_MS, 0, |body| {
                codec::encode_to(&identity, body);
                codec::encode_to(&command, body);
            });
            return self.note(|seen| seen.sent += 1);
        }
        self.note(|seen| seen.unsent += 1);
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
            (Flight::Buy { counter }, kind) => {
                if let Some(session) = &mut lane.session {
                    session.finish(counter);
                }
                if kind != Some(Kind::WriteOk) {
                    self.note(|seen| seen.failed += 1);
                    return Ok(());
                }
                let WriteOk { seq, .. } = frame.decode().map_err(|error| error.to_string())?;
                self.note(|seen| {
                    if seq > seen.seq {
                        seen.seq = seq;
                        seen.commits_ns.push(now_ns);
                    }
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

    fn on_lost(&mut self, _: u64, link: usize, _: &str, _: &mut Links) {
        let lane = &mut self.lanes[link];
        let lost = lane.flights.drain();
        for flight in &lost {
            if let (Flight::Buy { counter }, Some(session)) = (flight, &mut lane.session) {
                session.finish(*counter);
            }
        }
        self.note(|seen| seen.failed += lost.len() as u64);
    }

    fn on_turn(&mut self, now_ns: u64, links: &mut Links) -> Next {
        if self.is_over.load(Ordering::Relaxed) {
            return Next::Done;
        }
        if self.start_ns.is_none() && self.lanes.iter().all(|lane| lane.session.is_some()) {
            self.start_ns = Some(now_ns);
        }
        let due_at = |start_ns: u64, due: u64| start_ns + (due as f64 * self.interval_ns) as u64;
        let Some(start_ns) = self.start_ns else { return Next::At(now_ns + 1_000_000) };
        let mut next_ns = due_at(start_ns, self.due);
        while next_ns <= now_ns {
            self.buy(links);
            self.due += 1;
            next_ns = start_ns + (self.due as f64 * self.interval_ns) as u64;
        }
        Next::At(next_ns)
    }
}
