//! Who counts (RING §4): learners, replacements, votes that are withheld, snapshots.

mod bench;
mod world;

use bench::{Bench, MS, SESSION, uuid};
use pygmy_proto::message::{Epoch, LogEnd, Prepare};
use pygmy_proto::types::Bounded;
use pygmy_ring::{Input, Limits, NotTaken, PeerMessage};

fn bench(voters: u16, learners: u16) -> Bench {
    let mut bench = Bench::with_learners(voters, learners, 3, Limits::default());
    bench.register();
    bench
}

fn voters(bench: &Bench, at: u16) -> Vec<u16> {
    bench.replica(at).membership().voters.iter().map(|voter| voter.node).collect()
}

fn why(bench: &Bench) -> Vec<NotTaken> {
    bench.refused.iter().map(|(_, why)| *why).collect()
}

fn refused(why: &'static str) -> NotTaken {
    NotTaken::ChangeRefused(why)
}

#[test]
fn a_learner_acknowledges_and_is_never_counted() {
    let mut bench = bench(3, 1);
    bench.isolate(2);
    bench.isolate(3);
    bench.write(1, 8);
    bench.settle();
    assert!(bench.acks_to[&1] > 0, "the learner acknowledges");
    assert_eq!(bench.done, [], "one voter of three is no majority");
}

#[test]
fn an_empty_disk_does_not_vote_under_the_old_name() {
    let mut bench = bench(3, 0);
    bench.kill(3);
    let new = bench.restart_empty(3);
    bench.run(100 * MS);
    assert_eq!(bench.replica(3).applied(), SESSION, "it has caught up");
    assert!(!bench.replica(3).status().voter && !bench.replica(1).votes(new));
    bench.isolate(2);
    bench.write(1, 8);
    bench.settle();
    assert_eq!(bench.done, []);
    bench.join(2);
    bench.run(200 * MS);
    assert_eq!(bench.done.len(), 1);
}

#[test]
fn a_living_voter_is_replaced_by_adding_the_new_one_first() {
    let mut bench = bench(3, 1);
    bench.change(1, uuid(3), 4, uuid(4));
    assert_eq!(voters(&bench, 1), [1, 2, 3, 4], "in force when it is ordered");
    assert_eq!(bench.replica(1).membership().swap.as_ref().map(|swap| swap.old), Some(uuid(3)));
    bench.settle();
    assert_eq!(bench.done.len(), 1);
    assert_eq!(voters(&bench, 1), [1, 2, 4]);
    bench.run(100 * MS);
    assert!([1, 2, 4].iter().all(|node| bench.replica(*node).is_removed(uuid(3))));
    assert!(bench.replica(4).status().voter && !bench.replica(3).status().voter);
    // The new one counts, the old one does not.
    bench.isolate(2);
    bench.write(1, 8);
    bench.settle();
    assert_eq!(bench.done.len(), 2);
}

#[test]
fn a_dead_voter_is_removed_before_the_new_one_is_added() {
    let mut bench = bench(3, 1);
    bench.kill(3);
    bench.run(300 * MS);
    bench.change(1, uuid(3), 4, uuid(4));
    assert_eq!(voters(&bench, 1), [1, 2]);
    assert!(!bench.replica(1).is_removed(uuid(3)), "not before the removal is committed");
    bench.settle();
    assert_eq!(voters(&bench, 1), [1, 2, 4]);
    assert!(bench.replica(1).is_removed(uuid(3)));
    bench.run(100 * MS);
    bench.kill(2);
    bench.write(1, 8);
    bench.run(300 * MS);
    assert_eq!(bench.done.len(), 2, "1 and 4 are a majority");
}

#[test]
fn a_voter_that_lost_its_disk_takes_its_own_place_under_its_new_name() {
    let mut bench = bench(3, 0);
    bench.kill(3);
    let new = bench.restart_empty(3);
    bench.run(100 * MS);
    bench.change(2, uuid(3), 3, new);
    bench.run(100 * MS);
    assert_eq!(bench.done.len(), 1);
    assert!(bench.replica(3).status().voter);
    assert_eq!(voters(&bench, 1), [1, 2, 3]);
}

