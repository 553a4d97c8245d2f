//! Log positions against real time: what was answered before something else was asked comes before it.
//!
//! Of a read that need not be fresh, and so may come out of what a front end keeps, four things are promised: it is not
//! behind what its own client saw or did ([`check_clients`]), nor behind a write that its front end had acknowledged to
//! anyone ([`check_fronts`]), nor behind anything that was answered to anyone longer than [`STALENESS_NS`] before
//! ([`check_everyone`]); and it shows nothing that is not committed ([`check_committed`]).

use std::collections::BTreeMap;

use pygmy_proto::limits::STALENESS_MS_MAX;

use super::facts::Write;
use super::violation::Violation;
use crate::history::{Operation, ReplicaView};

/// What was answered to anyone longer than this before a read was asked is in it. The front end decides what it may
/// answer no earlier than that, so that one which keeps the promise is never found to break it.
const STALENESS_NS: u64 = STALENESS_MS_MAX as u64 * 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    SessionRead,
    FreshRead,
}

/// A write or a read with its position.
#[derive(Debug, Clone, Copy)]
struct Placed {
    start_ns: u64,
    end_ns: u64,
    seq: u64,
    kind: Kind,
}

impl Placed {
    fn of(operation: &Operation) -> Option<Self> {
        let kind = match (operation.action.is_read(), operation.action.is_fresh()) {
            (_, true) => Kind::FreshRead,
            (true, false) => Kind::SessionRead,
            (false, false) => Kind::Write,
        };
        let Operation { start_ns, end_ns, .. } = *operation;
        operation.seq().map(|seq| Self { start_ns, end_ns, seq, kind })
    }
}

/// Checks writes and reads of all clients against one another, then those of each client and of each front end alone.
pub(super) fn check(writes: &[Write<'_>], operations: &[Operation], found: &mut Vec<Violation>) {
    check_everyone(writes, operations, found);
    check_clients(operations, found);
    check_fronts(operations, found);
}

/// Nobody was shown a position that the log does not have in the end.
pub(super) fn check_committed(operations: &[Operation], replicas: &[ReplicaView], found: &mut Vec<Violation>) {
    let Some(applied) = replicas.iter().map(|replica| replica.applied).max() else { return };
    let read = operations.iter().filter(|operation| operation.action.is_read()).filter_map(Operation::seq);
    found.extend(read.filter(|seq| *seq > applied).map(|seq| Violation::ReadUncommitted { seq, applied }));
}

fn check_everyone(writes: &[Write<'_>], operations: &[Operation], found: &mut Vec<Violation>) {
    let write = |write: &Write<'_>| {
        let (start_ns, end_ns) = (write.start_ns, write.end_ns);
        write.seq().map(|seq| Placed { start_ns, end_ns, seq, kind: Kind::Write })
    };
    let reads = operations.iter().filter(|operation| operation.action.is_read());
    let all: Vec<Placed> = writes.iter().filter_map(write).chain(reads.filter_map(Placed::of)).collect();
    let cached = all.iter().filter(|placed| placed.kind == Kind::SessionRead).copied().collect();
    sweep(cached, all.clone(), STALENESS_NS, |Placed { seq, .. }, answered_before| {
        if seq < answered_before {
            found.push(Violation::ReadTooOld { seq, answered_before });
        }
    });
    sweep(all.clone(), all, 0, |Placed { seq, kind, .. }, answered_before| match kind {
        // What a read reflects is committed, so that a write that is asked for later comes behind that, too.
        Kind::Write if seq <= answered_before => found.push(Violation::RealTimeOrderBroken { seq, answered_before }),
        Kind::FreshRead if seq < answered_before => found.push(Violation::FreshReadStale { seq, answered_before }),
        _ => {}
    });
}

fn check_clients(operations: &[Operation], found: &mut Vec<Violation>) {
    let mut clients: BTreeMap<usize, Vec<Placed>> = BTreeMap::new();
    for operation in operations {
        clients.entry(operation.client).or_default().extend(Placed::of(operation));
    }
    for (client, all) in clients {
        sweep(all.clone(), all, 0, |Placed { seq, kind, .. }, seen| {
            // A fresh one has been held against everybody's answers.
            if kind == Kind::SessionRead && seq < seen {
                found.push(Violation::SessionReadStale { client, seq, seen });
            }
        });
    }
}

/// Whoever has had a write acknowledged by a front end can tell anybody of it, who then finds it there.
fn check_fronts(operations: &[Operation], found: &mut Vec<Violation>) {
    let mut fronts: BTreeMap<u16, (Vec<Placed>, Vec<Placed>)> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.front != 0) {
        let Some(placed) = Placed::of(operation) else { continue };
        let (reads, writes) = fronts.entry(operation.front).or_default();
        match placed.kind {
            Kind::Write => writes.push(placed),
            Kind::SessionRead => reads.push(placed),
            // It has been held against everybody's answers.
            Kind::FreshRead => {}
        }
    }
    for (front, (reads, writes)) in fronts {
        sweep(reads, writes, 0, |Placed { seq, .. }, acknowledged| {
            if seq < acknowledged {
                found.push(Violation::FrontReadStale { front, seq, acknowledged });
            }
        });
    }
}

/// Goes through time once and tells, for each of `by_start`, the highest position of those of `by_end` that had been
/// answered `lag_ns` before it was asked.
fn sweep(mut by_start: Vec<Placed>, mut by_end: Vec<Placed>, lag_ns: u64, mut tell: impl FnMut(Placed, u64)) {
    by_start.sort_unstable_by_key(|placed| (placed.start_ns, placed.seq));
    by_end.sort_unstable_by_key(|placed| placed.end_ns);
    let (mut ended, mut answered_before) = (by_end.iter().peekable(), 0);
    for placed in by_start {
        let is_before = |before: &&Placed| before.end_ns.saturating_add(lag_ns) < placed.start_ns;
        while let Some(before) = ended.next_if(is_before) {
            answered_before = answered_before.max(before.seq);
        }
        tell(placed, answered_before);
    }
}
