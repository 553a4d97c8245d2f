//! One thread's part of a load: which request goes when on which connection, and what its answer counts as.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::BytesMut;
use pygmy_proto::frame::{self, Flow, Frame};
use pygmy_proto::header::FLAG_TRACE;
use pygmy_proto::message::{Command, OpenSession, SessionOpened, Span, Trace};
use pygmy_proto::{ErrorBody, Kind, codec};

use super::mix::{Chooser, Drawn, RequestKind};
use super::pace::Schedule;
use super::record::{Outcome, Record};
use super::series::Slicer;
use super::traces::Sample;
use crate::net::{Links, Next, Task};
use crate::session::{Flights, Session};

/// Wait where a connection's session has no room for another write.
const WINDOW_PAUSE_NS: u64 = 1_000_000;
/// Requests that are due within this much of each other leave together, in an open loop.
const TOGETHER_NS: u64 = 100_000;

/// The moments of a run, on the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first request is due.
    pub start_ns: u64,
    /// From here on it counts.
    pub from_ns: u64,
    /// Up to here.
    pub to_ns: u64,
    /// Answers are waited for up to here.
    pub drain_ns: u64,
}

impl Window {
    fn counts(&self, at_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&at_ns)
    }
}

/// A request in flight.
#[derive(Debug)]
enum Flight {
    Opening,
    Request { kind: RequestKind, due_ns: u64, counter: u64 },
}

/// What a connection is used for.
#[derive(Debug, Default)]
struct Lane {
    flights: Flights<Flight>,
    session: Option<Session>,
    /// Highest position this connection has seen: its reads may not be older.
    seen: u64,
    /// Places of its depth that wait before they are used again.
    resting: usize,
    /// Whether requests may be sent on it.
    is_ready: bool,
}

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing { until_ns: u64 },
    Running(Window),
}

/// One thread's part of a load.
#[derive(Debug)]
pub struct Worker {
    phase: Phase,
    /// When requests are due in an open loop; without it, as soon as one before is answered.
    schedule: Option<Schedule>,
    depth: usize,
    deadline_ms: u32,
    read_flags: u8,
    chooser: Chooser,
    wants_sessions: bool,
    lanes: Vec<Lane>,
    ready: usize,
    /// Whether the first requests of a closed loop were sent.
    has_begun: bool,
    /// The connection to be tried first, in an open loop.
    next_lane: usize,
    resting: BinaryHeap<Reverse<(u64, usize)>>,
    record: Record,
    slicer: Slicer,
    /// One in so many requests asks where its time goes; 0: none does.
    trace_every: u64,
    /// Requests until the next that does.
    until_trace: u64,
    last_loss: String,
}

/// What a worker is to do.
#[derive(Debug)]
pub struct Orders {
    /// When requests are due, whatever becomes of those before; without it, as soon as one before is answered.
    pub schedule: Option<Schedule>,
    /// Requests in flight on a connection, at most.
    pub depth: usize,
    /// Connections.
    pub connections: usize,
    /// Deadline of each request.
    pub deadline_ms: u32,
    /// Flags of reads.
    pub read_flags: u8,
    /// Whether connections need sessions.
    pub wants_sessions: bool,
    /// By when all connections must be ready.
    pub ready_by_ns: u64,
    /// One in so many requests asks where its time goes; 0: none does.
    pub trace_every: u64,
}

impl Worker {
    /// A worker that will draw its requests from `chooser`.
    pub fn new(orders: Orders, chooser: Chooser, record: Record, slicer: Slicer) -> Self {
        Self {
            trace_every: orders.trace_every,
            until_trace: orders.trace_every,
            slicer,
            phase: Phase::Preparing { until_ns: orders.ready_by_ns },
            schedule: orders.schedule,
            depth: orders.depth,
            deadline_ms: orders.deadline_ms,
            read_flags: orders.read_flags,
            chooser,
            wants_sessions: orders.wants_sessions,
            lanes: (0..orders.connections).map(|_| Lane::default()).collect(),
            ready: 0,
            has_begun: false,
            next_lane: 0,
            resting: BinaryHeap::new(),
            record,
            last_loss: String::new(),
        }
    }

