//! The checkers: what must hold, whatever happened. Each returns the [`Violation`] it found.

pub mod model;
pub mod promises;
pub mod voters;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use pygmy_node::machine::ConnId;
use pygmy_node::node::Node;
use pygmy_node::roles::replica::StoreReplica;
use pygmy_node::settings::ClusterSettings;
use pygmy_node::store::Store;
use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::frame::Frame;
use pygmy_proto::limits::{BATCH_BYTES_MAX, CLIENT_BODY_MAX};
use pygmy_proto::message::{
    Ack, Books, BooksOk, Epoch, LookupOk, Membership, OrderOk, Orders, OrdersOk, Promise, ReplicaBeat, SearchOk,
    SessionOpened, TopicsOk, WriteOk,
};
use pygmy_proto::{ErrorBody, ErrorCode, Kind, Retry, codec};
use pygmy_ring::{Base, Limits, LogUuid, Queues};

use self::model::{Id, Model};
use self::promises::{Promises, Speaker};
use self::voters::{Voters, is_majority};
use crate::disk::Disk;
use crate::rare::Rare;
use crate::reads::Read;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one, in the words of the README.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

/// Nothing found, or the first thing found.
pub type Check = Result<(), Violation>;

fn broken<T>(invariant: &'static str, detail: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { invariant, detail: detail.into() })
}

fn ensure(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { broken(invariant, detail()) }
}

/// I13: no queue of a replica is above its bound, and the last batch over a bound of bytes is over by no more than itself.
/// An epoch's first entry is ordered whatever else is under way.
fn queues_are_bounded(name: &str, queues: &Queues, epochs: u64) -> Check {
    let limits = Limits::default();
    let batch_max = BATCH_BYTES_MAX + CLIENT_BODY_MAX;
    let bounds = [
        ("writes wait to be numbered", queues.pending, limits.pending_max),
        ("bytes wait to be numbered", queues.pending_bytes, limits.pending_bytes_max),
        ("batches are uncommitted", queues.uncommitted_batches, limits.uncommitted_batches_max + epochs as usize),
        ("bytes are uncommitted", queues.uncommitted_bytes, limits.uncommitted_bytes_max + batch_max),
        ("bytes came early", queues.early_bytes, limits.early_bytes_max),
    ];
    match bounds.iter().find(|(_, held, max)| held > max) {
        None => Ok(()),
        Some((what, held, max)) => broken("I13", format!("{name}: {held} {what}, the bound is {max}")),
    }
}

/// An answer, to be shown.
fn said(kind: u16, body: &[u8]) -> String {
    let error = (kind == Kind::Error as u16).then(|| codec::decode::<ErrorBody>(body).ok()).flatten();
    let kind = Kind::from_u16(kind);
    error.map_or_else(|| format!("{kind:?}"), |error| error.to_string())
}

/// I7: an entry that is acknowledged is on the platter.
fn has(name: &str, disk: &Disk, seq: u64, hash: u128) -> Check {
    ensure(disk.holds(seq, hash), "I7", || format!("{name} acknowledges seq {seq}, which is not on its platter"))
}

/// A process, for the checkers.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Its node.
    pub name: &'a str,
    /// Number of the node.
    pub number: u16,
    /// Tells the process from all others.
    pub boot: u64,
}

/// What was asked for a write.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its identity.
    pub id: Id,
    /// Its command.
    pub payload: Bytes,
    /// No counter below this is wanted any more.
    pub released_below: u64,
}

