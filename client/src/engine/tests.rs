//! The engine against a server that the test plays itself, frame by frame.

use std::time::Duration;

use pygmy_proto::frame::Flow;
use pygmy_proto::header::{FLAG_FRESH, FLAG_NO_CACHE, FLAG_TRACE, Header};
use pygmy_proto::limits::{SESSION_WINDOW, VERSION};
use pygmy_proto::message::{
    Book, Command, Hello, Lookup, LookupOk, Message, Outcome, Role, SessionOpened, Stage, Trace, Write, WriteOk,
};
use pygmy_proto::types::{self, Bounded};
use pygmy_proto::{BookId, Kind, Retry, codec, frame};

use super::*;
use crate::request::{Asks, Reply};

const CLUSTER: [u8; 16] = [7; 16];

/// An engine, a clock, and the far end of its connection.
struct Bench {
    engine: Engine,
    now: u64,
    done: Vec<(Token, Completion)>,
}

/// A frame that the engine has sent.
#[derive(Debug, Clone)]
struct Sent {
    header: Header,
    body: Vec<u8>,
}

impl Sent {
    fn is(&self, kind: Kind) -> bool {
        self.header.kind == kind as u16
    }
    fn write(&self) -> Write {
        assert!(self.is(Kind::Write), "{:?}", self.header);
        codec::decode(&self.body).unwrap()
    }
    fn id(&self) -> (u64, u64) {
        let write = self.write();
        (write.session, write.counter)
    }
}

impl Bench {
    fn new(fronts: usize) -> Self {
        let options = Options::new((0..fronts).map(|n| format!("front-{n}")));
        Self { engine: Engine::new(options), now: ms(1_000), done: Vec::new() }
    }

    fn write(&mut self, timeout_ms: u64) -> Token {
        let command = Command::Restock { book: book_id(), copies: 1 };
        self.engine.submit(self.now, Request::Write(command), self.now + ms(timeout_ms), Asks::default())
    }

    fn read(&mut self, timeout_ms: u64) -> Token {
        let request = Request::Lookup(Lookup { floor: 0, book: book_id() });
        self.engine.submit(self.now, request, self.now + ms(timeout_ms), Asks::default())
    }

    /// Lets time pass, firing timers at their own times.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.now + ms(milliseconds);
        while let Some(at) = self.engine.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.on_timeout(self.now);
        }
        self.now = end;
    }

    /// Lets time pass until the engine wants a connection; the front that it wants.
    fn until_connect(&mut self) -> usize {
        for _ in 0..1_000 {
            while let Some(action) = self.engine.poll_action() {
                if let Action::Connect { front } = action {
                    return front;
                }
            }
            let at = self.engine.next_timeout().expect("it waits for something");
            self.now = self.now.max(at);
            self.engine.on_timeout(self.now);
        }
        panic!("no connection was wanted");
    }

    /// Accepts the connection that the engine wants and greets it; the front that it wanted.
    fn accept(&mut self) -> usize {
        let front = self.until_connect();
        self.greet(Duration::ZERO);
        front
    }

    /// Accepts the connection that the engine waits for, and greets it after `pause`.
    fn greet(&mut self, pause: Duration) {
        self.engine.on_connected(self.now);
        let sent = self.sent();
        assert!(sent.len() == 1 && sent[0].is(Kind::Hello), "{sent:?}");
        let hello: Hello = codec::decode(&sent[0].body).unwrap();
        assert_eq!((hello.role, hello.version_min), (Role::Client, VERSION));
        self.now += u64::try_from(pause.as_nanos()).unwrap();
        self.answer(0, &hello_ok(CLUSTER));
    }

    /// What the engine wants of its connection now.
    fn next_actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.engine.poll_action()).collect()
    }

    /// What the engine has sent since the last look.
    fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while !self.engine.output().is_empty() {
            let bytes = self.engine.output().to_vec();
            self.engine.consume_output(self.now, bytes.len());
            Deframer::new(CLIENT_BODY_MAX)
                .feed(&bytes, |_, frame| {
                    sent.push(Sent { header: frame.header, body: frame.body.to_vec() });
                    Flow::Continue
                })
                .unwrap();
        }
        sent
    }

    fn answer<M: Message>(&mut self, request_id: u64, message: &M) {
        let bytes = frame::to_bytes(request_id, 3, 0, message);
        self.engine.on_bytes(self.now, &bytes);
    }

    fn refuse(&mut self, sent: &Sent, code: ErrorCode) {
        self.answer(sent.header.request_id, &ErrorBody::new(code));
    }

    fn restocked(&mut self, sent: &Sent, seq: u64) {
        self.answer(sent.header.request_id, &write_ok(seq));
    }

    fn lose(&mut self) {
        self.engine.on_disconnected(self.now, Cause::Lost("cut".into()));
    }

    /// The end of a call, which must have come.
    fn end(&mut self, token: Token) -> Completion {
        while let Some(done) = self.engine.poll_completion() {
            self.done.push(done);
        }
        let index = self.done.iter().position(|(ended, _)| *ended == token).expect("the call has ended");
        self.done.remove(index).1
    }

    fn is_open(&mut self, token: Token) -> bool {
        while let Some(done) = self.engine.poll_completion() {
            self.done.push(done);
        }
        self.done.iter().all(|(ended, _)| *ended != token)
    }

    /// Connected, with session 50.
    fn in_session(fronts: usize) -> Self {
        let mut bench = Self::new(fronts);
        bench.engine.resume_session(Session::new(50, 1, []));
        bench.read(60_000);
        bench.accept();
        let sent = bench.sent();
        bench.answer(sent[0].header.request_id, &lookup_ok(50));
        bench
    }
}

