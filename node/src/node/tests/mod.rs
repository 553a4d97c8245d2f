//! A node among servers and clients that the test plays, frame by frame.

use bytes::BytesMut;
use pygmy_proto::datagram::{self, DatagramKey, Heartbeat};
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::header::FLAG_TRACE;
use pygmy_proto::limits::{JOBS_MAX, PEER_BODY_MAX, REQUESTS_IN_FLIGHT_MAX, VERSION};
use pygmy_proto::message::*;
use pygmy_proto::types::{Blob, Text};
use pygmy_proto::{BookId, Header};

mod cache;

use super::*;
use crate::machine::ms;
use crate::settings::{ClusterSettings, NodeSettings, TokenMode};

const ROLES: [Role; 5] = [Role::Front, Role::Order, Role::Order, Role::Catalog, Role::Catalog];
const FRONT: u16 = 1;
const ORDERS: [u16; 2] = [2, 3];
const CATALOGS: [u16; 2] = [4, 5];

fn cluster() -> ClusterSettings {
    let node = |(index, role): (usize, &Role)| NodeSettings {
        number: index as u16 + 1,
        name: format!("{}-{}", role.name(), index + 1),
        role: *role,
        address: String::new(),
        log_uuid: [index as u8 + 1; 16],
    };
    let nodes = ROLES.iter().enumerate().map(node).collect();
    ClusterSettings { id: [7; 16], key: vec![9; 32], token: TokenMode::Demand, cache_bytes: 0, nodes }
}

fn datagram_key() -> DatagramKey {
    DatagramKey::new(&cluster().id, &cluster().key)
}

/// A frame as the test sees it.
#[derive(Debug, Clone)]
struct Seen {
    conn: ConnId,
    header: Header,
    body: Vec<u8>,
}

impl Seen {
    fn decode<M: Message>(&self) -> M {
        assert_eq!(self.header.kind, M::KIND as u16, "{self:?}");
        pygmy_proto::codec::decode(&self.body).expect("a whole body")
    }
    fn error(&self) -> ErrorCode {
        self.decode::<ErrorBody>().known_code().expect("a known code")
    }
}

/// One node and the frames it sends.
struct Bench {
    node: Node,
    now: Now,
    out: Outbox,
    next_conn: u64,
    closed: Vec<(ConnId, CloseReason)>,
    /// What the test's servers say to a front that asks for a barrier; none: they leave it unanswered.
    floor: Option<u64>,
    /// Heartbeats sent, and to whom.
    beats: Vec<(u16, Heartbeat)>,
    /// Datagrams that each other node has sent.
    counters: HashMap<u16, u64>,
}

impl Bench {
    fn new(me: u16) -> Self {
        let cluster = cluster();
        let log_uuid = cluster.nodes[usize::from(me) - 1].log_uuid;
        let now = Now { mono_ns: ms(1_000), wall_us: 1 };
        let node =
            Node::new(Settings { cluster, me, address: String::new(), log_uuid, boot_nonce: 1 }, now).expect("a ring");
        Self {
            node,
            now,
            out: Outbox::new(),
            next_conn: 1,
            closed: Vec::new(),
            floor: Some(0),
            beats: Vec::new(),
            counters: HashMap::new(),
        }
    }

    fn conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    fn input(&mut self, input: Input<'_>) {
        self.node.handle(self.now, input, &mut self.out);
    }

    fn send<M: Message>(&mut self, conn: ConnId, id: u64, aux: u32, flags: u8, message: &M) -> Vec<Seen> {
        let bytes = frame::to_bytes(id, aux, flags, message);
        self.send_bytes(conn, &bytes)
    }

    fn send_bytes(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<Seen> {
        self.take_in(conn, bytes);
        self.turn()
    }

    /// Hands over bytes without ending the turn.
    fn take_in(&mut self, conn: ConnId, bytes: &[u8]) {
        let (node, now, out) = (&mut self.node, self.now, &mut self.out);
        let mut deframer = Deframer::new(PEER_BODY_MAX);
        let fed = deframer.feed(bytes, |_, frame| {
            node.handle(now, Input::Frame { conn, frame }, out);
            Flow::Continue
        });
        if let Err(error) = fed {
            self.input(Input::BadFrame { conn, error });
        }
    }

    /// Ends the turn, and those that the disk asks for, which takes no time here; the frames they sent.
    fn turn(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            let synced = self.one_turn(&mut seen);
            let answered = self.answer_floors(&mut seen);
            if synced.is_empty() && !answered {
                return seen;
            }
            for input in synced {
                self.input(input);
            }
        }
    }

    /// Answers a front that asks for barriers, if the test wants that. Whether there was anything to answer.
    fn answer_floors(&mut self, seen: &mut Vec<Seen>) -> bool {
        let Some(seq) = self.floor else { return false };
        let (asked, rest) = std::mem::take(seen).into_iter().partition(|seen| seen.header.kind == Kind::Floor as u16);
        *seen = rest;
        let asked: Vec<Seen> = asked;
        for ask in &asked {
            let answer = frame::to_bytes(ask.header.request_id, 0, 0, &FloorOk { seq });
            self.take_in(ask.conn, &answer);
        }
        !asked.is_empty()
    }

