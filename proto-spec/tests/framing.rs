//! The framing state machine: what it hands out, what it refuses, and in which order.

mod common;

use bytes::BytesMut;
use pygmy_proto::frame::{self, Deframer, Flow, FrameError};
use pygmy_proto::header::{HEADER_LEN, HeaderView, checksum};
use pygmy_proto::limits::{CLIENT_BODY_MAX, HELLO_BODY_MAX};
use pygmy_proto::message::{Ping, Pong};
use pygmy_proto::{ErrorCode, Kind};

fn frame_of(len: usize) -> BytesMut {
    let mut out = BytesMut::new();
    frame::write_raw(&mut out, Kind::Write as u16, 1, 0, 0, &vec![9; len]);
    out
}

/// Feeds `bytes` to a new deframer; the frames handed out and the end.
fn feed(bytes: &[u8], body_max: usize) -> (usize, Result<(), FrameError>) {
    let mut count = 0;
    let fed = Deframer::new(body_max).feed(bytes, |_, _| {
        count += 1;
        Flow::Continue
    });
    (count, fed)
}

#[test]
fn a_body_may_be_as_long_as_the_limit() {
    for len in [0, 1, HELLO_BODY_MAX] {
        assert_eq!(feed(&frame_of(len), HELLO_BODY_MAX), (1, Ok(())));
    }
    let too_long = FrameError::TooLong { len: HELLO_BODY_MAX as u32 + 1, max: HELLO_BODY_MAX as u32 };
    assert_eq!(feed(&frame_of(HELLO_BODY_MAX + 1), HELLO_BODY_MAX), (0, Err(too_long)));
}

/// Version before length, length before checksum, and the first two before the body has come.
#[test]
fn checks_stand_in_their_order() {
    let mut bytes = frame_of(100);
    bytes[4] ^= 1;
    let found = HeaderView::new(&bytes).expect("a header").crc();
    let bad_checksum = FrameError::Checksum { found, computed: checksum(&bytes) };
    assert_eq!(feed(&bytes, 100), (0, Err(bad_checksum)));
    assert_eq!(feed(&bytes[..bytes.len() - 1], 100), (0, Ok(())), "the checksum waits for the body");
    let too_long = FrameError::TooLong { len: 100, max: 99 };
    assert_eq!(feed(&bytes[..HEADER_LEN], 99), (0, Err(too_long)));
    bytes[8] = 2;
    assert_eq!(feed(&bytes[..HEADER_LEN], 99), (0, Err(FrameError::Version { theirs: 2 })));
    assert_eq!(feed(&bytes[..HEADER_LEN - 1], 99), (0, Ok(())), "nothing is judged before the header is whole");
}

#[test]
fn another_protocol_is_told_ours() {
    let (_, fed) = feed(b"GET / HTTP/1.1\r\nHost: books\r\n\r\n", CLIENT_BODY_MAX);
    let error = fed.expect_err("not ours").to_error();
    assert_eq!(error.known_code(), Some(ErrorCode::VersionUnsupported));
    assert_eq!((error.limit, error.actual), (1, b'T'.into()), "byte 8 of what came");
}

#[test]
fn every_lost_stream_is_told_why() {
    let told = [
        (FrameError::Version { theirs: 9 }, ErrorCode::VersionUnsupported, (1, 9)),
        (FrameError::TooLong { len: 7, max: 5 }, ErrorCode::FrameTooLong, (5, 7)),
        (FrameError::Checksum { found: 1, computed: 2 }, ErrorCode::BadChecksum, (0, 0)),
    ];
    for (error, code, numbers) in told {
        let body = error.to_error();
        assert_eq!((body.known_code(), (body.limit, body.actual)), (Some(code), numbers));
        assert!(code.closes(), "after {code:?} nothing can be trusted");
    }
}

#[test]
fn frames_before_a_bad_one_are_handed_out() {
    let mut bytes = frame_of(10);
    bytes.extend_from_slice(&frame_of(20));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(matches!(feed(&bytes, 100), (1, Err(FrameError::Checksum { .. }))));
}

#[test]
fn stopping_drops_the_rest() {
    let mut bytes = frame_of(10);
    bytes.extend_from_slice(&frame_of(20));
    for split in [bytes.len(), 5] {
        let mut deframer = Deframer::new(100);
        let mut bodies = Vec::new();
        for piece in [&bytes[..split], &bytes[split..]] {
            if bodies.is_empty() {
                let fed = deframer.feed(piece, |_, frame| {
                    bodies.push(frame.body.len());
                    Flow::Stop
                });
                assert_eq!(fed, Ok(()));
            }
        }
        assert_eq!((bodies, deframer.buffered()), (vec![10], 0));
    }
}

/// The end of a handshake raises the limit between two frames of one input.
#[test]
fn a_new_limit_holds_from_the_next_frame_on() {
    let mut bytes = frame_of(10);
    bytes.extend_from_slice(&frame_of(HELLO_BODY_MAX + 1));
    for piece_len in [bytes.len(), 7] {
        let mut deframer = Deframer::new(HELLO_BODY_MAX);
        let mut bodies = Vec::new();
        for piece in bytes.chunks(piece_len) {
            let fed = deframer.feed(piece, |deframer, frame| {
                bodies.push(frame.body.len());
                deframer.set_body_max(CLIENT_BODY_MAX);
                Flow::Continue
            });
            assert_eq!(fed, Ok(()));
        }
        assert_eq!(bodies, [10, HELLO_BODY_MAX + 1]);
    }
}

#[test]
fn whole_frames_are_lent_and_not_kept() {
    let bytes = frame_of(50);
    let range = bytes.as_ptr_range();
    let mut deframer = Deframer::new(100);
    let fed = deframer.feed(&bytes, |_, frame| {
        assert!(range.contains(&frame.body.as_ptr()), "the body lies in the input");
        Flow::Continue
    });
    assert_eq!((fed, deframer.buffered()), (Ok(()), 0));
}

#[test]
fn typed_frames_bear_their_kind() {
    let mut out = common::kinds::dirty();
    frame::write(&mut out, 3, 4, 0, &Ping {});
    assert_eq!(out[2..], frame::to_bytes(3, 4, 0, &Ping {})[..]);
    let fed = Deframer::new(0).feed(&out[2..], |_, frame| {
        assert_eq!((frame.kind(), frame.header.request_id, frame.header.aux), (Some(Kind::Ping), 3, 4));
        assert!(frame.decode::<Pong>().is_ok(), "the caller matches kinds, the bodies are equal");
        Flow::Continue
    });
    assert_eq!(fed, Ok(()));
}
