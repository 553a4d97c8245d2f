//! How the failure detector behaves: one rule each, and then tables over traces, in simulated time. For each trace: how long
//! after the last heartbeat that was sent a process that stops is suspected, and how often one that lives is, in an hour.
//!
//! `cargo test -p pygmy-ring --test detector -- --nocapture` prints the table that stands in `README.md`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use pygmy_proto::message::{PeerReason, PeerState};
use pygmy_ring::detector::{
    BEAT_NS, GRACE_NS, LATE_NS, LIMIT_MAX_NS, LIMIT_MIN_NS, LIMIT_PRIOR_NS, PROBE_NS, WINDOW_NS, YELLOW_MIN_NS,
};
use pygmy_ring::{Detector, Heard, Mistake, Notice};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MS: u64 = 1_000_000;
const SEC: u64 = 1_000 * MS;
const HOUR: u64 = 3_600 * SEC;
const PEER: u16 = 7;

fn beat(number: u64) -> Heard {
    Heard { boot_nonce: 1, number, hears_me: true, late_ns: 0 }
}

/// A detector whose loop is never late, and what it has said.
struct Bench {
    detector: Detector,
    now: u64,
    number: u64,
    notices: Vec<Notice>,
}

impl Bench {
    fn new() -> Self {
        let mut detector = Detector::new();
        detector.link_up(SEC, PEER, 1);
        Self { detector, now: SEC, number: 0, notices: Vec::new() }
    }

    /// Time goes on, the detector being woken whenever it wants.
    fn pass(&mut self, ns: u64) {
        let until = self.now + ns;
        while let Some(at) = self.detector.next_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.detector.tick(self.now, self.now);
            self.detector.judge(self.now, &mut self.notices);
        }
        self.now = until;
        self.detector.tick(self.now, self.now);
    }

    fn hear(&mut self, heard: &Heard) {
        self.number = heard.number;
        self.detector.hear_beat(self.now, PEER, heard);
        self.detector.judge(self.now, &mut self.notices);
    }

    /// Heartbeats at the pace at which they should come.
    fn beats(&mut self, count: u64) {
        for _ in 0..count {
            self.pass(BEAT_NS);
            self.hear(&beat(self.number + 1));
        }
    }

    fn limit_ms(&self) -> u32 {
        self.detector.statuses(self.now).next().unwrap().limit_ms
    }

    fn state(&self) -> (PeerState, PeerReason) {
        let status = self.detector.statuses(self.now).next().unwrap();
        (status.state, status.reason)
    }

    fn suspicions(&self) -> usize {
        self.notices.iter().filter(|notice| **notice == Notice::Suspect(PEER)).count()
    }
}

#[test]
fn a_peer_is_green_then_yellow_and_asked_then_red_at_its_limit() {
    let mut bench = Bench::new();
    bench.beats(100);
    assert_eq!(bench.notices, []);
    assert_eq!(u64::from(bench.limit_ms()), LIMIT_MIN_NS / MS);
    bench.pass(YELLOW_MIN_NS - 1);
    assert_eq!((bench.state(), bench.notices.len()), ((PeerState::Green, PeerReason::Heard), 0));
    bench.pass(1);
    assert_eq!(
        (bench.state(), &bench.notices[..]),
        ((PeerState::Yellow, PeerReason::Silent), &[Notice::Probe(PEER)][..])
    );
    bench.pass(LIMIT_MIN_NS - YELLOW_MIN_NS - 1);
    assert_eq!(
        bench.notices.len() as u64,
        (LIMIT_MIN_NS - YELLOW_MIN_NS) / PROBE_NS,
        "asked again, no more often than that"
    );
    assert!(bench.detector.hears(bench.now, PEER));
    bench.pass(1);
    assert_eq!((bench.state(), bench.suspicions()), ((PeerState::Red, PeerReason::Silent), 1));
    assert!(!bench.detector.hears(bench.now, PEER));
    bench.pass(10 * SEC);
    assert_eq!((bench.notices.last(), bench.suspicions()), (Some(&Notice::Suspect(PEER)), 1), "told once");
    bench.beats(1);
    assert_eq!((bench.notices.last(), bench.state().0), (Some(&Notice::Trust(PEER)), PeerState::Green));
}

#[test]
fn an_answer_to_a_probe_is_as_good_as_a_heartbeat_and_says_nothing_about_the_pace() {
    let mut bench = Bench::new();
    bench.beats(100);
    for _ in 0..3 {
        bench.pass(YELLOW_MIN_NS + MS);
        bench.hear(&beat(bench.number));
    }
    assert_eq!((bench.suspicions(), bench.limit_ms()), (0, 202), "twice the silence, and no more each time");
}

