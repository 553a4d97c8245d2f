//! The frame header: 24 bytes, little-endian, before every body. Layout in `SPEC.md` §2.

use crate::crc;
use crate::limits::VERSION;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 24;

/// Bit of [`Header::flags`]: in a request, "tell me where the time went"; in an answer, "a trace precedes the message".
pub const FLAG_TRACE: u8 = 1;
/// Bit of [`Header::flags`] in a read: "answer with everything that was answered to anybody before you got this".
pub const FLAG_FRESH: u8 = 2;
/// Bit of [`Header::flags`] in a read: "ask a catalog, whatever the front has in its cache".
pub const FLAG_NO_CACHE: u8 = 4;
/// All flags this version knows.
pub const FLAGS_KNOWN: u8 = FLAG_TRACE | FLAG_FRESH | FLAG_NO_CACHE;

mod field {
    use std::ops::Range;
    pub(super) const LENGTH: Range<usize> = 0..4;
    pub(super) const CRC: Range<usize> = 4..8;
    pub(super) const VERSION: usize = 8;
    pub(super) const FLAGS: usize = 9;
    pub(super) const KIND: Range<usize> = 10..12;
    pub(super) const AUX: Range<usize> = 12..16;
    pub(super) const REQUEST_ID: Range<usize> = 16..24;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a frame's body is. The numbers are part of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Kind { $($(#[$doc])* $name = $value,)* }
        impl Kind {
            /// Every kind, in ascending order.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];
            /// The kind with this number.
            pub fn from_u16(value: u16) -> Option<Self> {
                match value { $($value => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// First frame of whoever opened the connection.
    Hello = 0x0001,
    /// The answer to a `Hello` that was accepted.
    HelloOk = 0x0002,
    /// The answer to any request that was not done; with request id 0, about the connection itself.
    Error = 0x0003,
    /// "Are you there?" Answered at once by whoever reads it.
    Ping = 0x0004,
    /// The answer to `Ping`.
    Pong = 0x0005,

    /// Registers a session.
    OpenSession = 0x0010,
    /// One book by its id.
    Lookup = 0x0011,
    /// Books of a topic, by id, in pages.
    Search = 0x0012,
    /// The topics, in pages.
    Topics = 0x0013,
    /// All books, by topic and id, in pages.
    Books = 0x0014,
    /// One order by its number.
    Order = 0x0015,
    /// The latest orders, or those of a book, in pages.
    Orders = 0x0016,
    /// A command that changes the store.
    Write = 0x0017,
    /// How the answering server is.
    Status = 0x0018,
    /// Puts one log in the place of another among the voters.
    Replace = 0x0019,

    /// The answer to `OpenSession`.
    SessionOpened = 0x0090,
    /// The answer to `Lookup`.
    LookupOk = 0x0091,
    /// The answer to `Search`.
    SearchOk = 0x0092,
    /// The answer to `Topics`.
    TopicsOk = 0x0093,
    /// The answer to `Books`.
    BooksOk = 0x0094,
    /// The answer to `Order`.
    OrderOk = 0x0095,
    /// The answer to `Orders`.
    OrdersOk = 0x0096,
    /// The answer to `Write`.
    WriteOk = 0x0097,
    /// The answer to `Status`.
    StatusOk = 0x0098,
    /// The answer to `Replace`.
    ReplaceOk = 0x0099,

    /// Order to catalog: writes to be ordered.
    Submit = 0x0100,
    /// Catalog to order: what became of them.
    Results = 0x0101,
    /// Log replica to every server: who the voters are.
    Members = 0x0102,
    /// Front to catalog: "up to where had been answered to anybody before this came?"
    Floor = 0x0103,
    /// Catalog to front: the answer to that.
    FloorOk = 0x0104,
    /// Front to catalog: asks for the changes of books.
    FeedOpen = 0x0105,
    /// Catalog to front: from where on they are told.
    FeedOk = 0x0106,
    /// Catalog to front: changes.
    Feed = 0x0107,
    /// Front to catalog: how much of them it has read.
    FeedRead = 0x0108,
    /// Ring: a batch of the log.
    Data = 0x0110,
    /// Ring: the token.
    Token = 0x0111,
    /// Ring: "I have writes and want the token".
    Want = 0x0112,
    /// Ring: "durable here up to".
    Ack = 0x0113,
    /// Ring: "committed up to", when nothing else goes.
    Commit = 0x0114,
    /// Ring: asks for a part of the log.
    Fetch = 0x0115,
    /// Ring: that part is not held here.
    FetchRefused = 0x0116,
    /// Ring: "would you promise me an epoch?"
    PreVote = 0x0120,
    /// Ring: the answer to that.
    PreVoteAnswer = 0x0121,
    /// Ring: "promise me this epoch".
    Prepare = 0x0122,
    /// Ring: the promise.
    Promise = 0x0123,
    /// Ring: "this epoch has begun".
    Install = 0x0124,
    /// Ring: "I have promised a higher epoch".
    Reject = 0x0125,
    /// Ring: "how far are you?", for reads that must be fresh.
    Barrier = 0x0126,
    /// Ring: the answer to that.
    BarrierAnswer = 0x0127,
    /// Log replicas: asks for a part of a snapshot.
    SnapshotFetch = 0x0128,
    /// Log replicas: that part.
    SnapshotPart = 0x0129,
    /// Log replicas: that part is not given.
    SnapshotRefused = 0x012a,
}

impl Kind {
    /// True for what a client may ask after its handshake.
    pub fn is_request(self) -> bool {
        matches!(self as u16, 0x0010..=0x008f) || self == Kind::Ping
    }
}

/// A header as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of body that follow the header.
    pub body_len: u32,
    /// CRC-32C over the frame without the four CRC bytes.
    pub crc: u32,
    /// Protocol version of the frame.
    pub version: u8,
    /// See [`FLAG_TRACE`] and [`FLAG_FRESH`].
    pub flags: u8,
    /// Number of the kind; may be one this version does not know.
    pub kind: u16,
    /// In a request: milliseconds the sender will wait, 0 for the default. In an answer: number of the node that made it.
    pub aux: u32,
    /// Chosen by the asker, repeated in the answer; 0 where nothing is asked.
    pub request_id: u64,
}

/// A view of a header in a buffer. [`HeaderView::new`] has checked the length, so no accessor can panic.
#[derive(Debug, Clone, Copy)]
pub struct HeaderView<'a>(&'a [u8; HEADER_LEN]);

impl<'a> HeaderView<'a> {
    /// The header at the start of `bytes`, or `None` when there are fewer than [`HEADER_LEN`].
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk::<HEADER_LEN>().map(Self)
    }
    fn u32_at(self, range: std::ops::Range<usize>) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[range]);
        u32::from_le_bytes(bytes)
    }
    /// Bytes of body that follow.
    pub fn body_len(self) -> u32 {
        self.u32_at(field::LENGTH)
    }
    /// The checksum as sent.
    pub fn crc(self) -> u32 {
        self.u32_at(field::CRC)
    }
    /// Protocol version.
    pub fn version(self) -> u8 {
        self.0[field::VERSION]
    }
    /// All fields.
    pub fn header(self) -> Header {
        let mut kind = [0; 2];
        kind.copy_from_slice(&self.0[field::KIND]);
        let mut request_id = [0; 8];
        request_id.copy_from_slice(&self.0[field::REQUEST_ID]);
        Header {
            body_len: self.body_len(),
            crc: self.crc(),
            version: self.version(),
            flags: self.0[field::FLAGS],
            kind: u16::from_le_bytes(kind),
            aux: self.u32_at(field::AUX),
            request_id: u64::from_le_bytes(request_id),
        }
    }
}

/// The checksum of a whole frame (header and body): CRC-32C over all its bytes but the four of the checksum itself.
///
/// `frame` must hold at least a header; fewer bytes are summed as they are.
pub fn checksum(frame: &[u8]) -> u32 {
    let (head, tail) = frame.split_at(field::CRC.start.min(frame.len()));
    crc::crc32c(head, tail.get(4..).unwrap_or_default())
}

/// Writes `header` over the first [`HEADER_LEN`] bytes of `frame`, with length and checksum computed from `frame`.
pub(crate) fn seal(frame: &mut [u8], kind: u16, flags: u8, aux: u32, request_id: u64) {
    let body_len = (frame.len() - HEADER_LEN) as u32;
    frame[field::LENGTH].copy_from_slice(&body_len.to_le_bytes());
    frame[field::VERSION] = VERSION;
    frame[field::FLAGS] = flags;
    frame[field::KIND].copy_from_slice(&kind.to_le_bytes());
    frame[field::AUX].copy_from_slice(&aux.to_le_bytes());
    frame[field::REQUEST_ID].copy_from_slice(&request_id.to_le_bytes());
    let crc = checksum(frame);
    frame[field::CRC].copy_from_slice(&crc.to_le_bytes());
}
