//! `SPEC.md` against the code: its tables are interpreted, its examples are decoded, its numbers are compared.

#[path = "../common/mod.rs"]
mod common;
mod schema;

use std::collections::BTreeMap;

use bytes::BytesMut;
use common::kinds::{self, dirty};
use common::samples::{self, book, id, list, samples};
use common::{hex, strategies};
use proptest::prelude::*;
use pygmy_proto::batch::{Batch, BatchHeader, EntryKind, Stamp, entry_hash};
use pygmy_proto::datagram::{self, Heartbeat};
use pygmy_proto::frame::{self, Deframer, Flow};
use pygmy_proto::header::{FLAG_TRACE, HEADER_LEN, Header};
use pygmy_proto::limits::{self, CLIENT_BODY_MAX};
use pygmy_proto::message::*;
use pygmy_proto::types::{Blob, Name};
use pygmy_proto::{ErrorBody, ErrorCode, Kind, Retry, codec};
use schema::{Schema, rows};

fn schema() -> Schema {
    Schema::read(&common::spec())
}

/// The text from a heading of the second level that begins with `title` to the next one.
fn section(title: &str) -> String {
    let document = common::spec();
    let start = document.find(&format!("\n## {title}")).expect("the heading exists") + 1;
    let rest = &document[start..];
    rest[..rest[3..].find("\n## ").map_or(rest.len(), |end| end + 3)].to_owned()
}

/// The document's tables, taken alone, read a body to its last byte and see the same names and values as the code.
fn agree(schema: &Schema, kind: Kind, flags: u8, body: &[u8]) {
    let seen = kinds::see(kind, flags, body).expect("a valid body");
    let mut rest = body;
    let trace = seen.trace.is_some().then(|| schema.show("list<Span>(32)", &mut rest));
    let (_, name) = schema.kinds.iter().find(|(number, _)| *number == kind as u16).expect("a documented kind");
    let message = schema.show(name, &mut rest);
    assert_eq!((trace, message), (seen.trace, seen.message));
    assert!(rest.is_empty(), "{} bytes of {name} are not in its table", rest.len());
}

#[test]
fn every_kind_is_described_under_its_number() {
    let mut described = schema().kinds;
    described.sort_unstable();
    let known: Vec<(u16, String)> = Kind::ALL.iter().map(|kind| (*kind as u16, format!("{kind:?}"))).collect();
    assert_eq!(described, known);
}

#[test]
fn offsets_and_sizes_follow_from_the_types() {
    schema().check_offsets();
}

#[test]
fn the_tables_decode_every_vector() {
    let schema = schema();
    for sample in samples() {
        let kind = u16::from_le_bytes([sample.frame[10], sample.frame[11]]);
        let kind = Kind::from_u16(kind).expect("a known kind");
        agree(&schema, kind, sample.frame[9], &sample.frame[HEADER_LEN..]);
    }
}

#[test]
fn the_tables_decode_any_message() {
    let schema = schema();
    proptest!(|((kind, body) in strategies::body())| agree(&schema, kind, 0, &body));
}

#[test]
fn the_limits_are_those_of_the_code() {
    macro_rules! constants {
        ($($name:ident)*) => { BTreeMap::from([$((stringify!($name).to_owned(), limits::$name as u64),)*]) };
    }
    let known: BTreeMap<String, u64> = constants!(
        VERSION HELLO_BODY_MAX CLIENT_BODY_MAX PEER_BODY_MAX BOOK_ID_LEN_MAX TITLE_LEN_MAX TOPIC_LEN_MAX NAME_LEN_MAX
        DETAIL_LEN_MAX CREDENTIALS_LEN_MAX CART_LINES_MAX COPIES_MAX COST_CENTS_MAX PUT_BOOKS_MAX PAGE_MAX
        ORDERS_PAGE_MAX TRACE_SPANS_MAX REQUESTS_IN_FLIGHT_MAX CONNECTIONS_MAX JOBS_MAX JOB_BYTES_MAX DEADLINE_MS_MAX
        DEADLINE_MS_DEFAULT HANDSHAKE_MS_MAX CLIENT_OUTPUT_HIGH CLIENT_OUTPUT_MAX CLIENT_STALL_MS_MAX PEER_OUTPUT_MAX
        SESSIONS_MAX SESSION_DISTANCE_MAX SESSION_WINDOW SESSION_RESULT_BYTES_MAX RESULT_BYTES_MAX BATCH_ENTRIES_MAX
        BATCH_BYTES_MAX SUBMIT_JOBS_MAX SUBMIT_BYTES_SOFT REPLICAS_MAX ADDRESS_LEN_MAX REMOVED_MAX BOUNDARIES_MAX NODES_MAX
        SNAPSHOT_PART_BYTES_MAX SNAPSHOT_FILES_MAX SNAPSHOT_FILE_NAME_LEN_MAX DATAGRAM_LEN_MAX FEED_CHANGES_MAX
        STALENESS_MS_MAX
    );
    let documented = rows(&section("9. Limits")).into_iter().map(|row| {
        let value = row[1].replace(',', "").parse().expect("a number");
        (row[0].clone(), value)
    });
    assert_eq!(documented.collect::<BTreeMap<String, u64>>(), known);
    // A limit that is added to the code must be added to the list above, and so to the document.
    let source = std::fs::read_to_string(common::path("src/limits.rs")).expect("the source");
    assert_eq!(source.matches("\npub const ").count(), known.len());
}