#[test]
fn the_limit_grows_with_the_silences_that_a_peer_came_back_from_and_forgets_them() {
    let mut bench = Bench::new();
    bench.beats(100);
    bench.pass(300 * MS);
    assert_eq!(bench.suspicions(), 1);
    bench.hear(&beat(bench.number + 1));
    bench.beats(200);
    assert_eq!(bench.limit_ms(), 600, "twice as much");
    bench.pass(590 * MS);
    assert_eq!(bench.suspicions(), 1, "it is not wrong about the same twice");
    bench.hear(&beat(bench.number + 1));
    bench.beats(2 * WINDOW_NS / BEAT_NS + 1);
    assert_eq!(u64::from(bench.limit_ms()), LIMIT_MIN_NS / MS);
}

#[test]
fn a_stop_beyond_any_limit_teaches_nothing() {
    let mut bench = Bench::new();
    bench.beats(100);
    bench.pass(LIMIT_MAX_NS + MS);
    bench.beats(1);
    bench.pass(LIMIT_PRIOR_NS);
    assert_eq!(bench.suspicions(), 2);
}

#[test]
fn a_flood_after_a_stop_does_not_make_the_sender_look_fast() {
    let mut bench = Bench::new();
    // A slow sender: the limit follows its pace.
    for number in 1..=100 {
        bench.pass(150 * MS);
        bench.hear(&beat(number));
    }
    let before = bench.limit_ms();
    bench.pass(600 * MS);
    for number in 101..=104 {
        bench.hear(&beat(number));
    }
    bench.pass(150 * MS);
    bench.hear(&beat(105));
    assert!(bench.limit_ms() >= before, "{before} -> {}", bench.limit_ms());
}

#[test]
fn lost_heartbeats_do_not_make_the_sender_look_slow() {
    let mut bench = Bench::new();
    for round in 1..=2_000_u64 {
        bench.pass(BEAT_NS);
        // Every other one is lost, as it would seem to whoever did not look at the numbers.
        if round % 2 == 0 {
            bench.hear(&beat(round));
        }
    }
    assert_eq!((bench.suspicions(), u64::from(bench.limit_ms())), (0, LIMIT_MIN_NS / MS));
}

#[test]
fn whoever_did_not_run_accuses_nobody_before_it_has_read() {
    let mut bench = Bench::new();
    bench.beats(100);
    let due = bench.now + BEAT_NS;
    bench.now += 3 * SEC;
    bench.detector.tick(bench.now, due);
    bench.detector.judge(bench.now, &mut bench.notices);
    assert_eq!((bench.state(), bench.suspicions()), ((PeerState::Yellow, PeerReason::OwnLoopLate), 0));
    // What was in the socket.
    for number in 101..=160 {
        bench.hear(&beat(number));
    }
    bench.beats(GRACE_NS / BEAT_NS + 10);
    assert_eq!((bench.suspicions(), u64::from(bench.limit_ms())), (0, LIMIT_PRIOR_NS / MS));
    // The time in which nobody listened is no silence; the rest is.
    let due = bench.now + BEAT_NS;
    bench.now += BEAT_NS + LATE_NS + 500 * MS;
    bench.detector.tick(bench.now, due);
    bench.pass(LIMIT_MIN_NS - BEAT_NS - 1);
    assert_eq!(bench.suspicions(), 0);
    bench.pass(1);
    assert_eq!(bench.suspicions(), 1);
}

#[test]
fn a_peer_that_does_not_hear_this_node_for_a_limit_is_suspected_though_it_is_heard() {
    let mut bench = Bench::new();
    bench.beats(100);
    let deaf = |bench: &mut Bench, count: u64| {
        for _ in 0..count {
            bench.pass(BEAT_NS);
            let heard = Heard { hears_me: false, ..beat(bench.number + 1) };
            bench.hear(&heard);
        }
    };
    deaf(&mut bench, LIMIT_MIN_NS / BEAT_NS - 1);
    assert_eq!(bench.suspicions(), 0);
    deaf(&mut bench, 1);
    assert_eq!((bench.state(), bench.suspicions()), ((PeerState::Red, PeerReason::OneWay), 1));
    assert!(bench.detector.hears(bench.now, PEER) && !bench.detector.trusts(bench.now, PEER));
    bench.beats(1);
    assert_eq!(bench.notices.last(), Some(&Notice::Trust(PEER)));
}

