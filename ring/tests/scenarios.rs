//! One rule of ordering under the token each, with the frames that it costs. `epochs.rs` beside this has what happens
//! when the token is lost, `members.rs` who counts.

mod bench;
mod world;

use bench::{Bench, Frames, MS, SESSION};
use pygmy_proto::batch::EntryKind;
use pygmy_proto::message::{Ack, Commit, Data, Epoch, Fetch, Token};
use pygmy_proto::types::Blob;
use pygmy_ring::{Input, Limits, NotTaken, PeerMessage};

const EPOCH: Epoch = Epoch { counter: 1, node: 1 };

fn five() -> Bench {
    let mut bench = Bench::new(5, 3, Limits::default());
    bench.register();
    bench
}

fn why(bench: &Bench) -> Vec<NotTaken> {
    bench.refused.iter().map(|(_, why)| *why).collect()
}

#[test]
fn a_lone_write_at_the_parking_place_costs_data_and_acknowledgements_alone() {
    let mut bench = five();
    bench.write(1, 8);
    bench.settle();
    assert_eq!(bench.done.len(), 1);
    assert_eq!(bench.frames, Frames { data: 4, ack: 4, ..Frames::default() });
    assert_eq!(bench.acks_to.into_iter().collect::<Vec<_>>(), [(1, 4)], "to the origin, which is the holder");
}

#[test]
fn the_commit_is_told_after_a_millisecond_unless_other_frames_tell_it() {
    let mut bench = five();
    bench.write(1, 8);
    bench.settle();
    bench.pass(MS);
    assert_eq!(bench.frames.commit, 4);
    bench.settle();
    assert!((1..=5).all(|node| bench.replica(node).applied() == SESSION + 1));
}

#[test]
fn an_idle_ring_sends_heartbeats_and_nothing_else() {
    let mut bench = five();
    bench.run(10_000 * MS);
    assert_eq!(bench.frames, Frames::default());
    assert_eq!(bench.votes.len(), 0);
    assert!((995..=1_000).contains(&bench.beats_sent), "one a node and 50 ms: {}", bench.beats_sent);
}

#[test]
fn a_write_elsewhere_costs_a_want_to_all_and_one_token() {
    let mut bench = five();
    bench.write(3, 8);
    bench.settle();
    assert_eq!(bench.done.len(), 1);
    assert_eq!(bench.frames.want, 4);
    assert_eq!(bench.frames.token, 1);
    assert_eq!(bench.frames.data, 4);
    assert_eq!(bench.holder(), Some(3), "it stays where it was used last");
    bench.run(1_000 * MS);
    assert_eq!(bench.frames.token, 1, "a want is served once");
}

#[test]
fn acknowledgements_go_to_origin_and_holder_only() {
    let mut bench = five();
    bench.write(1, 8);
    bench.write(2, 8);
    for to in 2..=5 {
        bench.deliver(1, to);
    }
    bench.deliver(2, 1);
    bench.deliver(1, 2);
    assert_eq!(bench.holder(), Some(2));
    bench.deliver(2, 5);
    bench.frames = Frames::default();
    bench.acks_to.clear();
    bench.sync(5);
    assert_eq!(bench.acks_to.into_iter().collect::<Vec<_>>(), [(1, 1), (2, 1)], "one for each, for both batches");
}

/// Node 2 has three batches' worth of writes when the token comes; the batches that it orders in that tenure.
fn tenure_of_node_2(mut bench: Bench) -> u64 {
    for _ in 0..12 {
        bench.write(2, 200_000);
    }
    bench.deliver(2, 1);
    bench.deliver(1, 2);
    let ordered = bench.replica(2).counters().batches_ordered;
    bench.settle();
    assert_eq!(bench.replica(2).counters().batches_ordered, 3, "the rest is ordered in later tenures");
    ordered
}

#[test]
fn a_tenure_is_one_batch_while_others_want_the_token() {
    assert_eq!(tenure_of_node_2(five()), 3, "nobody else wants it");
    let mut bench = five();
    bench.write(3, 8);
    bench.deliver(3, 2);
    assert_eq!(tenure_of_node_2(bench), 1);
}

#[test]
fn what_is_not_served_in_200_ms_is_handed_back_and_the_want_stays() {
    let mut bench = five();
    bench.held.insert((2, 1));
    let ticket = bench.write(2, 8);
    bench.run(200 * MS - 1);
    assert_eq!(bench.refused, []);
    bench.pass(1);
    assert_eq!(bench.refused, [(ticket, NotTaken::Unserved)]);
    bench.run(100 * MS);
    assert_eq!(bench.refused.len(), 1, "answered once");
    bench.held.clear();
    bench.run(2_000 * MS);
    assert_eq!(bench.holder(), Some(2), "after it has been well for a while");
    assert_eq!(bench.done, [], "what was handed back has no effect");
    bench.write(2, 8);
    bench.settle();
    assert_eq!(bench.done.len(), 1);
}

