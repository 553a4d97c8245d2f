//! A stream of frames, cut at arbitrary places, is the stream that was not cut.
//!
//! The first bytes of the input: the number of cuts, their distances, whether checksums are mended; the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pygmy_proto::header::{HEADER_LEN, HeaderView, checksum};
use pygmy_proto_fuzz::hear;

const BODY_MAX: usize = 1_024;

fuzz_target!(|input: &[u8]| {
    let [cuts, mend, rest @ ..] = input else { return };
    let cuts = usize::from(*cuts % 16).min(rest.len());
    let (distances, stream) = rest.split_at(cuts);
    let mut stream = stream.to_vec();
    if *mend & 1 == 1 {
        mend_checksums(&mut stream);
    }
    let mut pieces = Vec::new();
    let mut left = &stream[..];
    for distance in distances {
        let (piece, later) = left.split_at(usize::from(*distance).min(left.len()));
        pieces.push(piece);
        left = later;
    }
    pieces.push(left);
    let whole = hear([&stream[..]], BODY_MAX);
    assert_eq!(hear(pieces, BODY_MAX), whole);
    assert_eq!(hear(stream.chunks(1), BODY_MAX), whole);
    assert!(whole.2 < HEADER_LEN + BODY_MAX, "no more is kept than one frame lacks");
});

/// The fuzzer cannot guess a checksum; with the right ones it gets further.
fn mend_checksums(mut stream: &mut [u8]) {
    while let Some(view) = HeaderView::new(stream) {
        let len = HEADER_LEN + view.body_len() as usize;
        if stream.len() < len {
            return;
        }
        let (frame, rest) = stream.split_at_mut(len);
        let sum = checksum(frame);
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
        stream = rest;
    }
}
