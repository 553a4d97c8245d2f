//! A header from any bytes: read, written again by the framing, the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pygmy_proto::frame;
use pygmy_proto::header::{HEADER_LEN, HeaderView, checksum};
use pygmy_proto::limits::VERSION;

fuzz_target!(|input: &[u8]| {
    let sum = checksum(input);
    let Some(view) = HeaderView::new(input) else {
        assert!(input.len() < HEADER_LEN);
        return;
    };
    let header = view.header();
    let body = &input[HEADER_LEN..];
    let mut out = bytes::BytesMut::new();
    frame::write_raw(&mut out, header.kind, header.request_id, header.aux, header.flags, body);
    if header.version == VERSION && header.body_len as usize == body.len() && header.crc == sum {
        assert_eq!(out[..], *input, "a valid frame is written as it was read");
    }
    let again = HeaderView::new(&out).expect("a frame begins with a header").header();
    assert_eq!(
        (again.kind, again.request_id, again.aux, again.flags),
        (header.kind, header.request_id, header.aux, header.flags)
    );
});