    /// Ends one turn; what the disk has to say after it.
    fn one_turn(&mut self, seen: &mut Vec<Seen>) -> Vec<Input<'static>> {
        self.node.end_turn(self.now, &mut self.out);
        let mut synced = Vec::new();
        for output in self.out.take_outputs() {
            let (conn, bytes) = match output {
                Output::Append { epoch, batch } => {
                    synced.push(Input::Durable { epoch, seq: batch.last_seq(), hash: batch.header().hash_last });
                    continue;
                }
                Output::Vote(vote) => {
                    synced.push(Input::VoteDurable(vote));
                    continue;
                }
                Output::Datagram { node, range } => {
                    let read = datagram::read(&self.out.bytes()[range], &datagram_key());
                    self.beats.push((node, read.expect("a heartbeat of this cluster").1));
                    continue;
                }
                Output::Frame { conn, range } => (conn, self.out.bytes()[range].to_vec()),
                Output::Shared { conn, bytes } => (conn, bytes.to_vec()),
                Output::Close { conn, reason } => {
                    self.closed.push((conn, reason));
                    continue;
                }
                _ => continue,
            };
            let fed = Deframer::new(PEER_BODY_MAX).feed(&bytes, |_, frame| {
                seen.push(Seen { conn, header: frame.header, body: frame.body.to_vec() });
                Flow::Continue
            });
            fed.expect("a node sends whole frames");
        }
        self.out.recycle(Vec::new());
        synced
    }

    fn pass(&mut self, milliseconds: u64) -> Vec<Seen> {
        self.now.mono_ns += ms(milliseconds);
        self.node.on_timeout(self.now, &mut self.out);
        self.turn()
    }

    /// A heartbeat of `node`, which is no log replica's; whom it hears.
    fn beat(&mut self, node: u16, number: u64, asks: bool, hears: &[u16]) -> Vec<Seen> {
        let counter = self.counters.entry(node).or_default();
        *counter += 1;
        let header = datagram::Header { node, boot_nonce: u64::from(node) + 100, counter: *counter };
        let hears = Bounded::truncated(hears.to_vec());
        let mut bytes = BytesMut::new();
        let heartbeat = Heartbeat { late_us: 0, number, asks, hears, replica: None };
        datagram::write(&mut bytes, &datagram_key(), &header, &heartbeat);
        self.input(Input::Datagram { bytes: &bytes });
        self.turn()
    }

    /// What is thought of `node`.
    fn thinks(&self, node: u16) -> (PeerState, PeerReason) {
        let status = self.node.status(self.now);
        let peer = status.peers.iter().find(|peer| peer.node == node).expect("it is known");
        (peer.state, peer.reason)
    }

    /// A server to which this node connects.
    fn server(&mut self, node: u16) -> ConnId {
        let conn = self.conn();
        self.input(Input::Opened { conn, node });
        let hello: Hello = self.turn()[0].decode();
        assert_eq!((hello.role, hello.settings), (self.node.settings.own().role, cluster().hash()));
        let answer = HelloOk {
            version: VERSION,
            role: ROLES[usize::from(node % 256) - 1],
            node,
            name: Name::truncated(&cluster().nodes[usize::from(node % 256) - 1].name),
            cluster: [7; 16],
            body_max: 1,
            in_flight_max: 1,
            replica: Some(replica_hello(node)),
        };
        self.send(conn, 1, 0, 0, &answer);
        conn
    }

    fn client(&mut self) -> ConnId {
        let conn = self.conn();
        self.input(Input::Accepted { conn });
        let seen = self.send(conn, 1, 0, 0, &hello(Role::Client, "test", [0; 16]));
        let answer: HelloOk = seen[0].decode();
        assert_eq!((seen[0].conn, answer.cluster), (conn, [7; 16]));
        conn
    }

    fn lose(&mut self, conn: ConnId) -> Vec<Seen> {
        self.input(Input::Closed { conn, reason: CloseReason::Broken });
        self.turn()
    }
}

fn replica_hello(node: u16) -> ReplicaHello {
    ReplicaHello {
        node,
        address: Text::default(),
        log_uuid: [node as u8; 16],
        boot_nonce: u64::from(node) + 100,
        config_id: 1,
        promised: Epoch::default(),
        last: LogEnd::default(),
        committed: 0,
        token_hop: 0,
        want: 0,
        acked: Acked::default(),
    }
}

fn hello(role: Role, name: &str, cluster_id: [u8; 16]) -> Hello {
    let server = role != Role::Client;
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        role,
        cluster: cluster_id,
        settings: if server { cluster().hash() } else { 0 },
        credentials: if server { Blob::new(vec![9; 32].into()).expect("short") } else { Blob::default() },
        name: Name::truncated(name),
        replica: None,
    }
}

fn lookup(floor: u64) -> Lookup {
    Lookup { floor, book: BookId::new("a").expect("a valid id") }
}

fn write(counter: u64) -> Write {
    let book = BookId::new("a").expect("a valid id");
    Write { session: 5, counter, first_incomplete: 1, command: Command::Restock { book, copies: 1 } }
}

fn write_ok(seq: u64) -> WriteOk {
    WriteOk { seq, outcome: Outcome::Put { added: 1, changed: 0, unchanged: 0 } }
}

fn book_ok(seq: u64) -> TopicsOk {
    TopicsOk { seq, total: 0, topics: Bounded::default(), next: None }
}

#[test]
fn a_front_spreads_reads_and_writes_and_passes_answers_back() {
    let mut bench = Bench::new(FRONT);
    let catalogs = CATALOGS.map(|node| bench.server(node));
    let orders = ORDERS.map(|node| bench.server(node));
    let client = bench.client();
    let mut went = Vec::new();
    for id in 10..14 {
        went.extend(bench.send(client, id, 0, 0, &lookup(0)).into_iter().map(|seen| seen.conn));
    }
    assert_eq!(went, [catalogs[0], catalogs[1], catalogs[0], catalogs[1]]);
    let sent = bench.send(client, 20, 700, 0, &write(1));
    assert_eq!((sent[0].conn, sent[0].header.aux, sent[0].decode::<Write>()), (orders[0], 700, write(1)));
    let answer = bench.send(orders[0], sent[0].header.request_id, 4, 0, &write_ok(30));
    assert_eq!((answer[0].conn, answer[0].header.request_id, answer[0].header.aux), (client, 20, 4));
    assert_eq!(answer[0].decode::<WriteOk>(), write_ok(30));
}

