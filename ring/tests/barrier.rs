//! What makes reads fresh, one rule each, with the frames that it costs.

mod bench;
mod world;

use bench::{Bench, Frames, MS, SESSION};
use pygmy_proto::message::{BarrierAnswer, Epoch};
use pygmy_ring::{Input, Limits, PeerMessage};

fn five() -> Bench {
    let mut bench = Bench::new(5, 3, Limits::default());
    bench.register();
    bench
}

/// A write of node 1 is answered there, and nobody else knows that it is committed.
fn with_a_write(bench: &mut Bench) -> u64 {
    bench.write(1, 8);
    bench.settle();
    assert_eq!(bench.done.len(), 1);
    let seq = bench.replica(1).applied();
    assert!(bench.replica(5).applied() < seq, "it hears of it by the next frame");
    bench.frames = Frames::default();
    seq
}

#[test]
fn reads_that_come_together_cost_one_question_and_one_answer_a_voter() {
    let mut bench = five();
    let seq = with_a_write(&mut bench);
    let now = bench.clock();
    let replica = bench.replica_mut(5);
    for ticket in 1..=1_000 {
        replica.handle(now, Input::Barrier { ticket });
    }
    bench.turn(5);
    bench.settle();
    assert_eq!(bench.fresh, [], "known, and not applied yet");
    assert_eq!(bench.frames, Frames { barrier: 4, barrier_answer: 4, ..Frames::default() });
    bench.run(MS);
    bench.settle();
    assert_eq!(bench.fresh, [(5, 1_000, seq)]);
    assert_eq!(bench.votes.len(), 0, "nothing is written");
    bench.run(1_000 * MS);
    assert_eq!((bench.frames.barrier, bench.frames.barrier_answer), (4, 4), "nothing is asked twice");
}

#[test]
fn a_read_that_comes_while_a_round_is_under_way_belongs_to_the_next() {
    let mut bench = five();
    bench.input(5, Input::Barrier { ticket: 1 });
    for voter in 1..=4 {
        bench.deliver(5, voter);
    }
    // What was asked before this write says nothing about a read that comes after it.
    bench.held.extend((1..=4).map(|voter| (voter, 5)));
    let seq = with_a_write(&mut bench);
    bench.input(5, Input::Barrier { ticket: 2 });
    bench.held.clear();
    for voter in 1..=4 {
        bench.deliver_one(voter, 5);
    }
    assert_eq!(bench.fresh, [(5, 1, SESSION)]);
    bench.run(10 * MS);
    assert_eq!(bench.fresh, [(5, 1, SESSION), (5, 2, seq)]);
}

#[test]
fn less_than_a_majority_makes_nothing_fresh() {
    let mut bench = five();
    for node in [1, 2, 3] {
        bench.cut(5, node);
    }
    bench.input(5, Input::Barrier { ticket: 1 });
    bench.run(500 * MS);
    assert_eq!(bench.fresh, [], "node 4 and itself are two of five");
    assert_eq!(bench.frames.barrier, 1, "who has answered is not asked again, nor who has no link");
    bench.held.insert((1, 5));
    bench.connect(5, 1);
    bench.run(100 * MS);
    assert!(bench.frames.barrier >= 2, "who has a link and does not answer is");
    assert_eq!(bench.fresh, []);
    bench.held.clear();
    bench.run(100 * MS);
    assert_eq!(bench.fresh.len(), 1);
}

#[test]
fn answers_of_another_epoch_or_of_later_voters_do_not_count() {
    let mut bench = five();
    let epoch = bench.replica(5).promised();
    bench.held.extend((1..=4).map(|voter| (voter, 5)));
    bench.input(5, Input::Barrier { ticket: 1 });
    let own =
        BarrierAnswer { epoch, boot_nonce: bench.hello(5, 1).boot_nonce, round: 1, config_id: 1, durable: SESSION };
    let later = Epoch { counter: epoch.counter + 1, ..epoch };
    let wrong = [
        BarrierAnswer { epoch: later, ..own },
        BarrierAnswer { epoch: Epoch::default(), ..own },
        BarrierAnswer { config_id: 2, ..own },
        BarrierAnswer { round: 2, ..own },
        BarrierAnswer { boot_nonce: own.boot_nonce + 1, ..own },
    ];
    for answer in wrong {
        for voter in [1, 2, 3, 4] {
            bench.message(voter, 5, PeerMessage::BarrierAnswer(answer));
        }
        assert_eq!(bench.fresh, [], "{answer:?}");
    }
    bench.message(1, 5, PeerMessage::BarrierAnswer(own));
    bench.message(1, 5, PeerMessage::BarrierAnswer(own));
    assert_eq!(bench.fresh, [], "the same log twice, and its own");
    bench.message(2, 5, PeerMessage::BarrierAnswer(own));
    assert_eq!(bench.fresh, [(5, 1, SESSION)]);
}

#[test]
fn what_is_not_answered_is_asked_anew_in_the_next_epoch() {
    let mut bench = five();
    let seq = with_a_write(&mut bench);
    bench.held.extend((1..=4).map(|voter| (voter, 5)));
    bench.input(5, Input::Barrier { ticket: 1 });
    bench.held.clear();
    bench.kill(1);
    bench.run(2_000 * MS);
    let replica = bench.replica(5);
    assert_ne!(replica.promised().node, 1, "another one has begun an epoch");
    let (counters, start) = (replica.counters(), replica.log().last_seq());
    assert_eq!((counters.barriers_repeated, counters.barriers_answered), (1, 1));
    assert_eq!(bench.fresh, [(5, 1, start)]);
    assert!(start > seq);
}

#[test]
fn a_lone_voter_asks_nobody() {
    let mut bench = Bench::new(1, 1, Limits::default());
    bench.input(1, Input::Barrier { ticket: 7 });
    assert_eq!(bench.fresh, [(1, 7, 1)]);
}

#[test]
fn an_answer_from_beyond_the_end_of_the_log_has_what_is_missing_fetched() {
    let mut bench = five();
    bench.held.insert((1, 5));
    bench.write(1, 8);
    bench.settle();
    let (seq, own) = (bench.replica(1).applied(), bench.replica(5).log().last_seq());
    assert!(own < seq, "the data is still on its way");
    assert_eq!((bench.frames.fetch, bench.beats_sent), (0, 0), "and nobody has told it");
    bench.input(5, Input::Barrier { ticket: 1 });
    for voter in 2..=4 {
        bench.deliver(5, voter);
        bench.deliver(voter, 5);
    }
    bench.run(5 * MS);
    assert!(bench.frames.fetch > 0);
    bench.run(20 * MS);
    assert_eq!((bench.beats_sent, bench.fresh.as_slice()), (0, &[(5, 1, seq)][..]), "no heartbeat had to help");
}
