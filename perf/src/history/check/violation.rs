//! What a checker can find, each with what it takes to look it up.

use std::fmt;

use pygmy_proto::BookId;
use pygmy_proto::limits::STALENESS_MS_MAX;
use serde::Serialize;

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "violation")]
pub enum Violation {
    /// The audit did not come to its end, so that it proves nothing.
    NotFinished {
        /// What is missing.
        why: String,
    },
    /// Replicas stand at different positions although nothing is written any more.
    NotConverged {
        /// Each replica's name and position.
        applied: Vec<(String, u64)>,
    },
    /// Replicas have different states at the same position.
    StateHashDiffers {
        /// Each replica's name and hash.
        hashes: Vec<(String, u64)>,
    },
    /// Two writes were acknowledged at the same position of the log, or one order number was given twice.
    NumberUsedTwice {
        /// The position.
        number: u64,
    },
    /// The same write, asked for again, was answered differently.
    AnswersDiffer {
        /// Its session.
        session: u64,
        /// Its number in the session.
        counter: u64,
    },
    /// One identity was used for two different writes: the history proves nothing about the store.
    IdentityConfused {
        /// The session.
        session: u64,
        /// The number in the session.
        counter: u64,
    },
    /// An acknowledged order is not in a replica's ledger.
    OrderLost {
        /// The replica.
        replica: String,
        /// How it was looked for.
        way: &'static str,
        /// The order.
        number: u64,
    },
    /// An acknowledged order is there with other contents.
    OrderDiffers {
        /// The replica.
        replica: String,
        /// How it was looked for.
        way: &'static str,
        /// The order.
        number: u64,
    },
    /// A ledger holds an order that nobody was told of and no unanswered write explains: done twice, or invented.
    OrderUnexplained {
        /// The replica.
        replica: String,
        /// The order.
        number: u64,
    },
    /// An order is not what its client asked for, or its sum is wrong.
    OrderNotAsAsked {
        /// The order.
        number: u64,
    },
    /// A replica's stock is not initial + restocked − sold.
    StockWrong {
        /// The replica.
        replica: String,
        /// The book.
        book: BookId,
        /// What it should be; a range where restocks have an unknown outcome.
        expected: (u64, u64),
        /// What is there; `None`: the book is not.
        found: Option<u32>,
    },
    /// The copies left that an answer names are not those of the writes before it, in the order of their numbers.
    LeftWrong {
        /// The write's place in the log.
        seq: u64,
        /// The book.
        book: BookId,
        /// What should have been left; negative: more were sold than there were.
        expected: i64,
        /// What the answer says.
        found: u32,
    },
    /// A read shows a book otherwise than the writes up to its position left it.
    ReadWrong {
        /// The position that the read names.
        seq: u64,
        /// The book.
        book: BookId,
        /// Which value.
        field: &'static str,
        /// What it should be.
        expected: i64,
        /// What the answer says.
        found: i64,
    },
    /// A write names another price than the writes before it left.
    PriceWrong {
        /// The write's place in the log.
        seq: u64,
        /// The book.
        book: BookId,
        /// The price by the writes before it, in cents.
        expected: u64,
        /// What the answer says.
        found: u64,
    },
    /// A read reflects less than its own client had seen or done.
    SessionReadStale {
        /// The client.
        client: usize,
        /// The position that the read names.
        seq: u64,
        /// The position that the client had seen.
        seen: u64,
    },
    /// A fresh read reflects less than what had been answered, to anyone, before it was asked.
    FreshReadStale {
        /// The position that the read names.
        seq: u64,
        /// What had been answered before.
        answered_before: u64,
    },
    /// A read through a front end reflects less than a write that this front end had acknowledged before.
    FrontReadStale {
        /// Number of the front end.
        front: u16,
        /// The position that the read names.
        seq: u64,
        /// The position of the write.
        acknowledged: u64,
    },
    /// A read reflects less than what had been answered, to anyone, longer before than any front end may keep it.
    ReadTooOld {
        /// The position that the read names.
        seq: u64,
        /// What had been answered before.
        answered_before: u64,
    },
    /// A read names a position that the log does not have in the end: nothing was committed there.
    ReadUncommitted {
        /// The position that the read names.
        seq: u64,
        /// The highest that a replica has applied.
        applied: u64,
    },
    /// A write was answered before another one was sent, and yet has the higher number.
    RealTimeOrderBroken {
        /// The later one.
        seq: u64,
        /// The higher number that was answered before it was sent.
        answered_before: u64,
    },
    /// An order's number was given a second time, or went back, in one ledger.
    LedgerOutOfOrder {
        /// The replica.
        replica: String,
        /// The number.
        number: u64,
    },
}