#[test]
fn the_second_change_is_the_next_holders_when_the_first_one_dies() {
    let mut bench = bench(5, 1);
    bench.change(1, uuid(5), 6, uuid(6));
    for to in 2..=6 {
        bench.deliver(1, to);
        bench.sync(to);
    }
    bench.kill(1);
    bench.run_until("another holder finishes it", |bench| {
        bench.holder().is_some_and(|node| bench.replica(node).membership().swap.is_none())
    });
    assert_eq!(voters(&bench, 2), [1, 2, 3, 4, 6]);
    assert_eq!(bench.replica(2).membership().id, 3);
}

#[test]
fn a_configuration_is_undone_with_its_entry() {
    let mut bench = bench(5, 1);
    bench.change(1, uuid(5), 6, uuid(6));
    bench.deliver(1, 3);
    bench.sync(3);
    assert_eq!(bench.replica(3).membership().id, 2);
    bench.kill(3);
    bench.kill(1);
    bench.run_until("an epoch without it", |bench| bench.holder().is_some());
    bench.restart(3);
    bench.run(1_000 * MS);
    assert_eq!((bench.replica(3).membership().id, voters(&bench, 3)), (1, vec![1, 2, 3, 4, 5]));
}

/// The only catalog that is left has not heard of a replacement; by the voters that it knows it hears no majority, and
/// whoever knows better is no catalog.
#[test]
fn a_catalog_that_missed_a_replacement_can_begin_an_epoch() {
    let mut bench = Bench::with_learners(4, 1, 2, Limits::default());
    bench.register();
    bench.kill(4);
    bench.run(300 * MS);
    bench.isolate(2);
    bench.kill(5);
    bench.change(1, uuid(4), 5, uuid(5));
    bench.run(100 * MS);
    assert_eq!((bench.done.len(), voters(&bench, 3)), (1, vec![1, 2, 3]));
    bench.kill(1);
    // 3 promises an epoch that never begins, and so explains none to 2.
    bench.restart(1);
    bench.cut(1, 2);
    bench.slow.insert(3);
    bench.run_until("3 has promised", |bench| bench.replica(3).promised() > bench.replica(2).promised());
    bench.kill(1);
    bench.slow.clear();
    bench.join(2);
    assert_eq!(voters(&bench, 2), [1, 2, 3, 4]);
    bench.run_until("an epoch of two of three", |bench| bench.holder() == Some(2));
    bench.settle();
    assert_eq!(voters(&bench, 2), [1, 2, 3]);
}

/// A log that names a later configuration is chosen only with a majority of *that* configuration's voters.
#[test]
fn promises_are_counted_by_the_configuration_of_the_chosen_log() {
    let mut bench = bench(3, 1);
    bench.change(1, uuid(3), 4, uuid(4));
    bench.deliver(1, 4);
    bench.sync(4);
    bench.slow.insert(3);
    bench.kill(1);
    bench.settle();
    // 2 and 4 have promised, and 4's log is the longer one: two of four. Of three they would be no majority either;
    // with 3, whose promise is not on its disk yet, there are three of four.
    assert_eq!(bench.holder(), None);
    assert!(bench.frames.promise > 0 && bench.replica(2).promised().counter == 2);
    bench.sync(3);
    bench.slow.clear();
    bench.run_until("an epoch of three of four", |bench| bench.holder().is_some());
    assert_eq!(bench.replica(2).membership().id, 3, "which then finishes the replacement");
}

#[test]
fn changes_that_make_no_sense_or_are_not_safe_are_refused_with_the_reason() {
    let mut bench = bench(3, 2);
    bench.change(4, uuid(3), 4, uuid(4));
    bench.change(1, uuid(4), 5, uuid(5));
    bench.change(1, uuid(3), 2, uuid(2));
    let expected = [
        NotTaken::NotACatalog,
        refused("the log that is to go is none of the voters"),
        refused("the log that is to come votes already, or was removed for ever"),
    ];
    assert_eq!(why(&bench), expected);
    bench.forget();

    // 2 does not hold the token: its change waits, and with it nothing else may.
    bench.change(2, uuid(3), 4, uuid(4));
    bench.change(2, uuid(3), 4, uuid(4));
    assert_eq!(why(&bench), [refused("another change of the voters waits to be ordered")]);
    bench.settle();
    bench.run(10 * MS);
    assert_eq!(bench.done.len(), 1);
    bench.forget();

    bench.change(2, uuid(2), 3, uuid(3));
    bench.settle();
    assert_eq!(why(&bench), [refused("the log that is to come votes already, or was removed for ever")]);
    bench.input(2, Input::Leave);
    bench.change(2, uuid(1), 5, uuid(5));
    assert_eq!(why(&bench)[1..], [NotTaken::Leaving]);
}

