//! A simulated client: one session, several requests open at once, a connection to every front, and the habits of
//! impatient and careless callers: it resends elsewhere, resends what was answered, and uses an id twice.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use pygmy_proto::frame::{self, Deframer, Flow, Frame};
use pygmy_proto::header::{FLAG_FRESH, FLAG_NO_CACHE};
use pygmy_proto::limits::{CLIENT_BODY_MAX, VERSION};
use pygmy_proto::message::{Hello, OpenSession, Role, Write};
use pygmy_proto::types::{Blob, Name};
use pygmy_proto::{ErrorBody, ErrorCode, Kind, Retry, codec};

use crate::chance::Chance;
use crate::check::{Asked, Checker, Violation};
use crate::mistake::Mistake;
use crate::plan::{MS, Plan};
use crate::rare::Rare;
use crate::reads::Read;
use crate::workload::Workload;

/// What a client wants done.
#[derive(Debug)]
pub enum Act {
    /// Connect to a front.
    Connect {
        /// Its index.
        front: usize,
    },
    /// Send bytes.
    Send {
        /// On this connection.
        conn: usize,
        /// These.
        bytes: Bytes,
    },
    /// Close a connection.
    Close {
        /// This one.
        conn: usize,
    },
}

/// What a request asks.
#[derive(Debug, Clone)]
enum What {
    Open,
    Write { counter: u64, payload: Bytes, intent: u64 },
    Read { read: Read, fresh: bool },
}

/// Why a request is made again after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// It is the first time.
    None,
    /// The same again: the same answer must come.
    Same,
    /// The same id with another payload: it must be refused.
    OtherPayload,
    /// The same again after it was let go: refused, or the same answer.
    Released,
}

/// A request that is not done.
#[derive(Debug)]
struct Op {
    what: What,
    probe: Probe,
    /// It waits for an answer; else it waits to be sent.
    sent: bool,
    /// When to give up waiting, or to send.
    due: u64,
    tries: u32,
}

/// A request that was sent on a connection; its answer is checked even when nobody waits for it any more.
#[derive(Debug)]
struct Attempt {
    op: u64,
    what: What,
    probe: Probe,
    /// Lowest position a read may be answered at; for a session, the highest answered before it was asked for.
    floor: u64,
}

#[derive(Debug)]
enum State {
    Down { retry_at: u64 },
    Dialing,
    Up { conn: usize, boot: u64, ready: bool, deframer: Deframer, attempts: BTreeMap<u64, Attempt> },
}

/// A client.
#[derive(Debug)]
pub struct Client {
    index: usize,
    fronts: Vec<State>,
    preferred: usize,
    session: Option<u64>,
    /// Highest position that this session has seen.
    seen: u64,
    counter: u64,
    /// Highest first incomplete counter that was ever sent.
    declared: u64,
    ops: BTreeMap<u64, Op>,
    next_op: u64,
    next_request: u64,
    to_issue: u64,
    next_at: u64,
    /// When its timer is planned.
    pub wakes_at: Option<u64>,
    acts: Vec<Act>,
}

/// A rush is over after this.
const RUSH: u64 = 40 * MS;
const INITIAL_INTENT: u64 = 0;

/// What a client is lent for a step.
#[derive(Debug)]
pub struct Lent<'a> {
    /// The time.
    pub at: u64,
    /// The seed's plan.
    pub plan: &'a Plan,
    /// The faults are over: no more mischief.
    pub calm: bool,
    /// Randomness.
    pub chance: &'a mut Chance,
    /// The checkers.
    pub checker: &'a mut Checker,
    /// Counts.
    pub rare: &'a mut Rare,
    /// What is asked for.
    pub workload: &'a Workload,
    /// A mistake to make.
    pub mistake: Option<Mistake>,
}

impl Client {
    /// A client of so many fronts. The first one fills the store.
    pub fn new(index: usize, plan: &Plan) -> Self {
        let mut client = Self {
            index,
            fronts: (0..plan.fronts).map(|_| State::Down { retry_at: 0 }).collect(),
            preferred: index % usize::from(plan.fronts),
            session: None,
            seen: 0,
            counter: 0,
            declared: 0,
            ops: BTreeMap::new(),
            next_op: 0,
            next_request: 0,
            to_issue: plan.ops,
            next_at: 0,
            wakes_at: None,
            acts: Vec::new(),
        };
        client.add_op(What::Open, 0);
        client
    }