#[test]
fn a_read_is_never_answered_from_before_what_the_front_has_acknowledged() {
    let mut bench = Bench::new(FRONT);
    bench.server(CATALOGS[0]);
    let order = bench.server(ORDERS[0]);
    let (buyer, reader) = (bench.client(), bench.client());
    let sent = bench.send(buyer, 1, 0, FLAG_TRACE, &write(1));
    let mut traced = BytesMut::new();
    frame::write_with(&mut traced, Kind::WriteOk as u16, sent[0].header.request_id, 4, FLAG_TRACE, |body| {
        let spans = vec![Span { stage: Stage::Order, node: 2, ns: 9 }];
        pygmy_proto::codec::encode_to(&Trace::truncated(spans), body);
        pygmy_proto::codec::encode_to(&write_ok(30), body);
    });
    let answer = bench.send_bytes(order, &traced);
    let (trace, used) = pygmy_proto::codec::decode_prefix::<Trace>(&answer[0].body).expect("a trace");
    assert_eq!(trace.iter().map(|span| span.stage).collect::<Vec<_>>(), [Stage::Front, Stage::Order]);
    assert_eq!(pygmy_proto::codec::decode::<WriteOk>(&answer[0].body[used..]), Ok(write_ok(30)));
    assert_eq!(bench.send(reader, 1, 0, 0, &lookup(0))[0].decode::<Lookup>().floor, 30);
    assert_eq!(bench.send(reader, 2, 0, 0, &lookup(31))[0].decode::<Lookup>().floor, 31);
}

#[test]
fn the_requests_of_a_server_that_goes_move_to_the_next_in_the_same_turn() {
    let mut bench = Bench::new(FRONT);
    let orders = ORDERS.map(|node| bench.server(node));
    let client = bench.client();
    let first = bench.send(client, 1, 0, 0, &write(1));
    assert_eq!(first[0].conn, orders[0]);
    let moved = bench.lose(orders[0]);
    assert_eq!((moved[0].conn, moved[0].decode::<Write>()), (orders[1], write(1)));
    // The write may have been done by the one that went: with nobody left it is not "failed".
    let told = bench.lose(orders[1]);
    assert_eq!((told[0].conn, told[0].error()), (client, ErrorCode::OutcomeUnknown));
    let told = bench.send(client, 2, 0, 0, &write(2));
    assert_eq!(told[0].error(), ErrorCode::Unavailable);
}

#[test]
fn what_one_server_does_not_take_another_gets_but_each_only_once() {
    let mut bench = Bench::new(FRONT);
    let orders = ORDERS.map(|node| bench.server(node));
    let client = bench.client();
    let busy = ErrorBody::new(ErrorCode::Busy);
    let first = bench.send(client, 1, 0, 0, &write(1));
    let second = bench.send(orders[0], first[0].header.request_id, 0, 0, &busy);
    assert_eq!(second[0].conn, orders[1]);
    // What else the first has to complain of changes nothing any more.
    assert!(bench.send(orders[0], first[0].header.request_id, 0, 0, &busy).is_empty());
    let told = bench.send(orders[1], second[0].header.request_id, 0, 0, &busy);
    assert_eq!((told[0].conn, told[0].error()), (client, ErrorCode::Busy));
}

#[test]
fn a_late_write_is_unknown_and_a_late_read_is_late() {
    let mut bench = Bench::new(FRONT);
    bench.server(ORDERS[0]);
    let catalog = bench.server(CATALOGS[0]);
    let client = bench.client();
    bench.send(client, 1, 200, 0, &write(1));
    let sent = bench.send(client, 2, 200, 0, &lookup(0));
    assert!(bench.pass(199).is_empty());
    let told = bench.pass(100);
    let codes: Vec<_> = told.iter().map(|seen| (seen.header.request_id, seen.error())).collect();
    assert_eq!(codes, [(1, ErrorCode::OutcomeUnknown), (2, ErrorCode::DeadlineExceeded)]);
    assert!(bench.send(catalog, sent[0].header.request_id, 0, 0, &book_ok(1)).is_empty());
    let Duty::Front(front) = &bench.node.duty else { panic!("node {FRONT} is a front") };
    assert_eq!(front.next_timeout(), None);
}

#[test]
fn a_request_id_in_flight_twice_ends_the_connection_and_no_other() {
    let mut bench = Bench::new(FRONT);
    bench.server(CATALOGS[0]);
    let (bad, good) = (bench.client(), bench.client());
    bench.send(bad, 1, 0, 0, &lookup(0));
    let other = bench.send(good, 1, 0, 0, &lookup(0));
    let told = bench.send(bad, 1, 0, 0, &lookup(0));
    assert_eq!((told[0].header.request_id, told[0].error()), (0, ErrorCode::RequestIdInUse));
    assert_eq!(bench.closed, [(bad, CloseReason::Misbehaved)]);
    assert!(bench.send(bad, 2, 0, 0, &lookup(0)).is_empty());
    let catalog = other[0].conn;
    assert_eq!(bench.send(catalog, other[0].header.request_id, 0, 0, &book_ok(1))[0].conn, good);
    assert_eq!(bench.node.status(bench.now).jobs, 0);
}