#[test]
fn the_error_codes_are_those_of_the_code() {
    let text = section("8. Errors");
    let (_, table) = text.split_once("| code | name |").expect("the table of codes");
    let table = format!("| code | name |{table}");
    let documented: Vec<_> = rows(&table).into_iter().map(|row| row[..4].to_vec()).collect();
    let known = ErrorCode::ALL.iter().map(|code| {
        let closes = if code.closes() { "yes" } else { "no" };
        [(*code as u16).to_string(), code.name().to_owned(), format!("{:?}", code.retry()), closes.to_owned()].to_vec()
    });
    assert_eq!(documented, known.collect::<Vec<_>>());
}

#[test]
fn the_checksum_is_crc_32c() {
    assert!(section("2. The frame header").contains("`123456789` is `0xE3069283`"));
    // The sum leaves bytes 4 to 7 out.
    assert_eq!(pygmy_proto::header::checksum(b"1234....56789"), 0xE306_9283);
}

/// The bytes of an example.
fn example(name: &str) -> Vec<u8> {
    let found = hex::blocks(&common::spec()).into_iter().find(|(block, _)| block == name);
    found.unwrap_or_else(|| panic!("no example {name}")).1
}

/// Decodes an example, compares it with what it should be and encodes that into a dirty buffer.
fn check<M: Message + PartialEq + std::fmt::Debug>(
    name: &str,
    request_id: u64,
    aux: u32,
    trace: &[Span],
    expected: &M,
) {
    let bytes = example(name);
    let flags = if trace.is_empty() { 0 } else { FLAG_TRACE };
    let mut count = 0;
    Deframer::new(CLIENT_BODY_MAX)
        .feed(&bytes, |_, frame| {
            count += 1;
            let Header { kind, flags: found_flags, aux: found_aux, request_id: found_id, version, .. } = frame.header;
            assert_eq!((kind, found_flags, found_aux), (M::KIND as u16, flags, aux), "{name}");
            assert_eq!((found_id, version), (request_id, 1), "{name}");
            let (spans, used) = match flags {
                0 => (Trace::default(), 0),
                _ => codec::decode_prefix::<Trace>(frame.body).expect("a trace"),
            };
            assert_eq!(spans[..], *trace, "{name}");
            assert_eq!(codec::decode::<M>(&frame.body[used..]).as_ref(), Ok(expected), "{name}");
            Flow::Continue
        })
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(count, 1, "{name} is one frame");
    let mut again = dirty();
    frame::write_with(&mut again, M::KIND as u16, request_id, aux, flags, |out: &mut BytesMut| {
        if flags != 0 {
            codec::encode_to(&list::<Span, 32>(trace.to_vec()), out);
        }
        codec::encode_to(expected, out);
    });
    assert_eq!(again[2..], bytes[..], "{name} must read\n{}", hex::format(&again[2..], HEADER_LEN));
}

#[test]
fn example_of_a_handshake() {
    check(
        "hello",
        0,
        0,
        &[],
        &Hello {
            version_min: 1,
            version_max: 1,
            role: Role::Client,
            cluster: [0; 16],
            settings: 0,
            credentials: Blob::default(),
            name: Name::truncated("example"),
            replica: None,
        },
    );
    check(
        "hello-ok",
        0,
        1,
        &[],
        &HelloOk {
            version: 1,
            role: Role::Front,
            node: 1,
            name: Name::truncated("front-1"),
            cluster: std::array::from_fn(|i| 0xa0 + i as u8),
            body_max: limits::CLIENT_BODY_MAX as u32,
            in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX as u32,
            replica: None,
        },
    );
}

