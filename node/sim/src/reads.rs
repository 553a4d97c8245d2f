//! A client's reads, as values that can be sent and checked.

use bytes::Bytes;
use pygmy_proto::frame::Frame;
use pygmy_proto::message::{Books, Lookup, Order, Orders, Search, Topics};
use pygmy_proto::{Kind, codec};

/// A read; its floor is put in when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// One book.
    Lookup(Lookup),
    /// Books of a topic.
    Search(Search),
    /// Topics.
    Topics(Topics),
    /// All books.
    Books(Books),
    /// One order.
    Order(Order),
    /// Latest orders.
    Orders(Orders),
}

impl Read {
    /// The read in a frame, if it is one.
    pub fn decode(frame: &Frame<'_>) -> Option<Self> {
        match frame.kind()? {
            Kind::Lookup => frame.decode().map(Self::Lookup),
            Kind::Search => frame.decode().map(Self::Search),
            Kind::Topics => frame.decode().map(Self::Topics),
            Kind::Books => frame.decode().map(Self::Books),
            Kind::Order => frame.decode().map(Self::Order),
            Kind::Orders => frame.decode().map(Self::Orders),
            _ => return None,
        }
        .ok()
    }

    /// The position that its answer must not lie before.
    pub fn floor(&self) -> u64 {
        match self {
            Read::Lookup(read) => read.floor,
            Read::Search(read) => read.floor,
            Read::Topics(read) => read.floor,
            Read::Books(read) => read.floor,
            Read::Order(read) => read.floor,
            Read::Orders(read) => read.floor,
        }
    }

    /// Its kind and body with `floor`.
    pub fn encode(&self, floor: u64) -> (Kind, Bytes) {
        match *self {
            Read::Lookup(read) => (Kind::Lookup, codec::encode(&Lookup { floor, ..read })),
            Read::Search(read) => (Kind::Search, codec::encode(&Search { floor, ..read })),
            Read::Topics(read) => (Kind::Topics, codec::encode(&Topics { floor, ..read })),
            Read::Books(read) => (Kind::Books, codec::encode(&Books { floor, ..read })),
            Read::Order(read) => (Kind::Order, codec::encode(&Order { floor, ..read })),
            Read::Orders(read) => (Kind::Orders, codec::encode(&Orders { floor, ..read })),
        }
    }
}
