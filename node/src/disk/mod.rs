//! What a log replica keeps on disk: its log and its vote.
//!
//! The same code runs over real files ([`fs::RealFs`], on a thread of its own: [`writer::LogThread`]) and over a
//! simulated disk ([`sim::SimFs`]) that loses what was not synced, tears writes, fills up and fails.
//!
//! | module | what it is |
//! |---|---|
//! | [`fs`] | the few operations on files that the rest is written in |
//! | [`record`] | the layout of a record, and positions in the stream of records |
//! | [`chain`] | which log a stream of records means: later records supersede, and hashes say what is missing |
//! | [`scan`] | reads the stream at opening and tells a torn tail from damage |
//! | [`log`] | writes the log: groups, segments, spares |
//! | [`reader`] | reads batches of the log from another thread |
//! | [`vote`] | the vote file |
//! | [`writer`] | the threads that serve an event loop, which never waits for a disk |

pub mod chain;
pub mod fs;
pub mod log;
pub mod reader;
pub mod record;
pub mod scan;
pub mod segments;
pub mod sim;
pub mod vote;
pub mod writer;