fn book_id() -> BookId {
    BookId::new("pioneer").unwrap()
}

fn book() -> Book {
    Book {
        id: book_id(),
        title: types::title("Spring").unwrap(),
        topic: types::topic("graduate-school").unwrap(),
        cost_cents: 2500,
        stock: 7,
        changed_seq: 1,
    }
}

fn hello_ok(cluster: [u8; 16]) -> HelloOk {
    HelloOk {
        version: VERSION,
        role: Role::Front,
        node: 1,
        name: Name::truncated("front-1"),
        cluster,
        body_max: CLIENT_BODY_MAX as u32,
        in_flight_max: REQUESTS_IN_FLIGHT_MAX as u32,
        replica: None,
    }
}

fn lookup_ok(seq: u64) -> LookupOk {
    LookupOk { seq, book: book() }
}

fn write_ok(seq: u64) -> WriteOk {
    WriteOk { seq, outcome: Outcome::Restocked { book: book() } }
}

fn counter_of(completion: &Completion) -> (u64, u64) {
    match &completion.result {
        Ok(Reply::Written(done)) => (done.session, done.counter),
        Err(Error::OutcomeUnknown { session, counter, .. }) => (*session, *counter),
        other => panic!("{other:?} has no identity"),
    }
}

#[test]
fn a_first_write_registers_a_session_and_a_read_needs_none() {
    let mut bench = Bench::new(1);
    let (write, read) = (bench.write(5_000), bench.read(5_000));
    assert_eq!(bench.accept(), 0);
    let sent = bench.sent();
    assert_eq!(sent.len(), 2, "the write waits for the session");
    assert!(sent[0].is(Kind::Lookup) && sent[1].is(Kind::OpenSession));
    bench.answer(sent[0].header.request_id, &lookup_ok(4));
    assert!(matches!(bench.end(read).result, Ok(Reply::Lookup(ok)) if ok.seq == 4));
    bench.answer(sent[1].header.request_id, &SessionOpened { session: 9 });
    let sent = bench.sent();
    let write_sent = sent[0].write();
    assert_eq!((write_sent.session, write_sent.counter, write_sent.first_incomplete), (9, 1, 1));
    bench.restocked(&sent[0], 10);
    let end = bench.end(write);
    assert_eq!((counter_of(&end), end.node, end.front, end.sends), ((9, 1), 3, 1, 1));
    assert_eq!(bench.engine.floor(), 10);
}

#[test]
fn a_read_is_never_older_than_what_was_seen() {
    let mut bench = Bench::in_session(1);
    bench.engine.raise_floor(77);
    bench.read(1_000);
    let ask: Lookup = codec::decode(&bench.sent()[0].body).unwrap();
    assert_eq!(ask.floor, 77);
}

#[test]
fn a_lost_connection_resends_under_the_same_ids_at_the_next_front() {
    let mut bench = Bench::in_session(3);
    let (first, second, read) = (bench.write(5_000), bench.write(5_000), bench.read(5_000));
    let before = bench.sent();
    bench.restocked(&before[0], 60);
    bench.lose();
    assert_eq!(bench.accept(), 1);
    let after = bench.sent();
    assert_eq!(after.len(), 2, "what was answered is not sent again");
    assert_eq!(after[0].id(), before[1].id());
    assert_eq!(after[0].write().first_incomplete, 2);
    assert!(after[1].is(Kind::Lookup));
    bench.restocked(&after[0], 61);
    bench.answer(after[1].header.request_id, &lookup_ok(61));
    assert_eq!(counter_of(&bench.end(first)), (50, 1));
    let end = bench.end(second);
    assert_eq!((counter_of(&end), end.sends), ((50, 2), 2));
    assert!(bench.end(read).result.is_ok());
}

#[test]
fn a_front_that_leaves_is_left_at_once_and_one_that_refuses_is_passed() {
    let mut bench = Bench::in_session(3);
    let write = bench.write(5_000);
    let sent = bench.sent();
    bench.refuse(&sent[0], ErrorCode::ShuttingDown);
    assert_eq!(bench.engine.poll_action(), Some(Action::Close));
    assert_eq!(bench.until_connect(), 1);
    bench.engine.on_disconnected(bench.now, Cause::NotReached("refused".into()));
    assert_eq!(bench.accept(), 2);
    let again = bench.sent();
    assert_eq!(again[0].id(), sent[0].id());
    bench.restocked(&again[0], 70);
    assert_eq!(counter_of(&bench.end(write)), (50, 1));
}

