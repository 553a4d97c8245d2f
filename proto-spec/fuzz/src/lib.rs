//! What the fuzz targets share.

use pygmy_proto::Kind;
use pygmy_proto::codec;
use pygmy_proto::frame::{Deframer, Flow, FrameError};
use pygmy_proto::header::{FLAG_TRACE, Header};
use pygmy_proto::message::{Command, Trace, Write};

#[path = "../../tests/common/kinds.rs"]
mod kinds_source;

/// The path by which the shared module names itself.
mod common {
    pub(crate) use crate::kinds_source as kinds;
}

/// Takes an input apart: two bytes choose one of `kinds` and the flags, the rest is the body.
///
/// Whatever decodes must be the one encoding of its value.
pub fn body_of(kinds: &[Kind], input: &[u8]) {
    let [choice, flags, body @ ..] = input else { return };
    let kind = kinds[usize::from(*choice) % kinds.len()];
    canonical(kind, *flags & FLAG_TRACE, body);
}

fn canonical(kind: Kind, flags: u8, body: &[u8]) {
    let Ok(seen) = common::kinds::see(kind, flags, body) else { return };
    assert_eq!(seen.bytes, body, "{kind:?} has two encodings");
    if kind == Kind::Write
        && let Ok(Write { command, .. }) = codec::decode::<Write>(body)
    {
        check(&command);
    }
}

/// What passes the checks of a command keeps their promises.
fn check(command: &Command) {
    if command.check().is_err() {
        return;
    }
    if let Command::Buy { lines } = command {
        let mut ids: Vec<&str> = lines.iter().map(|line| line.book.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(!lines.is_empty() && ids.len() == lines.len());
        assert!(lines.iter().all(|line| (1..=pygmy_proto::limits::COPIES_MAX).contains(&line.copies)));
    }
}

/// Frames as a deframer handed them out, how the stream ended, and what was left over.
pub type Heard = (Vec<(Header, Vec<u8>)>, Result<(), FrameError>, usize);

/// Feeds `pieces` until one is refused.
pub fn hear<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, body_max: usize) -> Heard {
    let mut deframer = Deframer::new(body_max);
    let mut frames = Vec::new();
    for piece in pieces {
        let fed = deframer.feed(piece, |_, frame| {
            frames.push((frame.header, frame.body.to_vec()));
            Flow::Continue
        });
        if fed.is_err() {
            return (frames, fed, 0);
        }
    }
    let left = deframer.buffered();
    (frames, Ok(()), left)
}

/// A trace must not be read beyond its body.
pub fn trace(bytes: &[u8]) {
    if let Ok((spans, used)) = codec::decode_prefix::<Trace>(bytes) {
        assert_eq!(codec::encode(&spans)[..], bytes[..used]);
    }
}
