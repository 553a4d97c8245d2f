//! One frame for each kind, each variant of each enum and each error code: the golden vectors are made of these.

use bytes::Bytes;
use pygmy_proto::batch::{Batch, BatchBuilder, EntryKind};
use pygmy_proto::codec;
use pygmy_proto::datagram::{self, DatagramKey, Header, Heartbeat};
use pygmy_proto::error::{ErrorBody, ErrorCode};
use pygmy_proto::frame;
use pygmy_proto::header::FLAG_TRACE;
use pygmy_proto::message::*;
use pygmy_proto::types::{self, BookId, Bounded, Name, Text, Title, Topic};
use pygmy_proto::{Kind, types::Blob};

/// A named frame.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Name of its file in `vectors/`, without the ending.
    pub name: String,
    /// The whole frame.
    pub frame: Bytes,
}

pub fn id(text: &str) -> BookId {
    BookId::new(text).expect("a valid id")
}
pub fn title(text: &str) -> Title {
    types::title(text).expect("a valid title")
}
pub fn topic(text: &str) -> Topic {
    types::topic(text).expect("a valid topic")
}
pub fn list<T: std::fmt::Debug, const N: usize>(items: Vec<T>) -> Bounded<T, N> {
    Bounded::new(items).expect("within the bound")
}
fn name(text: &str) -> Name {
    Name::new(text).expect("a short name")
}
fn blob<const N: usize>(bytes: impl Into<Bytes>) -> Blob<N> {
    Blob::new(bytes.into()).expect("within the bound")
}

pub fn book(stock: u32, changed_seq: u64) -> Book {
    Book {
        id: id("rpcdummies"),
        title: title("RPCs for Dummies."),
        topic: topic("distributed-systems"),
        cost_cents: 35_000,
        stock,
        changed_seq,
    }
}
fn other_book() -> Book {
    Book {
        id: id("A-z_0.9"),
        title: title("Überlänge 漢字 📚"),
        topic: topic("graduate school"),
        cost_cents: 0,
        stock: u32::MAX,
        changed_seq: u64::MAX,
    }
}
fn new_book() -> NewBook {
    let Book { id, title, topic, cost_cents, stock, .. } = book(15, 0);
    NewBook { id, title, topic, cost_cents, stock }
}
fn cart() -> Vec<Line> {
    vec![Line { book: id("rpcdummies"), copies: 2 }, Line { book: id("pioneer"), copies: 1_000_000 }]
}
pub fn order_record(number: u64) -> OrderRecord {
    let line = OrderLine { book: id("rpcdummies"), copies: 2, cost_cents: 35_000, left: 13 };
    OrderRecord { number, time_us: 1_700_000_000_000_000, total_cents: 70_000, lines: list(vec![line]) }
}
fn epoch() -> Epoch {
    Epoch { counter: 0x0102_0304_0506_0708, node: 0x090a }
}
fn replica() -> ReplicaHello {
    ReplicaHello {
        node: 6,
        address: Text::new("10.0.0.6:7006").expect("a short address"),
        log_uuid: std::array::from_fn(|i| 0xb0 + i as u8),
        boot_nonce: 0x1122_3344_5566_7788,
        config_id: 1,
        promised: epoch(),
        last: log_end(),
        committed: 98,
        token_hop: 7,
        want: 3,
        acked: Acked { log_uuid: std::array::from_fn(|i| 0xc0 + i as u8), end: LogEnd { epoch: FIRST, seq: 97 } },
    }
}
pub const FIRST: Epoch = Epoch { counter: 1, node: 0 };
const SECOND: Epoch = Epoch { counter: 2, node: 6 };
fn log_end() -> LogEnd {
    LogEnd { epoch: SECOND, seq: 99 }
}
fn boundaries() -> Boundaries {
    list(vec![Boundary { epoch: FIRST, first_seq: 1 }, Boundary { epoch: SECOND, first_seq: 12 }])
}
fn voter(node: u16, address: &str) -> Voter {
    let address = Text::new(address).expect("a short address");
    Voter { node, log_uuid: [0xb0 + node as u8; 16], holds_token: node >= 5, address }
}
/// Three voters, one of them on an address of its own.
pub fn membership() -> Membership {
    let voters = vec![voter(4, ""), voter(5, ""), voter(6, "10.0.0.6:7006")];
    Membership { id: 1, voters: list(voters), swap: None, removed: list(vec![]) }
}
/// The first change of a replacement: the voter of node 5, which is dead, has gone, and the one that comes is named.
pub fn half_swapped() -> Membership {
    let Membership { voters, .. } = membership();
    let (stay, go): (Vec<Voter>, Vec<Voter>) = voters.into_vec().into_iter().partition(|voter| voter.node != 5);
    let new = Voter { log_uuid: [0xd5; 16], ..go[0].clone() };
    let swap = Some(Swap { old: go[0].log_uuid, new });
    Membership { id: 2, voters: list(stay), swap, removed: list(vec![go[0].log_uuid]) }
}
/// The first process that takes the place of node 5.
fn newcomer() -> Voter {
    Voter { node: 256 + 5, log_uuid: [0xd5; 16], ..voter(5, "10.0.0.9:7005") }
}
fn hello(role: Role) -> Hello {
    let server = role != Role::Client;
    Hello {
        version_min: 1,
        version_max: 1,
        role,
        cluster: if server { std::array::from_fn(|i| 0xa0 + i as u8) } else { [0; 16] },
        settings: if server { 0xfeed_f00d } else { 0 },
        credentials: blob(if server { vec![7; 32] } else { vec![] }),
        name: name(if server { role.name() } else { "example" }),
        replica: matches!(role, Role::Order | Role::Catalog).then(replica),
    }
}
fn hello_ok(role: Role) -> HelloOk {
    HelloOk {
        version: 1,
        role,
        node: if role == Role::Catalog { 6 } else { 1 },
        name: name("front-1"),
        cluster: std::array::from_fn(|i| 0xa0 + i as u8),
        body_max: 262_144,
        in_flight_max: 8_192,
        replica: (role == Role::Catalog).then(replica),
    }
}
pub fn write(command: Command) -> Write {
    Write { session: 10, counter: 1, first_incomplete: 1, command }
}