#[test]
fn a_lost_connection_counts_at_once_and_until_the_next_handshake() {
    let mut bench = Bench::new();
    bench.beats(100);
    bench.pass(400 * MS);
    bench.beats(1);
    bench.detector.link_down(PEER);
    bench.beats(3);
    assert_eq!(bench.state(), (PeerState::Red, PeerReason::Reset));
    assert!(!bench.detector.hears(bench.now, PEER));
    bench.detector.link_up(bench.now, PEER, 1);
    assert_eq!((bench.state().0, u64::from(bench.limit_ms())), (PeerState::Green, LIMIT_PRIOR_NS / MS), "the prior");
}

#[test]
fn a_peer_that_says_that_it_was_late_gets_that_much_more() {
    let mut bench = Bench::new();
    bench.beats(100);
    let late = Heard { late_ns: 90 * MS, ..beat(bench.number + 1) };
    bench.pass(BEAT_NS);
    bench.hear(&late);
    bench.pass(LIMIT_MIN_NS + 90 * MS - 1);
    assert_eq!(bench.suspicions(), 0);
    bench.pass(1);
    assert_eq!(bench.suspicions(), 1);
}

#[test]
fn who_has_no_link_is_known_by_its_heartbeats_alone_and_a_stranger_is_nobody() {
    let mut detector = Detector::new();
    detector.hear_beat(SEC, PEER, &beat(1));
    assert_eq!(detector.statuses(SEC).count(), 0);
    detector.meet(PEER);
    let state =
        |detector: &Detector, now| detector.statuses(now).next().map(|s| (s.state, s.reason, s.heard_ms)).unwrap();
    assert_eq!(state(&detector, SEC), (PeerState::Red, PeerReason::NeverHeard, None));
    let mut notices = Vec::new();
    detector.judge(SEC, &mut notices);
    assert_eq!(notices, [], "who never was cannot be gone");
    detector.hear_beat(SEC, PEER, &beat(1));
    assert_eq!(state(&detector, SEC), (PeerState::Green, PeerReason::Heard, Some(0)));
}

// --- tables

/// When heartbeats come, from a process that lives.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// Since the one before.
    after_ns: u64,
    /// Sent meanwhile.
    sent: u64,
    /// By how much the receiver's own loop was late then.
    late_ns: u64,
}

/// Where heartbeats are lost, and how evenly the sender's loop turns.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// The sender's loop is late by up to this.
    jitter_ns: u64,
    /// Of a hundred datagrams so many are lost, in each direction,
    loss: u64,
    /// and after a lost one the next with this probability instead, in percent: losses come in bursts.
    burst: u64,
    /// Every so often nothing arrives for a while, and then all at once.
    stops: Option<(u64, u64)>,
    /// Probes and their answers find the way, too.
    answers: bool,
}

struct Channel {
    way: Way,
    rng: ChaCha8Rng,
    lost: [bool; 2],
}

impl Channel {
    fn new(way: Way, seed: u64) -> Self {
        Self { way, rng: ChaCha8Rng::seed_from_u64(seed), lost: [false; 2] }
    }

    /// Whether a datagram gets through in this direction.
    fn passes(&mut self, direction: usize) -> bool {
        let percent = if self.lost[direction] { self.way.burst.max(self.way.loss) } else { self.way.loss };
        self.lost[direction] = self.rng.random_range(0..100) < percent;
        !self.lost[direction]
    }

    fn jitter(&mut self) -> u64 {
        if self.way.jitter_ns == 0 { 0 } else { self.rng.random_range(0..self.way.jitter_ns) }
    }
}

/// What came of a trace.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    false_suspicions: u64,
    simulated_ns: u64,
    /// From the last heartbeat that was sent to the suspicion.
    detection_ns: (u64, u64),
}

impl Outcome {
    fn per_hour(&self) -> f64 {
        self.false_suspicions as f64 * HOUR as f64 / self.simulated_ns as f64
    }
}

/// The observer's side: a loop that turns whenever something comes or the detector wants it.
struct Observer {
    detector: Detector,
    notices: Vec<Notice>,
    suspected_ns: Option<u64>,
    false_suspicions: u64,
}

impl Observer {
    fn new(mistake: Option<Mistake>) -> Self {
        let mut detector = Detector::new().with_mistake(mistake);
        detector.link_up(SEC, PEER, 1);
        Self { detector, notices: Vec::new(), suspected_ns: None, false_suspicions: 0 }
    }

    /// Judges; whether a probe is to be sent.
    fn judge(&mut self, now: u64) -> bool {
        self.detector.judge(now, &mut self.notices);
        let mut probes = false;
        for notice in self.notices.drain(..) {
            match notice {
                Notice::Probe(_) => probes = true,
                Notice::Suspect(_) => {
                    self.false_suspicions += 1;
                    self.suspected_ns = Some(now);
                }
                Notice::Trust(_) => self.suspected_ns = None,
            }
        }
        probes
    }

