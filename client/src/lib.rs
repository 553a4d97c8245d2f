//! Client library of Pygmy, the replicated book store.
//!
//! What it promises:
//!
//! * **A write is done once**, however often it has to be sent and to whichever front end: it keeps its identity
//!   (session, counter) through every change of connection.
//! * **Nothing is called failed that may have happened.** A write without an answer is
//!   [`Error::OutcomeUnknown`], and [`Client::settle`] finds out, or does it.
//! * **Reads never go back in time**: each is at least as new as everything this client has seen or done.
//! * **Every call ends** by its deadline, and an [`Error`] says what became of each address. Nothing here panics on
//!   what a server sends.
//!
//! [`Client`] makes one call at a time on its caller's thread. [`Pipelined`] has many in flight. Both drive the same
//! [`engine`], a state machine without sockets, clock or threads, which can be driven by anything else as well.

mod blocking;
pub mod cluster;
pub mod engine;
mod error;
mod net;
mod pages;
mod pipelined;
mod request;

pub use blocking::{Client, Report, TIMEOUT_DEFAULT};
pub use engine::{Options, Session};
pub use error::{Cause, Causes, Error};
pub use pipelined::Pipelined;
pub use pygmy_proto::message::Command;
pub use pygmy_proto::{BookId, ErrorBody, ErrorCode, Retry};
pub use request::{Asks, Completion, Reply, Request, Written};