#[test]
fn a_replacement_waits_for_the_one_before() {
    let mut bench = bench(5, 2);
    bench.kill(7);
    bench.kill(5);
    bench.run(300 * MS);
    bench.change(1, uuid(5), 7, uuid(7));
    bench.settle();
    assert_eq!(voters(&bench, 1), [1, 2, 3, 4], "7 is not there to be added");
    bench.change(1, uuid(4), 6, uuid(6));
    bench.settle();
    assert_eq!(why(&bench), [refused("another replacement is under way")]);
    bench.restart(7);
    bench.run(300 * MS);
    assert_eq!(voters(&bench, 1), [1, 2, 3, 4, 7]);
}

#[test]
fn a_replacement_that_died_can_itself_be_replaced() {
    let mut bench = bench(5, 2);
    bench.kill(7);
    bench.kill(5);
    bench.run(300 * MS);
    bench.change(1, uuid(5), 7, uuid(7));
    bench.settle();
    bench.change(1, uuid(5), 6, uuid(6));
    bench.run(100 * MS);
    assert_eq!(voters(&bench, 1), [1, 2, 3, 4, 6]);
}

#[test]
fn no_change_takes_the_majority_away() {
    let mut bench = bench(3, 1);
    bench.isolate(4);
    bench.kill(2);
    bench.run(300 * MS);
    // 1 and 3 are heard. With 4 in the place of 3, which lives, there would be four voters and two of them there.
    bench.change(1, uuid(3), 4, uuid(4));
    bench.settle();
    assert_eq!(why(&bench), [refused("no majority of the voters that there would be is heard")]);
    assert_eq!(bench.replica(1).membership().id, 1);
}

/// A fourth voter that is not there would make three of four out of two of three.
#[test]
fn a_living_voter_is_not_replaced_by_one_that_does_not_follow_yet() {
    let mut bench = bench(3, 1);
    bench.kill(4);
    bench.change(1, uuid(3), 4, uuid(4));
    bench.settle();
    assert_eq!(why(&bench), [refused("the log that is to come is still learning")]);
    assert_eq!(bench.replica(1).membership().id, 1);
    bench.restart(4);
    bench.change(1, uuid(3), 4, uuid(4));
    bench.settle();
    assert_eq!(voters(&bench, 1), [1, 2, 4]);
}

/// Numbers are never used twice: who takes the place of 3 was not known to anybody when they started.
#[test]
fn one_that_nobody_knew_takes_a_place_and_may_hold_the_token() {
    const NEW: u16 = 256 + 3;
    let mut bench = bench(3, 0);
    bench.write_settled(1, 8);
    bench.start_unknown(NEW, 3);
    bench.run(100 * MS);
    assert_eq!(bench.replica(NEW).applied(), SESSION + 1, "it follows");
    let members = |bench: &Bench, at| -> Vec<(u16, bool, bool)> {
        let members = bench.replica(at).status().members;
        members.iter().map(|member| (member.node, member.voter, member.heard)).collect()
    };
    assert_eq!(members(&bench, 1), [(1, true, true), (2, true, true), (3, true, true), (NEW, false, true)]);
    assert_eq!(members(&bench, NEW), members(&bench, 1));
    bench.change(1, uuid(3), NEW, uuid(NEW));
    bench.run(100 * MS);
    assert_eq!(voters(&bench, 1), [1, 2, NEW]);
    bench.kill(3);
    assert_eq!(members(&bench, 1), [(1, true, true), (2, true, true), (NEW, true, true)], "3 is forgotten");

    // Of three voters the first two are gone one after the other, and the newcomer orders alone with the last.
    bench.kill(1);
    bench.run_until("another holder", |bench| bench.holder().is_some());
    bench.write(NEW, 8);
    bench.run(500 * MS);
    assert_eq!(bench.done.len(), 3);
    assert_eq!(bench.holder(), Some(NEW), "it asked for the token and was given it");
}

#[test]
fn strangers_take_no_more_room_than_there_is() {
    let mut bench = bench(3, 0);
    for number in 1..=40 {
        bench.start_unknown(256 * number + 3, 3);
    }
    bench.run(100 * MS);
    assert_eq!(bench.replica(1).status().members.len(), 33, "itself, and as many peers as there may be");
    for number in 1..=40 {
        bench.kill(256 * number + 3);
    }
    bench.start_unknown(256 * 41 + 3, 3);
    bench.run(100 * MS);
    let members = bench.replica(1).status().members;
    assert!(members.iter().any(|member| member.node == 256 * 41 + 3 && member.heard), "those that are gone make room");
}

