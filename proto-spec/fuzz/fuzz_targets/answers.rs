//! Bodies of what clients are answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pygmy_proto::Kind;

const KINDS: &[Kind] = &[
    Kind::SessionOpened,
    Kind::LookupOk,
    Kind::SearchOk,
    Kind::TopicsOk,
    Kind::BooksOk,
    Kind::OrderOk,
    Kind::OrdersOk,
    Kind::WriteOk,
    Kind::StatusOk,
    Kind::ReplaceOk,
];

fuzz_target!(|input: &[u8]| {
    pygmy_proto_fuzz::trace(input);
    pygmy_proto_fuzz::body_of(KINDS, input);
});
