//! The protocol as a model whose every state is searched: epochs, the token, acknowledgements, commits, promises, the
//! choice of a log, installs and the swap of a voter. It shares no code with the crate: it says what the rules are, so
//! that a rule that loses data is found before, and apart from, a mistake in following it.
//!
//! `cargo test -p pygmy-ring --test model` searches small bounds and finds each planted mistake by its shortest way
//! (`-- --nocapture mistake_4` prints it). `cargo test --release -p pygmy-ring --test model -- --ignored` searches the
//! larger bounds, see the table below.
//!
//! # What is in it
//!
//! * A replica is what its process knows (log with appends under way, promise, token, copy of a passed token, highest
//!   hop received, committed) beside what its disk holds (platter, vote, cut). A sync of the log and one of the vote
//!   file are steps of their own; a crash goes back to the disk, a lost disk to nothing under a new UUID.
//! * Messages are never taken out. What was once sent can arrive at any later time, in any order, twice or never, so
//!   that loss and reordering cost no states. Only tokens, and the answers to a question, die with the process that
//!   they are for: the boot nonce sees to it. `Data` arrives from its origin or is fetched from anybody; both are the
//!   same here.
//! * Anybody may ask for an epoch at any time: suspicion and pre-vote only make that rare.
//! * The coordinator may choose by any set of the promises given to it. That covers a promise that was dropped
//!   because its owner died before its log was fetched.
//! * With `installs_in_parts`, what is chosen is fetched and appended entry by entry, by the coordinator too, and a
//!   crash leaves any part of it.
//! * With `merged`, steps that nobody else can see are one with those before them, see
//!   [`Bounds::merged`](model::protocol::Bounds).
//!
//! Left out are: progress (a model that does nothing is safe), snapshots, damaged sectors and with them the amnesia
//! check, sessions, reads, more than eight entries, and two *different* changes ordered by two coordinators before the
//! entry of their epoch is committed, whose majorities miss each other only with four voters and a fifth replica.
//!
//! # The mistakes
//!
//! Each is found by the shortest way there is, which the tests state and print. Without mistakes the same bounds are
//! clean, here or as part of larger ones.
//!
//! | mistake | steps to a lost write or two histories | fewer steps to |
//! |---|---|---|
//! | 2 promise answered before it is durable | 10 | 4, a promise that went back |
//! | 3 stale sync acknowledges, *and* promises tell only what is synced | 10 | each alone: clean |
//! | 4 commit by counting an old epoch's entry, *and* half an install acknowledged | 15 | each alone: clean |
//! | 5 majority of the living | 6 | 3, committed on one disk |
//! | 6 token remade inside an epoch | 10 | 3, two tokens; 5, two entries at one (epoch, seq) |
//! | 6 token sent again to another boot nonce | 13 | 7, two entries at one (epoch, seq) |
//! | 8 an empty disk votes under its old name | 11 | |
//! | 9 direct swap | 8 | |
//! | 9 two changes in flight | 9 | |
//! | 9 promises counted by the asker's old configuration | 13 | |
//! | 10 append by seq without comparing hashes | 11 | 8, an entry kept that was not chosen |
//! | 21 commit knowledge taken before the install | 11 | 12, a known commit truncated |
//!
//! # The larger bounds
//!
//! All searched to the last state, on two cores that others kept busy meanwhile; the largest took 6.5 GB of memory.
//!
//! | bounds | states | longest way | seconds |
//! |---|---|---|---|
//! | three changes, a write | 11,094,109 | 27 steps | 227 |
//! | two changes, two writes, a crash, asks above refusals | 23,896,964 | 28 steps | 239 |
//! | two changes, a write, a crash, every step apart | 13,555,654 | 33 steps | 162 |
//! | two changes, a write, a crash, installs in parts | 5,266,650 | 29 steps | 90 |
//! | a change, two writes, a crash, two passes, a re-send | 6,299,160 | 26 steps | 48 |
//! | swap, removal first, a change, a write | 10,347,996 | 31 steps | 206 |
//! | swap, removal first, a change by any, a crash | 4,286,531 | 30 steps | 112 |
//! | swap, addition first, a change, a write | 10,658,576 | 32 steps | 102 |
//! | swap, addition first, a change by any, a crash | 4,101,512 | 30 steps | 43 |
//! | swap, removal first, two changes | 4,963,127 | 35 steps | 59 |
//! | swap, addition first, two changes | 4,828,247 | 36 steps | 37 |
//! | two changes, a write, a lost disk | 10,517,649 | 26 steps | 126 |

