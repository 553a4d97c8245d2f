//! One rule of epoch changes each (RING §3): who asks, what is written down before what, which log is chosen, what
//! follows for those that were in the way.

mod bench;
mod world;

use bench::{Bench, Frames, MS, SESSION};
use pygmy_proto::message::{Ack, Data, Epoch, LogEnd, Prepare, Reject, ReplicaBeat, ReplicaHello};
use pygmy_proto::types::{Blob, Bounded};
use pygmy_ring::{Input, Limits, NotTaken, PeerMessage, Vote};

const FIRST: Epoch = Epoch { counter: 1, node: 1 };
const SECOND: Epoch = Epoch { counter: 2, node: 2 };

fn five() -> Bench {
    let mut bench = Bench::new(5, 3, Limits::default());
    bench.register();
    bench
}

/// A heartbeat of whoever says `hello`, who hears nobody.
fn deaf_beat(hello: &ReplicaHello) -> ReplicaBeat {
    ReplicaBeat {
        log_uuid: hello.log_uuid,
        boot_nonce: hello.boot_nonce,
        promised: hello.promised,
        config_id: hello.config_id,
        last: hello.last,
        committed: hello.committed,
        applied: hello.committed,
        hop: 0,
        holder: 0,
        claims: false,
        want: 0,
        durable: 0,
        durable_hash: 0,
        withheld: false,
        fetched: 0,
        hears: Bounded::default(),
        late_us: 0,
    }
}

fn all_in(bench: &Bench, epoch: Epoch) -> bool {
    bench.alive().iter().all(|node| bench.replica(*node).promised() == epoch && bench.replica(*node).installed())
}

/// Node 1 has ordered a write that only node 3 has received, and is dead. Nobody's disk has anything of it.
fn one_copy_at_3() -> Bench {
    let mut bench = five();
    bench.write(1, 8);
    bench.deliver(1, 3);
    bench.kill(1);
    bench
}

/// What node 2 was promised is under way to it; no promise of 3 is among it yet.
fn promises_under_way(bench: &mut Bench) {
    for other in 3..=5 {
        bench.deliver(2, other);
        bench.deliver(other, 2);
    }
    bench.sync(2);
    for other in 3..=5 {
        bench.deliver(2, other);
        bench.sync(other);
    }
}

#[test]
fn a_dead_holder_costs_two_rounds_and_one_write_of_the_vote_file_each() {
    let mut bench = five();
    bench.kill(1);
    bench.settle();
    assert_eq!(bench.holder(), Some(2), "the next in the ring asks first, and at once");
    assert!(all_in(&bench, SECOND));
    let told = Frames { pre_vote: 3, pre_vote_answer: 3, prepare: 3, promise: 3, install: 3, data: 3, ..bench.frames };
    assert_eq!(bench.frames, told);
    assert_eq!(bench.votes.values().collect::<Vec<_>>(), [&1; 4], "the promise, and no more");
    assert!(bench.alive().iter().all(|node| bench.replica(*node).counters().truncations == 0));
    bench.write(3, 8);
    bench.settle();
    assert_eq!(bench.done.len(), 1);
}

#[test]
fn a_catalog_that_is_dead_and_holds_nothing_costs_no_epoch() {
    let mut bench = five();
    bench.kill(2);
    bench.kill(5);
    bench.run(2_000 * MS);
    bench.write(1, 8);
    bench.settle();
    assert_eq!(bench.done.len(), 1);
    assert_eq!((bench.frames.pre_vote, bench.frames.prepare), (0, 0));
    assert!(all_in(&bench, FIRST));
}

#[test]
fn who_still_hears_the_holder_says_no_and_nothing_changes() {
    let mut bench = five();
    bench.cut(1, 2);
    bench.run(1_000 * MS);
    assert!(bench.frames.pre_vote > 0);
    assert_eq!(bench.frames.prepare, 0);
    assert_eq!(bench.votes.len(), 0, "a question is written down nowhere");
    assert!(all_in(&bench, FIRST));
}

#[test]
fn a_silent_holder_is_suspected_although_its_connections_stand() {
    let mut bench = five();
    bench.paused.insert(1);
    bench.run(150 * MS);
    assert_eq!(bench.frames.pre_vote, 0);
    bench.run(250 * MS);
    assert!([2, 3, 4, 5].iter().all(|node| bench.replica(*node).promised() == SECOND));
}