/// The batch of the example in `SPEC.md` §14.
pub fn batch() -> Batch {
    let buy = write(Command::Buy { lines: list(vec![Line { book: id("rpcdummies"), copies: 2 }]) });
    let mut builder = BatchBuilder::new(Epoch { counter: 1, node: 0 }, 5, 10, 1_700_000_000_000_000, 0);
    builder.push(EntryKind::Register, &[]);
    builder.push(EntryKind::Command, &codec::encode(&buy));
    builder.finish().expect("two entries were pushed")
}

/// The batches of the examples behind that one: an epoch that begins, and the first change of a replacement.
pub fn special_batches() -> [Batch; 2] {
    let before = *batch().header();
    let start = codec::encode(&EpochStart { config_id: 1 });
    let mut builder = BatchBuilder::new(SECOND, 6, 12, 1_700_000_001_000_000, before.hash_last);
    builder.push(EntryKind::NewEpoch, &start);
    let start = builder.finish().expect("an entry was pushed");
    let mut builder = BatchBuilder::new(SECOND, 6, 13, 1_700_000_002_000_000, start.header().hash_last);
    builder.push(EntryKind::Config, &codec::encode(&half_swapped()));
    [start, builder.finish().expect("an entry was pushed")]
}

/// A front's heartbeat.
pub fn heartbeat_of_front() -> (Header, Heartbeat) {
    let header = Header { node: 1, boot_nonce: 0x99aa_bbcc_ddee_ff00, counter: 7 };
    (header, Heartbeat { late_us: 1_500, number: 5, asks: true, hears: list(vec![2, 5, 6]), replica: None })
}