mod model {
    pub(crate) mod checks;
    pub(crate) mod log;
    pub(crate) mod protocol;
    pub(crate) mod rules;
    pub(crate) mod state;
}

use model::checks::Harm;
use model::protocol::Mistake::{self, *};
use model::protocol::{Bounds, Protocol, Swap};
use model::rules::Step;
use stateright::{Checker, HasDiscoveries, Model};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

// Replicas as bits: who may ask for an epoch, or may be passed the token.
const A: u8 = 0b0001;
const B: u8 = 0b0010;
const C: u8 = 0b0100;
const VOTERS: u8 = A | B | C;
const WITH_NEWCOMER: u8 = 0b1111;

/// Three voters, and nothing happens but what a test adds.
const QUIET: Bounds = Bounds {
    asks: &[],
    catalogs: VOTERS,
    writes: 1,
    crashes: 0,
    wipes: 0,
    passes: 0,
    resends: 0,
    swap: None,
    installs_in_parts: false,
    asks_above_refusals: false,
    merged: true,
};

/// Searches every state within `bounds`: no check fails in any of them, and all that should be reached is.
fn exhaust(name: &str, bounds: Bounds) {
    let start = Instant::now();
    let checker = Protocol::new(bounds, &[]).checker().threads(2);
    // Without a failure it goes on to the last state.
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, steps) = (checker.unique_state_count(), checker.max_depth() - 1);
    println!("{name}: {states} states, at most {steps} steps, {:.0?}", start.elapsed());
    checker.assert_properties();
}

/// The shortest way to one of `harms`, or none after every state was seen.
fn search(bounds: Bounds, mistakes: &[Mistake], harms: &[Harm]) -> (Option<Vec<Step>>, usize) {
    // One thread: with two the first that is found need not be the shortest.
    let checker = Protocol::new(bounds, mistakes).hunting(harms).checker().spawn_bfs().join();
    let path = checker.discovery("no harm").map(|path| path.into_actions());
    (path, checker.unique_state_count())
}

/// The mistakes do one of `harms`, and the shortest way to it has exactly `steps`.
fn finds(bounds: Bounds, mistakes: &[Mistake], harms: &[Harm], steps: usize) {
    let (path, states) = search(bounds, mistakes, harms);
    let path = path.unwrap_or_else(|| panic!("{mistakes:?} not found in {states} states"));
    print_steps(&format!("{mistakes:?}, {states} states"), &path);
    assert_eq!(path.len(), steps, "the shortest way to {harms:?} by {mistakes:?}");
}

/// No state within `bounds` comes to harm, whatever is planted.
fn harmless(bounds: Bounds, mistakes: &[Mistake]) {
    let (path, states) = search(bounds, mistakes, &Harm::LOSS);
    println!("{mistakes:?} does no harm in {states} states");
    if let Some(path) = path {
        print_steps(&format!("{mistakes:?}"), &path);
        panic!("{mistakes:?} does harm");
    }
}

fn print_steps(title: &str, steps: &[Step]) {
    println!("{title}: {} steps", steps.len());
    for (index, step) in steps.iter().enumerate() {
        println!("{:4} {step:?}", index + 1);
    }
}

// The protocol as it should be.

#[test]
fn an_epoch_change_step_by_step() {
    exhaust("one change, every step apart", Bounds { asks: &[VOTERS], merged: false, ..QUIET });
}

#[test]
fn two_epoch_changes_with_a_crash() {
    exhaust("two changes, a crash", Bounds { asks: &[B, C], crashes: 1, ..QUIET });
}

#[test]
fn installs_that_a_crash_cuts_in_half() {
    exhaust("installs in parts", Bounds { asks: &[VOTERS], crashes: 1, installs_in_parts: true, ..QUIET });
}

#[test]
fn a_token_that_is_passed_and_sent_again() {
    let bounds = Bounds { asks: &[C], catalogs: A | B, crashes: 1, passes: 1, resends: 1, ..QUIET };
    exhaust("one pass, one re-send, a crash", bounds);
}