#[test]
fn what_a_catalog_said_before_its_links_stood_does_not_make_it_a_holder_that_is_gone() {
    let mut bench = five();
    bench.kill(2);
    bench.run(1_000 * MS);
    bench.restart(2);
    // A datagram from before the handshakes is read behind them by everyone but the holder.
    for other in 3..=5 {
        let early = deaf_beat(&bench.hello(2, other));
        bench.input(other, Input::Beat { node: 2, number: 1, beat: early });
    }
    bench.write(2, 8);
    bench.settle();
    assert_eq!(bench.holder(), Some(2));
    bench.run(40 * MS);
    assert_eq!(bench.frames.pre_vote, 0, "its next heartbeat is under way");
    assert!(all_in(&bench, FIRST));
}

#[test]
fn a_minority_begins_no_epoch() {
    let mut bench = five();
    for node in [1, 4, 5] {
        bench.kill(node);
    }
    bench.run(5_000 * MS);
    assert_eq!((bench.holder(), bench.frames.prepare), (None, 0));
    bench.restart(5);
    bench.run_until("an epoch of three", |bench| bench.holder().is_some());
}

#[test]
fn a_token_that_was_on_its_way_to_a_process_that_is_gone_costs_an_epoch() {
    let mut bench = five();
    bench.write(2, 8);
    bench.deliver(2, 1);
    assert_eq!((bench.holder(), bench.frames.token), (None, 1));
    bench.kill(2);
    bench.restart(2);
    bench.settle();
    assert_eq!(bench.replica(1).counters().tokens_resent, 0, "another process is not sent it again");
    bench.run_until("another token", |bench| bench.holder().is_some());
    assert!(bench.replica(1).promised() > FIRST);
    bench.write(2, 8);
    bench.run(300 * MS);
    assert_eq!(bench.done.len(), 1);
}

#[test]
fn nobody_is_asked_before_the_askers_own_promise_is_durable() {
    let mut bench = five();
    bench.slow.insert(2);
    bench.kill(1);
    bench.settle();
    assert_eq!((bench.frames.pre_vote, bench.frames.prepare), (3, 0));
    bench.sync(2);
    assert_eq!(bench.frames.prepare, 3);
}

#[test]
fn a_promise_is_answered_once_it_is_durable() {
    let mut bench = five();
    bench.slow.insert(3);
    bench.kill(1);
    bench.settle();
    assert_eq!(bench.replica(3).promised(), SECOND);
    assert!(bench.under_way(3, 2).is_empty() && bench.frames.promise == 2);
    bench.sync(3);
    assert_eq!(bench.frames.promise, 2, "by now the epoch has begun without it");
    let mut bench = five();
    bench.kill(1);
    promises_under_way(&mut bench);
    assert_eq!(bench.frames.promise, 3);
    for node in 3..=5 {
        assert_eq!(bench.disk(node).vote, Vote { promised: SECOND, cut: Epoch::default() });
    }
}

#[test]
fn whoever_has_promised_takes_and_acknowledges_nothing_older() {
    let mut bench = five();
    bench.write(1, 8);
    let data = bench.under_way(1, 4).into_iter().next().cloned();
    let Some(PeerMessage::Data(data)) = data else { panic!("no batch") };
    let prepare = Prepare { epoch: SECOND, boot_nonce: 9, voters: Bounded::default() };
    bench.message(2, 4, PeerMessage::Prepare(prepare));
    bench.forget();
    bench.message(1, 4, PeerMessage::Data(data));
    assert_eq!(bench.replica(4).log().last_seq(), SESSION);
    assert_eq!((bench.frames.reject, bench.frames.ack), (1, 0));
    let older = Prepare { epoch: Epoch { counter: 2, node: 1 }, boot_nonce: 9, voters: Bounded::default() };
    bench.message(1, 4, PeerMessage::Prepare(older));
    bench.sync(4);
    assert_eq!((bench.frames.reject, bench.frames.promise), (2, 1));
}

#[test]
fn a_promise_outlives_the_process() {
    let mut bench = five();
    let prepare = |epoch| PeerMessage::Prepare(Prepare { epoch, boot_nonce: 9, voters: Bounded::default() });
    let high = Epoch { counter: 7, node: 3 };
    bench.message(3, 4, prepare(high));
    bench.sync(4);
    bench.kill(4);
    bench.restart(4);
    assert_eq!(bench.replica(4).promised(), high);
    bench.forget();
    bench.message(2, 4, prepare(SECOND));
    assert_eq!((bench.frames.reject, bench.frames.promise), (1, 0));
}

