//! Exactly-once execution: the table alone, and beside a twin that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;
use pygmy_proto::limits::SESSION_WINDOW;
use pygmy_ring::SessionError;
use pygmy_ring::sessions::{Admission, OUTCOME_COST, RequestId, SessionLimits, Sessions};

const UNBOUNDED: SessionLimits = SessionLimits {
    count_max: usize::MAX,
    distance_max: u64::MAX,
    session_bytes_max: usize::MAX,
    bytes_max: usize::MAX,
};

fn id(session: u64, counter: u64, first_incomplete: u64) -> RequestId {
    RequestId { session, counter, first_incomplete }
}

/// An [`Admission`] of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Execute,
    Answered(Vec<u8>),
    Refused(SessionError),
}

impl From<Admission<'_>> for Told {
    fn from(admission: Admission<'_>) -> Self {
        match admission {
            Admission::Execute => Self::Execute,
            Admission::Answered(answer) => Self::Answered(answer.to_vec()),
            Admission::Refused(error) => Self::Refused(error),
        }
    }
}

/// Admits a write and, when it is to be executed, keeps its answer: the position at which it was.
fn apply(sessions: &mut Sessions, seq: u64, id: RequestId, payload: &[u8]) -> Told {
    let told = Told::from(sessions.admit(seq, id, payload));
    if told == Told::Execute {
        sessions.record(seq, id, payload, &seq.to_le_bytes());
    }
    told
}

fn answer(seq: u64) -> Told {
    Told::Answered(seq.to_le_bytes().to_vec())
}

fn refused(error: SessionError) -> Told {
    Told::Refused(error)
}

#[test]
fn a_resent_write_gets_the_first_answer() {
    let mut sessions = Sessions::new(UNBOUNDED);
    sessions.register(1);
    assert_eq!(apply(&mut sessions, 2, id(1, 1, 1), b"a"), Told::Execute);
    assert_eq!(apply(&mut sessions, 3, id(1, 1, 1), b"a"), answer(2));
    assert_eq!(apply(&mut sessions, 4, id(1, 2, 1), b"a"), Told::Execute);
    assert_eq!(apply(&mut sessions, 5, id(1, 1, 1), b"a"), answer(2));
}

#[test]
fn a_counter_used_for_another_write_is_refused() {
    let mut sessions = Sessions::new(UNBOUNDED);
    sessions.register(1);
    apply(&mut sessions, 2, id(1, 1, 1), b"a");
    assert_eq!(apply(&mut sessions, 3, id(1, 1, 1), b"b"), refused(SessionError::IdReused));
    assert_eq!(apply(&mut sessions, 4, id(1, 1, 1), b"a"), answer(2), "the stored answer stays");
}

#[test]
fn a_result_goes_only_below_the_first_incomplete_counter() {
    let mut sessions = Sessions::new(UNBOUNDED);
    sessions.register(1);
    apply(&mut sessions, 2, id(1, 1, 1), b"a");
    apply(&mut sessions, 3, id(1, 2, 1), b"b");
    apply(&mut sessions, 4, id(1, 3, 2), b"c");
    assert_eq!(apply(&mut sessions, 5, id(1, 1, 1), b"a"), refused(SessionError::Expired), "never a second time");
    assert_eq!(apply(&mut sessions, 6, id(1, 2, 2), b"b"), answer(3), "the first incomplete one is kept");
}

#[test]
fn a_write_that_declares_itself_complete_keeps_its_answer() {
    let mut sessions = Sessions::new(UNBOUNDED);
    sessions.register(1);
    assert_eq!(apply(&mut sessions, 2, id(1, 5, u64::MAX), b"a"), Told::Execute);
    assert_eq!(apply(&mut sessions, 3, id(1, 5, u64::MAX), b"a"), answer(2));
}

#[test]
fn the_window_refuses_without_effect_and_opens_again() {
    let mut sessions = Sessions::new(UNBOUNDED);
    sessions.register(1);
    let ahead = SESSION_WINDOW;
    let far = 1 + SESSION_WINDOW;
    assert_eq!(apply(&mut sessions, 2, id(1, far, 1), b"a"), refused(SessionError::WindowFull { ahead }));
    assert_eq!(apply(&mut sessions, 3, id(1, far - 1, 1), b"a"), Told::Execute, "the last one within");
    assert_eq!(apply(&mut sessions, 4, id(1, far, 2), b"a"), Told::Execute, "once the client lets go");
}

