//! Log positions against real time: what was answered before something else was asked comes before it.

use std::collections::BTreeMap;

use super::facts::Write;
use super::violation::Violation;
use crate::history::Operation;

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

/// Checks writes and reads of all clients against one another, then each client's alone.
pub(super) fn check(writes: &[Write<'_>], operations: &[Operation], found: &mut Vec<Violation>) {
    check_everyone(writes, operations, found);
    check_clients(operations, found);
}

fn check_everyone(writes: &[Write<'_>], operations: &[Operation], found: &mut Vec<Violation>) {
    let write = |write: &Write<'_>| {
        let (start_ns, end_ns) = (write.start_ns, write.end_ns);
        write.seq().map(|seq| Placed { start_ns, end_ns, seq, kind: Kind::Write })
    };
    let reads = operations.iter().filter(|operation| operation.action.is_read());
    let all = writes.iter().filter_map(write).chain(reads.filter_map(Placed::of)).collect();
    sweep(all, |Placed { seq, kind, .. }, answered_before| match kind {
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
        sweep(all, |Placed { seq, kind, .. }, seen| {
            // A fresh one has been held against everybody's answers.
            if kind == Kind::SessionRead && seq < seen {
                found.push(Violation::SessionReadStale { client, seq, seen });
            }
        });
    }
}

/// Goes through time once and tells, for each that starts, the highest position answered before.
fn sweep(mut by_start: Vec<Placed>, mut tell: impl FnMut(Placed, u64)) {
    let mut by_end = by_start.clone();
    by_start.sort_unstable_by_key(|placed| (placed.start_ns, placed.seq));
    by_end.sort_unstable_by_key(|placed| placed.end_ns);
    let (mut ended, mut answered_before) = (by_end.iter().peekable(), 0);
    for placed in by_start {
        while let Some(before) = ended.next_if(|before| before.end_ns < placed.start_ns) {
            answered_before = answered_before.max(before.seq);
        }
        tell(placed, answered_before);
    }
}