    /// Whether every connection is ready; else why one is not.
    pub fn readiness(&self) -> Result<(), String> {
        if self.ready == self.lanes.len() {
            return Ok(());
        }
        let (ready, all) = (self.ready, self.lanes.len());
        Err(format!("{ready} of {all} connections are ready; last trouble: {}", self.last_loss))
    }

    /// Begins the load when the engine is run next.
    pub fn begin(&mut self, window: Window) {
        self.phase = Phase::Running(window);
    }

    /// What was counted, but for the slices that were handed on.
    pub fn into_record(mut self) -> Record {
        self.slicer.hand_on();
        self.record
    }

    fn set_ready(&mut self, link: usize, is_ready: bool) {
        let before = std::mem::replace(&mut self.lanes[link].is_ready, is_ready);
        self.ready = self.ready + usize::from(is_ready) - usize::from(before);
    }

    fn running(&self) -> Option<Window> {
        match self.phase {
            Phase::Preparing { .. } => None,
            Phase::Running(window) => Some(window),
        }
    }

    /// Sends one request that is due; false when the session has no room for a write.
    fn send(&mut self, now_ns: u64, due_ns: u64, link: usize, links: &mut Links) -> bool {
        let deadline_ms = self.deadline_ms;
        let trace = self.trace_flag();
        let lane = &mut self.lanes[link];
        let out = links.out(link);
        let read_flags = self.read_flags | trace;
        let flight = |kind, counter| Flight::Request { kind, due_ns, counter };
        match self.chooser.draw(lane.seen) {
            Drawn::Lookup(lookup) => {
                let id = lane.flights.insert(flight(RequestKind::Lookup, 0));
                frame::write(out, id, deadline_ms, read_flags, &lookup);
            }
            Drawn::Search(search) => {
                let id = lane.flights.insert(flight(RequestKind::Search, 0));
                frame::write(out, id, deadline_ms, read_flags, &search);
            }
            Drawn::Write(kind, command) => {
                let Some(session) = &mut lane.session else { return false };
                let Some(counter) = session.take_counter() else { return false };
                let id = lane.flights.insert(flight(kind, counter));
                put_write(out, Envelope { id, deadline_ms, flags: trace }, session, counter, &command);
            }
        }
        if self.running().is_some_and(|window| window.counts(due_ns)) {
            self.record.add_sent(now_ns.saturating_sub(due_ns));
        }
        true
    }

    /// The flag of the next request that is sent: set when it is its turn to ask for a trace.
    fn trace_flag(&mut self) -> u8 {
        match self.until_trace {
            0 => 0,
            1 => {
                self.until_trace = self.trace_every;
                FLAG_TRACE
            }
            _ => {
                self.until_trace -= 1;
                0
            }
        }
    }

    /// In a closed loop: fills a connection up to its depth.
    fn fill(&mut self, now_ns: u64, link: usize, links: &mut Links) {
        let Some(window) = self.running().filter(|window| now_ns < window.to_ns) else { return };
        if self.schedule.is_some() || now_ns < window.start_ns || !self.lanes[link].is_ready {
            return;
        }
        while self.lanes[link].flights.len() + self.lanes[link].resting < self.depth {
            if !self.send(now_ns, now_ns, link, links) {
                return self.rest(now_ns + WINDOW_PAUSE_NS, link);
            }
        }
    }

    /// Lets one place of a connection's depth wait: a server that says "busy" must not be asked again at once.
    fn rest(&mut self, until_ns: u64, link: usize) {
        self.lanes[link].resting += 1;
        self.resting.push(Reverse((until_ns, link)));
    }