#[test]
fn more_requests_in_flight_than_a_connection_may_have_are_refused_and_disturb_no_other() {
    for me in [FRONT, ORDERS[0], CATALOGS[0]] {
        let mut bench = Bench::new(me);
        if me == FRONT {
            bench.server(CATALOGS[0]);
        }
        let (greedy, other) = (bench.client(), bench.client());
        let max = REQUESTS_IN_FLIGHT_MAX as u64;
        let mut many = BytesMut::new();
        (1..=max).for_each(|id| frame::write(&mut many, id, 600_000, 0, &lookup(8)));
        let told = bench.send_bytes(greedy, &many);
        assert!(told.iter().all(|seen| seen.conn != greedy), "node {me}: none is answered yet");
        // Refused before its body is looked at.
        let mut more = BytesMut::new();
        frame::write_raw(&mut more, Kind::Lookup as u16, max + 1, 0, 0, b"no lookup");
        let error: ErrorBody = bench.send_bytes(greedy, &more)[0].decode();
        assert_eq!((error.known_code(), error.subject.as_str()), (Some(ErrorCode::Busy), "requests in flight"));
        assert_eq!((error.limit, error.actual), (max, max));
        let Pong {} = bench.send(greedy, max + 1, 0, 0, &Ping {})[0].decode();
        let told = bench.send(other, 1, 600_000, 0, &lookup(8));
        assert!(told.iter().all(|seen| seen.header.kind == Kind::Lookup as u16), "node {me}: {told:?}");
        bench.lose(greedy);
        assert_eq!(bench.node.status(bench.now).jobs, 1, "node {me} forgets what nobody waits for");
    }
}

#[test]
fn handshakes_are_refused_with_the_reason() {
    let mut wrong_settings = hello(Role::Front, "front-1", [7; 16]);
    wrong_settings.settings ^= 1;
    let mut wrong_key = hello(Role::Front, "front-1", [7; 16]);
    wrong_key.credentials = Blob::new(vec![8; 32].into()).expect("short");
    let mut future = hello(Role::Client, "x", [0; 16]);
    (future.version_min, future.version_max) = (VERSION + 1, VERSION + 3);
    let cases = [
        (hello(Role::Client, "x", [1; 16]), ErrorCode::WrongCluster),
        (hello(Role::Front, "front-1", [0; 16]), ErrorCode::WrongCluster),
        (future, ErrorCode::VersionUnsupported),
        (wrong_key, ErrorCode::BadCredentials),
        (wrong_settings, ErrorCode::WrongSettings),
        (hello(Role::Front, "nobody", [7; 16]), ErrorCode::NotAMember),
        (hello(Role::Catalog, "catalog-5", [7; 16]), ErrorCode::NotAMember),
    ];
    for (hello, code) in cases {
        let mut bench = Bench::new(CATALOGS[0]);
        let conn = bench.conn();
        bench.input(Input::Accepted { conn });
        let told = bench.send(conn, 1, 0, 0, &hello);
        assert_eq!(told[0].error(), code);
        assert_eq!(bench.closed, [(conn, CloseReason::Refused)], "{code:?}");
    }
}

#[test]
fn what_a_stranger_says_of_itself_cannot_forge_a_line_of_the_log() {
    let bench = Bench::new(FRONT);
    let told = |bytes: &[u8]| {
        let mut why = String::new();
        let fed = Deframer::new(PEER_BODY_MAX).feed(bytes, |_, frame| {
            why = bench.node.judge_answer(CATALOGS[0], &frame).expect_err("it is another server");
            Flow::Continue
        });
        fed.map(|()| why).expect("a whole frame")
    };
    let forged = "x\n[ERROR] all is lost\u{1b}[2J";
    let greeting = HelloOk {
        version: VERSION,
        role: Role::Catalog,
        node: 9,
        name: Name::truncated(forged),
        cluster: [8; 16],
        body_max: 1,
        in_flight_max: 1,
        replica: None,
    };
    let refusal = ErrorBody::new(ErrorCode::WrongCluster).detail(forged);
    for why in [told(&frame::to_bytes(1, 0, 0, &greeting)), told(&frame::to_bytes(1, 0, 0, &refusal))] {
        assert!(why.contains("all is lost") && !why.contains(char::is_control), "{why:?}");
    }
}

#[test]
fn a_first_frame_that_is_no_hello_and_a_second_hello_are_refused() {
    let mut bench = Bench::new(FRONT);
    let conn = bench.conn();
    bench.input(Input::Accepted { conn });
    assert_eq!(bench.send(conn, 1, 0, 0, &lookup(0))[0].error(), ErrorCode::HelloExpected);
    let client = bench.client();
    let told = bench.send(client, 2, 0, 0, &hello(Role::Client, "x", [0; 16]));
    assert_eq!((told[0].header.request_id, told[0].error()), (0, ErrorCode::HelloExpected));
    assert_eq!(bench.closed.len(), 2);
}

#[test]
fn a_request_without_an_id_ends_the_connection() {
    let mut bench = Bench::new(FRONT);
    bench.server(CATALOGS[0]);
    let client = bench.client();
    assert_eq!(bench.send(client, 0, 0, 0, &lookup(0))[0].error(), ErrorCode::Malformed);
    assert_eq!(bench.closed, [(client, CloseReason::Misbehaved)]);
}