#[test]
fn without_a_link_to_the_holder_writes_are_handed_back_after_50_ms() {
    let mut bench = five();
    bench.cut(1, 2);
    bench.write(2, 8);
    bench.pass(50 * MS - 1);
    assert_eq!(why(&bench), []);
    bench.pass(1);
    assert_eq!(why(&bench), [NotTaken::Unserved]);
}

#[test]
fn a_holder_without_a_majority_stops_at_its_bounds_and_hands_back() {
    let mut bench = five();
    bench.paused.extend(3..=5);
    for _ in 0..20 {
        bench.write(1, 8);
    }
    bench.settle();
    assert_eq!(bench.done, []);
    assert_eq!(bench.replica(1).queues().uncommitted_batches, 8);
    assert_eq!(bench.replica(1).queues().pending, 12);
    bench.run(200 * MS);
    assert_eq!(why(&bench), [NotTaken::Unserved; 12]);
    bench.write(2, 8);
    bench.run(50 * MS);
    assert!(bench.frames.token <= 2, "it does not circle in vain: {:?}", bench.frames);
}

#[test]
fn admission_is_bounded_in_count_and_bytes() {
    let limits = Limits { pending_max: 3, pending_bytes_max: 400, ..Limits::default() };
    let mut bench = Bench::new(3, 3, limits);
    bench.register();
    for _ in 0..4 {
        bench.write(2, 8);
    }
    assert_eq!(why(&bench), [NotTaken::QueueFull]);
    bench.write(3, 500);
    assert_eq!(why(&bench), [NotTaken::QueueFull; 2]);
    assert_eq!(bench.replica(3).queues().pending_bytes, 0);
}

#[test]
fn what_no_log_takes_is_refused_before_it_is_numbered() {
    let mut bench = five();
    bench.write(1, pygmy_proto::limits::CLIENT_BODY_MAX);
    bench.write(5, 8);
    assert_eq!(why(&bench), [NotTaken::TooLong, NotTaken::NotACatalog]);
    assert_eq!(bench.frames, Frames::default());
}

#[test]
fn a_deadline_counts_only_until_the_write_is_numbered() {
    let mut bench = five();
    let (now, none) = (bench.now, bytes::Bytes::new());
    let late = bench.propose(2, EntryKind::Register, none.clone(), now + 10 * MS);
    bench.pass(10 * MS);
    bench.settle();
    assert_eq!(bench.refused, [(late, NotTaken::Deadline)]);
    bench.propose(2, EntryKind::Register, none, bench.now + 10 * MS);
    bench.deliver(2, 1);
    bench.deliver(1, 2);
    bench.pass(40 * MS);
    bench.settle();
    assert_eq!((bench.refused.len(), bench.done.len()), (1, 1), "numbered in time, answered late");
}

/// Node 1 has passed the token to node 2, and it is under way.
fn token_under_way() -> Bench {
    let mut bench = five();
    bench.write(2, 8);
    bench.deliver(2, 1);
    assert_eq!((bench.holder(), bench.frames.token), (None, 1));
    bench
}

#[test]
fn a_token_lost_with_its_link_is_sent_again_to_the_same_process() {
    let mut bench = token_under_way();
    bench.cut(1, 2);
    bench.connect(1, 2);
    bench.settle();
    assert_eq!(bench.replica(1).counters().tokens_resent, 1);
    assert_eq!(bench.holder(), Some(2));
    bench.cut(1, 2);
    bench.connect(1, 2);
    bench.settle();
    assert_eq!(bench.replica(1).counters().tokens_resent, 1, "not once it was received");
}

#[test]
fn a_token_that_comes_twice_counts_once() {
    let mut bench = token_under_way();
    let Some(PeerMessage::Token(token)) = bench.links[&(1, 2)].back().cloned() else { panic!("no token") };
    bench.settle();
    bench.write(3, 8);
    bench.settle();
    assert_eq!(bench.holder(), Some(3));
    bench.input(2, Input::Message { node: 1, message: PeerMessage::Token(token) });
    assert_eq!(bench.replica(2).counters().tokens_refused, 1);
    assert_eq!(bench.holder(), Some(3));
}

#[test]
fn an_origin_that_dies_before_it_tells_of_its_commit_leaves_nobody_behind() {
    let mut bench = five();
    bench.write(2, 8);
    bench.settle();
    bench.write(3, 8);
    bench.deliver(3, 2);
    bench.deliver(2, 3);
    assert_eq!(bench.holder(), Some(3));
    bench.settle();
    assert_eq!(bench.done.len(), 2);
    bench.kill(2);
    bench.settle();
    assert!([1, 3, 4, 5].iter().all(|node| bench.replica(*node).applied() == SESSION + 2));
}

#[test]
fn a_gap_is_fetched_after_2_ms_and_not_before() {
    let mut bench = five();
    bench.cut(1, 5);
    bench.write(1, 8);
    bench.settle();
    bench.write(1, 8);
    bench.settle();
    // The link that comes back brings the end of the log; what is before it is the gap.
    bench.connect(1, 5);
    bench.settle();
    assert_eq!((bench.frames.fetch, bench.replica(5).log().last_seq()), (0, SESSION));
    bench.pass(2 * MS - 1);
    assert_eq!(bench.frames.fetch, 0);
    bench.pass(1);
    assert_eq!(bench.frames.fetch, 1);
    bench.settle();
    assert_eq!(bench.replica(5).log().last_seq(), SESSION + 2);
    assert_eq!(bench.frames.fetch, 1);
}