    fn wake(&mut self, now_ns: u64, links: &mut Links) {
        while let Some(Reverse((until_ns, link))) = self.resting.peek().copied()
            && until_ns <= now_ns
        {
            self.resting.pop();
            self.lanes[link].resting -= 1;
            self.fill(now_ns, link, links);
        }
    }

    /// In an open loop: sends what is due while connections have room; when the next one is due. What leaves together
    /// shares a connection, and so a call of the system at either end.
    fn keep_pace(&mut self, now_ns: u64, window: Window, links: &mut Links) -> Option<u64> {
        self.turn_lane();
        loop {
            let schedule = self.schedule.as_ref()?;
            let due_ns = window.start_ns + schedule.due_ns();
            if due_ns >= window.to_ns {
                return None;
            }
            if due_ns > now_ns {
                // At a high rate, a wake-up for every request would take a processor from the servers, and show what
                // they do with the rest. What is late by this is told, and counts as theirs.
                let together_ns = if schedule.interval_ns() < TOGETHER_NS as f64 { now_ns + TOGETHER_NS } else { 0 };
                return Some(due_ns.max(together_ns));
            }
            if !self.send_anywhere(now_ns, due_ns, links) {
                // The next answer makes room; a session's full window, at the latest the next pause.
                return Some(now_ns + WINDOW_PAUSE_NS);
            }
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
        }
    }

    /// Sends a request that is due on the first connection with room, from the next one on.
    fn send_anywhere(&mut self, now_ns: u64, due_ns: u64, links: &mut Links) -> bool {
        for _ in 0..self.lanes.len() {
            let link = self.next_lane;
            let lane = &self.lanes[link];
            if lane.is_ready && lane.flights.len() < self.depth && self.send(now_ns, due_ns, link, links) {
                return true;
            }
            self.turn_lane();
        }
        false
    }

    /// What is sent next goes over the next connection.
    fn turn_lane(&mut self) {
        self.next_lane = (self.next_lane + 1) % self.lanes.len();
    }

    /// Counts the end of a request.
    fn count(&mut self, now_ns: u64, flight: Flight, link: usize, outcome: Outcome) {
        let Flight::Request { kind, due_ns, counter } = flight else { return };
        if let Some(session) = self.lanes[link].session.as_mut().filter(|_| kind.is_write()) {
            session.finish(counter);
        }
        let Some(window) = self.running() else { return };
        if outcome != Outcome::Lost && window.counts(now_ns) {
            self.record.answered += 1;
            self.record.done += u64::from(outcome == Outcome::Ok);
        }
        if window.counts(due_ns) {
            let since_window_ns = now_ns.saturating_sub(window.from_ns);
            self.slicer.add(since_window_ns, (kind, outcome), now_ns.saturating_sub(due_ns));
        }
    }

    /// Notes where the time of a request went that was done.
    fn note_trace(&mut self, now_ns: u64, flight: &Flight, spans: &[Span]) {
        if let Flight::Request { kind, due_ns, .. } = flight
            && self.running().is_some_and(|window| window.counts(*due_ns))
        {
            self.record.traces.add(Sample::new(*kind, now_ns.saturating_sub(*due_ns), spans));
        }
    }