#[test]
fn an_order_server_refuses_what_can_never_be_done_and_batches_the_rest() {
    let mut bench = Bench::new(ORDERS[0]);
    let front = accept_front(&mut bench);
    assert_eq!(bench.send(front, 1, 0, 0, &write(1))[0].error(), ErrorCode::Unavailable);
    let catalogs = [accept_catalog(&mut bench, CATALOGS[0]), accept_catalog(&mut bench, CATALOGS[1])];
    let mut nothing = write(1);
    nothing.command = Command::Buy { lines: Bounded::default() };
    assert_eq!(bench.send(front, 2, 0, 0, &nothing)[0].error(), ErrorCode::InvalidArgument);
    for (nobody, field) in [(Write { session: 0, ..write(1) }, "session"), (write(0), "counter")] {
        let told: ErrorBody = bench.send(front, 3, 0, 0, &nobody)[0].decode();
        assert_eq!((told.known_code(), told.subject.as_str()), (Some(ErrorCode::InvalidArgument), field));
    }
    let mut many = BytesMut::new();
    for counter in 1..=3 {
        frame::write(&mut many, 10 + counter, 0, 0, &write(counter));
    }
    let sent = bench.send_bytes(front, &many);
    let submit: Submit = sent[0].decode();
    assert_eq!((sent.len(), sent[0].conn, submit.jobs.len()), (1, catalogs[0], 3));
    // Its body is the client's, byte for byte.
    assert_eq!(*submit.jobs[1].body, *pygmy_proto::codec::encode(&write(2)));
    let sent = bench.send(front, 20, 0, 0, &write(4));
    assert_eq!(sent[0].conn, catalogs[1]);
}

/// An order server with a front and two catalogs.
fn order_server() -> (Bench, ConnId, [ConnId; 2]) {
    let mut bench = Bench::new(ORDERS[0]);
    let front = accept_front(&mut bench);
    let catalogs = CATALOGS.map(|node| accept_catalog(&mut bench, node));
    (bench, front, catalogs)
}

fn accept_front(bench: &mut Bench) -> ConnId {
    let front = bench.conn();
    bench.input(Input::Accepted { conn: front });
    bench.send(front, 1, 0, 0, &hello(Role::Front, "front-1", [7; 16]));
    front
}

/// What became of a job, from a catalog.
fn result(job: u64, kind: Kind, body: &bytes::Bytes) -> Results {
    let body = Blob::new(body.clone()).expect("short");
    Results { results: Bounded::truncated(vec![JobResult { job, kind: kind as u16, flags: 0, body }]) }
}

fn accept_catalog(bench: &mut Bench, node: u16) -> ConnId {
    let conn = bench.conn();
    bench.input(Input::Accepted { conn });
    let mut hello = hello(Role::Catalog, &format!("catalog-{node}"), [7; 16]);
    hello.replica = Some(replica_hello(node));
    let seen = bench.send(conn, 1, 0, 0, &hello);
    let _: HelloOk = seen[0].decode();
    conn
}

#[test]
fn a_catalog_that_goes_or_hands_back_has_its_writes_moved_under_the_same_identity() {
    let (mut bench, front, catalogs) = order_server();
    let sent = bench.send(front, 7, 0, 0, &write(1));
    let job = sent[0].decode::<Submit>().jobs[0].job;
    let busy = pygmy_proto::codec::encode(&ErrorBody::new(ErrorCode::Busy));
    let moved = bench.send(catalogs[0], 0, 0, 0, &result(job, Kind::Error, &busy));
    assert_eq!((moved[0].conn, moved[0].decode::<Submit>().jobs[0].job), (catalogs[1], job));
    let moved = bench.lose(catalogs[1]);
    let again = moved.iter().find(|seen| seen.header.kind == Kind::Submit as u16).expect("it is sent again");
    assert_eq!(
        (again.conn, &*again.decode::<Submit>().jobs[0].body),
        (catalogs[0], &*pygmy_proto::codec::encode(&write(1)))
    );
    let done = pygmy_proto::codec::encode(&write_ok(9));
    let told = bench.send(catalogs[0], 0, 0, 0, &result(job, Kind::WriteOk, &done));
    assert_eq!((told[0].conn, told[0].header.request_id, told[0].decode::<WriteOk>()), (front, 7, write_ok(9)));
    assert!(bench.send(catalogs[0], 0, 0, 0, &result(job, Kind::WriteOk, &done)).is_empty());
}

#[test]
fn an_order_server_that_is_full_refuses_one_more_and_loses_none() {
    let (mut bench, front, catalogs) = order_server();
    let mut writes = BytesMut::new();
    for id in 1..=JOBS_MAX as u64 + 1 {
        frame::write(&mut writes, id, 60_000, 0, &write(id));
    }
    let sent = bench.send_bytes(front, &writes);
    let (refused, given): (Vec<_>, Vec<_>) = sent.iter().partition(|seen| seen.conn == front);
    let told: ErrorBody = refused[0].decode();
    assert_eq!((refused.len(), refused[0].header.request_id), (1, JOBS_MAX as u64 + 1));
    assert_eq!((told.known_code(), told.limit), (Some(ErrorCode::Busy), JOBS_MAX as u64));
    let jobs: Vec<u64> =
        given.iter().flat_map(|seen| seen.decode::<Submit>().jobs.to_vec()).map(|job| job.job).collect();
    assert_eq!(jobs.len(), JOBS_MAX, "all others are with a catalog");
    // One that is answered leaves room for one.
    let done = pygmy_proto::codec::encode(&write_ok(9));
    assert_eq!(bench.send(catalogs[0], 0, 0, 0, &result(jobs[0], Kind::WriteOk, &done))[0].conn, front);
    let sent = bench.send(front, 1, 0, 0, &write(1));
    assert!(catalogs.contains(&sent[0].conn), "it is passed on");
}