/// Everything the checkers know of a run.
#[derive(Debug)]
pub struct Checker {
    voters: Voters,
    /// Hash of the last entry of every batch that was ordered, by its epoch and first position.
    ordered: BTreeMap<(Epoch, u64), u128>,
    /// Hash of the last entry of every committed batch, by its position.
    committed: BTreeMap<u64, u128>,
    /// State hashes at the positions where replicas were seen.
    states: BTreeMap<u64, u64>,
    /// The committed log has been replayed up to here.
    upto: u64,
    upto_hash: u128,
    last_time_us: u64,
    model: Model,
    /// The logs that ever had the batch with this last hash on their platters.
    platters: HashMap<u128, BTreeSet<LogUuid>>,
    /// The highest epoch that each log has answered for.
    promises: BTreeMap<LogUuid, Epoch>,
    /// Committed log compared so far, by process.
    compared: BTreeMap<u64, u64>,
    /// Which process held the token of an epoch at each hop.
    holders: BTreeMap<(Epoch, u64), u64>,
    /// Highest position of a write that was answered to anybody.
    acknowledged: u64,
    /// Highest position of any answer to anybody, reads included.
    answered: u64,
    /// The same by front process.
    by_front: BTreeMap<u64, u64>,
    /// First answer of each write.
    answers: BTreeMap<Id, (u16, Bytes)>,
    /// Highest position answered before a write was first asked for, and what the client meant by it.
    asked: BTreeMap<Id, (u64, u64)>,
    sessions: BTreeMap<u64, usize>,
    /// Writes that were handed back as not taken and never asked again.
    abandoned: Vec<Id>,
    kept: Promises,
}

impl Checker {
    /// One that has seen nothing yet of a cluster.
    pub fn new(cluster: &ClusterSettings) -> Self {
        Self {
            voters: Voters::new(cluster),
            ordered: BTreeMap::new(),
            committed: BTreeMap::new(),
            states: BTreeMap::new(),
            upto: 0,
            upto_hash: 0,
            last_time_us: 0,
            model: Model::default(),
            platters: HashMap::new(),
            promises: BTreeMap::new(),
            compared: BTreeMap::new(),
            holders: BTreeMap::new(),
            acknowledged: 0,
            answered: 0,
            by_front: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: BTreeMap::new(),
            sessions: BTreeMap::new(),
            abandoned: Vec::new(),
            kept: Promises::default(),
        }
    }
    /// The latest configuration that is committed.
    pub fn settled(&self) -> &Membership {
        self.voters.settled()
    }
    /// Whether the latest configuration that is committed names the log `uuid`.
    pub fn is_voter(&self, uuid: LogUuid) -> bool {
        self.settled().voters.iter().any(|voter| voter.log_uuid == uuid)
    }
    /// Whether the log `uuid` was removed for ever.
    pub fn is_removed(&self, uuid: LogUuid) -> bool {
        self.settled().removed.contains(&uuid)
    }
    /// Voters that must have an entry, by the latest configuration that is committed.
    pub fn majority(&self) -> usize {
        self.settled().voters.len() / 2 + 1
    }
    /// The twin.
    pub fn model(&self) -> &Model {
        &self.model
    }
    /// Committed and replayed up to.
    pub fn upto(&self) -> u64 {
        self.upto
    }
    /// Sessions opened.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
    /// The lowest position at which a read through this front process may be answered now, on top of what its session
    /// has seen.
    pub fn floor_of_front(&self, boot: u64) -> u64 {
        self.by_front.get(&boot).copied().unwrap_or(0)
    }

    /// I5, I6, I9, I10: a process in whose log `membership` is in force appends a batch; `disk` has not got it yet.
    pub fn on_append(&mut self, who: Who<'_>, disk: &Disk, batch: &Batch, membership: Option<&Membership>) -> Check {
        let (header, last, name) = (batch.header(), batch.last_seq(), who.name);
        let before = disk.end_before(header.first_seq);
        ensure(header.first_seq == before.0 + 1 && header.hash_before == before.1, "I9", || {
            format!("{name} appends {}..{last} behind {}: not the next of its history", header.first_seq, before.0)
        })?;
        // What goes was acknowledged in the epoch of its end at the latest: peers that remember that must see a later cut.
        let (end, cut) = (disk.view_end(), disk.cut());
        ensure(before.0 == end.seq || cut > end.epoch, "I6", || {
            format!("{name} removes what follows {} up to {end:?}, and has written down {cut:?}", before.0)
        })?;
        if before.0 != end.seq {
            self.voters.on_cut(who.boot);
        }
        let committed = self.compared.get(&who.boot).copied().unwrap_or(0);
        ensure(header.first_seq > committed, "I1", || {
            format!("{name} appends {}..{last} in place of what it knew committed up to {committed}", header.first_seq)
        })?;
        let at = (header.epoch, header.first_seq);
        ensure(header.origin == who.number || self.ordered.contains_key(&at), "I5", || {
            format!("{name} appends {at:?}, which its origin, node {}, has not", header.origin)
        })?;
        let begins = batch.entries().next().is_some_and(|entry| entry.kind == EntryKind::NewEpoch);
        // One that lost its disk fetches what it began when it had another.
        let is_its_own = header.origin == who.number && !self.ordered.contains_key(&at);
        if let Some(membership) = membership.filter(|_| begins && is_its_own) {
            self.is_promised(name, header.epoch, disk, membership)?;
        }
        let first = self.ordered.entry(at).or_insert(header.hash_last);
        ensure(*first == header.hash_last, "I5", || format!("{name} appends another batch at {at:?} than was ordered"))
    }

