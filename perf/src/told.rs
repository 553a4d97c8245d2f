//! What the client library says of a call, as a history keeps it.

use pygmy_client::{Error as CallError, Reply, Written};
use pygmy_proto::message::{LookupOk, Outcome};

use crate::history::{Answer, BookState, Short};

/// The end of a lookup, or else of a write.
pub(crate) fn of_reply(result: Result<Reply, CallError>, is_lookup: bool) -> Answer {
    match result {
        Ok(Reply::Written(done)) => of_write(Ok(done)),
        Ok(Reply::Lookup(found)) => of_lookup(Ok(found)),
        Ok(other) => Answer::Unknown { why: format!("an answer that was not asked for: {other:?}") },
        Err(error) if is_lookup => of_lookup(Err(error)),
        Err(error) => of_write(Err(error)),
    }
}

/// The end of a write.
pub(crate) fn of_write(result: Result<Written, CallError>) -> Answer {
    match result {
        Ok(Written { outcome, seq, .. }) => match outcome {
            Outcome::Bought { order } => Answer::Bought { order },
            Outcome::Restocked { book } => Answer::Restocked { seq, stock: book.stock },
            Outcome::Repriced { book, old_cost_cents } => Answer::Repriced { seq, stock: book.stock, old_cost_cents },
            other => Answer::Unknown { why: format!("an answer that was not asked for: {other:?}") },
        },
        Err(CallError::Refused(error)) => {
            Answer::Refused { code: error.code, detail: error.detail.to_string(), short: Short::of(&error) }
        }
        Err(error @ CallError::OutcomeUnknown { .. }) => Answer::Unknown { why: error.to_string() },
        Err(error) => Answer::NotDone { why: error.to_string() },
    }
}

/// The end of a lookup.
pub(crate) fn of_lookup(result: Result<LookupOk, CallError>) -> Answer {
    match result {
        Ok(found) => Answer::Found { seq: found.seq, book: BookState::from(&found.book) },
        Err(error) => Answer::Unknown { why: error.to_string() },
    }
}