#[test]
fn example_of_a_lookup() {
    check("lookup", 1, 2_000, &[], &Lookup { floor: 0, book: id("rpcdummies") });
    check("lookup-ok", 1, 1, &[], &LookupOk { seq: 9, book: book(15, 1) });
    let spans =
        [Span { stage: Stage::Front, node: 1, ns: 180_000 }, Span { stage: Stage::Catalog, node: 5, ns: 40_000 }];
    check("lookup-ok-traced", 5, 1, &spans, &LookupOk { seq: 11, book: book(13, 11) });
}

fn buy() -> Write {
    samples::write(Command::Buy { lines: list(vec![Line { book: id("rpcdummies"), copies: 2 }]) })
}

#[test]
fn example_of_a_write() {
    check("open-session", 2, 0, &[], &OpenSession {});
    check("session-opened", 2, 1, &[], &SessionOpened { session: 10 });
    check("write-buy", 3, 5_000, &[], &buy());
    let order = samples::order_record(11);
    check("write-ok", 3, 1, &[], &WriteOk { seq: 11, outcome: Outcome::Bought { order } });
    let error = ErrorBody::new(ErrorCode::NotEnoughStock).at(12).limit(13, 1_000).subject("rpcdummies");
    let error = error.detail("13 copies are left");
    assert_eq!((error.code, error.retry), (23, Retry::Never));
    check("error", 4, 1, &[], &error);
}

#[test]
fn example_of_a_batch() {
    let bytes = example("batch");
    let batch = Batch::parse(bytes.clone().into()).expect("the example is a batch");
    let epoch = Epoch { counter: 1, node: 0 };
    let stamp = Stamp { epoch, origin: 5, time_us: 1_700_000_000_000_000 };
    let body = codec::encode(&buy());
    let first = entry_hash(0, stamp, 10, EntryKind::Register, &[]);
    let last = entry_hash(first, stamp, 11, EntryKind::Command, &body);
    let text = section("14. Batches of the log");
    for hash in [first, last] {
        assert!(text.contains(&format!("`0x{hash:032x}`")), "the text must name {hash:032x}");
    }
    let expected = BatchHeader {
        epoch,
        origin: 5,
        first_seq: 10,
        time_us: 1_700_000_000_000_000,
        hash_before: 0,
        hash_last: last,
        count: 2,
    };
    assert_eq!(*batch.header(), expected);
    let entries: Vec<_> = batch.entries().map(|entry| (entry.seq, entry.kind, entry.body)).collect();
    assert_eq!(entries, [(10, EntryKind::Register, &[][..]), (11, EntryKind::Command, &body[..])]);
    assert_eq!(samples::batch().bytes()[..], bytes[..], "the builder makes the example");
}

#[test]
fn examples_of_epochs_and_configurations() {
    let text = section("14. Batches of the log");
    let [start, config] = samples::special_batches();
    for (bytes, built) in [(example("batch-new-epoch"), &start), (example("batch-config"), &config)] {
        assert_eq!(Batch::parse(bytes.into()).as_ref(), Ok(built));
        let hash = built.header().hash_last;
        assert!(text.contains(&format!("`0x{hash:032x}`")), "the text must name {hash:032x}");
    }
    assert_eq!(start.header().hash_before, samples::batch().header().hash_last);
    let bodies = [("EpochStart", &start, EntryKind::NewEpoch), ("Membership", &config, EntryKind::Config)];
    for (name, batch, kind) in bodies {
        let entries: Vec<_> = batch.entries().collect();
        assert_eq!(entries.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [kind]);
        let seen = match kind {
            EntryKind::NewEpoch => format!("{:?}", codec::decode::<EpochStart>(entries[0].body).expect("a beginning")),
            _ => format!("{:?}", codec::decode::<Membership>(entries[0].body).expect("a configuration")),
        };
        let mut rest = entries[0].body;
        assert_eq!(schema().show(name, &mut rest), seen);
        assert!(rest.is_empty());
    }
}

