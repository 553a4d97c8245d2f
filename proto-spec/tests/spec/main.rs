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
        ORDERS_PAGE_MAX TRACE_SPANS_MAX REQUESTS_IN_FLIGHT_MAX CONNECTIONS_MAX JOBS_MAX DEADLINE_MS_MAX
        DEADLINE_MS_DEFAULT HANDSHAKE_MS_MAX CLIENT_OUTPUT_HIGH CLIENT_OUTPUT_MAX CLIENT_STALL_MS_MAX PEER_OUTPUT_MAX
        SESSIONS_MAX SESSION_DISTANCE_MAX SESSION_WINDOW SESSION_RESULT_BYTES_MAX RESULT_BYTES_MAX BATCH_ENTRIES_MAX
        BATCH_BYTES_MAX SUBMIT_JOBS_MAX SUBMIT_BYTES_SOFT REPLICAS_MAX
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
    let error = ErrorBody::new(ErrorCode::NotEnoughStock).limit(13, 1_000).subject("rpcdummies");
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