#[test]
fn unknown_sessions_and_counter_0_have_no_effect() {
    let mut sessions = Sessions::new(UNBOUNDED);
    sessions.register(1);
    let before = sessions.state_hash();
    assert_eq!(apply(&mut sessions, 2, id(7, 1, 1), b"a"), refused(SessionError::Expired));
    assert_eq!(apply(&mut sessions, 3, id(1, 0, 0), b"a"), refused(SessionError::NoIdentity));
    assert_eq!(sessions.state_hash(), before);
}

#[test]
fn a_session_with_too_many_bytes_of_results_is_refused_until_its_client_lets_go() {
    let limits = SessionLimits { session_bytes_max: 2 * (OUTCOME_COST + 8), ..UNBOUNDED };
    let mut sessions = Sessions::new(limits);
    sessions.register(1);
    apply(&mut sessions, 2, id(1, 1, 1), b"a");
    apply(&mut sessions, 3, id(1, 2, 1), b"a");
    let held = limits.session_bytes_max;
    assert_eq!(apply(&mut sessions, 4, id(1, 3, 1), b"a"), refused(SessionError::ResultsFull { held }));
    assert_eq!(apply(&mut sessions, 5, id(1, 3, 2), b"a"), Told::Execute);
}

#[test]
fn the_session_unused_for_longest_is_evicted_and_stays_so() {
    let mut sessions = Sessions::new(SessionLimits { count_max: 2, ..UNBOUNDED });
    sessions.register(1);
    sessions.register(2);
    apply(&mut sessions, 3, id(1, 1, 1), b"a");
    sessions.register(4);
    assert_eq!((sessions.len(), sessions.evicted()), (2, 1));
    assert_eq!(apply(&mut sessions, 5, id(2, 1, 1), b"a"), refused(SessionError::Expired), "2 was unused for longest");
    assert_eq!(apply(&mut sessions, 6, id(1, 1, 1), b"a"), answer(3));
}

#[test]
fn bytes_of_all_sessions_evict_the_one_unused_for_longest() {
    let mut sessions = Sessions::new(SessionLimits { bytes_max: 2 * (OUTCOME_COST + 8), ..UNBOUNDED });
    for session in 1..=3 {
        sessions.register(session);
    }
    for session in 1..=3 {
        apply(&mut sessions, 3 + session, id(session, 1, 1), b"a");
    }
    assert_eq!(apply(&mut sessions, 7, id(1, 1, 1), b"a"), refused(SessionError::Expired));
    assert_eq!(apply(&mut sessions, 8, id(2, 1, 1), b"a"), answer(5));
}

#[test]
fn a_session_unused_over_a_distance_in_the_log_goes() {
    let mut sessions = Sessions::new(SessionLimits { distance_max: 10, ..UNBOUNDED });
    sessions.register(1);
    sessions.register(2);
    apply(&mut sessions, 12, id(2, 1, 1), b"a");
    assert_eq!(sessions.len(), 1);
    assert_eq!(apply(&mut sessions, 13, id(1, 1, 1), b"a"), refused(SessionError::Expired));
}

#[test]
fn an_evicted_session_leaves_nothing_in_the_hash() {
    let mut evicting = Sessions::new(SessionLimits { count_max: 1, ..UNBOUNDED });
    evicting.register(1);
    apply(&mut evicting, 2, id(1, 1, 1), b"a");
    evicting.register(3);
    let mut fresh = Sessions::new(UNBOUNDED);
    fresh.register(3);
    assert_eq!(evicting.state_hash(), fresh.state_hash());
}

/// The same rules over plain maps, scanned whole every time.
#[derive(Default)]
struct Twin {
    sessions: BTreeMap<u64, TwinSession>,
}

#[derive(Default, Clone)]
struct TwinSession {
    used: u64,
    first_incomplete: u64,
    results: BTreeMap<u64, (Vec<u8>, u64)>,
}

impl Twin {
    fn register(&mut self, seq: u64, limits: &SessionLimits) {
        self.sessions.insert(seq, TwinSession { used: seq, first_incomplete: 1, results: BTreeMap::new() });
        self.evict(seq, limits);
    }