    /// Turns until `until`, with nothing coming in but what `answer` says to a probe: when the answer arrives.
    fn idle(&mut self, until: u64, number: u64, mut answer: impl FnMut(u64) -> Option<u64>) {
        let mut answers: Vec<u64> = Vec::new();
        loop {
            let timer = self.detector.next_timeout().unwrap_or(u64::MAX);
            let Some(at) = answers.iter().copied().chain([timer]).min().filter(|at| *at < until) else { return };
            self.detector.tick(at, at);
            if answers.contains(&at) {
                answers.retain(|other| *other != at);
                self.detector.hear_beat(at, PEER, &beat(number));
            }
            if self.judge(at) {
                answers.extend(answer(at));
            }
        }
    }
}

/// Runs a made-up way for a while; then the process stops, and how long that takes to be seen is measured, `stops` times.
fn over(way: Way, hours: u64, mistake: Option<Mistake>) -> Outcome {
    const RTT_NS: u64 = MS / 2;
    let runs = 20;
    let mut outcome = Outcome { detection_ns: (u64::MAX, 0), ..Outcome::default() };
    for seed in 0..runs {
        let mut channel = Channel::new(way, seed);
        let mut observer = Observer::new(mistake);
        let (mut now, mut number, mut sent_at) = (SEC, 0, SEC);
        let end = SEC + hours * HOUR / runs + channel.rng.random_range(10 * SEC..50 * SEC);
        let mut stop_at = way.stops.map(|(every, _)| SEC + every);
        while sent_at < end {
            sent_at += BEAT_NS + channel.jitter();
            number += 1;
            if !channel.passes(0) {
                continue;
            }
            let mut arrives = sent_at;
            if let (Some(from), Some((every, length))) = (stop_at, way.stops)
                && sent_at >= from
            {
                arrives = sent_at.max(from + length);
                if sent_at >= from + length {
                    stop_at = Some(from + every);
                }
            }
            let is_stopped = arrives > sent_at;
            observer.idle(arrives, number - 1, |at| {
                let finds = way.answers && !is_stopped && channel.passes(1) && channel.passes(0);
                finds.then_some(at + RTT_NS)
            });
            now = arrives.max(now);
            observer.detector.tick(now, now);
            observer.detector.hear_beat(now, PEER, &beat(number));
            observer.judge(now);
        }
        outcome.false_suspicions += observer.false_suspicions;
        outcome.simulated_ns += now;
        observer.idle(now + 10 * SEC, number, |_| None);
        let took = observer.suspected_ns.expect("who stops is suspected").saturating_sub(sent_at);
        outcome.detection_ns = (outcome.detection_ns.0.min(took), outcome.detection_ns.1.max(took));
    }
    outcome
}

/// From some moment on nothing gets from one of two nodes to the other. The other one misses heartbeats, and says so; how
/// long it takes the first to take the link for down, from its last heartbeat that arrived.
fn one_way() -> Outcome {
    let mut outcome = Outcome { detection_ns: (u64::MAX, 0), simulated_ns: HOUR, ..Outcome::default() };
    for phase in 0..20 {
        let [mut heard, mut deaf] = [Observer::new(None), Observer::new(None)];
        let mut last_ns = SEC;
        for number in 1..400 {
            let at = SEC + number * BEAT_NS;
            heard.idle(at, number, |_| None);
            heard.detector.tick(at, at);
            let hears_me = deaf.detector.hears(at, PEER);
            heard.detector.hear_beat(at, PEER, &Heard { hears_me, ..beat(number) });
            heard.judge(at);
            // The other's loop turns at a moment of its own.
            let then = at + phase * BEAT_NS / 20;
            deaf.idle(then, number, |_| None);
            deaf.detector.tick(then, then);
            if number < 200 {
                deaf.detector.hear_beat(then, PEER, &beat(number));
                last_ns = then;
            }
            deaf.judge(then);
        }
        let took = heard.suspected_ns.expect("it is told").saturating_sub(last_ns);
        outcome.detection_ns = (outcome.detection_ns.0.min(took), outcome.detection_ns.1.max(took));
        outcome.false_suspicions += heard.false_suspicions - 1;
    }
    outcome
}

