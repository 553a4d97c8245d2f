//! The wire protocol of Pygmy.
//!
//! This crate has no sockets, no clock and no threads: bytes go in, typed values come out, and the other way round.
//! `SPEC.md` beside it is normative; the tests read their hex examples from that document.
//!
//! * [`header`]: the fixed 24-byte frame header, as a view over bytes and as a struct of values.
//! * [`frame`]: the framing state machine: a byte stream, cut anywhere, in; whole checked frames out.
//! * [`codec`]: the only module that knows which library writes the bodies.
//! * [`message`]: one struct for each body.
//! * [`batch`]: the layout of log entries, shared by the wire and the log.
//! * [`datagram`]: heartbeats between nodes, each under a keyed hash, and the guard against their repetition.
//! * [`limits`], [`error`]: every bound and every error code, in one place each.
//! * [`inventory`]: the text formats in which book lists are imported and exported.
//!
//! No function here panics on any input, and nothing is allocated before its limit has been checked.

pub mod batch;
pub mod codec;
pub mod crc;
pub mod datagram;
pub mod error;
pub mod frame;
pub mod header;
pub mod inventory;
pub mod limits;
pub mod message;
pub mod types;

pub use error::{ErrorBody, ErrorCode, Retry};
pub use header::{HEADER_LEN, Header, Kind};
pub use message::Message;
pub use types::{BookId, Bounded, InlineStr, Text, Title, Topic};
