//! What must hold after every step, seen from outside all replicas.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::message::{Epoch, Membership};
use pygmy_ring::config::LogUuid;
use pygmy_ring::{Config, Replica};

use super::disk::Disk;
use super::machine::{Journal, Op};
use super::rare::configuration_in;

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

/// What one replica was seen to have done, since its process began.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub committed: u64,
    pub effects: usize,
}

/// The one history that there may be, and what was said about it.
#[derive(Debug, Default)]
pub struct Checker {
    /// Committed batches by first position.
    history: BTreeMap<u64, Batch>,
    pub end: u64,
    /// What was ordered, by epoch and first position.
    ordered: HashMap<(Epoch, u64), u128>,
    /// Who held the token of an epoch at each hop: node and boot.
    holders: HashMap<(Epoch, u64), (u16, u64)>,
    hops: HashMap<Epoch, u64>,
    /// Logs that ever had the batch with this last hash on their platters.
    platters: HashMap<u128, HashSet<LogUuid>>,
    /// The highest epoch that each log has answered for, and all that have promised an epoch.
    promises: HashMap<LogUuid, Epoch>,
    pledged: HashMap<Epoch, HashSet<LogUuid>>,
    /// Where each epoch begins, and where the voters changed last in it.
    starts: HashMap<Epoch, u64>,
    config_seq: HashMap<Epoch, u64>,
    state_hashes: HashMap<u64, u64>,
    /// Every configuration that was ever in force anywhere, by its id.
    memberships: HashMap<u64, Vec<Membership>>,
    effects: HashMap<Op, u64>,
    /// Attempts of each operation that were not handed back.
    open: HashMap<Op, usize>,
    answers: HashMap<Op, Bytes>,
    /// Highest position answered so far.
    pub answered_seq: u64,
}

impl Checker {
    /// I5, I9: one batch for each (epoch, position). Whether it is a new one.
    pub fn on_append(
        &mut self,
        node: u16,
        batch: &Batch,
        replica: &Replica<Journal>,
        disk: &Disk,
    ) -> Result<bool, String> {
        let header = batch.header();
        let at = (header.epoch, header.first_seq);
        let new = !self.ordered.contains_key(&at);
        if new {
            ensure!(header.origin == node, "I5: node {node} appends {at:?}, which its origin has not");
            self.on_ordered(batch, replica, disk)?;
        }
        let known = *self.ordered.entry(at).or_insert(header.hash_last);
        ensure!(known == header.hash_last, "I5: node {node} appends another batch at {at:?}");
        Ok(new)
    }

    /// An epoch begins once, with a majority of the voters that its own log names; voters change by one at a time.
    fn on_ordered(&mut self, batch: &Batch, replica: &Replica<Journal>, disk: &Disk) -> Check {
        let (epoch, seq) = (batch.header().epoch, batch.header().first_seq);
        let membership = replica.membership();
        if batch.entries().next().is_some_and(|entry| entry.kind == EntryKind::NewEpoch) {
            let start = *self.starts.entry(epoch).or_insert(seq);
            ensure!(start == seq, "I5: {epoch:?} begins at {start} and at {seq}");
            let none = HashSet::new();
            let pledged = self.pledged.get(&epoch).unwrap_or(&none);
            let own = |uuid: LogUuid| uuid == disk.uuid && disk.vote.promised >= epoch;
            let count = membership.voters.iter().filter(|v| pledged.contains(&v.log_uuid) || own(v.log_uuid)).count();
            ensure!(
                count > membership.voters.len() / 2,
                "{epoch:?} begins with the promises of {count} of {:?}",
                membership.voters
            );
        }
        if let Some(next) = configuration_in(batch) {
            let before = self.memberships.get(&(next.id - 1)).into_iter().flatten();
            let apart = |m: &Membership| {
                let lacks = |a: &Membership, b: &Membership| {
                    a.voters.iter().filter(|v| !b.voters.iter().any(|w| w.log_uuid == v.log_uuid)).count()
                };
                lacks(m, &next) + lacks(&next, m)
            };
            ensure!(before.clone().any(|m| apart(m) <= 1), "two voters change at once at {seq}: {next:?}");
            let start = self.starts.get(&epoch).copied().unwrap_or(u64::MAX);
            let settled = replica.committed() >= start.max(self.config_seq.get(&epoch).copied().unwrap_or(0));
            ensure!(settled, "the voters change at {seq} while what was before is not committed: {replica:?}");
            self.config_seq.insert(epoch, seq);
        }
        Ok(())
    }

    /// I5: one process for each hop of an epoch, and only the highest one counts.
    pub fn on_holder(&mut self, epoch: Epoch, node: u16, boot: u64, hop: u64) -> Check {
        let holder = *self.holders.entry((epoch, hop)).or_insert((node, boot));
        ensure!(holder == (node, boot), "I5: hop {hop} of {epoch:?} is held by node {node} and was by {holder:?}");
        let highest = self.hops.entry(epoch).or_default();
        ensure!(hop >= *highest, "I5: node {node} holds hop {hop} of {epoch:?} after hop {highest}");
        *highest = hop;
        Ok(())
    }