#[test]
fn a_promise_tells_of_what_is_on_its_way_to_the_disk_and_the_epoch_keeps_it() {
    let mut bench = one_copy_at_3();
    promises_under_way(&mut bench);
    let under_way = bench.under_way(3, 2);
    let promise = under_way.iter().find_map(|message| match message {
        PeerMessage::Promise(promise) => Some(promise),
        _ => None,
    });
    assert_eq!(promise.map(|p| (p.last, p.committed)), Some((LogEnd { epoch: FIRST, seq: SESSION + 1 }, SESSION)));
    bench.deliver(3, 2);
    bench.deliver(4, 2);
    assert_eq!((bench.holder(), bench.frames.fetch), (None, 1), "the chosen log is another's: it is fetched first");
    bench.settle();
    assert_eq!(bench.holder(), Some(2));
    bench.run(10 * MS);
    assert!([2, 3, 4, 5].iter().all(|node| bench.replica(*node).machine().effects.len() == 1));
    bench.write_again(2, 2, 8);
    bench.settle();
    assert_eq!(bench.done.len(), 1);
    assert_eq!(bench.replica(2).machine().effects.len(), 1, "its retry is answered from the stored result");
}

#[test]
fn when_the_owner_of_the_chosen_log_dies_the_choice_is_made_without_it() {
    let mut bench = one_copy_at_3();
    promises_under_way(&mut bench);
    bench.deliver(3, 2);
    bench.deliver(4, 2);
    assert_eq!(bench.frames.fetch, 1);
    bench.kill(3);
    bench.settle();
    assert_eq!(bench.holder(), Some(2), "at once: the others' promises stand");
    assert!(bench.alive().iter().all(|node| bench.replica(*node).machine().effects.is_empty()));
    // What it had was on no majority: it goes when its owner comes back.
    bench.restart(3);
    bench.run(1_000 * MS);
    let promised = bench.replica(2).promised();
    assert!(all_in(&bench, promised));
    assert_eq!(bench.replica(3).log().last_hash(), bench.replica(2).log().last_hash());
}

#[test]
fn what_must_go_is_written_down_before_it_goes() {
    let mut bench = five();
    bench.write(1, 8);
    bench.deliver(1, 3);
    bench.sync(3);
    bench.kill(3);
    bench.kill(1);
    bench.run_until("an epoch without both", |bench| bench.holder().is_some());
    let epoch = bench.replica(2).promised();
    bench.slow.insert(3);
    bench.restart(3);
    bench.run(300 * MS);
    assert_eq!(bench.replica(3).promised(), epoch);
    assert_eq!((bench.replica(3).log().last_seq(), bench.replica(3).counters().truncations), (SESSION + 1, 0));
    assert_eq!(bench.replica(3).log().end().epoch, FIRST, "not before it is written down");
    bench.sync(3);
    assert_eq!(bench.disk(3).vote, Vote { promised: epoch, cut: epoch });
    assert_eq!(bench.replica(3).counters().truncations, 1);
    bench.slow.clear();
    bench.run(100 * MS);
    assert_eq!(bench.replica(3).log().last_hash(), bench.replica(2).log().last_hash());
    assert!(!bench.replica(3).status().withheld, "what was cut is not missed");
}

/// A damaged log was repaired in a later epoch, which is shorter. The vote was withheld when somebody remembered the old
/// end, and as nothing more became durable, for good.
#[test]
fn a_log_that_was_repaired_in_a_later_epoch_does_not_lose_its_vote_again() {
    let mut bench = five();
    for _ in 0..3 {
        bench.write(1, 8);
        bench.sync(1);
        bench.deliver(1, 3);
        bench.sync(3);
        bench.deliver(3, 1);
    }
    bench.isolate(1);
    bench.kill(3);
    bench.disk(3).lose(3, true);
    bench.run_until("an epoch without both", |bench| {
        bench.alive().iter().any(|n| bench.replica(*n).promised() > FIRST && bench.replica(*n).token().is_some())
    });
    bench.start(3);
    [2, 4, 5].into_iter().for_each(|other| bench.connect(3, other));
    bench.run(300 * MS);
    assert!(bench.replica(3).log().last_seq() < SESSION + 3 && !bench.replica(3).status().withheld);
    let hello = bench.hello(1, 3);
    assert_eq!((hello.acked.log_uuid, hello.acked.end.seq), (bench::uuid(3), SESSION + 3));
    bench.connect(1, 3);
    assert!(!bench.replica(3).status().withheld, "all that was committed is there");
}