#[test]
fn back_off_doubles_to_a_second_and_ends_at_the_deadline_with_every_cause() {
    let mut bench = Bench::new(2);
    let start = bench.now;
    let read = bench.read(10_000);
    let mut at = Vec::new();
    while bench.engine.pending() > 0 {
        while let Some(action) = bench.engine.poll_action() {
            if let Action::Connect { front } = action {
                at.push((bench.now - start) / ms(1));
                bench.engine.on_disconnected(bench.now, Cause::NotReached(format!("no {front}")));
            }
        }
        let next = bench.engine.next_timeout().expect("a call is open");
        bench.now = next;
        bench.engine.on_timeout(next);
    }
    assert_eq!(&at[..9], [0, 0, 10, 30, 70, 150, 310, 630, 1270]);
    assert_eq!(at.len(), 17, "and a second each from then on");
    let Err(Error::Unreachable { waited_ms, causes }) = bench.end(read).result else { panic!("unreachable") };
    assert_eq!(waited_ms, 10_000);
    assert_eq!(causes.to_string(), "front-0: no connection: no 0; front-1: no connection: no 1");
}

#[test]
fn with_a_bound_on_rounds_a_call_ends_before_its_deadline() {
    let mut bench = Bench::new(2);
    bench.engine.options.connect_rounds = Some(2);
    let read = bench.read(60_000);
    for round in 0..4 {
        assert!(bench.is_open(read), "round {round}");
        bench.until_connect();
        bench.engine.on_disconnected(bench.now, Cause::NotReached("refused".into()));
    }
    assert!(matches!(bench.end(read).result, Err(Error::Unreachable { .. })));
}

#[test]
fn a_write_that_was_sent_is_of_unknown_outcome_at_its_deadline_and_a_read_is_not() {
    let mut bench = Bench::in_session(2);
    let (write, read) = (bench.write(300), bench.read(300));
    bench.sent();
    bench.pass(299);
    assert!(bench.is_open(write) && bench.is_open(read));
    bench.pass(1);
    let end = bench.end(write);
    assert_eq!(counter_of(&end), (50, 1));
    let Err(Error::OutcomeUnknown { causes, .. }) = end.result else { panic!("{end:?}") };
    assert_eq!(causes.0[0].1, Cause::Silent { waited_ms: 300 });
    let Err(Error::Unreachable { waited_ms: 300, causes }) = bench.end(read).result else { panic!("unreachable") };
    assert_eq!(causes.0[1], ("front-1".to_owned(), Cause::NotTried));
}

#[test]
fn at_the_deadline_the_servers_own_word_is_told() {
    let mut bench = Bench::in_session(1);
    let write = bench.write(300);
    let sent = bench.sent();
    bench.pass(250);
    bench.answer(sent[0].header.request_id, &ErrorBody::new(ErrorCode::OutcomeUnknown).detail("at the catalog"));
    bench.pass(50);
    let Err(Error::OutcomeUnknown { causes, .. }) = bench.end(write).result else { panic!("unknown") };
    assert!(causes.to_string().contains("at the catalog"), "{causes}");
}

#[test]
fn a_deadline_within_a_connection_attempt_says_how_far_it_was() {
    let mut bench = Bench::new(1);
    let read = bench.read(300);
    bench.until_connect();
    bench.pass(300);
    let Err(Error::Unreachable { causes, .. }) = bench.end(read).result else { panic!("unreachable") };
    assert!(matches!(&causes.0[0].1, Cause::NotReached(why) if why.contains("300 ms")), "{causes}");
    let read = bench.read(200);
    bench.engine.on_connected(bench.now);
    bench.pass(200);
    let Err(Error::Unreachable { causes, .. }) = bench.end(read).result else { panic!("unreachable") };
    assert_eq!(causes.0[0].1, Cause::Silent { waited_ms: 200 });
}

#[test]
fn a_write_that_was_never_sent_is_no_unknown_outcome() {
    let mut bench = Bench::new(1);
    bench.engine.resume_session(Session::new(50, 1, []));
    let write = bench.write(300);
    bench.until_connect();
    bench.pass(300);
    assert!(matches!(bench.end(write).result, Err(Error::Unreachable { .. })));
}

#[test]
fn what_is_unsettled_holds_first_incomplete_until_it_is_settled() {
    let mut bench = Bench::in_session(1);
    let lost = bench.write(100);
    bench.sent();
    bench.pass(100);
    assert_eq!(counter_of(&bench.end(lost)), (50, 1));
    let next = bench.write(1_000);
    let sent = bench.sent();
    assert_eq!((sent[0].write().counter, sent[0].write().first_incomplete), (2, 1));
    bench.restocked(&sent[0], 60);
    assert!(bench.end(next).result.is_ok());
    assert_eq!(bench.engine.session().unwrap().unsettled().collect::<Vec<_>>(), [1]);

    let command = Command::Restock { book: book_id(), copies: 1 };
    let request = Request::Settle { session: 50, counter: 1, command };
    let settle = bench.engine.submit(bench.now, request, bench.now + ms(1_000), Asks::default());
    let sent = bench.sent();
    assert_eq!((sent[0].id(), sent[0].write().first_incomplete), ((50, 1), 1));
    bench.restocked(&sent[0], 59);
    assert_eq!(counter_of(&bench.end(settle)), (50, 1));
    assert_eq!(bench.engine.session().unwrap().first_incomplete(), 3);
}

