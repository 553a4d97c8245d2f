//! Why a call was not answered with what it asked for.

use std::fmt;

use pygmy_proto::ErrorBody;

/// What became of one front end, as last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// There was no need, or no time, to ask it.
    NotTried,
    /// No connection could be made.
    NotReached(String),
    /// The connection broke.
    Lost(String),
    /// It was connected and said nothing for this long.
    Silent {
        /// Milliseconds waited.
        waited_ms: u64,
    },
    /// It refused the connection or, for now, the request.
    Refused(ErrorBody),
    /// What it said is not the protocol.
    Protocol(String),
}

impl Cause {
    /// Whether trying again would only be told the same.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(self, Cause::Refused(error) if error.retry == pygmy_proto::Retry::Never)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::NotTried => f.write_str("not tried"),
            Cause::NotReached(why) => write!(f, "no connection: {why}"),
            Cause::Lost(why) => write!(f, "connection lost: {why}"),
            Cause::Silent { waited_ms } => write!(f, "connected, but no answer for {waited_ms} ms"),
            Cause::Refused(error) => write!(f, "refused: {error}"),
            Cause::Protocol(why) => write!(f, "does not speak the protocol: {why}"),
        }
    }
}

/// Every front end that was configured, with what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Causes(pub Vec<(String, Cause)>);

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, cause)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {cause}")?;
        }
        Ok(())
    }
}

/// Why a call was not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store said no. Nothing was changed, and nothing will be by this call.
    #[error("{0}")]
    Refused(ErrorBody),
    /// No front end answered before the deadline. Nothing was changed, and nothing will be by this call.
    #[error("no front end answered within {waited_ms} ms: {causes}")]
    Unreachable {
        /// Milliseconds from the call to this error.
        waited_ms: u64,
        /// What became of each address.
        causes: Causes,
    },
    /// A write was sent and not answered: it may have been done, may be done later, or never. It has not failed.
    ///
    /// [`crate::Client::settle`] with this session, this counter and the same command tells which, and does it if it
    /// was not done. Never repeat the command as a new call: it could be done twice.
    #[error("the outcome is unknown: settle it by repeating the same command as {session}:{counter} ({causes})")]
    OutcomeUnknown {
        /// The session of the write.
        session: u64,
        /// Its number in the session.
        counter: u64,
        /// What became of each address.
        causes: Causes,
    },
    /// The call breaks a limit that holds whatever the store's state; it was not sent.
    #[error("{0}")]
    InvalidInput(ErrorBody),
    /// The queue of the pipelined client is full; the call was not taken.
    #[error("{limit} calls are waiting already; take answers or wait before submitting more")]
    QueueFull {
        /// Calls the queue holds.
        limit: usize,
    },
    /// The client was closed before the call was sent.
    #[error("the client was closed before the call was sent; nothing was done")]
    Closed,
}
