//! Bodies of the handshake, errors and pings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pygmy_proto::Kind;

const KINDS: &[Kind] = &[Kind::Hello, Kind::HelloOk, Kind::Error, Kind::Ping, Kind::Pong];

fuzz_target!(|input: &[u8]| pygmy_proto_fuzz::body_of(KINDS, input));