    pub fn on_platter(&mut self, uuid: LogUuid, batches: &[Batch]) {
        for batch in batches.iter().rev() {
            if !self.platters.entry(batch.header().hash_last).or_default().insert(uuid) {
                return;
            }
        }
    }

    /// I6: what a log answers for never goes back.
    pub fn on_promise(&mut self, uuid: LogUuid, epoch: Epoch) -> Check {
        self.pledged.entry(epoch).or_default().insert(uuid);
        self.on_ack(uuid, epoch)
    }

    pub fn on_ack(&mut self, uuid: LogUuid, epoch: Epoch) -> Check {
        let promised = self.promises.entry(uuid).or_default();
        ensure!(epoch >= *promised, "I6: a log that answered for {promised:?} answers for {epoch:?}");
        *promised = epoch;
        Ok(())
    }

    /// I1, I3, I8, I13, I14 of one replica after its turn.
    pub fn on_turn(
        &mut self,
        node: u16,
        seen: &mut Seen,
        replica: &Replica<Journal>,
        disk: &Disk,
        config: &Config,
    ) -> Check {
        let known = self.memberships.entry(replica.membership().id).or_default();
        if !known.contains(replica.membership()) {
            known.push(replica.membership().clone());
        }
        let committed = replica.committed();
        ensure!(committed <= replica.log().last_seq(), "I8: node {node} commits {committed} beyond its log");
        ensure!(committed >= seen.committed, "node {node} has committed {} and now {committed}", seen.committed);
        while seen.committed < committed {
            let Some(batch) = disk.batch_at(seen.committed + 1) else {
                // A snapshot has brought it.
                seen.committed = committed;
                break;
            };
            self.on_commit(node, batch, replica)?;
            seen.committed = batch.last_seq().min(committed);
        }
        let hash = replica.state_hash();
        let known = *self.state_hashes.entry(replica.applied()).or_insert(hash);
        ensure!(known == hash, "I14: node {node} is in another state at {}", replica.applied());
        let effects = &replica.machine().effects;
        for (seq, op) in &effects[seen.effects.min(effects.len())..] {
            ensure!(
                self.open.get(op).is_some_and(|open| *open > 0),
                "node {node} executes {op:?}, which was handed back"
            );
            let first = *self.effects.entry(*op).or_insert(*seq);
            ensure!(first == *seq, "I3: {op:?} took effect at {first} and at {seq}");
        }
        seen.effects = effects.len();
        let (queues, limits) = (replica.queues(), &config.limits);
        // An epoch's first entry is ordered whatever else is under way.
        let epochs = replica.counters().epochs_started as usize;
        ensure!(queues.pending <= limits.pending_max, "I13: {queues:?}");
        ensure!(queues.pending_bytes <= limits.pending_bytes_max, "I13: {queues:?}");
        ensure!(queues.uncommitted_batches <= limits.uncommitted_batches_max + epochs, "I13: {queues:?}");
        ensure!(queues.early_bytes <= limits.early_bytes_max, "I13: {queues:?}");
        Ok(())
    }

    /// I1, I8: whatever is committed anywhere is the same everywhere, and was on a majority's platters.
    fn on_commit(&mut self, node: u16, batch: &Batch, replica: &Replica<Journal>) -> Check {
        let (first, last) = (batch.header().first_seq, batch.last_seq());
        if let Some(known) = self.history.get(&first) {
            let same = known.bytes() == batch.bytes();
            ensure!(same, "I1: node {node} commits another batch at {first}..{last} than was committed before");
            return Ok(());
        }
        ensure!(first == self.end + 1, "I1: node {node} commits {first}..{last}, the history ends at {}", self.end);
        // A change of the voters may have been ordered in the turn in which this was committed.
        let latest = replica.membership().id;
        let before = self.memberships.get(&(latest - 1)).into_iter().flatten();
        let counted: Vec<&Membership> = before.chain([replica.membership()]).collect();
        let none = HashSet::new();
        let platters = self.platters.get(&batch.header().hash_last).unwrap_or(&none);
        let durable = |m: &Membership| m.voters.iter().filter(|voter| platters.contains(&voter.log_uuid)).count();
        ensure!(
            counted.iter().any(|m| durable(m) > m.voters.len() / 2),
            "I8: node {node} commits {first}..{last}, which only {platters:?} have of {:?}",
            replica.membership().voters
        );
        self.end = last;
        self.history.insert(first, batch.clone());
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

    /// I2, I11: what is answered is in the history, behind whatever was answered before this write was proposed.
    pub fn on_done(&mut self, seq: u64, answered_before: u64) -> Check {
        ensure!(seq > answered_before, "I11: proposed after the answer of {answered_before}, ordered at {seq}");
        ensure!(seq <= self.end, "I2: {seq} is answered, the history ends at {}", self.end);
        self.answered_seq = self.answered_seq.max(seq);
        Ok(())
    }
}