#[test]
fn nothing_changes_before_this_epoch_has_committed_an_entry() {
    let mut bench = bench(5, 1);
    bench.kill(1);
    for other in 3..=6 {
        bench.deliver(2, other);
        bench.deliver(other, 2);
    }
    bench.sync(2);
    for other in 3..=6 {
        bench.deliver(2, other);
        bench.sync(other);
        bench.deliver(other, 2);
    }
    assert_eq!(bench.holder(), Some(2));
    bench.change(2, uuid(5), 6, uuid(6));
    assert_eq!(bench.replica(2).membership().id, 1);
    bench.settle();
    assert_eq!(bench.replica(2).membership().id, 3);
}

/// Node 3 has acknowledged two writes and comes back without them, and without knowing it.
fn amnesia() -> Bench {
    let mut bench = bench(3, 0);
    bench.isolate(2);
    bench.write_settled(1, 8);
    bench.write_settled(1, 8);
    assert_eq!(bench.done.len(), 2);
    bench.kill(3);
    bench.disk(3).log.truncate(2);
    bench.disk(3).snapshot = None;
    bench.start(3);
    bench
}

#[test]
fn a_log_that_has_lost_what_it_acknowledged_has_no_vote_until_it_has_it_again() {
    let mut bench = amnesia();
    let ends = |bench: &Bench, node| bench.replica(node).log().last_seq();
    assert_eq!((ends(&bench, 3), bench.replica(3).status().withheld), (SESSION, false));
    bench.forget();
    bench.connect(3, 1);
    assert!(bench.replica(3).status().withheld, "1 remembers, and says so");
    assert_eq!(bench.acks_to.get(&1), None);
    // Without 1 it must not help 2, which never had them, to a majority.
    bench.cut(3, 1);
    bench.connect(3, 2);
    bench.run(3_000 * MS);
    assert_eq!(bench.frames.promise, 0);
    assert_eq!(bench.holder(), Some(1), "whose token is worth nothing now, and nobody else's is");
    bench.connect(1, 2);
    bench.connect(1, 3);
    bench.run(1_000 * MS);
    assert!(!bench.replica(3).status().withheld);
    assert!((1..=3).all(|node| bench.replica(node).machine().effects.len() == 2));
}

#[test]
fn a_log_without_a_vote_makes_no_read_fresh() {
    let mut bench = amnesia();
    bench.connect(3, 1);
    bench.cut(3, 1);
    bench.connect(3, 2);
    // 2 never had the two writes that were answered, and 3 has lost them.
    for asker in [2, 3] {
        bench.input(asker, Input::Barrier { ticket: 1 });
    }
    bench.run(500 * MS);
    assert!(bench.frames.barrier > 0 && bench.replica(3).status().withheld);
    assert_eq!(bench.fresh, []);
    bench.connect(1, 2);
    bench.connect(1, 3);
    bench.run(1_000 * MS);
    assert_eq!(bench.fresh.len(), 2);
    assert!(bench.fresh.iter().all(|(_, _, seq)| *seq >= SESSION + 2), "{:?}", bench.fresh);
}

#[test]
fn a_log_that_knows_of_its_damage_has_no_vote_until_it_is_repaired() {
    let mut bench = bench(3, 0);
    bench.write_settled(1, 8);
    bench.write_settled(1, 8);
    bench.kill(3);
    bench.disk(3).lose(2, true);
    bench.start(3);
    assert!(bench.replica(3).status().withheld);
    bench.connect(3, 2);
    bench.run(50 * MS);
    assert!(!bench.replica(3).status().withheld);
    assert_eq!(bench.replica(3).log().last_seq(), SESSION + 2);
}

#[test]
fn a_vote_comes_back_with_what_was_lost_and_does_not_wait_for_the_rest() {
    let mut bench = bench(3, 0);
    bench.write_settled(1, 8);
    bench.kill(3);
    bench.disk(3).lose(1, true);
    for _ in 0..3 {
        bench.write_settled(1, 8);
    }
    bench.start(3);
    bench.connect(3, 2);
    bench.slow.insert(3);
    bench.run(20 * MS);
    assert_eq!((bench.replica(3).log().last_seq(), bench.replica(3).status().withheld), (SESSION + 4, true));
    let now = bench.clock();
    let first = bench.disk(3).sync(1);
    assert_eq!(first.len(), 1, "{now:?}");
    let world::disk::Notice::Durable { epoch, seq, hash } = first[0] else { panic!("not a batch") };
    bench.input(3, Input::Durable { epoch, seq, hash });
    assert_eq!((seq, bench.replica(3).status().withheld), (SESSION + 1, false));
}

