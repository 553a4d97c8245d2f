//! A second decoder, written by others, reads the same bytes: so the layout is that of the document, not of one library.
//!
//! The mirrors below are plain types without any code of this crate; `wincode` derives their layout. They bear the names
//! of the messages, so that both values print the same, and they are written again, so that no byte goes unseen.

mod common;

use common::kinds;
use common::samples::samples;
use common::strategies;
use proptest::prelude::*;
use pygmy_proto::Kind;
use pygmy_proto::codec;
use pygmy_proto::header::{FLAG_TRACE, HEADER_LEN};
use wincode::{SchemaRead, SchemaWrite};

/// Opaque bytes; shown by their number, as the crate does.
#[derive(SchemaRead, SchemaWrite)]
struct Blob(Vec<u8>);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

macro_rules! mirrors {
    ($(struct $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(#[derive(Debug, SchemaRead, SchemaWrite)]
        #[allow(dead_code)] // Read by its debug form.
        struct $name { $($field: $type),* })*
    };
}

macro_rules! mirrored_enums {
    ($(enum $name:ident { $($variant:ident $({ $($field:ident: $type:ty),* })?),* $(,)? })*) => {
        $(#[derive(Debug, SchemaRead, SchemaWrite)]
        #[allow(dead_code)] // Read by its debug form.
        enum $name { $($variant $({ $($field: $type),* })?),* })*
    };
}

mirrored_enums! {
    enum Role { Client, Front, Order, Catalog }
    enum PeerState { Green, Yellow, Red }
    enum Share { None, Full, Starting, Spared, Suspected }
    enum PeerReason { Heard, NeverHeard, Silent, OneWay, Reset, OwnLoopLate }
    enum Retry { Never, Later, Elsewhere, Settle }
    enum SnapshotRefusal { Gone, Busy, Unreadable }
    enum Stage { Front, Order, Catalog, Token, Replicate, Sync, Apply }
    enum FeedChange {
        Stock { book: String, seq: u64, stock: u32 },
        Cost { book: String, seq: u64, cost_cents: u64 },
        Book { book: Book },
        Gone { book: String, seq: u64 },
        Listing { topic: String, seq: u64 },
    }
    enum Command {
        Buy { lines: Vec<Line> },
        Restock { book: String, copies: u32 },
        Reprice { book: String, cost_cents: u64 },
        Add { book: NewBook },
        Retire { book: String },
        Put { books: Vec<NewBook> },
    }
    enum Outcome {
        Bought { order: OrderRecord },
        Restocked { book: Book },
        Repriced { book: Book, old_cost_cents: u64 },
        Added { book: Book },
        Retired { book: Book },
        Put { added: u32, changed: u32, unchanged: u32 },
    }
}

mirrors! {
    struct Epoch { counter: u64, node: u16 }
    struct ReplicaHello {
        node: u16, address: String, log_uuid: [u8; 16], boot_nonce: u64, config_id: u64, promised: Epoch, last: LogEnd,
        committed: u64, token_hop: u64, want: u64, acked: Acked,
    }
    struct LogEnd { epoch: Epoch, seq: u64 }
    struct Acked { log_uuid: [u8; 16], end: LogEnd }
    struct Hello {
        version_min: u8, version_max: u8, role: Role, cluster: [u8; 16], settings: u64,
        credentials: Blob, name: String, replica: Option<ReplicaHello>,
    }
    struct HelloOk {
        version: u8, role: Role, node: u16, name: String, cluster: [u8; 16],
        body_max: u32, in_flight_max: u32, replica: Option<ReplicaHello>,
    }
    struct ErrorBody {
        seq: u64,
        code: u16, retry: Retry, retry_after_ms: u32, limit: u64, actual: u64, subject: String, detail: String,
    }
    struct Ping {}
    struct Pong {}
    struct Span { stage: Stage, node: u16, ns: u64 }

    struct Book { id: String, title: String, topic: String, cost_cents: u64, stock: u32, changed_seq: u64 }
    struct NewBook { id: String, title: String, topic: String, cost_cents: u64, stock: u32 }
    struct Line { book: String, copies: u32 }
    struct OrderLine { book: String, copies: u32, cost_cents: u64, left: u32 }
    struct OrderRecord { number: u64, time_us: u64, total_cents: u64, lines: Vec<OrderLine> }
    struct TopicCount { topic: String, books: u64 }
    struct BooksCursor { topic: String, id: String }

    struct OpenSession {}
    struct Lookup { floor: u64, book: String }
    struct Search { floor: u64, topic: String, limit: u32, after: Option<String> }
    struct Topics { floor: u64, limit: u32, after: Option<String> }
    struct Books { floor: u64, limit: u32, after: Option<BooksCursor> }
    struct Order { floor: u64, number: u64 }
    struct Orders { floor: u64, book: Option<String>, limit: u32, before: Option<u64> }
    struct Write { session: u64, counter: u64, first_incomplete: u64, command: Command }
    struct Status {}

    struct SessionOpened { session: u64 }
    struct LookupOk { seq: u64, book: Book }
    struct SearchOk { seq: u64, total: u64, books: Vec<Book>, next: Option<String> }
    struct TopicsOk { seq: u64, total: u64, topics: Vec<TopicCount>, next: Option<String> }
    struct BooksOk { seq: u64, total: u64, books: Vec<Book>, next: Option<BooksCursor> }
    struct OrderOk { seq: u64, order: OrderRecord }
    struct OrdersOk { seq: u64, total: u64, orders: Vec<OrderRecord>, next: Option<u64> }
    struct WriteOk { seq: u64, outcome: Outcome }
    struct PeerStatus {
        node: u16, state: PeerState, reason: PeerReason, heard_ms: Option<u32>, limit_ms: u32, suspicions: u64, returns: u64,
    }
    struct LinkStatus { node: u16, up: bool, in_flight: u32, share: Share, moved: u64 }
    struct MemberStatus {
        node: u16, log_uuid: [u8; 16], address: String, voter: bool, withheld: bool, heard: bool,
        last_seq: u64, durable: u64,
    }
    struct Replace { old: [u8; 16], new: [u8; 16], node: u16, address: String }
    struct ReplaceOk { seq: u64 }
    struct Members { config_id: u64, voters: Vec<Voter> }
    struct ReplicaStatus {
        voter: bool, voters: u32, config_id: u64, swap: Option<Swap>, epoch: Epoch, holder: u16, hop: u64, last_seq: u64, durable: u64, committed: u64,
        applied: u64, state_hash: u64, books: u64, orders: u64, sessions: u64,
        members: Vec<MemberStatus>,
    }
    struct StatusOk {
        node: u16, name: String, role: Role, uptime_ms: u64, clients: u32, jobs: u32, answered: u64,
        links: Vec<LinkStatus>, peers: Vec<PeerStatus>, replica: Option<ReplicaStatus>, front: Option<FrontStatus>,
        io: IoStatus,
    }
    struct IoStatus { system_calls: u64, syncs: u64, received: u64, sent: u64, written: u64 }
    struct FrontStatus {
        hits: u64, delayed: u64, misses: u64, coalesced: u64, invalidations: u64, refused: u64, emptied: u64,
        fresh_age_ms: Option<u64>, processed: u64, feed: u16, entries: u64, bytes: u64, bytes_max: u64,
        waiting: u32,
    }

    struct SubmitJob { job: u64, deadline_ms: u32, trace: bool, kind: u8, body: Blob }
    struct Submit { jobs: Vec<SubmitJob> }
    struct JobResult { job: u64, kind: u16, flags: u8, body: Blob }
    struct Results { results: Vec<JobResult> }
    struct Floor {}
    struct FloorOk { seq: u64 }
    struct FeedOpen { after: Option<u64> }
    struct FeedOk { after: u64 }
    struct Feed { after: u64, upto: u64, changes: Vec<FeedChange> }
    struct FeedRead { bytes: u64 }
    struct Data { epoch: Epoch, hop: u64, committed: u64, batch: Blob }
    struct TokenMember { node: u16, boot_nonce: u64, want: u64, served: u64 }
    struct TokenDurable { log_uuid: [u8; 16], durable: u64 }
    struct Token {
        epoch: Epoch, config_id: u64, hop: u64, next_seq: u64, hash_before: u128, committed: u64,
        members: Vec<TokenMember>, durable: Vec<TokenDurable>,
    }
    struct Want { epoch: Epoch, boot_nonce: u64, number: u64 }
    struct Ack { epoch: Epoch, durable: u64, hash: u128, committed: u64, checked_seq: u64, checked_hash: u64 }
    struct Commit { epoch: Epoch, committed: u64 }
    struct Fetch { epoch: Epoch, from_seq: u64, hash_before: u128 }
    struct FetchRefused { epoch: Epoch, first_seq: u64, last_seq: u64 }

    struct Voter { node: u16, log_uuid: [u8; 16], holds_token: bool, address: String }
    struct Swap { old: [u8; 16], new: Voter }
    struct Membership { id: u64, voters: Vec<Voter>, swap: Option<Swap>, removed: Vec<[u8; 16]> }
    struct Boundary { epoch: Epoch, first_seq: u64 }
    struct EpochStart { config_id: u64 }
    struct PreVote { epoch: Epoch, attempt: u64, last: LogEnd }
    struct PreVoteAnswer { epoch: Epoch, attempt: u64, yes: bool }
    struct Prepare { epoch: Epoch, boot_nonce: u64, voters: Vec<[u8; 16]> }
    struct Promise {
        epoch: Epoch, boot_nonce: u64, last: LogEnd, last_hash: u128, committed: u64, boundaries: Vec<Boundary>,
        membership: Membership,
    }
    struct Install { epoch: Epoch, first_seq: u64, boundaries: Vec<Boundary> }
    struct Reject { epoch: Epoch }
    struct Barrier { epoch: Epoch, boot_nonce: u64, round: u64 }
    struct BarrierAnswer { epoch: Epoch, boot_nonce: u64, round: u64, config_id: u64, durable: u64 }
    struct SnapshotFetch { seq: u64, file: u32, offset: u64, len: u32 }
    struct SnapshotFile { name: String, len: u64, hash: u128 }
    struct SnapshotHead { epoch: Epoch, entry_hash: u128, files: Vec<SnapshotFile> }
    struct SnapshotPart { seq: u64, head: Option<SnapshotHead>, file: u32, offset: u64, bytes: Blob }
    struct SnapshotRefused { seq: u64, file: u32, offset: u64, why: SnapshotRefusal, newest: u64 }
    struct ReplicaBeat {
        log_uuid: [u8; 16], boot_nonce: u64, promised: Epoch, config_id: u64, hop: u64, holder: u16, claims: bool,
        want: u64, last: LogEnd, durable: u64, durable_hash: u128, committed: u64, applied: u64, withheld: bool,
        fetched: u64, hears: Vec<u16>, late_us: u32,
    }
    struct Heartbeat { late_us: u32, number: u64, asks: bool, hears: Vec<u16>, replica: Option<ReplicaBeat> }
}

/// Reads `body` with `wincode` as the mirror of `kind`; its debug form, and the bytes written again.
fn mirror(kind: Kind, body: &[u8]) -> Result<(String, Vec<u8>), String> {
    macro_rules! read {
        ($($kind:ident => $mirror:ident),* $(,)?) => {
            match kind {
                $(Kind::$kind => {
                    let value: $mirror = wincode::deserialize_exact(body).map_err(|e| e.to_string())?;
                    Ok((format!("{value:?}"), wincode::serialize(&value).map_err(|e| e.to_string())?))
                })*
            }
        };
    }
    read!(
        Hello => Hello, HelloOk => HelloOk, Error => ErrorBody, Ping => Ping, Pong => Pong,
        OpenSession => OpenSession, Lookup => Lookup, Search => Search, Topics => Topics, Books => Books,
        Order => Order, Orders => Orders, Write => Write, Status => Status, Replace => Replace,
        SessionOpened => SessionOpened, LookupOk => LookupOk, SearchOk => SearchOk, TopicsOk => TopicsOk,
        BooksOk => BooksOk, OrderOk => OrderOk, OrdersOk => OrdersOk, WriteOk => WriteOk, StatusOk => StatusOk, ReplaceOk => ReplaceOk,
        Submit => Submit, Results => Results, Members => Members, Floor => Floor, FloorOk => FloorOk,
        FeedOpen => FeedOpen, FeedOk => FeedOk, Feed => Feed, FeedRead => FeedRead, Data => Data, Token => Token, Want => Want, Ack => Ack,
        Commit => Commit, Fetch => Fetch, FetchRefused => FetchRefused,
        PreVote => PreVote, PreVoteAnswer => PreVoteAnswer, Prepare => Prepare, Promise => Promise,
        Install => Install, Reject => Reject, Barrier => Barrier, BarrierAnswer => BarrierAnswer,
        SnapshotFetch => SnapshotFetch, SnapshotPart => SnapshotPart, SnapshotRefused => SnapshotRefused,
    )
}

/// Both decoders see the same fields and values, and both write the same bytes.
fn agree(kind: Kind, body: &[u8]) {
    let seen = kinds::see(kind, 0, body).expect("a valid body");
    let (shown, written) = mirror(kind, body).unwrap_or_else(|e| panic!("wincode, {kind:?}: {e}"));
    assert_eq!(shown, seen.message);
    assert_eq!(written, seen.bytes);
    assert_eq!(written, body);
}

#[test]
fn both_decoders_agree_on_every_vector() {
    for sample in samples() {
        let kind = u16::from_le_bytes([sample.frame[10], sample.frame[11]]);
        let kind = Kind::from_u16(kind).expect("a known kind");
        let mut body = &sample.frame[HEADER_LEN..];
        if sample.frame[9] & FLAG_TRACE != 0 {
            let spans: Vec<Span> = wincode::deserialize(body).expect("a trace");
            let trace = wincode::serialize(&spans).expect("a trace is written");
            assert!(body.starts_with(&trace), "{}", sample.name);
            let seen = kinds::see(kind, FLAG_TRACE, body).expect("a valid body");
            assert_eq!(Some(format!("{spans:?}")), seen.trace, "{}", sample.name);
            body = &body[trace.len()..];
        }
        agree(kind, body);
    }
}

/// The bodies of entries and datagrams, which are no messages, are read and written alike as well.
macro_rules! agree_on {
    ($value:expr, $mirror:ident) => {
        let body = codec::encode($value);
        let read: $mirror = wincode::deserialize_exact(&body).expect("wincode reads it");
        assert_eq!(format!("{read:?}"), format!("{:?}", $value));
        assert_eq!(wincode::serialize(&read).expect("wincode writes it"), body);
    };
}

proptest! {
    #[test]
    fn both_decoders_agree_on_any_configuration(config_id in any::<u64>(), membership in strategies::membership()) {
        agree_on!(&pygmy_proto::message::EpochStart { config_id }, EpochStart);
        agree_on!(&membership, Membership);
    }

    #[test]
    fn both_decoders_agree_on_any_heartbeat((_, heartbeat) in strategies::heartbeat()) {
        agree_on!(&heartbeat, Heartbeat);
    }

    #[test]
    fn both_decoders_agree_on_any_message((kind, body) in strategies::body()) {
        agree(kind, &body);
    }

    /// What this crate takes from arbitrary bytes, the other decoder takes too, and sees the same in it.
    #[test]
    fn nothing_is_taken_that_the_other_refuses(
        (kind, mut body) in strategies::body(),
        at in any::<prop::sample::Index>(),
        value in prop_oneof![0_u8..4, any::<u8>()],
    ) {
        if body.is_empty() {
            return Ok(());
        }
        let at = at.index(body.len());
        body[at] = value;
        if kinds::see(kind, 0, &body).is_ok() {
            agree(kind, &body);
        }
    }
}
