//! The client as a state machine: no sockets, no clock, no threads, no randomness.
//!
//! Whoever drives an [`Engine`] tells it the time and what happened ([`Engine::submit`], [`Engine::on_connected`],
//! [`Engine::on_bytes`], [`Engine::on_disconnected`], [`Engine::on_timeout`]) and does what it wants:
//! [`Engine::poll_action`], [`Engine::output`], [`Engine::poll_completion`], [`Engine::next_timeout`].
//! Equal inputs give equal outputs, so that a simulator can replay them.
//!
//! The engine owns everything that makes a call safe to repeat: the session and its counters, which requests are in
//! flight, deadlines, and the change to another front end.
//!
//! * A write bears the same (session, counter) however often and to whichever front end it is sent.
//! * A write that may have reached a server and has no answer by its deadline is
//!   [`OutcomeUnknown`](crate::Error::OutcomeUnknown), never a failure.
//! * What was in flight on a connection that is lost is sent again on the next one, to another front end, at once. One that
//!   hangs is found out by the engine itself: with answers outstanding it is asked by `Ping` and then left.
//! * Every call ends at its deadline at the latest.

mod answers;
mod link;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf, BytesMut};
use pygmy_proto::frame::Deframer;
use pygmy_proto::limits::{CLIENT_BODY_MAX, DEADLINE_MS_MAX, REQUESTS_IN_FLIGHT_MAX};
use pygmy_proto::message::{HelloOk, Span};
use pygmy_proto::types::Name;
use pygmy_proto::{ErrorBody, ErrorCode};

pub use session::Session;

use crate::error::{Cause, Causes, Error};
use crate::request::{Asks, Completion, Envelope, Reply, Request, WriteId, put_write};
use link::Link;

/// Milliseconds as nanoseconds.
pub(crate) const fn ms(milliseconds: u64) -> u64 {
    milliseconds * 1_000_000
}

/// Unsent output above which no further request is added; what waits can still be given up without having been sent.
const OUTPUT_HIGH: usize = 1024 * 1024;
/// Longest wait between two tries of a request that is told "later".
const RETRY_NS_MAX: u64 = ms(250);
/// A server gets this much less time than the caller has, so that its own, better informed, error comes in time.
const DEADLINE_MARGIN_NS: u64 = ms(50);

/// What an engine must be told once.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses of the front ends, in the order in which they are tried. The engine only names them.
    pub fronts: Vec<String>,
    /// The cluster that is meant; all zero takes any.
    pub cluster: [u8; 16],
    /// Name of the program, for the servers' logs.
    pub name: Name,
    /// Requests in flight at the most; a server may allow fewer.
    pub in_flight_max: usize,
    /// After this many fruitless tries of every address, calls end before their deadline. `None`: never.
    pub connect_rounds: Option<u32>,
}

impl Options {
    /// Options for these front ends, with the rest as usual.
    pub fn new(fronts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            fronts: fronts.into_iter().map(Into::into).collect(),
            cluster: [0; 16],
            name: Name::truncated("pygmy-client"),
            in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            connect_rounds: None,
        }
    }
}

/// One call. Tokens rise with every [`Engine::submit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the engine wants done with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to this front end, by its index in [`Options::fronts`].
    Connect {
        /// The index.
        front: usize,
    },
    /// Close the connection, or stop trying to make it. Nothing of it must be reported any more.
    Close,
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// A write without a counter: it waits for a session or for the window.
    Unnumbered,
    /// It may be sent as soon as there is a connection with room.
    Ready,
    /// It was sent on the present connection, under this request id.
    InFlight(u64),
    /// It was told "later".
    RetryAt(u64),
}

#[derive(Debug)]
struct Call {
    request: Request,
    stand: Stand,
    since_ns: u64,
    deadline_ns: u64,
    asks: Asks,
    sends: u32,
    /// Who the write is, once it has a counter.
    id: Option<WriteId>,
    /// Whether an earlier sending may still take effect: it was not answered, or the answer was "unknown".
    in_doubt: bool,
    /// The latest "not now" of the present front end to this call, and how many came in a row.
    not_now: Option<ErrorBody>,
    not_now_count: u32,
}