#[test]
fn a_snapshot_that_has_what_was_lost_gives_the_vote_back() {
    let mut bench = short_logs(3);
    bench.kill(3);
    bench.disk(3).lose(2, true);
    bench.start(3);
    bench.connect(3, 1);
    assert!(bench.replica(3).status().withheld);
    assert!(bench.install_snapshot(1, 3));
    assert!(!bench.replica(3).status().withheld);
}

/// A later epoch's acknowledgement of less is known to a peer; the disk itself knows of more that it lost.
#[test]
fn a_vote_is_withheld_until_all_that_is_known_to_be_lost_is_back() {
    let mut bench = bench(3, 0);
    for _ in 0..6 {
        bench.write_settled(1, 8);
    }
    bench.kill(3);
    bench.disk(3).lose(3, true);
    bench.start(3);
    bench.slow.insert(3);
    let last = SESSION + 6;
    let mut hello = bench.hello(2, 3);
    hello.acked.end = LogEnd { epoch: Epoch { counter: 2, node: 2 }, seq: last - 2 };
    bench.connect_with(2, hello, 3);
    bench.run(20 * MS);
    assert_eq!(bench.replica(3).log().last_seq(), last);
    for seq in last - 2..=last {
        assert!(bench.replica(3).status().withheld, "{seq} is not back");
        for notice in bench.disk(3).sync(1) {
            let world::disk::Notice::Durable { epoch, seq: durable, hash } = notice else { panic!("not a batch") };
            assert_eq!(durable, seq);
            bench.input(3, Input::Durable { epoch, seq, hash });
        }
    }
    assert!(!bench.replica(3).status().withheld);
}

/// What is acknowledged in an epoch may lie before its first entry: its loss would be no loss.
#[test]
fn an_acknowledgement_of_an_older_epochs_entries_is_not_missed() {
    let mut bench = bench(3, 0);
    bench.write_settled(1, 8);
    bench.slow.insert(3);
    bench.kill(1);
    bench.settle();
    bench.sync(3);
    bench.settle();
    assert!(bench.replica(3).installed(), "in memory; its disk has the promise, not the epoch's first entry");
    // A link that comes back is told how far this log is in the new epoch: nowhere yet.
    bench.cut(2, 3);
    bench.connect(2, 3);
    bench.settle();
    bench.kill(3);
    bench.slow.clear();
    assert_eq!(bench.disk(3).end().epoch.counter, 1);
    assert_eq!(bench.hello(2, 3).acked.end.epoch.counter, 2);
    bench.start(3);
    bench.connect(3, 2);
    assert!(!bench.replica(3).status().withheld);
    bench.run(500 * MS);
    assert!(bench.holder().is_some(), "2 and 3 need each other");
}

fn short_logs(voters: u16) -> Bench {
    let mut bench = Bench::new(voters, 3, Limits { retained_bytes_max: 1, ..Limits::default() });
    bench.register();
    for _ in 0..5 {
        bench.write_settled(1, 8);
    }
    bench
}

#[test]
fn what_no_log_holds_any_more_comes_as_a_snapshot() {
    let mut bench = short_logs(3);
    bench.kill(3);
    bench.restart_empty(3);
    bench.forget();
    bench.run(150 * MS);
    assert_eq!((bench.frames.fetch, bench.frames.refused), (2, 2), "each of the two peers once");
    assert_eq!(bench.need_snapshot.len(), 1);
    let (who, from) = bench.need_snapshot[0];
    assert_eq!(who, 3);
    assert!(bench.install_snapshot(from, 3));
    assert_eq!(bench.replica(3).applied(), SESSION + 5);
    assert_eq!(bench.replica(3).state_hash(), bench.replica(1).state_hash());
    bench.write_settled(1, 8);
    bench.run(100 * MS);
    assert_eq!(bench.replica(3).applied(), SESSION + 6);
    assert_eq!(bench.replica(3).machine().effects.len(), 6);
}

