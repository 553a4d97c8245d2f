//! What a log replica keeps on disk: its log and its vote.
//!
//! The same code runs over real files ([`fs::RealFs`], on a thread of its own: [`writer::LogThread`]) and over a
//! simulated disk ([`sim::SimFs`]) that loses what was not synced, tears writes, fills up and fails.
//!
//! | module | what it is |
//! |---|---|
//! | `bell` | how a thread sleeps until another one has something for it |
//! | [`calls`] | what files were asked for, to be told |
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
//! A group is one positioned write into a prewritten segment, and durable when it returns: the file is opened with
//! `O_DIRECT` and `O_DSYNC` ([`direct`]). The other way, a write through the page cache and an `fdatasync`, takes two
//! system calls, works on every file system, and is taken where this one is refused. Both were measured beside each other
//! (`tests/disk_measure.rs`, optimized build, ext4 on a virtual disk, two idle cores, 400 groups of each size; medians of
//! five runs, from the lowest to the highest; the p99 were about equal):
//!
//! | group | buffered, fdatasync | O_DIRECT, O_DSYNC |
//! |---|---|---|
//! | 4 KiB | 104–130 µs | 93–105 µs |
//! | 64 KiB | 145–172 µs | 108–122 µs |
//! | 1 MiB | 800–1,000 µs | 384–530 µs |
//!
//! In a whole cluster on one machine (seven processes on two cores, which were busy with other work too; twelve runs of
//! five seconds each way, in alternation; medians):
//!
//! | `pygmy-perf load --mix buy=100` | buffered, fdatasync | O_DIRECT, O_DSYNC |
//! |---|---|---|
//! | 8 connections, depth 256 | 54,800 /s, p50 24.9 ms, p99 129 ms | 60,100 /s, p50 22.4 ms, p99 134 ms |
//! | 1 connection, depth 1 | p50 714 µs, p99 8.1 ms | p50 670 µs, p99 8.6 ms |
//!
//! Of the twelve pairs in a closed loop this way won seven, which is noise: there the cores are the limit, and the lone
//! buy alone shows the disk. A reader that wants fresh batches back has them from the disk rather than from the cache.

mod bell;
pub mod calls;
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
