//! A client's reads, as values that can be sent and checked.

use bytes::Bytes;
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
