//! Measuring and checking a running Pygmy cluster from outside, through its protocol alone.
//!
//! * [`load`]: how much, how fast: requests at a given rate or a given depth, latencies in full histograms.
//! * [`chaos`]: the same promises while servers are killed and paused; [`history`]: what both judge by, and how.
//! * [`failover`]: how long the store stands still when servers fail, and what clients see of it.
//! * [`cache`]: what a front end's cache is worth.
//! * [`consistency`]: how far behind the answers of one front end are while books are bought through another.
//! * [`sweep`]: latency over rate, and the highest rate at which it stays within a bound.
//! * [`scale`]: what the store does with more catalogs, connections, books, or larger commands.
//! * `compare`: the same workloads on other systems, in turn (feature `peers`).
//! * [`audit`]: whether the store kept its promises while it was bought from as fast as possible.
//! * [`idle`]: what connections cost that do nothing.
//! * [`run`]: what an experiment found, kept in the one form from which reports are drawn; [`report`] draws them.
//!
//! Beneath them: [`net`], an event loop that keeps many connections standing; [`session`], a session's counters;
//! [`ask`], one blocking connection for what is read before and after; [`target`], where the cluster is; [`local`], its
//! processes on this machine.

pub mod ask;
pub mod audit;
pub mod cache;
pub mod chaos;
#[cfg(feature = "peers")]
pub mod compare;
pub mod consistency;
pub mod error;
pub mod failover;
pub mod history;
pub mod idle;
pub mod load;
pub mod local;
pub mod net;
pub mod point;
mod replicas;
pub mod report;
pub mod run;
pub mod scale;
pub mod session;
pub mod shelf;
pub mod span;
pub mod sweep;
pub mod target;
mod told;
pub mod usage;
pub mod weights;