#[test]
fn settling_in_a_foreign_session_declares_nothing_done_there() {
    let mut bench = Bench::in_session(1);
    let command = Command::Retire { book: book_id() };
    let request = Request::Settle { session: 12, counter: 900, command };
    let settle = bench.engine.submit(bench.now, request, bench.now + ms(1_000), Asks::default());
    let sent = bench.sent();
    assert_eq!((sent[0].id(), sent[0].write().first_incomplete), ((12, 900), 1));
    bench.refuse(&sent[0], ErrorCode::SessionExpired);
    assert!(matches!(bench.end(settle).result, Err(Error::OutcomeUnknown { session: 12, counter: 900, .. })));
    assert_eq!(bench.engine.session().map(Session::id), Some(50), "our own goes on");
}

#[test]
fn settling_what_is_long_done_does_not_cost_the_session() {
    let mut bench = Bench::in_session(1);
    bench.engine.resume_session(Session::new(50, 9, []));
    let command = Command::Retire { book: book_id() };
    let request = Request::Settle { session: 50, counter: 2, command };
    let settle = bench.engine.submit(bench.now, request, bench.now + ms(1_000), Asks::default());
    let sent = bench.sent();
    bench.refuse(&sent[0], ErrorCode::SessionExpired);
    assert_eq!(counter_of(&bench.end(settle)), (50, 2));
    assert_eq!(bench.engine.session().map(Session::next_counter), Some(9));
}

#[test]
fn no_counter_beyond_the_window_is_sent() {
    let mut bench = Bench::in_session(1);
    let window = usize::try_from(SESSION_WINDOW).unwrap();
    let tokens: Vec<Token> = (0..window + 5).map(|_| bench.write(60_000)).collect();
    let sent = bench.sent();
    assert_eq!(sent.len(), window);
    bench.restocked(&sent[1], 60);
    assert_eq!(bench.sent().len(), 0, "the first is still open");
    bench.restocked(&sent[0], 61);
    let more = bench.sent();
    assert_eq!(more.iter().map(|sent| sent.write().counter).collect::<Vec<_>>(), [1025, 1026]);
    assert_eq!(more[0].write().first_incomplete, 3);
    assert!(bench.is_open(tokens[window + 2]));
}

#[test]
fn a_window_that_somebody_must_settle_is_left_for_a_new_session() {
    let mut bench = Bench::in_session(1);
    bench.engine.resume_session(Session::new(50, SESSION_WINDOW + 1, [1]));
    let write = bench.write(60_000);
    let sent = bench.sent();
    assert!(sent[0].is(Kind::OpenSession));
    bench.answer(sent[0].header.request_id, &SessionOpened { session: 80 });
    let sent = bench.sent();
    assert_eq!(sent[0].id(), (80, 1));
    bench.restocked(&sent[0], 81);
    assert_eq!(counter_of(&bench.end(write)), (80, 1));

    bench.engine.resume_session(Session::new(50, 9, [1]));
    let write = bench.write(60_000);
    let sent = bench.sent();
    assert_eq!(sent[0].id(), (50, 9));
    bench.refuse(&sent[0], ErrorCode::WindowFull);
    let sent = bench.sent();
    assert!(sent[0].is(Kind::OpenSession), "too many results are held for the unsettled one");
    bench.answer(sent[0].header.request_id, &SessionOpened { session: 90 });
    let sent = bench.sent();
    bench.restocked(&sent[0], 91);
    assert_eq!(counter_of(&bench.end(write)), (90, 1));
}

#[test]
fn an_expired_session_refuses_what_was_sent_once() {
    let mut bench = Bench::in_session(1);
    let write = bench.write(5_000);
    let sent = bench.sent();
    bench.refuse(&sent[0], ErrorCode::SessionExpired);
    let Err(Error::Refused(error)) = bench.end(write).result else { panic!("it was never executed") };
    assert_eq!(error.known_code(), Some(ErrorCode::SessionExpired));
    let next = bench.write(5_000);
    let sent = bench.sent();
    assert!(sent[0].is(Kind::OpenSession), "the next write opens a new one");
    bench.answer(sent[0].header.request_id, &SessionOpened { session: 80 });
    let sent = bench.sent();
    assert_eq!(sent[0].id(), (80, 1));
    bench.restocked(&sent[0], 81);
    assert!(bench.end(next).result.is_ok());
}