/// Raft's figure 8: a majority with an older epoch's entry commits nothing, the new epoch's own first entry does.
#[test]
fn what_older_epochs_left_is_committed_by_the_new_ones_first_entry() {
    let mut bench = one_copy_at_3();
    for node in [3, 4, 5] {
        bench.slow.insert(node);
    }
    promises_under_way(&mut bench);
    bench.deliver(3, 2);
    bench.deliver(4, 2);
    bench.deliver(2, 3);
    bench.deliver(3, 2);
    bench.sync(2);
    let epoch = bench.replica(2).promised();
    assert_eq!((bench.holder(), bench.replica(2).log().last_seq()), (Some(2), SESSION + 2));
    let ack = |bench: &Bench, durable| {
        let hash = bench.replica(2).log().hash_at(durable).unwrap();
        PeerMessage::Ack(Ack { epoch, durable, hash, committed: 0, checked_seq: 0, checked_hash: 0 })
    };
    for from in [3, 4] {
        bench.message(from, 2, ack(&bench, SESSION + 1));
    }
    assert_eq!(bench.replica(2).committed(), SESSION, "on three disks of five, and not committed");
    bench.message(3, 2, ack(&bench, SESSION + 2));
    assert_eq!(bench.replica(2).committed(), SESSION);
    bench.message(4, 2, ack(&bench, SESSION + 2));
    assert_eq!(bench.replica(2).committed(), SESSION + 2);
}

#[test]
fn a_holder_that_was_paused_orders_nothing_until_a_majority_has_confirmed_its_epoch() {
    let mut bench = five();
    bench.now += 150 * MS;
    bench.forget();
    bench.write(1, 8);
    assert_eq!(bench.frames.data, 0);
    bench.message(2, 1, PeerMessage::Reject(Reject { epoch: FIRST }));
    assert_eq!(bench.frames.data, 0, "two of five");
    bench.settle();
    bench.run(60 * MS);
    assert_eq!(bench.done.len(), 1);
    assert!(all_in(&bench, FIRST), "nobody had missed it yet");
}

#[test]
fn a_holder_that_wakes_in_a_newer_epoch_orders_nothing_and_follows() {
    let mut bench = five();
    bench.paused.insert(1);
    bench.run_until("another epoch", |bench| bench.replica(2).token().is_some());
    let before = bench.replica(1).counters().batches_ordered;
    bench.paused.clear();
    let ticket = bench.write(1, 8);
    assert_eq!(bench.replica(1).counters().batches_ordered, before);
    bench.run(1_500 * MS);
    let epoch = bench.replica(2).promised();
    assert!(all_in(&bench, epoch));
    let done: Vec<u64> = bench.done.iter().map(|done| done.ticket).collect();
    let handed_back: Vec<u64> = bench.refused.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!([done, handed_back].concat(), [ticket], "ordered in the new epoch, or handed back: once");
}

#[test]
fn a_deaf_holder_gives_up_what_it_has_numbered_after_half_a_second() {
    let mut bench = five();
    bench.paused.extend(3..=5);
    let numbered = bench.write(1, 8);
    bench.run(400 * MS);
    assert_eq!((bench.done.len(), bench.refused.len(), bench.unknown.len()), (0, 0, 0));
    bench.run(200 * MS);
    assert_eq!(bench.unknown, [numbered], "it may take effect");
    let late = bench.write(1, 8);
    bench.run(250 * MS);
    assert_eq!(bench.refused, [(late, NotTaken::Unserved)], "this one never will");
    bench.paused.clear();
    bench.run_until("the majority goes on", |bench| {
        bench.alive().iter().all(|node| bench.replica(*node).machine().effects.len() == 1)
    });
    let again = bench.write_again(2, numbered, 8);
    bench.run(300 * MS);
    assert_eq!(bench.done.last().map(|done| done.ticket), Some(again));
    assert_eq!(bench.replica(2).machine().effects.len(), 1, "asked again, it is not executed again");
}