impl Violation {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotFinished { .. } => "not_finished",
            Self::NotConverged { .. } => "not_converged",
            Self::StateHashDiffers { .. } => "state_hash_differs",
            Self::NumberUsedTwice { .. } => "number_used_twice",
            Self::AnswersDiffer { .. } => "answers_differ",
            Self::IdentityConfused { .. } => "identity_confused",
            Self::OrderLost { .. } => "order_lost",
            Self::OrderDiffers { .. } => "order_differs",
            Self::OrderUnexplained { .. } => "order_unexplained",
            Self::OrderNotAsAsked { .. } => "order_not_as_asked",
            Self::StockWrong { .. } => "stock_wrong",
            Self::LeftWrong { .. } => "left_wrong",
            Self::ReadWrong { .. } => "read_wrong",
            Self::PriceWrong { .. } => "price_wrong",
            Self::SessionReadStale { .. } => "session_read_stale",
            Self::FreshReadStale { .. } => "fresh_read_stale",
            Self::FrontReadStale { .. } => "front_read_stale",
            Self::ReadTooOld { .. } => "read_too_old",
            Self::ReadUncommitted { .. } => "read_uncommitted",
            Self::RealTimeOrderBroken { .. } => "real_time_order_broken",
            Self::LedgerOutOfOrder { .. } => "ledger_out_of_order",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinished { why } => write!(f, "not finished: {why}"),
            Self::NotConverged { applied } => write!(f, "the replicas do not converge: {applied:?}"),
            Self::StateHashDiffers { hashes } => write!(f, "the replicas' states differ: {hashes:x?}"),
            Self::NumberUsedTwice { number } => write!(f, "number {number} was given to two writes"),
            Self::AnswersDiffer { session, counter } => {
                write!(f, "write {session}:{counter} was asked again and answered differently")
            }
            Self::IdentityConfused { session, counter } => {
                write!(f, "the history has two different writes {session}:{counter}")
            }
            Self::OrderLost { replica, way, number } => {
                write!(f, "order {number} was acknowledged and is lost: {replica} has no trace of it ({way})")
            }
            Self::OrderDiffers { replica, way, number } => {
                write!(f, "order {number} is another one at {replica} than was acknowledged ({way})")
            }
            Self::OrderUnexplained { replica, number } => {
                write!(f, "order {number} at {replica} was never asked for, or was done twice")
            }
            Self::OrderNotAsAsked { number } => write!(f, "order {number} is not what its client asked for"),
            Self::StockWrong { replica, book, expected: (low, high), found } => {
                let found = found.map_or("is not there".into(), |stock| format!("has {stock} copies"));
                write!(f, "{book} at {replica} {found}; initial + restocked - sold is {low}")?;
                if high > low { write!(f, " to {high}") } else { Ok(()) }
            }
            Self::LeftWrong { seq, book, expected, found } => {
                write!(f, "write {seq} left {found} copies of {book} by its answer, {expected} by those before it")
            }
            Self::ReadWrong { seq, book, field, expected, found } => {
                write!(f, "a read at {seq} says {field} {found} of {book}, {expected} by the writes up to there")
            }
            Self::PriceWrong { seq, book, expected, found } => {
                write!(f, "write {seq} found {book} at {found} cents by its answer, {expected} by those before it")
            }
            Self::SessionReadStale { client, seq, seen } => {
                write!(f, "client {client} had seen {seen}, and its read reflects {seq}")
            }
            Self::FreshReadStale { seq, answered_before } => {
                write!(f, "a fresh read reflects {seq}, and {answered_before} was answered before it was asked")
            }
            Self::FrontReadStale { front, seq, acknowledged } => {
                write!(f, "front end {front} had acknowledged {acknowledged}, and a read through it reflects {seq}")
            }
            Self::ReadTooOld { seq, answered_before } => {
                let ms = STALENESS_MS_MAX;
                write!(f, "a read reflects {seq}, and {answered_before} was answered more than {ms} ms before it")
            }
            Self::ReadUncommitted { seq, applied } => {
                write!(f, "a read reflects {seq}, and the log ends at {applied}")
            }
            Self::RealTimeOrderBroken { seq, answered_before } => {
                write!(f, "write {seq} was sent after {answered_before} was answered, and has the lower number")
            }
            Self::LedgerOutOfOrder { replica, number } => {
                write!(f, "the ledger of {replica} has number {number} twice or in the wrong place")
            }
        }
    }
}