    /// An answer to a request that is in flight.
    fn on_answer(&mut self, now_ns: u64, link: usize, flight: Flight, frame: &Frame<'_>, links: &mut Links) {
        match (frame.kind(), &flight) {
            (Some(Kind::Error), _) => {
                let error = frame.decode::<ErrorBody>();
                let (code, pause_ms) = error.as_ref().map_or((0, 0), |error| (error.code, error.retry_after_ms));
                if matches!(flight, Flight::Opening) {
                    let why = error.map_or_else(|error| error.to_string(), |error| error.to_string());
                    return links.lose(link, &format!("no session: {why}"));
                }
                self.count(now_ns, flight, link, Outcome::of_error(code));
                if pause_ms > 0 && self.schedule.is_none() {
                    self.rest(now_ns + u64::from(pause_ms) * 1_000_000, link);
                }
            }
            (Some(Kind::SessionOpened), Flight::Opening) => match frame.decode::<SessionOpened>() {
                Ok(opened) => {
                    self.lanes[link].session = Some(Session::new(opened.session));
                    self.set_ready(link, true);
                }
                Err(error) => return links.lose(link, &error.to_string()),
            },
            (Some(kind), Flight::Request { kind: asked, .. }) if answers(*asked, kind) => {
                let mut body = frame.body;
                if frame.header.flags & FLAG_TRACE != 0 {
                    match codec::decode_prefix::<Trace>(body) {
                        Ok((spans, len)) => {
                            self.note_trace(now_ns, &flight, &spans);
                            body = &body[len..];
                        }
                        Err(error) => return links.lose(link, &format!("a trace: {error}")),
                    }
                }
                // The position comes first in every one of these answers.
                if let Some((seq, _)) = body.split_first_chunk::<8>() {
                    let lane = &mut self.lanes[link];
                    lane.seen = lane.seen.max(u64::from_le_bytes(*seq));
                }
                self.count(now_ns, flight, link, Outcome::Ok);
            }
            _ => return links.lose(link, &format!("kind {:#06x} answers something else", frame.header.kind)),
        }
        self.fill(now_ns, link, links);
    }

    fn in_flight(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.flights.is_empty())
    }

    /// Counts what the end of the run leaves unanswered or unsent.
    fn close(&mut self, now_ns: u64, window: Window) {
        for link in 0..self.lanes.len() {
            for flight in self.lanes[link].flights.drain() {
                self.count(now_ns, flight, link, Outcome::Lost);
            }
        }
        let Some(schedule) = &mut self.schedule else { return };
        let since_start = |at_ns: u64| at_ns - window.start_ns;
        self.record.unsent = schedule.skip_to(since_start(window.from_ns), since_start(window.to_ns));
        self.record.due += self.record.unsent;
    }
}

/// Header fields of a request.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    id: u64,
    deadline_ms: u32,
    flags: u8,
}

/// Appends a write: its identity, then the command, without a copy of it.
fn put_write(out: &mut BytesMut, envelope: Envelope, session: &Session, counter: u64, command: &Command) {
    let Envelope { id, deadline_ms, flags } = envelope;
    frame::write_with(out, Kind::Write as u16, id, deadline_ms, flags, |body| {
        codec::encode_to(&[session.id(), counter, session.first_incomplete()], body);
        codec::encode_to(command, body);
    });
}

fn answers(asked: RequestKind, kind: Kind) -> bool {
    kind == match asked {
        RequestKind::Lookup => Kind::LookupOk,
        RequestKind::Search => Kind::SearchOk,
        RequestKind::Buy | RequestKind::Cart | RequestKind::Restock => Kind::WriteOk,
    }
}

impl Task for Worker {
    fn on_open(&mut self, now_ns: u64, link: usize, links: &mut Links) {
        if self.wants_sessions && self.lanes[link].session.is_none() {
            let id = self.lanes[link].flights.insert(Flight::Opening);
            return frame::write(links.out(link), id, self.deadline_ms, 0, &OpenSession {});
        }
        self.set_ready(link, true);
        self.fill(now_ns, link, links);
    }

    fn on_frame(&mut self, now_ns: u64, link: usize, frame: &Frame<'_>, links: &mut Links) -> Flow {
        match self.lanes[link].flights.take(frame.header.request_id) {
            Some(flight) => self.on_answer(now_ns, link, flight, frame, links),
            None => {
                let text = frame.decode::<ErrorBody>().map_or_else(|_| String::new(), |error| error.to_string());
                links.lose(link, &format!("request id {} was not asked: {text}", frame.header.request_id));
            }
        }
        if links.is_open(link) { Flow::Continue } else { Flow::Stop }
    }

