//! The engine's one connection: which front end, the greeting, signs of life, and the change to another one.

use pygmy_proto::frame::Deframer;
use pygmy_proto::header::Header;
use pygmy_proto::limits::{CLIENT_BODY_MAX, VERSION};
use pygmy_proto::message::{Hello, HelloOk, Ping, Pong, Role};
use pygmy_proto::types::Blob;
use pygmy_proto::{ErrorBody, ErrorCode, Kind, codec, frame};

use super::{Action, Engine, Stand, Token, ms};
use crate::error::{Cause, Error};
use crate::request::{Request, WriteId};

/// Wait before a front end is tried again, when all were tried since the last good answer; doubles with every try.
const BACKOFF_NS_MIN: u64 = ms(10);
const BACKOFF_NS_MAX: u64 = ms(1_000);
/// Time for a connection to be made, and again for the greeting, when there is another front end to go to. It doubles
/// with every round of them, so that a far one is reached all the same.
const CONNECT_NS_MIN: u64 = ms(250);
const CONNECT_NS_MAX: u64 = ms(1_000);
/// With answers outstanding and nothing heard for this long, the front end is asked whether it is there.
const PING_AFTER_NS: u64 = ms(100);
/// Time for it to say so; then another one is tried. One that is far away gets more, as all get in the rounds that
/// follow, but no more than the latter; the only one gets that at once.
const PING_PATIENCE_NS_MIN: u64 = ms(250);
const PING_PATIENCE_NS_MAX: u64 = ms(1_000);
/// Times that its greeting took, which a front end gets to answer a `Ping`.
const PING_PATIENCE_GREETINGS: u64 = 4;

/// The state of the connection.
#[derive(Debug)]
pub(super) enum Link {
    /// There is none. If something waits for it, it is made at this time.
    Down { retry_at: u64 },
    /// It is being made.
    Connecting { since: u64 },
    /// `Hello` was said and is not answered.
    Greeting { since: u64 },
    /// Requests can be sent.
    Up { server: Box<HelloOk>, patience_ns: u64, pinged_ns: Option<u64> },
}

impl Engine {
    pub(super) fn connect_if_due(&mut self, now_ns: u64) {
        let Link::Down { retry_at } = self.link else { return };
        if retry_at <= now_ns && !self.options.fronts.is_empty() {
            self.link = Link::Connecting { since: now_ns };
            self.actions.push_back(Action::Connect { front: self.front });
        }
    }

    /// When the connection needs attention. An idle one needs none.
    pub(super) fn link_timeout(&self) -> Option<u64> {
        match &self.link {
            _ if self.calls.is_empty() => None,
            Link::Down { .. } if self.options.fronts.is_empty() => None,
            Link::Down { retry_at } => Some(*retry_at),
            Link::Connecting { since } | Link::Greeting { since } => Some(since + self.connect_patience()),
            Link::Up { pinged_ns: Some(at), patience_ns, .. } => Some(at + patience_ns),
            Link::Up { .. } if self.in_flight.is_empty() => None,
            Link::Up { .. } => Some(self.heard_ns + PING_AFTER_NS),
        }
    }

    /// Rounds through all front ends that were fruitless since the last good answer.
    fn rounds(&self) -> u32 {
        let fronts = u32::try_from(self.options.fronts.len()).unwrap_or(u32::MAX).max(1);
        self.failures / fronts
    }

    fn connect_patience(&self) -> u64 {
        if self.options.fronts.len() < 2 {
            return CONNECT_NS_MAX;
        }
        (CONNECT_NS_MIN << self.rounds().min(10)).min(CONNECT_NS_MAX)
    }

    /// How long a front end may take to answer a `Ping` that took `greeting_ns` to greet.
    fn ping_patience(&self, greeting_ns: u64) -> u64 {
        if self.options.fronts.len() < 2 {
            return PING_PATIENCE_NS_MAX;
        }
        let own = greeting_ns.saturating_mul(PING_PATIENCE_GREETINGS);
        own.max(PING_PATIENCE_NS_MIN << self.rounds().min(10)).min(PING_PATIENCE_NS_MAX)
    }

    /// How long to wait before the next connection, of which `self.failures` were in vain. A front end that was not
    /// tried since the last good answer is tried at once.
    fn backoff(&self) -> u64 {
        let fronts = u32::try_from(self.options.fronts.len()).unwrap_or(u32::MAX).max(1);
        self.failures.checked_sub(fronts).map_or(0, |again| (BACKOFF_NS_MIN << again.min(10)).min(BACKOFF_NS_MAX))
    }

