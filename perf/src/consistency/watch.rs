//! The load of a consistency run: who buys through one front end, and who looks up through it and through another.

use pygmy_proto::frame::{self, Flow, Frame};
use pygmy_proto::header::FLAG_FRESH;
use pygmy_proto::message::{Command, Line, Lines, Lookup, LookupOk, OpenSession, SessionOpened, WriteOk};
use pygmy_proto::{BookId, Kind, codec};
use rand_chacha::ChaCha8Rng;

use super::lag::{Change, Look};
use super::{Front, Mode};
use crate::load::mix::Books;
use crate::net::{Links, Next, Task};
use crate::session::{Flights, Session};

/// Deadline of each request.
const DEADLINE_MS: u32 = 5_000;
/// Requests in flight on a connection; what is due above that is not sent.
const DEPTH: usize = 256;
/// Between two looks at whether all sessions are open.
const LOOK_NS: u64 = 1_000_000;

/// What a connection is for: connection `n` is for the `n mod 3`-th of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Buy,
    LookUp(Front),
}

/// Uses, in the order in which connections have them.
const USES: [Use; 3] = [Use::Buy, Use::LookUp(Front::Same), Use::LookUp(Front::Second)];
/// Which of the two front ends each goes to.
pub(super) const FRONTS: [Front; USES.len()] = [Front::Same, Front::Same, Front::Second];

#[derive(Debug)]
enum Flight {
    Opening,
    Buy { counter: u64, book: BookId },
    LookUp { due_ns: u64, asked_ns: u64, book: BookId },
}

#[derive(Debug, Default)]
struct Lane {
    session: Option<Session>,
    flights: Flights<Flight>,
}

/// When requests of one use are due.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval_ns: f64,
    next_ns: f64,
    count: usize,
}

impl Pace {
    fn new(rate: f64, start_ns: u64) -> Self {
        Self { interval_ns: 1e9 / rate, next_ns: start_ns as f64, count: 0 }
    }

    /// Goes on to the next one if this one is due; when it was, and its number.
    fn take_due(&mut self, now_ns: u64, until_ns: u64) -> Option<(u64, usize)> {
        let due_ns = self.next_ns as u64;
        if due_ns > now_ns || due_ns >= until_ns {
            return None;
        }
        self.next_ns += self.interval_ns;
        self.count += 1;
        Some((due_ns, self.count - 1))
    }
}

/// An answered lookup.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Through which front end.
    pub(super) front: Front,
    /// What was answered.
    pub(super) look: Look,
    /// From the moment it was due to its answer.
    pub(super) latency_ns: u64,
}

/// What was counted while lookups were asked in one way.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Acknowledged buys.
    pub(super) changes: Vec<Change>,
    /// Answered lookups.
    pub(super) seen: Vec<Seen>,
    /// Requests that were refused.
    pub(super) refused: u64,
    /// Requests that were due and not sent, as nothing was answered any more.
    pub(super) unsent: u64,
}

/// A span of the run in which lookups are asked in one way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    /// How.
    pub(super) mode: Mode,
    /// The first request is due.
    pub(super) from_ns: u64,
    /// And the last before this.
    pub(super) until_ns: u64,
}

/// Requests a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// Buys, through the first front end.
    pub(super) buys: f64,
    /// Lookups through each of the two.
    pub(super) lookups: f64,
}

/// Buys and looks up at fixed rates, whatever becomes of the requests before.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    books: &'a Books,
    rng: ChaCha8Rng,
    rates: Rates,
    lanes: Vec<Lane>,
    phase: Option<Phase>,
    paces: Vec<Pace>,
    /// Highest position acknowledged so far.
    acknowledged: u64,
    noted: Noted,
    /// What ended it, if something did.
    trouble: Option<String>,
}

impl<'a> Watch<'a> {
    /// Over so many connections of each use.
    pub(super) fn new(books: &'a Books, rng: ChaCha8Rng, rates: Rates, each: usize) -> Self {
        let lanes = (0..each * USES.len()).map(|_| Lane::default()).collect();
        Self {
            books,
            rng,
            rates,
            lanes,
            phase: None,
            paces: Vec::new(),
            acknowledged: 0,
            noted: Noted::default(),
            trouble: None,
        }
    }

    /// Asks in this way when the engine is run next. Without it, the engine runs until every connection is ready.
    pub(super) fn begin(&mut self, phase: Phase) {
        let Rates { buys, lookups } = self.rates;
        self.paces = [buys, lookups, lookups].map(|rate| Pace::new(rate, phase.from_ns)).into();
        self.phase = Some(phase);
    }

    /// What was counted since this was asked before, or what went wrong.
    pub(super) fn take(&mut self) -> Result<Noted, String> {
        self.trouble.take().map_or_else(|| Ok(std::mem::take(&mut self.noted)), Err)
    }

    fn is_ready(&self, links: &Links) -> bool {
        let has_session = |(link, lane): (usize, &Lane)| lane.session.is_some() || USES[link % USES.len()] != Use::Buy;
        links.open_count() == self.lanes.len() && self.lanes.iter().enumerate().all(has_session)
    }

