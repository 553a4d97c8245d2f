//! Snapshots on their way between replicas: what is asked, answered, written and given up, without any I/O.
//!
//! * [`receiver`]: gets a snapshot for this replica, from one peer after another until it has one.
//! * [`sender`]: gives parts of this replica's snapshots to others.
//!
//! The life of a transfer: the ring says that the log cannot be had any more. The receiver chooses a peer that does not
//! hold the token and asks for the newest snapshot; the answer says what it is made of. Its files are fetched part by
//! part, two on their way at a time, and each is written, by a thread, before the next is asked for: so a slow disk or a
//! slow link slows the transfer and fills no memory. When all has come, the thread makes it durable, verifies and loads
//! it; only then the loop installs it, in one turn, and the log goes on behind it. Meanwhile batches come and are
//! ordered as always: those for this replica wait in the ring, and what did not fit there it fetches from any log.

pub mod receiver;
pub mod sender;
#[cfg(test)]
mod tests;

pub use self::receiver::{Receiver, View};
pub use self::sender::Sender;