    /// I10: whoever begins an epoch has the promises of a majority of the voters that its log names, its own among them.
    fn is_promised(&self, name: &str, epoch: Epoch, own: &Disk, membership: &Membership) -> Check {
        let by_own = |uuid: LogUuid| uuid == own.uuid() && own.promised() >= epoch;
        let by_others = |uuid: LogUuid| self.promises.get(&uuid).is_some_and(|promised| *promised >= epoch);
        ensure(is_majority(membership, |uuid| by_own(uuid) || by_others(uuid)), "I10", || {
            format!(
                "{name} begins {epoch:?} without the promises of a majority of the voters in its log: {membership:?}"
            )
        })
    }

    /// I5: one process for each hop of an epoch, and only the highest one counts.
    pub fn on_token(&mut self, who: Who<'_>, epoch: Epoch, hop: u64) -> Check {
        let highest = self.holders.range((epoch, 0)..=(epoch, u64::MAX)).next_back().map_or(0, |((_, hop), _)| *hop);
        let name = who.name;
        ensure(hop >= highest, "I5", || format!("{name} holds the token of {epoch:?} at hop {hop}, after {highest}"))?;
        let holder = *self.holders.entry((epoch, hop)).or_insert(who.boot);
        ensure(holder == who.boot, "I5", || format!("{name} holds the token of {epoch:?} at hop {hop}: another did"))
    }

    /// Notes what the platter of a log has.
    pub fn on_platter(&mut self, disk: &Disk) {
        for batch in disk.platter().iter().rev() {
            if !self.platters.entry(batch.header().hash_last).or_default().insert(disk.uuid()) {
                return;
            }
        }
    }

    /// I6, I7: what a frame answers for is on the platter, and never less than was answered for before.
    pub fn on_sent(&mut self, name: &str, disk: &Disk, frame: &Frame<'_>) -> Check {
        match frame.kind() {
            Some(Kind::Promise) => {
                let Ok(promise) = frame.decode::<Promise>() else { return Ok(()) };
                self.answers_for(name, disk, promise.epoch)
            }
            Some(Kind::Ack) => {
                let Ok(ack) = frame.decode::<Ack>() else { return Ok(()) };
                self.answers_for(name, disk, ack.epoch)?;
                has(name, disk, ack.durable, ack.hash)
            }
            _ => Ok(()),
        }
    }

    /// The same of a heartbeat.
    pub fn on_beat(&self, name: &str, disk: &Disk, beat: &ReplicaBeat) -> Check {
        has(name, disk, beat.durable, beat.durable_hash)
    }

    fn answers_for(&mut self, name: &str, disk: &Disk, epoch: Epoch) -> Check {
        let durable = disk.promised();
        ensure(epoch <= durable, "I6", || {
            format!("{name} answers for {epoch:?}, and would not know after a crash: {durable:?} is on its disk")
        })?;
        let promised = self.promises.entry(disk.uuid()).or_default();
        ensure(epoch >= *promised, "I6", || format!("{name} answers for {epoch:?} and has for {promised:?}"))?;
        *promised = epoch;
        Ok(())
    }