#[test]
fn of_two_catalogs_that_had_a_write_the_first_to_have_done_it_is_believed_and_no_complaint_of_the_former() {
    let (mut bench, front, catalogs) = order_server();
    let sent = bench.send(front, 7, 0, 0, &write(1));
    let job = sent[0].decode::<Submit>().jobs[0].job;
    let duty = |bench: &mut Bench, act: fn(&mut crate::roles::order::Order, u16)| {
        let Duty::Order(order, ..) = &mut bench.node.duty else { panic!("an order server") };
        act(order, CATALOGS[0]);
    };
    duty(&mut bench, crate::roles::order::Order::on_suspect);
    let moved = bench.turn();
    let again = moved.iter().find(|seen| seen.header.kind == Kind::Submit as u16).expect("it is sent again");
    assert_eq!((again.conn, again.decode::<Submit>().jobs[0].job), (catalogs[1], job));
    let complaint = pygmy_proto::codec::encode(&ErrorBody::new(ErrorCode::SessionExpired));
    assert!(bench.send(catalogs[0], 0, 0, 0, &result(job, Kind::Error, &complaint)).is_empty());
    let done = pygmy_proto::codec::encode(&write_ok(9));
    let told = bench.send(catalogs[0], 0, 0, 0, &result(job, Kind::WriteOk, &done));
    assert_eq!((told[0].conn, told[0].decode::<WriteOk>()), (front, write_ok(9)));
    assert!(bench.send(catalogs[1], 0, 0, 0, &result(job, Kind::WriteOk, &done)).is_empty(), "once");
    let next = bench.send(front, 8, 0, 0, &write(2));
    assert_eq!(next[0].conn, catalogs[1], "the suspected one gets nothing new");
    duty(&mut bench, crate::roles::order::Order::on_trust);
    bench.turn();
    let conns = [9, 10, 11, 12].map(|id| bench.send(front, id, 0, 0, &write(id))[0].conn);
    assert!(conns.contains(&catalogs[0]), "and has its share when it is heard again: {conns:?}");
}

/// The `Hello` of the second catalog.
fn greet(replica: ReplicaHello) -> bytes::Bytes {
    let mut hello = hello(Role::Catalog, "catalog-5", [7; 16]);
    hello.replica = Some(replica);
    frame::to_bytes(1, 0, 0, &hello)
}

/// Has the first catalog elected by the order servers; the epoch that begins.
fn elect(bench: &mut Bench) -> Epoch {
    fn first<M: Message>(sent: &[Seen]) -> M {
        sent.iter().find(|seen| seen.header.kind == M::KIND as u16).expect("it is sent").decode()
    }
    let orders = ORDERS.map(|node| bench.server(node));
    let other = bench.conn();
    bench.input(Input::Accepted { conn: other });
    // Now all are there, and nobody knows of an epoch.
    let ask: PreVote = first(&bench.send_bytes(other, &greet(replica_hello(CATALOGS[1]))));
    let yes = PreVoteAnswer { epoch: Epoch::default(), attempt: ask.attempt, yes: true };
    let sent = orders.map(|conn| bench.send(conn, 0, 0, 0, &yes)).concat();
    let Prepare { epoch, boot_nonce, .. } = first(&sent);
    let promise = Promise {
        epoch,
        boot_nonce,
        last: LogEnd::default(),
        last_hash: 0,
        committed: 0,
        boundaries: Bounded::default(),
        membership: bench.node.replica().expect("a catalog").ring().membership().clone(),
    };
    let sent = orders.map(|conn| bench.send(conn, 0, 0, 0, &promise)).concat();
    bench.lose(other);
    first::<Install>(&sent).epoch
}

#[test]
fn a_token_meant_for_a_process_never_reaches_the_next_one_under_its_name() {
    let mut bench = Bench::new(CATALOGS[0]);
    let promised = elect(&mut bench);
    let greet = |boot_nonce| greet(ReplicaHello { boot_nonce, promised, want: 1, ..replica_hello(CATALOGS[1]) });
    let is_token = |seen: &&Seen| seen.header.kind == Kind::Token as u16;
    let first = bench.conn();
    bench.input(Input::Accepted { conn: first });
    let sent = bench.send_bytes(first, &greet(1));
    assert_eq!(sent.iter().filter(is_token).map(|seen| seen.conn).collect::<Vec<_>>(), [first]);
    // The link breaks with the token on it, comes back, and breaks again before the turn ends; then another process
    // answers to the name.
    let (second, third) = (bench.conn(), bench.conn());
    bench.input(Input::Closed { conn: first, reason: CloseReason::Broken });
    bench.input(Input::Accepted { conn: second });
    bench.take_in(second, &greet(1));
    bench.input(Input::Closed { conn: second, reason: CloseReason::Broken });
    bench.input(Input::Accepted { conn: third });
    let sent = bench.send_bytes(third, &greet(2));
    assert_eq!(sent.iter().filter(is_token).map(|seen| seen.conn).collect::<Vec<_>>(), [second]);
}

#[test]
fn a_replica_answers_clients_reads_and_sends_their_writes_to_a_front() {
    let mut bench = Bench::new(ORDERS[0]);
    let client = bench.client();
    assert_eq!(bench.send(client, 1, 0, 0, &lookup(0))[0].error(), ErrorCode::UnknownBook);
    assert_eq!(bench.send(client, 2, 0, 0, &write(1))[0].error(), ErrorCode::Unsupported);
    assert!(bench.send(client, 3, 100, 0, &lookup(8)).is_empty(), "it waits for seq 8");
    assert_eq!(bench.pass(200)[0].error(), ErrorCode::DeadlineExceeded);
    let status: StatusOk = bench.send(client, 4, 0, 0, &Status {})[0].decode();
    assert_eq!((status.clients, status.replica.map(|replica| replica.voter)), (1, Some(true)));
    let io = IoStatus { system_calls: 9, syncs: 1, received: 2, sent: 3, written: 4 };
    bench.node.note_io(io);
    let status: StatusOk = bench.send(client, 5, 0, 0, &Status {})[0].decode();
    assert_eq!(status.io, io);
}