    pub(super) fn on_link_timeout(&mut self, now_ns: u64) {
        if self.link_timeout().is_none_or(|at| at > now_ns) {
            return;
        }
        match &mut self.link {
            Link::Down { .. } => {}
            Link::Up { pinged_ns: pinged @ None, .. } => {
                *pinged = Some(now_ns);
                let request_id = self.next_request_id;
                self.next_request_id += 1;
                frame::write(&mut self.out, request_id, 0, 0, &Ping {});
            }
            Link::Connecting { since } | Link::Greeting { since } => {
                let waited_ms = (now_ns - *since) / ms(1);
                self.drop_link(now_ns, Cause::Silent { waited_ms });
            }
            Link::Up { .. } => {
                let waited_ms = now_ns.saturating_sub(self.heard_ns) / ms(1);
                self.drop_link(now_ns, Cause::Silent { waited_ms });
            }
        }
    }

    /// The connection that was wanted stands.
    pub fn on_connected(&mut self, now_ns: u64) {
        if !matches!(self.link, Link::Connecting { .. }) {
            return;
        }
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            role: Role::Client,
            cluster: self.options.cluster,
            settings: 0,
            credentials: Blob::default(),
            name: self.options.name,
            replica: None,
        };
        frame::write(&mut self.out, 0, 0, 0, &hello);
        self.link = Link::Greeting { since: now_ns };
    }

    /// The connection could not be made, or is gone.
    pub fn on_disconnected(&mut self, now_ns: u64, cause: Cause) {
        if !matches!(self.link, Link::Down { .. }) {
            self.lose_link(now_ns, cause);
            self.pump(now_ns);
        }
    }

    /// Bytes came on the connection.
    pub fn on_bytes(&mut self, now_ns: u64, bytes: &[u8]) {
        if matches!(self.link, Link::Down { .. } | Link::Connecting { .. }) {
            return;
        }
        self.heard_ns = now_ns;
        self.owes_answer = false;
        if let Link::Up { pinged_ns, .. } = &mut self.link {
            *pinged_ns = None;
        }
        let mut deframer = std::mem::replace(&mut self.deframer, Deframer::new(CLIENT_BODY_MAX));
        let fed = deframer.feed(bytes, |_, frame| {
            self.on_frame(now_ns, frame.header, frame.body);
            // A frame may have ended the connection; what follows it in the stream is then of no account.
            if matches!(self.link, Link::Down { .. }) { frame::Flow::Stop } else { frame::Flow::Continue }
        });
        if matches!(self.link, Link::Down { .. }) {
            return self.pump(now_ns);
        }
        match fed {
            Ok(()) => self.deframer = deframer,
            Err(error) => self.drop_link(now_ns, Cause::Protocol(error.to_string())),
        }
        self.pump(now_ns);
    }

    fn on_frame(&mut self, now_ns: u64, header: Header, body: &[u8]) {
        match (&self.link, Kind::from_u16(header.kind)) {
            (Link::Greeting { since }, Some(Kind::HelloOk)) => {
                self.on_hello_ok(now_ns, now_ns.saturating_sub(*since), body)
            }
            (Link::Greeting { .. }, Some(Kind::Error)) => self.on_link_error(now_ns, body),
            (Link::Greeting { .. }, _) => {
                let kind = header.kind;
                self.drop_link(now_ns, Cause::Protocol(format!("kind {kind:#06x} instead of a greeting")));
            }
            (_, Some(Kind::Error)) if header.request_id == 0 => self.on_link_error(now_ns, body),
            (_, Some(Kind::Ping)) => frame::write(&mut self.out, header.request_id, 0, 0, &Pong {}),
            (_, Some(Kind::Pong)) => {}
            (_, kind) => self.on_answer(now_ns, header, kind, body),
        }
    }

    fn on_hello_ok(&mut self, now_ns: u64, took_ns: u64, body: &[u8]) {
        let server: HelloOk = match codec::decode(body) {
            Ok(server) => server,
            Err(error) => return self.drop_link(now_ns, Cause::Protocol(format!("HelloOk: {error}"))),
        };
        let wanted = self.options.cluster;
        if server.version != VERSION {
            let why = format!("it chose version {}, {VERSION} was offered", server.version);
            return self.drop_link(now_ns, Cause::Protocol(why));
        }
        if wanted != [0; 16] && wanted != server.cluster {
            let detail = "it belongs to another cluster than the one that was asked for";
            let error = ErrorBody::new(ErrorCode::WrongCluster).detail(detail);
            return self.drop_link(now_ns, Cause::Refused(error));
        }
        // From now on only this cluster will do: the next front end must not be one of another store.
        self.options.cluster = server.cluster;
        if let Some(cause) = self.causes.get_mut(self.front) {
            *cause = Cause::NotTried;
        }
        let patience_ns = self.ping_patience(took_ns);
        self.link = Link::Up { server: Box::new(server), patience_ns, pinged_ns: None };
    }

    /// An error about the connection itself: the server is about to close it.
    fn on_link_error(&mut self, now_ns: u64, body: &[u8]) {
        let cause = match codec::decode(body) {
            Ok(error) => Cause::Refused(error),
            Err(error) => Cause::Protocol(format!("Error: {error}")),
        };
        self.drop_link(now_ns, cause);
    }

    /// Closes the connection and goes to the next front end.
    pub(super) fn drop_link(&mut self, now_ns: u64, cause: Cause) {
        self.actions.push_back(Action::Close);
        self.lose_link(now_ns, cause);
    }

    /// The connection is gone: everything in flight on it is sent again on the next one.
    fn lose_link(&mut self, now_ns: u64, cause: Cause) {
        if let Some(slot) = self.causes.get_mut(self.front) {
            *slot = cause;
        }
        for token in std::mem::take(&mut self.in_flight).into_values().collect::<Vec<_>>() {
            if let Some(call) = self.calls.get_mut(&token) {
                call.in_doubt |= call.id.is_some();
                call.stand = Stand::Ready;
                self.ready.insert(token);
            }
        }
        for call in self.calls.values_mut() {
            call.not_now = None;
        }
        self.out.clear();
        self.deframer = Deframer::new(CLIENT_BODY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.owes_answer = false;
        self.unavailable = 0;
        self.front = (self.front + 1) % self.options.fronts.len().max(1);
        self.link = Link::Down { retry_at: now_ns + self.backoff() };
        self.give_up_if_hopeless(now_ns);
    }

    /// Ends the calls that more tries would not help. A write in doubt keeps trying until its deadline.
    fn give_up_if_hopeless(&mut self, now_ns: u64) {
        let fronts = u32::try_from(self.options.fronts.len()).unwrap_or(u32::MAX);
        let tried = self.options.connect_rounds.is_some_and(|rounds| self.failures >= rounds.saturating_mul(fronts));
        if !tried && !self.causes.iter().all(Cause::is_permanent) {
            return;
        }
        let hopeless: Vec<Token> =
            self.calls.iter().filter(|(_, call)| !call.in_doubt).map(|(token, _)| *token).collect();
        for token in hopeless {
            self.expire(now_ns, token);
        }
    }

    /// An answer of substance came: this front end works.
    pub(super) fn on_good_answer(&mut self) {
        self.failures = 0;
        self.unavailable = 0;
    }

    /// A session is lost. Calls that were numbered in it and never sent get another identity.
    pub(super) fn forget_session(&mut self, id: u64) {
        if self.session.as_ref().is_some_and(|session| session.id() == id) {
            self.session = None;
        }
        let unsent: Vec<Token> = self
            .calls
            .iter()
            .filter(|(_, call)| matches!(call.request, Request::Write(_)) && call.sends == 0)
            .filter(|(_, call)| call.id.is_some_and(|own| own.session == id))
            .map(|(token, _)| *token)
            .collect();
        for token in unsent {
            self.unnumber(token);
        }
    }

    /// Takes a write's counter away. Only for one that no server can ever execute under it.
    pub(super) fn unnumber(&mut self, token: Token) {
        if let Some(call) = self.calls.get_mut(&token) {
            call.id = None;
        }
        self.place(token, Stand::Unnumbered);
    }

    /// The error of a call that its present state justifies, when the server's word about it is not final.
    pub(super) fn unknown(&self, id: WriteId, refusal: ErrorBody) -> Error {
        let mut causes = self.causes();
        if let Some((_, cause)) = causes.0.get_mut(self.front) {
            *cause = Cause::Refused(refusal);
        }
        Error::OutcomeUnknown { session: id.session, counter: id.counter, causes }
    }
}