/// Node 2 holds the token and lacks the batch before it, which nobody has who lives.
fn holder_that_lacks_a_batch() -> Bench {
    let mut bench = five();
    let old_hello = bench.hello(1, 2);
    bench.write(1, 8);
    bench.write(2, 8);
    bench.cut(1, 2);
    bench.connect_with(1, old_hello, 2);
    bench.deliver(2, 1);
    // The token comes, what belongs before it does not.
    let token = bench.under_way(1, 2).into_iter().find(|m| matches!(m, PeerMessage::Token(_))).cloned();
    let Some(token) = token else { panic!("no token under way: {:?}", bench.under_way(1, 2)) };
    bench.message(1, 2, token);
    assert_eq!((bench.holder(), bench.replica(2).log().last_seq()), (Some(2), SESSION));
    bench
}

#[test]
fn a_holder_that_lacks_what_nobody_has_asks_for_an_epoch_itself() {
    let mut bench = holder_that_lacks_a_batch();
    let attempts = |bench: &Bench| bench.replica(2).counters().prevotes_asked;
    let before = attempts(&bench);
    bench.turn(2);
    assert_eq!(attempts(&bench), before, "the one that has it is still there");
    bench.kill(1);
    assert_eq!(attempts(&bench), before + 1, "at once: every peer with a link lacks it");
    bench.settle();
    assert_eq!(bench.replica(2).promised(), SECOND);
    bench.run(250 * MS);
    assert!(all_in(&bench, SECOND));
    assert!(bench.alive().iter().all(|node| bench.replica(*node).machine().effects.len() <= 1));
}

#[test]
fn a_holder_that_a_voter_refuses_asks_for_an_epoch_above_that_promise() {
    let mut bench = five();
    let high = Epoch { counter: 9, node: 3 };
    let prepare = Prepare { epoch: high, boot_nonce: 9, voters: Bounded::default() };
    bench.message(3, 5, PeerMessage::Prepare(prepare));
    bench.write(1, 8);
    bench.run(100 * MS);
    let above = Epoch { counter: 10, node: 1 };
    assert!(all_in(&bench, above));
    assert_eq!((bench.holder(), bench.done.len()), (Some(1), 1));
}

#[test]
fn a_coordinator_that_was_started_again_begins_another_epoch() {
    let mut bench = five();
    bench.kill(1);
    bench.restart(1);
    bench.settle();
    assert_eq!(bench.replica(1).token(), None);
    bench.run_until("another epoch", |bench| bench.holder().is_some());
    assert!(bench.replica(1).promised() > FIRST);
}

#[test]
fn a_dead_coordinator_does_not_keep_anyone_waiting() {
    let mut bench = five();
    bench.kill(1);
    promises_under_way(&mut bench);
    bench.kill(2);
    bench.run_until("another one's epoch", |bench| bench.holder().is_some());
    assert_eq!(bench.holder(), Some(3));
    assert!(bench.replica(3).promised() > SECOND);
}

#[test]
fn all_come_back_with_what_their_disks_hold() {
    let mut bench = five();
    for node in 1..=3 {
        bench.write_settled(node, 8);
    }
    let answered = bench.done.len();
    for node in 1..=5 {
        bench.kill(node);
    }
    for node in 1..=5 {
        bench.start(node);
    }
    for node in 1..=5 {
        for other in node + 1..=5 {
            bench.connect(node, other);
        }
    }
    bench.run_until("an epoch of all", |bench| bench.holder().is_some());
    bench.run(10 * MS);
    assert_eq!(answered, 3);
    assert!((1..=5).all(|node| bench.replica(node).machine().effects.len() == 3));
}

#[test]
fn a_batch_of_an_epoch_that_was_not_promised_is_dropped() {
    let mut bench = five();
    bench.write(1, 8);
    let Some(PeerMessage::Data(data)) = bench.under_way(1, 4).first().copied().cloned() else { panic!("no batch") };
    let data =
        Data { epoch: Epoch { counter: 9, node: 9 }, batch: Blob::new(data.batch.into_bytes()).unwrap(), ..data };
    bench.message(3, 4, PeerMessage::Data(data));
    assert_eq!(bench.replica(4).log().last_seq(), SESSION);
    assert_eq!(bench.replica(4).promised(), FIRST);
}
