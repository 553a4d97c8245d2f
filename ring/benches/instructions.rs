//! Instructions of a token's turn: three replicas and the little that moves frames and syncs between them.
#![allow(missing_docs, clippy::unwrap_used, reason = "the tests' cluster, which is moved by hand")]

#[path = "../tests/bench/mod.rs"]
mod bench;
#[path = "../../proto-spec/benches/rounds/mod.rs"]
mod rounds;
#[path = "../tests/world/mod.rs"]
mod world;

use std::process::ExitCode;

use bench::{Bench, SESSION};
use pygmy_proto::batch::EntryKind;
use pygmy_ring::{Input, Limits, Proposal};
use world::machine::{body, payload};

/// Writes in a batch.
const WRITES: u64 = 64;
/// Bytes of a write: those of a buy of one book.
const LEN: usize = 24;

fn main() -> ExitCode {
    rounds::main(&[
        ("token_turn_64_writes", |rounds| turns(rounds, true)),
        ("holder_64_writes", |rounds| turns(rounds, false)),
    ])
}

/// Batches, by two replicas in turn, so that the token has to go from one to the other each time; or all by its holder.
fn turns(rounds: u64, moves: bool) {
    let mut bench = Bench::new(3, 3, Limits::default());
    bench.register();
    bench.settle();
    bench.forget();
    let mut counter = 0_u64;
    for round in 0..rounds {
        let node = if moves { 1 + (round % 2) as u16 } else { 1 };
        let now = bench.clock();
        for _ in 0..WRITES {
            counter += 1;
            // What was answered in the round before is given up.
            let first_incomplete = counter.saturating_sub(WRITES).max(1);
            let body = body(SESSION, counter, first_incomplete, &payload((1, counter), LEN));
            let proposal = Proposal { ticket: counter, kind: EntryKind::Command, body, deadline_ns: u64::MAX };
            bench.replica_mut(node).handle(now, Input::Propose(proposal));
        }
        bench.turn(node);
        bench.settle();
        assert_eq!(bench.done.len() as u64, WRITES, "all are committed and applied");
        bench.forget();
    }
}