#[test]
fn a_leaving_front_finishes_what_it_has_and_sends_the_rest_elsewhere() {
    let mut bench = Bench::new(FRONT);
    let catalog = bench.server(CATALOGS[0]);
    let client = bench.client();
    let sent = bench.send(client, 1, 0, 0, &lookup(0));
    bench.input(Input::Leave);
    let told: ErrorBody = bench.send(client, 2, 0, 0, &lookup(0))[0].decode();
    assert_eq!((told.known_code(), told.subject.as_str()), (Some(ErrorCode::ShuttingDown), "front-1"));
    assert!(!bench.node.left);
    let answer = bench.send(catalog, sent[0].header.request_id, 4, 0, &book_ok(1));
    assert_eq!(answer[0].conn, client);
    assert!(bench.node.left);
}

fn voter(node: u16, address: &str) -> Voter {
    let log_uuid = [node as u8; 16];
    Voter { node, log_uuid, holds_token: true, address: Text::truncated(address) }
}

#[test]
fn a_front_meets_who_takes_a_place_and_lets_go_of_who_had_it() {
    const NEW: u16 = 256 + 5;
    let mut bench = Bench::new(FRONT);
    let catalogs = CATALOGS.map(|node| bench.server(node));
    let client = bench.client();
    let voters = vec![voter(2, ""), voter(3, ""), voter(4, ""), voter(NEW, "127.0.0.1:9")];
    let members = Members { config_id: 3, voters: Bounded::truncated(voters) };
    bench.take_in(catalogs[0], &frame::to_bytes(0, 0, 0, &members));
    let outputs = bench.out.take_outputs();
    let met =
        |output: &Output| matches!(output, Output::Meet { node: NEW, address, dial: true } if address == "127.0.0.1:9");
    assert!(outputs.iter().any(met) && outputs.len() == 1, "{outputs:?}");

    // What the old one has it may finish, but it gets nothing new, and is forgotten when it is gone.
    let new = bench.server(NEW);
    let went: Vec<ConnId> =
        (10..14).flat_map(|id| bench.send(client, id, 0, 0, &lookup(0))).map(|seen| seen.conn).collect();
    assert!(went.contains(&catalogs[0]) && went.contains(&new) && !went.contains(&catalogs[1]), "{went:?}");
    assert!(bench.closed.is_empty());
    bench.input(Input::Closed { conn: catalogs[1], reason: CloseReason::Ended });
    assert!(bench.out.take_outputs().iter().any(|output| matches!(output, Output::Forget { node: 5 })));
    assert!(bench.node.status(bench.now).links.iter().all(|link| link.node != 5));

    // An older configuration, of a replica that lags, changes nothing.
    let old = Members { config_id: 2, voters: Bounded::truncated(vec![voter(5, "127.0.0.1:8")]) };
    bench.take_in(catalogs[0], &frame::to_bytes(0, 0, 0, &old));
    assert!(bench.out.is_empty());
}

/// An attempt to connect that was under way when it was replaced may still succeed, after it was forgotten.
#[test]
fn who_was_replaced_is_forgotten_again_when_it_comes_once_more() {
    const NEW: u16 = 256 + 5;
    let mut bench = Bench::new(FRONT);
    let [stays, goes] = CATALOGS.map(|node| bench.server(node));
    let forgets = |bench: &mut Bench| {
        let outputs = bench.out.take_outputs();
        outputs.iter().filter(|output| matches!(output, Output::Forget { node: 5 })).count()
    };
    let voters = vec![voter(2, ""), voter(3, ""), voter(4, ""), voter(NEW, "127.0.0.1:9")];
    let members = Members { config_id: 3, voters: Bounded::truncated(voters) };
    bench.take_in(stays, &frame::to_bytes(0, 0, 0, &members));
    bench.input(Input::Closed { conn: goes, reason: CloseReason::Ended });
    assert_eq!(forgets(&mut bench), 1);
    let again = bench.server(5);
    assert_eq!(forgets(&mut bench), 0);
    bench.input(Input::Closed { conn: again, reason: CloseReason::Ended });
    assert_eq!(forgets(&mut bench), 1);
    assert!(bench.node.status(bench.now).links.iter().all(|link| link.node != 5));
}

/// A living voter is replaced by two changes; the one between them is of a cluster in which both vote.
#[test]
fn who_still_votes_is_not_forgotten_for_the_one_that_takes_its_place() {
    const NEW: u16 = 256 + 5;
    let mut bench = Bench::new(FRONT);
    let [stays, goes] = CATALOGS.map(|node| bench.server(node));
    let both = vec![voter(2, ""), voter(3, ""), voter(4, ""), voter(5, ""), voter(NEW, "127.0.0.1:9")];
    let members = Members { config_id: 2, voters: Bounded::truncated(both) };
    bench.take_in(stays, &frame::to_bytes(0, 0, 0, &members));
    let knows = |bench: &Bench| bench.node.status(bench.now).links.iter().any(|link| link.node == 5);
    bench.input(Input::Closed { conn: goes, reason: CloseReason::Ended });
    let outputs = bench.out.take_outputs();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Forget { .. })), "{outputs:?}");
    assert!(knows(&bench));

    let new = vec![voter(2, ""), voter(3, ""), voter(4, ""), voter(NEW, "127.0.0.1:9")];
    let members = Members { config_id: 3, voters: Bounded::truncated(new) };
    bench.take_in(stays, &frame::to_bytes(0, 0, 0, &members));
    assert!(bench.out.take_outputs().iter().any(|output| matches!(output, Output::Forget { node: 5 })));
    assert!(!knows(&bench));
}