#[test]
fn an_expired_session_leaves_open_what_may_have_been_done_before() {
    for is_lost in [true, false] {
        let mut bench = Bench::in_session(1);
        let write = bench.write(5_000);
        let sent = bench.sent();
        if is_lost {
            bench.lose();
            bench.accept();
        } else {
            bench.refuse(&sent[0], ErrorCode::OutcomeUnknown);
            bench.pass(30);
        }
        let sent = bench.sent();
        bench.refuse(&sent[0], ErrorCode::SessionExpired);
        assert_eq!(counter_of(&bench.end(write)), (50, 1), "lost: {is_lost}");
    }
}

#[test]
fn a_stored_refusal_settles_a_write_in_doubt_and_another_refusal_does_not() {
    for (code, is_settled) in
        [(ErrorCode::NotEnoughStock, true), (ErrorCode::IdReused, true), (ErrorCode::Unsupported, false)]
    {
        let mut bench = Bench::in_session(1);
        let write = bench.write(5_000);
        bench.sent();
        bench.lose();
        bench.accept();
        let sent = bench.sent();
        bench.refuse(&sent[0], code);
        let end = bench.end(write);
        assert_eq!(matches!(end.result, Err(Error::Refused(_))), is_settled, "{end:?}");
        assert_eq!(matches!(end.result, Err(Error::OutcomeUnknown { .. })), !is_settled, "{end:?}");
    }
}

#[test]
fn later_means_later_under_the_same_id_and_not_beyond_the_deadline() {
    let mut bench = Bench::in_session(1);
    let write = bench.write(200);
    let sent = bench.sent();
    bench.answer(sent[0].header.request_id, &ErrorBody::new(ErrorCode::Busy).retry(Retry::Later, 50));
    bench.pass(49);
    assert_eq!(bench.sent().len(), 0);
    bench.pass(1);
    let again = bench.sent();
    assert_eq!(again[0].id(), sent[0].id());
    assert_ne!(again[0].header.request_id, sent[0].header.request_id);
    bench.answer(again[0].header.request_id, &ErrorBody::new(ErrorCode::Busy).retry(Retry::Later, 400));
    let Err(Error::Refused(error)) = bench.end(write).result else { panic!("nothing was done, and it is known") };
    assert_eq!(error.known_code(), Some(ErrorCode::Busy));
    assert_eq!(bench.engine.session().unwrap().first_incomplete(), 2);
}

#[test]
fn busy_after_a_lost_connection_does_not_make_the_outcome_known() {
    let mut bench = Bench::in_session(1);
    let write = bench.write(200);
    bench.sent();
    bench.lose();
    bench.accept();
    let sent = bench.sent();
    bench.answer(sent[0].header.request_id, &ErrorBody::new(ErrorCode::Busy).retry(Retry::Later, 400));
    assert_eq!(counter_of(&bench.end(write)), (50, 1));
}

#[test]
fn a_front_without_servers_behind_it_is_left_and_reported_as_unreachable() {
    let mut bench = Bench::in_session(2);
    let read = bench.read(400);
    for round in 0..4 {
        let sent = bench.sent();
        assert_eq!(sent.len(), 1, "round {round}");
        bench.refuse(&sent[0], ErrorCode::Unavailable);
        bench.pass(20);
    }
    assert_eq!(bench.accept(), 1);
    let sent = bench.sent();
    bench.answer(sent[0].header.request_id, &ErrorBody::new(ErrorCode::Unavailable).retry(Retry::Later, 5_000));
    let Err(Error::Unreachable { causes, .. }) = bench.end(read).result else { panic!("unreachable") };
    assert!(causes.0.iter().all(|(_, cause)| matches!(cause, Cause::Refused(_))), "{causes}");
}

#[test]
fn a_silent_front_is_pinged_and_then_left() {
    let mut bench = Bench::in_session(2);
    let read = bench.read(60_000);
    bench.sent();
    bench.pass(100);
    let ping = bench.sent();
    assert!(ping.len() == 1 && ping[0].is(Kind::Ping));
    bench.answer(ping[0].header.request_id, &pygmy_proto::message::Pong {});
    bench.pass(99);
    assert_eq!(bench.sent().len(), 0, "it is there, only slow");
    bench.pass(1);
    assert!(bench.sent()[0].is(Kind::Ping));
    bench.pass(249);
    assert_eq!(bench.engine.poll_action(), None);
    bench.pass(1);
    assert_eq!(bench.next_actions(), [Action::Close, Action::Connect { front: 1 }], "at once");
    bench.greet(Duration::ZERO);
    let sent = bench.sent();
    bench.answer(sent[0].header.request_id, &lookup_ok(60));
    assert!(bench.end(read).result.is_ok());
}