    fn apply(&mut self, seq: u64, id: RequestId, payload: &[u8], limits: &SessionLimits) -> Told {
        if id.counter == 0 {
            return refused(SessionError::NoIdentity);
        }
        let Some(session) = self.sessions.get_mut(&id.session) else { return refused(SessionError::Expired) };
        session.used = seq;
        session.first_incomplete = session.first_incomplete.max(id.first_incomplete.min(id.counter));
        let first = session.first_incomplete;
        session.results.retain(|counter, _| *counter >= first);
        if id.counter < first {
            return refused(SessionError::Expired);
        }
        if let Some((stored, at)) = session.results.get(&id.counter) {
            return if stored == payload { answer(*at) } else { refused(SessionError::IdReused) };
        }
        if id.counter - first >= SESSION_WINDOW {
            return refused(SessionError::WindowFull { ahead: id.counter - first });
        }
        let held = session.results.len() * (OUTCOME_COST + 8);
        if held >= limits.session_bytes_max {
            return refused(SessionError::ResultsFull { held });
        }
        session.results.insert(id.counter, (payload.to_vec(), seq));
        self.evict(seq, limits);
        Told::Execute
    }

    fn evict(&mut self, seq: u64, limits: &SessionLimits) {
        while let Some((oldest, used)) = self.sessions.iter().map(|(id, s)| (*id, s.used)).min_by_key(|(_, u)| *u) {
            let bytes: usize = self.sessions.values().map(|s| s.results.len() * (OUTCOME_COST + 8)).sum();
            let crowded = self.sessions.len() > limits.count_max || bytes > limits.bytes_max;
            if !crowded && used.saturating_add(limits.distance_max) >= seq {
                return;
            }
            self.sessions.remove(&oldest);
        }
    }

    /// The same table reached by the shortest way: nothing that was ever dropped has been in it.
    fn rebuilt_hash(&self) -> u64 {
        let mut fresh = Sessions::new(UNBOUNDED);
        for id in self.sessions.keys() {
            fresh.register(*id);
        }
        for (number, session) in &self.sessions {
            for (counter, (payload, at)) in &session.results {
                let write = id(*number, *counter, session.first_incomplete);
                fresh.admit(u64::MAX - 1, write, payload);
                fresh.record(u64::MAX - 1, write, payload, &at.to_le_bytes());
            }
        }
        // Each session's last use, by a write that is refused and so leaves nothing else behind.
        let mut by_use: Vec<_> = self.sessions.iter().collect();
        by_use.sort_by_key(|(_, session)| session.used);
        for (number, session) in by_use {
            if session.used > *number {
                let probe = id(*number, session.first_incomplete + SESSION_WINDOW, session.first_incomplete);
                fresh.admit(session.used, probe, b"");
            }
        }
        fresh.state_hash()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Register,
    Write { session: usize, counter: u64, first_incomplete: u64, payload: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let counter = prop_oneof![8 => 0..8_u64, 1 => SESSION_WINDOW..SESSION_WINDOW + 8, 1 => any::<u64>()];
    prop_oneof![
        1 => Just(Step::Register),
        6 => (0..6_usize, counter, 0..8_u64, 0..2_u8).prop_map(|(session, counter, first_incomplete, payload)| {
            Step::Write { session, counter, first_incomplete, payload }
        }),
    ]
}

fn bounds() -> impl Strategy<Value = SessionLimits> {
    (1..6_usize, 1..40_u64, 1..5_usize, 1..12_usize).prop_map(|(count_max, distance_max, session, all)| SessionLimits {
        count_max,
        distance_max,
        session_bytes_max: session * (OUTCOME_COST + 8),
        bytes_max: all * (OUTCOME_COST + 8),
    })
}

proptest! {
    #[test]
    fn the_table_does_what_its_twin_does(limits in bounds(), steps in proptest::collection::vec(step(), 1..120)) {
        let mut sessions = Sessions::new(limits);
        let mut twin = Twin::default();
        let mut known = Vec::new();
        for (index, step) in steps.into_iter().enumerate() {
            let seq = index as u64 + 1;
            match step {
                Step::Register => {
                    sessions.register(seq);
                    twin.register(seq, &limits);
                    known.push(seq);
                }
                Step::Write { session, counter, first_incomplete, payload } => {
                    let session = known.iter().rev().nth(session).copied().unwrap_or(seq);
                    let write = id(session, counter, first_incomplete);
                    let admission = apply(&mut sessions, seq, write, &[payload]);
                    prop_assert_eq!(admission, twin.apply(seq, write, &[payload], &limits));
                }
            }
            prop_assert_eq!(sessions.len(), twin.sessions.len());
            prop_assert_eq!(sessions.state_hash(), twin.rebuilt_hash());
        }
    }
}