/// The kinds of entries have the numbers and the names of their table.
#[test]
fn the_kinds_of_entries_are_those_of_the_code() {
    let text = section("14. Batches of the log");
    let (_, table) = text.split_once("| kind | name | body |").expect("the table of entries");
    let documented: Vec<_> =
        rows(&format!("| kind | name | body |{table}")).into_iter().map(|row| row[..2].to_vec()).collect();
    let known = (0..=u8::MAX).filter_map(EntryKind::from_u8).map(|kind| {
        let name = match kind {
            EntryKind::Register => "register",
            EntryKind::Command => "command",
            EntryKind::NewEpoch => "new epoch",
            EntryKind::Config => "config",
        };
        [(kind as u8).to_string(), name.to_owned()].to_vec()
    });
    assert_eq!(documented, known.collect::<Vec<_>>());
}

/// Compares an example with the vector of the same message; only the header differs, for vectors bear a request id.
fn check_vector<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8], vector: &str) {
    let sample = samples().into_iter().find(|sample| sample.name == vector).expect("a vector of that name");
    let message: M = codec::decode(&sample.frame[HEADER_LEN..]).expect("a valid vector");
    let again = frame::to_bytes(0, 0, 0, &message);
    assert_eq!(bytes, &again[..], "{vector} must read\n{}", hex::format(&again, HEADER_LEN));
}

#[test]
fn examples_of_what_replicas_say() {
    check_vector::<Hello>(&example("hello-replica"), "hello-catalog");
    check_vector::<PreVote>(&example("pre-vote"), "pre-vote");
    check_vector::<PreVoteAnswer>(&example("pre-vote-answer"), "pre-vote-answer");
    check_vector::<Prepare>(&example("prepare"), "prepare");
    check_vector::<Promise>(&example("promise"), "promise");
    check_vector::<Install>(&example("install"), "install");
    check_vector::<Reject>(&example("reject"), "reject");
    check_vector::<Barrier>(&example("barrier"), "barrier");
    check_vector::<BarrierAnswer>(&example("barrier-answer"), "barrier-answer");
}

#[test]
fn examples_of_heartbeats() {
    let key = samples::datagram_key();
    let front = (example("heartbeat-front"), samples::heartbeat_of_front());
    for (bytes, (header, heartbeat)) in [front, (example("heartbeat-replica"), samples::heartbeat_of_replica())] {
        assert_eq!(datagram::read(&bytes, &key).as_ref(), Ok(&(header, heartbeat.clone())));
        assert_eq!(samples::datagram(&header, &heartbeat)[..], bytes[..]);
        check_table_of_datagrams(&bytes, &header, &heartbeat);
    }
}

/// The tables alone find everything where the code has put it.
fn check_table_of_datagrams(bytes: &[u8], header: &datagram::Header, heartbeat: &Heartbeat) {
    let table = rows(&section("15. Heartbeats"));
    let place = |name: &str| {
        let row = table.iter().find(|row| row[3] == name).unwrap_or_else(|| panic!("no row {name}"));
        let from: usize = row[0].parse().expect("an offset");
        from..from + row[1].parse::<usize>().unwrap_or(bytes.len() - datagram::MAC_LEN - from)
    };
    let number = |name| bytes[place(name)].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
    assert_eq!((number("node"), number("boot_nonce")), (header.node.into(), header.boot_nonce));
    assert_eq!((number("counter"), number("version")), (header.counter, datagram::VERSION.into()));
    assert_eq!(bytes[place("magic")], datagram::MAGIC);
    let mut body = &bytes[place("body")];
    assert_eq!(number("length"), body.len() as u64);
    assert_eq!(schema().show("Heartbeat", &mut body), format!("{heartbeat:?}"));
    assert!(body.is_empty());
}

#[test]
fn the_tables_decode_any_heartbeat_and_configuration() {
    let schema = schema();
    proptest!(|((_, heartbeat) in strategies::heartbeat(), membership in strategies::membership())| {
        let bytes = codec::encode(&heartbeat);
        let mut rest = &bytes[..];
        prop_assert_eq!(schema.show("Heartbeat", &mut rest), format!("{heartbeat:?}"));
        prop_assert!(rest.is_empty());
        let bytes = codec::encode(&membership);
        let mut rest = &bytes[..];
        prop_assert_eq!(schema.show("Membership", &mut rest), format!("{membership:?}"));
        prop_assert!(rest.is_empty());
    });
}

/// No example stands in the document that no test compares.
#[test]
fn every_example_is_compared() {
    let source: String = include_str!("main.rs").split_whitespace().collect();
    for (name, _) in hex::blocks(&common::spec()) {
        let checked =
            source.contains(&format!("check(\"{name}\",")) || source.contains(&format!("example(\"{name}\")"));
        assert!(checked, "{name} is compared with nothing");
    }
}