#[test]
fn what_was_in_flight_on_a_lost_connection_is_sent_elsewhere_in_the_same_instant() {
    let mut bench = Bench::in_session(3);
    let (write, read) = (bench.write(60_000), bench.read(60_000));
    let sent = bench.sent();
    bench.lose();
    assert_eq!(bench.next_actions(), [Action::Connect { front: 1 }]);
    bench.engine.on_disconnected(bench.now, Cause::NotReached("refused".into()));
    assert_eq!(bench.next_actions(), [Action::Connect { front: 2 }]);
    bench.greet(Duration::ZERO);
    let again = bench.sent();
    assert_eq!((again.len(), again[0].id()), (2, sent[0].id()));
    bench.restocked(&again[0], 60);
    bench.answer(again[1].header.request_id, &lookup_ok(60));
    assert!(bench.end(read).result.is_ok());
    assert_eq!(counter_of(&bench.end(write)), (50, 1));
}

#[test]
fn attempts_to_connect_take_longer_with_every_round_and_not_for_ever() {
    let mut bench = Bench::new(2);
    bench.read(60_000);
    let (mut waited, mut since) = (Vec::new(), bench.now);
    while waited.len() < 8 {
        match bench.engine.poll_action() {
            Some(Action::Connect { .. }) => since = bench.now,
            Some(Action::Close) => waited.push((bench.now - since) / ms(1)),
            None => bench.pass(1),
        }
    }
    assert_eq!(waited, [250, 250, 500, 500, 1_000, 1_000, 1_000, 1_000]);
}

#[test]
fn a_far_front_gets_more_time_to_answer_a_ping() {
    for (greeting_ms, patience_ms) in [(0, 250), (100, 400), (200, 800)] {
        let mut bench = Bench::new(2);
        bench.read(60_000);
        bench.until_connect();
        bench.greet(Duration::from_millis(greeting_ms));
        bench.sent();
        bench.pass(100 + patience_ms - 1);
        assert!(bench.next_actions().is_empty(), "after {greeting_ms} ms");
        bench.pass(1);
        assert_eq!(bench.next_actions()[0], Action::Close, "after {greeting_ms} ms");
    }
}

#[test]
fn calls_that_end_before_a_silent_front_is_found_out_do_not_hide_it() {
    let mut bench = Bench::in_session(2);
    for _ in 0..8 {
        assert!(bench.next_actions().is_empty());
        let read = bench.read(50);
        bench.pass(50);
        assert!(bench.end(read).result.is_err());
    }
    bench.read(50);
    assert_eq!(bench.next_actions()[0], Action::Close);
}

#[test]
fn a_server_may_ask_whether_the_client_is_there() {
    let mut bench = Bench::in_session(1);
    bench.answer(4711, &pygmy_proto::message::Ping {});
    let pong = bench.sent();
    assert!(pong[0].is(Kind::Pong) && pong[0].header.request_id == 4711);
}

#[test]
fn a_server_that_does_not_greet_is_left() {
    let mut bench = Bench::new(2);
    bench.read(60_000);
    assert_eq!(bench.until_connect(), 0);
    bench.engine.on_connected(bench.now);
    bench.pass(249);
    assert!(bench.next_actions().is_empty());
    bench.pass(1);
    assert_eq!(bench.next_actions(), [Action::Close, Action::Connect { front: 1 }]);
}

#[test]
fn repeated_and_unasked_answers_are_ignored() {
    let mut bench = Bench::in_session(1);
    let (write, late) = (bench.write(5_000), bench.read(50));
    let sent = bench.sent();
    bench.restocked(&sent[0], 60);
    bench.restocked(&sent[0], 60);
    bench.refuse(&sent[0], ErrorCode::Busy);
    bench.pass(50);
    assert!(bench.end(late).result.is_err());
    bench.answer(sent[1].header.request_id, &lookup_ok(99));
    bench.answer(4711, &lookup_ok(99));
    assert_eq!(bench.engine.ignored(), 4);
    assert_eq!(counter_of(&bench.end(write)), (50, 1));
    assert_eq!(bench.sent().len(), 0);
    assert!(bench.engine.poll_completion().is_none());
}

#[test]
fn what_is_not_the_protocol_is_left_and_named() {
    let spoilt = {
        let mut bytes = frame::to_bytes(2, 0, 0, &lookup_ok(1)).to_vec();
        bytes[40] ^= 1;
        bytes
    };
    let wrong_body = {
        let mut out = BytesMut::new();
        frame::write_raw(&mut out, Kind::LookupOk as u16, 2, 0, 0, b"nonsense");
        out.to_vec()
    };
    let wrong_kind = frame::to_bytes(2, 0, 0, &SessionOpened { session: 1 }).to_vec();
    let wrong_error = {
        let mut out = BytesMut::new();
        frame::write_raw(&mut out, Kind::Error as u16, 2, 0, 0, &[]);
        out.to_vec()
    };
    let wrong_trace = {
        let mut out = BytesMut::new();
        frame::write_raw(&mut out, Kind::LookupOk as u16, 2, 0, FLAG_TRACE, &[0xff; 40]);
        out.to_vec()
    };
    let text = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    for bytes in [spoilt, wrong_body, wrong_kind, wrong_error, wrong_trace, text] {
        let mut bench = Bench::in_session(1);
        let read = bench.read(100);
        let sent = bench.sent();
        assert_eq!(sent[0].header.request_id, 2);
        for byte in &bytes {
            bench.engine.on_bytes(bench.now, std::slice::from_ref(byte));
        }
        assert_eq!(bench.engine.poll_action(), Some(Action::Close));
        bench.pass(100);
        let Err(Error::Unreachable { causes, .. }) = bench.end(read).result else { panic!("unreachable") };
        assert!(matches!(causes.0[0].1, Cause::Protocol(_)), "{causes}");
    }
}