    /// Whether it has asked everything that it wanted to ask.
    pub fn has_issued_all(&self) -> bool {
        self.to_issue == 0 && self.session.is_some()
    }
    /// Whether every request was answered.
    pub fn is_done(&self) -> bool {
        self.has_issued_all() && self.ops.is_empty()
    }
    /// It asks nothing new any more.
    pub fn stop_asking(&mut self) {
        self.to_issue = 0;
    }
    /// What it waits for.
    pub fn pending(&self) -> String {
        let ops: Vec<String> = self.ops.values().map(|op| format!("{:?} ({} tries)", op.what, op.tries)).collect();
        format!("client-{} waits for {}", self.index, ops.join(", "))
    }
    /// What it wants done.
    pub fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    fn add_op(&mut self, what: What, due: u64) {
        self.next_op += 1;
        self.ops.insert(self.next_op, Op { what, probe: Probe::None, sent: false, due, tries: 0 });
    }

    /// When it wants to be woken.
    pub fn next_timeout(&self) -> Option<u64> {
        let ops = self.ops.values().map(|op| op.due);
        let links = self.fronts.iter().filter_map(|state| match state {
            State::Down { retry_at } if !self.ops.is_empty() => Some(*retry_at),
            _ => None,
        });
        let issue = (self.to_issue > 0 && self.session.is_some()).then_some(self.next_at);
        ops.chain(links).chain(issue).min()
    }