#[test]
fn a_dead_voter_is_replaced() {
    let bounds = Bounds { asks: &[C], swap: Some(Swap::RemoveFirst), writes: 0, ..QUIET };
    exhaust("swap, removal first", bounds);
}

#[test]
fn a_live_voter_is_replaced() {
    let bounds = Bounds { asks: &[C], swap: Some(Swap::AddFirst), writes: 0, ..QUIET };
    exhaust("swap, addition first", bounds);
}

#[test]
fn a_disk_that_is_lost() {
    exhaust("a lost disk", Bounds { asks: &[VOTERS], wipes: 1, ..QUIET });
}

// Planted mistakes, by their numbers.

/// One write, and one epoch change by a replica that has not seen it.
const OVERTAKEN: Bounds = Bounds { asks: &[C], merged: false, ..QUIET };

#[test]
fn mistake_2_a_promise_that_is_not_durable() {
    let bounds = Bounds { crashes: 1, ..OVERTAKEN };
    finds(bounds, &[PromiseBeforeSync], &[Harm::PromiseBack], 4);
    finds(bounds, &[PromiseBeforeSync], &Harm::LOSS, 10);
    harmless(bounds, &[]);
}

#[test]
fn mistake_3_a_stale_sync_acknowledges_what_no_promise_told() {
    finds(OVERTAKEN, &[StaleSyncAcknowledges, PromiseTellsSyncedOnly], &Harm::LOSS, 10);
    harmless(OVERTAKEN, &[StaleSyncAcknowledges]);
    harmless(OVERTAKEN, &[PromiseTellsSyncedOnly]);
}

/// Raft's Figure 8: three changes, of which the first and the last are by the same coordinator.
const FIGURE_8: Bounds = Bounds { asks: &[C, A, C], installs_in_parts: true, ..QUIET };

#[test]
fn mistake_4_figure_8_with_half_an_install_acknowledged() {
    finds(FIGURE_8, &[CommitBeforeNewEpoch, AcknowledgeHalfInstall], &Harm::LOSS, 15);
}

#[test]
fn mistake_5_the_majority_of_the_living() {
    finds(OVERTAKEN, &[MajorityOfTheLiving], &Harm::LOSS, 6);
    harmless(OVERTAKEN, &[]);
}

#[test]
fn mistake_6_a_token_remade_inside_an_epoch() {
    let bounds = Bounds { asks: &[], catalogs: B, writes: 2, passes: 1, merged: false, ..QUIET };
    finds(bounds, &[TokenRemade], &[Harm::TwoTokens], 3);
    finds(bounds, &[TokenRemade], &[Harm::OrderedTwice], 5);
    finds(bounds, &[TokenRemade], &Harm::LOSS, 10);
    harmless(bounds, &[]);
}

#[test]
fn mistake_6_a_token_sent_again_to_another_boot_nonce() {
    let bounds = Bounds { catalogs: B, writes: 2, passes: 1, resends: 1, crashes: 1, merged: false, ..QUIET };
    finds(bounds, &[TokenToAnotherBoot], &[Harm::OrderedTwice], 7);
    finds(bounds, &[TokenToAnotherBoot], &Harm::LOSS, 13);
}

#[test]
fn mistake_8_an_empty_disk_votes_under_its_old_name() {
    let bounds = Bounds { wipes: 1, ..OVERTAKEN };
    finds(bounds, &[EmptyDiskVotes], &Harm::LOSS, 11);
    harmless(bounds, &[]);
}

const SWAP: Bounds = Bounds { asks: &[C], writes: 0, swap: Some(Swap::RemoveFirst), ..QUIET };

#[test]
fn mistake_9_a_direct_swap() {
    finds(SWAP, &[DirectSwap], &Harm::LOSS, 8);
}

#[test]
fn mistake_9_two_changes_in_flight() {
    finds(SWAP, &[TwoChangesInFlight], &Harm::LOSS, 9);
}

#[test]
fn mistake_9_promises_counted_by_the_askers_old_configuration() {
    finds(SWAP, &[AskersConfiguration], &Harm::LOSS, 13);
}