#[test]
fn a_refused_greeting_ends_calls_when_no_front_would_say_otherwise() {
    let mut bench = Bench::new(2);
    let read = bench.read(60_000);
    for _ in 0..2 {
        bench.until_connect();
        bench.engine.on_connected(bench.now);
        bench.sent();
        bench.answer(0, &ErrorBody::new(ErrorCode::VersionUnsupported).detail("speak 9"));
    }
    let Err(Error::Unreachable { causes, .. }) = bench.end(read).result else { panic!("unreachable") };
    assert!(causes.to_string().contains("version_unsupported: speak 9"), "{causes}");
}

#[test]
fn another_store_is_never_mistaken_for_this_one() {
    let mut bench = Bench::in_session(2);
    let write = bench.write(300);
    bench.sent();
    bench.lose();
    assert_eq!(bench.until_connect(), 1);
    bench.engine.on_connected(bench.now);
    let hello: Hello = codec::decode(&bench.sent()[0].body).unwrap();
    assert_eq!(hello.cluster, CLUSTER);
    bench.answer(0, &hello_ok([8; 16]));
    assert_eq!(bench.engine.poll_action(), Some(Action::Close));
    assert_eq!(bench.sent().len(), 0, "nothing was bought there");
    bench.pass(300);
    assert_eq!(counter_of(&bench.end(write)), (50, 1));
}

#[test]
fn servers_get_a_little_less_time_than_the_caller_has() {
    let mut bench = Bench::in_session(1);
    for (timeout_ms, told) in [(5_000, 4_950), (100, 90), (1, 1), (10_000_000, DEADLINE_MS_MAX)] {
        bench.read(timeout_ms);
        assert_eq!(bench.sent()[0].header.aux, told);
    }
}

#[test]
fn a_trace_is_taken_off_its_answer() {
    let mut bench = Bench::in_session(1);
    let request = Request::Lookup(Lookup { floor: 0, book: book_id() });
    let token = bench.engine.submit(bench.now, request, bench.now + ms(100), Asks { trace: true, ..Asks::default() });
    let sent = bench.sent();
    assert_eq!(sent[0].header.flags, FLAG_TRACE);
    let spans = vec![Span { stage: Stage::Front, node: 1, ns: 5 }, Span { stage: Stage::Catalog, node: 5, ns: 3 }];
    let mut out = BytesMut::new();
    frame::write_with(&mut out, Kind::LookupOk as u16, sent[0].header.request_id, 1, FLAG_TRACE, |body| {
        codec::encode_to::<Trace>(&Bounded::truncated(spans.clone()), body);
        codec::encode_to(&lookup_ok(60), body);
    });
    bench.engine.on_bytes(bench.now, &out);
    let end = bench.end(token);
    assert_eq!((end.trace, end.result.is_ok()), (spans, true));
}

#[test]
fn only_reads_ask_to_be_fresh() {
    let mut bench = Bench::in_session(1);
    let asks = Asks { fresh: true, ..Asks::default() };
    let command = Command::Restock { book: book_id(), copies: 1 };
    let lookup = Request::Lookup(Lookup { floor: 0, book: book_id() });
    for (request, flags) in [(lookup, FLAG_FRESH), (Request::Status, 0), (Request::Write(command), 0)] {
        bench.engine.submit(bench.now, request, bench.now + ms(100), asks);
        assert_eq!(bench.sent()[0].header.flags, flags);
    }
}

#[test]
fn only_reads_go_past_caches() {
    let mut bench = Bench::in_session(1);
    let asks = Asks { no_cache: true, ..Asks::default() };
    let command = Command::Restock { book: book_id(), copies: 1 };
    let lookup = Request::Lookup(Lookup { floor: 0, book: book_id() });
    for (request, flags) in [(lookup, FLAG_NO_CACHE), (Request::Status, 0), (Request::Write(command), 0)] {
        bench.engine.submit(bench.now, request, bench.now + ms(100), asks);
        assert_eq!(bench.sent()[0].header.flags, flags);
    }
}

#[test]
fn what_breaks_a_limit_is_not_sent() {
    let mut bench = Bench::in_session(1);
    let command = Command::Restock { book: book_id(), copies: 0 };
    let token = bench.engine.submit(bench.now, Request::Write(command), bench.now + ms(100), Asks::default());
    let Err(Error::InvalidInput(error)) = bench.end(token).result else { panic!("invalid") };
    assert_eq!(error.known_code(), Some(ErrorCode::InvalidArgument));
    assert_eq!(bench.sent().len(), 0);
}