    /// Sends what is due.
    fn send_due(&mut self, now_ns: u64, phase: Phase, links: &mut Links) {
        for (place, own) in USES.iter().enumerate() {
            while let Some((due_ns, number)) = self.paces[place].take_due(now_ns, phase.until_ns) {
                let link = number % (self.lanes.len() / USES.len()) * USES.len() + place;
                let is_sent = self.lanes[link].flights.len() < DEPTH
                    && match own {
                        Use::Buy => self.buy(link, links),
                        Use::LookUp(_) => self.look_up(link, due_ns, now_ns, phase.mode, links),
                    };
                self.noted.unsent += u64::from(!is_sent);
            }
        }
    }

    fn buy(&mut self, link: usize, links: &mut Links) -> bool {
        let book = self.books.pick_id(&mut self.rng);
        let lane = &mut self.lanes[link];
        let Some(session) = &mut lane.session else { return false };
        let Some(counter) = session.take_counter() else { return false };
        let identity = [session.id(), counter, session.first_incomplete()];
        let id = lane.flights.insert(Flight::Buy { counter, book });
        let command = Command::Buy { lines: Lines::truncated(vec![Line { book, copies: 1 }]) };
        frame::write_with(links.out(link), Kind::Write as u16, id, DEADLINE_MS, 0, |body| {
            codec::encode_to(&identity, body);
            codec::encode_to(&command, body);
        });
        true
    }

    fn look_up(&mut self, link: usize, due_ns: u64, asked_ns: u64, mode: Mode, links: &mut Links) -> bool {
        let book = self.books.pick_id(&mut self.rng);
        let id = self.lanes[link].flights.insert(Flight::LookUp { due_ns, asked_ns, book });
        // Whoever bought last asks: what was acknowledged to the buyers is in the answer.
        let floor = if mode == Mode::Session { self.acknowledged } else { 0 };
        let flags = if mode == Mode::Fresh { FLAG_FRESH } else { 0 };
        frame::write(links.out(link), id, DEADLINE_MS, flags, &Lookup { floor, book });
        true
    }

    fn on_answer(&mut self, now_ns: u64, link: usize, frame: &Frame<'_>) -> Result<(), String> {
        let flight = self.lanes[link].flights.take(frame.header.request_id).ok_or("an answer to nothing")?;
        let wrong = |error: codec::BodyError| error.to_string();
        match (flight, frame.kind()) {
            (Flight::Opening, Some(Kind::SessionOpened)) => {
                let SessionOpened { session } = frame.decode().map_err(wrong)?;
                self.lanes[link].session = Some(Session::new(session));
            }
            (Flight::Opening, _) => return Err("no session was opened".into()),
            (Flight::Buy { counter, book }, kind) => {
                if let Some(session) = &mut self.lanes[link].session {
                    session.finish(counter);
                }
                if kind != Some(Kind::WriteOk) {
                    self.noted.refused += 1;
                    return Ok(());
                }
                let WriteOk { seq, .. } = frame.decode().map_err(wrong)?;
                self.acknowledged = self.acknowledged.max(seq);
                self.noted.changes.push(Change { acked_ns: now_ns, seq, book });
            }
            (Flight::LookUp { due_ns, asked_ns, book }, Some(Kind::LookupOk)) => {
                let found: LookupOk = frame.decode().map_err(wrong)?;
                let look = Look { asked_ns, seq: found.seq, changed_seq: found.book.changed_seq, book };
                let (front, latency_ns) = (FRONTS[link % USES.len()], now_ns.saturating_sub(due_ns));
                self.noted.seen.push(Seen { front, look, latency_ns });
            }
            (Flight::LookUp { .. }, _) => self.noted.refused += 1,
        }
        Ok(())
    }
}

impl Task for Watch<'_> {
    fn on_open(&mut self, _: u64, link: usize, links: &mut Links) {
        if USES[link % USES.len()] == Use::Buy {
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

    /// A connection that is made again may go to the other front end, and what was in flight would be missing.
    fn on_lost(&mut self, _: u64, link: usize, why: &str, links: &mut Links) {
        self.trouble.get_or_insert_with(|| format!("{} is lost: {why}", links.address(link)));
    }

    fn on_turn(&mut self, now_ns: u64, links: &mut Links) -> Next {
        if self.trouble.is_some() {
            return Next::Done;
        }
        let Some(phase) = self.phase else {
            return if self.is_ready(links) { Next::Done } else { Next::At(now_ns + LOOK_NS) };
        };
        self.send_due(now_ns, phase, links);
        let next_ns = self.paces.iter().map(|pace| pace.next_ns as u64).min().unwrap_or(phase.until_ns);
        if next_ns < phase.until_ns {
            return Next::At(next_ns);
        }
        // Every answer is waited for: each request has a deadline.
        if self.lanes.iter().all(|lane| lane.flights.is_empty()) { Next::Done } else { Next::Frames }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_taken_once_and_not_behind_the_end() {
        let mut pace = Pace::new(1e8, 100);
        assert_eq!(pace.take_due(99, 200), None);
        assert_eq!((pace.take_due(115, 200), pace.take_due(115, 200)), (Some((100, 0)), Some((110, 1))));
        assert_eq!(pace.take_due(115, 200), None);
        assert_eq!(pace.take_due(130, 120), None);
    }
}