/// A simulated run found it: what is ordered after a handshake was sent and before its answer came goes to links that
/// are up, the handshake knows nothing of it, and nothing that follows shows it.
#[test]
fn what_is_ordered_while_hands_are_shaken_is_not_missed() {
    let mut bench = five();
    let old_hello = bench.hello(1, 2);
    bench.write(1, 8);
    bench.write(2, 8);
    bench.deliver(2, 1);
    bench.cut(1, 2);
    bench.connect_with(1, old_hello, 2);
    assert_eq!(bench.replica(2).log().last_seq(), SESSION);
    bench.deliver(1, 2);
    assert_eq!((bench.holder(), bench.replica(2).log().last_seq()), (Some(2), SESSION + 2));
    assert_eq!(bench.frames.fetch, 0);
}

#[test]
fn a_learner_catches_up_with_megabytes_while_writes_go_on() {
    let mut bench = five();
    for _ in 0..40 {
        bench.write_settled(1, 200_000);
    }
    bench.kill(5);
    bench.restart_empty(5);
    bench.forget();
    bench.run(4 * MS);
    for _ in 0..8 {
        bench.write(1, 8);
        bench.settle();
    }
    bench.run(4 * MS);
    assert_eq!(bench.replica(5).applied(), SESSION + 48);
    assert_eq!(bench.replica(5).state_hash(), bench.replica(1).state_hash());
    // Six batches of 200 kB are the first to make a mebibyte: 42 batches in 7 answers, one more for the tail.
    assert!((7..=8).contains(&bench.frames.fetch), "{:?}", bench.frames);
}

#[test]
fn a_leaving_replica_passes_the_token_on_once_all_of_its_own_is_answered() {
    let mut bench = five();
    bench.write(1, 8);
    bench.input(1, Input::Leave);
    assert!(!bench.replica(1).has_left());
    bench.write(1, 8);
    assert_eq!(why(&bench), [NotTaken::Leaving]);
    bench.settle();
    assert_eq!(bench.done.len(), 1);
    assert!(bench.replica(1).has_left());
    assert_eq!(bench.holder(), Some(2));
    assert_eq!(bench.frames.token, 1);
}

#[test]
fn nonsense_from_a_peer_is_dropped() {
    let mut bench = five();
    let token = bench.replica(1).token().cloned().unwrap();
    let data = |bytes: &[u8]| {
        let batch = Blob::new(bytes::Bytes::copy_from_slice(bytes)).unwrap();
        PeerMessage::Data(Data { epoch: EPOCH, hop: u64::MAX, committed: u64::MAX, batch })
    };
    let ack = Ack { epoch: EPOCH, durable: u64::MAX, hash: 1, committed: 0, checked_seq: 0, checked_hash: 9 };
    let nonsense = [
        PeerMessage::Token(Token { next_seq: 0, hop: 7, ..token.clone() }),
        PeerMessage::Token(Token { hop: u64::MAX, ..token.clone() }),
        PeerMessage::Token(Token { hop: 7, ..token }),
        PeerMessage::Ack(ack),
        PeerMessage::Commit(Commit { epoch: EPOCH, committed: u64::MAX }),
        PeerMessage::Commit(Commit { epoch: Epoch { counter: 9, node: 9 }, committed: 1 }),
        PeerMessage::Fetch(Fetch { epoch: EPOCH, from_seq: 0, hash_before: 0 }),
        PeerMessage::Fetch(Fetch { epoch: EPOCH, from_seq: u64::MAX, hash_before: 0 }),
        data(b""),
        data(&[0xa5; 200]),
    ];
    for message in nonsense {
        bench.input(4, Input::Message { node: 3, message: message.clone() });
        bench.input(9, Input::Message { node: 3, message });
    }
    assert_eq!(bench.replica(4).counters().tokens_refused, 3);
    assert!(bench.replica(4).token().is_none());
    assert_eq!(bench.replica(4).committed(), SESSION, "never beyond its own log");
    assert_eq!(bench.fatal, Vec::<String>::new());
}

#[test]
fn an_acknowledgement_of_another_history_is_not_counted() {
    let mut bench = Bench::new(3, 3, Limits::default());
    bench.register();
    bench.write(1, 8);
    bench.sync(1);
    let ack = Ack { epoch: EPOCH, durable: SESSION + 1, hash: 1, committed: 0, checked_seq: 0, checked_hash: 0 };
    bench.message(2, 1, PeerMessage::Ack(ack));
    assert_eq!(bench.replica(1).committed(), SESSION);
    let hash = bench.replica(1).log().last_hash();
    bench.message(2, 1, PeerMessage::Ack(Ack { hash, ..ack }));
    assert_eq!(bench.replica(1).committed(), SESSION + 1);
}
