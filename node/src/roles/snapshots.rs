//! When a snapshot is taken, and of which entry.
//!
//! When enough of the log was applied since the last one: of the entry that was applied last, as soon as that is durable
//! here. One at a time. There is no clock in it but for a pause after a failure. Replicas that apply the same take turns,
//! by how much of the log comes before their first; none waits for another.

use pygmy_ring::Replica;

use crate::machine::Now;
use crate::settings::SnapshotPolicy;
use crate::snapshot::{Image, SnapshotOrder};
use crate::store::Store;

/// A snapshot that could not be taken, on a full disk say, is tried again after this; after twice as long each time, for
/// a try costs as much as a snapshot.
const AGAIN_NS: u64 = 10_000_000_000;
/// How often that is doubled.
const DOUBLED_MAX: u32 = 6;

/// Where taking snapshots has got to.
#[derive(Debug)]
pub(super) struct SnapshotPlan {
    policy: SnapshotPolicy,
    /// Bytes that had been applied when the last one was begun.
    since: u64,
    /// Tries that have failed since one succeeded.
    failures: u32,
    not_before_ns: u64,
    /// Whether this process has taken none yet.
    first: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The next one is begun when enough was applied.
    Idle,
    /// It is known of which entry, which is not durable here yet. Boxed: it is rare, and large.
    Waiting(Box<SnapshotOrder>),
    /// It is being taken.
    Taking,
}

impl SnapshotPlan {
    pub(super) fn new(policy: SnapshotPolicy) -> Self {
        Self { policy, since: 0, failures: 0, not_before_ns: 0, first: true, stage: Stage::Idle }
    }

    /// The snapshot that is to be taken now, if one is.
    pub(super) fn poll(&mut self, now: Now, ring: &Replica<Store>) -> Option<Box<SnapshotOrder>> {
        if matches!(self.stage, Stage::Idle) && self.is_due(now, ring) {
            let at = ring.checkpoint().filter(|at| at.base.end.seq > 0)?;
            self.since = ring.counters().bytes_applied;
            let image = Image::of(ring.machine(), ring.sessions());
            self.stage = Stage::Waiting(Box::new(SnapshotOrder { at, state_hash: ring.state_hash(), image }));
        }
        match std::mem::replace(&mut self.stage, Stage::Taking) {
            Stage::Waiting(order) if order.at.base.end.seq <= ring.on_disk() => Some(order),
            before => {
                self.stage = before;
                None
            }
        }
    }

    fn is_due(&self, now: Now, ring: &Replica<Store>) -> bool {
        let applied = ring.counters().bytes_applied.saturating_sub(self.since);
        let apart = self.policy.log_bytes_min.max(self.policy.newest_bytes);
        let (place, of) = self.policy.turn;
        let later = if self.first { apart / u64::from(of.max(1)) * u64::from(place) } else { 0 };
        // Of what is in the newest snapshot already another one would be of no use.
        let crowded = self.first && applied > 0 && self.policy.segments >= self.policy.segments_max;
        (crowded || applied >= apart + later) && now.mono_ns >= self.not_before_ns
    }

    pub(super) fn on_taken(&mut self, bytes: u64) {
        self.policy.newest_bytes = bytes;
        self.failures = 0;
        self.first = false;
        self.stage = Stage::Idle;
    }

    /// Another replica's snapshot has taken the place of all that was here.
    pub(super) fn on_installed(&mut self, bytes: u64, applied: u64) {
        self.policy.newest_bytes = bytes;
        self.since = applied;
        if matches!(self.stage, Stage::Waiting(_)) {
            self.stage = Stage::Idle;
        }
    }