    /// A connection to a front stands, or the attempt failed.
    pub fn on_connected(&mut self, at: u64, front: usize, conn: Option<(usize, u64)>) {
        let Some((conn, boot)) = conn else {
            self.fronts[front] = State::Down { retry_at: at + 30 * MS };
            return;
        };
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            role: Role::Client,
            cluster: [0; 16],
            settings: 0,
            credentials: Blob::default(),
            name: Name::truncated(&format!("client-{}", self.index)),
            replica: None,
        };
        let deframer = Deframer::new(CLIENT_BODY_MAX);
        self.fronts[front] = State::Up { conn, boot, ready: false, deframer, attempts: BTreeMap::new() };
        self.acts.push(Act::Send { conn, bytes: frame::to_bytes(1, 0, 0, &hello) });
    }

    fn front_of(&self, wanted: usize) -> Option<usize> {
        self.fronts.iter().position(|state| matches!(state, State::Up { conn, .. } if *conn == wanted))
    }

    /// A connection is gone: what was under way on it is asked again, elsewhere if there is another front.
    pub fn on_gone(&mut self, lent: &mut Lent<'_>, conn: usize) {
        let Some(front) = self.front_of(conn) else { return };
        let old = std::mem::replace(&mut self.fronts[front], State::Down { retry_at: lent.at + 20 * MS });
        self.fail_over(front, lent.rare);
        if let State::Up { attempts, .. } = old {
            for attempt in attempts.into_values() {
                self.send_again(attempt.op, lent.at + lent.chance.below(10 * MS));
            }
        }
    }

    fn fail_over(&mut self, from: usize, rare: &mut Rare) {
        if self.preferred == from && self.fronts.len() > 1 {
            self.preferred = (from + 1) % self.fronts.len();
            rare.client_failovers += 1;
        }
    }

    fn send_again(&mut self, op: u64, due: u64) {
        if let Some(op) = self.ops.get_mut(&op) {
            op.sent = false;
            op.due = due;
        }
    }

    /// Does what is due.
    pub fn on_time(&mut self, lent: &mut Lent<'_>) {
        self.dial(lent.at);
        self.issue(lent);
        let due: Vec<u64> = self.ops.iter().filter(|(_, op)| op.due <= lent.at).map(|(id, _)| *id).collect();
        for id in due {
            self.on_due(lent, id);
        }
    }

    fn dial(&mut self, at: u64) {
        for (front, state) in self.fronts.iter_mut().enumerate() {
            if matches!(state, State::Down { retry_at } if *retry_at <= at) {
                *state = State::Dialing;
                self.acts.push(Act::Connect { front });
            }
        }
    }

    /// Thinks of new requests.
    fn issue(&mut self, lent: &mut Lent<'_>) {
        if self.session.is_none() || self.to_issue == 0 || lent.at < self.next_at {
            return;
        }
        self.next_at = lent.at + lent.chance.around(lent.plan.think);
        if self.ops.len() as u64 >= lent.plan.pipeline {
            return;
        }
        self.to_issue -= 1;
        self.rush(lent);
        if lent.chance.permille(lent.plan.habits.reads_permille) {
            let read = lent.workload.read(self.seen, lent.chance);
            let permille = lent.plan.fresh_permille;
            let fresh = permille > 0 && lent.chance.permille(permille);
            self.add_op(What::Read { read, fresh }, lent.at);
        } else {
            let initial = self.index == 0 && self.counter == 0;
            let churn = lent.plan.habits.churn_permille;
            let command =
                if initial { lent.workload.initial(lent.chance) } else { lent.workload.write(churn, lent.chance) };
            self.counter += 1;
            let intent = if initial { INITIAL_INTENT } else { lent.chance.word() };
            self.add_op(What::Write { counter: self.counter, payload: codec::encode(&command), intent }, lent.at);
        }
    }

    /// Looks for hot books several times within a moment.
    fn rush(&mut self, lent: &mut Lent<'_>) {
        let rush = lent.plan.habits.rush_permille;
        if rush == 0 || !lent.chance.permille(rush) {
            return;
        }
        for _ in 0..lent.chance.between(2, 10) {
            let read = lent.workload.hot(lent.chance);
            let at = lent.at + lent.chance.below(RUSH);
            self.add_op(What::Read { read, fresh: false }, at);
        }
    }

    /// A request is to be sent, or was not answered in time.
    fn on_due(&mut self, lent: &mut Lent<'_>, id: u64) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        if op.sent {
            lent.rare.client_timeouts += 1;
            self.give_up_waiting(lent, id);
        }
        let count = self.fronts.len();
        let habits = &lent.plan.habits;
        if count > 1 && habits.roam_permille > 0 && lent.chance.permille(habits.roam_permille) {
            self.preferred = lent.chance.below(count as u64) as usize;
            lent.rare.roams += 1;
        }
        let start = self.preferred;
        let ready = |index: &usize| matches!(self.fronts[*index], State::Up { ready: true, .. });
        let front = (0..count).map(|step| (start + step) % count).find(ready);
        match front {
            Some(front) => self.send(lent, id, front),
            None => self.send_again(id, lent.at + 10 * MS),
        }
    }

    fn give_up_waiting(&mut self, lent: &mut Lent<'_>, id: u64) {
        self.fail_over(self.preferred, lent.rare);
        self.unknown(lent, id);
    }

    /// The outcome of a request is not known: it is asked again with the same id, unless a mistake is to be made.
    fn unknown(&mut self, lent: &Lent<'_>, id: u64) {
        if lent.mistake == Some(Mistake::RetryUnderNewId)
            && let Some(Op { what: What::Write { counter, .. }, probe: Probe::None, .. }) = self.ops.get_mut(&id)
        {
            self.counter += 1;
            *counter = self.counter;
        }
    }

    /// Lowest counter whose answer is still wanted.
    fn first_incomplete(&self) -> u64 {
        let open = self.ops.values().filter(|op| op.probe != Probe::Released).filter_map(|op| match op.what {
            What::Write { counter, .. } => Some(counter),
            _ => None,
        });
        open.min().unwrap_or(self.counter + 1)
    }

    fn send(&mut self, lent: &mut Lent<'_>, id: u64, front: usize) {
        let first_incomplete = self.first_incomplete();
        let Some(op) = self.ops.get_mut(&id) else { return };
        let State::Up { conn, boot, attempts, .. } = &mut self.fronts[front] else { return };
        self.next_request += 1;
        let request = self.next_request;
        let deadline_ms = deadline(lent, op.tries);
        op.tries += 1;
        op.sent = true;
        let patience =
            if !lent.calm && lent.chance.permille(60) { lent.chance.between(1, 30) } else { deadline_ms + 60 };
        op.due = lent.at + patience * MS;
        let (mut floor, mut flags) = (lent.checker.acknowledged(), 0);
        let (kind, body) = match &op.what {
            What::Open => (Kind::OpenSession, codec::encode(&OpenSession {})),
            What::Write { counter, payload, intent } => {
                let session = self.session.unwrap_or(0);
                lent.checker.on_asked((session, *counter), *intent);
                self.declared = self.declared.max(first_incomplete);
                (Kind::Write, write_body(session, *counter, first_incomplete, payload))
            }
            What::Read { read, fresh } => {
                let least = if *fresh { lent.checker.answered() } else { lent.checker.floor_of_front(*boot) };
                floor = self.seen.max(least);
                flags = if *fresh { FLAG_FRESH } else { 0 };
                let no_cache = lent.plan.habits.no_cache_permille;
                if no_cache > 0 && lent.chance.permille(no_cache) {
                    flags |= FLAG_NO_CACHE;
                }
                read.encode(self.seen)
            }
        };
        let mut bytes = BytesMut::new();
        frame::write_raw(&mut bytes, kind as u16, request, deadline_ms as u32, flags, &body);
        self.acts.push(Act::Send { conn: *conn, bytes: bytes.freeze() });
        attempts.insert(request, Attempt { op: id, what: op.what.clone(), probe: op.probe, floor });
    }

    /// Bytes came from a front.
    ///
    /// # Errors
    /// What the checkers find.
    pub fn on_bytes(&mut self, lent: &mut Lent<'_>, conn: usize, bytes: &[u8]) -> Result<(), Violation> {
        let Some(front) = self.front_of(conn) else { return Ok(()) };
        let State::Up { deframer, .. } = &mut self.fronts[front] else { return Ok(()) };
        let mut deframer = std::mem::replace(deframer, Deframer::new(0));
        let mut result = Ok(());
        let stream = deframer.feed(bytes, |_, frame| {
            result = self.on_frame(lent, front, &frame);
            if result.is_ok() { Flow::Continue } else { Flow::Stop }
        });
        if let State::Up { deframer: place, .. } = &mut self.fronts[front] {
            *place = deframer;
        }
        result?;
        stream.map_err(|error| Violation { invariant: "framing", detail: format!("client-{}: {error}", self.index) })
    }

    fn on_frame(&mut self, lent: &mut Lent<'_>, front: usize, frame: &Frame<'_>) -> Result<(), Violation> {
        let State::Up { conn, boot, ready, attempts, .. } = &mut self.fronts[front] else { return Ok(()) };
        if !*ready {
            if frame.kind() != Some(Kind::HelloOk) {
                let detail = format!("client-{} was answered {:?} to its Hello", self.index, frame.kind());
                return Err(Violation { invariant: "handshake", detail });
            }
            *ready = true;
            return Ok(());
        }
        let (conn, boot) = (*conn, *boot);
        let Some(attempt) = attempts.remove(&frame.header.request_id) else {
            if frame.header.request_id == 0 {
                self.acts.push(Act::Close { conn });
                return Ok(());
            }
            let detail = format!("client-{}: request {} was answered twice", self.index, frame.header.request_id);
            return Err(Violation { invariant: "I3", detail });
        };
        match self.retryable(lent, frame) {
            Some((after, settle)) => self.on_retryable(lent, &attempt, after, settle),
            None => self.on_answer(lent, boot, attempt, frame)?,
        }
        Ok(())
    }

    /// For an answer that is not final: when to ask again, and whether the outcome is unknown.
    fn retryable(&self, lent: &mut Lent<'_>, frame: &Frame<'_>) -> Option<(u64, bool)> {
        let error: ErrorBody = (frame.kind() == Some(Kind::Error)).then(|| frame.decode().ok()).flatten()?;
        match error.known_code() {
            Some(ErrorCode::Busy | ErrorCode::Unavailable) => lent.rare.busy += 1,
            Some(ErrorCode::OutcomeUnknown) => lent.rare.outcome_unknown += 1,
            Some(ErrorCode::ShuttingDown) => lent.rare.shutting_down += 1,
            Some(ErrorCode::DeadlineExceeded) => lent.rare.late_reads += 1,
            _ => {}
        }
        match error.retry {
            Retry::Never => None,
            Retry::Later => Some((lent.at + u64::from(error.retry_after_ms) * MS, false)),
            Retry::Elsewhere => Some((lent.at, false)),
            Retry::Settle => Some((lent.at + 5 * MS, true)),
        }
    }

    fn on_retryable(&mut self, lent: &mut Lent<'_>, attempt: &Attempt, after: u64, settle: bool) {
        self.fail_over(self.preferred, lent.rare);
        if settle {
            self.unknown(lent, attempt.op);
        } else if self.abandons(lent, attempt.op) {
            return;
        }
        self.send_again(attempt.op, after);
    }

    /// Gives up a write that was sent once and handed back: nothing was done, and nothing may be done later.
    fn abandons(&mut self, lent: &mut Lent<'_>, id: u64) -> bool {
        let Some(Op { what: What::Write { counter, intent, .. }, probe: Probe::None, tries: 1, sent: true, .. }) =
            self.ops.get(&id)
        else {
            return false;
        };
        if *intent == INITIAL_INTENT || !lent.chance.permille(300) {
            return false;
        }
        lent.checker.on_abandoned((self.session.unwrap_or(0), *counter));
        lent.rare.abandoned += 1;
        self.ops.remove(&id);
        true
    }

    fn on_answer(
        &mut self,
        lent: &mut Lent<'_>,
        boot: u64,
        attempt: Attempt,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let (kind, body) = (frame.header.kind, frame.body);
        lent.rare.count_answer(frame);
        match &attempt.what {
            What::Open => {
                let session = lent.checker.on_session(self.index, attempt.floor, body)?;
                if self.session.is_none() {
                    self.session = Some(session);
                }
                self.ops.remove(&attempt.op);
            }
            What::Read { read, fresh } => {
                let seq = lent.checker.on_read(read, attempt.floor, kind, body)?;
                lent.rare.fresh_reads += u64::from(*fresh);
                self.seen = self.seen.max(seq);
                self.ops.remove(&attempt.op);
            }
            What::Write { counter, payload, intent } => {
                let id = (self.session.unwrap_or(0), *counter);
                let asked = Asked { id, payload: payload.clone(), released_below: self.declared };
                lent.checker.on_write(boot, &asked, kind, body)?;
                if kind == Kind::WriteOk as u16 {
                    let seq = lent.checker.model().executed(id).map_or(0, |executed| executed.seq);
                    self.seen = self.seen.max(seq);
                }
                self.check_probe(&attempt, frame)?;
                self.on_written(lent, &attempt, *counter, payload.clone(), *intent);
            }
        }
        Ok(())
    }

    /// A used id with another payload is refused.
    fn check_probe(&self, attempt: &Attempt, frame: &Frame<'_>) -> Result<(), Violation> {
        if attempt.probe != Probe::OtherPayload {
            return Ok(());
        }
        let code = frame.decode::<ErrorBody>().ok().and_then(|error| error.known_code());
        // The id may have been let go while this late attempt was under way.
        if matches!(code, Some(ErrorCode::IdReused | ErrorCode::SessionExpired)) {
            return Ok(());
        }
        let detail = format!("client-{} used an id twice and was answered {:?}", self.index, frame.kind());
        Err(Violation { invariant: "I3", detail })
    }

    /// A write was answered: it is done, or asked again to see what comes.
    fn on_written(&mut self, lent: &mut Lent<'_>, attempt: &Attempt, counter: u64, payload: Bytes, intent: u64) {
        let Some(op) = self.ops.get_mut(&attempt.op) else { return };
        if op.probe != attempt.probe {
            // The answer to an earlier attempt of what is being probed by now.
            return;
        }
        let again = if lent.calm || op.probe != Probe::None { 1_000 } else { lent.chance.below(1_000) };
        let (probe, payload) = match again {
            0..120 => (Probe::Same, payload),
            120..200 => (Probe::OtherPayload, codec::encode(&lent.workload.write(0, lent.chance))),
            200..240 => (Probe::Released, payload),
            _ => {
                self.ops.remove(&attempt.op);
                return;
            }
        };
        if let What::Write { payload: old, .. } = &op.what
            && probe == Probe::OtherPayload
            && *old == payload
        {
            self.ops.remove(&attempt.op);
            return;
        }
        match probe {
            Probe::Same => lent.rare.resent_after_answer += 1,
            Probe::OtherPayload => lent.rare.ids_reused += 1,
            _ => {}
        }
        op.what = What::Write { counter, payload, intent };
        op.probe = probe;
        self.send_again(attempt.op, lent.at + lent.chance.below(5 * MS));
        self.fail_over(self.preferred, lent.rare);
    }
}

fn deadline(lent: &mut Lent<'_>, tries: u32) -> u64 {
    if !lent.calm && tries < 3 && lent.chance.permille(80) {
        lent.chance.between(1, 40)
    } else {
        lent.chance.between(300, 1_000)
    }
}

fn write_body(session: u64, counter: u64, first_incomplete: u64, payload: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(24 + payload.len());
    for word in [session, counter, first_incomplete] {
        body.extend_from_slice(&word.to_le_bytes());
    }
    body.extend_from_slice(payload);
    debug_assert!(codec::decode::<Write>(&body).is_ok(), "the body of a Write");
    body.freeze()
}