/// The state machine. See the module's documentation.
#[derive(Debug)]
pub struct Engine {
    options: Options,
    /// What became of each front end; same indices as [`Options::fronts`].
    causes: Vec<Cause>,
    front: usize,
    link: Link,
    /// Fruitless connections in a row.
    failures: u32,
    /// "No server that could do it" in a row; another front end may see more of them.
    unavailable: u32,
    /// When this connection last gave a sign of life, or began to be waited for.
    heard_ns: u64,
    /// Whether a call has ended in flight without any sign of life since: `heard_ns` then stands, whatever is sent.
    owes_answer: bool,
    deframer: Deframer,
    out: BytesMut,
    actions: VecDeque<Action>,
    done: VecDeque<(Token, Completion)>,
    calls: BTreeMap<Token, Call>,
    ready: BTreeSet<Token>,
    unnumbered: BTreeSet<Token>,
    in_flight: BTreeMap<u64, Token>,
    deadlines: BTreeSet<(u64, Token)>,
    retries: BTreeSet<(u64, Token)>,
    next_token: u64,
    next_request_id: u64,
    session: Option<Session>,
    /// The engine's own call that registers a session.
    opening: Option<Token>,
    floor: u64,
    ignored: u64,
}

impl Engine {
    /// An engine that is not connected yet.
    pub fn new(options: Options) -> Self {
        Self {
            causes: vec![Cause::NotTried; options.fronts.len()],
            options,
            front: 0,
            link: Link::Down { retry_at: 0 },
            failures: 0,
            unavailable: 0,
            heard_ns: 0,
            owes_answer: false,
            deframer: Deframer::new(CLIENT_BODY_MAX),
            out: BytesMut::new(),
            actions: VecDeque::new(),
            done: VecDeque::new(),
            calls: BTreeMap::new(),
            ready: BTreeSet::new(),
            unnumbered: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            retries: BTreeSet::new(),
            next_token: 1,
            next_request_id: 1,
            session: None,
            opening: None,
            floor: 0,
            ignored: 0,
        }
    }

    /// Goes on with a session that was registered earlier.
    pub fn resume_session(&mut self, session: Session) {
        self.session = Some(session);
    }

    /// The session in use.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The highest log position seen; no read is answered from an earlier one.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Asks all further reads not to be answered from before `seq`.
    pub fn raise_floor(&mut self, seq: u64) {
        self.floor = self.floor.max(seq);
    }

    /// Calls that have not ended.
    pub fn pending(&self) -> usize {
        self.calls.len()
    }

    /// Frames that answered nothing that was waited for: late, repeated, or unasked.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The server at the other end, once it has greeted.
    pub fn server(&self) -> Option<&HelloOk> {
        match &self.link {
            Link::Up { server, .. } => Some(server),
            _ => None,
        }
    }

    /// Takes a call, which ends by `deadline_ns`.
    pub fn submit(&mut self, now_ns: u64, request: Request, deadline_ns: u64, asks: Asks) -> Token {
        let invalid = request.command().and_then(|command| command.check().err());
        let token = self.enter(now_ns, request, deadline_ns, asks);
        if let Some(error) = invalid {
            self.finish(now_ns, token, Err(Error::InvalidInput(error)), Vec::new(), 0);
        } else {
            self.pump(now_ns);
        }
        token
    }

    /// Ends every call at once, as their deadlines would.
    pub fn abort(&mut self, now_ns: u64) {
        while let Some((token, _)) = self.calls.first_key_value() {
            let token = *token;
            self.expire(now_ns, token);
        }
        if !matches!(self.link, Link::Down { .. }) {
            self.actions.push_back(Action::Close);
            self.link = Link::Down { retry_at: 0 };
        }
    }