    /// I1, I8, I13, I14 of one replica after its turn; replays what it is the first to know as committed.
    pub fn on_replica(&mut self, who: Who<'_>, replica: &StoreReplica) -> Check {
        let (ring, name) = (replica.ring(), who.name);
        queues_are_bounded(name, &ring.queues(), ring.counters().epochs_started)?;
        let committed = ring.committed();
        let base = ring.log().base();
        let mut compared = self.compared.get(&who.boot).copied().unwrap_or(0);
        if base.end.seq > compared {
            self.is_committed(name, &base)?;
            compared = base.end.seq;
        }
        let end = ring.log().last_seq();
        ensure(committed <= end, "I8", || format!("{name} commits up to {committed}, its log ends at {end}"))?;
        ensure(committed >= compared, "I1", || format!("{name} knew {compared} to be committed, now {committed}"))?;
        let mut done = compared;
        let counted_by = if committed > self.upto {
            self.voters.counted_by(who.boot, ring.membership(), ring.log().batches_from(compared + 1))
        } else {
            Vec::new()
        };
        for batch in ring.log().batches_from(compared + 1) {
            if batch.last_seq() > committed {
                break;
            }
            self.on_committed(name, batch, &counted_by)?;
            done = batch.last_seq();
        }
        self.compared.insert(who.boot, done);
        self.voters.on_turn(who.boot, ring.membership());
        let (applied, hash) = (replica.applied(), ring.state_hash());
        let first = *self.states.entry(applied).or_insert(hash);
        ensure(first == hash, "I14", || {
            format!("{name} hashes to {hash:016x} at applied {applied}, another replica to {first:016x}")
        })
    }

    /// I1: what a log goes on behind is what was committed there.
    fn is_committed(&self, name: &str, base: &Base) -> Check {
        let same = base.end.seq == 0 || self.committed.get(&base.end.seq) == Some(&base.hash);
        ensure(same, "I1", || format!("{name} goes on behind {base:?}, which was not committed"))
    }

    /// I1, I4, I14 of a snapshot that a replica goes on from: `store` as of `base`, and what its state hashes to.
    pub fn on_snapshot(&self, name: &str, base: &Base, store: &Store, hash: u64) -> Check {
        let seq = base.end.seq;
        if seq == 0 {
            return Ok(());
        }
        self.is_committed(name, base)?;
        let known = self.states.get(&seq).copied();
        ensure(known == Some(hash), "I14", || {
            format!("{name} has a snapshot of {seq} that hashes to {hash:016x}, replicas there to {known:016x?}")
        })?;
        self.is_as_the_twin(name, store, seq)
    }

    fn on_committed(&mut self, name: &str, batch: &Batch, counted_by: &[Membership]) -> Check {
        let (header, last) = (batch.header(), batch.last_seq());
        if last <= self.upto {
            let same = self.committed.get(&last) == Some(&header.hash_last);
            return ensure(same, "I1", || format!("{name} commits another entry at seq {last} than was committed"));
        }
        ensure(header.first_seq == self.upto + 1 && header.hash_before == self.upto_hash, "I9", || {
            format!("{name} committed {} behind {}", header.first_seq, self.upto)
        })?;
        let none = BTreeSet::new();
        let durable = self.platters.get(&header.hash_last).unwrap_or(&none);
        let have = |membership: &Membership| is_majority(membership, |uuid| durable.contains(&uuid));
        ensure(counted_by.iter().any(have), "I8", || {
            format!("{name} commits {last}, which {} logs have on disk, no majority of {counted_by:?}", durable.len())
        })?;
        self.voters.on_committed(batch);
        ensure(header.time_us > self.last_time_us, "I9", || {
            format!("the time of the batch at {} does not rise", header.first_seq)
        })?;
        for entry in batch.entries() {
            self.model.apply(entry.seq, header.time_us, entry.kind, entry.body);
        }
        self.committed.insert(last, header.hash_last);
        self.upto = last;
        self.upto_hash = header.hash_last;
        self.last_time_us = header.time_us;
        Ok(())
    }