/// A log replica's heartbeat.
pub fn heartbeat_of_replica() -> (Header, Heartbeat) {
    let header = Header { node: 6, boot_nonce: 0x1122_3344_5566_7788, counter: 1 << 40 };
    let beat = ReplicaBeat {
        log_uuid: [0xb6; 16],
        boot_nonce: header.boot_nonce,
        promised: SECOND,
        config_id: 1,
        hop: 8,
        holder: 6,
        claims: true,
        want: 3,
        last: log_end(),
        durable: 98,
        durable_hash: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        committed: 97,
        applied: 96,
        withheld: false,
        fetched: 4_096,
        hears: list(vec![4, 5]),
        late_us: 250,
    };
    (header, Heartbeat { late_us: 300, number: 9_000, asks: false, hears: list(vec![1, 4, 5]), replica: Some(beat) })
}

/// The key of the datagrams in the vectors: that of the cluster and under the credentials of the sample `Hello`s.
pub fn datagram_key() -> DatagramKey {
    DatagramKey::new(&std::array::from_fn(|i| 0xa0 + i as u8), &[7; 32])
}

/// A whole datagram.
pub fn datagram(header: &Header, heartbeat: &Heartbeat) -> Bytes {
    let mut out = bytes::BytesMut::new();
    datagram::write(&mut out, &datagram_key(), header, heartbeat);
    out.freeze()
}

