//! What holds for all values and all bytes.

mod common;

use common::kinds::{dirty, see, with_message};
use common::strategies as any_;
use proptest::prelude::*;
use pygmy_proto::batch::{Batch, BatchBuilder, EntryKind};
use pygmy_proto::codec;
use pygmy_proto::frame::{self, Deframer, Flow, FrameError};
use pygmy_proto::header::{FLAG_TRACE, Header};
use pygmy_proto::limits::CLIENT_BODY_MAX;
use pygmy_proto::message::{Epoch, Trace};
use pygmy_proto::{Kind, Message};

/// Encoding into a buffer full of other things, then decoding, gives the same value.
fn returns<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> Result<(), TestCaseError> {
    let mut out = dirty();
    codec::encode_to(message, &mut out);
    let returned = codec::decode::<M>(&out[2..]);
    prop_assert_eq!(returned.as_ref(), Ok(message));
    Ok(())
}

macro_rules! all_return {
    ($($name:ident)*) => {
        proptest! {
            $(#[test]
            fn $name(message in any_::$name()) {
                returns(&message)?;
            })*
        }
    };
}

all_return! {
    hello hello_ok error
    lookup search topics books order orders write
    session_opened lookup_ok search_ok topics_ok books_ok order_ok orders_ok write_ok status_ok
    submit results floor_ok feed_open feed_ok feed feed_read data token want ack commit fetch fetch_refused
    pre_vote pre_vote_answer prepare promise install reject
    snapshot_fetch snapshot_part snapshot_refused
}

#[test]
fn messages_without_fields_return() {
    returns(&pygmy_proto::message::Ping {}).expect("Ping");
    returns(&pygmy_proto::message::Pong {}).expect("Pong");
    returns(&pygmy_proto::message::OpenSession {}).expect("OpenSession");
    returns(&pygmy_proto::message::Status {}).expect("Status");
}

/// Whatever decodes is the one encoding of its value.
fn canonical(kind: Kind, flags: u8, body: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(seen) = see(kind, flags, body) {
        prop_assert_eq!(&seen.bytes, body);
    }
    Ok(())
}

#[derive(Debug, Clone)]
enum Harm {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Push(Vec<u8>),
}

fn harm() -> impl Strategy<Value = Harm> {
    let byte = prop_oneof![0_u8..4, Just(255), any::<u8>()];
    prop_oneof![
        4 => (any::<prop::sample::Index>(), byte.clone()).prop_map(|(at, value)| Harm::Set(at, value)),
        1 => any::<prop::sample::Index>().prop_map(Harm::Cut),
        1 => (any::<prop::sample::Index>(), byte).prop_map(|(at, value)| Harm::Insert(at, value)),
        1 => prop::collection::vec(any::<u8>(), 1..9).prop_map(Harm::Push),
    ]
}

fn harmed(mut bytes: Vec<u8>, harms: &[Harm]) -> Vec<u8> {
    for harm in harms {
        match harm {
            Harm::Set(at, value) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            Harm::Set(..) => {}
            Harm::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Harm::Insert(at, value) => bytes.insert(at.index(bytes.len() + 1), *value),
            Harm::Push(tail) => bytes.extend_from_slice(tail),
        }
    }
    bytes
}

proptest! {
    #[test]
    fn traced_answers_return(trace in any_::trace(), (kind, body) in any_::body()) {
        if kind.is_request() {
            return Ok(());
        }
        let traced = [&codec::encode(&trace)[..], &body].concat();
        let seen = see(kind, FLAG_TRACE, &traced);
        prop_assert_eq!(seen.as_ref().map(|s| (&s.trace, &s.bytes)), Ok((&Some(format!("{trace:?}")), &traced)));
        let (found, used) = codec::decode_prefix::<Trace>(&traced).expect("a trace stands first");
        prop_assert_eq!((found, used), (trace, traced.len() - body.len()));
    }

    #[test]
    fn any_bytes_as_any_kind(
        kind in prop::sample::select(Kind::ALL),
        flags in 0..=FLAG_TRACE,
        body in prop::collection::vec(prop_oneof![0_u8..3, any::<u8>()], 0..200),
    ) {
        canonical(kind, flags, &body)?;
    }

    #[test]
    fn harmed_bodies(
        (kind, body) in any_::body(),
        flags in 0..=FLAG_TRACE,
        harms in prop::collection::vec(harm(), 1..4),
    ) {
        canonical(kind, flags, &harmed(body, &harms))?;
    }

    #[test]
    fn every_kind_refuses_what_is_not_whole((kind, body) in any_::body(), at in any::<prop::sample::Index>()) {
        if body.is_empty() {
            return Ok(());
        }
        let cut = &body[..at.index(body.len())];
        with_message!(kind, M => prop_assert!(codec::decode::<M>(cut).is_err()));
    }
}