    /// A write was handed back as not taken, and its client asks no more: it must never take effect.
    pub fn on_abandoned(&mut self, id: Id) {
        self.abandoned.push(id);
    }

    /// A write is asked for the first time; `intent` is what the client means by it, under whatever identity.
    pub fn on_asked(&mut self, id: Id, intent: u64) {
        let acknowledged = self.acknowledged;
        self.asked.entry(id).or_insert((acknowledged, intent));
    }

    /// I3, I11 of a session that was opened when `asked_after` had been answered.
    pub fn on_session(&mut self, client: usize, asked_after: u64, body: &[u8]) -> Result<u64, Violation> {
        let Ok(SessionOpened { session }) = codec::decode(body) else {
            return broken("reads", "a SessionOpened that is none");
        };
        ensure(self.model.is_session(session), "I2", || format!("session {session} is not in the committed log"))?;
        ensure(session > asked_after, "I11", || format!("session {session} was asked for after seq {asked_after}"))?;
        let other = self.sessions.insert(session, client);
        ensure(other.is_none(), "I3", || format!("session {session} was given twice"))?;
        Ok(session)
    }

    /// Highest position that was answered to anybody.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Highest position of any answer to anybody, reads included: a fresh read that is asked now reflects it.
    pub fn answered(&self) -> u64 {
        self.answered.max(self.acknowledged)
    }

    /// I2, I3, I11 of a final answer to a write.
    pub fn on_write(&mut self, front: u64, asked: &Asked, kind: u16, body: &[u8]) -> Check {
        let id = asked.id;
        if kind == Kind::Error as u16 {
            let Ok(error) = codec::decode::<ErrorBody>(body) else { return broken("reads", "an Error that is none") };
            if let Some(ErrorCode::SessionExpired | ErrorCode::IdReused | ErrorCode::WindowFull) = error.known_code() {
                let expired = error.code == ErrorCode::SessionExpired as u16;
                ensure(!expired || id.1 < asked.released_below, "I3", || {
                    format!("write {id:?} expired, its client had let go those below {}", asked.released_below)
                })?;
                return ensure(self.model.was_refused(id, error.code), "I3", || {
                    format!("write {id:?} is answered {error}, which the log does not say")
                });
            }
        }
        let Some(executed) = self.model.executed(id) else {
            return broken("I2", format!("write {id:?} is answered and not in the committed log"));
        };
        let seq = executed.seq;
        ensure(executed.payload == asked.payload, "I3", || {
            format!("write {id:?} is answered with what another payload of its id did at seq {seq}")
        })?;
        self.compare(id, kind, body)?;
        let before = self.asked.get(&id).map_or(0, |(before, _)| *before);
        ensure(seq > before, "I11", || format!("write {id:?} has seq {seq}, asked for after {before} was answered"))?;
        let (first_kind, first) = self.answers.entry(id).or_insert_with(|| (kind, Bytes::copy_from_slice(body)));
        ensure(*first_kind == kind && **first == *body, "I3", || {
            format!("write {id:?} was answered otherwise before")
        })?;
        self.acknowledged = self.acknowledged.max(seq);
        if kind == Kind::WriteOk as u16 {
            let by_front = self.by_front.entry(front).or_insert(0);
            *by_front = seq.max(*by_front);
        }
        Ok(())
    }

    /// An executed write's answer is what the twin says.
    fn compare(&self, id: Id, kind: u16, body: &[u8]) -> Check {
        let Some(executed) = self.model.executed(id) else { return Ok(()) };
        let seq = executed.seq;
        let same = match &executed.result {
            Ok(answer) => {
                kind == Kind::WriteOk as u16
                    && codec::decode::<WriteOk>(body).is_ok_and(|given| given == *answer)
                    && codec::encode(answer) == body
            }
            Err(code) => {
                kind == Kind::Error as u16
                    && codec::decode::<ErrorBody>(body).is_ok_and(|error| error.known_code() == Some(*code))
            }
        };
        ensure(same, "I4", || {
            let given = codec::decode::<WriteOk>(body)
                .map_or_else(|_| format!("{:?}", codec::decode::<ErrorBody>(body)), |ok| format!("{ok:?}"));
            format!("write {id:?} at seq {seq} is answered {given}, the log says {:?}", executed.result)
        })
    }

