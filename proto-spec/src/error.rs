//! Error codes. The numbers are stable; `SPEC.md` §8 says for each what a client must do, and a test compares the two.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::types::{Detail, InlineStr};

/// Whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Not as it stands: change the request.
    Never,
    /// Nothing was done; the same request, same id, may succeed after `retry_after_ms`.
    Later,
    /// Nothing was done; the same request, same id, may succeed at another server at once.
    Elsewhere,
    /// It may or may not have been done. Ask again with the same session and counter to learn which.
    Settle,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal, $retry:ident;)*) => {
        /// What went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$doc])* $name = $value,)* }
        impl ErrorCode {
            /// Every code, in ascending order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];
            /// The code with this number.
            pub fn from_u16(value: u16) -> Option<Self> {
                match value { $($value => Some(Self::$name),)* _ => None }
            }
            /// The stable name, as `--json` prints it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            /// Whether asking again can help, unless the answer itself says otherwise.
            pub fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)* }
            }
        }
    };
}

impl ErrorCode {
    /// Whether the connection is closed after it whatever its request id: what follows could not be trusted or told apart.
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::FrameTooLong
                | Self::BadChecksum
                | Self::VersionUnsupported
                | Self::WrongCluster
                | Self::WrongSettings
                | Self::BadCredentials
                | Self::HelloExpected
                | Self::RequestIdInUse
                | Self::HandshakeTimeout
                | Self::SlowReader
                | Self::NotAMember
                | Self::Removed
        )
    }
}

codes! {
    /// The body is not the message its kind says.
    Malformed = 1, "malformed", Never;
    /// The frame is longer than the connection may send. Closes the connection.
    FrameTooLong = 2, "frame_too_long", Never;
    /// The checksum does not match. Closes the connection.
    BadChecksum = 3, "bad_checksum", Never;
    /// No common protocol version. Closes the connection.
    VersionUnsupported = 4, "version_unsupported", Never;
    /// The server belongs to another cluster. Closes the connection.
    WrongCluster = 5, "wrong_cluster", Never;
    /// The cluster's settings differ on the two sides. Closes the connection.
    WrongSettings = 6, "wrong_settings", Never;
    /// The credentials are not those of a member. Closes the connection.
    BadCredentials = 7, "bad_credentials", Never;
    /// The first frame was not a `Hello`, or a second one came. Closes the connection.
    HelloExpected = 8, "hello_expected", Never;
    /// The kind is unknown or not served on this connection.
    Unsupported = 9, "unsupported", Never;
    /// The request id is in flight on this connection. Closes the connection: its answers could no longer be told apart.
    RequestIdInUse = 10, "request_id_in_use", Never;
    /// No `Hello` in time. Closes the connection.
    HandshakeTimeout = 11, "handshake_timeout", Never;
    /// Answers were not read. Closes the connection.
    SlowReader = 12, "slow_reader", Never;
    /// This process was refused as a member: its identity is not in the configuration.
    NotAMember = 13, "not_a_member", Never;
    /// The sender's log was a voter once and was replaced: it never counts again. Closes the connection.
    Removed = 14, "removed", Never;

    /// No book has this id.
    UnknownBook = 20, "unknown_book", Never;
    /// No book has this topic.
    UnknownTopic = 21, "unknown_topic", Never;
    /// No order has this number.
    UnknownOrder = 22, "unknown_order", Never;
    /// Fewer copies than asked; `limit` says how many there are.
    NotEnoughStock = 23, "not_enough_stock", Never;
    /// `add` of an id that exists.
    BookExists = 24, "book_exists", Never;
    /// A field is out of its range; `limit` names the bound.
    InvalidArgument = 25, "invalid_argument", Never;
    /// The stock would exceed what a count can hold; `limit` says how many copies can still be added.
    StockOverflow = 26, "stock_overflow", Never;

    /// A queue is full, or the server is starting or still catching up with the log; nothing was done.
    Busy = 40, "busy", Later;
    /// No server that could do it is connected; nothing was done.
    Unavailable = 41, "unavailable", Later;
    /// A read was not answered in time.
    DeadlineExceeded = 42, "deadline_exceeded", Later;
    /// A write was not answered in time: it may or may not take effect.
    OutcomeUnknown = 43, "outcome_unknown", Settle;
    /// The server is leaving; nothing was done.
    ShuttingDown = 44, "shutting_down", Elsewhere;
    /// The voters cannot be changed like this now; nothing was done.
    ChangeRefused = 45, "change_refused", Later;

    /// The session is unknown, evicted, or the counter lies below the declared first incomplete one. Never executed now.
    SessionExpired = 60, "session_expired", Never;
    /// The same (session, counter) was used with another payload.
    IdReused = 61, "id_reused", Never;
    /// The counter is too far above the first incomplete one, or the session holds too many results; nothing was done.
    WindowFull = 62, "window_full", Later;
}

/// The body of an `Error` frame.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ErrorBody {
    /// The log position that it reflects, when it is an answer from the store's state: as in any other answer. Else 0.
    pub seq: u64,
    /// Number of the [`ErrorCode`]; a client takes an unknown one as its `retry` says.
    pub code: u16,
    /// Whether asking again can help.
    pub retry: Retry,
    /// With [`Retry::Later`]: a good time to wait, in milliseconds.
    pub retry_after_ms: u32,
    /// The limit that was hit, 0 where there is none.
    pub limit: u64,
    /// What stood against it, 0 where there is none.
    pub actual: u64,
    /// What it is about: a book, a topic, a field, a server.
    pub subject: InlineStr<64>,
    /// A sentence for a person, with the next step.
    pub detail: Detail,
}

impl ErrorBody {
    /// An error with its code's usual retry advice.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            seq: 0,
            code: code as u16,
            retry: code.retry(),
            retry_after_ms: if code.retry() == Retry::Later { 20 } else { 0 },
            limit: 0,
            actual: 0,
            subject: InlineStr::EMPTY,
            detail: Detail::default(),
        }
    }
    /// With the log position that it reflects.
    pub fn at(mut self, seq: u64) -> Self {
        self.seq = seq;
        self
    }
    /// With the limit and what stood against it.
    pub fn limit(mut self, limit: u64, actual: u64) -> Self {
        self.limit = limit;
        self.actual = actual;
        self
    }
    /// With what it is about.
    pub fn subject(mut self, subject: &str) -> Self {
        self.subject = InlineStr::truncated(subject);
        self
    }
    /// With a sentence for a person.
    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = Detail::truncated(detail);
        self
    }
    /// With other advice than the code's usual one.
    pub fn retry(mut self, retry: Retry, after_ms: u32) -> Self {
        self.retry = retry;
        self.retry_after_ms = after_ms;
        self
    }
    /// The code, when this version knows it.
    pub fn known_code(&self) -> Option<ErrorCode> {
        ErrorCode::from_u16(self.code)
    }
}

impl std::fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.known_code() {
            Some(code) => write!(f, "{}: {}", code.name(), self.detail),
            None => write!(f, "error {}: {}", self.code, self.detail),
        }
    }
}
