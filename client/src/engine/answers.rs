//! What an answer means for its call.

use pygmy_proto::header::{FLAG_TRACE, Header};
use pygmy_proto::message::{Span, Trace};
use pygmy_proto::{ErrorBody, ErrorCode, Kind, Retry, codec};

use super::{Engine, RETRY_NS_MAX, Session, Stand, Token, ms};
use crate::error::{Cause, Error};
use crate::request::{Reply, Request};

/// "No server that could do it" in a row after which another front end is asked.
const UNAVAILABLE_MAX: u32 = 4;

/// An answer taken apart.
struct Answer<'a> {
    kind: Option<Kind>,
    node: u16,
    trace: Vec<Span>,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    fn open(header: Header, kind: Option<Kind>, body: &'a [u8]) -> Result<Self, codec::BodyError> {
        let node = u16::try_from(header.aux).unwrap_or_default();
        if header.flags & FLAG_TRACE == 0 {
            return Ok(Self { kind, node, trace: Vec::new(), body });
        }
        let (trace, used) = codec::decode_prefix::<Trace>(body)?;
        Ok(Self { kind, node, trace: trace.into_vec(), body: body.get(used..).unwrap_or_default() })
    }
}

impl Engine {
    pub(super) fn on_answer(&mut self, now_ns: u64, header: Header, kind: Option<Kind>, body: &[u8]) {
        let Some(token) = self.in_flight.get(&header.request_id).copied() else {
            self.ignored += 1;
            return;
        };
        let read = Answer::open(header, kind, body).and_then(|answer| {
            if answer.kind == Some(Kind::Error) {
                let refusal = codec::decode(answer.body)?;
                self.on_refusal(now_ns, token, &answer, refusal);
                return Ok(true);
            }
            self.on_reply(now_ns, token, answer)
        });
        let why = match read {
            Ok(true) => return,
            Ok(false) => "it is not what was asked for".to_owned(),
            Err(error) => error.to_string(),
        };
        let kind = kind.map_or_else(|| format!("kind {:#06x}", header.kind), |kind| format!("{kind:?}"));
        // The call is still in flight here, and so is sent again elsewhere.
        self.drop_link(now_ns, Cause::Protocol(format!("answer {kind}: {why}")));
    }

    /// False when the answer is not of the kind that was asked for.
    fn on_reply(&mut self, now_ns: u64, token: Token, answer: Answer<'_>) -> Result<bool, codec::BodyError> {
        let Some(call) = self.calls.get(&token) else { return Ok(true) };
        let Some(read) = call.request.read_reply(answer.kind, call.id, answer.body) else { return Ok(false) };
        let reply = read?;
        self.on_good_answer();
        self.raise_floor(reply.seq());
        if let Reply::Session(id) = reply {
            self.session = Some(Session::new(id, 1, []));
        }
        self.finish(now_ns, token, Ok(reply), answer.trace, answer.node);
        Ok(true)
    }

    fn on_refusal(&mut self, now_ns: u64, token: Token, answer: &Answer<'_>, refusal: ErrorBody) {
        match refusal.retry {
            Retry::Never => self.on_final_refusal(now_ns, token, answer, refusal),
            Retry::Later => self.on_not_now(now_ns, token, refusal),
            Retry::Elsewhere => {
                self.note_refusal(token, &refusal);
                self.place(token, Stand::Ready);
                self.drop_link(now_ns, Cause::Refused(refusal));
            }
            Retry::Settle => {
                if let Some(call) = self.calls.get_mut(&token) {
                    call.in_doubt |= call.id.is_some();
                }
                self.on_not_now(now_ns, token, refusal);
            }
        }
    }

    fn note_refusal(&mut self, token: Token, refusal: &ErrorBody) {
        if let Some(call) = self.calls.get_mut(&token) {
            call.not_now = Some(refusal.clone());
            call.not_now_count = call.not_now_count.saturating_add(1);
        }
    }

    fn on_final_refusal(&mut self, now_ns: u64, token: Token, answer: &Answer<'_>, refusal: ErrorBody) {
        self.on_good_answer();
        // A refusal by what is in the store has been seen like any answer.
        self.raise_floor(refusal.seq);
        let Some(call) = self.calls.get(&token) else { return };
        let error = match call.id {
            Some(id) if call.in_doubt && !settles(&refusal) => self.unknown(id, refusal.clone()),
            _ => Error::Refused(refusal.clone()),
        };
        // A settled write may be older than what its session still remembers: that says nothing about the session.
        let session = call.id.filter(|_| matches!(call.request, Request::Write(_))).map(|id| id.session);
        self.finish(now_ns, token, Err(error), answer.trace.clone(), answer.node);
        if let (Some(ErrorCode::SessionExpired), Some(session)) = (refusal.known_code(), session) {
            self.forget_session(session);
        }
    }

    /// Tries again when the server asks to, unless that would be too late.
    fn on_not_now(&mut self, now_ns: u64, token: Token, refusal: ErrorBody) {
        self.note_refusal(token, &refusal);
        let Some(call) = self.calls.get(&token) else { return };
        let (in_doubt, deadline_ns) = (call.in_doubt, call.deadline_ns);
        let grown = ms(1) << call.not_now_count.min(16);
        let retry_at = now_ns + ms(refusal.retry_after_ms.into()).max(grown.min(RETRY_NS_MAX));
        if refusal.known_code() == Some(ErrorCode::WindowFull) && !in_doubt && self.leave_stuck_session(token) {
            return;
        }
        self.place(token, Stand::RetryAt(retry_at));
        if retry_at >= deadline_ns {
            return self.expire(now_ns, token);
        }
        if refusal.known_code() == Some(ErrorCode::Unavailable) {
            self.unavailable += 1;
            if self.unavailable >= UNAVAILABLE_MAX && self.options.fronts.len() > 1 {
                self.drop_link(now_ns, Cause::Refused(refusal));
            }
        }
    }

    /// A session whose results cannot be dropped, because somebody must settle the oldest one first, takes no more
    /// writes. The one it has just refused, and so will not execute unasked, goes to a new session.
    fn leave_stuck_session(&mut self, token: Token) -> bool {
        let id = self.calls.get(&token).filter(|call| matches!(call.request, Request::Write(_))).map(|c| c.id);
        let (Some(Some(id)), Some(session)) = (id, &self.session) else { return false };
        if session.id() != id.session || !session.is_stuck() {
            return false;
        }
        self.session = None;
        self.unnumber(token);
        true
    }
}

/// Whether a refusal is the stored answer of the write itself, or proof that it will never be done. Any other refusal
/// of a repeated write speaks of the repetition alone.
fn settles(refusal: &ErrorBody) -> bool {
    use ErrorCode::{
        BookExists, IdReused, InvalidArgument, NotEnoughStock, StockOverflow, UnknownBook, UnknownOrder, UnknownTopic,
    };
    matches!(
        refusal.known_code(),
        Some(
            UnknownBook
                | UnknownTopic
                | UnknownOrder
                | NotEnoughStock
                | BookExists
                | InvalidArgument
                | StockOverflow
                | IdReused
        )
    )
}