    fn enter(&mut self, now_ns: u64, request: Request, deadline_ns: u64, asks: Asks) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        let (stand, id) = match &request {
            Request::Write(_) => (Stand::Unnumbered, None),
            Request::Settle { session, counter, .. } => {
                (Stand::Ready, Some(WriteId { session: *session, counter: *counter }))
            }
            _ => (Stand::Ready, None),
        };
        // Whoever settles a write says that it may have been sent before.
        let in_doubt = matches!(request, Request::Settle { .. });
        if let (Some(id), Some(session)) = (id, &mut self.session)
            && session.id() == id.session
        {
            session.resume(id.counter);
        }
        self.deadlines.insert((deadline_ns, token));
        let call = Call {
            request,
            stand: Stand::Ready,
            since_ns: now_ns,
            deadline_ns,
            asks,
            sends: 0,
            id,
            in_doubt,
            not_now: None,
            not_now_count: 0,
        };
        self.calls.insert(token, call);
        self.ready.insert(token);
        self.place(token, stand);
        token
    }

    /// Moves a call to where it stands now; the only function that does.
    fn place(&mut self, token: Token, stand: Stand) {
        let Some(call) = self.calls.get_mut(&token) else { return };
        let before = std::mem::replace(&mut call.stand, stand);
        self.forget_stand(token, before);
        match stand {
            Stand::Unnumbered => self.unnumbered.insert(token),
            Stand::Ready => self.ready.insert(token),
            Stand::InFlight(request_id) => self.in_flight.insert(request_id, token).is_none(),
            Stand::RetryAt(at) => self.retries.insert((at, token)),
        };
    }

    fn forget_stand(&mut self, token: Token, stand: Stand) {
        match stand {
            Stand::Unnumbered => self.unnumbered.remove(&token),
            Stand::Ready => self.ready.remove(&token),
            Stand::InFlight(request_id) => self.in_flight.remove(&request_id).is_some(),
            Stand::RetryAt(at) => self.retries.remove(&(at, token)),
        };
    }

    /// Sends what can be sent; connects if something waits for that.
    fn pump(&mut self, now_ns: u64) {
        if self.calls.is_empty() {
            return;
        }
        self.connect_if_due(now_ns);
        let Link::Up { server, .. } = &self.link else { return };
        let in_flight_max = self.options.in_flight_max.min(server.in_flight_max as usize).max(1);
        self.number_writes(now_ns);
        while self.in_flight.len() < in_flight_max && self.out.len() < OUTPUT_HIGH {
            let Some(token) = self.ready.first().copied() else { return };
            self.send(now_ns, token);
        }
    }

    /// Gives counters to the writes that wait for one, as far as the window allows; registers a session where none is.
    fn number_writes(&mut self, now_ns: u64) {
        while let Some(token) = self.unnumbered.first().copied() {
            let Some(session) = &mut self.session else { return self.open_session(now_ns) };
            let id = session.id();
            match session.take_counter() {
                Some(counter) => {
                    if let Some(call) = self.calls.get_mut(&token) {
                        call.id = Some(WriteId { session: id, counter });
                    }
                    self.place(token, Stand::Ready);
                }
                // What is unsettled there can be settled as long as the old session's window does not move.
                None if session.is_stuck() => self.session = None,
                None => return,
            }
        }
    }

    fn open_session(&mut self, now_ns: u64) {
        if self.opening.is_some() {
            return;
        }
        let deadline = self.unnumbered.iter().filter_map(|token| self.calls.get(token)).map(|c| c.deadline_ns).max();
        let Some(deadline_ns) = deadline else { return };
        self.opening = Some(self.enter(now_ns, Request::OpenSession, deadline_ns, Asks::default()));
    }

    fn send(&mut self, now_ns: u64, token: Token) {
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        if self.in_flight.is_empty() && !self.owes_answer {
            self.heard_ns = now_ns;
        }
        self.place(token, Stand::InFlight(request_id));
        let Some(call) = self.calls.get_mut(&token) else { return };
        call.sends += 1;
        let envelope = Envelope {
            request_id,
            deadline_ms: server_deadline_ms(call.deadline_ns.saturating_sub(now_ns)),
            flags: call.asks.flags(&call.request),
        };
        match (call.id, call.request.command()) {
            (Some(id), Some(command)) => {
                // Of a session that is not this engine's own nothing may be declared done.
                let first_incomplete =
                    self.session.as_ref().filter(|own| own.id() == id.session).map_or(1, Session::first_incomplete);
                put_write(&mut self.out, envelope, id, first_incomplete, command);
            }
            _ => call.request.write_read(envelope, self.floor, &mut self.out),
        }
    }

    /// Bytes to be written on the present connection.
    pub fn output(&self) -> &[u8] {
        &self.out
    }

    /// The first `count` bytes of [`Self::output`] have been written.
    pub fn consume_output(&mut self, now_ns: u64, count: usize) {
        let was_high = self.out.len() >= OUTPUT_HIGH;
        self.out.advance(count.min(self.out.len()));
        if was_high {
            self.pump(now_ns);
        }
    }

    /// The next thing to do with the connection. Must be polled after every input, before bytes are written.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next call that has ended.
    pub fn poll_completion(&mut self) -> Option<(Token, Completion)> {
        self.done.pop_front()
    }

    /// When [`Self::on_timeout`] must be called, unless something happens before.
    pub fn next_timeout(&self) -> Option<u64> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let retry = self.retries.first().map(|(at, _)| *at);
        [deadline, retry, self.link_timeout()].into_iter().flatten().min()
    }

    /// Fires every timer that is due.
    pub fn on_timeout(&mut self, now_ns: u64) {
        while let Some((at, token)) = self.deadlines.first().copied() {
            if at > now_ns {
                break;
            }
            self.expire(now_ns, token);
        }
        while let Some((at, token)) = self.retries.first().copied() {
            if at > now_ns {
                break;
            }
            self.place(token, Stand::Ready);
        }
        self.on_link_timeout(now_ns);
        self.pump(now_ns);
    }

    /// Ends a call that has no answer and will wait no longer.
    fn expire(&mut self, now_ns: u64, token: Token) {
        let Some(call) = self.calls.get(&token) else { return };
        let waited_ms = now_ns.saturating_sub(call.since_ns) / ms(1);
        let is_sent = matches!(call.stand, Stand::InFlight(_));
        self.owes_answer |= is_sent;
        let mut causes = self.causes();
        if let (Some(present), Some((_, cause))) = (self.present_cause(now_ns, call), causes.0.get_mut(self.front)) {
            *cause = present;
        }
        let error = match (call.id, &call.not_now) {
            (Some(id), _) if call.in_doubt || is_sent => {
                Error::OutcomeUnknown { session: id.session, counter: id.counter, causes }
            }
            (_, Some(refusal)) if !is_sent && !means_unreachable(refusal) => Error::Refused(refusal.clone()),
            _ => Error::Unreachable { waited_ms, causes },
        };
        self.finish(now_ns, token, Err(error), Vec::new(), 0);
    }

    /// What keeps a call waiting at the present front end. Its own word says more than how long it has been silent.
    fn present_cause(&self, now_ns: u64, call: &Call) -> Option<Cause> {
        let waited = |since: u64| now_ns.saturating_sub(since) / ms(1);
        // What went wrong here before explains more than that another connection is being made.
        let is_new = self.causes.get(self.front) == Some(&Cause::NotTried);
        match (&self.link, &call.not_now) {
            (Link::Connecting { .. } | Link::Greeting { .. }, _) if !is_new => None,
            (Link::Connecting { since }, _) => {
                Some(Cause::NotReached(format!("none was made within {} ms", waited(*since))))
            }
            (Link::Greeting { since }, _) => Some(Cause::Silent { waited_ms: waited(*since) }),
            (_, Some(refusal)) => Some(Cause::Refused(refusal.clone())),
            (Link::Up { .. }, None) if matches!(call.stand, Stand::InFlight(_)) => {
                Some(Cause::Silent { waited_ms: waited(call.since_ns) })
            }
            _ => None,
        }
    }

    fn causes(&self) -> Causes {
        Causes(self.options.fronts.iter().cloned().zip(self.causes.iter().cloned()).collect())
    }

    /// Ends a call; the only function that does.
    fn finish(&mut self, now_ns: u64, token: Token, result: Result<Reply, Error>, trace: Vec<Span>, node: u16) {
        let Some(call) = self.calls.remove(&token) else { return };
        self.forget_stand(token, call.stand);
        self.deadlines.remove(&(call.deadline_ns, token));
        if let (Some(id), Some(session)) = (call.id, &mut self.session)
            && session.id() == id.session
        {
            match &result {
                Err(Error::OutcomeUnknown { .. }) => session.give_up(id.counter),
                _ => session.finish(id.counter),
            }
        }
        if self.opening == Some(token) {
            self.opening = None;
            return self.on_opened(now_ns, result, node);
        }
        let elapsed_ns = now_ns.saturating_sub(call.since_ns);
        let front = self.server().map_or(0, |server| server.node);
        self.done.push_back((token, Completion { result, trace, node, front, elapsed_ns, sends: call.sends }));
    }

    /// The engine's own registration of a session has ended. What refuses it refuses the writes that need it.
    fn on_opened(&mut self, now_ns: u64, result: Result<Reply, Error>, node: u16) {
        let Err(Error::Refused(refusal)) = result else { return };
        for token in std::mem::take(&mut self.unnumbered) {
            self.finish(now_ns, token, Err(Error::Refused(refusal.clone())), Vec::new(), node);
        }
    }
}

/// "Not now" from a front end that cannot reach the servers behind it.
fn means_unreachable(error: &ErrorBody) -> bool {
    use ErrorCode::{DeadlineExceeded, ShuttingDown, Unavailable};
    matches!(error.known_code(), Some(Unavailable | DeadlineExceeded | ShuttingDown))
}

/// The deadline to tell a server, when the caller waits `left_ns`. Never 0, which would ask for the default.
fn server_deadline_ms(left_ns: u64) -> u32 {
    let own = left_ns - DEADLINE_MARGIN_NS.min(left_ns / 10);
    u32::try_from(own / ms(1)).unwrap_or(DEADLINE_MS_MAX).clamp(1, DEADLINE_MS_MAX)
}
