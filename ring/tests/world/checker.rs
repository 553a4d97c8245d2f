//! What must hold after every step, seen from outside all replicas.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use pygmy_proto::batch::Batch;
use pygmy_ring::config::LogUuid;
use pygmy_ring::{Config, Replica};

use super::machine::{Journal, Op};

/// A violation, in words.
pub type Check = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
pub(crate) use ensure;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    last_seq: u64,
    hash_before: u128,
    hash_last: u128,
    bytes: Bytes,
}

/// End of one log, as the checker follows it.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogEnd {
    pub seq: u64,
    pub hash: u128,
}

/// The one history that there may be, and what was said about it.
#[derive(Debug, Default)]
pub struct Checker {
    voters: Vec<LogUuid>,
    history: BTreeMap<u64, Known>,
    end: LogEnd,
    last_time_us: u64,
    /// Highest hop under which a batch was ordered.
    hop_ordered: u64,
    /// Who held the token at each hop: node and boot.
    holders: HashMap<u64, (u16, u64)>,
    hop_max: u64,
    platter: HashMap<LogUuid, u64>,
    /// Highest position that a majority of the voters ever had on their platters.
    on_majority: u64,
    state_hashes: HashMap<u64, u64>,
    effects: HashMap<Op, u64>,
    /// Attempts of each operation that were not handed back.
    open: HashMap<Op, usize>,
    answers: HashMap<Op, Bytes>,
    /// Highest position answered so far.
    pub answered_seq: u64,
}

impl Checker {
    pub fn new(config: &Config) -> Self {
        Self { voters: config.members.iter().map(|m| m.log_uuid).collect(), ..Self::default() }
    }

    /// End of the history.
    pub fn end(&self) -> LogEnd {
        self.end
    }

    /// I5, I9: a log grows by one batch at a time, chained, and every log by the same batches.
    pub fn on_append(&mut self, node: u16, log: &mut LogEnd, batch: &Batch) -> Check {
        let header = batch.header();
        let (first, last) = (header.first_seq, batch.last_seq());
        ensure!(first == log.seq + 1, "I9: node {node} appends {first}..{last} behind {}", log.seq);
        ensure!(header.hash_before == log.hash, "I9: node {node} appends {first}..{last} behind another hash");
        *log = LogEnd { seq: last, hash: header.hash_last };
        let batch_known = Known {
            last_seq: last,
            hash_before: header.hash_before,
            hash_last: header.hash_last,
            bytes: batch.bytes().clone(),
        };
        if let Some(known) = self.history.get(&first) {
            ensure!(*known == batch_known, "I5: node {node} appends another batch at {first}");
            return Ok(());
        }
        ensure!(header.origin == node, "I5: node {node} appends {first}..{last}, which its origin has not");
        ensure!(first == self.end.seq + 1, "I5: node {node} orders at {first}, the history ends at {}", self.end.seq);
        ensure!(header.hash_before == self.end.hash, "I9: node {node} orders behind another hash");
        ensure!(header.time_us > self.last_time_us, "node {node} orders at a time that is not later");
        self.last_time_us = header.time_us;
        self.end = *log;
        self.history.insert(first, batch_known);
        Ok(())
    }

    /// I5: batches are ordered under hops that do not go back.
    pub fn on_ordered(&mut self, node: u16, hop: u64) -> Check {
        ensure!(hop >= self.hop_ordered, "I5: node {node} orders under hop {hop} after {}", self.hop_ordered);
        self.hop_ordered = hop;
        Ok(())
    }

    /// I5: one process for each hop, and only the highest one counts.
    pub fn on_holder(&mut self, node: u16, boot: u64, hop: u64) -> Check {
        let holder = *self.holders.entry(hop).or_insert((node, boot));
        ensure!(holder == (node, boot), "I5: hop {hop} is held by node {node} and was by {holder:?}");
        ensure!(hop >= self.hop_max, "I5: node {node} holds hop {hop} after hop {}", self.hop_max);
        self.hop_max = hop;
        Ok(())
    }

    pub fn on_synced(&mut self, log_uuid: LogUuid, seq: u64) {
        self.platter.insert(log_uuid, seq);
        let mut durable: Vec<u64> =
            self.voters.iter().map(|uuid| self.platter.get(uuid).copied().unwrap_or(0)).collect();
        durable.sort_unstable_by(|a, b| b.cmp(a));
        self.on_majority = self.on_majority.max(durable[self.voters.len() / 2]);
    }

    /// I1, I3, I8, I13, I14 of one replica after its turn.
    pub fn on_turn(
        &mut self,
        node: u16,
        effects_seen: &mut usize,
        replica: &Replica<Journal>,
        config: &Config,
    ) -> Check {
        let committed = replica.committed();
        ensure!(committed <= replica.log().last_seq(), "I8: node {node} commits {committed} beyond its log");
        ensure!(
            committed <= self.on_majority,
            "I8: node {node} commits {committed}, a majority has {}",
            self.on_majority
        );
        let hash = replica.state_hash();
        let known = *self.state_hashes.entry(replica.applied()).or_insert(hash);
        ensure!(known == hash, "I14: node {node} is in another state at {}", replica.applied());
        for (seq, op) in &replica.machine().effects[*effects_seen..] {
            ensure!(
                self.open.get(op).is_some_and(|open| *open > 0),
                "node {node} executes {op:?}, which was handed back"
            );
            let first = *self.effects.entry(*op).or_insert(*seq);
            ensure!(first == *seq, "I3: {op:?} took effect at {first} and at {seq}");
        }
        *effects_seen = replica.machine().effects.len();
        let (queues, limits) = (replica.queues(), &config.limits);
        ensure!(queues.pending <= limits.pending_max, "I13: {queues:?}");
        ensure!(queues.pending_bytes <= limits.pending_bytes_max, "I13: {queues:?}");
        ensure!(queues.uncommitted_batches <= limits.uncommitted_batches_max, "I13: {queues:?}");
        ensure!(queues.early_bytes <= limits.early_bytes_max, "I13: {queues:?}");
        Ok(())
    }

    pub fn on_attempt(&mut self, op: Op) {
        *self.open.entry(op).or_insert(0) += 1;
    }

    pub fn on_handed_back(&mut self, op: Op) {
        if let Some(open) = self.open.get_mut(&op) {
            *open -= 1;
        }
    }

    /// I3: identical answers; the operation did take effect.
    pub fn on_answer(&mut self, op: Op, answer: Bytes) -> Check {
        ensure!(self.effects.contains_key(&op), "{op:?} is answered without having been executed");
        let first = self.answers.entry(op).or_insert_with(|| answer.clone());
        ensure!(*first == answer, "I3: {op:?} is answered differently the second time");
        Ok(())
    }

    /// I11: whatever was answered before this write was proposed stands before it.
    pub fn on_done(&mut self, seq: u64, answered_before: u64) -> Check {
        ensure!(seq > answered_before, "I11: proposed after the answer of {answered_before}, ordered at {seq}");
        self.answered_seq = self.answered_seq.max(seq);
        Ok(())
    }
}