/// Runs what was recorded.
fn recorded(mistake: Option<Mistake>) -> Outcome {
    let mut outcome = Outcome { detection_ns: (u64::MAX, 0), ..Outcome::default() };
    let text = include_str!("traces/loaded.txt");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut observer = Observer::new(mistake);
        let (mut now, mut number) = (SEC, 0);
        for arrival in arrivals(line) {
            let late_from = now + arrival.after_ns.saturating_sub(arrival.late_ns);
            // While its own loop is late it does not judge. Nobody had been asked for answers when this was recorded.
            observer.idle(late_from, number, |_| None);
            now += arrival.after_ns;
            number += arrival.sent;
            observer.detector.tick(now, now - arrival.late_ns);
            observer.detector.hear_beat(now, PEER, &beat(number));
            observer.judge(now);
        }
        outcome.false_suspicions += observer.false_suspicions;
        outcome.simulated_ns += now;
        observer.idle(now + 10 * SEC, number, |_| None);
        let took = observer.suspected_ns.expect("who stops is suspected") - now;
        outcome.detection_ns = (outcome.detection_ns.0.min(took), outcome.detection_ns.1.max(took));
    }
    outcome
}

/// One line of a trace; its format is at the head of the file.
fn arrivals(line: &str) -> Vec<Arrival> {
    let mut all = Vec::new();
    for token in line.split_whitespace() {
        let (token, times) = token.split_once('x').map_or((token, 1), |(token, times)| (token, times.parse().unwrap()));
        let (token, late_ms) = token.split_once('/').map_or((token, 0), |(token, late)| (token, late.parse().unwrap()));
        let (after, more) = token.split_once('+').map_or((token, 0), |(after, more)| (after, more.parse().unwrap()));
        let after_ms: u64 = after.parse().unwrap();
        let arrival = Arrival { after_ns: after_ms * MS, sent: 1 + more, late_ns: late_ms * MS };
        all.extend(std::iter::repeat_n(arrival, times));
    }
    all
}

/// Each trace with the most false suspicions an hour and the longest detection, in ms, that it may show.
fn table(mistake: Option<Mistake>) -> BTreeMap<&'static str, (Outcome, f64, u64)> {
    let quiet = Way { answers: true, ..Way::default() };
    let lossy = |loss| Way { loss, burst: 50, ..quiet };
    let ways = [
        ("a steady", quiet, 0.0, 200),
        ("b jittery, loops up to 100 ms late", Way { jitter_ns: 100 * MS, ..quiet }, 0.0, 300),
        ("c bursty loss, 5 %", lossy(5), 1.0, 600),
        ("d bursty loss, 10 %", lossy(10), 1.0, 800),
        ("e bursty loss, 20 %", lossy(20), 2.0, 900),
        ("f bursty loss, 30 %", lossy(30), 2.0, 1_000),
        ("g bursty loss, 30 %, no answers", Way { answers: false, ..lossy(30) }, 4.0, 1_000),
        ("i stops of 600 ms and a flood, each minute", Way { stops: Some((60 * SEC, 600 * MS)), ..quiet }, 6.0, 1_000),
        ("j stops of 3 s and a flood, each minute", Way { stops: Some((60 * SEC, 3 * SEC)), ..quiet }, 61.0, 250),
    ];
    let made = ways.map(|(name, way, most, longest)| (name, (over(way, 4, mistake), most, longest)));
    let others = [
        ("h one direction lost, seen from the other end", (one_way(), 0.0, 500)),
        ("k recorded under load", (recorded(mistake), 0.0, 600)),
    ];
    made.into_iter().chain(others).collect()
}

#[test]
fn detection_and_false_suspicions_stay_within_bounds_over_traces() {
    let table = table(None);
    println!("| trace | detection, ms | false suspicions an hour |\n|---|---|---|");
    for (name, (outcome, ..)) in &table {
        let (least, most) = outcome.detection_ns;
        println!("| {} | {} – {} | {:.1} |", &name[2..], least / MS, most / MS, outcome.per_hour());
    }
    for (name, (outcome, most, longest)) in table {
        assert!(outcome.per_hour() <= most, "{name}: {:.1} false suspicions an hour", outcome.per_hour());
        assert!(outcome.detection_ns.1 <= longest * MS, "{name}: detected after {} ms", outcome.detection_ns.1 / MS);
    }
}

/// The bounds are worth something: a detector that does not learn breaks them.
#[cfg(feature = "mistakes")]
#[test]
fn a_limit_that_never_grows_is_seen_in_the_tables() {
    let broken = table(Some(Mistake::LimitNeverGrows));
    let seen: Vec<&str> =
        broken.iter().filter(|(_, (outcome, most, _))| outcome.per_hour() > *most).map(|(name, _)| *name).collect();
    assert!(seen.len() >= 3, "{seen:?}");
    assert!(seen.iter().any(|name| name.starts_with('k')), "what was recorded shows it, too: {seen:?}");
}
