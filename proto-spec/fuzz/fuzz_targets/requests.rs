//! Bodies of what clients ask.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pygmy_proto::Kind;

const KINDS: &[Kind] = &[
    Kind::OpenSession,
    Kind::Lookup,
    Kind::Search,
    Kind::Topics,
    Kind::Books,
    Kind::Order,
    Kind::Orders,
    Kind::Write,
    Kind::Status,
    Kind::Replace,
];

fuzz_target!(|input: &[u8]| pygmy_proto_fuzz::body_of(KINDS, input));