/// The datagrams among the vectors, by name.
pub fn datagrams() -> [(&'static str, Bytes); 2] {
    [("heartbeat-front", heartbeat_of_front()), ("heartbeat-replica", heartbeat_of_replica())]
        .map(|(name, (header, heartbeat))| (name, datagram(&header, &heartbeat)))
}

/// A trace with every stage.
pub fn trace() -> Trace {
    use Stage::*;
    let stages = [Front, Order, Catalog, Token, Replicate, Sync, Apply];
    list(stages.into_iter().zip(1..).map(|(stage, node)| Span { stage, node, ns: 1_000 * u64::from(node) }).collect())
}

struct Samples(Vec<Sample>);

impl Samples {
    fn add<M: Message>(&mut self, name: &str, message: &M) {
        let id = self.0.len() as u64 + 1;
        self.0.push(Sample { name: name.to_owned(), frame: frame::to_bytes(id, 5_000, 0, message) });
    }
}

/// All of them.
pub fn samples() -> Vec<Sample> {
    let mut all = Samples(Vec::new());
    handshakes(&mut all);
    requests(&mut all);
    writes(&mut all);
    answers(&mut all);
    outcomes(&mut all);
    statuses(&mut all);
    errors(&mut all);
    peers(&mut all);
    epochs(&mut all);
    snapshots(&mut all);
    all.0
}

fn handshakes(all: &mut Samples) {
    for role in [Role::Client, Role::Front, Role::Order, Role::Catalog] {
        all.add(&format!("hello-{}", role.name()), &hello(role));
        all.add(&format!("hello-ok-{}", role.name()), &hello_ok(role));
    }
    all.add("ping", &Ping {});
    all.add("pong", &Pong {});
}

fn requests(all: &mut Samples) {
    all.add("open-session", &OpenSession {});
    all.add("lookup", &Lookup { floor: 7, book: id("rpcdummies") });
    all.add("search", &Search { floor: 0, topic: topic("distributed-systems"), limit: 256, after: None });
    let after = Some(id("67720min"));
    all.add("search-next", &Search { floor: 9, topic: topic("graduate school"), limit: 1, after });
    all.add("topics", &Topics { floor: 0, limit: 10, after: None });
    all.add("topics-next", &Topics { floor: 9, limit: 10, after: Some(topic("graduate school")) });
    all.add("books", &Books { floor: 0, limit: 10, after: None });
    let after = Some(BooksCursor { topic: topic("graduate school"), id: id("xenart177") });
    all.add("books-next", &Books { floor: 9, limit: 10, after });
    all.add("order", &Order { floor: 11, number: 11 });
    all.add("orders", &Orders { floor: 0, book: None, limit: 40, before: None });
    all.add("orders-next", &Orders { floor: 9, book: Some(id("pioneer")), limit: 1, before: Some(u64::MAX) });
    all.add("status", &Status {});
    let Voter { log_uuid: new, node, address, .. } = newcomer();
    all.add("replace", &Replace { old: voter(5, "").log_uuid, new, node, address });
}

fn writes(all: &mut Samples) {
    let book = id("rpcdummies");
    all.add("write-buy", &write(Command::Buy { lines: list(cart()) }));
    all.add("write-restock", &write(Command::Restock { book, copies: 12 }));
    all.add("write-reprice", &write(Command::Reprice { book, cost_cents: 100_000_000_000 }));
    all.add("write-add", &write(Command::Add { book: new_book() }));
    all.add("write-retire", &write(Command::Retire { book }));
    all.add("write-put", &write(Command::Put { books: list(vec![new_book()]) }));
}

fn answers(all: &mut Samples) {
    let books = || list(vec![other_book(), book(13, 11)]);
    let cursor = BooksCursor { topic: topic("distributed-systems"), id: id("rpcdummies") };
    let count = TopicCount { topic: topic("distributed-systems"), books: 3 };
    all.add("session-opened", &SessionOpened { session: 10 });
    all.add("lookup-ok", &LookupOk { seq: 9, book: book(15, 1) });
    all.add("search-ok", &SearchOk { seq: 9, total: 3, books: books(), next: Some(id("rpcdummies")) });
    all.add("search-ok-last", &SearchOk { seq: 9, total: 0, books: list(vec![]), next: None });
    let next = Some(topic("distributed-systems"));
    all.add("topics-ok", &TopicsOk { seq: 9, total: 2, topics: list(vec![count]), next });
    all.add("topics-ok-last", &TopicsOk { seq: 9, total: 0, topics: list(vec![]), next: None });
    all.add("books-ok", &BooksOk { seq: 9, total: 7, books: books(), next: Some(cursor) });
    all.add("books-ok-last", &BooksOk { seq: 9, total: 0, books: list(vec![]), next: None });
    all.add("order-ok", &OrderOk { seq: 12, order: order_record(11) });
    let orders = list(vec![order_record(12), order_record(11)]);
    all.add("orders-ok", &OrdersOk { seq: 12, total: 5, orders, next: Some(11) });
    all.add("orders-ok-last", &OrdersOk { seq: 12, total: 0, orders: list(vec![]), next: None });

    let mut traced = codec::encode(&trace()).to_vec();
    traced.extend_from_slice(&codec::encode(&LookupOk { seq: 9, book: book(15, 1) }));
    let mut frame = bytes::BytesMut::new();
    frame::write_raw(&mut frame, Kind::LookupOk as u16, 77, 1, FLAG_TRACE, &traced);
    all.0.push(Sample { name: "lookup-ok-traced".to_owned(), frame: frame.freeze() });
}

fn outcomes(all: &mut Samples) {
    let mut add = |name: &str, outcome| all.add(&format!("write-ok-{name}"), &WriteOk { seq: 11, outcome });
    let book = || book(13, 11);
    add("bought", Outcome::Bought { order: order_record(11) });
    add("restocked", Outcome::Restocked { book: book() });
    add("repriced", Outcome::Repriced { book: book(), old_cost_cents: 1 });
    add("added", Outcome::Added { book: book() });
    add("retired", Outcome::Retired { book: book() });
    add("put", Outcome::Put { added: 1, changed: 2, unchanged: 3 });
}

fn statuses(all: &mut Samples) {
    let status = |role, replica, front| StatusOk {
        node: 3,
        name: name("some-3"),
        role,
        uptime_ms: 123_456,
        clients: 20,
        jobs: 4,
        answered: 1 << 40,
        links: list(vec![
            link(5, true, 2, Share::Full),
            link(6, false, 0, Share::None),
            link(7, true, 1, Share::Starting),
            link(8, true, 0, Share::Spared),
            link(9, true, 3, Share::Suspected),
        ]),
        peers: list(vec![
            peer(1, PeerState::Green, PeerReason::Heard, Some(20)),
            peer(2, PeerState::Yellow, PeerReason::OwnLoopLate, Some(140)),
            peer(5, PeerState::Red, PeerReason::OneWay, Some(3)),
            peer(6, PeerState::Red, PeerReason::NeverHeard, None),
        ]),
        replica,
        front,
        io: IoStatus { system_calls: 1 << 41, syncs: 70_000, received: 1 << 35, sent: 1 << 36, written: 1 << 37 },
    };
    let replica = ReplicaStatus {
        voter: true,
        voters: 5,
        config_id: 2,
        swap: half_swapped().swap,
        epoch: epoch(),
        holder: 5,
        hop: 8,
        last_seq: 100,
        durable: 99,
        committed: 98,
        applied: 97,
        state_hash: 0x0123_4567_89ab_cdef,
        books: 7,
        orders: 2,
        sessions: 1,
        members: list(vec![member(voter(4, ""), true), member(newcomer(), false)]),
    };
    all.add("replace-ok", &ReplaceOk { seq: 13 });
    all.add("status-ok-front", &status(Role::Front, None, Some(front_status())));
    all.add("status-ok-catalog", &status(Role::Catalog, Some(replica), None));
}

fn front_status() -> FrontStatus {
    FrontStatus {
        hits: 1_000_000,
        delayed: 50,
        misses: 2_000,
        coalesced: 30,
        invalidations: 4_000,
        refused: 5,
        emptied: 1,
        fresh_age_ms: Some(42),
        processed: 98,
        feed: 5,
        entries: 900,
        bytes: 123_456,
        bytes_max: 67_108_864,
        waiting: 300,
    }
}

fn link(node: u16, up: bool, in_flight: u32, share: Share) -> LinkStatus {
    LinkStatus { node, up, in_flight, share, moved: 1 << 33 }
}

fn peer(node: u16, state: PeerState, reason: PeerReason, heard_ms: Option<u32>) -> PeerStatus {
    PeerStatus { node, state, reason, heard_ms, limit_ms: 200 + u32::from(node), suspicions: 3, returns: 2 }
}

fn member(of: Voter, voter: bool) -> MemberStatus {
    let Voter { node, log_uuid, address, .. } = of;
    MemberStatus { node, log_uuid, address, voter, withheld: !voter, heard: true, last_seq: 98, durable: 96 }
}

fn errors(all: &mut Samples) {
    for &code in ErrorCode::ALL {
        let body = ErrorBody::new(code).at(11).limit(13, 1_000).subject("rpcdummies").detail("13 copies are left");
        all.add(&format!("error-{}", code.name().replace('_', "-")), &body);
    }
}

fn peers(all: &mut Samples) {
    let body = codec::encode(&write(Command::Buy { lines: list(cart()) }));
    let job = |job, kind: EntryKind, body| SubmitJob { job, deadline_ms: 900, trace: job == 2, kind: kind as u8, body };
    let jobs = vec![job(1, EntryKind::Register, blob(vec![])), job(2, EntryKind::Command, blob(body))];
    all.add("submit", &Submit { jobs: list(jobs) });
    let opened = blob(codec::encode(&SessionOpened { session: 10 }));
    let results = vec![JobResult { job: 1, kind: Kind::SessionOpened as u16, flags: 0, body: opened }];
    all.add("results", &Results { results: list(results) });
    all.add("members", &Members { config_id: 1, voters: membership().voters });
    feeds(all);
    all.add("data", &Data { epoch: epoch(), hop: 8, committed: 9, batch: blob(batch().bytes().clone()) });
    let member = TokenMember { node: 5, boot_nonce: 6, want: 7, served: 8 };
    let durable = TokenDurable { log_uuid: std::array::from_fn(|i| i as u8), durable: 10 };
    all.add(
        "token",
        &Token {
            epoch: epoch(),
            config_id: 1,
            hop: 8,
            next_seq: 12,
            hash_before: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
            committed: 9,
            members: list(vec![member]),
            durable: list(vec![durable]),
        },
    );
    all.add("want", &Want { epoch: epoch(), boot_nonce: 6, number: 7 });
    all.add(
        "ack",
        &Ack { epoch: epoch(), durable: 11, hash: u128::MAX, committed: 9, checked_seq: 1024, checked_hash: 5 },
    );
    all.add("commit", &Commit { epoch: epoch(), committed: 11 });
    all.add("fetch", &Fetch { epoch: epoch(), from_seq: 5, hash_before: 1 });
    all.add("fetch-refused", &FetchRefused { epoch: epoch(), first_seq: 6, last_seq: 11 });
}

fn feeds(all: &mut Samples) {
    all.add("floor", &Floor {});
    all.add("floor-ok", &FloorOk { seq: 99 });
    all.add("feed-open", &FeedOpen { after: Some(97) });
    all.add("feed-open-anew", &FeedOpen { after: None });
    all.add("feed-ok", &FeedOk { after: 97 });
    let changes = vec![
        FeedChange::Stock { book: id("rpcdummies"), seq: 98, stock: 13 },
        FeedChange::Cost { book: id("pioneer"), seq: 99, cost_cents: 1_999 },
        FeedChange::Book { book: book(15, 100) },
        FeedChange::Gone { book: id("A-z_0.9"), seq: 101 },
        FeedChange::Listing { topic: topic("distributed-systems"), seq: 100 },
    ];
    all.add("feed", &Feed { after: 97, upto: 101, changes: list(changes) });
    all.add("feed-read", &FeedRead { bytes: 65_536 });
}

fn epochs(all: &mut Samples) {
    let [start, config] = special_batches();
    let [start, config] = [start, config].map(|batch| blob(batch.bytes().clone()));
    all.add("data-new-epoch", &Data { epoch: SECOND, hop: 1, committed: 11, batch: start });
    all.add("data-config", &Data { epoch: SECOND, hop: 1, committed: 12, batch: config });
    all.add("pre-vote", &PreVote { epoch: FIRST, attempt: 3, last: LogEnd { epoch: FIRST, seq: 11 } });
    all.add("pre-vote-answer", &PreVoteAnswer { epoch: FIRST, attempt: 3, yes: true });
    let voters = membership().voters.iter().map(|voter| voter.log_uuid).collect();
    all.add("prepare", &Prepare { epoch: SECOND, boot_nonce: 0x1122_3344_5566_7788, voters: list(voters) });
    let promise = Promise {
        epoch: Epoch { counter: 3, node: 5 },
        boot_nonce: 6,
        last: log_end(),
        last_hash: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        committed: 98,
        boundaries: boundaries(),
        membership: membership(),
    };
    all.add("promise", &promise);
    all.add("promise-swap", &Promise { membership: half_swapped(), ..promise });
    all.add("install", &Install { epoch: Epoch { counter: 3, node: 5 }, first_seq: 100, boundaries: boundaries() });
    all.add("reject", &Reject { epoch: SECOND });
}

fn snapshots(all: &mut Samples) {
    let file = |name: &str, len, hash| SnapshotFile { name: Text::new(name).expect("a short name"), len, hash };
    let files = vec![file("snapshot-00000000000000000100", 262_150, 1), file("ledger-00000001", 67_108_864, u128::MAX)];
    all.add("snapshot-fetch", &SnapshotFetch { seq: 100, file: 1, offset: 262_144, len: 262_144 });
    let part = SnapshotPart { seq: 100, head: None, file: 0, offset: 262_144, bytes: blob(&b"pygmy!"[..]) };
    let head = SnapshotHead { epoch: epoch(), entry_hash: 2, files: list(files) };
    all.add("snapshot-part-first", &SnapshotPart { head: Some(head), offset: 0, ..part.clone() });
    all.add("snapshot-part", &part);
    for why in [SnapshotRefusal::Gone, SnapshotRefusal::Busy, SnapshotRefusal::Unreadable] {
        let name = format!("snapshot-refused-{}", format!("{why:?}").to_lowercase());
        all.add(&name, &SnapshotRefused { seq: 100, file: 1, offset: 262_144, why, newest: 200 });
    }
    all.add("barrier", &Barrier { epoch: SECOND, boot_nonce: 0x1122_3344_5566_7788, round: 9 });
    let answer =
        BarrierAnswer { epoch: SECOND, boot_nonce: 0x1122_3344_5566_7788, round: 9, config_id: 4, durable: 12 };
    all.add("barrier-answer", &answer);
}
