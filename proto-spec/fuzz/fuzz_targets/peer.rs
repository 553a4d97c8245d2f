//! Bodies of what servers tell each other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pygmy_proto::Kind;

const KINDS: &[Kind] = &[
    Kind::Submit,
    Kind::Results,
    Kind::Members,
    Kind::Floor,
    Kind::FloorOk,
    Kind::FeedOpen,
    Kind::FeedOk,
    Kind::Feed,
    Kind::FeedRead,
    Kind::Data,
    Kind::Token,
    Kind::Want,
    Kind::Ack,
    Kind::Commit,
    Kind::Fetch,
    Kind::FetchRefused,
    Kind::PreVote,
    Kind::PreVoteAnswer,
    Kind::Prepare,
    Kind::Promise,
    Kind::Install,
    Kind::Reject,
    Kind::Barrier,
    Kind::BarrierAnswer,
    Kind::SnapshotFetch,
    Kind::SnapshotPart,
    Kind::SnapshotRefused,
];

fuzz_target!(|input: &[u8]| pygmy_proto_fuzz::body_of(KINDS, input));