    /// A front takes in a request of a client.
    pub fn on_asked_for(&mut self, front: u64, conn: ConnId, frame: &Frame<'_>) {
        self.kept.on_asked(front, conn, frame);
    }

    /// I11, I12 and the contents of what a front says to a client.
    pub fn on_said(&mut self, by: Speaker<'_>, conn: ConnId, frame: &Frame<'_>, rare: &mut Rare) -> Check {
        if frame.kind() == Some(Kind::WriteOk) {
            self.kept.on_acknowledged(by.boot, by.at, frame.body);
            return Ok(());
        }
        let Some(question) = self.kept.take(by.boot, conn, &frame.header) else { return Ok(()) };
        let Some(seq) = self.contents(&question.read, frame.header.kind, frame.body)? else { return Ok(()) };
        ensure(seq <= self.upto, "I12", || {
            format!("{} answers {:?} at seq {seq}, committed is {}", by.name, question.read, self.upto)
        })?;
        self.kept.on_answer(by, &question, seq, rare)
    }

    /// An answer to a read is what the twin says at the position that it names; that position, if it tells of the store.
    fn contents(&self, read: &Read, kind: u16, body: &[u8]) -> Result<Option<u64>, Violation> {
        let bad = || Violation { invariant: "reads", detail: format!("{read:?}: an answer that is none") };
        let (seq, right) = match read {
            _ if kind == Kind::Error as u16 => {
                let error: ErrorBody = codec::decode(body).map_err(|_| bad())?;
                let seq = error.seq;
                let absent = match (read, error.known_code()) {
                    (Read::Lookup(read), Some(ErrorCode::UnknownBook)) => self.model.lookup(seq, read).is_none(),
                    (Read::Search(read), Some(ErrorCode::UnknownTopic)) => self.model.search(seq, read).is_none(),
                    (Read::Order(read), Some(ErrorCode::UnknownOrder)) => self.model.order(seq, read).is_none(),
                    _ if error.retry != Retry::Never => return Ok(None),
                    _ => false,
                };
                (seq, absent)
            }
            Read::Lookup(read) => {
                let LookupOk { seq, book } = codec::decode(body).map_err(|_| bad())?;
                (seq, self.model.lookup(seq, read) == Some(book))
            }
            Read::Search(read) => {
                let page: SearchOk = codec::decode(body).map_err(|_| bad())?;
                (page.seq, self.model.search(page.seq, read) == Some(page))
            }
            Read::Topics(read) => {
                let page: TopicsOk = codec::decode(body).map_err(|_| bad())?;
                (page.seq, self.model.topics(page.seq, read) == page)
            }
            Read::Books(read) => {
                let page: BooksOk = codec::decode(body).map_err(|_| bad())?;
                (page.seq, self.model.books(page.seq, read) == page)
            }
            Read::Order(read) => {
                let OrderOk { seq, order } = codec::decode(body).map_err(|_| bad())?;
                (seq, self.model.order(seq, read) == Some(order))
            }
            Read::Orders(read) => {
                let page: OrdersOk = codec::decode(body).map_err(|_| bad())?;
                (page.seq, self.model.orders_page(page.seq, read) == page)
            }
        };
        ensure(right || seq > self.upto, "reads", || {
            format!("{read:?} is answered {}, not what the log says at seq {seq}", said(kind, body))
        })?;
        Ok(Some(seq))
    }

    /// I11 of an answered read, whose contents were looked at when it was sent; the position that it reflects.
    pub fn on_read(&mut self, read: &Read, floor: u64, kind: u16, body: &[u8]) -> Result<u64, Violation> {
        let seq = if kind == Kind::Error as u16 {
            codec::decode::<ErrorBody>(body).ok().map(|error| error.seq)
        } else {
            codec::decode_prefix::<u64>(body).ok().map(|(seq, _)| seq)
        };
        let Some(seq) = seq else { return broken("reads", format!("{read:?}: an answer that is none")) };
        ensure(seq >= floor, "I11", || format!("{read:?} reflects seq {seq}, the least for it is {floor}"))?;
        self.answered = self.answered.max(seq);
        Ok(seq)
    }

