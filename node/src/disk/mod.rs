//! What a log replica keeps on disk: its log and its vote.
//!
//! The same code runs over real files ([`fs::RealFs`], on a thread of its own: [`writer::LogThread`]) and over a
//! simulated disk ([`sim::SimFs`]) that loses what was not synced, tears writes, fills up and fails.
//!
//! | module | what it is |
//! |---|---|
//! | [`direct`] | writes around the page cache, and what becomes of them where they are refused |
//! | [`fs`] | the few operations on files that the rest is written in |
//! | [`record`] | the layout of a record, and positions in the stream of records |
//! | [`chain`] | which log a stream of records means: later records supersede, and hashes say what is missing |
//! | [`scan`] | reads the stream at opening and tells a torn tail from damage |
//! | [`log`] | writes the log: groups, segments, spares |
//! | [`reader`] | reads batches of the log from another thread |
//! | [`vote`] | the vote file |
//! | [`queue`] | what is to be written, in which groups, and what is done meanwhile |
//! | [`recover`] | opens all of it: what a replica begins with |
//! | [`writer`] | the threads that serve an event loop, which never waits for a disk |
//!
//! # Which way to write
//! A group is one positioned write into a prewritten segment and one `fdatasync`. The other candidate, a file opened with
//! `O_DIRECT` and `O_DSYNC`, was measured beside it (`tests/disk_measure.rs`: 400 groups of each size, ext4 on a virtual
//! disk, two cores that were busy with other work, unoptimized build), three times; the last run:
//!
//! | group | way | median | p99 | max |
//! |---|---|---|---|---|
//! | 4 KiB | buffered, fdatasync | 3 ms | 33 ms | 48 ms |
//! | 4 KiB | O_DIRECT, O_DSYNC | 6 ms | 13 ms | 96 ms |
//! | 64 KiB | buffered, fdatasync | 4 ms | 20 ms | 60 ms |
//! | 64 KiB | O_DIRECT, O_DSYNC | 4 ms | 16 ms | 36 ms |
//! | 1 MiB | buffered, fdatasync | 4 ms | 30 ms | 73 ms |
//! | 1 MiB | O_DIRECT, O_DSYNC | 4 ms | 20 ms | 46 ms |
//!
//! Between the runs the medians of *either* way moved between 0.1 and 6 ms, so these say no more than that neither is far
//! better. Buffered writing stays: it needs no aligned memory, readers find fresh batches in the cache, and it works on
//! every file system.

pub mod chain;
pub mod direct;
pub mod fs;
pub mod log;
pub mod queue;
pub mod reader;
pub mod record;
pub mod recover;
pub mod scan;
pub mod segments;
pub mod sim;
pub mod vote;
pub mod writer;