#[test]
fn a_refused_registration_refuses_the_writes_that_need_it() {
    let mut bench = Bench::new(1);
    let writes = [bench.write(5_000), bench.write(5_000)];
    bench.accept();
    let sent = bench.sent();
    assert_eq!(sent.len(), 1);
    bench.refuse(&sent[0], ErrorCode::Unsupported);
    for write in writes {
        assert!(matches!(bench.end(write).result, Err(Error::Refused(_))));
    }
    assert_eq!(bench.engine.pending(), 0);
}

#[test]
fn aborting_ends_every_call_as_its_deadline_would() {
    let mut bench = Bench::in_session(1);
    let (sent, read) = (bench.write(60_000), bench.read(60_000));
    bench.sent();
    bench.engine.abort(bench.now);
    assert_eq!(counter_of(&bench.end(sent)), (50, 1));
    assert!(matches!(bench.end(read).result, Err(Error::Unreachable { .. })));
    assert_eq!(bench.engine.poll_action(), Some(Action::Close));
    assert_eq!(bench.engine.next_timeout(), None);
}

/// Draws numbers; the same seed draws the same ones.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A store behind any number of fronts that executes each (session, counter) once, behind a network that loses
/// connections with and without having passed on what was sent.
#[derive(Default)]
struct Store {
    seq: u64,
    answers: BTreeMap<(u64, u64), u64>,
}

impl Store {
    fn take(&mut self, sent: &Sent) -> Option<BytesMut> {
        let mut out = BytesMut::new();
        let id = sent.header.request_id;
        if sent.is(Kind::Hello) {
            frame::write(&mut out, 0, 0, 0, &hello_ok(CLUSTER));
        } else if sent.is(Kind::OpenSession) {
            self.seq += 1;
            frame::write(&mut out, id, 0, 0, &SessionOpened { session: self.seq });
        } else if sent.is(Kind::Write) {
            let seq = *self.answers.entry(sent.id()).or_insert_with(|| {
                self.seq += 1;
                self.seq
            });
            frame::write(&mut out, id, 0, 0, &write_ok(seq));
        } else if sent.is(Kind::Ping) {
            frame::write(&mut out, id, 0, 0, &pygmy_proto::message::Pong {});
        } else {
            return None;
        }
        Some(out)
    }
}

fn storm(seed: u64) -> (usize, Vec<(Token, Completion)>) {
    let mut dice = Dice(seed);
    let mut bench = Bench::new(3);
    let mut store = Store::default();
    let mut tokens = Vec::new();
    for step in 0..4_000 {
        if step < 2_000 && dice.below(4) == 0 {
            tokens.push(bench.write(300 + dice.below(3_000)));
        }
        while let Some(action) = bench.engine.poll_action() {
            match action {
                Action::Connect { .. } if dice.below(3) > 0 => bench.engine.on_connected(bench.now),
                Action::Connect { .. } => bench.engine.on_disconnected(bench.now, Cause::NotReached("dice".into())),
                Action::Close => {}
            }
        }
        for sent in bench.sent() {
            let answer = store.take(&sent);
            match dice.below(40) {
                0 => bench.lose(),
                1 if sent.is(Kind::Write) => bench.refuse(&sent, ErrorCode::OutcomeUnknown),
                2 => {}
                _ => bench.engine.on_bytes(bench.now, &answer.unwrap_or_default()),
            }
        }
        bench.pass(dice.below(8));
    }
    bench.pass(60_000);
    while let Some(done) = bench.engine.poll_completion() {
        bench.done.push(done);
    }
    assert_eq!(bench.engine.pending(), 0, "seed {seed}: every call has ended");
    assert_eq!(bench.done.len(), tokens.len(), "seed {seed}: once");
    check_storm(seed, &store, &bench.done);
    (tokens.len(), bench.done)
}

fn check_storm(seed: u64, store: &Store, done: &[(Token, Completion)]) {
    let mut answered = BTreeSet::new();
    let mut unknown = BTreeSet::new();
    for (_, completion) in done {
        match &completion.result {
            Ok(Reply::Written(write)) => {
                let id = (write.session, write.counter);
                assert_eq!(store.answers.get(&id), Some(&write.seq), "seed {seed}: the first answer");
                assert!(answered.insert(id), "seed {seed}: an identity of its own");
            }
            Err(Error::OutcomeUnknown { session, counter, .. }) => {
                unknown.insert((*session, *counter));
            }
            Err(Error::Unreachable { .. } | Error::Refused(_)) => {}
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    for id in store.answers.keys() {
        assert!(answered.contains(id) || unknown.contains(id), "seed {seed}: {id:?} was done and is reported as not");
    }
}

#[test]
fn in_a_storm_nothing_done_is_reported_as_not_done() {
    for seed in 0..40 {
        storm(seed);
    }
}

#[test]
fn equal_inputs_give_equal_outputs() {
    assert_eq!(storm(7), storm(7));
}