    /// What was applied before counts still, so the next try is of a later entry and needs nothing to have come.
    pub(super) fn on_failed(&mut self, now: Now) {
        self.since = 0;
        self.not_before_ns = now.mono_ns + (AGAIN_NS << self.failures.min(DOUBLED_MAX));
        self.failures += 1;
        self.stage = Stage::Idle;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pygmy_proto::batch::EntryKind;
    use pygmy_proto::message::{Membership, Voter};
    use pygmy_proto::types::{Bounded, Text};
    use pygmy_ring::{Config, Input, Limits, Output, Proposal, Recovered};

    use super::*;

    /// A cluster of one, and the disk that it waits for.
    struct Bench {
        ring: Replica<Store>,
        now: Now,
        plan: SnapshotPlan,
        /// What the disk has been given and has not told.
        unsynced: Vec<Input>,
        tickets: u64,
    }

    impl Bench {
        fn new(policy: SnapshotPolicy) -> Self {
            let voter = Voter { node: 1, log_uuid: [1; 16], holds_token: true, address: Text::default() };
            let voters = Bounded::truncated(vec![voter]);
            let config = Config {
                me: 1,
                log_uuid: [1; 16],
                boot_nonce: 1,
                catalogs: vec![1],
                peers: Vec::new(),
                membership: Membership { id: 1, voters, ..Membership::default() },
                rotate: false,
                limits: Limits::default(),
                mistake: None,
            };
            let now = Now { mono_ns: 1, wall_us: 1 };
            let ring = Replica::open(config, ring_now(now), Recovered::empty(Store::new())).expect("a ring");
            let mut bench = Self { ring, now, plan: SnapshotPlan::new(policy), unsynced: Vec::new(), tickets: 0 };
            while bench.ring.token().is_none() {
                bench.pass(10_000_000);
                bench.sync();
            }
            bench.sync();
            bench
        }

        fn pass(&mut self, ns: u64) {
            self.now.mono_ns += ns;
            self.ring.on_timeout(ring_now(self.now));
            self.turn();
        }

        fn turn(&mut self) {
            self.ring.end_turn(ring_now(self.now));
            for output in self.ring.drain_outputs() {
                match output {
                    Output::Append { epoch, batch } => {
                        let (seq, hash) = (batch.last_seq(), batch.header().hash_last);
                        self.unsynced.push(Input::Durable { epoch, seq, hash });
                    }
                    Output::Vote(vote) => self.unsynced.push(Input::VoteDurable(vote)),
                    _ => {}
                }
            }
        }

        fn sync(&mut self) {
            while !self.unsynced.is_empty() {
                for done in std::mem::take(&mut self.unsynced) {
                    self.ring.handle(ring_now(self.now), done);
                }
                self.turn();
            }
        }

        /// Orders a session; it is in the log, and not on the disk.
        fn write(&mut self) {
            self.tickets += 1;
            let (ticket, kind, body, deadline_ns) = (self.tickets, EntryKind::Register, Bytes::new(), u64::MAX);
            self.ring.handle(ring_now(self.now), Input::Propose(Proposal { ticket, kind, body, deadline_ns }));
            self.turn();
        }

        fn poll(&mut self) -> Option<Box<SnapshotOrder>> {
            self.plan.poll(self.now, &self.ring)
        }
    }

    fn ring_now(now: Now) -> pygmy_ring::Now {
        pygmy_ring::Now { mono_ns: now.mono_ns, wall_us: now.wall_us }
    }

    /// Bytes of a batch with one session in it.
    const BATCH: u64 = 77;

    #[test]
    fn one_is_taken_when_enough_was_applied_and_is_durable_and_one_at_a_time() {
        let mut bench =
            Bench::new(SnapshotPolicy { log_bytes_min: 10 * BATCH, newest_bytes: 0, ..SnapshotPolicy::default() });
        let before = bench.ring.counters().bytes_applied;
        assert!(before < 10 * BATCH && bench.poll().is_none());
        let mut writes = 0;
        let order = loop {
            bench.write();
            bench.sync();
            writes += 1;
            if let Some(order) = bench.poll() {
                break order;
            }
        };
        assert_eq!(bench.ring.counters().bytes_applied, before + writes * BATCH);
        assert!(before + (writes - 1) * BATCH < 10 * BATCH, "one write earlier it was not due");
        assert_eq!((order.at.base.end.seq, order.state_hash), (bench.ring.applied(), bench.ring.state_hash()));
        for _ in 0..30 {
            bench.write();
            bench.sync();
            assert!(bench.poll().is_none(), "one at a time");
        }
        // What came while it was taken counts for the next, and the next is as large as the last was.
        bench.plan.on_taken(35 * BATCH);
        assert!(bench.poll().is_none());
        for _ in 0..5 {
            bench.write();
            bench.sync();
        }
        assert_eq!(bench.poll().map(|order| order.at.base.end.seq), Some(bench.ring.applied()));
    }

    #[test]
    fn what_another_ones_snapshot_has_counts_for_none_of_its_own() {
        let mut bench = Bench::new(SnapshotPolicy { log_bytes_min: 10 * BATCH, ..SnapshotPolicy::default() });
        let write = |bench: &mut Bench, count| {
            for _ in 0..count {
                bench.write();
                bench.sync();
            }
        };
        write(&mut bench, 9);
        let applied = bench.ring.counters().bytes_applied;
        bench.plan.on_installed(12 * BATCH, applied);
        write(&mut bench, 11);
        assert!(bench.poll().is_none(), "the next is as far behind as that one is long");
        write(&mut bench, 1);
        assert_eq!(bench.poll().map(|order| order.at.base.end.seq), Some(bench.ring.applied()));
    }

    #[test]
    fn replicas_that_apply_the_same_take_turns() {
        let mut first = Vec::new();
        for place in 0..3 {
            let mut bench =
                Bench::new(SnapshotPolicy { log_bytes_min: 30 * BATCH, turn: (place, 3), ..SnapshotPolicy::default() });
            let mut orders = Vec::new();
            while orders.len() < 3 {
                bench.write();
                bench.sync();
                if bench.poll().is_some() {
                    orders.push(bench.ring.applied());
                    bench.plan.on_taken(0);
                }
            }
            assert_eq!((orders[1] - orders[0], orders[2] - orders[1]), (30, 30), "only the first comes later");
            first.push(orders[0]);
        }
        assert_eq!((first[1] - first[0], first[2] - first[1]), (10, 10));
    }

    #[test]
    fn a_log_in_many_segments_has_a_snapshot_at_once_and_then_as_ever() {
        let mut bench = Bench::new(SnapshotPolicy { segments: 7, ..SnapshotPolicy::default() });
        assert!(bench.poll().is_none());
        bench = Bench::new(SnapshotPolicy { segments: 8, ..SnapshotPolicy::default() });
        assert_eq!(bench.poll().map(|order| order.at.base.end.seq), Some(bench.ring.applied()));
        bench.plan.on_taken(0);
        assert!(bench.poll().is_none());
    }

    #[test]
    fn of_what_is_not_durable_here_none_is_taken() {
        let mut bench = Bench::new(SnapshotPolicy { log_bytes_min: 1, newest_bytes: 0, ..SnapshotPolicy::default() });
        // Others might have made it committed; a cluster of one needs its own disk, so the position is moved by hand.
        let image = Image::of(bench.ring.machine(), bench.ring.sessions());
        let order = SnapshotOrder { at: bench.ring.checkpoint().expect("a state"), state_hash: 0, image };
        bench.write();
        let mut ahead = order.clone();
        ahead.at.base.end.seq = bench.ring.log().last_seq();
        bench.plan.stage = Stage::Waiting(Box::new(ahead.clone()));
        assert!(bench.ring.on_disk() < ahead.at.base.end.seq);
        assert!(bench.poll().is_none());
        bench.sync();
        assert_eq!(bench.poll().map(|order| order.at), Some(ahead.at));
    }

    #[test]
    fn what_failed_is_tried_again_after_a_pause_that_grows() {
        let mut bench = Bench::new(SnapshotPolicy { log_bytes_min: 1, newest_bytes: 0, ..SnapshotPolicy::default() });
        let mut pauses = Vec::new();
        for _ in 0..4 {
            assert!(bench.poll().is_some());
            let (failed, now) = (bench.now.mono_ns, bench.now);
            bench.plan.on_failed(now);
            while bench.poll().is_none() {
                bench.now.mono_ns += 1_000_000_000;
            }
            pauses.push((bench.now.mono_ns - failed) / 1_000_000_000);
            bench.plan.stage = Stage::Idle;
            bench.plan.since = 0;
        }
        assert_eq!(pauses, [10, 20, 40, 80]);
    }
}