    fn on_lost(&mut self, now_ns: u64, link: usize, why: &str, _: &mut Links) {
        self.last_loss = why.to_string();
        self.set_ready(link, false);
        for flight in self.lanes[link].flights.drain() {
            self.count(now_ns, flight, link, Outcome::Lost);
        }
    }

    fn on_turn(&mut self, now_ns: u64, links: &mut Links) -> Next {
        let window = match self.phase {
            Phase::Preparing { until_ns } => {
                let is_over = self.ready == self.lanes.len() || now_ns >= until_ns;
                return if is_over { Next::Done } else { Next::At(until_ns) };
            }
            Phase::Running(window) => window,
        };
        if now_ns < window.start_ns {
            return Next::At(window.start_ns);
        }
        if self.schedule.is_none() && !self.has_begun {
            self.has_begun = true;
            (0..self.lanes.len()).for_each(|link| self.fill(now_ns, link, links));
        }
        self.wake(now_ns, links);
        let due_ns = self.keep_pace(now_ns, window, links);
        self.slicer.go_to(now_ns.saturating_sub(window.from_ns));
        if now_ns >= window.drain_ns || (now_ns >= window.to_ns && !self.in_flight()) {
            self.close(now_ns, window);
            return Next::Done;
        }
        let rested_ns = self.resting.peek().map(|Reverse((until_ns, _))| *until_ns);
        let end_ns = if now_ns < window.to_ns { window.to_ns } else { window.drain_ns };
        Next::At([due_ns, rested_ns].into_iter().flatten().fold(end_ns, u64::min))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use pygmy_proto::BookId;
    use pygmy_proto::message::Book;
    use pygmy_proto::types::{title, topic};

    use super::*;
    use crate::load::mix::{Books, Popularity};
    use crate::load::pace::Arrivals;

    fn worker(schedule: Option<Schedule>, trace_every: u64) -> Worker {
        let id = BookId::new("a").unwrap();
        let (title, topic) = (title("A title").unwrap(), topic("a topic").unwrap());
        let book = Book { id, title, topic, cost_cents: 1, stock: 1, changed_seq: 1 };
        let books = Arc::new(Books::new(&[book], &Popularity::Uniform, 1).unwrap());
        let orders = Orders {
            schedule,
            depth: 1,
            connections: 1,
            deadline_ms: 0,
            read_flags: 0,
            wants_sessions: false,
            ready_by_ns: 0,
            trace_every,
        };
        let chooser = Chooser::new("lookup=1".parse().unwrap(), books, 1);
        Worker::new(orders, chooser, Record::new().unwrap(), Slicer::new(channel().0).unwrap())
    }

    #[test]
    fn one_in_so_many_requests_asks_for_a_trace() {
        let flags = |every, count| {
            let mut worker = worker(None, every);
            (0..count).map(|_| worker.trace_flag()).collect::<Vec<_>>()
        };
        assert_eq!(flags(3, 7), [0, 0, FLAG_TRACE, 0, 0, FLAG_TRACE, 0]);
        assert_eq!(flags(1, 2), [FLAG_TRACE; 2]);
        assert_eq!(flags(0, 3), [0; 3]);
    }

    #[test]
    fn what_was_due_in_the_window_and_never_left_is_counted_and_nothing_else() {
        let second = 1_000_000_000;
        let window = Window { start_ns: 7, from_ns: 7 + second, to_ns: 7 + 3 * second, drain_ns: 7 + 4 * second };
        for arrivals in [Arrivals::Fixed, Arrivals::Poisson] {
            let schedule = Schedule::new(arrivals, 1_000.0, 0, 1, 5);
            let mut moments = schedule.clone();
            moments.skip_to(0, second);
            let expected = moments.skip_to(second, 3 * second);
            let mut worker = worker(Some(schedule), 0);
            worker.begin(window);
            worker.close(window.drain_ns, window);
            assert_eq!((worker.record.unsent, worker.record.due), (expected, expected), "{arrivals:?}");
            assert!((1_900..2_100).contains(&expected), "{expected}");
        }
    }
}
