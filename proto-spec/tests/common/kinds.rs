//! From the number of a kind to the type of its body.

use bytes::BytesMut;
use pygmy_proto::codec::{self, BodyError};
use pygmy_proto::header::{FLAG_TRACE, Kind};
use pygmy_proto::message::Trace;

/// Evaluates an expression in which `$M` names the message type of `$kind`.
macro_rules! with_message {
    ($kind:expr, $M:ident => $body:expr) => {
        $crate::common::kinds::with_message!(@ $kind, $M, $body,
            Hello HelloOk Ping Pong
            OpenSession Lookup Search Topics Books Order Orders Write Status Replace
            SessionOpened LookupOk SearchOk TopicsOk BooksOk OrderOk OrdersOk WriteOk StatusOk ReplaceOk
            Submit Results Members Floor FloorOk FeedOpen FeedOk Feed FeedRead Data Token Want Ack Commit Fetch FetchRefused
            PreVote PreVoteAnswer Prepare Promise Install Reject Barrier BarrierAnswer
            SnapshotFetch SnapshotPart SnapshotRefused)
    };
    (@ $kind:expr, $M:ident, $body:expr, $($name:ident)*) => {
        match $kind {
            $(pygmy_proto::Kind::$name => {
                type $M = pygmy_proto::message::$name;
                $body
            })*
            pygmy_proto::Kind::Error => {
                type $M = pygmy_proto::ErrorBody;
                $body
            }
        }
    };
}
pub(crate) use with_message;

/// A body, decoded, shown and encoded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The trace's debug form, when the flags say that there is one.
    pub trace: Option<String>,
    /// The message's debug form.
    pub message: String,
    /// What encoding it again gave.
    pub bytes: Vec<u8>,
}

/// A buffer whose spare room is full of other bytes, with two at its beginning that must stay.
pub fn dirty() -> BytesMut {
    let mut out = BytesMut::zeroed(512);
    out.fill(0xa5);
    out.truncate(2);
    out
}

/// Decodes the body of a frame and encodes the value again into a dirty buffer.
pub fn see(kind: Kind, flags: u8, body: &[u8]) -> Result<Seen, BodyError> {
    let mut out = dirty();
    let mut trace = None;
    let mut rest = body;
    if flags & FLAG_TRACE != 0 && !kind.is_request() {
        let (spans, used) = codec::decode_prefix::<Trace>(body)?;
        codec::encode_to(&spans, &mut out);
        trace = Some(format!("{spans:?}"));
        rest = &body[used..];
    }
    let message = with_message!(kind, M => {
        let message: M = codec::decode(rest)?;
        codec::encode_to(&message, &mut out);
        format!("{message:?}")
    });
    assert_eq!(out[..2], [0xa5, 0xa5], "what stood in the buffer before is not touched");
    Ok(Seen { trace, message, bytes: out[2..].to_vec() })
}