    /// Everything that must hold of a replica once the cluster has come to rest.
    pub fn at_rest(&self, name: &str, node: &Node) -> Check {
        let Some(replica) = node.replica() else { return Ok(()) };
        let (store, applied, upto) = (replica.store(), replica.applied(), self.upto);
        ensure(applied == upto, "liveness", || format!("{name} has applied {applied} of {upto}"))?;
        self.is_as_the_twin(name, store, applied)?;
        self.stock_adds_up(name, replica)?;
        self.nothing_is_missing(name, replica)
    }

    /// I4: a store has the books and orders that the log says.
    fn is_as_the_twin(&self, name: &str, store: &Store, applied: u64) -> Check {
        let limit = u32::MAX;
        let all = store.catalog().page(applied, limit, None);
        ensure(all == self.model.books(applied, &Books { floor: 0, limit, after: None }), "I4", || {
            format!("{name} has other books than the log says: {all:?}")
        })?;
        let orders = store.ledger().page(applied, None, limit, None);
        let read = Orders { floor: 0, book: None, limit, before: None };
        ensure(orders == self.model.orders_page(applied, &read), "I4", || {
            format!("{name} has other orders than the log says")
        })
    }

    /// I4: what came in is what went out, what was sold and what is there.
    fn stock_adds_up(&self, name: &str, replica: &StoreReplica) -> Check {
        let store = replica.store();
        let mut sold: BTreeMap<String, u64> = BTreeMap::new();
        for number in self.model.orders().keys() {
            for line in store.ledger().get(*number).iter().flat_map(|order| order.lines.iter()) {
                *sold.entry(line.book.to_string()).or_insert(0) += u64::from(line.copies);
            }
        }
        for (id, flow) in self.model.flows() {
            let stock = pygmy_proto::BookId::new(id).ok().and_then(|id| store.catalog().get(&id));
            let stock = stock.map_or(0, |book| u64::from(book.stock));
            let sold = sold.get(id).copied().unwrap_or(0);
            ensure(flow.entered == flow.withdrawn + sold + stock, "I4", || {
                format!(
                    "{name}: {id} came in {}, went out {}, sold {sold}, there are {stock}",
                    flow.entered, flow.withdrawn
                )
            })?;
        }
        Ok(())
    }

    /// I2: every order that was acknowledged to somebody is in the ledger.
    fn nothing_is_missing(&self, name: &str, replica: &StoreReplica) -> Check {
        for (id, (kind, body)) in &self.answers {
            let Ok(answer) = codec::decode::<WriteOk>(body) else { continue };
            let pygmy_proto::message::Outcome::Bought { order } = answer.outcome else { continue };
            let found = replica.store().ledger().get(order.number);
            ensure(*kind == Kind::WriteOk as u16 && found.as_ref() == Some(&order), "I2", || {
                format!("{name} has {found:?} for the acknowledged order {} of write {id:?}", order.number)
            })?;
        }
        Ok(())
    }

    /// I3: what a client meant to do once took effect once, whatever the identities under which it asked.
    pub fn intents_once(&self) -> Check {
        if let Some(id) = self.abandoned.iter().find(|id| self.model.executed(**id).is_some()) {
            return broken("I3", format!("write {id:?} was handed back as not taken, and took effect"));
        }
        let mut done: BTreeMap<u64, Id> = BTreeMap::new();
        for (id, executed) in self.model.all_executed().filter(|(_, executed)| executed.result.is_ok()) {
            let Some((_, intent)) = self.asked.get(id) else {
                return broken("I3", format!("write {id:?} at seq {} was never asked for", executed.seq));
            };
            if let Some(other) = done.insert(*intent, *id) {
                return broken("I3", format!("a client's one wish took effect as {other:?} and as {id:?}"));
            }
        }
        Ok(())
    }
}