/// Whoever dies with its promise unsynced would answer for an older epoch than it has acknowledged in.
#[test]
fn what_a_snapshot_has_is_acknowledged_when_the_promise_is_durable() {
    let mut bench = short_logs(3);
    bench.kill(3);
    bench.slow.insert(3);
    bench.restart_empty(3);
    bench.forget();
    bench.run(150 * MS);
    let promised = bench.replica(3).promised();
    assert!(bench.disk(3).vote.promised < promised);
    assert!(bench.install_snapshot(1, 3));
    // A link that comes back is told how far the log is, if that may be told.
    let told = |bench: &mut Bench| {
        bench.cut(2, 3);
        bench.forget();
        bench.connect(2, 3);
        bench.settle();
        bench.acks_to.get(&2).copied()
    };
    assert_eq!((bench.replica(3).applied(), told(&mut bench)), (SESSION + 5, None));
    bench.sync(3);
    assert_eq!(told(&mut bench), Some(1));
    assert_eq!(bench.disk(3).vote.promised, promised);
}

#[test]
fn a_snapshot_whose_giver_is_gone_is_asked_for_again() {
    let mut bench = short_logs(3);
    bench.kill(3);
    bench.restart_empty(3);
    bench.forget();
    bench.run(3_000 * MS);
    assert!((3..=8).contains(&bench.need_snapshot.len()), "again and again, and not in a hurry: {:?}", bench.frames);
}

#[test]
fn a_snapshot_below_the_own_end_is_not_taken() {
    let mut bench = bench(3, 0);
    bench.isolate(3);
    bench.write_settled(1, 8);
    assert!(!bench.install_snapshot(3, 2));
    assert!(!bench.install_snapshot(2, 2));
    assert!(bench.install_snapshot(2, 3));
    assert_eq!(bench.replica(3).applied(), SESSION + 1);
}

/// What was on its way to the disk when the snapshot was taken is below it, and says nothing new when it gets there.
#[test]
fn notices_of_what_was_submitted_before_a_snapshot_change_nothing() {
    let mut bench = short_logs(3);
    bench.slow.insert(3);
    bench.write_settled(1, 8);
    bench.isolate(3);
    bench.write_settled(1, 8);
    let late = bench.disk(3).sync(1);
    let world::disk::Notice::Durable { epoch, seq, hash } = late[0] else { panic!("not a batch: {late:?}") };
    assert!(bench.install_snapshot(1, 3));
    let before = bench.replica(3).status();
    assert!(seq < before.durable);
    bench.input(3, Input::Durable { epoch, seq, hash });
    assert_eq!(bench.fatal, Vec::<String>::new());
    assert_eq!(bench.replica(3).status(), before);
    bench.slow.clear();
    bench.join(3);
    bench.write_settled(1, 8);
    assert_eq!(bench.replica(3).status().durable, SESSION + 8);
}

/// A simulated run found it: a snapshot that is taken while an epoch is being adopted holds that epoch's first entry, and
/// what followed it was cut again once the promise was on the disk.
#[test]
fn a_snapshot_of_the_epoch_that_is_being_adopted_ends_the_adoption() {
    let mut bench = short_logs(3);
    bench.kill(3);
    bench.slow.insert(3);
    bench.restart_empty(3);
    bench.run(20 * MS);
    assert!(!bench.replica(3).installed(), "its promise is not on its disk yet");
    assert!(bench.install_snapshot(1, 3));
    assert!(bench.replica(3).installed());
    bench.write_settled(1, 8);
    assert_eq!(bench.replica(3).log().last_seq(), SESSION + 6);
    bench.slow.clear();
    bench.run(100 * MS);
    assert_eq!(bench.fatal, Vec::<String>::new());
    assert_eq!(bench.replica(3).applied(), SESSION + 6);
}

#[test]
fn a_learner_that_has_promised_a_higher_epoch_is_taken_into_one_above() {
    let mut bench = bench(3, 1);
    bench.write_settled(1, 8);
    let high = Epoch { counter: 9, node: 2 };
    // Who asked, by a configuration that came to nothing, is gone.
    let prepare = Prepare { epoch: high, boot_nonce: 9, voters: Bounded::truncated(vec![uuid(4)]) };
    bench.message(2, 4, PeerMessage::Prepare(prepare));
    bench.run_until("an epoch above", |bench| {
        bench.holder().is_some() && bench.alive().iter().all(|node| bench.replica(*node).promised().counter == 10)
    });
    bench.write_settled(1, 8);
    assert_eq!(bench.replica(4).applied(), bench.replica(1).applied(), "it learns on");
}
