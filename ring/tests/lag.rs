//! Who lags (RING §4): what it is spared, and that nobody waits for it.

mod bench;
mod world;

use bench::{Bench, MS};
use pygmy_proto::message::Want;
use pygmy_ring::{Limits, PeerMessage};

/// Five voters, three of them catalogs, that lag soon and apply slowly.
fn slow() -> Bench {
    let limits = Limits { lag_max: 20, lag_over: 4, applied_per_turn_max: 2, ..Limits::default() };
    let mut bench = Bench::new(5, 3, limits);
    bench.register();
    bench
}

/// Node 3 is started again, forty entries behind, and what it was told in its handshakes is all it knows.
fn behind() -> Bench {
    let mut bench = slow();
    bench.kill(3);
    for _ in 0..40 {
        bench.write_settled(1, 8);
    }
    bench.run(100 * MS);
    bench.forget();
    bench.restart(3);
    bench
}

fn lagging_for(bench: &Bench, observer: u16) -> Vec<u16> {
    bench.alive().into_iter().filter(|node| bench.replica(observer).is_lagging(*node)).collect()
}

#[test]
fn one_that_lags_does_not_ask_for_the_token_until_it_has_caught_up() {
    let mut bench = behind();
    assert!(bench.replica(3).lags());
    let ticket = bench.write(3, 8);
    bench.pass(MS / 2);
    assert_eq!((bench.frames.want, bench.replica(3).lags()), (0, true));
    bench.run_until("the write is served", |bench| !bench.done.is_empty());
    assert_eq!(bench.done[0].ticket, ticket);
    assert!(!bench.replica(3).lags());
    assert_eq!((bench.frames.want, bench.refused.len()), (4, 0), "asked once, of all, and before it was handed back");
    assert_eq!(bench.replica(3).counters().tokens_lagging, 0);
}

#[test]
fn those_that_have_links_with_one_that_lags_know_it_from_the_handshake() {
    let mut bench = behind();
    for observer in [1, 2, 4, 5] {
        assert_eq!(lagging_for(&bench, observer), [3], "as node {observer} sees it");
    }
    bench.run_until("it has caught up", |bench| !bench.replica(3).lags());
    bench.run(100 * MS);
    for observer in [1, 2, 4, 5] {
        assert!(lagging_for(&bench, observer).is_empty(), "as node {observer} sees it, after a heartbeat");
    }
}

#[test]
fn the_token_is_not_given_to_one_that_lags_though_it_wants_it() {
    let mut bench = behind();
    // Said before it knew how far behind it is.
    let want = Want { epoch: bench.replica(1).promised(), boot_nonce: bench.hello(3, 1).boot_nonce, number: 1 };
    bench.message(3, 1, PeerMessage::Want(want));
    bench.pass(MS / 2);
    assert_eq!((bench.holder(), bench.frames.token), (Some(1), 0));
    bench.run_until("it has caught up", |bench| !bench.replica(3).lags());
    bench.run(100 * MS);
    assert_eq!(bench.holder(), Some(3), "the want was kept");
}

#[test]
fn writes_go_on_beside_one_that_lags_and_never_wait_for_it() {
    let mut bench = behind();
    for _ in 0..10 {
        bench.write(2, 8);
        bench.settle();
    }
    bench.run(2 * MS);
    assert_eq!(bench.done.len(), 10);
    assert_eq!(bench.replica(3).counters().tokens_received, 0);
}

#[test]
fn after_a_start_of_all_nobody_waits_for_anybody() {
    let mut bench = slow();
    for _ in 0..60 {
        bench.write_settled(1, 8);
    }
    for node in 1..=5 {
        bench.kill(node);
    }
    bench.forget();
    for node in 1..=5 {
        bench.restart(node);
    }
    bench.run_until("there is a token", |bench| bench.holder().is_some());
    let holder = bench.holder().unwrap_or_default();
    bench.write(holder, 8);
    bench.run_until("it is answered", |bench| !bench.done.is_empty());
    bench.run(200 * MS);
    for node in 1..=5 {
        assert!(!bench.replica(node).lags(), "node {node}");
    }
}

#[test]
fn the_last_catalog_takes_over_however_far_it_lags() {
    let mut bench = behind();
    assert!(bench.replica(3).lags());
    bench.kill(1);
    bench.kill(2);
    bench.run_until("node 3 has the token", |bench| bench.holder() == Some(3));
    bench.write(3, 8);
    bench.run_until("it is answered", |bench| !bench.done.is_empty());
}
