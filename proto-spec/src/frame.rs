//! Framing: whole frames to bytes, and a byte stream, cut anywhere, to whole checked frames.

use bytes::BytesMut;

use crate::codec;
use crate::error::{ErrorBody, ErrorCode};
use crate::header::{self, HEADER_LEN, Header, HeaderView, Kind};
use crate::limits::VERSION;
use crate::message::Message;

/// Why a byte stream is no longer one of frames. Nothing after it can be trusted: the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another protocol, or another version of ours.
    #[error("protocol version {theirs} is not spoken here, {VERSION} is")]
    Version {
        /// The version byte found.
        theirs: u8,
    },
    /// The body is longer than this connection may send.
    #[error("a body of {len} bytes is above this connection's limit of {max}")]
    TooLong {
        /// Claimed length of the body.
        len: u32,
        /// The most that is allowed here.
        max: u32,
    },
    /// The bytes are not those that were sent.
    #[error("checksum {found:08x} does not match the frame's {computed:08x}")]
    Checksum {
        /// As sent.
        found: u32,
        /// As it should be.
        computed: u32,
    },
}

impl FrameError {
    /// What to tell the other side before closing.
    pub fn to_error(self) -> ErrorBody {
        let body = match self {
            FrameError::Version { theirs } => {
                ErrorBody::new(ErrorCode::VersionUnsupported).limit(VERSION.into(), theirs.into())
            }
            FrameError::TooLong { len, max } => ErrorBody::new(ErrorCode::FrameTooLong).limit(max.into(), len.into()),
            FrameError::Checksum { .. } => ErrorBody::new(ErrorCode::BadChecksum),
        };
        body.detail(&self.to_string())
    }
}

/// Appends a frame with `message` as its body to `out`.
pub fn write<M: Message>(out: &mut BytesMut, request_id: u64, aux: u32, flags: u8, message: &M) {
    write_with(out, M::KIND as u16, request_id, aux, flags, |body| codec::encode_to(message, body));
}

/// Appends a frame whose body is `body`, already encoded, to `out`.
pub fn write_raw(out: &mut BytesMut, kind: u16, request_id: u64, aux: u32, flags: u8, body: &[u8]) {
    write_with(out, kind, request_id, aux, flags, |out| out.extend_from_slice(body));
}

/// Appends a frame whose body `fill` appends.
pub fn write_with(
    out: &mut BytesMut,
    kind: u16,
    request_id: u64,
    aux: u32,
    flags: u8,
    fill: impl FnOnce(&mut BytesMut),
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    fill(out);
    header::seal(&mut out[start..], kind, flags, aux, request_id);
}

/// One frame as bytes of its own.
pub fn to_bytes<M: Message>(request_id: u64, aux: u32, flags: u8, message: &M) -> bytes::Bytes {
    let mut out = BytesMut::new();
    write(&mut out, request_id, aux, flags, message);
    out.freeze()
}

/// A whole frame, its checksum verified.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// The kind, when this version knows it.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_u16(self.header.kind)
    }
    /// The body as a message of type `M`. The caller has matched the kind.
    pub fn decode<M: Message>(&self) -> Result<M, codec::BodyError> {
        codec::decode(self.body)
    }
}

/// What to do after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next frame.
    Continue,
    /// Drop the rest: the connection is about to be closed.
    Stop,
}

/// The framing state machine of one direction of one connection.
///
/// Whole frames in the input are lent from it without copying; only a frame cut by the end of the input is kept,
/// and never more than the checked length of that one frame.
#[derive(Debug)]
pub struct Deframer {
    partial: Vec<u8>,
    body_max: usize,
}

/// A partial buffer above this is given back once its frame is done: idle connections cost nothing.
const PARTIAL_KEEP_MAX: usize = 4 * 1024;

impl Deframer {
    /// A deframer for a connection whose bodies have at most `body_max` bytes.
    pub fn new(body_max: usize) -> Self {
        Self { partial: Vec::new(), body_max }
    }

    /// Changes the limit, as the end of the handshake does. Applies from the next frame on.
    pub fn set_body_max(&mut self, body_max: usize) {
        self.body_max = body_max;
    }

    /// Bytes kept of an incomplete frame.
    pub fn buffered(&self) -> usize {
        self.partial.len()
    }

    /// Takes the next `input` of the stream and hands every frame that it completes to `on_frame`.
    ///
    /// # Errors
    /// A [`FrameError`] says that the stream is lost; feed no more. Frames before the bad one have been handed out.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        mut on_frame: impl FnMut(&mut Self, Frame<'_>) -> Flow,
    ) -> Result<(), FrameError> {
        if !self.partial.is_empty() {
            let Some(frame_len) = self.fill_partial(&mut input)? else { return Ok(()) };
            let mut whole = std::mem::take(&mut self.partial);
            let flow = on_frame(self, open(&whole[..frame_len])?);
            if whole.capacity() <= PARTIAL_KEEP_MAX {
                whole.clear();
                self.partial = whole;
            }
            if flow == Flow::Stop {
                return Ok(());
            }
        }
        while let Some(view) = HeaderView::new(input) {
            let frame_len = self.frame_len(view)?;
            if input.len() < frame_len {
                break;
            }
            let (whole, rest) = input.split_at(frame_len);
            input = rest;
            if on_frame(self, open(whole)?) == Flow::Stop {
                return Ok(());
            }
        }
        self.partial.extend_from_slice(input);
        Ok(())
    }

    /// Moves bytes from `input` to the partial frame until it is whole; its length then, or `None` when input ran out.
    fn fill_partial(&mut self, input: &mut &[u8]) -> Result<Option<usize>, FrameError> {
        if !self.take(input, HEADER_LEN) {
            return Ok(None);
        }
        let Some(view) = HeaderView::new(&self.partial) else { return Ok(None) };
        let frame_len = self.frame_len(view)?;
        Ok(self.take(input, frame_len).then_some(frame_len))
    }

    /// Fills the partial frame up to `want` bytes; false when `input` has too few.
    fn take(&mut self, input: &mut &[u8], want: usize) -> bool {
        let missing = want.saturating_sub(self.partial.len());
        let (now, later) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(now);
        *input = later;
        self.partial.len() >= want
    }

    /// The length of the whole frame, once version and length have been checked.
    fn frame_len(&self, view: HeaderView<'_>) -> Result<usize, FrameError> {
        if view.version() != VERSION {
            return Err(FrameError::Version { theirs: view.version() });
        }
        let len = view.body_len();
        if len as usize > self.body_max {
            return Err(FrameError::TooLong { len, max: self.body_max as u32 });
        }
        Ok(HEADER_LEN + len as usize)
    }
}

/// Verifies the checksum of a whole frame and takes it apart.
fn open(whole: &[u8]) -> Result<Frame<'_>, FrameError> {
    let computed = header::checksum(whole);
    let Some(view) = HeaderView::new(whole) else {
        return Err(FrameError::Checksum { found: 0, computed });
    };
    if view.crc() != computed {
        return Err(FrameError::Checksum { found: view.crc(), computed });
    }
    Ok(Frame { header: view.header(), body: &whole[HEADER_LEN..] })
}