#[test]
fn who_came_unnamed_and_goes_is_forgotten_and_numbers_must_fit_their_names() {
    const NEW: u16 = 256 + 5;
    let mut bench = Bench::new(4);
    let greet = |bench: &mut Bench, name: &str, number: u16| {
        let conn = bench.conn();
        bench.input(Input::Accepted { conn });
        let replica = ReplicaHello { address: Text::truncated("127.0.0.1:9"), ..replica_hello(number) };
        let hello = Hello { replica: Some(replica), ..hello(Role::Catalog, name, [7; 16]) };
        bench.take_in(conn, &frame::to_bytes(1, 0, 0, &hello));
        (conn, bench.out.take_outputs())
    };
    let refused = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Close { .. }));
    assert!(refused(&greet(&mut bench, "catalog-5", 256 + 3).1), "that is the slot of an order");
    assert!(refused(&greet(&mut bench, "catalog-4", 4).1), "that is this very process");
    let (conn, outputs) = greet(&mut bench, "catalog-5", NEW);
    let met = |output: &Output| matches!(output, Output::Meet { node: NEW, dial: false, .. });
    assert!(outputs.iter().any(met) && !refused(&outputs), "it will dial, being the newer: {outputs:?}");
    bench.input(Input::Closed { conn, reason: CloseReason::Ended });
    assert!(bench.out.take_outputs().iter().any(|output| matches!(output, Output::Forget { node: NEW })));
}

#[test]
fn every_node_sends_heartbeats_to_all_others_from_its_loop() {
    for me in [FRONT, ORDERS[0], CATALOGS[1]] {
        let mut bench = Bench::new(me);
        bench.pass(0);
        for _ in 0..20 {
            bench.pass(50);
        }
        let others: Vec<u16> = (1..=5).filter(|node| *node != me).collect();
        for turn in bench.beats.chunks(others.len()) {
            let mut to: Vec<u16> = turn.iter().map(|(node, _)| *node).collect();
            to.sort_unstable();
            assert_eq!(to, others, "node {me}");
        }
        let numbers: Vec<u64> = bench.beats.iter().step_by(4).map(|(_, beat)| beat.number).collect();
        assert_eq!(numbers, (1..=21).collect::<Vec<_>>());
        let is_front = me == FRONT;
        assert!(bench.beats.iter().all(|(_, beat)| beat.replica.is_none() == is_front && !beat.asks));
    }
}

#[test]
fn who_asks_for_a_heartbeat_gets_one_at_once_and_not_too_often() {
    let mut bench = Bench::new(ORDERS[0]);
    bench.pass(0);
    bench.beats.clear();
    bench.beat(FRONT, 1, false, &[]);
    assert_eq!(bench.beats, []);
    bench.beat(FRONT, 1, true, &[]);
    let answer = bench.beats.pop().expect("an answer");
    assert_eq!((answer.0, answer.1.number, answer.1.asks), (FRONT, 1, false), "out of turn: it is not counted");
    assert!(answer.1.replica.is_some() && answer.1.hears.contains(&FRONT));
    bench.beat(FRONT, 1, true, &[]);
    assert_eq!(bench.beats, []);
    bench.pass(10);
    bench.beat(FRONT, 1, true, &[]);
    assert_eq!(bench.beats.len(), 1);
}

#[test]
fn a_silent_server_is_asked_then_suspected_and_its_jobs_move_though_its_link_stands() {
    let mut bench = Bench::new(FRONT);
    let servers = CATALOGS.map(|node| bench.server(node));
    let client = bench.client();
    let lookup = lookup(0);
    let first = bench.send(client, 1, 0, 0, &lookup)[0].conn;
    let (silent, other) = if first == servers[0] { (0, 1) } else { (1, 0) };
    let mut seen = Vec::new();
    for round in 1..=8_u64 {
        bench.beats.clear();
        seen.extend(bench.pass(25));
        seen.extend(bench.beat(CATALOGS[other], round, false, &[FRONT]));
        let asked: Vec<u16> = bench.beats.iter().filter(|(_, beat)| beat.asks).map(|(node, _)| *node).collect();
        let expected = if (4..8).contains(&round) { vec![CATALOGS[silent]] } else { vec![] };
        assert_eq!(asked, expected, "after {} ms", 25 * round);
        assert_eq!(seen.is_empty(), round < 8, "after {} ms", 25 * round);
    }
    assert_eq!(bench.thinks(CATALOGS[silent]), (PeerState::Red, PeerReason::Silent));
    assert_eq!((seen.len(), seen[0].conn), (1, servers[other]), "the job has moved");
    bench.beat(CATALOGS[silent], 1, false, &[FRONT]);
    assert_eq!(bench.thinks(CATALOGS[silent]).0, PeerState::Green);
    let mut picked: Vec<ConnId> =
        (2..4).map(|id| bench.send(client, id, 0, 0, &lookup).first().expect("it is passed on").conn).collect();
    picked.sort_unstable();
    assert_eq!(picked, servers, "both are used again");
}

#[test]
fn a_connection_that_is_lost_counts_at_once() {
    let mut bench = Bench::new(FRONT);
    assert_eq!(bench.thinks(CATALOGS[0]), (PeerState::Red, PeerReason::NeverHeard));
    let conn = bench.server(CATALOGS[0]);
    assert_eq!(bench.thinks(CATALOGS[0]), (PeerState::Green, PeerReason::Heard));
    bench.input(Input::Closed { conn, reason: CloseReason::Broken });
    bench.turn();
    assert_eq!(bench.thinks(CATALOGS[0]), (PeerState::Red, PeerReason::Reset));
    bench.server(CATALOGS[0]);
    assert_eq!(bench.thinks(CATALOGS[0]), (PeerState::Green, PeerReason::Heard));
}