/// Frames as a deframer handed them out, and how the stream ended.
type Heard = (Vec<(Header, Vec<u8>)>, Result<(), FrameError>, usize);

/// Feeds the pieces until one is refused.
fn hear<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, body_max: usize) -> Heard {
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
    (frames, Ok(()), deframer.buffered())
}

/// `stream` cut at the given places.
fn pieces<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((any_::body(), any::<(u64, u32, u8)>()), 0..6).prop_map(|bodies| {
        let mut out = bytes::BytesMut::new();
        for ((kind, body), (request_id, aux, flags)) in bodies {
            frame::write_raw(&mut out, kind as u16, request_id, aux, flags, &body);
        }
        out.to_vec()
    })
}

proptest! {
    #[test]
    fn a_stream_is_the_same_however_it_is_cut(
        stream in stream(),
        harms in prop::collection::vec(harm(), 0..2),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        body_max in prop_oneof![Just(CLIENT_BODY_MAX), 0_usize..400],
    ) {
        let stream = harmed(stream, &harms);
        let whole = hear([&stream[..]], body_max);
        prop_assert_eq!(&hear(pieces(&stream, &cuts), body_max), &whole);
        prop_assert_eq!(&hear(stream.chunks(1), body_max), &whole);
    }

    #[test]
    fn frames_return(
        (kind, body) in any_::body(),
        (request_id, aux, flags) in any::<(u64, u32, u8)>(),
    ) {
        let mut out = bytes::BytesMut::new();
        frame::write_raw(&mut out, kind as u16, request_id, aux, flags, &body);
        let (frames, end, left) = hear([&out[..]], CLIENT_BODY_MAX);
        prop_assert_eq!((end, left, frames.len()), (Ok(()), 0, 1));
        let (header, found) = &frames[0];
        prop_assert_eq!(found, &body);
        let fields = (header.kind, header.request_id, header.aux, header.flags);
        prop_assert_eq!(fields, (kind as u16, request_id, aux, flags));
    }

    /// The checksum sees every harm that is done to one byte, wherever it stands.
    #[test]
    fn no_changed_byte_goes_unnoticed((kind, body) in any_::body(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut out = bytes::BytesMut::new();
        frame::write_raw(&mut out, kind as u16, 1, 2, 0, &body);
        let at = at.index(out.len());
        out[at] ^= 1 << bit;
        let (frames, end, left) = hear([&out[..]], CLIENT_BODY_MAX);
        // A changed length may make the frame wait for more bytes; every other change is an error.
        prop_assert!(frames.is_empty() && (end.is_err() || (at < 4 && left == out.len())));
    }

    #[test]
    fn batches_return(
        epoch in any::<(u64, u16)>().prop_map(|(counter, node)| Epoch { counter, node }),
        (origin, first_seq, time_us, hash_before) in (any::<u16>(), 1..u64::MAX - 100, any::<u64>(), any::<u128>()),
        bodies in prop::collection::vec((1_u8..=4, prop::collection::vec(any::<u8>(), 0..400)), 1..20),
    ) {
        let kind = |number| EntryKind::from_u8(number).expect("a known kind");
        let mut builder = BatchBuilder::new(epoch, origin, first_seq, time_us, hash_before);
        for (number, body) in &bodies {
            builder.push(kind(*number), body);
        }
        let built = builder.finish().expect("at least one entry");
        let parsed = Batch::parse(built.bytes().clone());
        prop_assert_eq!(parsed.as_ref(), Ok(&built));
        prop_assert_eq!(built.last_seq(), first_seq + bodies.len() as u64 - 1);
        let entries: Vec<_> = built.entries().map(|e| (e.seq, e.kind, e.body.to_vec())).collect();
        let expected: Vec<_> = (first_seq..).zip(bodies).map(|(seq, (number, body))| (seq, kind(number), body)).collect();
        prop_assert_eq!(entries, expected);
    }

    /// A harmed batch is refused, or it is what the builder makes of what is read from it.
    #[test]
    fn harmed_batches(harms in prop::collection::vec(harm(), 1..4)) {
        let [start, config] = common::samples::special_batches();
        for good in [common::samples::batch(), start, config] {
            let bytes = harmed(good.bytes().to_vec(), &harms);
            if let Ok(batch) = Batch::parse(bytes.into()) {
                prop_assert_eq!(common::rebuilt(&batch), batch);
            }
        }
    }
}