/// Two changes by the same coordinator, and a log with a write that neither of them chooses.
const OVERWRITTEN: Bounds = Bounds { asks: &[B, B], ..QUIET };

#[test]
fn mistake_10_appending_by_seq_without_comparing_hashes() {
    finds(OVERWRITTEN, &[AppendBySeq], &Harm::LOSS, 11);
}

#[test]
fn mistake_21_commit_knowledge_before_the_install() {
    finds(OVERTAKEN, &[CommittedBeforeInstall], &Harm::LOSS, 11);
}

#[test]
fn every_other_check_finds_a_mistake_too() {
    finds(OVERTAKEN, &[MajorityOfTheLiving], &[Harm::BeyondMajority], 3);
    finds(OVERTAKEN, &[CommittedBeforeInstall], &[Harm::CommittedTruncated], 12);
    finds(OVERWRITTEN, &[AppendBySeq], &[Harm::KeptTooMuch], 8);
    finds(Bounds { asks: &[C, A], ..FIGURE_8 }, &[InstallWithoutCut], &[Harm::FellWithoutCut], 9);
}

// The larger bounds.

/// Two large searches at a time would need the memory of both.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn exhaust_large(name: &str, bounds: Bounds) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    exhaust(name, bounds);
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_three_epoch_changes() {
    exhaust_large("three changes", Bounds { asks: &[VOTERS; 3], ..QUIET });
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_two_epoch_changes_two_writes_and_a_crash() {
    let bounds = Bounds { asks: &[VOTERS; 2], writes: 2, crashes: 1, asks_above_refusals: true, ..QUIET };
    exhaust_large("two changes, two writes, a crash", bounds);
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_two_epoch_changes_step_by_step() {
    let bounds = Bounds { asks: &[VOTERS; 2], crashes: 1, merged: false, ..QUIET };
    exhaust_large("two changes, a crash, every step apart", bounds);
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_installs_in_parts() {
    let bounds = Bounds { asks: &[VOTERS; 2], crashes: 1, installs_in_parts: true, ..QUIET };
    exhaust_large("two changes, a crash, installs in parts", bounds);
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_tokens() {
    let bounds = Bounds { asks: &[B | C], catalogs: A | B, writes: 2, crashes: 1, passes: 2, resends: 1, ..QUIET };
    exhaust_large("two passes, a re-send, a crash, a change", bounds);
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_swap_removal_first() {
    let bounds = Bounds { asks: &[VOTERS], swap: Some(Swap::RemoveFirst), ..QUIET };
    exhaust_large("swap, removal first, a write", bounds);
    let bounds = Bounds { asks: &[WITH_NEWCOMER], crashes: 1, writes: 0, ..bounds };
    exhaust_large("swap, removal first, a crash", bounds);
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_swap_addition_first() {
    let bounds = Bounds { asks: &[VOTERS], swap: Some(Swap::AddFirst), ..QUIET };
    exhaust_large("swap, addition first, a write", bounds);
    let bounds = Bounds { asks: &[WITH_NEWCOMER], crashes: 1, writes: 0, ..bounds };
    exhaust_large("swap, addition first, a crash", bounds);
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_swap_with_two_epoch_changes() {
    let bounds = Bounds { asks: &[B, C], writes: 0, swap: Some(Swap::RemoveFirst), ..QUIET };
    exhaust_large("swap, removal first, two changes", bounds);
    exhaust_large("swap, addition first, two changes", Bounds { swap: Some(Swap::AddFirst), ..bounds });
}

#[test]
#[ignore = "takes minutes and gigabytes"]
fn large_lost_disk() {
    exhaust_large("two changes, a lost disk", Bounds { asks: &[VOTERS; 2], wipes: 1, ..QUIET });
}

#[test]
#[ignore = "takes a minute"]
fn large_halves_of_the_pairs() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    harmless(FIGURE_8, &[]);
    harmless(FIGURE_8, &[CommitBeforeNewEpoch]);
    harmless(FIGURE_8, &[AcknowledgeHalfInstall]);
    let bounds = Bounds { asks: &[VOTERS; 2], ..QUIET };
    harmless(bounds, &[StaleSyncAcknowledges]);
    harmless(bounds, &[PromiseTellsSyncedOnly]);
}
